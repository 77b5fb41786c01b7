"""Sphinx's settings: `make docs` builds the site, with warnings as errors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

from generated_text import with_generated_text  # noqa: E402
from method_pictures import draw_methods  # noqa: E402
from site_links import GENERATED, copy_experiments, with_site_links  # noqa: E402

import pyro_ssl  # noqa: E402

project = "pyro-ssl"
author = project_copyright = "pyro-ssl developers"
release = version = pyro_ssl.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "mathml",
]
root_doc = "index"
html_theme = "furo"
html_title = f"pyro-ssl {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
default_role = "code"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# tutorials are run from scratch whenever they are read: their results are those of this code
nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars, and notes of other packages about notebooks

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
autodoc_preserve_defaults = True  # presets.NETWORKS, not the thirty numbers in it
python_use_unqualified_type_names = True
maximum_signature_line_length = 88  # longer ones have one argument a line


def _read(app: Any, docname: str, source: list[str]) -> None:
    """Fill in generated text, and turn links of the repository into links of the site."""
    source[0] = with_generated_text(with_site_links(source[0], docname))


def setup(app: Any) -> None:
    copy_experiments()
    draw_methods(GENERATED / "methods")
    app.connect("source-read", _read)

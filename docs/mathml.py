"""Formulas as MathML, which browsers draw themselves: the site needs no script and no network."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

BIG = re.compile(r"\\[bB]ig(?![a-zA-Z])")
"""Sizes of brackets, which docutils does not know; in MathML brackets grow by themselves."""
LOG = re.compile(r"\\log(?![a-zA-Z])")
"""docutils leaves no space between `log` and its argument."""


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the renderer `mathml`."""
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def mathml(tex: str, as_block: bool) -> str:
    """MathML of a formula.

    Raises:
        MathError: docutils does not know a command in it.
    """
    known = LOG.sub(r"\\log\\,", BIG.sub("", tex)).replace("\\dots", "\\ldots")
    return tex2mathml(" ".join(known.split()), as_block=as_block)


def _visit_inline(self: Any, node: nodes.math) -> None:
    self.body.append(mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def _visit_block(self: Any, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math">{mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode

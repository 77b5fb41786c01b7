"""Every example in a docstring runs and prints what it says."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def module_name(path: Path) -> str:
    """The name by which a file of the package, or of models/ and guides/, is imported."""
    inside = path.relative_to(ROOT).with_suffix("")
    parts = [part for part in inside.parts if part != "__init__"]
    return ".".join(parts if parts[0] == "pyro_ssl" else ["pyro_ssl", *parts])


PATHS = [
    path for folder in ("pyro_ssl", "models", "guides") for path in (ROOT / folder).rglob("*.py")
]
MODULES = sorted(module_name(path) for path in PATHS if ">>>" in path.read_text())


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name):
    failed, tried = doctest.testmod(import_module(name), optionflags=FLAGS)
    assert tried and not failed

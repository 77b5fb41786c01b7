"""The direction of imports, the one name of every class, and that importing is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = sorted((ROOT / "pyro_ssl").glob("*.py"))
PROGRAMS = sorted([*(ROOT / "models").glob("*.py"), *(ROOT / "guides").glob("*.py")])
EVERYTHING = [*LIBRARY, *PROGRAMS, *sorted((ROOT / "experiments").glob("*.py")), *sorted((ROOT / "tests").glob("*.py"))]


def imports(path: Path) -> set[str]:
    """Full names that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found |= {f"{node.module}.{a.name}" for a in node.names}
    return found


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_programs_know_conditionals_only(path):
    below = ("conditionals", "networks", "layers", "weights", "mixtures")
    allowed = ("pyro", "torch", "collections.abc", "contextlib", "typing", *(f"pyro_ssl.{b}" for b in below))
    allowed += (f"pyro_ssl.{path.parent.name}.",)
    assert not [
        name for name in imports(path) if not f"{name}.".startswith(tuple(a.rstrip(".") + "." for a in allowed))
    ]


@pytest.mark.parametrize("path", [p for p in LIBRARY if p.stem not in ("zoo", "__init__")], ids=lambda p: p.name)
def test_only_the_zoo_knows_programs(path):
    assert not [n for n in imports(path) if n.startswith(("pyro_ssl.models", "pyro_ssl.guides"))]


@pytest.mark.parametrize(
    "name",
    [
        "layers",
        "networks",
        "traces",
        "conditionals",
        "elbo",
        "terms",
        "checks",
        "objective",
        "batches",
        "training",
        "prediction",
        "options",
        "augment",
        "backbones",
        "ratios",
        "calibration",
        "ood",
        "corruptions",
        "attacks",
        "acquisition",
    ],
)
def test_the_core_does_not_know_the_zoo(name):
    above = ("pyro_ssl.zoo", "pyro_ssl.saving", "pyro_ssl.estimator", "pyro_ssl.cli", "pyro_ssl.plots")
    assert not [n for n in imports(ROOT / "pyro_ssl" / f"{name}.py") if n.startswith(above)]


@pytest.mark.parametrize("path", EVERYTHING, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_programs_are_imported_by_their_public_name(path):
    assert not [n for n in imports(path) if n.split(".")[0] in ("models", "guides")]


def test_torchvision_is_imported_in_one_place():
    users = [p.name for p in LIBRARY if any(n.split(".")[0] == "torchvision" for n in imports(p))]
    assert users == ["vision.py"]


def test_the_public_names_are_there_and_cheap_to_import():
    code = """
import sys, pyro_ssl
assert not {"torch", "pyro", "sklearn", "matplotlib", "torchvision"} & set(sys.modules)
for name in pyro_ssl.__all__:
    assert getattr(pyro_ssl, name) is not None and name in dir(pyro_ssl)
assert "torchvision" not in sys.modules
try:
    pyro_ssl.nothing
except AttributeError as error:
    assert "nothing" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_checks_of_torchs_distributions_stay_as_they_were():
    code = (
        "from torch.distributions import Distribution as D; import pyro_ssl; from pyro_ssl import zoo; before = D._validate_args; "
        "zoo.build('m2', (4,), 2, flow=1); assert before and D._validate_args"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

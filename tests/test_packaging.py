"""The metadata of the package agree with each other: one version, one list of checks."""

import configparser
import re
from pathlib import Path

import pyro_ssl

ROOT = Path(__file__).parent.parent


def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg")
    return parser


def test_the_version_stands_in_one_place():
    assert setup()["metadata"]["version"] == "attr: pyro_ssl.__version__"
    newest = re.findall(r"^## (\d+\.\d+\.\d+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[0] == pyro_ssl.__version__
    for page in ("CITATION.cff", "pyproject.toml", "docs/conf.py"):
        assert pyro_ssl.__version__ not in (ROOT / page).read_text()


def test_every_folder_of_the_library_is_packaged():
    packages = setup()["options"]["packages"].split()
    folders = [path.parent for path in (ROOT / "pyro_ssl").rglob("__init__.py")]
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(packages) == names | {"pyro_ssl.models", "pyro_ssl.guides"}


def test_pre_commit_checks_what_make_lint_checks():
    makefile = (ROOT / "Makefile").read_text()
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    pinned = re.search(r"^ruff==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert set(re.findall(r"ruff==([\d.]+)", hooks)) == {pinned[1]}
    for command in re.findall(r"entry: ruff check (.*)$", hooks, re.MULTILINE):
        assert f"ruff check {command}" in makefile
    assert "ruff format --check --line-length 100" in makefile
    assert "ruff format --line-length 100" in hooks


def test_the_workflow_runs_what_ci_runs():
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    targets = re.findall(r"^make (.*)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert len(targets) >= 4
    for target in targets:
        assert re.search(rf"make [a-z -]*\b{target}\b", workflow), target
    minors = re.findall(r"Python :: 3\.(\d+)", setup()["metadata"]["classifiers"])
    assert re.findall(r'"3\.(\d+)"', workflow.partition("steps:")[0]) == minors

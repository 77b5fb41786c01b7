"""`--help` of the program imports no command; no option may be abbreviated."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from cli_programs import run

from pyro_ssl.cli.commands import COMMANDS

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["no-such-command"], []])
def test_the_help_of_the_program_needs_no_torch(argv):
    code = f"""
import sys
from pyro_ssl.cli import app
try:
    app.main({argv!r})
except SystemExit:
    pass
assert not {{"torch", "pyro", "sklearn", "scipy", "matplotlib"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_help_names_every_command(capsys):
    assert run("--help") == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in COMMANDS)


@pytest.mark.parametrize(
    "argv",
    [
        ("train", "m2", "--epo", 3),
        ("train", "--res", "run"),
        ("compare", "--dat", "x.csv"),
        ("predict", "run", "--inp", "x.npy"),
        ("evaluate", "run", "--corr"),
        ("label", "mine", "--round", 2),
        ("sweep", "m2", "--back", "loky"),
        ("list", "--preset"),
    ],
)
def test_options_cannot_be_abbreviated(argv, capsys):
    assert run(*argv) == 2
    (abbreviated,) = [text for text in argv if str(text).startswith("--")]
    assert abbreviated.removeprefix("--") in capsys.readouterr().err
    assert not Path("run").exists()


def parsers(path: Path) -> list[ast.Call]:
    """The calls of `ArgumentParser` in a file, outside docstrings."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [call for call in calls if ast.unparse(call.func).endswith("ArgumentParser")]


def test_no_parser_takes_abbreviations():
    paths = [*(ROOT / "pyro_ssl").rglob("*.py"), *(ROOT / "experiments").glob("*.py")]
    calls = [call for path in paths for call in parsers(path)]
    assert len(calls) > 10
    for call in calls:
        assert any(word.arg == "allow_abbrev" for word in call.keywords), ast.unparse(call)

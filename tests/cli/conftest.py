"""A small data set, one parser for all tests, and a finished run."""

import shutil
from pathlib import Path

import pytest
from cli_programs import digits, parser, train

from pyro_ssl import data
from pyro_ssl.cli import app as cli


@pytest.fixture(autouse=True)
def small_digits(monkeypatch, tmp_path):
    """A quarter of the digits, the one parser, and a new current directory."""
    monkeypatch.setitem(data.DATASETS, "digits", digits)
    monkeypatch.setattr(cli, "make_parser", parser)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run that tests read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(data.DATASETS, "digits", digits)
        directory = tmp_path_factory.mktemp("runs") / "finished"
        assert train("m2", directory) == 0
    return directory


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "copied"))

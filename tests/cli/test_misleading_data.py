"""Data that are not what the user may think: a warning says so."""

from pathlib import Path

import numpy as np
import pytest
from cli_programs import run, train

pytestmark = pytest.mark.slow


def write_table(path):
    x = np.random.default_rng(0).normal(size=(30, 2))
    labels = ["a", "b"] * 6 + [""] * 18
    rows = [f"{u:.3f},{v:.3f},{label}" for (u, v), label in zip(x, labels, strict=True)]
    Path(path).write_text("\n".join(["u,v,label", *rows]) + "\n")


def test_rows_that_were_trained_on_are_no_test(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_table("table.csv")
    arguments = ("--data", "table.csv", "--label-column", "label", "--epochs", 1)
    assert run("train", "classifier", *arguments, "--out", "out") == 0
    with pytest.warns(UserWarning, match="these rows were trained on"):
        assert run("evaluate", "out", "--data", "table.csv") == 0
    assert "measured on rows that it was trained on" in Path("out/report.html").read_text()
    write_table("other.csv")
    assert run("evaluate", "out", "--data", "other.csv") == 0  # and here no warning


def test_a_folder_with_the_name_of_a_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train("classifier", "digits") == 0  # a run of this name is no data
    assert run("evaluate", "digits") == 0
    Path("moons").mkdir()
    with pytest.warns(UserWarning, match="not ./moons; for that, write ./moons"):
        assert run("train", "classifier", "--data", "moons", "--epochs", 1, "--out", "out") == 0
    with pytest.warns(UserWarning, match="not ./moons; for that, write ./moons"):
        assert run("evaluate", "out", "--data", "moons") == 0


def test_the_directory_of_label_is_named(tmp_path, capsys):
    (tmp_path / "asked.json").write_text("{}")
    assert run("evaluate", tmp_path) == 2
    assert (
        "but of pyro-ssl label; its model predicts by pyro-ssl predict" in capsys.readouterr().err
    )

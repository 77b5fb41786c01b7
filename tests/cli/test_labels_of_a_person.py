"""Runs whose labels are in labels.csv, as `pyro-ssl label` writes it: evaluate and predict."""

import csv
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from cli_programs import run
from PIL import Image

pytestmark = pytest.mark.slow

SMALL = ("--hidden", "[8]", "--epochs", 2)


def predicted(column, path="p.csv"):
    with open(path, newline="") as file:
        return [row[column] for row in csv.DictReader(file)]


def train(data):
    arguments = ("--data", data, "--label-file", "labels.csv", *SMALL, "--out", "run")
    assert run("train", "classifier", *arguments) == 0


@pytest.fixture
def table():
    """Thirty rows of a table without a label, of which labels.csv labels four."""
    lines = [f"{4 * (i % 2) + i / 100:.2f},{i % 7}," for i in range(30)]
    Path("pets.csv").write_text("\n".join(["weight,age,label", *lines]))
    Path("labels.csv").write_text("row,label\n0,cat\n1,dog\n3,dog\n4,cat\n")
    return "pets.csv"


@pytest.fixture
def images():
    """Ten images without a label, of which labels.csv labels four, and a test part."""
    rng = np.random.default_rng(0)
    halves = {"cat": slice(0, 4), "dog": slice(4, 8)}
    for i in range(5):
        for name, half in halves.items():
            for part in (f"pets/unlabeled/{name}{i}.png", f"pets/test/{name}/{i}.png"):
                Path(part).parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 60, (8, 8), dtype=np.uint8)
                pixels[half] += 180
                Image.fromarray(pixels).save(part)
    lines = [f"unlabeled/{name}{i}.png,{name}" for i in range(2) for name in halves]
    Path("labels.csv").write_text("\n".join(["file,label", *lines]))
    Path("pets/train").mkdir()
    return "pets"


# --- predict --------------------------------------------------------------------------------------


def test_one_table_of_a_folder_cannot_be_asked_for_its_unlabeled_rows(table, capsys):
    """labels.csv numbers the rows of all tables together."""
    Path("folder").mkdir()
    Path(table).rename("folder/train.csv")
    train("folder")
    one = ("--data", "folder/train.csv", "--unlabeled", "--output", "p.csv")
    assert run("predict", "run", *one) != 0
    said = capsys.readouterr().err
    assert "numbered through all of them; give --data" in said
    assert not Path("p.csv").exists()
    assert run("predict", "run", "--data", "folder", *one[2:]) == 0
    assert len(predicted("row")) == 26


def test_rows_that_a_person_has_labeled_are_not_unlabeled(table, capsys):
    train(table)
    rest = [str(row) for row in range(30) if row not in (0, 1, 3, 4)]
    labels = Path("labels.csv").resolve()
    for where in (("--data", table), ("--data", Path(table).resolve()), ()):
        capsys.readouterr()
        assert run("predict", "run", *where, "--unlabeled", "--output", "p.csv") == 0
        said = capsys.readouterr().out
        said_of_rest = f"26 rows without a label; 4 more have one in {labels}, and are left out"
        assert f"predictions of {said_of_rest}\n" in said
        assert predicted("row") == rest
    Path("other.csv").write_text(Path(table).read_text())
    assert run("predict", "run", "--data", "other.csv", "--unlabeled", "--output", "p.csv") == 0
    assert "predictions of 30 rows without a label\n" in capsys.readouterr().out
    assert run("predict", "run", "--output", "p.csv") == 0 and len(predicted("row")) == 30


def test_what_unlabeled_lacks_is_named(table, capsys):
    train(table)
    lines = [f"{row},{'cat' if row % 2 else 'dog'}" for row in range(30)]
    Path("labels.csv").write_text("\n".join(["row,label", *lines]))
    assert run("predict", "run", "--data", table, "--unlabeled", "--output", "p.csv") == 2
    said = capsys.readouterr().err
    labels = Path("labels.csv").resolve()
    assert f"each of the 30 rows of pets.csv has a label, there or in {labels}; leave" in said
    Path("labels.csv").unlink()
    assert run("predict", "run", "--data", table, "--unlabeled", "--output", "p.csv") == 2
    said = capsys.readouterr().err
    assert f"--unlabeled: {labels}: no such file; it has the labels of" in said
    assert "put it back, or leave out --unlabeled" in said and said.count("\n") == 1
    assert run("predict", "run", "--data", table, "--output", "p.csv") == 0


def test_images_of_a_folder_inside_are_found_by_their_file(images, capsys):
    train(images)
    for data, before in ((images, "unlabeled/"), ("pets/unlabeled", "")):
        assert run("predict", "run", "--data", data, "--unlabeled", "--output", "p.csv") == 0
        assert predicted("file") == [
            f"{before}{name}{i}.png" for name in ("cat", "dog") for i in (2, 3, 4)
        ]
        assert "4 more have one in" in capsys.readouterr().out


def test_the_model_of_label_knows_its_labels(table, monkeypatch, capsys):
    answers = iter(["cat", "dog", "cat"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(answers))
    how = ("--source", "terminal", "--n", 3, "--training", '{"epochs": 1}', "--start", "random")
    options = ("--options", json.dumps({"hidden": [8]}), "--classes", "cat", "dog")
    assert run("label", "asked", "--data", table, *how, *options) == 0
    given = [line.split(",")[0] for line in Path("asked/labels.csv").read_text().split()[1:]]
    capsys.readouterr()
    assert run("predict", "asked", "--unlabeled", "--output", "p.csv") == 0
    said = "27 rows without a label; 3 more have one in asked/labels.csv, and are left out"
    assert said in capsys.readouterr().out
    assert not set(given) & set(predicted("row")) and len(predicted("row")) == 27


def test_predictions_never_replace_the_labels(table, monkeypatch, capsys):
    """Neither labels.csv of --label-file nor that of `pyro-ssl label` can be had again."""
    train(table)
    before = Path("labels.csv").read_text()
    for output in ("labels.csv", Path("run/../labels.csv")):
        assert run("predict", "run", "--data", table, "--output", output) == 2
        said = f"--output: {output} has the labels of the run, and would be replaced"
        assert said in capsys.readouterr().err
    assert Path("labels.csv").read_text() == before
    answers = iter(["cat", "dog"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(answers))
    how = ("--source", "terminal", "--n", 2, "--training", '{"epochs": 1}', "--start", "random")
    options = ("--options", json.dumps({"hidden": [8]}), "--classes", "cat", "dog")
    assert run("label", "asked", "--data", table, *how, *options) == 0
    assert run("predict", "asked", "--output", "asked/labels.csv") == 2
    assert Path("asked/labels.csv").read_text().startswith("row,label\n")


def test_predict_takes_the_data_of_the_run_and_their_names(finished, capsys):
    assert run("predict", finished, "--output", "p.npy") == 0
    assert "predictions of 100 rows, the test part of the data" in capsys.readouterr().out
    assert run("predict", finished, "--data", "digits", "--output", "q.npy") == 0
    np.testing.assert_array_equal(np.load("p.npy"), np.load("q.npy"))
    assert run("predict", finished, "--unlabeled", "--output", "p.npy") == 2
    assert "each row of the data set digits has a label" in capsys.readouterr().err


# --- evaluate -------------------------------------------------------------------------------------


def test_evaluate_finds_the_labels_of_the_run(images, capsys):
    train(images)
    capsys.readouterr()
    assert run("evaluate", "run") == 0
    assert "| cat   | 5 " in capsys.readouterr().out
    labels = Path("labels.csv").resolve()
    labels.unlink()
    assert run("evaluate", "run") == 2
    said = capsys.readouterr().err
    assert f"{labels}: no such file; it has the labels of {Path(images).resolve()}" in said
    assert "put it back, or give --data PATH, other data with labels" in said
    assert said.count("\n") == 1


def test_evaluate_says_that_a_part_of_the_data_was_trained_on(images, capsys):
    train(images)
    with pytest.warns(UserWarning, match="these rows were trained on"):
        assert run("evaluate", "run", "--data", "pets/unlabeled") == 0
    assert "| cat   | 2 " in capsys.readouterr().out
    with warnings.catch_warnings(record=True) as seen:
        assert run("evaluate", "run", "--data", "pets/test") == 0
    assert not [one for one in seen if "trained on" in str(one.message)]


def test_evaluate_says_what_is_missing_and_both_ways_out(table, capsys):
    train(table)
    assert run("evaluate", "run") == 2
    said = capsys.readouterr().err
    assert "have no test part; give --data PATH, other data with labels, or --data" in said
    for path in (table, Path(table).resolve()):
        with pytest.warns(UserWarning, match="these rows were trained on"):
            assert run("evaluate", "run", "--data", path) == 0
        assert "| cat   | 2 " in capsys.readouterr().out

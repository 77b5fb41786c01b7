"""`pyro-ssl compare` on the user's own files."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from cli_programs import run

from pyro_ssl.comparison.result import Comparison

TINY = ("--epochs", 1, "--min-steps", 2, "--folds", 2, "--options.hidden", "[8]")


@pytest.fixture
def flowers():
    rng = np.random.default_rng(0)
    lines = ["id,width,height,species"]
    for row in range(40):
        kind = ("iris", "rose")[row % 2]
        width, height = rng.normal(size=2) + 4 * (row % 2)
        lines.append(f"{row},{width:.3f},{height:.3f},{kind if row < 12 else ''}")
    Path("flowers.csv").write_text("\n".join(lines) + "\n")
    return ("--data", "flowers.csv", "--label-column", "species", "--ignore-columns", "id")


def test_a_table_gives_a_sentence_a_table_and_a_picture(flowers, capsys):
    code = run("compare", *flowers, *TINY, "--output", "result.csv", "--picture", "result.png")
    printed = capsys.readouterr().out
    assert code == 0
    assert "m2: fold 2 of 2" in printed and "With 12 labels, m2" in printed
    with open("result.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows][:2] == ["m2", "labels alone"]
    assert {row["unlabeled"] for row in rows} == {"28"}
    assert Path("result.png").stat().st_size > 1000


@pytest.mark.parametrize("can_be_labeled", [True, False])
def test_labels_for_more_rows_than_there_are_cannot_be_asked_for(
    flowers, monkeypatch, capsys, can_be_labeled
):
    monkeypatch.setattr(Comparison, "next_step", "with more labels")
    monkeypatch.setattr(Comparison, "can_be_labeled", can_be_labeled)
    assert run("compare", *flowers, *TINY) == 0
    (step,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("next step: ")]
    assert step.startswith("next step: with more labels.")
    assert ("pyro-ssl label" in step) == can_be_labeled


@pytest.mark.slow
def test_json_has_the_held_out_predictions_by_class_name(flowers):
    assert run("compare", *flowers, *TINY, "--output", "result.json") == 0
    result = json.loads(Path("result.json").read_text())
    assert result["classes"] == ["iris", "rose"] and len(result["rows"]) == 12
    assert set(result["held_out"]["m2"]["prediction"]) <= {"iris", "rose"}
    assert result["recommendation"].startswith("With 12 labels")


def test_mistakes_are_told_before_training(flowers, capsys):
    Path("all.csv").write_text(
        "width,species\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(9))
    )
    for arguments, message in (
        (("--data", "all.csv", "--label-column", "species"), "there are no unlabeled rows"),
        ((*flowers, "--output", "result.txt"), "should end in .csv or .json"),
        ((*flowers, "--output", "flowers.csv"), "flowers.csv is read as data, and would be"),
        ((*flowers, "--methods", "m3"), "m3"),
    ):
        assert run("compare", *arguments) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_data_set_by_name_hides_labels(capsys):
    code = run("compare", "--data", "digits", "--labels", 30, *TINY, "--methods", "m2")
    assert code == 0 and "With 30 labels" in capsys.readouterr().out

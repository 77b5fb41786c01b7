"""Time to an accuracy."""

import json

import pytest
from experiment_files import cells, row, write_mnist

pytestmark = pytest.mark.slow


def test_time_to_accuracy(tmp_path, script):
    write_mnist(tmp_path / "data", n=240)
    arguments = ["--data-root", "data", "--scale", "smoke", "--out", "out"]
    out = script("time_to_accuracy", *arguments, cwd=tmp_path)
    draw, *others = cells(out, "m2")
    (path,) = json.loads(row(tmp_path / "out/time_to_accuracy.csv", "m2_0")["path"])
    assert draw == "0" and others[4] == f"{100 * path[1]:.2f}"


def test_the_first_epoch_with_the_accuracy_counts(scripts):
    study = scripts("time_to_accuracy")
    path = [(10.0, 0.8), (20.0, 0.95), (30.0, 0.9), (40.0, 0.96)]
    assert study._seconds_to(0.9, path) == "20"
    assert study._seconds_to(0.97, path) == "not reached"

"""M2 on MNIST: only what is missing runs."""

import pytest
from experiment_files import made, names, remove, write_mnist

pytestmark = pytest.mark.slow


def test_m2_mnist_and_only_what_is_missing_runs_again(tmp_path, script):
    write_mnist(tmp_path / "data", 600)
    arguments = [
        "--scale",
        "smoke",
        "--data-root",
        "data",
        "--draws",
        "0",
        "1",
        "--workers",
        "1",
        "--out",
        "out",
    ]
    first = script("m2_mnist", *arguments, cwd=tmp_path)
    assert "93.19" in first and "m2, ours" in first and "classifier, ours" in first
    assert names(tmp_path / "out/m2_mnist.csv") == {"m2_0", "m2_1", "classifier_0", "classifier_1"}
    assert made(tmp_path / "out") == {"m2_mnist.csv", "m2_mnist.md", "m2_mnist", "runs"}
    assert made(tmp_path / "out/m2_mnist") == {"curves.png", "analogies.png", "samples.png"}
    remove(tmp_path / "out/m2_mnist.csv", "m2_1")
    again = script("m2_mnist", *arguments, cwd=tmp_path)
    assert (
        "m2_1: accuracy" in again
        and "m2_0: accuracy" not in again
        and "classifier_0: accuracy" not in again
    )

"""Eager and compiled runs in pairs, with the CPU time of both."""

import pytest
from experiment_files import made, row


@pytest.mark.compiler
def test_compiled_runs(tmp_path, script):
    said = script(
        "compiled_runs", "--scale", "smoke", "--data", "digits", "--out", "out", cwd=tmp_path
    )
    assert "digits, 50 labels" in said
    results = tmp_path / "out"
    assert made(results) >= {"compiled_runs.csv", "compiled_runs.md"}
    eager = row(results / "compiled_runs.csv", "digits_eager_0")
    compiled = row(results / "compiled_runs.csv", "digits_compiled_0")
    assert float(compiled["accuracy"]) == pytest.approx(float(eager["accuracy"]), abs=0.05)
    assert float(eager["cpu_seconds"]) > 0

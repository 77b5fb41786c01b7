"""The demonstration runs as `make demo` runs it."""

import json
import subprocess
import sys

import pytest
from conftest import EXPERIMENTS
from experiment_files import made

pytestmark = pytest.mark.slow


def test_demo(tmp_path):
    """As `make demo` runs it: in a process of its own."""
    command = [
        sys.executable,
        EXPERIMENTS / "demo.py",
        "--draws",
        "1",
        "--scale",
        "0.02",
        "--workers",
        "1",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    out = done.stdout
    assert "moons" in out and "digits" in out and "M2 is ahead" in out
    files = made(tmp_path / "runs/demo")
    assert {
        "results.json",
        "moons_m2_regions.png",
        "digits_m2_analogies.png",
        "digits_m2_samples.png",
        "moons_m2_curves.png",
    } <= files
    result = json.loads((tmp_path / "runs/demo/results.json").read_text())
    assert result["versions"]["torch"] and result["date"] and len(result["results"]) == 4

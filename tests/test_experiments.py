"""Every experiment script runs, tiny, from a folder of its own, and leaves what it promises."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


def script(name: str, *arguments: str, cwd: Path) -> str:
    command = [sys.executable, str(EXPERIMENTS / name), *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_mnist(root: Path, n: int = 60) -> None:
    """Noise in MNIST's own file format."""
    raw, rng = root / "MNIST" / "raw", np.random.default_rng(0)
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        labels = np.arange(n) % 10
        images = (rng.random((n, 28, 28)) * 60 + 15 * labels[:, None, None]).astype(np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))


def test_demo(tmp_path):
    out = script("demo.py", "--draws", "1", "--scale", "0.02", "--workers", "1", cwd=tmp_path)
    assert "moons" in out and "digits" in out and "M2 is ahead" in out
    made = {p.name for p in (tmp_path / "runs/demo").iterdir()}
    assert {
        "results.json",
        "moons_m2_regions.png",
        "digits_m2_analogies.png",
        "digits_m2_samples.png",
        "moons_m2_curves.png",
    } <= made
    result = json.loads((tmp_path / "runs/demo/results.json").read_text())
    assert result["versions"]["torch"] and result["date"] and len(result["results"]) == 4


def test_m2_mnist_and_only_what_is_missing_runs_again(tmp_path):
    write_mnist(tmp_path / "data")
    arguments = [
        "--data-root",
        "data",
        "--draws",
        "0",
        "1",
        "--labels",
        "20",
        "--epochs",
        "1",
        "--workers",
        "1",
        "--out",
        "out",
    ]
    first = script("m2_mnist.py", *arguments, cwd=tmp_path)
    assert "93.19" in first and "m2, ours" in first and "classifier, ours" in first
    made = {p.name for p in (tmp_path / "out").iterdir()}
    assert made == {
        "m2_0.json",
        "m2_1.json",
        "classifier_0.json",
        "classifier_1.json",
        "table.md",
        "curves.png",
        "analogies.png",
        "samples.png",
    }
    (tmp_path / "out/m2_1.json").unlink()
    shutil.rmtree(tmp_path / "runs")
    again = script("m2_mnist.py", *arguments, cwd=tmp_path)
    assert "m2 draw 1" in again and "m2 draw 0" not in again and "classifier draw" not in again
    assert json.loads((tmp_path / "out/m2_1.json").read_text())["labels"] == 20

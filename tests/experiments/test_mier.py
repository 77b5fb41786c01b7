"""MIER: tables, pictures, intervals."""

import pytest
from experiment_files import made, write_mnist
from scipy import stats

pytestmark = pytest.mark.slow


def test_mier(tmp_path, script):
    """With its own 100 labels per class, more than there would be among a few hundred images."""
    write_mnist(tmp_path / "data", 2000)
    (tmp_path / "data/MNIST").rename(tmp_path / "data/FashionMNIST")
    arguments = ["--data-root", "data", "--scale", "smoke", "--data", "fashion_mnist"]
    arguments += ["--workers", "1", "--out", "out", "--draws", "0"]
    first = script("mier", *arguments, "1", "--models", "m2", "adgm", cwd=tmp_path)
    assert (
        all(f"| {m} " in first for m in ("mlp", "cnn", "m2+mier", "adgm+mier")) and " .. " in first
    )
    pictures = {
        f"{kind}_m2_fashion_mnist_100_0.png" for kind in ("tsne", "samples", "reconstructions")
    }
    assert pictures <= made(tmp_path / "out/mier")
    both = script("mier", *arguments, "--models", "lvae", cwd=tmp_path)
    assert "m2_fashion_mnist_100_0:" not in both and "| lvae+mier " in both and "| m2+mier " in both


def test_intervals_are_students_and_gains_are_paired(scripts):
    mier = scripts("mier")
    values = [1.0, 2.5, 0.5, 3.0]
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (
        mier.interval(values) == f"+1.75 ({low:+.2f} .. {high:+.2f})"
        and mier.interval([-2.0]) == "-2.00"
    )
    accuracy = {
        ("m2", 0): 0.80,
        ("m2", 1): 0.70,
        ("m2+mier", 1): 0.73,
        ("m2+mier", 0): 0.79,
        ("m2", 2): 0.9,
    }
    results = {
        str(k): {"config": {"row": k[0], "draw": k[1]}, "accuracy": v} for k, v in accuracy.items()
    }
    found = mier.gains(results, "m2")
    assert found.keys() == {0, 1} and abs(found[0] + 1) < 1e-9 and abs(found[1] - 3) < 1e-9

"""MNIST by labels."""

import pytest
from experiment_files import made, names, write_mnist

pytestmark = pytest.mark.slow


def test_mnist_labels(tmp_path, script):
    """All rows with 10 labels per class, and one with as many as there are by default."""
    write_mnist(tmp_path / "data", 6000)
    arguments = ["--data-root", "data", "--scale", "smoke", "--workers", "1", "--out", "out"]
    out = script("mnist_labels", *arguments, "--per-class", "10", cwd=tmp_path)
    assert (
        all(f"| {m} " in out for m in ("classifier", "m2", "sslpe", "sslapd", "adgm_conv"))
        and "| fails " in out
    )
    assert "sslapd_10_0" in names(tmp_path / "out/mnist_labels.csv")
    assert "samples_sslpe_10_0.png" in made(tmp_path / "out/mnist_labels")
    out = script("mnist_labels", *arguments, "--rows", "classifier", "m2", cwd=tmp_path)
    assert all(f"MNIST, {n} labels per class" in out for n in (10, 20, 60, 100, 300))
    assert "m2_300_0" in names(tmp_path / "out/mnist_labels.csv")
    assert "tsne_m2_100_0.png" in made(tmp_path / "out/mnist_labels")

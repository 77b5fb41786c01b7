"""MNIST by labels."""

import pytest
import torch
from experiment_files import made, names, write_mnist

from pyro_ssl import data, fit, predict_proba

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
    unmeasured = ("m1_sslpe", "m2_flow", "m2_vamp", "m2_adversarial", "sdgm")
    assert all(f"| {m} " in out for m in (*unmeasured, "latent_classifier_split"))
    assert "samples_m1_sslpe_10_0.png" not in made(tmp_path / "out/mnist_labels")  # of latents
    assert "sslapd_10_0" in names(tmp_path / "out/mnist_labels.csv")
    assert "samples_sslpe_10_0.png" in made(tmp_path / "out/mnist_labels")
    out = script("mnist_labels", *arguments, "--rows", "classifier", "m2", cwd=tmp_path)
    assert all(f"MNIST, {n} labels per class" in out for n in (10, 20, 60, 100, 300))
    assert "m2_300_0" in names(tmp_path / "out/mnist_labels.csv")
    assert "tsne_m2_100_0.png" in made(tmp_path / "out/mnist_labels")


def test_sslpe_learns_on_the_latents_of_a_vae(scripts):
    mnist_labels = scripts("mnist_labels")
    config = mnist_labels.configure("m1_sslpe", 10, 0, "smoke")
    config["options"] = config["options"] | {"hidden": (8,)}
    images = torch.rand(40, 1, 4, 4)
    classes = torch.arange(40) % 10
    digits = data.Dataset("noise", images, classes, images, classes, tuple("0123456789"))
    objective = mnist_labels.on_m1(config, digits)
    labels = torch.where(torch.arange(40) < 20, classes, -1)
    fit(objective, images, labels, epochs=1, seed=0)
    assert objective.features.trained and objective.encode(images).shape == (40, 50)
    assert objective.model.factorisation == "p(z) p(x|z) p(y|x,z)"
    assert predict_proba(objective, images).shape == (40, 10)

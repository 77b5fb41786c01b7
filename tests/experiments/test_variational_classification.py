"""Variational classification: tables, distances from the prior, wide ResNets."""

import json
from functools import partial

import pytest
import torch
from experiment_files import made, row, write_mnist

from pyro_ssl import zoo

pytestmark = pytest.mark.slow


def test_variational_classification(tmp_path, script, scripts, monkeypatch):
    module = scripts("variational_classification")
    measures = scripts("variational_measures")
    monkeypatch.setattr(measures, "EPSILONS", (0.1, 0.3))
    monkeypatch.setattr(measures, "FIRST", 100)
    variants = {
        name: module.VARIANTS[name]
        for name in ("vc, T linear", "vc, Gaussian latent", "gm, weight 1")
    }
    monkeypatch.setattr(module, "VARIANTS", variants)
    monkeypatch.setitem(module.SETTINGS["semi"], "channels", [2, 4, 4])
    for name in ("MNIST", "FashionMNIST"):
        write_mnist(tmp_path / "data", 800, name)
    arguments = ["--scale", "smoke", "--data-root", "data", "--workers", "1", "--out", "out"]
    out = script(
        "variational_classification",
        *arguments,
        "--parts",
        "full",
        "low",
        "semi",
        "plane",
        cwd=tmp_path,
    )
    parts = (
        "MNIST, all labels",
        "ce, temperature",
        "FPR95, mean (sd), worst, against",
        "under attack",
        "500 labels alone",
        "others unlabeled",
    )
    assert all(title in out for title in (*parts, "vc, T linear", "vc, Gaussian latent"))
    by_set = {
        f"{kind}_{name}.png"
        for kind in ("shift", "reliability", "tsne")
        for name in ("mnist", "fashion_mnist")
    }
    plane = {"plane.png", "ambiguous.png", "ambiguous_ways.png"}
    assert by_set | plane <= made(tmp_path / "out/variational_classification")
    result = row(tmp_path / "out/variational_classification.csv", "full_mnist_vc_0")
    assert set(json.loads(result["ood"])) == {"fashion_mnist"}
    assert len(json.loads(result["corruptions"])) == 10
    again = script("variational_classification", *arguments, "--report", cwd=tmp_path)
    assert "MNIST, all labels" in again


def test_latents_that_are_the_prior_are_at_no_distance_from_it(scripts):
    module = scripts("variational_measures")
    o, g = (
        zoo.build("vc", (5,), 3, z_dim=2, hidden=(4,), stochastic=True),
        torch.Generator().manual_seed(0),
    )
    y = torch.arange(30_000) % 3
    p = torch.distributions.Normal(
        o.model.p_z.loc[y].detach(), o.model.p_z.scale.detach().expand(3, 2)[y]
    )
    x = torch.cat(
        [p.loc + 0.8 * p.scale * torch.randn(30_000, 2, generator=g), torch.zeros(30_000, 3)], 1
    )
    o.guide.code = lambda x: torch.distributions.Normal(
        x[:, :2], 0.6 * p.scale[:1]
    )  # 0.8^2 + 0.6^2 = 1
    assert o.model.p_z.scale.unique().numel() == 1
    assert abs(module.from_prior(o, x, y)) < 1e-3
    o.guide.code = lambda x: torch.distributions.Normal(x[:, :2], 1e-6)
    assert module.from_prior(o, x, y) > 0.03


def test_a_class_without_test_images_is_left_out_of_the_distance_from_the_prior(scripts):
    """With classes 0 and 2 alone, it is the mean of the distances of either."""
    module = scripts("variational_measures")
    o = zoo.build("vc", (5,), 3, z_dim=2, hidden=(4,))
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    y = 2 * (torch.arange(60) % 2)
    distances = [module.from_prior(o, x[y == k], y[y == k]) for k in (0, 2)]
    assert module.from_prior(o, x, y) == pytest.approx(sum(distances) / 2, rel=1e-4)


def test_a_method_keeps_its_colour_in_every_picture(scripts):
    colours = scripts("variational_pictures")._row_colours
    both = colours(["ce", "ce, Gaussian latent", "gm, density 0.1", "vc, ratio 0.1"])
    assert colours(["CE", "GM", "VC"]) == {
        "CE": both["ce"],
        "GM": both["gm, density 0.1"],
        "VC": both["vc, ratio 0.1"],
    }
    assert len(set(both.values())) == 4


def test_held_out_images_have_no_label_in_training(scripts, tmp_path, monkeypatch):
    module, seen = scripts("variational_classification"), []
    write_mnist(tmp_path / "data", 200, "MNIST")
    monkeypatch.setenv("PYRO_SSL_DATA", str(tmp_path / "data"))

    def stop(config, directory, loaded, **arguments):
        seen.append(loaded[1])
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "trained", stop)
    config = module.configure(
        "full", "mnist", "ce", draw=1, scale="smoke", held_out=module.HELD_OUT
    )
    with pytest.raises(KeyboardInterrupt):
        module.run("name", config, tmp_path, tmp_path)
    assert len(seen[0]) == 100 and int((seen[0] < 0).sum()) == 50 == config["held_out"]


def test_a_wide_resnet_goes_on_in_pieces_as_on_a_gpu(scripts, tmp_path, monkeypatch):
    """The paper's training of wide ResNets, on noise; killed after one epoch, it ends where an
    unbroken run does.
    """
    for name in ("MNIST", "FashionMNIST"):
        write_mnist(tmp_path / "data", 300, name)
    monkeypatch.setenv("PYRO_SSL_DATA", str(tmp_path / "data"))
    module = scripts("variational_classification")
    monkeypatch.setattr(scripts("variational_measures"), "EPSILONS", (0.1,))
    config = module.configure(
        "cifar", "mnist", "vc", {"backbone": "wrn-10-1"}, draw=1, scale="paper"
    )
    small = {"epochs": 3, "batch_size": 20, "labeled_batch_size": 20}
    config |= {"rows": 40, "pgd_steps": 2, "training": config["training"] | small}
    assert config["sgd"] and config["training"]["precision"] == "bfloat16"

    def killed(epoch):
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    whole = module.run("whole", config, tmp_path / "whole", tmp_path)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "trained", partial(module.trained, callbacks=(killed,)))
        module.run("broken", config, tmp_path / "broken", tmp_path)
    assert (tmp_path / "broken/checkpoint").exists()
    again = module.run("broken", config, tmp_path / "broken", tmp_path)
    assert {k: v for k, v in again.items() if k != "seconds"} == {
        k: v for k, v in whole.items() if k != "seconds"
    }

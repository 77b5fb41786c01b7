"""Paper 000's settings: the runs have them, and the tables show them beside ours."""

import numpy as np
import pytest
from experiment_files import cells, made, names, write_mnist

from pyro_ssl import zoo


@pytest.fixture
def presets(scripts):
    return scripts("variational_presets")


@pytest.mark.slow
def test_the_papers_parts(tmp_path, script, scripts, presets, monkeypatch):
    monkeypatch.setattr(scripts("variational_measures"), "EPSILONS", (0.1, 0.3))
    monkeypatch.setattr(presets, "SMALL_EPSILONS", (0.0, 0.01))
    for name in ("MNIST", "FashionMNIST"):
        write_mnist(tmp_path / "data", 800, name)
    write_cifar10(tmp_path / "data")
    arguments = ["--scale", "smoke", "--data-root", "data", "--workers", "1", "--out", "out"]
    out = script("variational_classification", *arguments, "--parts", *presets.PARTS, cwd=tmp_path)
    assert "Not run yet" not in out
    for row in ("vc, paper: eq. 6", "vc, our settings", presets.OUR_LOSS_TITLES["gm"]):
        assert cells(out, row)
    pictures = made(tmp_path / "out/variational_classification")
    assert {"attacks_cifar10.png", "attacks_mnist.png"} <= pictures
    found = names(tmp_path / "out/variational_classification.csv")
    assert {"paper_low_vc_0", "paper_full_fashion_mnist_vc_our_loss_0"} <= found
    assert {"margins_low_centre_0", "margins_full_mnist_large_margin_0"} <= found
    arguments = [*arguments[:-1], "again", "--parts", "paper_low", "--settings", "paper"]
    script("variational_classification", *arguments, cwd=tmp_path)
    found = names(tmp_path / "again/variational_classification.csv")
    assert found == {f"paper_low_{method}_0" for method in ("ce", "gm", "vc")}


def write_cifar10(root):
    """Noise in the form of the repository's packed CIFAR-10; any differences of planes will do."""
    (root / "cifar10").mkdir()
    for name in ("train_0", "test"):
        delta = np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32)).astype(np.uint8)
        np.savez(root / "cifar10" / f"{name}.npz", delta=delta, labels=np.arange(40) % 10)


def test_the_papers_runs_differ_from_the_preset_by_the_epochs_and_the_width_alone(scripts, presets):
    """At scale paper they do not differ at all."""
    module = scripts("variational_classification")
    for scale, may_differ in (("paper", set()), ("cpu", {"epochs", "backbone", "z_dim"})):
        runs = [c for c in module.configs(scale, [0]).values() if c.get("settings") == "paper"]
        assert {c["part"] for c in runs} == {"paper_full", "paper_low", "attacks"}
        for config in runs:
            preset = zoo.preset_of(config["method"], config["preset"]).option_values
            training = zoo.training_of(config["method"], config["preset"])
            ours = config["options"] | config["training"]
            known = {k: v for k, v in (preset | training).items() if k in ours}
            assert {k for k, v in known.items() if ours[k] != v} <= may_differ
            assert config["options"].get("ratio", 1.0) == 1.0
            assert not config["options"].get("bounded")


def test_rows_with_our_loss_differ_from_the_papers_by_the_loss_alone(scripts, presets):
    configs = scripts("variational_classification").configs("cpu", [0])
    for method, loss in presets.OUR_LOSS.items():
        paper = configs[f"paper_low_{method}_0"]
        ours = configs[f"paper_low_{method}_our_loss_0"]
        assert ours["training"] == paper["training"]
        assert ours["options"] == paper["options"] | loss != paper["options"]


def test_all_labels_have_three_draws_and_few_labels_have_all(scripts, presets):
    configs = scripts("variational_classification").configs("cpu", range(5))
    draws = {
        part: {c["draw"] for c in configs.values() if c["part"] == part} for part in presets.PARTS
    }
    for part in ("paper_full", "margins_full", "attacks"):
        assert draws[part] == {0, 1, 2}
    assert draws["paper_low"] == draws["margins_low"] == set(range(5))


def test_a_run_that_diverged_is_counted_and_is_in_no_mean(presets):
    config = {
        "method": "vc",
        "settings": "paper",
        "training": {"epochs": 60},
    }
    ended = {"accuracy": 0.9, "log_likelihood": -0.5, "ece_20": 0.1, "from_prior": 1.0}
    runs = [
        {"config": config, "seconds": 7.0} | ended,
        {"config": config, "diverged": "step 3"},
    ]
    both = presets.with_few_labels("MNIST", {"vc": runs}, {"vc": "94.2"})
    assert cells(both, "vc")[:5] == ["90.00", "90.00", "1", "1", "-0.500"]
    none = presets.with_few_labels("MNIST", {"vc": runs[1:]}, {"vc": "94.2"})
    assert cells(none, "vc")[:5] == ["–", "–", "0", "1", "–"]
    assert cells(none, "vc")[-1] == "94.2"


def test_rows_stand_by_method_with_ours_after_the_papers(presets):
    def rows(suffix):
        return {f"{m}{suffix}": [{"config": {"method": m}}] for m in ("ce", "vc")}

    assert list(presets.in_order(rows(", paper"), rows(""))) == [
        *("ce, paper", "ce", "vc, paper", "vc"),
    ]


def test_a_row_of_our_settings_has_no_count_of_diverged_runs(scripts):
    presets = scripts("variational_presets")

    def diverged(**config):
        ended = {"accuracy": 0.9, "log_likelihood": -0.1, "ece_20": 0.1, "from_prior": 0.1}
        row = [{"config": config} | ended, {"config": config, "diverged": "not finite"}]
        return dict(zip(presets.HEADER, presets.measures(row), strict=True))["diverged"]

    assert diverged(settings="paper") == 1
    assert diverged() == "" and diverged(settings="ours") == ""

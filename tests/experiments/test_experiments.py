"""Every experiment script runs, tiny, from a folder of its own, and leaves what it promises."""

import argparse
import importlib
import json
import re
import subprocess
import sys
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy import stats

from pyro_ssl import Batch, data, zoo
from pyro_ssl.evaluation import metrics

EXPERIMENTS = Path(__file__).parent.parent.parent / "experiments"


SAVEFIG = Figure.savefig


def in_few_dots(figure: Figure, path: Any, **how: Any) -> None:
    """`savefig` that draws every artist, but once, where the search for a layout and for margins draws them again."""
    figure.set_layout_engine("none")
    SAVEFIG(figure, path, dpi=20, format=how.get("format"))


@pytest.fixture
def script(monkeypatch, capsys):
    """Run a script in this process, for one of its own would take seconds to import torch and Pyro."""

    def run(name: str, *arguments: str, cwd: Path) -> str:
        capsys.readouterr()
        with monkeypatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of twenty images scikit-learn says a good deal
            patch.chdir(cwd)
            patch.syspath_prepend(str(EXPERIMENTS))
            patch.setenv("PYRO_SSL_DATA", "nowhere")  # the script may set it, and it is put back
            patch.setattr(sys, "argv", [str(EXPERIMENTS / name), *arguments])
            patch.setattr(Figure, "savefig", in_few_dots)
            importlib.import_module(name.removesuffix(".py")).main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def scripts(monkeypatch):
    """Import of a script, as its folder's own scripts import each other."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    return importlib.import_module


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_mnist(root: Path, n: int = 60, name: str = "MNIST") -> None:
    """Noise in MNIST's own file format."""
    raw, rng = root / name / "raw", np.random.default_rng(0)
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        labels = np.arange(n) % 10
        images = (rng.random((n, 28, 28)) * 60 + 15 * labels[:, None, None]).astype(np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))


def test_demo(tmp_path):
    """As `make demo` runs it: in a process of its own."""
    command = [sys.executable, EXPERIMENTS / "demo.py", "--draws", "1", "--scale", "0.02", "--workers", "1"]
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


def test_m2_mnist_and_only_what_is_missing_runs_again(tmp_path, script):
    write_mnist(tmp_path / "data", 600)
    arguments = ["--scale", "smoke", "--data-root", "data", "--draws", "0", "1", "--workers", "1", "--out", "out"]
    first = script("m2_mnist.py", *arguments, cwd=tmp_path)
    assert "93.19" in first and "m2, ours" in first and "classifier, ours" in first
    runs = {f"{method}_{draw}.json" for method in ("m2", "classifier") for draw in (0, 1)}
    assert made(tmp_path / "out") == runs | {"table.md", "curves.png", "analogies.png", "samples.png", "runs"}
    (tmp_path / "out/m2_1.json").unlink()
    again = script("m2_mnist.py", *arguments, cwd=tmp_path)
    assert "m2_1: accuracy" in again and "m2_0: accuracy" not in again and "classifier_0: accuracy" not in again


def made(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def test_moons_and_a_second_call_runs_nothing(tmp_path, script, scripts, monkeypatch):
    moons = scripts("moons")
    for method in ("sslpe", "sslapd"):
        monkeypatch.setitem(moons.OPTIONS[method], "gibbs_steps", 3)
    monkeypatch.setattr(moons, "plane", partial(moons.plane, 12))
    arguments = ["--scale", "smoke", "--draws", "5", "--noise", "0.1", "--workers", "1", "--out", "out"]
    first = script("moons.py", *arguments, cwd=tmp_path)
    assert "| Bayes optimum" in first and "sslapd_0.1_5: accuracy" in first and "99.9 (0.01)" in first
    assert {"table.md", "data.png", "decisions.png", "batch_norm.png", "curves.png"} <= made(tmp_path / "out")
    again = script("moons.py", *arguments, cwd=tmp_path)
    assert "| Bayes optimum" in again and "accuracy 0" not in again
    (tmp_path / "out/m2_0.1_5.json").unlink()
    reported = script("moons.py", *arguments, "--report", cwd=tmp_path)
    assert "| sslpe " in reported and "| m2 " not in reported
    monkeypatch.setattr(moons, "METHODS", ("classifier", "m2"))
    monkeypatch.setattr(moons, "CURVES", ())
    longer = script("moons.py", *arguments[:-2], "--labels", "random", "--out", "out", cwd=tmp_path)
    assert "m2_0.1_5: accuracy" in longer  # of another configuration, in another folder
    assert "labels placed" in (tmp_path / "out/table.md").read_text()
    assert "labels random" in (tmp_path / "out_random/table.md").read_text()


def test_the_ceiling_on_two_moons_is_the_bayes_optimal_classifiers(monkeypatch):
    """Against sklearn's own points: its accuracy and calibration at noise 0.2, 97.17 % and -.0762."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import moons

    points = data.two_moons(10, 20_000, 0.2, seed=3)
    found = metrics.evaluate(moons.optimum(points.x_test, 0.2), points.y_test)
    assert abs(found["accuracy"] - 0.9717) < 0.004 and abs(found["log_likelihood"] + 0.0762) < 0.01
    assert found["ece"] < 0.01


def test_active_learning_goes_on_and_reports(tmp_path, script, scripts, monkeypatch):
    active_learning = scripts("active_learning")
    monkeypatch.setattr(active_learning, "MEMBERS", 2)
    for options in (active_learning.CONV, active_learning.SUPERVISED):
        monkeypatch.setitem(options, "channels", (2, 4))
    write_mnist(tmp_path / "data", 130)
    arguments = ["--data-root", "data", "--scale", "smoke", "--data", "mnist", "--workers", "1", "--out", "out"]
    arguments += ["--rows", "plane", "sslapd_entropy", "sslapd_bald", "m2_entropy", "ensemble_bald"]
    first = script("active_learning.py", *arguments, cwd=tmp_path)
    assert "| sslapd, bald " in first and "| ensemble, bald " in first and "70 / 90 / 110" in first
    assert {"table.md", "functions.png", "sequence.png", "moons.png", "mnist.png"} <= made(tmp_path / "out")
    result = json.loads((tmp_path / "out/m2_entropy_mnist_5.json").read_text())
    assert [p["labels"] for p in result["curve"]] == [20, 30, 40] and len(set(result["indices"])) == 40
    dev = [*arguments, "--rows", "ensemble_bald", "--draws", "100"]
    assert "| 1      |" in script("active_learning.py", *dev, cwd=tmp_path)  # of that draw alone
    assert "ensemble_bald_mnist_100.json" in made(tmp_path / "out")
    (tmp_path / "out/sslapd_bald_5.json").unlink()
    again = script("active_learning.py", *arguments, cwd=tmp_path)
    assert "sslapd_bald_5: ceiling" in again and "m2_entropy_mnist_5:" not in again
    table = (tmp_path / "out/table.md").read_text()
    assert table.count("| 1      |") == 4 and "| sslapd, entropy" in table  # without that of the draw for development


def test_an_active_loop_that_was_killed_measures_what_an_unbroken_one_does(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import active_learning

    from pyro_ssl.active import learner as active

    config = active_learning.configure("sslpe_entropy", "moons", 0, "smoke")
    whole = active_learning.run("a", config, tmp_path / "whole", tmp_path)
    fit, calls = active.fit, []

    def killed(*args, **kwargs):
        calls.append(1)
        if len(calls) in (1, 3):
            raise KeyboardInterrupt
        return fit(*args, **kwargs)

    monkeypatch.setattr(active, "fit", killed)
    for _ in range(2):
        with suppress(KeyboardInterrupt):
            active_learning.run("a", config, tmp_path / "killed", tmp_path)
    again = active_learning.run("a", config, tmp_path / "killed", tmp_path)
    plain = [[{k: v for k, v in p.items() if k != "round"} for p in r["curve"]] for r in (whole, again)]
    assert plain[0] == plain[1] and whole["indices"] == again["indices"] and len(calls) == 5


def test_a_loop_is_told_the_labels_of_what_it_asks(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import active_learning
    from moons import optimum

    from pyro_ssl import ActiveLearner

    config = active_learning.configure("sslpe_random", "moons", 3, "smoke")
    points, seen, own = data.two_moons(60, 60, 0.1, seed=3), [], ActiveLearner.predict_proba
    monkeypatch.setattr(ActiveLearner, "predict_proba", lambda *args: seen.append(own(*args)) or seen[-1])
    result = active_learning.run("a", config, tmp_path, tmp_path)
    assert result["classes"] == points.y[result["indices"]].tolist()
    assert result["ceiling"] == metrics.accuracy(optimum(points.x_test, 0.1), points.y_test)
    assert [p["accuracy"] for p in result["curve"]] == [metrics.accuracy(p, points.y_test) for p in seen]


def cells(text: str, name: str) -> list[str]:
    """A table's row, by its first cell."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} "))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_labels_to_a_goal_are_counted_by_hand(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import active_learning

    def loop(labels, accuracies, most=100, **others):
        curve = [{"labels": n, "accuracy": a, "round": 10.0} for n, a in zip(labels, accuracies, strict=True)]
        return {"curve": curve, "seconds": 5.0, "config": {"most": most}} | others

    one = loop((4, 5, 6), (0.5, 0.9, 0.95))
    assert [active_learning.first_at(one, goal) for goal in (0.5, 0.9, 0.91, 0.96)] == [4, 5, 6, float("inf")]

    moons = [
        loop((4, 5, 6), a, 6, ceiling=0.99) for a in ((0.985, 1, 1), (0.98, 0.985, 0), (0, 0.98, 0.99), (0, 0, 0.9))
    ]
    text = active_learning.moons_table({"sslpe_entropy": moons, "sslapd_bald": moons[:3]})
    mean_of_3, of_all, worst, starts = cells(text, "sslpe, entropy")[:4]
    assert (mean_of_3, of_all, worst, starts) == ("5.0", "over 5.5 (1 not by 6)", "over 6", "4")
    assert cells(text, "sslapd, bald")[:4] == ["5.0", "5.0", "6", "3"]

    accuracies = [[0.95] + 3 * [1], [0, 0.95, 1, 1], [0, 0, 0.95, 1], [0, 0, 0, 0.95], 4 * [0.9]]
    text = active_learning.images_table("MNIST", {"m2_entropy": [loop((20, 30, 40, 100), a) for a in accuracies]})
    found = cells(text, "m2, entropy")
    assert found[:4] == ["20 / 30 / 40", "30 / 40 / 100", "40 / 100 / over 100", "5"]
    assert found[5] == "37.00 (50.70)" and found[-1] == "10, 10"
    assert cells(text, "BatchBALD, ten at once")[:2] == ["70 / 90 / 110", "190 / 200 / 230"]


def test_codes_and_their_samples_belong_to_their_images(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import vae_downstream

    objective = zoo.build("vae", (4,), 2, z_dim=3, hidden=(8,), likelihood="gaussian", seed=0).eval()
    x, x_test = torch.randn(40, 4), torch.randn(20, 4)
    points = data.Dataset(
        "points", x, torch.zeros(40, dtype=torch.long), x_test, torch.zeros(20, dtype=torch.long), ("a", "b")
    )
    found = vae_downstream.encoded(objective, points, seed=0)
    for part, given in enumerate((x, x_test)):
        q = objective.guide.q_z(given)
        torch.testing.assert_close(found["mean"][part], q.mean)
        several = (found["samples"][part] - q.mean[:, None]) / q.stddev[:, None]
        assert several.shape == (len(given), vae_downstream.SAMPLES, 3)
        assert abs(several.mean()) < 0.2 and abs(several.std() - 1) < 0.15
        assert found["sample"][part].equal(found["samples"][part][:, 0])


def blurred(n: int = 400, seed: int = 0) -> tuple[data.Dataset, tuple[torch.Tensor, torch.Tensor]]:
    """Codes of three classes that overlap, as they are of test data."""
    generator = torch.Generator().manual_seed(seed)
    y = [torch.arange(n) % 3, torch.arange(n // 2) % 3]
    codes = tuple(3.0 * torch.eye(3)[of] + 2.0 * torch.randn(len(of), 3, generator=generator) for of in y)
    return data.Dataset("blurred", codes[0], y[0], codes[1], y[1], ("a", "b", "c")), codes


@pytest.mark.parametrize("probe", ["logistic", "neighbours", "svm"])
def test_a_probe_is_measured_as_scikit_learn_does(monkeypatch, probe):
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import vae_downstream

    points, codes = blurred()
    rows = list(range(0, 400, 7))
    model = {"logistic": LogisticRegression(), "neighbours": KNeighborsClassifier(3), "svm": SVC(C=3.0)}[probe]
    own, test = ((z / codes[0].std()).numpy() for z in codes)
    y, y_test = points.y.numpy(), points.y_test.numpy()
    model.fit(own[rows], y[rows])
    found = vae_downstream.measured(probe, points, codes, rows, seed=0)
    assert found["accuracy"] == pytest.approx(model.score(test, y_test), abs=1e-9)
    assert found["training_accuracy"] == pytest.approx(model.score(own[rows], y[rows]), abs=1e-9)
    assert found["accuracy"] != found["training_accuracy"]


def test_several_samples_of_a_code_vote_and_weigh_as_one(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import vae_downstream

    points, codes = blurred()
    rows = list(range(0, 400, 7))
    alike = tuple(z[:, None].expand(-1, 4, -1) for z in codes)
    for probe in ("logistic", "svm"):
        one, four = (vae_downstream.measured(probe, points, z, rows, seed=0) for z in (codes, alike))
        assert four == pytest.approx(one, abs=0.01)


def test_labels_spread_over_the_graph_of_codes(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import vae_downstream

    points, _ = blurred()
    apart = tuple(torch.eye(3)[y] + 0.05 * torch.randn(len(y), 3) for y in (points.y, points.y_test))
    graph = vae_downstream.neighbours(apart)
    known = torch.full((400,), -1)
    known[:3] = points.y[:3]
    assert vae_downstream.spread(points, graph, known) == {"accuracy": 1, "training_accuracy": 1}
    known[:3] = (points.y[:3] + 1) % 3  # a label of another class is spread as it is
    assert vae_downstream.spread(points, graph, known) == {"accuracy": 0, "training_accuracy": 1}


def test_the_papers_claims_are_held_against_the_results(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import vae_downstream

    def results(of_z, of_cnn):
        sizes = list(vae_downstream.SIZES)
        probed = lambda v: [  # noqa: E731
            {"labels": n, "probe": p, "code": "mean", "accuracy": v, "training_accuracy": v + 0.1}
            for n in sizes for p in ("logistic", "network")
        ]  # fmt: skip
        found = {f"z{z}_0": {"config": {"row": f"z{z}", "probes": sizes}, "probes": probed(v)} for z, v in of_z.items()}
        cnn = {f"cnn_{n}": {"config": {"row": "cnn", "labels": n, "probes": []}, "accuracy": of_cnn} for n in sizes}
        return found | cnn

    def said(of_z, of_cnn):
        found = results(of_z, of_cnn)
        text = vae_downstream.claims(found, {f"z{z}": [found[f"z{z}_0"]] for z in of_z})
        falls, wins = (
            cells(text, claim) for claim in ("accuracy falls with z (logistic, 100 labels)", "the CNN is always better than probes (z4)")
        )  # fmt: skip
        gaps = cells(text, "VAE + logistic: training less test accuracy, z = 4")
        assert gaps[1].startswith("10.0, 10.0")
        return falls[0], wins[0]

    assert said({4: 0.6, 9: 0.5, 16: 0.4, 25: 0.3}, 0.61) == ("yes", "yes")
    assert said({4: 0.6, 9: 0.5, 16: 0.5, 25: 0.3}, 0.59) == ("no", "no")


def test_tables(tmp_path, script):
    out = script("tables.py", "--scale", "smoke", "--workers", "1", "--out", "out", cwd=tmp_path)
    assert "| m2 " in out and "| sslpe " in out and "iris, 10 a class" in out and "diabetes, 100" in out
    result = json.loads((tmp_path / "out/iris_3_0.json").read_text())
    assert result["rows"] == 105 and result["score"].keys() == result["seconds_of"].keys()


def test_vae_downstream_checks_the_papers_claims(tmp_path, script):
    write_mnist(tmp_path / "data", 300, "FashionMNIST")
    arguments = ["--data-root", "data", "--scale", "smoke", "--workers", "1", "--out", "out"]
    first = script(
        "vae_downstream.py", *arguments, "--rows", "z2", "z4", "z9", "z16", "z25", "pixels", "cnn", cwd=tmp_path
    )
    assert "accuracy falls with z (logistic, 100 labels)" in first and "| pixels, logistic" in first
    assert {"table.md", "labels.png", "plane.png", "reconstructions_z4.png"} <= made(tmp_path / "out")
    probes = json.loads((tmp_path / "out/z4_0.json").read_text())["probes"]
    of_samples = {(p["probe"], p["code"]) for p in probes if p["code"] != "mean"}
    assert {p["probe"] for p in probes} == {"logistic", "network", "neighbours", "svm", "spreading"}
    assert of_samples == {
        (probe, code) for probe in ("logistic", "network", "neighbours", "svm") for code in ("sample", "samples")
    }
    again = script("vae_downstream.py", *arguments, "--rows", "z4", "cnn", cwd=tmp_path)
    assert "seconds" not in again.split("|")[0]


def test_mnist_labels(tmp_path, script):
    """All rows with 10 labels per class, and one with as many as there are by default."""
    write_mnist(tmp_path / "data", 6000)
    arguments = ["--data-root", "data", "--scale", "smoke", "--workers", "1", "--out", "out"]
    out = script("mnist_labels.py", *arguments, "--per-class", "10", cwd=tmp_path)
    assert (
        all(f"| {m} " in out for m in ("classifier", "m2", "sslpe", "sslapd", "adgm_conv"))
        and "fails, paper 002" in out
    )
    assert {"table.md", "sslapd_10_0.json", "samples_sslpe_10_0.png"} <= made(tmp_path / "out")
    out = script("mnist_labels.py", *arguments, "--rows", "classifier", "m2", cwd=tmp_path)
    assert all(f"MNIST, {n} labels per class" in out for n in (10, 20, 60, 100, 300))
    assert {"tsne_m2_100_0.png", "m2_300_0.json"} <= made(tmp_path / "out")


def test_mier(tmp_path, script):
    """With its own 100 labels per class, more than there would be among a few hundred images."""
    write_mnist(tmp_path / "data", 2000)
    (tmp_path / "data/MNIST").rename(tmp_path / "data/FashionMNIST")
    arguments = ["--data-root", "data", "--scale", "smoke", "--data", "fashion_mnist"]
    arguments += ["--workers", "1", "--out", "out", "--draws", "0"]
    first = script("mier.py", *arguments, "1", "--models", "m2", "adgm", cwd=tmp_path)
    assert all(f"| {m} " in first for m in ("mlp", "cnn", "m2+mier", "adgm+mier")) and " .. " in first
    pictures = {f"{kind}_m2_fashion_mnist_100_0.png" for kind in ("tsne", "samples", "reconstructions")}
    assert pictures <= made(tmp_path / "out")
    both = script("mier.py", *arguments, "--models", "lvae", cwd=tmp_path)
    assert "m2_fashion_mnist_100_0:" not in both and "| lvae+mier " in both and "| m2+mier " in both


def test_latent_classifier(tmp_path, script):
    write_mnist(tmp_path / "data", 300)
    arguments = ["--data-root", "data", "--scale", "smoke", "--workers", "1", "--out", "out"]
    out = script("latent_classifier.py", *arguments, cwd=tmp_path)
    assert "92.3 (2.8)" in out and "a VAE's" in out and "lowest loss" in out and "a classifier on its z" in out
    pictures = {"batches.png", "analogies_table.png", "analogies_pretraining.png", "reconstructions_vae.png"}
    assert pictures | {"table.md"} <= made(tmp_path / "out")


def test_latent_plane(tmp_path, script):
    out = script("latent_plane.py", "--scale", "smoke", "--workers", "1", cwd=tmp_path)
    assert "labels alone" in out and "annealed" in out
    assert {"table.md", "circles.png", "sigma.png", "moons.png"} <= made(tmp_path / "runs/latent_plane_smoke")
    again = script("latent_plane.py", "--scale", "smoke", "--report", "--out", "none", cwd=tmp_path)
    assert "labels alone" not in again


def test_variational_classification(tmp_path, script, scripts, monkeypatch):
    module = scripts("variational_classification")
    monkeypatch.setattr(module, "EPSILONS", (0.1, 0.3))
    monkeypatch.setattr(module, "FIRST", 100)
    variants = {name: module.VARIANTS[name] for name in ("vc, T linear", "vc, code a Gaussian", "gm, weight 1")}
    monkeypatch.setattr(module, "VARIANTS", variants)
    monkeypatch.setitem(module.SETTINGS["semi"], "channels", [2, 4, 4])
    for name in ("MNIST", "FashionMNIST"):
        write_mnist(tmp_path / "data", 800, name)
    arguments = ["--scale", "smoke", "--data-root", "data", "--workers", "1", "--out", "out"]
    out = script("variational_classification.py", *arguments, "--parts", "full", "low", "semi", "plane", cwd=tmp_path)
    parts = (
        "MNIST, all labels",
        "ce, temperature",
        "AUROC, mean (sd), worst, against",
        "under attack",
        "500 labels alone",
        "others unlabeled",
    )
    assert all(title in out for title in (*parts, "vc, T linear", "vc, code a Gaussian"))
    by_set = {f"{kind}_{name}.png" for kind in ("shift", "reliability", "tsne") for name in ("mnist", "fashion_mnist")}
    assert by_set | {"plane.png", "ambiguous.png", "ambiguous_ways.png", "table.md", "foreign.md"} <= made(
        tmp_path / "out"
    )
    result = json.loads((tmp_path / "out/full_mnist_vc_0.json").read_text())
    assert set(result["ood"]) == {"fashion_mnist"} and len(result["corruptions"]) == 10
    again = script("variational_classification.py", *arguments, "--report", cwd=tmp_path)
    assert "MNIST, all labels" in again


def test_codes_that_are_the_prior_are_at_no_distance_from_it(scripts):
    module = scripts("variational_classification")
    o, g = zoo.build("vc", (5,), 3, z_dim=2, hidden=(4,), stochastic=True), torch.Generator().manual_seed(0)
    y = torch.arange(30_000) % 3
    p = torch.distributions.Normal(o.model.p_z.loc[y].detach(), o.model.p_z.scale.detach().expand(3, 2)[y])
    x = torch.cat([p.loc + 0.8 * p.scale * torch.randn(30_000, 2, generator=g), torch.zeros(30_000, 3)], 1)
    o.guide.code = lambda x: torch.distributions.Normal(x[:, :2], 0.6 * p.scale[:1])  # 0.8^2 + 0.6^2 = 1
    assert o.model.p_z.scale.unique().numel() == 1
    assert abs(module.from_prior(o, x, y)) < 1e-3
    o.guide.code = lambda x: torch.distributions.Normal(x[:, :2], 1e-6)
    assert module.from_prior(o, x, y) > 0.03


def test_what_is_kept_aside_has_no_label_in_training(scripts, tmp_path, monkeypatch):
    module, seen = scripts("variational_classification"), []
    write_mnist(tmp_path / "data", 200, "MNIST")
    monkeypatch.setenv("PYRO_SSL_DATA", str(tmp_path / "data"))

    def stop(config, directory, loaded, **arguments):
        seen.append(loaded[1])
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "trained", stop)
    config = module.configure("full", "mnist", "ce", draw=1, scale="smoke", kept_aside=module.KEPT_ASIDE)
    with pytest.raises(KeyboardInterrupt):
        module.run("name", config, tmp_path, tmp_path)
    assert len(seen[0]) == 100 and int((seen[0] < 0).sum()) == 50 == config["kept_aside"]


def test_a_wide_resnet_goes_on_in_pieces_as_on_a_gpu(scripts, tmp_path, monkeypatch):
    """The paper's training of wide ResNets, on noise; killed after one epoch, it ends where an unbroken run does."""
    for name in ("MNIST", "FashionMNIST"):
        write_mnist(tmp_path / "data", 300, name)
    monkeypatch.setenv("PYRO_SSL_DATA", str(tmp_path / "data"))
    module = scripts("variational_classification")
    monkeypatch.setattr(module, "EPSILONS", (0.1,))
    config = module.configure("cifar", "mnist", "vc", {"backbone": "wrn-10-1"}, draw=1, scale="paper")
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
    assert {k: v for k, v in again.items() if k != "seconds"} == {k: v for k, v in whole.items() if k != "seconds"}


def test_intervals_are_students_and_gains_are_paired(scripts):
    mier = scripts("mier")
    values = [1.0, 2.5, 0.5, 3.0]
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert mier.interval(values) == f"+1.75 ({low:+.2f} .. {high:+.2f})" and mier.interval([-2.0]) == "-2.00"
    accuracy = {("m2", 0): 0.80, ("m2", 1): 0.70, ("m2+mier", 1): 0.73, ("m2+mier", 0): 0.79, ("m2", 2): 0.9}
    results = {str(k): {"config": {"row": k[0], "draw": k[1]}, "accuracy": v} for k, v in accuracy.items()}
    found = mier.gains(results, "m2")
    assert found.keys() == {0, 1} and abs(found[0] + 1) < 1e-9 and abs(found[1] - 3) < 1e-9


def test_selection_takes_the_epochs_that_it_names(scripts):
    path = {"validation": [0.5, 0.9, 0.7], "loss": [1.0, 3.0, 2.0], "test": [0.1, 0.2, 0.3]}
    rows = scripts("latent_classifier").selection([{"path": path, "config": {"weight": 1.0}}])
    assert [cell.strip() for cell in rows.splitlines()[-1].split("|")[1:-1]] == ["1", "20.00", "10.00", "30.00"]


@pytest.mark.parametrize("method", ["m2", "latent_classifier", "latent_classifier_simplified"])
def test_a_pretrained_pair_starts_as_the_vae(method, scripts, tmp_path, monkeypatch):
    module, built = scripts("latent_classifier"), []
    build = zoo.build
    monkeypatch.setattr(module.zoo, "build", lambda *a, **k: built.append(build(*a, **k)) or built[-1])
    config = module.configure("pretraining", method, 1, "smoke", 0.5)
    dataset = data.Dataset("noise", *(torch.rand(40, 1, 4, 4), torch.arange(40) % 10) * 2, tuple(map(str, range(10))))
    ours = module.pretrained(config, dataset, tmp_path / "vae", tmp_path).eval()
    first, x, z = built[0].eval(), torch.rand(5, 1, 4, 4), torch.randn(5, 50)
    y = torch.eye(10)[:5]
    with torch.no_grad():
        q = ours.guide.q_z(x, y) if method == "m2" else ours.guide.q_z(x)
        p = ours.model.p_x(z) if method.endswith("simplified") else ours.model.p_x(y, z)
        assert torch.allclose(q.mean, first.guide.q_z(x).mean, atol=1e-6) and torch.allclose(
            p.mean, first.model.p_x(z).mean, atol=1e-6
        )


def test_packed_images_are_unpacked(scripts, tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 4), dtype=np.uint8)
    planes = images.copy()
    planes[:, 0] -= planes[:, 1]
    planes[:, 2] -= planes[:, 1]
    for axis in (3, 2):
        planes = np.diff(planes, axis=axis, prepend=np.uint8(0))
    (tmp_path / "cifar10").mkdir()
    for name, part in (("train_0", slice(0, 2)), ("train_1", slice(2, 4)), ("test", slice(4, 6))):
        np.savez(
            tmp_path / "cifar10" / f"{name}.npz", delta=planes[part], labels=np.arange(6, dtype=np.uint8)[part] % 2
        )
    found = scripts("common").packed_cifar10(tmp_path)
    assert np.array_equal((255 * found.x.numpy()).round(), images[:4]) and found.y.tolist() == [0, 1, 0, 1]
    assert np.array_equal((255 * found.x_test.numpy()).round(), images[4:])
    assert scripts("common").packed_cifar10(tmp_path / "none") is None
    monkeypatch.setenv("PYRO_SSL_DATA", str(tmp_path))
    config = {"data": "cifar10", "labels": "all", "draw": 0}
    assert len(scripts("common").images(config | {"rows": 3})[0].x) == 3
    with pytest.raises(ValueError, match="of 30000 training images, and there are 4"):
        scripts("common").images(config)


def test_a_table_keeps_its_draws_and_a_changed_run_starts_anew(scripts, tmp_path):
    common = scripts("common")
    asked = argparse.Namespace(out=tmp_path, draws=[7])
    assert common.draws_of(asked, [0, 1]) == ([0, 1, 7], [7])
    (tmp_path / "earlier.json").write_text('{"config": {"draw": 3}}')
    (tmp_path / "other.json").write_text("{}")
    assert common.draws_of(asked, [0, 1]) == ([0, 1, 3, 7], [7])
    assert common.draws_of(argparse.Namespace(out=tmp_path, draws=None), [0, 1]) == ([0, 1, 3], [0, 1])
    found = []

    def function(name, config, directory, out):
        found.append((directory / "checkpoint").exists())
        (directory / "checkpoint").mkdir(exist_ok=True)
        if len(found) < 3:
            raise KeyboardInterrupt
        return {"accuracy": 1.0}

    given = argparse.Namespace(out=tmp_path, report=False, workers=1, threads=1)
    for config in ({"draw": 0}, {"draw": 0}, {"draw": 1}, {"draw": 1}):
        with suppress(KeyboardInterrupt):
            common.study({"run": config}, function, given)
    assert found == [False, True, False] and not (tmp_path / "runs/run").exists()


def test_a_tables_source_is_its_whole_command_and_names_what_differs(scripts):
    common = scripts("common")
    run = {"versions": {"torch": "2"}, "date": "2026-01-01", "commit": "abc", "threads": 1}
    results = {
        "one": run | {"command": "python a.py --draws 0 1 --scale cpu --workers 1"},
        "two": run | {"command": "python a.py --scale cpu --threads 2", "threads": 2},
        "three": run | {"command": "python a.py --scale cpu", "date": "2026-01-02", "diverged": "loss"},
    }
    said = common.sources(results)
    assert said.startswith("`python a.py --scale cpu` (2026-01-01 abc; 2026-01-02 abc); torch 2; 2 threads had two;")
    assert "diverged, and in no mean: three." in said


def test_gradient_variance(tmp_path, script):
    out = script("gradient_variance.py", "--scale", "smoke", "--out", "out", cwd=tmp_path)
    assert "| 100     | mixture " in out and "| one W for all data" in out and (tmp_path / "out/table.md").exists()


def test_benchmark(tmp_path, script):
    """All codes take their turns, every table has its row, and the memory is measured."""
    tiny = ["--hidden", "8", "--rounds", "1", "--threads", "1", "--out", "out"]
    out = script("benchmark.py", "--classes", "3", "10", "--no-memory", *tiny, cwd=tmp_path)
    for code in (
        "pyro example",
        "ours, all classes",
        "ours, top_k=1",
        "ours, auto",
        "bare torch, top_k=1",
        "floor, top_k=1",
    ):
        assert f"| {code} " in out
    result = json.loads((tmp_path / "out/results.json").read_text())
    assert [r["classes"] for r in result["results"]] == [3, 10]
    assert (tmp_path / "out/benchmark.png").exists() and "K = 10, 1x8" in (tmp_path / "out/table.md").read_text()
    code = "ours, top_k=1"  # in a process of its own, which is what takes long
    script("benchmark.py", "--classes", "3", "--codes", code, *tiny, cwd=tmp_path)
    memory = json.loads((tmp_path / "out/results.json").read_text())["results"][0]["mb"]
    assert memory.keys() == {code} and all(mb >= 0 for mb in memory.values())


def test_time_to_accuracy(tmp_path, script):
    write_mnist(tmp_path / "data")
    arguments = ["--data-root", "data", "--labels", "20", "--epochs", "2", "--out", "out"]
    out = script("time_to_accuracy.py", *arguments, "--accuracy", "0", cwd=tmp_path)
    assert re.search(r"m2, 20 labels of MNIST, draw 0: 0% after \d+ s", out)
    out = script("time_to_accuracy.py", *arguments, "--accuracy", "1.1", cwd=tmp_path)
    assert re.search(r"110% not reached in \d+ s; best \d+\.\d+ %", out)
    assert len(json.loads((tmp_path / "out/m2_0.json").read_text())["path"]) == 2


def test_bare_torch_in_the_benchmark_is_the_librarys_algorithm(monkeypatch):
    """The same numbers for q(y|x), noise and weights give the same loss, so that the times compare like with like."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import benchmark

    plain = {"activation": "softplus", "likelihood": "bernoulli", "noise": 0.0, "dropout": 0.0, "balance": 0.0}
    o = zoo.build("m2", benchmark.PIXELS, 5, hidden=(8,), z_dim=benchmark.Z, top_k=1, **plain)
    b = benchmark.Bare(5, [8])
    pairs = [
        (b.q_y[0], o.guide.q_y.network.first.weights[0], o.guide.q_y.network.first.bias),
        (b.x_to_h, o.guide.q_z.network.first.weights[0], o.guide.q_z.network.first.bias),
        (b.z_to_h, o.model.p_x.network.first.weights[1], o.model.p_x.network.first.bias),
    ]
    with torch.no_grad():
        for layer, weight, bias in pairs:
            layer.weight.copy_(weight.T), layer.bias.copy_(bias)
        b.y_to_h.copy_(o.guide.q_z.network.first.weights[1]), b.y_to_g.copy_(o.model.p_x.network.first.weights[0])
        for stack, network in ((b.q_y, o.guide.q_y), (b.q_z, o.guide.q_z), (b.p_x, o.model.p_x)):
            stack[-1].load_state_dict(network.network.rest[-1].state_dict())
    x = benchmark.images()
    torch.manual_seed(0)
    theirs = b(x)
    torch.manual_seed(0)
    ours = o(Batch(x_unlabeled=x)) - torch.tensor(5.0).log()  # bare torch leaves the constant log p(y) out
    assert torch.allclose(ours, theirs, rtol=1e-5)

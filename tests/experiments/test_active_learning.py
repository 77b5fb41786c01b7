"""Active learning: killed loops, labels to a goal, tables and pictures."""

import json
import math
from contextlib import suppress

import pytest
from experiment_files import cells, made, names, remove, row, write_mnist

from pyro_ssl import ActiveLearner, data, zoo
from pyro_ssl.evaluation import metrics

pytestmark = pytest.mark.slow


def test_active_learning_goes_on_and_reports(tmp_path, script, scripts, monkeypatch):
    active_learning = scripts("active_learning")
    monkeypatch.setattr(active_learning, "MEMBERS", 2)
    for options in (active_learning.CONV, active_learning.SUPERVISED):
        monkeypatch.setitem(options, "channels", (2, 4))
    write_mnist(tmp_path / "data", 130)
    table = tmp_path / "out/active_learning.csv"
    arguments = [
        "--data-root",
        "data",
        "--scale",
        "smoke",
        "--data",
        "mnist",
        "--workers",
        "1",
        "--out",
        "out",
    ]
    arguments += ["--rows", "plane", "sslapd_entropy", "sslapd_bald", "m2_entropy", "ensemble_bald"]
    first = script("active_learning", *arguments, cwd=tmp_path)
    assert "| sslapd, bald " in first and "| ensemble, bald " in first and "70 / 90 / 110" in first
    pictures = {"functions.png", "sequence.png", "moons.png", "mnist.png"}
    assert made(tmp_path / "out/active_learning") == pictures
    result = row(table, "m2_entropy_mnist_5")
    assert [p["labels"] for p in json.loads(result["curve"])] == [20, 30, 40]
    assert len(set(json.loads(result["indices"]))) == 40
    dev = [*arguments, "--rows", "ensemble_bald", "--draws", "100"]
    assert "| 1      |" in script("active_learning", *dev, cwd=tmp_path)  # of that draw alone
    assert "ensemble_bald_mnist_100" in names(table)
    remove(table, "sslapd_bald_5")
    again = script("active_learning", *arguments, cwd=tmp_path)
    assert "sslapd_bald_5: seconds" in again and "m2_entropy_mnist_5:" not in again
    assert (
        again.count("| 1      |") == 4 and "| sslapd, entropy" in again
    )  # without that of the draw for development


def test_the_papers_methods_ask_for_labels_of_mnist(tmp_path, script):
    write_mnist(tmp_path / "data", 130)
    arguments = ["--data-root", "data", "--scale", "smoke", "--workers", "1", "--out", "out"]
    out = script("active_learning", *arguments, "--parts", "paper", cwd=tmp_path)
    table = tmp_path / "out/active_learning.csv"
    assert {name.rsplit("_mnist_5")[0] for name in names(table)} == {
        f"{method}_paper_{wanted}"
        for method in ("sslpe", "sslapd")
        for wanted in ("entropy", "random")
    }
    text = "\n".join(line for line in out.splitlines() if line.startswith("|"))
    for method in ("sslpe", "sslapd"):
        assert cells(text, f"{method}, entropy")[0] == "1"
    assert "accuracy % with 20 labels" in text and "log-likelihood with 40" in text
    assert made(tmp_path / "out/active_learning") == {"mnist_paper.png"}


def test_loops_with_the_papers_settings_have_its_share_of_warm_up(scripts):
    active_learning = scripts("active_learning")
    config = active_learning.configure("sslapd_paper_entropy", "mnist", 5, "cpu")
    preset = zoo.preset_of("sslapd", "paper-002")
    differing = {
        name for name, value in preset.option_values.items() if config["options"][name] != value
    }
    assert differing == {"top_k"}
    training, whole = config["training"], preset.training_values
    assert training["warmup"] / training["epochs"] == whole["warmup"] / whole["epochs"] > 0
    assert (
        active_learning.configure("sslpe_paper_random", "mnist", 5, "paper")["options"]["top_k"]
        is None
    )


def test_an_active_loop_that_was_killed_measures_what_an_unbroken_one_does(
    tmp_path, monkeypatch, scripts
):
    active_learning = scripts("active_learning")

    from pyro_ssl.active import committee as active

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
    plain = [
        [{k: v for k, v in p.items() if k != "round"} for p in r["curve"]] for r in (whole, again)
    ]
    assert plain[0] == plain[1] and whole["indices"] == again["indices"] and len(calls) == 5


def test_a_loop_is_told_the_labels_of_what_it_asks(tmp_path, monkeypatch, scripts):
    active_learning = scripts("active_learning")
    optimum = scripts("moons").optimum

    config = active_learning.configure("sslpe_random", "moons", 3, "smoke")
    points, seen, own = data.two_moons(60, 60, 0.1, seed=3), [], ActiveLearner.predict_proba
    monkeypatch.setattr(
        ActiveLearner, "predict_proba", lambda *args: seen.append(own(*args)) or seen[-1]
    )
    result = active_learning.run("a", config, tmp_path, tmp_path)
    assert result["classes"] == points.y[result["indices"]].tolist()
    assert result["ceiling"] == metrics.accuracy(optimum(points.x_test, 0.1), points.y_test)
    assert [p["accuracy"] for p in result["curve"]] == [
        metrics.accuracy(p, points.y_test) for p in seen
    ]


def test_labels_to_a_goal_are_counted_by_hand(monkeypatch, scripts):
    active_learning = scripts("active_learning")

    def loop(labels, accuracies, most=100, **others):
        curve = [
            {"labels": n, "accuracy": a, "round": 10.0}
            for n, a in zip(labels, accuracies, strict=True)
        ]
        return {"curve": curve, "seconds": 5.0, "config": {"most": most}} | others

    one = loop((4, 5, 6), (0.5, 0.9, 0.95))
    assert [active_learning.first_at(one, goal) for goal in (0.5, 0.9, 0.91, 0.96)] == [
        4,
        5,
        6,
        math.inf,
    ]

    moons = [
        loop((4, 5, 6), a, 6, ceiling=0.99)
        for a in ((0.985, 1, 1), (0.98, 0.985, 0), (0, 0.98, 0.99), (0, 0, 0.9))
    ]
    text = active_learning.moons_table({"sslpe_entropy": moons, "sslapd_bald": moons[:3]})
    mean_of_3, of_all, worst, starts = cells(text, "sslpe, entropy")[:4]
    assert (mean_of_3, of_all, worst, starts) == ("5.0", "over 5.5 (1 not by 6)", "over 6", "4")
    assert cells(text, "sslapd, bald")[:4] == ["5.0", "5.0", "6", "3"]

    accuracies = [[0.95] + 3 * [1], [0, 0.95, 1, 1], [0, 0, 0.95, 1], [0, 0, 0, 0.95], 4 * [0.9]]
    text = active_learning.images_table(
        "mnist", {"m2_entropy": [loop((20, 30, 40, 100), a) for a in accuracies]}
    )
    found = cells(text, "m2, entropy")
    assert found[:4] == ["20 / 30 / 40", "30 / 40 / 100", "40 / 100 / over 100", "5"]
    assert found[5] == "37.00 (50.70)" and found[-1] == "10, 10"
    assert cells(text, "BatchBALD, ten at once")[:2] == ["70 / 90 / 110", "190 / 200 / 230"]

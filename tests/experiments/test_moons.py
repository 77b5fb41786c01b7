"""Two moons: tables and pictures, and the Bayes-optimal classifier."""

import pytest
from experiment_files import cells, made, names, remove

from pyro_ssl import data
from pyro_ssl.evaluation import metrics

pytestmark = pytest.mark.slow


def test_moons_and_a_second_call_runs_nothing(tmp_path, script, scripts, monkeypatch):
    moons = scripts("moons")
    arguments = ["--scale", "smoke", "--workers", "1", "--out", "out", "--settings", "ours"]
    first = script("moons", *arguments, cwd=tmp_path)
    assert (
        "| Bayes optimum" in first and "sslapd_0.1_10: accuracy" in first and "99.9 (0.01)" in first
    )
    pictures = {"data.png", "decisions.png", "batch_norm.png", "curves.png"}
    assert made(tmp_path / "out/moons") == pictures
    again = script("moons", *arguments, cwd=tmp_path)
    assert "| Bayes optimum" in again and "accuracy 0" not in again
    remove(tmp_path / "out/moons.csv", "m2_0.1_10")
    reported = script("moons", *arguments, "--report", cwd=tmp_path)
    assert reported.count("| sslpe ") == 2 and reported.count("| m2 ") == 1  # at noise 0.2 alone
    monkeypatch.setattr(moons, "METHODS", ("classifier", "m2"))
    monkeypatch.setattr(moons, "CURVES", ())
    longer = script("moons", *arguments, "--labels", "random", cwd=tmp_path)
    assert "random_m2_0.1_10: accuracy" in longer
    page = (tmp_path / "out/moons.md").read_text()
    assert "| noise 0.1, 6 labels " in page and "| noise 0.1, random labels, 6 labels " in page


def test_moons_with_the_papers_settings(tmp_path, script, scripts, monkeypatch):
    moons = scripts("moons")
    monkeypatch.setattr(moons, "METHODS", ("m2", "sslapd"))
    arguments = ["--scale", "smoke", "--workers", "1", "--out", "out", "--settings", "paper"]
    out = script("moons", *arguments, cwd=tmp_path)
    assert "paper_sslapd_0.2_10: accuracy" in out and "\nm2_0.2_10" not in out
    assert "| noise 0.2, the paper's settings, 6 labels " in out and "| sslpe " not in out


def test_a_preset_gives_all_settings_of_a_run(scripts):
    config = scripts("moons").configs("cpu", [10])["paper_sslapd_0.2_10"]
    assert config["preset"] == "paper-002-moons" and config["settings"] == "paper"
    assert config["options"]["gibbs_steps"] == 10 and config["options"]["dropout"] == 0
    assert config["training"]["schedule"] == "exponential" and config["training"]["ema"] == 0


def test_moons_with_one_change_in_the_papers_settings(tmp_path, script, scripts, monkeypatch):
    ablations = scripts("moons_ablations")
    changes = {name: ablations.CHANGES[name] for name in ("batch_norm", "variance_0")}
    monkeypatch.setattr(ablations, "CHANGES", changes)
    monkeypatch.setattr(scripts("moons"), "METHODS", ("sslapd",))
    monkeypatch.setattr(scripts("moons"), "NOISES", (0.2,))
    arguments = ["--scale", "smoke", "--workers", "1", "--out", "out", "--settings"]
    out = script("moons", *arguments, "paper", "ablations", cwd=tmp_path)
    table = tmp_path / "out/moons.csv"
    runs = {f"ablation_{run}_10" for run in ("batch_norm_sslpe", "batch_norm_sslapd")}
    assert names(table) == {*runs, "ablation_variance_0_sslapd_10", "paper_sslapd_0.2_10"}
    assert "| sslapd " in out and "no batch norm" in out and "No change has two draws yet" in out
    assert "| noise 0.2, the paper's settings, 6 labels " in out  # of its own run alone


def test_an_ablation_differs_from_the_preset_by_its_change_alone(scripts):
    ablations = scripts("moons_ablations")
    configs = scripts("moons").configs("cpu", [10, 11, 12, 13])
    runs = {name: config for name, config in configs.items() if name.startswith("ablation")}
    assert len(runs) == 3 * (4 + 6)
    for name, config in runs.items():
        change = next(c for c in ablations.CHANGES.values() if c.title == config["change"])
        preset = configs[f"paper_{config['method']}_0.2_{config['draw']}"]
        for group in ("options", "training"):
            expected = preset[group] | getattr(change, group)
            assert config[group] == expected, name
        assert (config["options"], config["training"]) != (preset["options"], preset["training"])


def test_changes_are_paired_by_draw(scripts):
    ablations = scripts("moons_ablations")

    def result(settings, accuracy, draw, change=None, **others):
        config = {"settings": settings, "method": "sslpe", "noise": 0.2, "draw": draw}
        measured = {"accuracy": accuracy, "log_likelihood": -0.1, "seconds": 2.0}
        return {"config": config | {"change": change}, **measured, **others}

    results = {
        f"paper_{draw}": result("paper", accuracy, draw)
        for draw, accuracy in ((10, 0.90), (11, 0.95), (13, 0.1))
    }
    for title, accuracies in (("no batch norm", (0.89, 0.90)), ("no l2", (0.91, 0.94))):
        for draw, accuracy in zip((10, 11), accuracies, strict=True):
            results[f"{title}_{draw}"] = result("ablations", accuracy, draw, title)
    config = {"settings": "ablations", "method": "sslapd", "draw": 12, "change": "no l2"}
    results["diverged"] = {"config": config, "diverged": "not finite"}
    text = ablations.block(results)
    assert "| -1.00, -5.00 " in text and "| +1.00, -1.00 " in text
    assert "0 (1 diverged)" in text and "10.00" not in text  # no preset of draw 13
    assert cells(text, "sslpe")[0] == "none"
    found = "lower than the preset's with: no batch norm (SSLPE); higher with: none; neither with: "
    assert f"{found}no l2 (SSLPE). " in text
    assert text.endswith("diverges in at least one draw with: no l2 (SSLAPD).")
    assert ablations.block({}) == "No runs yet."


def test_the_ceiling_on_two_moons_is_the_bayes_optimal_classifiers(monkeypatch, scripts):
    """Against sklearn's points: accuracy and calibration at noise 0.2, 97.17 % and -.0762."""
    moons = scripts("moons")

    points = data.two_moons(10, 20_000, 0.2, seed=3)
    found = metrics.evaluate(moons.optimum(points.x_test, 0.2), points.y_test)
    assert abs(found["accuracy"] - 0.9717) < 0.004 and abs(found["log_likelihood"] + 0.0762) < 0.01
    assert found["ece"] < 0.01

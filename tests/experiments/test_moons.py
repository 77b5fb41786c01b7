"""Two moons: tables and pictures, and the Bayes-optimal classifier."""

import pytest
from experiment_files import made, remove

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


def test_the_ceiling_on_two_moons_is_the_bayes_optimal_classifiers(monkeypatch, scripts):
    """Against sklearn's points: accuracy and calibration at noise 0.2, 97.17 % and -.0762."""
    moons = scripts("moons")

    points = data.two_moons(10, 20_000, 0.2, seed=3)
    found = metrics.evaluate(moons.optimum(points.x_test, 0.2), points.y_test)
    assert abs(found["accuracy"] - 0.9717) < 0.004 and abs(found["log_likelihood"] + 0.0762) < 0.01
    assert found["ece"] < 0.01

"""`pyro-ssl sweep`: configurations, choice by validation labels, the test set, and its table."""

import csv
import json
from pathlib import Path

import pytest
from cli_programs import run

from pyro_ssl import data
from pyro_ssl.cli import sweep as sweep_command
from pyro_ssl.evaluation import metrics
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.sweeps import Outcome
from pyro_ssl.zoo.saved_model import SavedModel

OPTIONS = (
    *("m2", "--data", "digits", "--labels", 60, "--validation", "0.5", "--epochs", 2),
    *("--hidden", "[8]", "--out", "out"),
)


def table() -> list[dict[str, str]]:
    with Path("out/table.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_grid_with_seeds(capsys):
    command = ("sweep", *OPTIONS, "--seeds", "0:2", "--grid", "z_dim=2,3")
    assert run(*command) == 0
    printed = capsys.readouterr().out
    assert "4 runs in out" in printed and "1 of 4, about" in printed and "4 of 4" in printed
    rows = table()
    assert [(row["z_dim"], row["seed"]) for row in rows] == [
        ("2", "0"),
        ("2", "1"),
        ("3", "0"),
        ("3", "1"),
    ]
    means = {}
    for row in rows:
        means.setdefault(row["z_dim"], []).append(float(row["val_accuracy"]))
    chosen = max(means, key=lambda z_dim: sum(means[z_dim]))
    tested = [row for row in rows if row["test_accuracy"]]
    assert [row["z_dim"] for row in tested] == [chosen] * 2
    for row in rows:
        directory = Path("out/runs") / row["run"]
        assert (directory / "test.json").exists() == (row in tested)
        config = json.loads((directory / "config.json").read_text())
        assert (config["options"]["z_dim"], config["seed"]) == (int(row["z_dim"]), int(row["seed"]))
        measured = (directory / "metrics.jsonl").read_text().splitlines()
        assert json.loads(measured[-1])["val_accuracy"] == float(row["val_accuracy"])
    digits = data.load("digits")
    model = SavedModel.load(Path("out/runs") / tested[0]["run"] / "model").objective
    accuracy = metrics.accuracy(predict_proba(model, digits.x_test), digits.y_test)
    assert float(tested[0]["test_accuracy"]) == accuracy
    assert run("evaluate", Path("out/runs") / tested[0]["run"]) == 0


def outcome(z_dim, seed, accuracy) -> Outcome:
    config = {"method": "m2", "seed": seed, "options": {"z_dim": z_dim}, "training": {}}
    return Outcome(f"{z_dim}-{seed}", config, {"val_accuracy": accuracy})


@pytest.mark.parametrize(
    ("accuracies", "line"),
    [
        (
            {2: [0.5, 0.7], 3: [0.7, 0.5], 4: [0.1, 0.1]},
            "z_dim=2 and z_dim=3 cannot be told apart: they are equally accurate, and the first is "
            "chosen",
        ),
        (
            {2: [0.5], 3: [0.6]},
            "z_dim=3 and z_dim=2 cannot be told apart: 10.0 points may be chance, since each has a "
            "single run; give more --seeds",
        ),
        (
            {2: [0.5, 0.6, 0.7], 3: [0.6, 0.6, 0.7]},
            "z_dim=3 and z_dim=2 cannot be told apart: the difference over 3 seeds is 3.3 points "
            "(95 % interval -11.0 to 17.7); more --seeds may tell",
        ),
        ({2: [0.5, 0.6, 0.7], 3: [0.7, 0.8, 0.91]}, None),
        ({2: [0.5, 0.6]}, None),
    ],
)
def test_settings_that_cannot_be_told_apart(accuracies, line, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sweep_command, "_test", lambda chosen, out: {})
    outcomes = [
        outcome(z_dim, seed, accuracy)
        for z_dim, values in accuracies.items()
        for seed, accuracy in enumerate(values)
    ]
    sweep_command.report(outcomes, tmp_path, ["z_dim"])
    lines = capsys.readouterr().out.splitlines()
    assert [text for text in lines if "told apart" in text] == ([line] if line else [])


def test_a_setting_with_a_failed_run_is_compared_with_none(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sweep_command, "_test", lambda chosen, out: {})
    failed = Outcome("failed", outcome(2, 1, 0.0).config, error="ValueError: no")
    runs = [outcome(2, 0, 0.5), failed, outcome(3, 0, 0.5), outcome(3, 1, 0.5)]
    with pytest.raises(ValueError, match="1 of 4 runs have failed"):
        sweep_command.report(runs, tmp_path, ["z_dim"])
    printed = capsys.readouterr().out
    assert "chosen: z_dim=3" in printed and "told apart" not in printed


def test_trials_that_are_equally_good(capsys):
    results = {"a": 0.5, "b": 0.7, "c": 0.7, "d": 0.9}
    trials = [
        Outcome(name, {}, {"val_accuracy": accuracy, "state": "complete"})
        for name, accuracy in results.items()
    ]
    trials[-1].result["state"] = "pruned"
    sweep_command._print_equal_trials([*trials, trials[1]])  # values that were tried twice
    assert capsys.readouterr().out == (
        "1 other trial is as accurate as the best one; the first of them is taken\n"
    )
    sweep_command._print_equal_trials(trials[:2])
    assert capsys.readouterr().out == ""


def test_the_same_command_runs_nothing_again(monkeypatch, capsys):
    command = ("sweep", *OPTIONS, "--seeds", "0,4")
    assert run(*command) == 0
    before = table()
    assert [row["seed"] for row in before] == ["0", "4"]
    assert all(row["test_accuracy"] for row in before)
    monkeypatch.setattr(sweep_command, "train_model", None)
    monkeypatch.setattr(sweep_command, "test_measures", None)
    capsys.readouterr()
    assert run(*command) == 0
    assert table() == before
    assert "2 of 2" not in capsys.readouterr().out.splitlines()[:1]


def test_failed_runs_are_told_at_the_end(capsys):
    command = ("sweep", *OPTIONS, "--grid", "lr=1e30,1e-3", "--epochs", 4)
    assert run(*command) == 2
    captured = capsys.readouterr()
    assert "lr=1e+30 seed=0: DivergedError" in captured.err
    assert "1 of 2 runs have failed" in captured.err
    assert [bool(row["error"]) for row in table()] == [True, False]
    assert "test accuracy of lr=0.001" in captured.out


def test_the_log_is_not_part_of_a_runs_identity():
    pytest.importorskip("tensorboard")
    assert run("sweep", *OPTIONS) == 0
    assert run("sweep", *OPTIONS, "--log", "tensorboard", "--seeds", "0:2") == 0
    assert len(list(Path("out/runs").iterdir())) == 2
    assert len(list(Path("out/runs").glob("*/tensorboard/events*"))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seeds", "a"), "--seeds should be like 0:10 or 0,3,7, got 'a'"),
        (("--seeds", "3:3"), "--seeds should be like"),
        (("--grid", "z_dim"), "--grid should be like z_dim=10,50, got 'z_dim'"),
        (("--grid", "z_dim=2", "z_dim=3"), "z_dim is given twice"),
        (("--grid", "seed=2,3"), "give --seeds"),
        (("--grid", "zdim=2"), "--grid: m2 has no option zdim; the nearest is z_dim"),
        (
            ("--grid", "xylophones=2"),
            "--grid: m2 has no option xylophones; see pyro-ssl train m2 --help",
        ),
        (("--search", "3", "--search-space", "zdim=2..3"), "--search-space: m2 has no option zdim"),
        (("--zdim", "3"), "--zdim: m2 has no option zdim; the nearest is z_dim"),
        (("--grid", "z_dim=two"), "z_dim"),
        (("--grid", "z_dim=2,3", "--validation", "0"), "--validation should be above 0"),
        (("--backend", "slurm"), "--backend should be one of loky, dask, ray, got 'slurm'"),
        (("--log", "paper"), "--log should be one of csv, tensorboard, wandb, mlflow, got 'paper'"),
        (("--resume", "x"), "--resume is not an option"),
        (("--search", "3"), "--search and --search-space go together"),
        (("--search", "3", "--grid", "z_dim=2", "--search-space", "lr=1..2"), "not with --grid"),
        (("--search", "3", "--search-space", "lr=2..1"), "from low to high"),
        (("--search", "3", "--search-space", "lr=1e-4..1:ln"), "the scale should be log"),
    ],
)
def test_mistakes_are_told_before_anything_runs(arguments, message, capsys):
    assert run("sweep", *OPTIONS, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not Path("out/runs").exists()


@pytest.mark.slow
def test_a_search_never_sees_the_test_set(capsys):
    pytest.importorskip("optuna")
    space = ("--search-space", "lr=1e-5..1e-2:log", "z_dim=2..4", "dropout=0..0.5")
    command = ("sweep", *OPTIONS, "--epochs", 4, "--seeds", "0:2", *space, "--search")
    assert run(*command, 8) == 0
    printed = capsys.readouterr().out
    rows = table()
    trials = [row for row in rows if row["state"]]
    tested = [row for row in rows if row["test_accuracy"]]
    assert len(trials) + 1 == 8  # the best trial is a run of the chosen configuration, too
    assert [row["seed"] for row in tested] == ["0", "1"]
    assert len(list(Path("out/runs").glob("*/test.json"))) == 2
    pruned = [row for row in trials if row["state"] == "pruned"]
    assert f"{len(pruned)} of 8 runs were ended early" in printed
    complete = [float(row["val_accuracy"]) for row in trials if row["state"] == "complete"]
    assert float(tested[0]["val_accuracy"]) >= max(complete)
    for row in pruned:
        directory = Path("out/runs") / row["run"]
        assert not (directory / "result.json").exists()
        assert len((directory / "metrics.jsonl").read_text().splitlines()) < 4
    for row in trials:
        assert 1e-5 <= float(row["lr"]) <= 1e-2 and int(row["z_dim"]) in (2, 3, 4)
        assert 0 <= float(row["dropout"]) <= 0.5
    assert run(*command, 9) == 0  # one more
    assert "9 of 9" in capsys.readouterr().out

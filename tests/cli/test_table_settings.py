"""`train` on a table: the settings of the estimator and of `compare`, unless others are given."""

import csv
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from cli_programs import run

from pyro_ssl import SavedModel, SemiSupervisedClassifier, predict_proba, zoo
from pyro_ssl.cli import compare
from pyro_ssl.cli.train_command import train_command
from pyro_ssl.data import Dataset, Reading, load_or_read

TABLE = ("--data", "flowers.csv", "--label-column", "species", "--ignore-columns", "id")


@pytest.fixture(autouse=True)
def flowers():
    """A table of four columns; every fourth row has a label. Returns its numbers and labels."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 4)) + 3 * (np.arange(40) % 2)[:, None]
    x = np.round(x * [1, 10, 100, 1000], 3)
    y = [("iris", "rose")[row % 2] if row % 4 < 2 else "" for row in range(40)]
    with open("flowers.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "c", "d", "id", "species"])
        for row, values in enumerate(x):
            writer.writerow([*values, f"n{row}", y[row]])
    return x, [name or None for name in y]


def config(directory="run") -> dict:
    return json.loads(Path(directory, "config.json").read_text())


def dataset() -> Dataset:
    reading = Reading(label_column="species", ignore_columns=("id",))
    return load_or_read("flowers.csv", reading=reading)[0]


def probs(directory="run"):
    return predict_proba(SavedModel.load(f"{directory}/model").objective, dataset().x).numpy()


def test_a_run_is_the_estimators_training(flowers, capsys):
    given = ("--z_dim", 3, "--epochs", 3, "--seed", 7)
    assert run("train", "m2", *TABLE, *given, "--out", "run") == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith("settings: those of pyro-ssl compare and SemiSupervisedClassifier; ")
    assert "epochs 3, batch_size 200, lr 0.003" in line and "hidden [128, 128]" in line
    estimator = SemiSupervisedClassifier(
        "m2", options={"z_dim": 3}, training={"epochs": 3}, random_state=7
    ).fit(*flowers)
    assert np.allclose(probs(), estimator.predict_proba(flowers[0]), atol=1e-5)
    assert config()["settings"] == "estimator" and config()["training"]["ema"] == 0.0


def test_without_epochs_a_run_has_at_least_1000_steps():
    assert run("train", "classifier", *TABLE, "--hidden", "[4]", "--out", "run") == 0
    assert config()["training"]["epochs"] == 1000
    assert config()["training"]["checkpoint_every"] == 100  # not after each of 1000 single steps


def test_the_methods_own_settings_can_be_chosen(capsys):
    given = ("--settings", "method", "--epochs", 1, "--hidden", "[4]")
    assert run("train", "m2", *TABLE, *given, "--out", "run") == 0
    assert "settings: the own defaults of m2; epochs 1, batch_size 100" in capsys.readouterr().out
    assert config()["options"]["z_dim"] == zoo.options_of("m2")["z_dim"]
    assert run("train", "m2", *TABLE, "--settings", "mine", "--out", "other") == 2
    assert "--settings should be one of auto, estimator, method" in capsys.readouterr().err


def test_a_run_goes_on_with_its_settings():
    assert run("train", "m2", *TABLE, "--epochs", 1, "--out", "run") == 0
    before = config()
    assert run("train", "--resume", "run", "--epochs", 2) == 0
    after = config()
    assert after["training"]["epochs"] == 2
    assert after["options"] == before["options"] and after["settings"] == "estimator"


def test_a_preset_keeps_its_share_of_warm_up_and_says_so(capsys):
    given = ("--preset", "paper-004", "--epochs", 5, "--hidden", "[4]", "--likelihood", "gaussian")
    assert run("train", "m2", *TABLE, *given, "--out", "run") == 0
    assert config()["training"]["warmup"] == pytest.approx(1.0)
    printed = capsys.readouterr().out
    assert "settings: preset paper-004 of m2; epochs 5" in printed
    assert "warm-up: 1 of 5 epochs, the same share as 200 of 1000 in preset paper-004" in printed
    assert run("train", "m2", *TABLE, *given, "--warmup", 4, "--out", "other") == 0
    assert config("other")["training"]["warmup"] == 4.0
    assert "warm-up" not in capsys.readouterr().out


def command_of(text: str) -> list[str]:
    """The words of a printed command, after the name of the program."""
    words = shlex.split(text)
    assert words[:2] == ["pyro-ssl", "train"]
    return words[1:]


@pytest.mark.slow
def test_compare_prints_the_command_that_trains_what_it_compared(flowers, capsys):
    more = ("--min-steps", 5, "--epochs", 2, "--options.z_dim", 2, "--seed", 3)
    assert run("compare", *TABLE, *more, "--folds", 2) == 0
    (line,) = [one for one in capsys.readouterr().out.splitlines() if "pyro-ssl train" in one]
    command = command_of(line.partition(": ")[2])
    assert run(*command) == 0
    method = command[1]
    options = {"z_dim": 2} if method == "m2" else {}
    parameters = {"epochs": 2, "min_steps": 5, "random_state": 3}
    estimator = SemiSupervisedClassifier(method, options=options, **parameters).fit(*flowers)
    out = command[command.index("--out") + 1]
    assert np.allclose(probs(out), estimator.predict_proba(flowers[0]), atol=1e-3)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("m1_m2", {"epochs": 2, "min_steps": 3, "lr": 0.01}),
        ("sslpe", {"preset": "paper-002-moons", "epochs": 2, "min_steps": 4}),
        ("labels alone", {"epochs": 1, "min_steps": 6}),
    ],
)
def test_the_command_has_all_settings_that_were_compared(flowers, method, parameters):
    words = [f"--{name.replace('_', '-')}={value}" for name, value in parameters.items()]
    arguments = compare.parser().parse_args([*map(str, TABLE), *words])
    command = command_of(train_command(method, arguments, parameters, dataset()))
    assert run(*command) == 0
    name = "classifier" if method == "labels alone" else method
    estimator = SemiSupervisedClassifier(name, random_state=0, **parameters).fit(*flowers)
    out = command[command.index("--out") + 1]
    assert np.allclose(probs(out), estimator.predict_proba(flowers[0]), atol=1e-3)
    again = train_command(method, arguments, parameters, dataset())
    assert shlex.split(again)[-1] == f"{out}-2"  # a new directory


def test_a_baseline_of_scikit_learn_has_no_command():
    arguments = compare.parser().parse_args([*TABLE])
    assert train_command("logistic regression", arguments, {}, dataset()) is None


@pytest.mark.slow
def test_a_sweep_on_a_table_has_the_same_settings(capsys):
    given = ("--epochs", 1, "--grid", "z_dim=2,3", "--seeds", "0:2", "--labels", 12)
    assert run("sweep", "m2", *TABLE, *given, "--how", "random", "--out", "sweep") == 0
    printed = capsys.readouterr().out
    assert "settings: those of pyro-ssl compare" in printed
    assert "chosen: z_dim=" in printed and "the data have no test part" in printed
    runs = [json.loads(path.read_text()) for path in Path("sweep").glob("runs/*/config.json")]
    assert len(runs) == 4
    assert {tuple(one["options"]["hidden"]) for one in runs} == {(128, 128)}
    assert {one["training"]["batch_size"] for one in runs} == {200}
    assert sorted(one["options"]["z_dim"] for one in runs) == [2, 2, 3, 3]

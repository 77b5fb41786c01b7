"""`pyro-ssl train --validation` and `--log`: labels set aside, and the log of a run."""

import json
from functools import wraps
from pathlib import Path

import pytest
from cli_programs import result, run, train

from pyro_ssl import data
from pyro_ssl.cli import train_run
from pyro_ssl.evaluation import metrics
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.zoo.saved_model import SavedModel

pytestmark = pytest.mark.slow


def test_labels_set_aside_are_within_the_budget_and_not_trained_on(monkeypatch, capsys):
    fit = train_run.fit
    trained_on = []

    @wraps(fit)
    def watched(objective, x, y, **arguments):
        trained_on.append(y.clone())
        return fit(objective, x, y, **arguments)

    monkeypatch.setattr(train_run, "fit", watched)
    assert train("m2", "run", "--validation", "0.5") == 0
    assert "labels for validation: 15, not used for training" in capsys.readouterr().out
    (labels,) = trained_on
    digits = data.load("digits")
    drawn = data.LabelDraw.load("run/labels.json").masked_labels(digits.y)
    aside = (drawn >= 0) & (labels < 0)
    assert (labels >= 0).sum() == aside.sum() == 15
    assert (labels[labels >= 0] == drawn[labels >= 0]).all()
    model = SavedModel.load("run/model").objective
    accuracy = metrics.accuracy(predict_proba(model, digits.x[aside]), digits.y[aside])
    assert result("run")["val_accuracy"] == accuracy
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["val_accuracy"] == accuracy
    before = result("run")
    assert run("train", "--resume", "run") == 0
    assert result("run")["val_accuracy"] == before["val_accuracy"]
    assert run("evaluate", "run") == 0


def test_runs_of_earlier_versions_set_nothing_aside(copied):
    path = copied / "config.json"
    config = json.loads(path.read_text())
    del config["validation"], config["log"]
    path.write_text(json.dumps(config))
    assert run("train", "--resume", copied) == 0
    assert "val_accuracy" not in result(copied)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--validation", "1"), "--validation should be in [0, 1), got 1.0"),
        (("--validation", "0.1"), "--validation: 0.1 of the labels cannot be set aside"),
        (("--log", "paper"), "--log should be one of csv, tensorboard, wandb, mlflow, got 'paper'"),
    ],
)
def test_mistakes_are_named_before_training(arguments, message, capsys):
    assert train("m2", "run", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not Path("run").exists()


def test_a_log_is_in_the_directory_of_the_run():
    pytest.importorskip("tensorboard", reason="pip install 'pyro-ssl[tensorboard]'")
    assert train("m2", "run", "--log", "tensorboard") == 0
    assert list(Path("run/tensorboard").glob("events*"))


def test_a_log_without_its_package_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("pyro_ssl.training.loggers.find_spec", lambda package: None)
    assert train("m2", "run", "--log", "wandb") == 2
    assert "pip install 'pyro-ssl[wandb]'" in capsys.readouterr().err
    assert not Path("run").exists()

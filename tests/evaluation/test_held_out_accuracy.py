"""Accuracy of every epoch on labels that were set aside."""

import json

import pytest
import torch

from pyro_ssl import Accuracy, EarlyStopping, fit, predict_proba, zoo

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 3
LABELS = Y.where(torch.arange(60) < 21, -1)
ASIDE = slice(30, 50)


def train(**arguments):
    objective = zoo.build("m2", 4, 3, hidden=(6,), z_dim=2)
    return objective, fit(objective, X, LABELS, **{"epochs": 3, "batch_size": 10} | arguments)


def stop_after_two(epoch) -> None:
    if epoch.epoch == 3:
        raise KeyboardInterrupt


def test_accuracy_is_in_history_and_files(tmp_path):
    accuracy = Accuracy(X[ASIDE], Y[ASIDE])
    seen = []
    objective, history = train(
        callbacks=[accuracy, lambda epoch: seen.append(epoch.metrics)], directory=tmp_path
    )
    right = (predict_proba(objective, X[ASIDE]).argmax(-1) == Y[ASIDE]).double().mean()
    assert history["val_accuracy"][-1] == accuracy.score(objective) == float(right)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["val_accuracy"] for line in lines] == history["val_accuracy"]
    assert [metrics["val_accuracy"] for metrics in seen] == history["val_accuracy"]


def test_measuring_changes_nothing_in_training():
    plain, history = train(ema=0.9)
    measured, with_accuracy = train(ema=0.9, callbacks=[Accuracy(X[ASIDE], Y[ASIDE])])
    for a, b in zip(plain.parameters(), measured.parameters(), strict=True):
        assert torch.equal(a, b)
    assert with_accuracy["loss"] == history["loss"]


def test_a_resumed_run_has_every_measurement(tmp_path):
    accuracy = Accuracy(X[ASIDE], Y[ASIDE])
    _, unbroken = train(callbacks=[accuracy])
    with pytest.raises(KeyboardInterrupt):
        train(callbacks=[accuracy, stop_after_two], directory=tmp_path)
    _, history = train(callbacks=[accuracy], directory=tmp_path, resume=True)
    assert history["val_accuracy"] == unbroken["val_accuracy"]
    assert history["loss"] == unbroken["loss"]


def test_a_resumed_run_needs_the_same_measurements(tmp_path):
    accuracy = Accuracy(X[ASIDE], Y[ASIDE])
    with pytest.raises(KeyboardInterrupt):
        train(callbacks=[accuracy, stop_after_two], directory=tmp_path)
    with pytest.raises(ValueError, match="val_accuracy was measured in 2 of 3 epochs"):
        train(directory=tmp_path, resume=True)
    another = Accuracy(X[ASIDE], Y[ASIDE], name="other")
    with pytest.raises(ValueError, match="other was measured in 1 of 3 epochs"):
        train(callbacks=[accuracy, another], directory=tmp_path, resume=True)


def test_early_stopping_can_use_the_score():
    accuracy = Accuracy(X[ASIDE], Y[ASIDE])
    objective, history = train(
        epochs=6, callbacks=[accuracy], early_stopping=EarlyStopping(accuracy.score, patience=2)
    )
    assert history["score"] == history["val_accuracy"]
    assert accuracy.score(objective) == max(history["score"])


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        ({"loss": 1.0}, "loss is already a measurement"),
        ({"epoch": 1.0}, "epoch is already a measurement"),
        ({"margin": float("nan")}, "margin should be a finite number, got nan in epoch 1"),
        ({"margin": "wide"}, "margin should be a finite number, got 'wide'"),
        ({3: 1.0}, "the name of a measurement should be text, got 3"),
    ],
)
def test_measurements_are_numbers_with_names_of_their_own(measured, message):
    with pytest.raises(ValueError, match=message):
        train(callbacks=[lambda epoch: measured])


@pytest.mark.parametrize("y", [[0, 1, -1], [0, 1], [[0, 1, 2]]])
def test_every_row_set_aside_has_a_label(y):
    with pytest.raises(ValueError, match="y should"):
        Accuracy(X[:3], y)

"""Logs of training: every epoch is in them once, also when the run was stopped and resumed."""

import csv
import importlib
import struct
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from programs.training_runs import run

from pyro_ssl import Accuracy
from pyro_ssl.training.loggers import LOGGERS

NAMES = ("loss", "lr", "val_accuracy")


class StoppedError(Exception):
    """Raised by a callback, as a kill between two epochs."""


def read_tensorboard(directory, name) -> dict[int, list[float]]:
    module = "tensorboard.backend.event_processing.event_accumulator"
    events = importlib.import_module(module).EventAccumulator(str(directory))
    events.Reload()
    return by_epoch((event.step, event.value) for event in events.Scalars(name))


def read_mlflow(directory, name) -> dict[int, list[float]]:
    client = importlib.import_module("mlflow").MlflowClient(f"sqlite:///{directory}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'pyro-ssl'")
    (one,) = client.search_runs([experiment.experiment_id])
    assert one.data.params == {"z_dim": "2"}
    history = client.get_metric_history(one.info.run_id, name)
    return by_epoch((metric.step, metric.value) for metric in history)


def read_wandb(directory, name) -> dict[int, list[float]]:
    """All that the offline files hold, which `wandb sync` sends."""
    record_type = importlib.import_module("wandb.proto.wandb_internal_pb2").Record
    values = []
    ids = set()
    for path in sorted(directory.glob("wandb/offline-run-*/*.wandb")):
        for record in wandb_records(path, record_type):
            if record.HasField("run"):
                ids.add(record.run.run_id)
            items = {
                item.nested_key[0] if item.nested_key else item.key: item.value_json
                for item in record.history.item
            }
            if name in items:
                values.append((int(items["_step"]), float(items[name])))
    assert len(ids) == 1
    return by_epoch(values)


def wandb_records(path: Path, record_type: Any) -> list[Any]:
    """Records of a run that has ended; W&B writes the last ones after its `finish`."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        records = [record_type.FromString(data) for data in split_records(path.read_bytes())]
        if any(record.HasField("exit") for record in records):
            return records
        time.sleep(0.1)
    raise AssertionError(f"{path} has no end")


def split_records(content: bytes) -> list[bytes]:
    """Records of LevelDB's log format, after a header of 7 bytes."""
    block = 32768
    position = 7
    records = [b""]
    while position + 7 <= len(content):
        left = block - position % block
        if left < 7:  # filled up with zeros
            position += left
            continue
        length, kind = struct.unpack("<HB", content[position + 4 : position + 7])
        records[-1] += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            records.append(b"")
    return records[:-1]


def by_epoch(values) -> dict[int, list[float]]:
    found = {}
    for epoch, value in values:
        found.setdefault(epoch, []).append(value)
    return found


def read_csv(directory, name) -> dict[int, list[float]]:
    with (directory / "metrics.csv").open(newline="") as file:
        return by_epoch((int(row["epoch"]), float(row[name])) for row in csv.DictReader(file))


READERS = {
    "csv": read_csv,
    "tensorboard": read_tensorboard,
    "wandb": read_wandb,
    "mlflow": read_mlflow,
}


@pytest.fixture(params=READERS)
def log(request, monkeypatch):
    """The type of a logger, and the function that reads its log."""
    pytest.importorskip(request.param)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return LOGGERS[request.param], READERS[request.param]


def accuracy() -> Accuracy:
    rows = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
    return Accuracy(rows, torch.arange(12) % 3)


def stop_in_the_fourth_epoch(epoch) -> None:
    if epoch.epoch == 4:
        raise StoppedError


@pytest.mark.filterwarnings("ignore")  # those of the packages
def test_a_resumed_run_continues_its_log(log, tmp_path):
    make, read = log
    logs = tmp_path / "log"

    def train(*callbacks, **more):
        arguments = {"epochs": 5, "directory": tmp_path / "run", "checkpoint_every": 20}
        return run(callbacks=callbacks, **arguments | more)[1]

    first = make(logs, {"z_dim": 2})
    with pytest.raises(StoppedError):
        train(first, accuracy(), stop_in_the_fourth_epoch)
    first.close()
    # three epochs are in the log, but the last checkpoint is in the third of nine steps each
    assert sorted(read(logs, "loss")) == [1, 2, 3]
    history = train(make(logs, {"z_dim": 2}), accuracy(), resume=True)
    for name in NAMES:
        found = read(logs, name)
        expected = {i: [pytest.approx(value)] for i, value in enumerate(history[name], 1)}
        assert found == expected, name
    with pytest.raises(ValueError, match="belongs to another run: its loss in epoch 1"):
        train(make(logs), accuracy(), seed=1, directory=None)


def test_loggers_are_called_last(log, tmp_path):
    make, _ = log
    seen = []

    class Spy(make):
        def _open(self):
            return {}

        def _write(self, epoch, metrics):
            seen.append(metrics["val_accuracy"])

        def _close(self):
            seen.append("closed")

    _, history = run(callbacks=[Spy(tmp_path), accuracy()], epochs=2)
    assert seen == [*history["val_accuracy"], "closed"]


@pytest.mark.parametrize("name", sorted(LOGGERS.keys() - {"csv"}))
def test_a_missing_package_is_named(name, monkeypatch, tmp_path):
    monkeypatch.setattr("pyro_ssl.training.loggers.find_spec", lambda package: None)
    with pytest.raises(ImportError, match=rf"pip install 'pyro-ssl\[{name}\]'"):
        LOGGERS[name](tmp_path)

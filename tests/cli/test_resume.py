"""Interrupted runs continue exactly; other runs are not overwritten."""

import json
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from cli_programs import DIVERGING, content, measures, result, run, train

from pyro_ssl import zoo
from pyro_ssl.cli import train_run
from pyro_ssl.utils import files
from pyro_ssl.zoo.saved_model import SavedModel

pytestmark = pytest.mark.slow


class Stopped(Exception):
    pass


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_resumed_run_equals_an_unbroken_one(finished, monkeypatch, epoch):
    def watch(e):
        seen.append(e.epoch)
        if len(seen) == epoch:
            raise Stopped

    seen: list[int] = []
    fit, config = train_run.fit, json.loads((finished / "config.json").read_text())
    monkeypatch.setattr(
        train_run, "fit", lambda *args, **more: fit(*args, **more | {"callbacks": (watch,)})
    )
    with pytest.raises(Stopped):
        train_run.train(Path("run"), config)
    assert not Path("run/result.json").exists()
    train_run.train(Path("run"), config, resume=True)
    assert seen == [
        *range(1, epoch + 1),
        *range(epoch, 4),
    ]  # it was stopped before the checkpoint of its last epoch
    assert measures("run") == measures(finished)
    assert result("run")["draw"] == result(finished)["draw"]
    tensors, expected = (
        SavedModel.load(Path(d) / "model").objective.state_dict() for d in ("run", finished)
    )
    assert all((tensors[k] == expected[k]).all() for k in expected)
    assert len(Path("run/metrics.jsonl").read_text().splitlines()) == 3


def test_resume_after_an_interrupted_pretraining(monkeypatch, capsys):
    training = import_module("pyro_ssl.training.fit")  # the package has a function of that name

    def stopped(*arguments, **more):
        pretrain(*arguments, **more)
        raise KeyboardInterrupt

    pretrain = training.pretrain
    command = [
        "train",
        "m1_m2",
        "--data",
        "digits",
        "--labels",
        20,
        "--epochs",
        1,
        "--m1_epochs",
        1,
        "--hidden",
        "[4]",
    ]
    assert run(*command, "--out", "whole") == 0
    with monkeypatch.context() as patch:
        patch.setattr(training, "pretrain", stopped)
        assert run(*command, "--out", "run") == 130
    assert "stopped; to continue: pyro-ssl train --resume run" in capsys.readouterr().err
    assert run("train", "--resume", "run") == 0
    assert measures("run") == measures("whole")


def test_resume_without_a_checkpoint_starts_again(copied, finished):
    shutil.rmtree(copied / "checkpoint")
    shutil.rmtree(copied / "checkpoint.previous", ignore_errors=True)
    assert run("train", "--resume", copied) == 0
    assert measures(copied) == measures(finished)


@pytest.mark.parametrize("lost", ["nothing", "result.json", "model", "metrics.jsonl"])
def test_resume_of_a_finished_run_restores_its_files(copied, finished, lost):
    shutil.rmtree(copied / lost) if (copied / lost).is_dir() else (copied / lost).unlink(
        missing_ok=True
    )
    assert run("train", "m2", "--resume", copied) == 0
    assert measures(copied) == measures(finished)
    assert run("evaluate", copied) == 0


# --- directories ----------------------------------------------------------------------------------


def test_directory_of_another_run_is_refused(copied, capsys):
    before = content(copied)
    assert train("m2", copied, "--seed", 1) == 2
    assert f"--out: {copied} is not empty" in capsys.readouterr().err
    assert content(copied) == before
    Path("file").write_text("mine")
    assert train("m2", "file") == 2
    assert Path("file").read_text() == "mine"


def test_refused_command_leaves_no_directory():
    images = (np.arange(64 * 20).reshape(20, 64) % 256).astype(np.uint8)
    np.savez("pixels.npz", x=images, y=np.arange(20) % 2, x_test=images, y_test=np.arange(20) % 2)
    command = (
        "train",
        "m2",
        "--data",
        "pixels.npz",
        "--labels",
        4,
        "--epochs",
        1,
        "--hidden",
        "[4]",
        "--out",
        "run",
    )
    assert run(*command) == run(*command, "--likelihood", "bernoulli") == 2
    assert not Path("run").exists()
    assert run(*command, "--sigma", "50") == 0


@pytest.mark.parametrize(
    "left", [(), ("lock",), ("config.json.writing",), ("lock", "fit.lock", "config.json.writing")]
)
def test_run_killed_before_its_config_can_start_again(left, capsys):
    Path("run").mkdir()
    for name in left:
        Path("run", name).write_text("{")
    assert run("train", "--resume", "run") == 2
    assert "no run has started there: use --out again" in capsys.readouterr().err
    assert train("classifier", "run") == 0


def test_diverged_run_asks_for_another_directory(capsys):
    assert run(*DIVERGING) == 2
    assert (
        "smaller lr or a clip_norm; use another directory for the new run"
        in capsys.readouterr().err
    )
    assert run(*DIVERGING) == 2
    assert (
        "continues that run with its settings; give another directory for a new run"
        in capsys.readouterr().err
    )


def test_run_in_use_is_refused(copied, capsys):
    pytest.importorskip("fcntl")
    before = measures(copied)
    with files.locked(copied):
        assert run("train", "--resume", copied) == 2
    assert f"{copied} is in use by another process" in capsys.readouterr().err
    assert run("train", "--resume", copied) == 0 and measures(copied) == before


ONLY_EPOCHS = "only --epochs can be changed"
DEFAULT = str(zoo.options_of("m2")["z_dim"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--resume", "RUN", "--lr", ".1"), "--lr: a run continues with the settings"),
        (("--lr=.1", "--resume", "RUN"), "--lr: a run continues with the settings"),
        (("m2", "--resume", "RUN", "--lr", ".1"), "--lr: the run had 0.003, got 0.1"),
        (("m2", "--resume", "RUN", "--z_dim", "3"), "--z_dim: the run had 2, got 3"),
        (("m2", "--resume", "RUN", "--z_dim", DEFAULT), f"--z_dim: the run had 2, got {DEFAULT}"),
        (("m2", "--resume", "RUN", "--labels", "9"), "--labels: the run had 30, got 9"),
    ],
)
def test_a_setting_that_cannot_be_changed_is_named(copied, capsys, arguments, message):
    before = content(copied)
    given = [str(copied) if text == "RUN" else text for text in arguments]
    assert run("train", *given) == 2
    said = capsys.readouterr().err
    assert message in said and ONLY_EPOCHS in said and str(copied / "config.json") in said
    assert content(copied) == before


def test_the_settings_of_the_run_can_be_given_again(copied):
    assert train("m2", copied, "--resume", copied) == 0

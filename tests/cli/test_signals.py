"""`pyro-ssl train` under signals, and runs that go on for longer."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_programs import result, run, train

from pyro_ssl.training import checkpoints

pytestmark = pytest.mark.slow

PYRO_SSL = [sys.executable, "-m", "pyro_ssl"]


def train_until(directory: Path, number: int) -> subprocess.Popen:
    """A training in a process of its own, which has got a signal after its first epoch."""
    command = [*PYRO_SSL, "train", "m2", "--out", str(directory), "--hidden", "[8]"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    while process.poll() is None and not (directory / "checkpoint").exists():
        time.sleep(0.05)
    process.send_signal(number)
    return process


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_training_without_a_traceback(tmp_path, number, code):
    process = train_until(tmp_path / "run", number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert f"stopped; to continue: pyro-ssl train --resume {tmp_path / 'run'}" in errors
    _, data = checkpoints.load(tmp_path / "run" / "checkpoint")
    assert data["position"]["step"] < 32 * 11


def test_a_run_goes_on_for_longer(copied, capsys):
    assert run("train", "--resume", copied, "--epochs", 5) == 0
    printed = capsys.readouterr().out
    assert "5 epochs instead of 3: from here on the learning rate (one_cycle)" in printed
    assert result(copied)["epochs"] == 5
    assert json.loads((copied / "config.json").read_text())["training"]["epochs"] == 5
    assert len((copied / "metrics.jsonl").read_text().splitlines()) == 5
    assert run("train", "--resume", copied) == 0
    assert len((copied / "metrics.jsonl").read_text().splitlines()) == 5


def test_fewer_epochs_are_refused(copied, capsys):
    before = (copied / "config.json").read_bytes()
    assert run("train", "--resume", copied, "--epochs", 2) == 2
    assert "--epochs: the run had 3, got 2" in capsys.readouterr().err
    assert (copied / "config.json").read_bytes() == before


def test_epochs_of_the_method_do_not_prolong_in_silence(copied, capsys):
    assert run("train", "m2", "--resume", copied, "--epochs", 7) == 2
    assert f"pyro-ssl train --resume {copied} --epochs 7" in capsys.readouterr().err
    assert train("m2", copied) == 2


SLOW_TO_START = """
import signal, sys
from pyro_ssl import data
from pyro_ssl.cli import app
load = data.DATASETS["digits"]
def loading():
    signal.raise_signal(signal.SIGTERM)
    return load()
data.DATASETS["digits"] = loading
sys.exit(app.main(sys.argv[1:]))
"""


def test_sigterm_before_the_first_step_ends_with_143(tmp_path):
    command = ["train", "m2", "--hidden", "[8]", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", SLOW_TO_START, *command], capture_output=True, text=True
    )
    assert done.returncode == 143 and "pyro-ssl: stopped" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()


def test_the_handler_of_sigterm_is_as_before_after_a_training(copied):
    assert run("train", "--resume", copied) == 0
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

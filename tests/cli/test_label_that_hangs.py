"""`pyro-ssl label`, where a step of training never ends: the program ends, and keeps each label."""

import json
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pytestmark = pytest.mark.slow

STUCK = """
import sys, threading
from pyro_ssl.active import committee
committee.fit = lambda *arguments, **others: threading.Event().wait()
from pyro_ssl.__main__ import main
sys.exit(main())
"""
"""The command, with a training that has one step, which never ends."""
ANSWERS = ["up", "down", "up", "down", "up", "down"]
"""A round of four, after which the model learns, and two more."""


@pytest.fixture
def command(tmp_path):
    """Starts the command in a process of its own; it is killed at the end of the test."""
    x = np.random.default_rng(0).integers(0, 255, (30, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", x=x, classes=np.array(["up", "down"]))
    processes = []

    def start(program):
        small = {"hidden": [8], "z_dim": 2, "network": "mlp"}
        words = ["label", tmp_path / "run", "--data", tmp_path / "images.npz", "--n", 4]
        words += ["--source", "terminal", "--options", json.dumps(small), "--rounds", 3]
        words += ["--training", '{"epochs": 2}', "--start", "random"]
        process = subprocess.Popen(
            [sys.executable, *program, *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        with process:  # closes its pipes
            pass


def labels(tmp_path):
    path = tmp_path / "run/labels.csv"
    return path.read_text().splitlines()[1:] if path.exists() else []


def test_a_person_who_stops_does_not_wait_for_ever(tmp_path, command):
    process = command(["-c", STUCK])
    said, errors = process.communicate("\n".join([*ANSWERS, "stop", ""]), timeout=120)
    assert process.returncode == 130
    assert "waiting up to 10 s for the current step of the training; Ctrl-C ends at once" in errors
    assert "the step has not ended; the program ends without it" in errors
    assert "stopped; progress is saved; run the same command to continue" in errors
    assert f"{tmp_path / 'run/labels.csv'}: 6 labels, as CSV" in said
    before = labels(tmp_path)
    assert len(before) == 6
    again = command(["-m", "pyro_ssl"])
    again.communicate("\n".join(["up"] * 20), timeout=120)
    assert again.returncode == 0
    assert set(before) < set(labels(tmp_path)) and (tmp_path / "run/model").exists()


def test_a_second_ctrl_c_ends_at_once(tmp_path, command):
    process = command(["-c", STUCK])
    killer = threading.Timer(120, process.kill)
    killer.start()
    process.stdin.write("\n".join([*ANSWERS, ""]))
    process.stdin.flush()
    while len(labels(tmp_path)) < 6 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    lines = iter(process.stderr.readline, "")
    assert any("Ctrl-C ends at once" in line for line in lines)
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(60) == 130
    killer.cancel()
    assert "pyro-ssl: stopped" in rest and "has not ended" not in rest
    assert len(labels(tmp_path)) == 6

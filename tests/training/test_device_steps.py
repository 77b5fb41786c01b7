"""On a device, training computes what it does on the CPU, and a step waits for its numbers only.

A device of Python stands in for a GPU, see `programs.fake_device`. It has a process of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from programs.device_runs import CASES
from programs.fake_device import HAS_FAKE_DEVICES
from programs.training_runs import run, same, small, weights
from torch import nn

from pyro_ssl.training.random_state import StepStart
from pyro_ssl.training.run import Run

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def reports():
    """What each case shows on the fake device."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "programs.device_runs"]
    done = subprocess.run(command, cwd=TESTS, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["case"]: line for line in lines}


@pytest.mark.slow
@pytest.mark.skipif(not HAS_FAKE_DEVICES, reason="this torch has no devices of Python")
@pytest.mark.parametrize("case", CASES)
def test_training_on_a_device(reports, case):
    report = reports[case]
    assert not report["error"]
    assert report["equal"]
    # in the last step; the first one reads what later ones assume
    waits = [wait for wait in report["waits"] if "check_gpu.py" not in wait]
    assert len(waits) == 1 and waits[0].startswith(".tolist() (run.py"), waits


def test_assumed_decisions_change_nothing(monkeypatch):
    """A step whose decisions should have been others is made again, with the same noise."""
    remade = []
    restore = StepStart.restore

    def noted(start):
        remade.append(start)
        restore(start)

    monkeypatch.setattr(StepStart, "restore", noted)
    results = []
    for assumes in (False, True):
        monkeypatch.setattr(Run, "assumes_decisions", assumes)
        objective = small(top_k="auto", labeled_weight=0.0, alpha=100.0, batch_norm=True)
        objective, history = run(objective, epochs=20, lr=0.05)
        del history["seconds"]
        results.append((weights(objective), history))
    (weights_a, history_a), (weights_b, history_b) = results
    assert remade
    assert history_a == history_b
    assert same(weights_a, weights_b)


def test_a_step_made_again_finds_the_buffers_of_its_start():
    module = nn.Module()
    module.register_buffer("mean", torch.zeros(2))
    before = module.mean
    start = StepStart(module)
    module.mean = module.mean + 1  # another tensor in its place
    before.add_(5)
    start.restore()
    assert module.mean is before and module.mean.tolist() == [0, 0]

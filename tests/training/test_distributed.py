"""Two processes under torchrun: the same run as one."""

import math
import re
import subprocess
import sys
from pathlib import Path

import distributed_programs as programs
import pytest
import torch

pytestmark = pytest.mark.slow

PROGRAMS = Path(__file__).with_name("distributed_programs.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
TORCHRUN += ["--max-restarts", "1"]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes have found."""
    directory = tmp_path_factory.mktemp("two")
    command = [*TORCHRUN, str(PROGRAMS), str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return torch.load(directory / "all.pt")


def check_equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", programs.CASES)
def test_two_processes_equal_one(two, name):
    check_equal(programs.case(name), two["results"][name])


def test_a_pair_of_ones_own_with_a_shared_latent_and_foreign_layers(two):
    check_equal(programs.trained(programs.own(), lr=1e-5), two["results"]["own"])


def test_early_stopping_is_agreed_on(two):
    stopped = two["results"]["early stopping"]
    assert len(stopped["loss"]) == 3
    check_equal(programs.stopped_early(), stopped)


def test_a_resumed_run_equals_an_unbroken_one(two):
    check_equal(programs.unbroken(), two["results"]["resumed"])


def test_a_killed_run_is_restarted_by_torchrun_and_equals_an_unbroken_one(two):
    assert two["restarts"] == 1
    check_equal(programs.unbroken(), two["results"]["killed"])


def test_all_processes_know_the_history(two):
    first, second = two["alike"]
    assert first == second
    assert all(map(math.isfinite, first.values()))


@pytest.mark.parametrize(
    "what, words",
    [
        ("data", "ValueError: x: process 0 has .*, and process 1 has .*; give the same data"),
        ("settings", "ValueError: epochs: process 0 has 1, and process 1 has 2;"),
        ("options", "ValueError: objective: its untrained loss: process 0 has .*, and process 1"),
        ("callback", r"ValueError: callbacks: \S+ was 1.0, is 5.0, in the first process only"),
        (
            "form",
            r"ValueError: objective\.model\.\S+: process 0 has \(3,.*, and process 1 has \(4,",
        ),
        ("term", "ValueError: OwnTerm: .*set divisible = True"),
        ("elbo", "ValueError: elbo: a Trace_ELBO has no bound per datum"),
        ("rows", "ValueError: batch: 1 labeled rows cannot be divided between 2 processes"),
        ("gamma", "ValueError: torch._standard_gamma: .*train in one process"),
    ],
)
def test_what_cannot_be_divided_is_refused_in_all(two, what, words):
    for messages in two["messages"]:
        assert re.match(words, messages[what]), messages[what]


def test_a_mistake_in_one_process_is_told_in_all(two):
    first, second = (messages["one"] for messages in two["messages"])
    assert first.startswith("LostProcessError: process 1: ValueError: y")
    assert second.startswith("ValueError: y")

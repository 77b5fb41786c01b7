"""Small networks are trained in one thread, unless the user has chosen otherwise."""

import os

import pytest
import torch
from programs.training_runs import X, Y, run, small

from pyro_ssl import fit, zoo
from pyro_ssl.training import threads


@pytest.fixture
def default_threads(monkeypatch):
    """A number of threads that is only counted: torch's default on a machine with four cores.

    Real threads, more than the machine has cores, would take minutes.
    """
    for name in threads.CHOSEN_BY_USER:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(4)), raising=False)
    numbers = [4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: numbers[-1])
    monkeypatch.setattr(torch, "set_num_threads", numbers.append)


def threads_in(objective, **arguments) -> int:
    """The number of threads while an objective is trained."""
    seen = []
    callback = lambda epoch: seen.append(torch.get_num_threads())  # noqa: E731
    fit(objective, X, Y, epochs=1, callbacks=[callback], **arguments)
    return seen[0]


def test_a_small_network_has_one_thread_and_the_number_is_restored(default_threads):
    assert threads_in(small()) == 1
    assert torch.get_num_threads() == 4


def test_the_number_is_restored_after_an_error(default_threads):
    def fail(epoch):
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        run(small(), callbacks=[fail])
    assert torch.get_num_threads() == 4


def test_a_large_network_has_all_threads(default_threads, monkeypatch):
    monkeypatch.setattr(threads, "SMALL", 100)
    assert threads_in(small()) == 4


def test_convolutions_are_not_small(default_threads):
    objective = zoo.build("m2", (1, 8, 8), 3, network="conv", hidden=(4,), z_dim=2)
    images = X.new_zeros(90, 1, 8, 8)
    assert not threads.is_small(objective, _batches(images))
    assert threads.is_small(small(), _batches(X))


def _batches(x):
    known = Y >= 0
    return threads.Batches(
        x, torch.zeros(90, 3), known, batch_size=10, labeled_batch_size=8, seed=0
    )


def test_what_the_user_has_chosen_stays(default_threads, monkeypatch):
    torch.set_num_threads(3)
    assert threads_in(small()) == 3
    torch.set_num_threads(4)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert threads_in(small()) == 4

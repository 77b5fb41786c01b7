"""Learning in the background."""

import threading

import pytest
import torch

from pyro_ssl import fit, zoo
from pyro_ssl.active.labelling.background import Background

X = torch.rand(40, 4, generator=torch.Generator().manual_seed(0))


def test_status_tells_of_a_training_and_of_its_end():
    go_on = threading.Event()
    with Background() as background:
        assert background.status() == {"text": "", "share": None}
        background.start(lambda: go_on.wait(60), labels=1)
        assert background.status() == {"text": "The model learns from 1 label.", "share": 0.0}
        go_on.set()
        background.wait()
        assert background.status()["text"].startswith("The model has learned from 1 label.")
        background.acknowledge()
        assert background.status()["text"] == ""


def test_leaving_the_block_stops_a_training():
    has_begun = threading.Event()
    objective = zoo.build("vae", 4, 2, hidden=(4,), z_dim=2)
    threads = torch.get_num_threads()

    def note(epoch):
        if epoch.epoch > 1:  # the first step has been counted
            has_begun.set()

    def learn():
        fit(objective, X, epochs=10**6, callbacks=[note])

    with Background() as background:
        background.start(learn, labels=10)
        assert has_begun.wait(60)
        running = background.status()
        assert 0 < running["share"] < 1
        assert running["text"].startswith("The model learns from 10 labels")
    assert not background.is_running and torch.get_num_threads() == threads
    background.wait()  # no error is left


def test_a_training_has_half_of_the_threads_and_leaves_no_trace():
    seen = []
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        with Background() as background:
            for _ in range(2):
                background.start(lambda: seen.append(torch.get_num_threads()), labels=1)
                background.wait()
    finally:
        torch.set_num_threads(before)
    assert seen[0] == seen[1] and seen[0] in (1, 2)


def test_an_error_reaches_the_program():
    with Background() as background:
        background.start(lambda: 1 / 0, labels=10)
        background.join(60)
        assert "failed" in background.status()["text"]
        with pytest.raises(ZeroDivisionError):
            background.check()
        background.check()  # told once

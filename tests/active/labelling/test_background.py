"""Learning in the background."""

import signal
import threading

import pytest
import torch

from pyro_ssl import fit, zoo
from pyro_ssl.active.labelling import background as module
from pyro_ssl.active.labelling.background import Background
from pyro_ssl.training.watch import StoppedError

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


# --- what another thread sees ---------------------------------------------------------------------


def test_a_training_that_has_not_begun_is_not_one_that_has_ended(monkeypatch):
    """The page asks for the status at any time, also while a thread is about to start."""
    texts = []
    start = threading.Thread.start

    def slow_start(thread):
        texts.append(background.status()["text"])
        start(thread)

    with Background() as background:
        monkeypatch.setattr(threading.Thread, "start", slow_start)
        background.start(lambda: None, labels=1)
        background.wait()
    assert texts == ["The model learns from 1 label."]


def test_a_training_that_was_stopped_has_learned_nothing():
    go_on = threading.Event()

    def learn():
        go_on.wait(60)
        raise StoppedError

    with Background() as background:
        background.start(learn, labels=4)
        background.cancel()
        said = background.status()["text"]
        assert said == "The training on 4 labels ends after its current step."
        go_on.set()
        background.wait()
        assert background.status() == {"text": "", "share": None}


def test_an_error_that_was_told_leaves_no_model():
    with Background() as background:
        background.start(lambda: 1 / 0, labels=10)
        with pytest.raises(ZeroDivisionError):
            background.wait()
        assert background.status() == {"text": "", "share": None}


# --- a step that does not end ---------------------------------------------------------------------


@pytest.fixture
def endless():
    """A training whose step ends after the test, and its thread before the next test."""
    go_on = threading.Event()
    yield lambda: go_on.wait(10)
    go_on.set()
    for thread in threading.enumerate():  # at its end, it sets the number of torch's threads
        if thread.name == "learning":
            thread.join(10)


def test_the_end_does_not_wait_for_ever(endless, monkeypatch, capsys):
    monkeypatch.setattr(module, "QUIET", 0.01)
    with Background(patience=0.1) as background:
        background.start(endless, labels=10)
    assert background.is_running
    said = capsys.readouterr().err
    assert "waiting up to 0 s for the current step of the training; Ctrl-C ends at once" in said
    assert "the step has not ended; the program ends without it" in said


def test_ctrl_c_ends_the_wait(endless, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    left = []
    monkeypatch.setattr(module, "leave_behind", left.append)
    main = threading.main_thread().ident
    try:
        with pytest.raises(KeyboardInterrupt), Background() as background:
            background.start(endless, labels=10)
            timer = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
            timer.start()
    finally:
        signal.signal(signal.SIGINT, before)
    assert background.is_running and not left[0].is_set()

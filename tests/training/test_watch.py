"""A training that another thread watches and ends."""

import threading
from types import SimpleNamespace

import pytest
import torch

from pyro_ssl import fit, zoo
from pyro_ssl.training.watch import StoppedError, Watch, current_watch, watched

X = torch.rand(40, 4, generator=torch.Generator().manual_seed(0))


def build():
    return zoo.build("vae", 4, 2, hidden=(4,), z_dim=2)


def train(**arguments):
    objective = build()
    fit(objective, X, epochs=6, batch_size=20, progress=False, **arguments)
    return objective


def test_watch_counts_steps_and_estimates_the_time_left():
    watch = Watch()
    shares, left = [], []

    def note(epoch):
        shares.append(watch.share)
        left.append(watch.seconds_left)

    with watched(watch):
        train(callbacks=[note])
    assert shares == sorted(shares) and shares[0] < 0.2 and watch.share == 1
    assert left[0] is None or left[0] > 0
    assert left[-1] > 0 and watch.seconds_left == 0
    assert current_watch() is None


def test_stopped_training_resumes_with_the_same_result(tmp_path):
    watch = Watch()
    is_running = threading.Event()
    raised = []

    def learn():
        with watched(watch):
            try:
                train(directory=tmp_path / "run", callbacks=[stop])
            except StoppedError as error:
                raised.append(error)

    def stop(epoch):
        is_running.set()
        if epoch.epoch == 3:
            watch.stop()

    thread = threading.Thread(target=learn)
    thread.start()
    thread.join(60)
    assert is_running.is_set() and len(raised) == 1 and watch.share < 1
    resumed = train(directory=tmp_path / "run", resume=True, callbacks=[lambda epoch: None])
    whole = train()
    for a, b in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_watch_follows_its_own_thread_only():
    watch = Watch()
    with watched(watch):
        thread = threading.Thread(target=train)
        thread.start()
        thread.join(60)
    assert watch.share == 0


def test_stopped_before_the_first_step_makes_one_step_at_most():
    watch = Watch()
    watch.stop()
    with watched(watch), pytest.raises(StoppedError, match="its last checkpoint is kept"):
        train()
    assert watch.share == 0


def test_no_thread_sees_one_training_by_the_clock_of_another(monkeypatch):
    """What another thread could read is read after each assignment."""
    watch = Watch()
    run = SimpleNamespace(total=4)
    left = []

    def assign(watch, name, value):
        object.__setattr__(watch, name, value)
        left.append(watch.seconds_left)

    for step in (1, 2, 3, 4):
        run.position = SimpleNamespace(step=step)
        watch.after_step(run)
    monkeypatch.setattr(Watch, "__setattr__", assign, raising=False)
    run.position = SimpleNamespace(step=1)  # the next training
    watch.after_step(run)
    assert set(left) == {None} and watch.share == 0.25

"""SIGTERM and SIGINT end a run with a checkpoint, from which it goes on to the same bits."""

import json
import signal
import threading
import time
from importlib import import_module
from pathlib import Path

import pytest
import torch
from programs.training_runs import run, same, small, weights

from pyro_ssl import fit
from pyro_ssl.training import checkpoints, preemption
from pyro_ssl.training.callbacks import RunDirectory
from pyro_ssl.training.distributed import Processes

pytestmark = pytest.mark.slow


class At:
    """A transform that raises a signal, or calls a function, in one of its calls."""

    def __init__(self, call: int, action) -> None:
        self.call = call
        self.action = action

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.call -= 1
        if self.call == 0:
            self.action()
        return x

    def __repr__(self) -> str:  # the name by which a resumed run is compared
        return "At"


def raised(number: int):
    return lambda: signal.raise_signal(number)


NEVER = At(-1, None)
# eight parts of batches are read before the first step, and two in each of the 7 steps of an epoch
DURING = {"the second step": 12, "an epoch's last step": 22, "the second epoch": 28}


@pytest.mark.parametrize(
    "number, error", [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
@pytest.mark.parametrize("call", DURING.values(), ids=DURING)
def test_a_run_ends_with_a_checkpoint_and_goes_on_to_the_same_bits(tmp_path, number, error, call):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(error) as ended:
        run(directory=tmp_path, transform=At(call, raised(number)))
    if error is SystemExit:
        assert ended.value.code == 143
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    _, data = checkpoints.load(tmp_path / "checkpoint")
    assert 0 < data["position"]["step"] < 21
    objective, history = run(directory=tmp_path, transform=NEVER, resume=True)
    whole, expected = run(transform=NEVER)
    assert same(weights(objective), weights(whole))
    for name in expected.keys() - {"seconds"}:
        assert history[name] == expected[name]


def test_the_checkpoint_is_of_the_step_at_hand(tmp_path):
    with pytest.raises(SystemExit):
        run(directory=tmp_path, transform=At(12, raised(signal.SIGTERM)))
    _, data = checkpoints.load(tmp_path / "checkpoint")
    assert data["position"]["step"] == 2


def test_callbacks_of_the_epoch_are_called_first(tmp_path):
    epochs = []

    def callback(epoch):
        signal.raise_signal(signal.SIGTERM)
        epochs.append(epoch.epoch)

    with pytest.raises(SystemExit):
        run(directory=tmp_path, callbacks=[callback])
    assert epochs == [1]
    run(directory=tmp_path, callbacks=[lambda epoch: epochs.append(epoch.epoch)], resume=True)
    assert epochs == [1, 2, 3]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]


def test_a_second_signal_ends_at_once(tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(directory=tmp_path, transform=At(12, twice))
    assert not checkpoints.exists(tmp_path / "checkpoint")


def test_a_handler_of_the_programs_own_is_called_after_the_checkpoint(tmp_path):
    steps = []

    def handler(number, frame):
        _, data = checkpoints.load(tmp_path / "checkpoint")
        steps.append(data["position"]["step"])

    before = signal.signal(signal.SIGTERM, handler)
    try:
        objective, _ = run(directory=tmp_path, transform=At(12, raised(signal.SIGTERM)))
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert steps == [2]
    assert same(weights(objective), weights(run(transform=NEVER)[0]))


def test_ignored_signals_stay_ignored(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _, history = run(directory=tmp_path, transform=At(12, raised(signal.SIGINT)))
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(history["loss"]) == 3


def test_a_signal_after_the_last_step_is_not_lost(tmp_path, monkeypatch):
    of_run = import_module("pyro_ssl.training.run")
    load = of_run._load_final_weights
    monkeypatch.setattr(
        of_run,
        "_load_final_weights",
        lambda r: (load(r), signal.raise_signal(signal.SIGINT)),
    )
    with pytest.raises(KeyboardInterrupt):
        run(directory=tmp_path)


def test_without_a_directory_signals_are_left_alone():
    seen = []
    run(transform=At(12, lambda: seen.append(signal.getsignal(signal.SIGTERM))))
    assert seen == [signal.SIG_DFL]


def test_a_thread_trains_without_handlers(tmp_path):
    seen = []
    action = lambda: seen.append(signal.getsignal(signal.SIGTERM))  # noqa: E731
    arguments = {"directory": tmp_path, "transform": At(12, action)}
    thread = threading.Thread(target=run, kwargs=arguments)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]
    assert Path(tmp_path / "metrics.jsonl").exists()


@pytest.fixture
def exits(monkeypatch):
    """Exit codes with which one of two processes, that waits for the other, has ended."""
    codes = []
    monkeypatch.setattr(preemption, "GRACE", 0.05)
    monkeypatch.setattr(preemption.os, "_exit", codes.append)
    return codes


def test_a_process_that_waits_for_a_lost_one_ends(tmp_path, exits):
    watched = preemption.Preemption(RunDirectory(tmp_path, processes=Processes(1, 2)))
    watched.begin()
    with pytest.raises(KeyboardInterrupt), watched.watching():
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.5)
    assert exits == [130]


def test_a_process_that_reaches_the_end_of_its_step_does_not(tmp_path, exits, monkeypatch):
    processes = Processes(1, 2)
    run_directory = RunDirectory(tmp_path, processes=processes)
    monkeypatch.setattr(run_directory, "write_checkpoint", lambda run: time.sleep(0.5))
    watched = preemption.Preemption(run_directory)
    watched.begin()
    with pytest.raises(KeyboardInterrupt), watched.watching():
        signal.raise_signal(signal.SIGINT)
        assert processes.signal == signal.SIGINT
        processes.signal_of_any = signal.SIGINT
        watched.after_step(None)
    assert exits == []
    assert signal.set_wakeup_fd(-1) == -1


# --- runs that go on for longer -------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["constant", "one_cycle", "cosine", "halving", "exponential"])
def test_a_prolonged_run_has_the_learning_rates_of_the_longer_one(tmp_path, schedule):
    _, first = run(directory=tmp_path, schedule=schedule, epochs=2)
    _, history = run(directory=tmp_path, schedule=schedule, epochs=5, resume=True)
    _, whole = run(schedule=schedule, epochs=5)
    assert history["lr"] == [*first["lr"], *whole["lr"][2:]]
    assert len(history["loss"]) == 5


def test_with_a_constant_rate_a_prolonged_run_is_the_longer_one(tmp_path):
    arguments = {"schedule": "constant", "ema": 0.9}
    run(directory=tmp_path, epochs=2, **arguments)
    objective, _ = run(directory=tmp_path, epochs=3, resume=True, **arguments)
    assert same(weights(objective), weights(run(epochs=3, **arguments)[0]))


def test_a_prolonged_run_resumes_like_any_other(tmp_path):
    run(directory=tmp_path, epochs=2)
    with pytest.raises(SystemExit):
        callback = lambda epoch: signal.raise_signal(signal.SIGTERM)  # noqa: E731
        run(directory=tmp_path, epochs=4, resume=True, callbacks=[callback])
    objective, history = run(directory=tmp_path, epochs=4, resume=True)
    assert len(history["loss"]) == 4
    with pytest.raises(ValueError, match="epochs: the run to resume had 4, got 3"):
        run(directory=tmp_path, epochs=3, resume=True)


def test_a_schedule_of_ones_own_is_not_prolonged(tmp_path):
    def schedule(optimizer, steps):
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)

    run(directory=tmp_path, schedule=schedule, epochs=1)
    with pytest.raises(ValueError, match="a run whose schedule is a function cannot be extended"):
        run(directory=tmp_path, schedule=schedule, epochs=2, resume=True)


def test_a_prolonged_run_checks_its_checkpoint(tmp_path):
    run(directory=tmp_path, epochs=1)
    tensors, data = checkpoints.load(tmp_path / "checkpoint")
    data["position"]["step"] = 14
    checkpoints.save(tmp_path / "checkpoint", tensors, data)
    with pytest.raises(ValueError, match="step should be in 1 .. 7"):
        run(directory=tmp_path, epochs=3, resume=True)


class Loading:
    """Data that are read before the first step, during which a signal comes."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self):
        return 90

    def __array__(self, dtype=None, copy=None):
        signal.raise_signal(self.number)
        return torch.rand(90, 4).numpy()


@pytest.mark.parametrize(
    "number, error", [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_before_the_first_step_ends_the_run_at_once(tmp_path, number, error):
    objective = small()
    before = weights(objective)
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(error) as ended:
        fit(objective, Loading(number), directory=tmp_path)
    if error is SystemExit:
        assert ended.value.code == 143
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert same(weights(objective), before) and not checkpoints.exists(tmp_path / "checkpoint")


def test_a_handler_of_the_programs_own_is_called_before_the_first_step(tmp_path):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        fit(small(), Loading(signal.SIGTERM), epochs=1, directory=tmp_path)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert set(seen) == {signal.SIGTERM}


def test_a_run_that_goes_on_after_a_signal_is_not_ended_later(tmp_path, exits, monkeypatch):
    """The program's own handler returns, so training goes on beyond the time of grace."""
    processes = Processes(1, 2)
    run_directory = RunDirectory(tmp_path, processes=processes)
    monkeypatch.setattr(run_directory, "write_checkpoint", lambda run: None)
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        watched = preemption.Preemption(run_directory)
        watched.begin()
        with watched.watching():
            signal.raise_signal(signal.SIGTERM)
            processes.signal_of_any = signal.SIGTERM
            watched.after_step(None)
            time.sleep(0.5)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert exits == []


def test_a_signal_is_not_lost_if_the_step_fails(tmp_path):
    watched = preemption.Preemption(RunDirectory(tmp_path))
    watched.begin()
    with pytest.raises(KeyboardInterrupt), watched.watching():
        signal.raise_signal(signal.SIGINT)
        raise ValueError("the step")


def test_a_second_signal_is_not_followed_by_the_first(tmp_path):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        watched = preemption.Preemption(RunDirectory(tmp_path))
        watched.begin()
        with pytest.raises(KeyboardInterrupt), watched.watching():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == []


def test_a_signal_after_the_last_step_ends_with_its_code(tmp_path):
    watched = preemption.Preemption(RunDirectory(tmp_path))
    watched.begin()
    with pytest.raises(SystemExit, match="143"), watched.watching():
        signal.raise_signal(signal.SIGTERM)

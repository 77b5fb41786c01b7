"""A run that was killed resumes to the same bits; another run is refused."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from programs.training_runs import X, Y, run, same, small, weights

from pyro_ssl import (
    EarlyStopping,
    Objective,
    fit,
    zoo,
)
from pyro_ssl.training import SCHEDULES, checkpoints, resuming


def test_a_run_of_an_earlier_version_goes_on(tmp_path):
    run(directory=tmp_path, epochs=2)
    tensors, kept = checkpoints.load(tmp_path / "checkpoint")
    assert kept["settings"]["schedule"] == "one_cycle"
    for later in ("optimizer", "transform"):
        del kept["settings"][later]
    checkpoints.save(tmp_path / "checkpoint", tensors, kept)
    run(directory=tmp_path, epochs=2, resume=True)


TESTS = Path(__file__).parent.parent

RUNS = """
    import json, os, signal, sys, torch
    from pathlib import Path
    sys.path[:0] = [{tests!r}, {folder!r}]
    torch.set_num_threads(1)
    import test_resuming as t
    from pyro_ssl.training import checkpoints
    from pyro_ssl.utils import files
    die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)

    def run(directory, kill, where):
        saves = 0
        def save(*arguments, _save=checkpoints.save, **more):
            nonlocal saves
            saves += 1
            if where != "step" and saves == kill:
                owner, name, left = {{
                    "file": (files, "write_flushed", 1), "files": (files, "write_flushed", 2),
                    "rename": (Path, "rename", 1), "renames": (Path, "rename", 2),
                }}[where]
                call = getattr(owner, name)
                def dying(*arguments):
                    nonlocal left
                    left -= 1
                    if where == "files" and left == 0:
                        arguments[0].write_bytes(arguments[1][: len(arguments[1]) // 2])
                    return die() if left == 0 else call(*arguments)
                setattr(owner, name, dying)
            return _save(*arguments, **more)
        checkpoints.save = save
        step = t.Objective.parts
        steps = 0
        def parts(self, *arguments, **more):
            nonlocal steps
            steps += 1
            if where == "step" and steps == kill + 2:
                die()
            return step(self, *arguments, **more)
        t.Objective.parts = parts
        t.resumable(directory)

    t.run(epochs=1)  # torch imports more at its first step
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                run(*json.loads(line))
                code = 0
            finally:
                os._exit(code)
        print(child, flush=True)
        sys.stdin.readline()  # asked to wait for it; until then its number is nobody else's
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Runs:
    """Processes that train with `resumable` and can be killed.

    They are forked by a process that has imported torch and Pyro, which takes longer than a run.
    """

    def __init__(self) -> None:
        code = textwrap.dedent(RUNS).format(tests=str(TESTS), folder=str(TESTS / "training"))
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, line: str) -> int:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, directory: Path, kill: int, where: str) -> int:
        """Start one; its process's number."""
        return self.ask(json.dumps([str(directory), kill, where]))

    def wait(self) -> int:
        """Its exit code, that of `subprocess`."""
        return self.ask("wait")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def runs():
    made = Runs()
    yield made
    made.close()


RESUMABLE = {
    "epochs": 4,
    "ema": 0.9,
    "warmup": 2,
    "checkpoint_every": 3,
    "transform": lambda x: x + 0.01 * torch.randn_like(x),
}


def resumable(directory, **arguments):
    """A run with every kind of state: noise, batch norm, averages, warm-up, early stopping."""
    torch.manual_seed(123)  # a caller's state, which must not matter
    score = EarlyStopping(lambda o: -abs(o.bound(X).mean().item()), patience=50)
    o = small(noise=0.2, dropout=0.3, batch_norm=True, top_k=1, mutual_information=0.1)
    return run(o, directory=directory, resume=True, early_stopping=score, **RESUMABLE | arguments)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    o, history = resumable(tmp_path_factory.mktemp("unbroken"))
    return weights(o), {k: v for k, v in history.items() if k != "seconds"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kill", "where"),
    [
        (1, "step"),
        (11, "step"),
        (25, "step"),
        (1, "file"),
        (4, "files"),
        (1, "rename"),
        (5, "rename"),
        (6, "renames"),
    ],
)
def test_a_killed_run_resumes_to_the_same_bits(kill, where, unbroken, runs, tmp_path):
    runs.start(tmp_path, kill, where)
    assert runs.wait() == -signal.SIGKILL
    o, history = resumable(tmp_path)
    assert same(weights(o), unbroken[0])
    assert {k: v for k, v in history.items() if k != "seconds"} == unbroken[1]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert [line["loss"] for line in lines] == history["loss"]


class StoppedError(Exception):
    """Raised by a callback, as a kill between two epochs."""


@pytest.mark.slow
@pytest.mark.parametrize("method", zoo.METHODS)
def test_every_method_resumes_to_the_same_bits(method, tmp_path):
    small_options = {"hidden": (6,), "z_dim": 2, "dropout": 0.2}
    options = {k: v for k, v in small_options.items() if k in zoo.options_of(method)}

    def stop(epoch) -> None:
        if epoch.epoch == 2:
            raise StoppedError

    def run_of(**arguments) -> tuple[Objective, dict]:
        settings = {"epochs": 3, "batch_size": 35, "labeled_batch_size": 10}
        objective = zoo.build(method, 4, 3, **options)
        return objective, fit(objective, X.sigmoid(), Y, **settings | arguments)

    whole, history = run_of()
    with pytest.raises(StoppedError):
        run_of(directory=tmp_path, callbacks=(stop,))
    resumed, resumed_history = run_of(directory=tmp_path, resume=True)
    assert same(weights(resumed), weights(whole))
    assert resumed_history["loss"] == history["loss"]


def stamp(directory: Path) -> int:
    """Time of the last rename of the checkpoint; 0 if there is none, or between two renames."""
    try:
        return (directory / "checkpoint" / "state.json").stat().st_mtime_ns
    except FileNotFoundError:  # asked for exists() first, it may be gone by the time of stat()
        return 0


@pytest.mark.slow
def test_killed_at_any_moment(unbroken, runs, tmp_path):
    """SIGKILL from outside at arbitrary moments, until the run gets through."""
    for delay in (0.0, 0.013, 0.05):
        before = stamp(tmp_path)
        process = runs.start(tmp_path, -9, "step")
        end = time.monotonic() + 60
        while stamp(tmp_path) == before and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(delay)
        os.kill(process, signal.SIGKILL)
        assert runs.wait() == -signal.SIGKILL
    o, _ = resumable(tmp_path)
    assert same(weights(o), unbroken[0])


def test_a_directory_with_another_run_is_refused(tmp_path):
    run(directory=tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(FileExistsError, match="another run"):
        run(directory=tmp_path)
    for other in (
        {"epochs": 2},
        {"lr": 1e-4},
        {"seed": 3},
        {"batch_size": 20},
        {"ema": 0.5},
        {"warmup": 1},
    ):
        with pytest.raises(ValueError, match=f"{next(iter(other))}: the run to resume had"):
            run(directory=tmp_path, resume=True, **other)
    others = {
        "optimizer": torch.optim.SGD,
        "transform": torch.sign,
        "schedule": SCHEDULES["cosine"],
    }
    for name, other in others.items():
        with pytest.raises(ValueError, match=f"{name}: the run to resume had"):
            run(directory=tmp_path, resume=True, **{name: other})
    with pytest.raises(ValueError, match="x: the run to resume had"):
        fit(
            small(),
            X + 1,
            Y,
            directory=tmp_path,
            resume=True,
            epochs=3,
            batch_size=10,
            labeled_batch_size=8,
        )
    with pytest.raises(ValueError, match="objective: its weights"):
        run(small(z_dim=3), directory=tmp_path, resume=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.slow
def test_one_process_trains_in_a_directory(tmp_path):
    pytest.importorskip("fcntl")
    child = """
    import sys, time
    sys.path[:0] = [{tests!r}, {folder!r}]
    import test_resuming as t
    def wait(epoch):
        print("trains", flush=True)
        time.sleep(60)
    t.run(directory=sys.argv[1], callbacks=(wait,))
    """
    code = textwrap.dedent(child).format(tests=str(TESTS), folder=str(TESTS / "training"))
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "trains\n"
        before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
        with pytest.raises(ValueError, match=f"{tmp_path} is in use by another process"):
            run(directory=tmp_path, resume=True)
        assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    (a, _), (b, _) = run(directory=tmp_path, resume=True), run()
    assert same(weights(a), weights(b))


def test_a_run_is_its_options_too(tmp_path):
    run(directory=tmp_path, identity={"alpha": 1.0, "hidden": (6,)})
    run(directory=tmp_path, resume=True, identity={"alpha": 1.0, "hidden": (6,)})
    with pytest.raises(ValueError, match="identity: the run to resume had"):
        run(directory=tmp_path, resume=True, identity={"alpha": 2.0, "hidden": (6,)})


def test_resuming_what_is_finished_changes_nothing(tmp_path):
    (a, h), (b, g) = run(directory=tmp_path), run(directory=tmp_path, resume=True)
    assert same(weights(a), weights(b)) and h == g


def test_parts_of_the_loss_have_todays_names():
    old = {"step": 3, "sums": {"Balance": 1.0, "loss": 2.0}}
    assert resuming._with_current_names(old, "sums")["sums"] == {"ClassBalance": 1.0, "loss": 2.0}
    assert resuming._with_current_names("damaged", "sums") == "damaged"

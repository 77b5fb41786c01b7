"""A sweep on a real Dask scheduler with two worker processes, one of which is killed."""

import csv
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread, current_thread, main_thread

import numpy as np
import pytest

from pyro_ssl.cli import app as cli
from pyro_ssl.sweeps import backend, sweep

pytestmark = pytest.mark.slow

distributed = pytest.importorskip("distributed", reason="pip install 'pyro-ssl[dask]'")
COMMAND = (
    *("sweep", "m2", "--data", "rows.npz", "--labels", "20", "--validation", "0.3"),
    *("--hidden", "[8]", "--epochs", "50", "--seeds", "0:3", "--checkpoint_every", "1"),
)
DEADLINE = 120


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The scheduler file, and the processes of two workers, one of which a test kills."""
    tmp_path = tmp_path_factory.mktemp("dask")
    dask = [sys.executable, "-m", "dask"]
    file = str(tmp_path / "scheduler.json")
    local = ["--host", "127.0.0.1", "--scheduler-file", file]
    one = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(*arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [*dask, *arguments], env=environment, stderr=subprocess.DEVNULL, cwd=tmp_path
        )

    scheduler = start("scheduler", "--port", "0", "--dashboard-address", ":0", *local)
    workers = [start("worker", *one, *local) for _ in range(2)]
    end = time.monotonic() + DEADLINE
    while not Path(file).exists() and time.monotonic() < end:
        time.sleep(0.1)
    yield file, workers
    for process in (*workers, scheduler):
        process.kill()
        process.wait()


def rows(table: Path) -> list[dict]:
    with table.open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def first_epochs(out: Path) -> dict[Path, str]:
    """The first line of the metrics of every run that is in training."""
    found = {}
    for path in out.glob("runs/*/metrics.jsonl"):
        lines = path.read_text().splitlines()
        if len(lines) > 2 and not path.with_name("result.json").exists():
            found[path] = lines[0]
    return found


def kill_in_training(worker: subprocess.Popen, out: Path, noted: dict[Path, str]) -> None:
    """Kill a worker once both have a run with a checkpoint, and note what had been measured."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        noted.clear()
        noted.update(first_epochs(out))
        if len(noted) == 2:
            worker.send_signal(signal.SIGKILL)
            return
        time.sleep(0.01)


def test_a_killed_worker_changes_nothing_and_is_said(cluster, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    x = rng.normal(size=(120, 4)) + y[:, None]
    np.savez("rows.npz", x=x, y=y, x_test=x, y_test=y)
    assert cli.main([*COMMAND, "--out", "unbroken"]) == 0

    file, workers = cluster
    noted: dict[Path, str] = {}
    killer = Thread(target=kill_in_training, args=(workers[0], Path("killed"), noted))
    killer.start()
    assert cli.main([*COMMAND, "--out", "killed", "--backend", "dask", "--scheduler", file]) == 0
    killer.join()

    assert workers[0].wait() == -signal.SIGKILL
    assert workers[1].poll() is None
    assert rows(Path("killed/table.csv")) == rows(Path("unbroken/table.csv"))
    assert len(rows(Path("killed/table.csv"))) == 3
    assert len(noted) == 2  # both runs have gone on from their checkpoints
    said = capsys.readouterr().err.splitlines()
    (line,) = [line for line in said if "has lost its worker" in line]
    assert line in {
        f"run {path.parent.name} has lost its worker and is done again, attempt 2 of 3"
        for path in noted
    }
    for path, line in noted.items():
        lines = path.read_text().splitlines()
        assert lines[0] == line
        assert [json.loads(each)["epoch"] for each in lines] == list(range(1, 51))


class Unreadable:
    """A function that no worker can read, such as one whose module they do not have."""

    def __call__(self, config: dict, directory: Path) -> dict:
        return {}

    def __reduce__(self):
        return (importlib.import_module, ("no_such_module",))


def test_what_dask_gives_up_is_an_error_and_not_waited_for(cluster, tmp_path):
    file, _ = cluster
    with backend("dask", file), pytest.raises(Exception, match="(?i)no_such_module|deseriali"):
        sweep(Unreadable(), [{"seed": 0}, {"seed": 1}], tmp_path, report=str)


def where(config: dict, directory: Path) -> dict:
    return {"is_worker": current_thread() is not main_thread()}


def test_a_single_worker_is_used_and_not_this_thread(tmp_path):
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
    )
    with cluster, backend("dask", cluster.scheduler_address):
        (outcome,) = sweep(where, [{"seed": 0}], tmp_path, report=str)
    assert outcome.result["is_worker"]


def test_a_scheduler_that_is_not_there(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pyro_ssl.sweeps.backends.CONNECT_SECONDS", 0.2)
    command = ["sweep", "m2", "--data", "moons", "--backend", "dask"]
    assert cli.main([*command, "--scheduler", "tcp://127.0.0.1:9"]) == 2
    assert "tcp://127.0.0.1:9 does not answer" in capsys.readouterr().err
    assert cli.main(command) == 2
    assert "scheduler is needed" in capsys.readouterr().err

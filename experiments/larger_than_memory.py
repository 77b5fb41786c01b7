"""Memory of training on a file that is larger than it, and of predicting all its rows.

A sparse file of float64 is made: black pictures (class 0), which take no place on the disk, and
noisy ones (class 1) in every 50th row. 200 rows have a label. M2 is trained for one pass over the
file, and classifies every row. Then the file is removed. A small file shows what of the memory does
not depend on the data.

`python experiments/larger_than_memory.py --help` explains every option.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pages import table
from results_table import Result, Results
from study import Config, Study, main

from pyro_ssl import fit, predict_proba, zoo

PIXELS = 784
LABELED = 200
NOISY = 50
"""Every how many rows there is a noisy picture, after those with a label."""
SIZES = (0.1, 10.0)
"""Gigabytes of the files."""
DRAWS = {"smoke": [0], "cpu": [0]}
SECONDS_BETWEEN = 0.05
"""Time between two measurements of memory."""


def configs(scale: str, draws: Sequence[int]) -> dict[str, Config]:
    if scale == "smoke":
        return {"file_0.003": _config(0.003, batch_size=100, hidden=4)}
    return {f"file_{size:g}": _config(size, batch_size=4000, hidden=64) for size in SIZES}


def _config(gigabytes: float, **sizes: int) -> Config:
    return {"gigabytes": gigabytes, "workers": 1, **sizes}


# --- the data and the run -------------------------------------------------------------------------


def classes_of(rows: int) -> np.ndarray:
    """The class of each row, `(rows,)`: labeled rows alternate, later ones are 1 if noisy."""
    places = np.arange(rows)
    period = np.where(places < LABELED, 2, NOISY)
    return (places % period == 1).astype(np.int8)


def write_pictures(path: Path, gigabytes: float) -> None:
    """Write noisy pictures, float64 in [0, 1]; the file is sparse where they are black."""
    rows = max(LABELED, int(gigabytes * 1e9 / (8 * PIXELS)))
    rng = np.random.default_rng(0)
    header = {"descr": "<f8", "fortran_order": False, "shape": (rows, PIXELS)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        file.truncate(start + 8 * PIXELS * rows)
        for row in np.flatnonzero(classes_of(rows)):
            file.seek(start + 8 * PIXELS * int(row))
            file.write(rng.uniform(0, 1, PIXELS).tobytes())


def accuracy_on(path: Path, batch_size: int, hidden: int, workers: int = 1) -> float:
    """Train M2 for one pass over the file, and classify all its rows."""
    x = np.load(path, mmap_mode="r")
    classes = classes_of(len(x))
    y = np.where(np.arange(len(x)) < LABELED, classes, np.int8(-1))
    m2 = zoo.build("m2", x.shape[1:], 2, hidden=(hidden,), z_dim=2, balance=0.0)
    fit(m2, x, y, epochs=1, batch_size=batch_size, workers=workers)
    predicted = predict_proba(m2, x).argmax(-1).numpy()
    return float((predicted == classes).mean())


def run(name: str, config: Config, directory: Path, pictures: Path) -> Result:
    path = directory / "x.npy"
    write_pictures(path, config["gigabytes"])
    try:
        before = memory_of(processes_below(os.getpid()))
        with peak_memory() as peak:
            accuracy = accuracy_on(path, config["batch_size"], config["hidden"], config["workers"])
        megabytes = path.stat().st_size / 1e6
    finally:
        path.unlink()
    return {"megabytes": megabytes, "accuracy": accuracy, "before_mb": before} | peak


# --- memory ---------------------------------------------------------------------------------------


@contextmanager
def peak_memory() -> Iterator[Result]:
    """Measure, during the block, the memory of this process and of all those that it starts.

    Afterwards the result has the peaks of `memory_of` as `peak_mb`, the largest number of
    processes as `processes`, and how often they were measured as `measurements`.
    """
    peak = memory_of([])
    result: Result = {"measurements": 0, "processes": 0, "peak_mb": peak}
    is_over = threading.Event()

    def measure() -> None:
        while not is_over.wait(SECONDS_BETWEEN):
            processes = processes_below(os.getpid())
            for kind, megabytes in memory_of(processes).items():
                peak[kind] = max(peak[kind], megabytes)
            result["measurements"] += 1
            result["processes"] = max(result["processes"], len(processes))

    thread = threading.Thread(target=measure, daemon=True)
    thread.start()
    try:
        yield result
    finally:
        is_over.set()
        thread.join()


def processes_below(root: int) -> list[int]:
    """A process and all that it has started, and those that these have started."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            parents[int(entry.name)] = _parent(entry)
    found = [root]
    for process in found:  # which grows
        found += [child for child, parent in parents.items() if parent == process]
    return found


def _parent(entry: Path) -> int | None:
    try:
        text = (entry / "stat").read_text()
    except OSError:  # it has ended
        return None
    return int(text.rpartition(")")[2].split()[1])


def memory_of(processes: Sequence[int]) -> dict[str, float]:
    """Memory of processes in MB, `own` and `all`.

    `own` is what they have allocated; a page that several of them share is counted once, by Linux's
    proportional set size. `all` adds the mapped files, such as the code of torch, which the
    processes have in common: those of the process that maps most. Pages of files that the kernel
    keeps after they were read belong to no process, and are not counted: they go when memory is
    needed.
    """
    own = 0.0
    mapped = 0.0
    for process in processes:
        folder = Path(f"/proc/{process}")
        try:
            rollup = _kilobytes(folder / "smaps_rollup")
            status = _kilobytes(folder / "status")
        except OSError:  # it has ended
            continue
        own += (rollup["Pss_Anon"] + rollup["Pss_Shmem"]) / 1e3
        mapped = max(mapped, status.get("RssFile", 0) / 1e3)
    return {"own": own, "all": own + mapped}


def _kilobytes(path: Path) -> dict[str, int]:
    """The numbers of a file of Linux whose lines are `Name:  1234 kB`."""
    lines = re.findall(r"^(\w+):\s+(\d+) kB$", path.read_text(), re.MULTILINE)
    return {name: int(number) for name, number in lines}


# --- the page -------------------------------------------------------------------------------------


def report(results: Results, pictures: Path) -> dict[str, str]:
    rows = []
    for result in sorted(results.values(), key=lambda result: result["megabytes"]):
        config = result["config"]
        rows.append(
            (
                f"{result['megabytes'] / 1e3:.3g}",
                f"{config['batch_size']}",
                f"{100 * result['accuracy']:.2f}",
                f"{result['before_mb']['all']:.0f}",
                f"{result['peak_mb']['all']:.0f}",
                f"{result['peak_mb']['own']:.0f}",
                f"{result['processes']}",
                f"{result['measurements']}",
                f"{result['seconds']:.0f}",
            )
        )
    header = (
        "file, GB",
        "rows a step",
        "accuracy %",
        "before, MB",
        "peak, MB",
        "without mapped files, MB",
        "processes",
        "measurements",
        "s",
    )
    return {"memory": table(header, rows)}


STUDY = Study("larger_than_memory", configs, run, report, draws=DRAWS, workers=1, threads=1)

if __name__ == "__main__":
    main(STUDY, __doc__)

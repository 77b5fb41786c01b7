"""`sweep`: run every configuration once, wherever joblib runs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

from pyro_ssl.sweeps.runs import Config, Outcome, RunFunction, run_name, run_once, stored_result
from pyro_ssl.utils.arguments import check_positive

RUNS = "runs"


def sweep(
    run: RunFunction,
    configs: Iterable[Config],
    directory: str | Path,
    *,
    threads: int = 1,
    report: Callable[[str], None] = print,
) -> list[Outcome]:
    """Run every configuration once, each in a directory of its own.

    The runs go to joblib's active backend: `joblib.parallel_config(n_jobs=4)` for processes of
    this machine, or Dask or Ray, see `backend`. Runs with a result are not run again, so the same
    call continues after it was stopped, or runs what has been added to the configurations. A run
    that was killed is called again with the same directory; one that trains with
    `fit(..., directory=directory, resume=True)` continues from its checkpoint.

    >>> import tempfile
    >>> def square(config, directory):
    ...     return {"square": config["x"] ** 2}
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     outcomes = sweep(square, [{"x": 2}, {"x": 3}], directory)
    1 of 2, about 0 s left
    2 of 2
    >>> [outcome.result for outcome in outcomes]
    [{'square': 4}, {'square': 9}]

    Arguments:
        run: Function of a configuration and a directory, which returns plain data. Other
            processes have to be able to import it.
        configs: Configurations, plain data; equal ones are run once.
        directory: The directory of the sweep, which all workers can reach. Each run is in
            `runs/NAME`, where NAME is a hash of its configuration; `config.json` there holds it.
        threads: Torch's threads of each run.
        report: Called with the progress after each run.

    Returns:
        One outcome for each configuration, in their order. A run with an error has no result, and
        its traceback is in `error.txt`; it is run again by the next call.

    Raises:
        ValueError: A configuration is not plain data.
        CheckpointError: The result of an earlier run is damaged.
    """
    check_positive(threads=threads)
    directories = Path(directory).resolve() / RUNS
    by_name = {run_name(config): config for config in configs}
    stored = {name: stored_result(directories / name) for name in by_name}
    missing = [name for name in by_name if stored[name] is None]
    progress = Progress(len(by_name) - len(missing), len(by_name), report)
    outcomes = ReportingParallel(progress, batch_size=1, pre_dispatch="all")(
        delayed(run_once)(run, by_name[name], directories / name, threads) for name in missing
    )
    found = {outcome.name: outcome for outcome in outcomes}
    for name, config in by_name.items():
        if name not in found:
            found[name] = Outcome(name, config, stored[name])
    return [found[name] for name in by_name]


class Progress:
    """How many runs have ended, and about how long the others take.

    Arguments:
        done: Runs that had ended before.
        total: Runs in all.
        report: Called with a line of text.

    >>> progress = Progress(done=1, total=2, report=print)
    >>> progress(1)
    2 of 2
    """

    def __init__(self, done: int, total: int, report: Callable[[str], None]) -> None:
        self.done = done
        self.total = total
        self.report = report
        self.started = time.perf_counter()

    def __call__(self, ended: int) -> None:
        """Report after a run.

        Arguments:
            ended: Runs that have ended since the start.
        """
        left = self.total - self.done - ended
        text = f"{self.done + ended} of {self.total}"
        if left and ended:
            seconds = (time.perf_counter() - self.started) / ended * left
            text += f", about {_rounded(seconds)} left"
        self.report(text)


def _rounded(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class ReportingParallel(Parallel):
    """joblib's `Parallel`, which calls `print_progress` whenever a run has ended."""

    def __init__(self, progress: Progress, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.progress = progress
        self.reported = 0

    def print_progress(self) -> None:
        """Report, once for each run that has ended."""
        if self.n_completed_tasks > self.reported:
            self.reported = self.n_completed_tasks
            self.progress(self.reported)

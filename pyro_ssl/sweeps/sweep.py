"""`sweep`: run every configuration once, wherever joblib runs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from joblib import Parallel, delayed

from pyro_ssl.sweeps.runs import (
    MAX_ATTEMPTS,
    Config,
    Outcome,
    RunFunction,
    run_name,
    run_once,
    stored_result,
)
from pyro_ssl.utils.arguments import check_positive

RUNS = "runs"
DEATHS = {"BrokenProcessPool", "KilledWorker", "RayActorError", "WorkerCrashedError"}
"""Names of the errors that say that a worker has ended."""


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
    session = uuid4().hex
    outcomes = in_parallel(
        run_once,
        [(run, by_name[name], directories / name, threads, session) for name in missing],
        Progress(len(by_name) - len(missing), len(by_name), report),
    )
    found = {outcome.name: outcome for outcome in outcomes}
    for name, config in by_name.items():
        if name not in found:
            found[name] = Outcome(name, config, stored[name])
    return [found[name] for name in by_name]


def in_parallel(function: Callable[..., Any], calls: Sequence[Any], progress: Progress) -> Any:
    """The results of all calls, by joblib's active backend.

    Where the death of a worker ends all of them, as with joblib's own processes, they are made
    again; so the function should find out by itself what has been done.

    Arguments:
        function: Function to call.
        calls: The arguments of each call.
        progress: Called with the number of calls that have ended.
    """
    for attempt in range(MAX_ATTEMPTS + 1):
        parallel = _ReportingParallel(progress, batch_size=1, pre_dispatch="all")
        try:
            return parallel(delayed(function)(*call) for call in calls)
        except Exception as error:
            if attempt == MAX_ATTEMPTS or not _is_death_of_worker(error):
                raise
    raise AssertionError


def _is_death_of_worker(error: BaseException) -> bool:
    """Whether an error of joblib's processes, Dask or Ray says that a worker has ended."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & DEATHS)


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


class _ReportingParallel(Parallel):
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

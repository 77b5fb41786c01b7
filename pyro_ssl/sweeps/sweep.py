"""`sweep`: run every configuration once, on any backend of joblib."""

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
from pyro_ssl.utils.durations import duration

RUNS = "runs"
DEATHS = {"BrokenProcessPool", "KilledWorker", "RayActorError", "WorkerCrashedError"}
"""Names of the errors of joblib's processes, Dask and Ray if a worker has died."""


def sweep(
    run: RunFunction,
    configs: Iterable[Config],
    directory: str | Path,
    *,
    threads: int = 1,
    report: Callable[[str], None] = print,
) -> list[Outcome]:
    """Run every configuration once, each in its own directory.

    The runs use joblib's active backend: `joblib.parallel_config(n_jobs=4)` for processes of this
    machine, or Dask or Ray, see `backend`. Configurations that have a result are not run again. So
    the same call continues a sweep that was stopped, and a call with more configurations runs only
    the new ones. A run that was killed is called again with the same directory; if it trains with
    `fit(..., directory=directory, resume=True)`, it continues from its checkpoint.

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
        run: Function of a configuration and a directory that returns plain data. Other processes
            must be able to import it.
        configs: Configurations, as plain data; equal ones are run once.
        directory: Directory of the sweep; all workers must be able to reach it. Each run has the
            directory `runs/NAME`, where NAME is a hash of its configuration; the configuration is
            in its `config.json`.
        threads: Number of torch's threads in each run.
        report: Function that is called with the progress after each run.

    Returns:
        One outcome for each different configuration, in order. A run with an error has no result,
        and its traceback is in `error.txt`; the next call repeats it.

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
    outcome_of = {outcome.name: outcome for outcome in outcomes}
    for name, config in by_name.items():
        if name not in outcome_of:
            outcome_of[name] = Outcome(name, config, stored[name])
    return [outcome_of[name] for name in by_name]


def in_parallel(function: Callable[..., Any], calls: Sequence[Any], progress: Progress) -> Any:
    """Make all calls on joblib's active backend, and return their results.

    If the death of a worker ends all calls, as with joblib's own processes, all of them are made
    again. So the function should skip work that is already done.

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
    """Return True if an error of joblib's processes, Dask or Ray says that a worker has died."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & DEATHS)


class Progress:
    """Report how many runs have ended, and about how long the others will take.

    Arguments:
        done: Number of runs that had ended before.
        total: Total number of runs.
        report: Function that is called with a line of text.

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
            ended: Number of runs that have ended since the start.
        """
        left = self.total - self.done - ended
        text = f"{self.done + ended} of {self.total}"
        if left and ended:
            seconds = (time.perf_counter() - self.started) / ended * left
            text += f", about {duration(seconds)} left"
        self.report(text)


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

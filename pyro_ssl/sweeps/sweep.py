"""`sweep`: run every configuration once, on any backend of joblib."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from joblib import Parallel, delayed, effective_n_jobs

from pyro_ssl.sweeps.lost_workers import MAX_ATTEMPTS, LostRunError, is_death_of_worker
from pyro_ssl.sweeps.runs import (
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
    the new ones. A run whose worker was lost is called again with the same directory, and a line on
    the standard error says so; if it trains with `fit(..., directory=directory, resume=True)`, it
    continues from its checkpoint.

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
        LostRunError: Workers die again and again before a run begins.
    """
    check_positive(threads=threads)
    directories = Path(directory).resolve() / RUNS
    by_name = {run_name(config): config for config in configs}
    stored = {name: stored_result(directories / name) for name in by_name}
    missing = [name for name in by_name if stored[name] is None]
    session = uuid4().hex
    outcomes = in_parallel(
        run_once,
        {
            f"run {name}": (run, by_name[name], directories / name, threads, session)
            for name in missing
        },
        Progress(len(by_name) - len(missing), len(by_name), report),
    )
    outcome_of = {outcome.name: outcome for outcome in outcomes}
    for name, config in by_name.items():
        if name not in outcome_of:
            outcome_of[name] = Outcome(name, config, stored[name])
    return [outcome_of[name] for name in by_name]


def in_parallel(
    function: Callable[..., Any],
    calls: Mapping[str, Sequence[Any]],
    progress: Callable[[int], None],
) -> list[Any]:
    """Make all calls on joblib's active backend, and return their results.

    If the death of a worker ends all calls, as with joblib's own processes, those without a result
    are made again. Before the last attempt, those that may have been under way are made one by one,
    so that a call is not blamed for another.

    >>> in_parallel(pow, {"a": (2, 3), "b": (3, 2)}, progress=print)
    1
    2
    [8, 9]

    Arguments:
        function: Function to call.
        calls: The arguments of each call, by its name.
        progress: Called with the number of calls that have ended.

    Raises:
        LostRunError: The worker of a call dies again and again.
    """
    results: dict[str, Any] = {}
    deaths = 0
    while len(results) < len(calls):
        missing = [name for name in calls if name not in results]
        try:
            for name, result in _as_they_end(function, calls, missing):
                results[name] = result
                progress(len(results))
        except Exception as error:
            if not is_death_of_worker(error):
                raise
            deaths += 1
        if deaths == MAX_ATTEMPTS - 1:
            missing = [name for name in calls if name not in results]
            for name in missing[: effective_n_jobs(None)]:
                results[name] = _alone(function, calls, name)
                progress(len(results))
            deaths = 0
    return [results[name] for name in calls]


def _as_they_end(
    function: Callable[..., Any], calls: Mapping[str, Sequence[Any]], names: Iterable[str]
) -> Iterator[tuple[str, Any]]:
    """Make some of the calls, and yield the name and the result of each when it has ended."""
    parallel = Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="all")
    jobs = (delayed(_named)(name, function, calls[name]) for name in names)
    results: Iterator[tuple[str, Any]] = parallel(jobs)
    return results


def _named(name: str, function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[str, Any]:
    return name, function(*arguments)


def _alone(function: Callable[..., Any], calls: Mapping[str, Sequence[Any]], name: str) -> Any:
    """Make a call while no other is made; make it again if its worker dies."""
    attempts = MAX_ATTEMPTS + 1  # `run_once` refuses the last one, if the run has begun
    for _ in range(attempts):
        try:
            ((_, result),) = _as_they_end(function, calls, [name])
            return result
        except Exception as error:
            if not is_death_of_worker(error):
                raise
            cause = error
    raise LostRunError(
        f"{name} has lost its worker {attempts} times, with no other run beside it; is there "
        "enough memory?"
    ) from cause


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

"""One run of a sweep: its directory, and a result that is computed once."""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from pyro_ssl.sweeps.lost_workers import begin_attempt, end_attempts
from pyro_ssl.utils import files

Config = dict[str, Any]
"""Plain data that determine a run."""
Result = dict[str, Any]
"""Measurements of a run, as plain data."""
RunFunction = Callable[[Config, Path], Result]
"""`run(config, directory)`; it should continue from what a killed call left in the directory."""

CONFIG_FILE = "config.json"
RESULT_FILE = "result.json"
ERROR_FILE = "error.txt"
NAME_LENGTH = 12

_ONE_AT_A_TIME = Lock()
"""Held during a run: runs in one process would share the number of threads and random state."""


class RunStopped(Exception):  # noqa: N818
    """Raised by a callback to end a run without a result, and without an error."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run.

    Arguments:
        name: Name of the run's directory.
        config: Its configuration.
        result: Its measurements; None if it has failed or has not ended.
        error: The message of its error; empty if there is none.
    """

    name: str
    config: Config
    result: Result | None = None
    error: str = ""


def run_name(config: Config) -> str:
    """Return the name of a run's directory: a hash of its configuration.

    Raises:
        ValueError: The configuration is not plain data.

    >>> run_name({"z_dim": 10, "seed": 0}) == run_name({"seed": 0, "z_dim": 10})
    True
    """
    try:
        text = json.dumps(config, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"configs should be plain data that JSON can hold, got {config!r:.200}: {error}"
        ) from None
    return hashlib.sha256(text.encode()).hexdigest()[:NAME_LENGTH]


def stored_result(directory: Path) -> Result | None:
    """Return the result of a run, or None if it has not ended.

    Raises:
        CheckpointError: The file is damaged.
    """
    path = directory / RESULT_FILE
    if not path.exists():
        return None
    try:
        return files.read_sealed(path)
    except files.CheckpointError as error:
        raise files.CheckpointError(f"{error}; remove {directory} to repeat this run") from None


def run_once(
    run: RunFunction, config: Config, directory: Path, threads: int, session: str = ""
) -> Outcome:
    """Run a configuration unless it has a result; an error becomes part of the outcome.

    Arguments:
        run: The function to run.
        config: Its configuration.
        directory: Its directory, which is created if missing.
        threads: Number of torch's threads during the run.
        session: Identifier of the call of `sweep`. A run that has lost its worker several times
            is not repeated in the same call.
    """
    name = directory.name
    with _ONE_AT_A_TIME, _threads(threads):
        try:
            with files.locked(directory):
                begin_attempt(directory, session)
                outcome = Outcome(name, config, _result_of(run, config, directory))
        except RunStopped:
            outcome = Outcome(name, config)
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            files.write_text(directory / ERROR_FILE, traceback.format_exc())
            outcome = Outcome(name, config, error=message)
    end_attempts(directory)
    return outcome


def _result_of(run: RunFunction, config: Config, directory: Path) -> Result:
    stored = stored_result(directory)
    if stored is not None:
        return stored
    files.write_text(directory / CONFIG_FILE, json.dumps(config, indent=1))
    result = run(config, directory)
    files.write_sealed(directory / RESULT_FILE, result)
    (directory / ERROR_FILE).unlink(missing_ok=True)
    return result


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""Workers that are lost during a run: how often, and what is said about it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pyro_ssl.utils import files

ATTEMPTS_FILE = "attempts.json"
MAX_ATTEMPTS = 3
"""Times that a run may lose its worker, say for lack of memory, before a sweep leaves it out."""
DEATHS = {"BrokenProcessPool", "KilledWorker", "RayActorError", "WorkerCrashedError"}
"""Names of the errors of joblib's processes, Dask and Ray if a worker has died."""


class LostRunError(RuntimeError):
    """A run has lost its worker too often, perhaps for lack of memory."""


def is_death_of_worker(error: BaseException) -> bool:
    """Return True if an error of joblib's processes, Dask or Ray says that a worker has died.

    >>> is_death_of_worker(ValueError("a worker has died"))
    False
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & DEATHS)


def begin_attempt(directory: Path, session: str) -> None:
    """Count the attempts of a run in a session, and say if an earlier one has lost its worker.

    The count is in a file, which stays if the worker is lost.

    Arguments:
        directory: Directory of the run.
        session: Identifier of the call of `sweep`.

    Raises:
        LostRunError: There have been too many attempts.
    """
    path = directory / ATTEMPTS_FILE
    earlier = _attempts_in(path, session)
    if earlier >= MAX_ATTEMPTS:
        raise LostRunError(
            f"run {directory.name} has lost its worker {earlier} times; is there enough memory?"
        )
    files.write_text(path, json.dumps({"session": session, "number": earlier + 1}))
    if earlier:
        tell(
            f"run {directory.name} has lost its worker and is done again, "
            f"attempt {earlier + 1} of {MAX_ATTEMPTS}"
        )


def end_attempts(directory: Path) -> None:
    """Remove the count of a run that has ended."""
    (directory / ATTEMPTS_FILE).unlink(missing_ok=True)


def _attempts_in(path: Path, session: str) -> int:
    """The number of attempts in a file; 0 without one, in another session or if it is damaged."""
    try:
        earlier: Any = json.loads(path.read_text())
        is_of_session = earlier["session"] == session and type(earlier["number"]) is int
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return 0
    return int(earlier["number"]) if is_of_session else 0


def tell(text: str) -> None:
    """Print a line to the standard error of the program that has called `sweep`.

    Processes of this machine share it with the program, and Dask sends the line there. With Ray,
    the line is in the logs of its workers.
    """
    distributed = sys.modules.get("distributed")
    if distributed is None:
        print(text, file=sys.stderr, flush=True)
    else:  # on a worker, it also prints on the clients
        distributed.print(text, file=sys.stderr, flush=True)

"""Worker processes that read rows: errors come back with their cause, and ended ones are told."""

from __future__ import annotations

import pickle
import re
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

from torch.utils.data import DataLoader, get_worker_info

from pyro_ssl.utils.private_names import end_workers_of_loader, workers_of_loader

SECONDS_TO_END = 2.0
"""How long to wait for a process that seems to end."""
LIKELY_REASONS = {
    signal.SIGKILL: ", as the system does where memory runs out",
    signal.SIGBUS: ", as the system does where shared memory (/dev/shm) runs out",
    signal.SIGSEGV: ": compiled code that the Dataset calls has crashed",
}


class LostWorkerError(RuntimeError):
    """A worker process that reads the data has ended.

    >>> issubclass(LostWorkerError, RuntimeError)
    True
    """


# --- errors in a worker ---------------------------------------------------------------------------


class _WorkerTraceback(Exception):
    """The traceback of an error in a worker process, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class Failure:
    """An error that a worker process returns: pickling alone would lose its cause.

    Arguments:
        error: The error.

    >>> failure = pickle.loads(pickle.dumps(Failure(ValueError("x"))))
    >>> failure.raise_error()
    Traceback (most recent call last):
    ValueError: x
    """

    def __init__(self, error: Exception) -> None:
        cause = error.__cause__
        self.traceback = "".join(traceback.format_exception(cause or error))
        self.error = _portable(error)
        self.cause = None if cause is None else _portable(cause)

    def raise_error(self) -> NoReturn:
        """Raise the error, from its cause, which has the worker's traceback."""
        if self.cause is None:
            raise self.error from _WorkerTraceback(self.traceback)
        self.cause.__cause__ = _WorkerTraceback(self.traceback)
        raise self.error from self.cause


def _portable(error: BaseException) -> BaseException:
    """The error without its causes, or one with its text if pickle cannot write and read it.

    Pickle leaves the causes out, unless tblib, which Dask imports, has taught it to keep them.
    """
    error.__cause__ = None
    error.__context__ = None
    error.__traceback__ = None
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def value_or_failure(read: Callable[[], Any]) -> Any:
    """The value of a function; in a worker process an error is returned as a `Failure`.

    >>> value_or_failure(lambda: 1)
    1
    """
    if get_worker_info() is None:
        return read()
    try:
        return read()
    except Exception as error:
        return Failure(error)


def as_it_is(item: Any) -> Any:
    """The item: torch's DataLoader would make tensors of numpy's arrays.

    >>> as_it_is([1])
    [1]
    """
    return item


# --- the stream -----------------------------------------------------------------------------------


class WorkerStream(Iterator[Any]):
    """What a DataLoader reads, with errors of its worker processes in our words.

    Arguments:
        loader: The DataLoader, whose dataset uses `value_or_failure`.
        name: Name of the data, for messages.

    >>> list(WorkerStream(DataLoader([1, 2], batch_size=None), "x"))
    [1, 2]
    """

    def __init__(self, loader: DataLoader[Any], name: str) -> None:
        self._name = name
        self._items = iter(loader)
        self._workers = workers_of_loader(self._items)

    def __next__(self) -> Any:
        """The next item.

        Raises:
            LostWorkerError: A worker process has ended.
        """
        try:
            item = next(self._items)
        except StopIteration:
            raise
        except Exception as error:  # a connection to a process that is just ending has others
            self._raise_if_lost(error, self._ended())
            raise
        if isinstance(item, Failure):
            item.raise_error()
        return item

    def close(self) -> None:
        """End the worker processes."""
        end_workers_of_loader(self._items)

    @contextmanager
    def lost_workers_explained(self) -> Iterator[None]:
        """Raise LostWorkerError inside the block where torch says that a worker has ended."""
        try:
            yield
        except RuntimeError as error:
            self.explain_if_lost(error)
            raise

    def explain_if_lost(self, error: RuntimeError) -> None:
        """Raise LostWorkerError if an error is torch's about one of these worker processes.

        Torch raises it wherever the main thread is when the process ends.
        """
        found = re.match(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)", str(error))
        if found is None:
            return
        named = {int(number) for number in found.group(1).split(",")}
        self._raise_if_lost(error, [worker for worker in self._ended() if worker.pid in named])

    def _raise_if_lost(self, error: Exception, ended: list[BaseProcess]) -> None:
        if not ended:
            return
        self.close()  # or torch would raise again when another process ends
        raise LostWorkerError(_how_it_ended(ended[0], self._name)) from error

    def _ended(self) -> list[BaseProcess]:
        """Worker processes that have ended, or are just ending."""
        for _ in range(2):
            with suppress(RuntimeError):  # of torch, when SIGCHLD arrives; it raises once
                wait([worker.sentinel for worker in self._workers], SECONDS_TO_END)
                break
        return [worker for worker in self._workers if _has_ended(worker)]


def _has_ended(worker: BaseProcess) -> bool:
    for _ in range(2):
        with suppress(RuntimeError):
            is_ending = bool(wait([worker.sentinel], 0))
            worker.join(SECONDS_TO_END if is_ending else 0)
    return worker.exitcode is not None


def _how_it_ended(worker: BaseProcess, name: str) -> str:
    return (
        f"workers: a process that reads {name} {_how_ended(worker)}; with workers=0 this process "
        "reads, and shows where; fewer workers and smaller batches need less memory"
    )


def _how_ended(worker: BaseProcess) -> str:
    code = worker.exitcode
    assert code is not None, "it has ended"
    if code >= 0:
        return f"has ended with exit code {code}, without an error of Python"
    number = signal.Signals(-code)
    return f"was killed by {number.name}{LIKELY_REASONS.get(number, '')}"

"""One training run in several processes that `torchrun` has started.

Each process has the whole data and the whole model. In every step it evaluates its rows of the
batch, and the gradients are summed by one all-reduce of a flat tensor after the backward pass.
`DistributedDataParallel` is not used: its hooks expect one call of a module's `forward`. The loss
calls programs under Pyro's handlers, and networks more than once, some of them with other weights.
"""

from __future__ import annotations

import atexit
import math
import os
import signal
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from pyro_ssl.objectives.batch import Batch
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.training.random_state import rng_tensors
from pyro_ssl.utils.private_names import set_group_timeout

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Signals that ask a process to end."""

CONNECTION_TIME = timedelta(seconds=60)
"""Time limit for connecting the processes; torchrun restarts them after it."""
WAITING_TIME = timedelta(minutes=30)
"""Time limit for waiting for another process, such as for the callbacks of the first one."""


class LostProcessError(RuntimeError):
    """Another process of the run has ended or failed."""


class Processes:
    """All processes of a run, as one of them sees them.

    Arguments:
        rank: Number of this process, from 0.
        size: Number of processes.

    Attributes:
        signal: Signal that has asked this process to end; None if there is none.
        signal_of_any: Signal that had asked any process to end, as of the last step; the same in
            all processes.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size
        self.signal: int | None = None
        self.signal_of_any: int | None = None

    @classmethod
    def joined(cls, device: Any = None) -> Processes | None:
        """Join the processes that torchrun has started; return None if there is only one.

        If the program has made a process group itself, that group is used.

        Arguments:
            device: Device to train on, as in `fit`; with "cuda", each process has its own GPU.
        """
        if not dist.is_available():
            return None
        if not dist.is_initialized():
            if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
                return None
            _connect()
            set_group_timeout(WAITING_TIME)
            atexit.register(_leave)
        if dist.get_world_size() == 1:
            return None
        if device is not None and str(device) == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_first(self) -> bool:
        """True in the process that writes files and prints messages."""
        return self.rank == 0

    # --- agreement ----------------------------------------------------------------------------

    def gathered(self, value: T) -> list[T]:
        """Return the values of all processes, in the order of their ranks."""
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """Run the block in all processes; if it fails in one, raise in all of them.

        Raises:
            LostProcessError: The block has failed in another process, but not in this one.
        """
        error: Exception | None = None
        try:
            yield
        except LostProcessError:
            raise
        except Exception as caught:
            error = caught
        messages = self.gathered(None if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        for rank, message in enumerate(messages):
            if message is not None:
                raise LostProcessError(f"process {rank}: {message}")

    def from_first(self, function: Callable[[], T]) -> T:
        """Call a function in the first process only, and return its result in all processes.

        Raises:
            Exception: The function has raised it in the first process.
        """
        outcome: list[Any] = [None, None]
        if self.is_first:
            try:
                outcome[0] = function()
            except Exception as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0)
        value, failure = outcome
        if failure is not None:
            raise failure
        result: T = value
        return result

    def check_same(self, data: Mapping[str, Any]) -> None:
        """Raise ValueError in all processes unless they all have equal data.

        Arguments:
            data: Plain data by name.
        """
        gathered = self.gathered(dict(data))
        first = gathered[0]
        for rank, other in enumerate(gathered):
            for name in [*first, *other]:
                if other.get(name) != first.get(name):
                    raise ValueError(
                        f"{name}: process 0 has {first.get(name)}, and process {rank} has "
                        f"{other.get(name)}; give the same data, settings and seed in all "
                        "processes of a run (data are compared by their checksums)"
                    )

    def check_close(self, name: str, value: float) -> None:
        """Raise ValueError in all processes unless they all have the same number, up to rounding.

        Arguments:
            name: Name of the number, for the message.
            value: The number in this process.
        """
        values = self.gathered(value)
        for rank, other in enumerate(values):
            if not math.isclose(other, values[0], rel_tol=1e-5):
                raise ValueError(
                    f"{name}: process 0 has {values[0]:.6g}, and process {rank} has {other:.6g}; "
                    "build the same objective, with the same options and terms, in all processes "
                    "of a run"
                )

    def share_weights(self, module: nn.Module) -> None:
        """Copy the weights of the first process to all others.

        Raises:
            ValueError: Their weights have other names, shapes or dtypes.
        """
        state = module.state_dict()
        self.check_same(
            {
                f"objective.{name}": f"{tuple(value.shape)} {value.dtype}"
                for name, value in state.items()
            }
        )
        for value in state.values():
            dist.broadcast(value, src=0)

    def check_in_step(self, module: nn.Module) -> None:
        """Raise RuntimeError unless weights and random states are equal in all processes."""
        weights = [float(value.double().sum()) for value in module.state_dict().values()]
        states = [zlib.crc32(state.numpy().data) for state in rng_tensors().values()]
        gathered = self.gathered((weights, states[:1]))
        first = gathered[0]
        for rank, other in enumerate(gathered):
            if other != first:
                difference = "weights" if other[0] != first[0] else "random numbers"
                raise RuntimeError(
                    f"processes 0 and {rank} have different {difference}: a program, term or "
                    "transform draws random numbers or changes weights in a way that depends on "
                    "the process; train in one process, without torchrun"
                )

    # --- a step -------------------------------------------------------------------------------

    def part(self, batch: Batch) -> Batch:
        """Return the rows of a batch that this process evaluates."""
        return batch.part(self.rank, self.size)

    def sum_gradients(self, parameters: Iterable[nn.Parameter], values: Tensor) -> Tensor:
        """Sum gradients over the processes, in place, and return the sums of further values.

        A parameter that has no gradient in any process keeps none.

        Arguments:
            parameters: The parameters, in the same order in all processes.
            values: Further numbers to sum, `(n,)`.
        """
        parameters = list(parameters)
        signals = [float(self.signal == number) for number in SIGNALS]
        has_gradient = [float(p.grad is not None) for p in parameters]
        flat = [values, values.new_tensor(signals), values.new_tensor(has_gradient)]
        for p in parameters:
            gradient = torch.zeros_like(p) if p.grad is None else p.grad
            flat.append(gradient.detach().flatten())
        bucket = torch.cat(flat)
        dist.all_reduce(bucket)
        total, received, counts, *gradients = bucket.split([len(part) for part in flat])
        for p, count, gradient in zip(parameters, counts.tolist(), gradients, strict=True):
            if count:  # in the parameter's layout, as a fused step expects
                p.grad = torch.empty_like(p).copy_(gradient.view_as(p))
        self.signal_of_any = _signal_of(received.tolist())
        return total


def _connect() -> None:
    """Connect the processes that torchrun has started.

    After a restart, torchrun keeps its store. The store still has the addresses of the earlier
    processes, and gloo cannot connect to those. On one machine, the addresses of each restart
    therefore have their own prefix. On several machines this is impossible, since each machine
    counts its own restarts; there, TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 makes torchrun start a new
    store.
    """
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    is_one_machine = os.environ.get("GROUP_WORLD_SIZE") == "1"
    if restarts == "0" or not is_one_machine:
        dist.init_process_group(timeout=CONNECTION_TIME)
        return
    address = os.environ["MASTER_ADDR"]
    port = int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(  # type: ignore[attr-defined]
        address, port, is_master=False, timeout=CONNECTION_TIME
    )
    prefix = f"restart {restarts}"
    dist.init_process_group(
        store=dist.PrefixStore(prefix, store),  # type: ignore[attr-defined]
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=CONNECTION_TIME,
    )


def _signal_of(counts: list[float]) -> int | None:
    for number, count in zip(SIGNALS, counts, strict=True):
        if count:
            return int(number)
    return None


def is_first() -> bool:
    """Return True in the process that prints messages: the only one, or the first of torchrun's.

    >>> is_first()
    True
    """
    return int(os.environ.get("RANK", "0")) == 0


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def from_first(processes: Processes | None, function: Callable[[], T]) -> T:
    """Call a function in the first process, return its result in all: `Processes.from_first`."""
    if processes is None:
        return function()
    return processes.from_first(function)


@contextmanager
def connection_errors_explained(processes: Processes | None) -> Iterator[None]:
    """Raise LostProcessError if torch reports a lost connection inside the block."""
    try:
        yield
    except RuntimeError as error:
        is_ours = isinstance(error, LostProcessError)
        if processes is None or is_ours or not _is_connection_error(error):
            raise
        raise _lost(error) from error


def _is_connection_error(error: RuntimeError) -> bool:
    if isinstance(error, dist.DistError):
        return True
    return any(word in str(error) for word in ("gloo", "NCCL", "Connection closed", "Timed out"))


def _lost(error: Exception) -> LostProcessError:
    reason = str(error).splitlines()[0]
    return LostProcessError(
        "another process of the run has ended or does not answer; torchrun --max-restarts "
        f"continues from the last checkpoint ({reason})"
    )


def check_divisible(objective: Objective) -> None:
    """Raise ValueError if a batch of the objective cannot be divided between processes.

    Arguments:
        objective: The objective to train.
    """
    way_out = "train in one process, without torchrun"
    if objective.model is not None and not objective.has_bound_per_datum:
        raise ValueError(
            f"elbo: a {type(objective.elbo).__name__} has no bound per datum, so its loss cannot "
            f"be divided between processes; use a TraceTopKEnum_ELBO, or {way_out}"
        )
    for term in objective.terms:
        if not getattr(term, "divisible", False):
            name = type(term).__name__
            raise ValueError(
                f"{name}: with several processes, each evaluates only its part of the batch; set "
                "divisible = True in the class if its formula is right for a part (see Term), or "
                f"{way_out}"
            )

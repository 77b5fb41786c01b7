"""One training run in several processes, as `torchrun` starts them.

Each process has the whole data and the whole model. In every step it evaluates its rows of the
batch, and the gradients are summed by one all-reduce of a flat tensor after the backward pass.
`DistributedDataParallel` would sum them by hooks that fire as it leaves a module's `forward`; the
loss calls programs under handlers, networks more than once and some with other weights, so which
hooks fire is not certain, and a sum after the backward pass is.
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
"""Longest time to connect the processes; torchrun restarts them after it."""
WAITING_TIME = timedelta(minutes=30)
"""Longest time that a process waits for the others, such as for the first one's callbacks."""


class LostProcessError(RuntimeError):
    """Another process of the run has ended or failed."""


class Processes:
    """The processes of a run, of which this is one.

    Arguments:
        rank: This process, from 0.
        size: Their number.

    Attributes:
        signal: The signal that this process has received, by which it is asked to end.
        signal_of_any: That of any process, as all knew at the end of the last step.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size
        self.signal: int | None = None
        self.signal_of_any: int | None = None

    @classmethod
    def joined(cls, device: Any = None) -> Processes | None:
        """Join the processes that torchrun has started; None if this is the only one.

        A process group that the program has made itself is used as it is.

        Arguments:
            device: The device to train on, as `fit` has it; "cuda" becomes one GPU a process.
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
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    # --- agreement ----------------------------------------------------------------------------

    def gathered(self, value: T) -> list[T]:
        """The values of all processes, in their order."""
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """End the block in all processes, or raise in all of them if it fails in one.

        Raises:
            LostProcessError: It has failed in another process, and not in this one.
        """
        error: Exception | None = None
        try:
            yield
        except LostProcessError:
            raise
        except Exception as caught:
            error = caught
        told = self.gathered(None if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        for rank, message in enumerate(told):
            if message is not None:
                raise LostProcessError(f"process {rank}: {message}")

    def from_first(self, function: Callable[[], T]) -> T:
        """What a function returns in the first process, for all; the others do not call it.

        Raises:
            Exception: The function has raised it, in the first process.
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
        """Raise ValueError, in all processes, unless all have equal data.

        Arguments:
            data: Plain data by name.
        """
        told = self.gathered(dict(data))
        for rank, other in enumerate(told):
            for name in [*told[0], *other]:
                if other.get(name) != told[0].get(name):
                    raise ValueError(
                        f"{name}: process 0 has {told[0].get(name)}, and process {rank} has "
                        f"{other.get(name)}; give the same data, settings and seed in all "
                        "processes of a run (data are compared by their checksums)"
                    )

    def check_close(self, name: str, value: float) -> None:
        """Raise ValueError, in all processes, unless all have the same number up to rounding.

        Arguments:
            name: Name of the number, for the message.
            value: The number in this process.
        """
        told = self.gathered(value)
        for rank, other in enumerate(told):
            if not math.isclose(other, told[0], rel_tol=1e-5):
                raise ValueError(
                    f"{name}: process 0 has {told[0]:.6g}, and process {rank} has {other:.6g}; "
                    "build the same objective, with the same options and terms, in all processes "
                    "of a run"
                )

    def share_weights(self, module: nn.Module) -> None:
        """Give all processes the weights of the first one.

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
        told = self.gathered((weights, states[:1]))
        for rank, other in enumerate(told):
            if other != told[0]:
                what = "weights" if other[0] != told[0][0] else "random numbers"
                raise RuntimeError(
                    f"process {rank} has other {what} than process 0: a program, term or transform "
                    "draws random numbers, or changes weights, that depend on the process; train "
                    "in one process, without torchrun"
                )

    # --- a step -------------------------------------------------------------------------------

    def part(self, batch: Batch) -> Batch:
        """The rows of this process."""
        return batch.part(self.rank, self.size)

    def sum_gradients(self, parameters: Iterable[nn.Parameter], values: Tensor) -> Tensor:
        """Sum the gradients over the processes, in place, and further values with them.

        A parameter without a gradient in every process stays without one.

        Arguments:
            parameters: The parameters, in the same order in all processes.
            values: Further numbers, `(n,)`.
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

    torchrun keeps its store over a restart, and with it the addresses of the processes before, to
    which gloo then connects in vain. On one machine the addresses get a prefix of their own after
    each restart. On several, the counts of restarts differ between machines, and
    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 makes torchrun start a new store.
    """
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    is_one_machine = os.environ.get("GROUP_WORLD_SIZE") == "1"
    if restarts == "0" or not is_one_machine:
        dist.init_process_group(timeout=CONNECTION_TIME)
        return
    address = os.environ["MASTER_ADDR"]
    port = int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, is_master=False, timeout=CONNECTION_TIME)
    dist.init_process_group(
        store=dist.PrefixStore(f"restart {restarts}", store),
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
    """Whether this process speaks to the user: the only one, or the first that torchrun started.

    >>> is_first()
    True
    """
    return int(os.environ.get("RANK", "0")) == 0


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def from_first(processes: Processes | None, function: Callable[[], T]) -> T:
    """What a function returns in the first process, for all; see `Processes.from_first`."""
    if processes is None:
        return function()
    return processes.from_first(function)


@contextmanager
def lost_processes_told(processes: Processes | None) -> Iterator[None]:
    """Raise LostProcessError inside the block where torch says that a connection is lost."""
    try:
        yield
    except RuntimeError as error:
        is_ours = isinstance(error, LostProcessError)
        if processes is None or is_ours or not _is_of_connection(error):
            raise
        raise _lost(error) from error


def _is_of_connection(error: RuntimeError) -> bool:
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
    """Raise ValueError unless several processes can each evaluate a part of a batch.

    Arguments:
        objective: What to train.
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
                f"{name}: in several processes each has a part of the batch; set divisible = True "
                f"in the class if its formula is right for a part, see Term, or {way_out}"
            )

"""State of torch's global random generators, and of buffers beside it, saved and restored."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pyro_ssl.training.packed_state import check_tensors
from pyro_ssl.utils.files import CheckpointError


def rng_tensors() -> dict[str, Tensor]:
    """States of torch's global generators, by device.

    >>> rng_tensors()["rng/cpu"].dtype
    torch.uint8
    """
    states = {"rng/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        for i, state in enumerate(torch.cuda.get_rng_state_all()):
            states[f"rng/cuda/{i}"] = state
    return states


def set_rng(tensors: Mapping[str, Tensor]) -> None:
    """Restore the states of `rng_tensors`.

    >>> before = rng_tensors()
    >>> first = torch.rand(())
    >>> set_rng(before)
    >>> bool(torch.rand(()) == first)
    True

    Raises:
        CheckpointError: They are not states of such generators.
    """
    cpu = "rng/cpu"
    if cpu not in tensors:
        raise CheckpointError("the random state is missing")
    check_tensors({cpu: tensors[cpu]}, {cpu: torch.get_rng_state()}, "the random state")
    try:
        torch.set_rng_state(tensors[cpu])
        for name in sorted(tensors.keys() - {cpu}):
            place = name.removeprefix("rng/cuda/")
            if not (place.isascii() and place.isdigit()):
                raise CheckpointError(f"{name!r:.80} is not a random state")
            if int(place) < torch.cuda.device_count():
                torch.cuda.set_rng_state(tensors[name], int(place))
    except (RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"the random state cannot be restored: {error}") from None


class StepStart:
    """Random state and buffers at the start of a step, so that the step can be made again.

    Arguments:
        module: The module with the buffers.

    >>> norm = torch.nn.BatchNorm1d(2)
    >>> start = StepStart(norm)
    >>> first = norm(torch.randn(3, 2))
    >>> start.restore()
    >>> int(norm.num_batches_tracked), torch.equal(norm(torch.randn(3, 2)), first)
    (0, True)
    """

    def __init__(self, module: nn.Module) -> None:
        self._buffers = [
            (part, name, buffer, buffer.clone())
            for part in module.modules()
            for name, buffer in part.named_buffers(recurse=False)
        ]
        self._random_state = rng_tensors()

    def restore(self) -> None:
        """Set random state and buffers to what they were."""
        set_rng(self._random_state)
        for part, name, buffer, value in self._buffers:
            buffer.copy_(value)
            setattr(part, name, buffer)  # a program may have put another tensor in its place

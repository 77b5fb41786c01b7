"""Evaluation of a whole data set: chunk by chunk, in eval mode, with a fixed seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_ssl.data.sources import InputRows, PixelSource, Source, as_source
from pyro_ssl.distributions.row_noise import RowNoise
from pyro_ssl.infer.checks.pair import q_y_of
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.utils.arguments import as_input, as_stored, check_event_shape, placed
from pyro_ssl.utils.context import eval_mode, fixed_seed, validation_disabled

AT_ONCE = 2**15
"""Evaluations of p(x|.) at once, rows times classes times samples: 1 GB at 784 pixels."""
PIXELS = 784
"""Size of a datum that `AT_ONCE` is meant for; of larger ones fewer are evaluated at once."""


def chunked(
    objective: Objective,
    function: Callable[..., Tensor],
    chunk: int,
    seed: int,
    x: Any,
    *others: Tensor,
) -> Tensor:
    """Apply a function to the rows of x and others, chunk by chunk: `(N, *)` on the CPU.

    The objective is in eval mode, without gradients. Samples for a row are seeded by the values of
    the row, see `RowNoise`; samples that all rows share are the same in each chunk. The global
    random state does not change.

    Arguments:
        objective: The method, whose device and dtype the function's arguments get.
        function: A function of rows `(B, *event)` of x and of each of the others.
        chunk: Rows at once.
        seed: Seed of the samples.
        x: Data `(N, *event)`; a tensor is taken as it is, anything else goes through `input_rows`.
        others: Further tensors of N rows.

    >>> from pyro_ssl import zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> chunked(m2, lambda x: m2.classify(x).mean, 2, 0, torch.zeros(5, 4)).shape
    torch.Size([5, 3])
    """
    like = next(objective.parameters())
    data = [x if isinstance(x, Tensor) else input_rows(objective, x), *others]
    results: Tensor | None = None
    start = 0
    with eval_mode(objective), validation_disabled():
        for rows, *rest in zip(*(part.split(chunk) for part in data), strict=True):
            with fixed_seed(seed), RowNoise(rows, seed):
                result = function(placed(rows, like), *(part.to(like) for part in rest))
            if results is None:  # small tensors between large ones would fragment the memory
                results = torch.empty((len(data[0]), *result.shape[1:]), dtype=result.dtype)
            results[start : start + len(rows)] = result
            start += len(rows)
    assert results is not None, "there is at least one row"
    return results


def input_rows(objective: Objective, x: Any, name: str = "x") -> Tensor | InputRows:
    """Data as a method takes them; those of a memory map or a torch Dataset are read in chunks.

    Pixels of uint8 become numbers in chunks.

    Arguments:
        objective: The method.
        x: Data `(N, *event)`; labels in the items of a Dataset are ignored.
        name: Name of the argument, for messages.

    >>> from pyro_ssl import zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> input_rows(m2, [[0, 1, 2, 3]]).dtype
    torch.float32
    """
    if isinstance(x, InputRows):
        return x
    source = as_source(x, name)
    if isinstance(source, Source):
        return InputRows(source, objective)
    data = as_stored(objective, x, name)
    if data.dtype == torch.uint8:
        return InputRows(PixelSource(data, name), objective)
    return data


def rows_at_once(x: Tensor | InputRows, times: int) -> int:
    """Number of rows to evaluate at once when each is evaluated `times` times; fewer of large x.

    >>> rows_at_once(torch.zeros(1, 784), times=10)
    3276
    """
    evaluations = min(AT_ONCE, AT_ONCE * PIXELS // x[0].numel())
    return max(1, evaluations // times)


def as_known(objective: Objective, x: Any, name: str = "x") -> Tensor:
    """Convert data to a tensor, and check that shape and units are those of the training data.

    Arguments:
        objective: The method.
        x: Data `(N, *event)`; see `as_input` for the conversion.
        name: Name of the argument, for messages.

    Raises:
        ValueError: They have another shape, or are in other units; see `Extent`.

    >>> from pyro_ssl import zoo
    >>> as_known(zoo.build("m2", (2,), 3, hidden=(8,)), [[0.0, 1.0]]).shape
    torch.Size([1, 2])
    """
    data = as_input(objective, x, name)
    if objective.extent is not None:
        objective.extent.check(data, name)
    return data


def known_rows(objective: Objective, x: Any, name: str = "x") -> Tensor | InputRows:
    """`as_known` of data that may be read in chunks: up to 1000 of their rows are looked at.

    Arguments:
        objective: The method.
        x: The data, see `input_rows`.
        name: Name of the argument, for messages.

    Raises:
        ValueError: See `as_known`.
    """
    rows = input_rows(objective, x, name)
    extent = objective.extent
    if extent is None:
        return rows
    if isinstance(rows, Tensor):
        extent.check(rows, name)
    else:
        check_event_shape(rows, extent.shape, name)
        extent.check(rows[rows.source.sampled()], name)
    return rows


def label_of(objective: Objective, x: Any) -> Any:
    """q(y|x) of the first datum, which shows whether y is one-hot or real, and its size.

    >>> from pyro_ssl import zoo
    >>> label_of(zoo.build("m2", (2,), 3, hidden=(8,)), torch.zeros(5, 2)).event_shape
    torch.Size([3])
    """
    like = next(objective.parameters())
    source = as_source(x)
    rows = InputRows(source, objective) if isinstance(source, Source) else x
    first = rows[:1] if isinstance(rows, InputRows) else as_input(objective, rows[:1])
    with eval_mode(objective), fixed_seed(0):
        return q_y_of(objective.guide, objective.encode(placed(first, like)))

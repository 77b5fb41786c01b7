"""Evaluation of a whole data set: chunk by chunk, in eval mode, with a fixed seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_ssl.distributions.row_noise import RowNoise
from pyro_ssl.infer.checks.pair import q_y_of
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.utils.arguments import as_input, placed
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
        x: Data `(N, *event)`; a tensor is taken as it is, anything else goes through `as_input`.
        others: Further tensors of N rows.

    >>> from pyro_ssl import zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> chunked(m2, lambda x: m2.classify(x).mean, 2, 0, torch.zeros(5, 4)).shape
    torch.Size([5, 3])
    """
    like = next(objective.parameters())
    data = [x if isinstance(x, Tensor) else as_input(objective, x), *others]
    results: list[Tensor] = []
    with eval_mode(objective), validation_disabled():
        for rows, *rest in zip(*(part.split(chunk) for part in data), strict=True):
            with fixed_seed(seed), RowNoise(rows, seed):
                result = function(placed(rows, like), *(part.to(like) for part in rest))
                results.append(result.cpu())
        return torch.cat(results)


def rows_at_once(x: Tensor, times: int) -> int:
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


def label_of(objective: Objective, x: Any) -> Any:
    """q(y|x) of the first datum, which shows whether y is one-hot or real, and its size.

    >>> from pyro_ssl import zoo
    >>> label_of(zoo.build("m2", (2,), 3, hidden=(8,)), torch.zeros(5, 2)).event_shape
    torch.Size([3])
    """
    like = next(objective.parameters())
    first = placed(as_input(objective, x[:1]), like)
    with eval_mode(objective), fixed_seed(0):
        return q_y_of(objective.guide, objective.encode(first))

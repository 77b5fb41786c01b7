"""Class probabilities of a data set."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_ssl.data.sources import InputRows
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.prediction import chunks
from pyro_ssl.prediction.chunks import chunked, input_rows, known_rows
from pyro_ssl.utils.arguments import check_positive

MOST_ROWS = 4096
MOST_NUMBERS = 2**19
"""Largest number of values classified at once: hidden layers may be hundreds of times wider."""


def predict_proba(
    objective: Objective, x: Any, *, chunk: int | None = None, seed: int = 0
) -> Tensor:
    """Predict p(y|x) of each datum, `(N, K)` on the CPU, by the objective's predictor.

    Arguments:
        objective: The method.
        x: Data `(N, *event)`; a memory map or a torch Dataset is read chunk by chunk.
        chunk: Rows at once; by default 4096, or fewer if each is large or has several Gibbs chains.
        seed: Seed of the samples.

    Raises:
        ValueError: chunk is not above 0; y is real; x has another shape or other units than the
            training data.

    >>> import torch
    >>> from pyro_ssl import zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> predict_proba(m2, torch.zeros(5, 4)).shape
    torch.Size([5, 3])
    """
    return _predict(objective, known_rows(objective, x), chunk, seed)


def probs_of_any(
    objective: Objective, x: Any, *, chunk: int | None = None, seed: int = 0
) -> Tensor:
    """Compute `predict_proba` without checking the units of x, such as after an attack.

    >>> import torch
    >>> from pyro_ssl import zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> probs_of_any(m2, torch.full((5, 4), 100.0)).shape
    torch.Size([5, 3])
    """
    return _predict(objective, input_rows(objective, x), chunk, seed)


def classified_at_once(objective: Objective, x: Tensor | InputRows) -> int:
    """Number of rows of x to classify at once.

    >>> import torch
    >>> from pyro_ssl import zoo
    >>> classified_at_once(zoo.build("m2", (2048,), 3, hidden=(8,)), torch.zeros(1, 2048))
    256
    """
    by_chains = chunks.AT_ONCE // objective.predictor.chains
    by_size = MOST_NUMBERS // x[0].numel()
    return max(1, min(MOST_ROWS, by_chains, by_size))


def _predict(objective: Objective, x: Tensor | InputRows, chunk: int | None, seed: int) -> Tensor:
    if chunk is None:
        chunk = classified_at_once(objective, x)
    check_positive(chunk=chunk)

    def probabilities(x: Tensor) -> Tensor:
        p = objective.classify(x)
        if not p.has_enumerate_support:
            raise ValueError(
                "objective: its y is real and has no class probabilities; "
                "pyro_ssl.gibbs gives mean and variance"
            )
        return p.mean

    return chunked(objective, probabilities, chunk, seed, x)

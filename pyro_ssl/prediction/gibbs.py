"""Gibbs sampling for a data set: applies `infer.gibbs_chain` to it in chunks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_ssl.infer.gibbs_chain import Gibbs
from pyro_ssl.infer.gibbs_chain import gibbs as gibbs_of_batch
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.objectives.predictors import GibbsPredictor
from pyro_ssl.prediction.chunks import chunked, known_rows, rows_at_once
from pyro_ssl.utils.arguments import check_positive


def gibbs(
    objective: Objective,
    x: Any,
    *,
    steps: int = 10,
    chains: int = 1,
    hard: bool = False,
    chunk: int | None = None,
    seed: int = 0,
) -> Gibbs:
    """Sample p(y|x) and the latent; see `pyro_ssl.infer.gibbs_chain.gibbs` for the formulas.

    Arguments:
        objective: A method whose model predicts, such as `sslpe`.
        x: Data `(N, *event)`.
        steps: Steps T of each chain.
        chains: Independent chains of each datum, averaged; random weights are sampled anew in each
            step of each chain.
        hard: Average the sampled labels instead of their probabilities.
        chunk: Rows at once; by default as many as fit into about 1 GB.
        seed: Seed of the chains.

    Returns:
        `Gibbs(mean, variance, z)`, of y and of the latent, `(N, K)` and `(N, Z)`, on the CPU.

    Raises:
        ValueError: The method's model does not predict; steps, chains or chunk is not above 0.

    >>> from pyro_ssl import zoo
    >>> sslpe = zoo.build("sslpe", (4,), 3, hidden=(8,), z_dim=2)
    >>> sampled = gibbs(sslpe, torch.zeros(5, 4), steps=3, chains=2)
    >>> sampled.mean.shape, sampled.z.shape
    (torch.Size([5, 3]), torch.Size([5, 2]))
    """
    check_positive(steps=steps, chains=chains)
    x = known_rows(objective, x)
    if chunk is None:
        chunk = rows_at_once(x, chains)
    check_positive(chunk=chunk)
    sizes: list[int] = []

    def joined(batch: Tensor) -> Tensor:
        sampled = gibbs_of_batch(
            objective.model,
            objective.guide,
            objective.encode(batch),
            steps=steps,
            chains=chains,
            hard=hard,
        )
        sizes[:] = [part.shape[-1] for part in sampled]
        return torch.cat(sampled, -1)

    values = chunked(objective, joined, chunk, seed, x)
    return Gibbs(*values.split(sizes, -1))


def predict_real(objective: Objective, x: Any, *, seed: int = 0) -> Gibbs:
    """Predict a real label: mean and variance over the method's Gibbs chains, four or more.

    Arguments:
        objective: A method of real labels, such as `sslpe` with `regression=True`.
        x: Data `(N, *event)`.
        seed: Seed of the chains.

    Raises:
        ValueError: See `gibbs`.

    >>> from pyro_ssl import zoo
    >>> sslpe = zoo.build("sslpe", (4,), 1, regression=True, hidden=(8,), z_dim=2)
    >>> predict_real(sslpe, torch.zeros(5, 4)).variance.shape
    torch.Size([5, 1])
    """
    predictor = objective.predictor
    assert isinstance(predictor, GibbsPredictor)  # the zoo refuses a real y without one
    chains = max(4, predictor.chains)
    return gibbs(objective, x, steps=predictor.steps, chains=chains, hard=predictor.hard, seed=seed)

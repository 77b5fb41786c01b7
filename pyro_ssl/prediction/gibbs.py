"""Gibbs sampling for a data set: applies `infer.gibbs_chain` to it in chunks."""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor

from pyro_ssl.data.sources import InputRows
from pyro_ssl.infer.gibbs_chain import Gibbs, check_burn_in, draw_chains
from pyro_ssl.infer.gibbs_chain import gibbs as gibbs_of_batch
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.objectives.predictors import GibbsPredictor
from pyro_ssl.prediction.chunks import chunked, known_rows, rows_at_once
from pyro_ssl.prediction.gibbs_samples import GibbsSamples
from pyro_ssl.utils.arguments import check_positive


@overload
def gibbs(
    objective: Objective,
    x: Any,
    *,
    steps: int = ...,
    chains: int = ...,
    hard: bool = ...,
    burn_in: int = ...,
    return_samples: Literal[False] = ...,
    chunk: int | None = ...,
    seed: int = ...,
) -> Gibbs: ...


@overload
def gibbs(
    objective: Objective,
    x: Any,
    *,
    steps: int = ...,
    chains: int = ...,
    hard: bool = ...,
    burn_in: int = ...,
    return_samples: Literal[True],
    thin: int = ...,
    keep_weights: bool = ...,
    chunk: int | None = ...,
    seed: int = ...,
) -> GibbsSamples: ...


def gibbs(
    objective: Objective,
    x: Any,
    *,
    steps: int = 10,
    chains: int = 1,
    hard: bool = False,
    burn_in: int = 0,
    return_samples: bool = False,
    thin: int = 1,
    keep_weights: bool = True,
    chunk: int | None = None,
    seed: int = 0,
) -> Gibbs | GibbsSamples:
    """Sample p(y|x) and the latent; see `pyro_ssl.infer.gibbs_chain.gibbs` for the formulas.

    The draws of a row depend only on its values and the seed, so `gibbs(objective, x[rows],
    return_samples=True)` gives the draws of some rows. Draws of N rows take
    `4 * chains * (steps - burn_in) / thin * (N * (2 * K + Z) + P)` bytes in float32, for K classes,
    a latent of size Z and P random weights; twice that while they are computed.

    Arguments:
        objective: A method whose model predicts, such as `sslpe`.
        x: Data `(N, *event)`.
        steps: Steps T of each chain.
        chains: Independent chains of each datum, averaged; random weights are sampled anew in each
            step of each chain.
        hard: Average the sampled labels instead of their probabilities.
        burn_in: First steps to leave out.
        return_samples: Return the draws, not their moments.
        thin: Return the draws of one of every `thin` steps.
        keep_weights: Return the draws of the random weights, too, if there are any.
        chunk: Rows at once; by default as many as fit into about 1 GB.
        seed: Seed of the chains.

    Returns:
        `Gibbs(mean, variance, z)`, of y and of the latent, `(N, K)` and `(N, Z)`, on the CPU; or
        `GibbsSamples`, the draws `(chains, draws, N, *)` on the CPU.

    Raises:
        ValueError: The method's model does not predict; steps, chains, thin or chunk is not
            above 0; burn_in is not below steps; hard with return_samples, or thin or keep_weights
            without it.

    >>> from pyro_ssl import zoo
    >>> sslpe = zoo.build("sslpe", (4,), 3, hidden=(8,), z_dim=2)
    >>> sampled = gibbs(sslpe, torch.zeros(5, 4), steps=3, chains=2)
    >>> sampled.mean.shape, sampled.z.shape
    (torch.Size([5, 3]), torch.Size([5, 2]))
    >>> gibbs(sslpe, torch.zeros(5, 4), steps=8, chains=2, return_samples=True).y.shape
    torch.Size([2, 8, 5, 3])
    """
    check_positive(steps=steps, chains=chains, thin=thin)
    check_burn_in(burn_in, steps)
    _check_what_is_returned(return_samples, hard, thin, keep_weights)
    x = known_rows(objective, x)
    if chunk is None:
        chunk = rows_at_once(x, chains)
    check_positive(chunk=chunk)
    if return_samples:
        arguments = {"steps": steps, "chains": chains, "burn_in": burn_in, "thin": thin}
        return _samples(objective, x, chunk, seed, arguments | {"keep_weights": keep_weights})
    sizes: list[int] = []

    def joined(batch: Tensor) -> Tensor:
        sampled = gibbs_of_batch(
            objective.model,
            objective.guide,
            objective.encode(batch),
            steps=steps,
            chains=chains,
            hard=hard,
            burn_in=burn_in,
        )
        sizes[:] = [part.shape[-1] for part in sampled]
        return torch.cat(sampled, -1)

    values = chunked(objective, joined, chunk, seed, x)
    return Gibbs(*values.split(sizes, -1))


def _check_what_is_returned(
    return_samples: bool, hard: bool, thin: int, keep_weights: bool
) -> None:
    if return_samples and hard:
        raise ValueError(
            "hard: return_samples gives labels, y, and their probabilities, p_y; leave hard out"
        )
    if not return_samples and thin != 1:
        raise ValueError("thin is for draws; give return_samples=True, or leave it out")
    if not return_samples and not keep_weights:
        raise ValueError("keep_weights is for draws; give return_samples=True, or leave it out")


def _samples(
    objective: Objective, x: Tensor | InputRows, chunk: int, seed: int, arguments: dict[str, Any]
) -> GibbsSamples:
    """The draws of all chunks; those of the random weights are the same in each chunk."""
    sizes: list[int] = []
    weights: list[Tensor] = []

    def joined(batch: Tensor) -> Tensor:
        x = objective.encode(batch)
        draws = draw_chains(objective.model, objective.guide, x, **arguments)
        of_rows = (draws.p_y, draws.y, draws.z)
        sizes[:] = [part.shape[-1] for part in of_rows]
        if draws.w is not None and not weights:
            weights.append(draws.w.cpu())
        return torch.cat(of_rows, -1).movedim(2, 0)

    values = chunked(objective, joined, chunk, seed, x).movedim(0, 2)
    p_y, y, z = values.split(sizes, -1)
    return GibbsSamples(p_y, y, z, weights[0] if weights else None)


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

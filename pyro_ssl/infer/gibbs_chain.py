"""Prediction of one batch by Gibbs sampling, in a model with p(y|x,z)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_ssl.distributions.row_noise import draw
from pyro_ssl.types import Encoder, Predictor, WeightSampler, unwrapped
from pyro_ssl.utils.arguments import check_positive
from pyro_ssl.utils.context import exclusive


class Gibbs(NamedTuple):
    """Moments of y and z for each datum, estimated from its chains.

    Arguments:
        mean: E[y], `(B, K)`; for one-hot y, its probabilities.
        variance: Var[y], `(B, K)`: the variance of the mean of p(y|x,z) plus the mean of its
            variance.
        z: E[z], `(B, Z)`.

    >>> Gibbs(torch.zeros(5, 3), torch.ones(5, 3), torch.zeros(5, 2)).mean.shape
    torch.Size([5, 3])
    """

    mean: Tensor
    variance: Tensor
    z: Tensor


@torch.no_grad()
def gibbs(
    model: Any, guide: Any, x: Tensor, *, steps: int = 10, chains: int = 1, hard: bool = False
) -> Gibbs:
    r"""Estimate p(y|x) and E[z|x] for one batch; `pyro_ssl.gibbs` handles data of any size.

    .. math:: y^{(0)} \sim q(y|x); \quad
              W^{(t)} \sim q(W), \; z^{(t)} \sim q(z|x, y^{(t-1)}), \;
              y^{(t)} \sim p(y|x, z^{(t)}, W^{(t)}), \quad t = 1 .. T

    The estimate averages p(y|x, z, W) over steps and chains, which has less variance than an
    average of drawn labels. All chains run at once.

    Arguments:
        model: A `Predictor`. Each step and chain draws its own random weights.
        guide: Its guide, an `Encoder` with `classify(x)`.
        x: Data `(B, *event)`.
        steps: Number of steps T.
        chains: Number of independent chains for each datum.
        hard: Average the drawn labels instead of their probabilities, as in eq. 4.24.

    Raises:
        ValueError: The model has no `predict`, or the guide no `encode`; steps or chains is not
            above 0.

    References:
        Paper 002, eq. 4.23 and 4.24.

    >>> from pyro_ssl import zoo
    >>> sslpe = zoo.build("sslpe", (4,), 3, seed=0)
    >>> gibbs(sslpe.model, sslpe.guide, torch.randn(5, 4), steps=2, chains=3).mean.shape
    torch.Size([5, 3])
    """
    moments = run_chains(model, guide, x, steps=steps, chains=chains, hard=hard)
    mean, second, z = (moment.mean(0) for moment in moments)
    return Gibbs(mean, (second - mean.square()).clamp_min(0), z)


@exclusive()
@torch.no_grad()
def run_chains(
    model: Any,
    guide: Any,
    x: Tensor,
    *,
    steps: int = 10,
    chains: int = 1,
    hard: bool = False,
    weights: Tensor | None = None,
    skipped: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the chains of `gibbs`; return the means of y, y squared and z over each chain's steps.

    Each mean is `(chains, B, *)`, or `(S, chains, B, *)` for S draws of W in `weights`, with
    `chains` chains for each.

    Arguments:
        model: See `gibbs`.
        guide: See `gibbs`.
        x: Data `(B, *event)`.
        steps: Number of steps T.
        chains: Number of independent chains for each datum.
        hard: Average the drawn labels, not their probabilities.
        weights: Draws of W, `(S, 1, P)`, each kept for all steps; by default each step and chain
            draws its own W.
        skipped: Number of burn-in steps, which the means leave out.

    Raises:
        ValueError: See `gibbs`; skipped is not below steps.

    >>> from pyro_ssl import zoo
    >>> sslpe = zoo.build("sslpe", (4,), 3, hidden=(8,), z_dim=2)
    >>> y, y_squared, z = run_chains(sslpe.model, sslpe.guide, torch.randn(5, 4), steps=2, chains=6)
    >>> y.shape, z.shape
    (torch.Size([6, 5, 3]), torch.Size([6, 5, 2]))
    """
    check_positive(steps=steps, chains=chains)
    _check_pair(model, guide)
    if not 0 <= skipped < steps:
        raise ValueError(f"skipped should be in 0 .. {steps - 1}, below steps; got {skipped}")
    fixed = None if weights is None else weights.unsqueeze(1)  # the same for all chains
    lead = [chains] if fixed is None else [len(fixed), chains]
    y = draw(guide.classify(x), lead)
    sums: list[Tensor] = []
    for step in range(steps):
        z = draw(guide.encode(x, y))
        with _given_weights(model, guide, chains, fixed):
            p = model.predict(x, z)
        y = draw(p)
        if step < skipped:
            continue
        if hard:
            moments = [y, y.square(), z]
        else:
            moments = [p.mean, p.variance + p.mean.square(), z]
        if sums:
            sums = [total + moment for total, moment in zip(sums, moments, strict=True)]
        else:
            sums = moments
    mean, second, z = (total / (steps - skipped) for total in sums)
    return mean, second, z


def _check_pair(model: Any, guide: Any) -> None:
    if not isinstance(unwrapped(model), Predictor):
        raise ValueError(_lacks(unwrapped(model), "predict"))
    if not isinstance(unwrapped(guide), Encoder):
        raise ValueError(_lacks(unwrapped(guide), "encode"))


def _lacks(program: Any, method: str) -> str:
    return (
        "Gibbs sampling needs a model with predict(x, z) and a guide with encode(x, y), such as "
        f"sslpe's; {type(program).__name__} has no {method}"
    )


def _given_weights(
    model: Any, guide: Any, chains: int, fixed: Tensor | None
) -> AbstractContextManager[None]:
    """Give the model its random weights for one step, if it has any."""
    if fixed is not None:
        w = fixed
    elif isinstance(guide, WeightSampler):
        w = guide.draw_weights(chains)
    else:
        return nullcontext()
    block: AbstractContextManager[None] = model.given(w)
    return block

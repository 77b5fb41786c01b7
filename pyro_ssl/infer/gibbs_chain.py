"""Prediction of one batch by Gibbs sampling, in a model with p(y|x,z)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_ssl.distributions.row_noise import draw
from pyro_ssl.types import Encoder, Predictor, WeightSampler, unwrapped
from pyro_ssl.utils.arguments import check_positive, is_whole
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
    model: Any,
    guide: Any,
    x: Tensor,
    *,
    steps: int = 10,
    chains: int = 1,
    hard: bool = False,
    burn_in: int = 0,
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
        burn_in: Number of first steps, which the averages leave out.

    Raises:
        ValueError: The model has no `predict`, or the guide no `encode`; steps or chains is not
            above 0; burn_in is not below steps.

    References:
        Paper 002, eq. 4.23 and 4.24.

    >>> from pyro_ssl import zoo
    >>> sslpe = zoo.build("sslpe", (4,), 3, seed=0)
    >>> gibbs(sslpe.model, sslpe.guide, torch.randn(5, 4), steps=2, chains=3).mean.shape
    torch.Size([5, 3])
    """
    moments = run_chains(model, guide, x, steps=steps, chains=chains, hard=hard, burn_in=burn_in)
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
    burn_in: int = 0,
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
        burn_in: Number of first steps, which the means leave out.

    Raises:
        ValueError: See `gibbs`; burn_in is not below steps.

    >>> from pyro_ssl import zoo
    >>> sslpe = zoo.build("sslpe", (4,), 3, hidden=(8,), z_dim=2)
    >>> y, y_squared, z = run_chains(sslpe.model, sslpe.guide, torch.randn(5, 4), steps=2, chains=6)
    >>> y.shape, z.shape
    (torch.Size([6, 5, 3]), torch.Size([6, 5, 2]))
    """
    check_burn_in(burn_in, steps)
    sums: list[Tensor] = []
    for state in islice(_states(model, guide, x, steps, chains, weights), burn_in, None):
        if hard:
            moments = [state.y, state.y.square(), state.z]
        else:
            moments = [state.p.mean, state.p.variance + state.p.mean.square(), state.z]
        if sums:
            sums = [total + moment for total, moment in zip(sums, moments, strict=True)]
        else:
            sums = moments
    mean, second, z = (total / (steps - burn_in) for total in sums)
    return mean, second, z


class GibbsDraws(NamedTuple):
    """Draws of the chains for one batch.

    Arguments:
        p_y: The mean of p(y|x, z, W) at each draw of z and W, `(chains, draws, B, K)`.
        y: The drawn labels, `(chains, draws, B, K)`.
        z: The drawn latents, `(chains, draws, B, Z)`.
        w: The drawn random weights, `(chains, draws, P)`, which all data share; None if the model
            has none, or they are not kept.

    >>> GibbsDraws(*torch.zeros(3, 2, 10, 5, 4), None).y.shape
    torch.Size([2, 10, 5, 4])
    """

    p_y: Tensor
    y: Tensor
    z: Tensor
    w: Tensor | None


@exclusive()
@torch.no_grad()
def draw_chains(
    model: Any,
    guide: Any,
    x: Tensor,
    *,
    steps: int = 10,
    chains: int = 1,
    burn_in: int = 0,
    thin: int = 1,
    keep_weights: bool = True,
) -> GibbsDraws:
    """Run the chains of `gibbs` for one batch and return their draws.

    Arguments:
        model: See `gibbs`.
        guide: See `gibbs`.
        x: Data `(B, *event)`.
        steps: Number of steps T.
        chains: Number of independent chains for each datum.
        burn_in: Number of first steps to leave out.
        thin: Keep one of every `thin` steps.
        keep_weights: Keep the draws of the random weights, if there are any.

    Raises:
        ValueError: See `gibbs`; burn_in is not below steps, or thin is not above 0.

    >>> from pyro_ssl import zoo
    >>> sslpe = zoo.build("sslpe", (4,), 3, hidden=(8,), z_dim=2)
    >>> draws = draw_chains(sslpe.model, sslpe.guide, torch.randn(5, 4), steps=6, thin=2)
    >>> draws.y.shape, draws.z.shape, draws.w
    (torch.Size([1, 3, 5, 3]), torch.Size([1, 3, 5, 2]), None)
    """
    check_burn_in(burn_in, steps)
    check_positive(thin=thin)
    kept: list[list[Tensor]] = []
    for state in islice(_states(model, guide, x, steps, chains, None), burn_in, None, thin):
        values = [state.p.mean, state.y, state.z]
        if keep_weights and state.w is not None:
            values.append(state.w.squeeze(1))  # the dimension of data
        kept.append(values)
    p_y, y, z, *w = (torch.stack(values, 1) for values in zip(*kept, strict=True))
    return GibbsDraws(p_y, y, z, w[0] if w else None)


def check_burn_in(burn_in: int, steps: int) -> None:
    """Raise ValueError if no step is left after the burn-in.

    >>> check_burn_in(2, steps=3)
    """
    check_positive(steps=steps)
    if not is_whole(burn_in) or not 0 <= burn_in < steps:
        raise ValueError(f"burn_in should be in 0 .. {steps - 1}, below steps; got {burn_in!r}")


class _State(NamedTuple):
    """The chains after one step: p(y|x,z,W), and the draws of y, z and W."""

    p: Any
    y: Tensor
    z: Tensor
    w: Tensor | None


def _states(
    model: Any, guide: Any, x: Tensor, steps: int, chains: int, weights: Tensor | None
) -> Iterator[_State]:
    """Run the chains, and yield their state after each step."""
    check_positive(steps=steps, chains=chains)
    _check_pair(model, guide)
    fixed = None if weights is None else weights.unsqueeze(1)  # the same for all chains
    lead = [chains] if fixed is None else [len(fixed), chains]
    y = draw(guide.classify(x), lead)
    for _ in range(steps):
        z = draw(guide.encode(x, y))
        w = _weights_of_step(guide, chains, fixed)
        with nullcontext() if w is None else model.given(w):
            p = model.predict(x, z)
        y = draw(p)
        yield _State(p, y, z, w)


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


def _weights_of_step(guide: Any, chains: int, fixed: Tensor | None) -> Tensor | None:
    """The random weights of one step, if the model has any."""
    if fixed is not None:
        return fixed
    if isinstance(guide, WeightSampler):
        return guide.draw_weights(chains)
    return None

"""Gibbs sampling in a model that predicts, for one batch; `prediction.gibbs` is for data of any size."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_ssl.distributions.row_noise import draw
from pyro_ssl.utils.arguments import check_positive
from pyro_ssl.utils.context import exclusive


class Gibbs(NamedTuple):
    """What the chains of each datum say, averaged.

    Arguments:
        mean: E[y], `(B, K)`: for one-hot y the probabilities.
        variance: Var[y], `(B, K)`: of the mean over draws and of each draw's p(y|x,z), together.
        z: The code E[z], `(B, Z)`.
    """

    mean: Tensor
    variance: Tensor
    z: Tensor


@torch.no_grad()
def gibbs(model: Any, guide: Any, x: Tensor, *, steps: int = 10, chains: int = 1, hard: bool = False) -> Gibbs:
    r"""p(y|x) and E[z|x] by Gibbs sampling, for one batch; `pyro_ssl.gibbs` takes data of any size.

    .. math:: y^{(0)} \sim q(y|x); \quad
              W^{(t)} \sim q(W), \; z^{(t)} \sim q(z|x, y^{(t-1)}), \; y^{(t)} \sim p(y|x, z^{(t)}, W^{(t)}), \quad t = 1 .. T

    What is averaged is p(y|x, z, W), of less variance than the labels drawn. Chains are a dimension of one call.

    Arguments:
        model: A model with `predict(x, z) -> p(y|x,z)`; one of random weights has them drawn anew for each step and chain.
        guide: Its guide, with `classify(x)` and `encode(x, y) -> q(z|x,y)`.
        x: Data `(B, *event)`.
        steps: T.
        chains: Independent chains for each datum.
        hard: Average the labels drawn, as eq. 4.24 has it, and not their probabilities.

    Raises:
        ValueError: The model does not predict, or the guide does not encode; steps or chains is not above 0.

    References:
        Paper 002, eq. 4.23 and 4.24.
    """
    mean, second, z = (t.mean(0) for t in walk(model, guide, x, steps=steps, chains=chains, hard=hard))
    return Gibbs(mean, (second - mean.square()).clamp_min(0), z)


@exclusive()
@torch.no_grad()
def walk(
    model: Any, guide: Any, x: Tensor, *, steps: int = 10, chains: int = 1, hard: bool = False,
    weights: Tensor | None = None, skipped: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The chains of `gibbs` one by one: means over the steps of y, of its square and of z, each `(chains, B, *)`.

    With `weights` each of S draws of W has as many chains, `(S, chains, B, *)`, and what it makes of x is computed once for them.

    Arguments:
        model: As of `gibbs`, as are all others.
        guide: Its guide.
        x: Data `(B, *event)`.
        steps: T.
        chains: Independent chains for each datum.
        hard: Average the labels drawn.
        weights: Draws of W that stay in all steps, `(S, 1, P)`; by default each step and chain draws its own.
        skipped: The first of the T steps that are in no mean.

    Raises:
        ValueError: As of `gibbs`; all steps are skipped.
    """
    check_positive(steps=steps, chains=chains)
    for program, duty in ((model, "predict"), (guide, "encode")):
        inner = getattr(program, "program", program)  # that of a model or guide with random weights
        if not hasattr(inner, duty):
            raise ValueError(
                f"Gibbs sampling wants a model with predict(x, z) and a guide with encode(x, y), such as sslpe's; "
                f"{type(inner).__name__} has no {duty}"
            )
    if not 0 <= skipped < steps:
        raise ValueError(f"skipped should be in 0 .. {steps - 1}, steps less one; got {skipped}")
    random = hasattr(guide, "draw_weights")
    fixed = None if weights is None else weights.unsqueeze(1)  # of all chains
    y = draw(guide.classify(x), [chains] if fixed is None else [len(fixed), chains])
    sums: list[Tensor] = []
    for step in range(steps):
        z = draw(guide.encode(x, y))
        w = guide.draw_weights(chains) if random and fixed is None else fixed
        with nullcontext() if w is None else model.given(w):
            p = model.predict(x, z)
        y = draw(p)
        if step < skipped:
            continue
        now = [y, y.square(), z] if hard else [p.mean, p.variance + p.mean.square(), z]
        sums = now if not sums else [a + b for a, b in zip(sums, now, strict=True)]
    mean, second, z = (s / (steps - skipped) for s in sums)
    return mean, second, z

"""What a model makes: data from its prior, and data again from their codes; of any pair whose model has a site `x`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_ssl.checks import as_data, check_positive
from pyro_ssl.elbo import local
from pyro_ssl.modes import evaluating, reproducibly
from pyro_ssl.objective import Objective
from pyro_ssl.prediction import chunked, rows_at_once
from pyro_ssl.traces import log_prob, sample_sites

CANDIDATES = 100
"""Draws of what stands before y, or beside it, of which one is chosen by the likelihood of y."""


def generate(objective: Objective, n: int, y: Any = None, *, seed: int = 0) -> Tensor:
    """Data from the model: the mean of p(x|.) at draws of all that x depends on, `(n, *event)` on the CPU.

    Where y is given and the model does not draw it first, as in latent classifiers and SSLPE, a hundred draws are made of each
    datum and one is chosen in proportion to the likelihood of y. Random weights are at their posterior's mean. What a method
    with features (M1+M2) makes is these.

    Arguments:
        objective: The method.
        n: How many.
        y: One-hot, `(K,)` or `(n, K)`, or real; by default the model draws it.
        seed: Of the draws; with the same one the latents of models that draw y first are the same for every y.

    Raises:
        ValueError: The method has no model, or its model no x, or no y to give; y is of another shape; n is not above 0.
    """
    check_positive(n=n)
    like = next(objective.parameters())
    with evaluating(objective), reproducibly(seed), objective.programs() as (model, _):
        if y is None:
            return _before_x(model, like.new_zeros(n, 1))[1].cpu()
        label = torch.as_tensor(y).to(like)
        if label.dim() not in (1, 2) or label.shape[:-1] not in ((), (1,), (n,)):
            raise ValueError(f"y should be (K,) or ({n}, K), got {tuple(label.shape)}")
        label = label.expand(n, -1)
        values, x = _before_x(model, like.new_zeros(n, 1), label)
        if next(iter(values)) == "y":
            return x.cpu()
        many = label.repeat_interleave(CANDIDATES, 0)
        values, x = _before_x(model, like.new_zeros(len(many), 1), many)
        with _alone(), poutine.trace() as traced, poutine.condition(data=values):
            local(model)(x, many)
        sites = dict(sample_sites(traced.trace))
        if "y" not in sites:
            raise ValueError("y: the model has none to give; leave it out")
        weights = log_prob(sites["y"]).view(n, CANDIDATES).softmax(-1)
        return x.unflatten(0, (n, CANDIDATES))[torch.arange(n), weights.multinomial(1).squeeze(-1)].cpu()


def reconstruct(objective: Objective, x: Any, y: Any = None, *, into: Any = None, seed: int = 0) -> Tensor:
    """Data again from their codes: the mean of p(x|.) at the means of the guide's latents, `(N, *event)` on the CPU.

    Random weights are at their posterior's mean. With features (M1+M2) it is these.

    Arguments:
        objective: The method.
        x: Data `(N, *event)`.
        y: Their labels, one-hot or real, `(N, K)`; by default the likeliest, or the mean of a real one.
        into: The label under which x is made, `(K,)` or `(N, K)`, where it is another than that of the code: an analogy.
        seed: Of what is drawn, where a latent has no mean.

    Raises:
        ValueError: The method has no model, or its model no x; there is not one label per datum.
    """
    x = as_data(x)

    def labels(name: str, given: Any) -> list[Tensor]:
        value = torch.as_tensor(given)
        value = value.expand(len(x), -1) if value.dim() == 1 else value
        if value.dim() != 2 or len(value) != len(x):
            raise ValueError(f"{name} should have shape ({len(x)}, K), got {tuple(torch.as_tensor(given).shape)}")
        return [value]

    def function(x: Tensor, *given: Tensor) -> Tensor:
        label = given[0] if y is not None else _likeliest(objective, x)
        with objective.programs() as (model, guide):
            seen = objective.seen(x)
            with _alone(), poutine.trace() as traced, _Means():
                local(guide)(seen, label)
            codes = {n: s["value"] for n, s in sample_sites(traced.trace) if not s["is_observed"]}
            return _before_x(model, seen, label if into is None else given[-1], codes)[1]

    others = (labels("y", y) if y is not None else []) + (labels("into", into) if into is not None else [])
    return chunked(objective, function, rows_at_once(x, 1), seed, x, *others)


def _likeliest(objective: Objective, x: Tensor) -> Tensor:
    q = objective.classify(x)
    return torch.eye(q.event_shape[-1]).to(x)[q.mean.argmax(-1)] if q.has_enumerate_support else q.mean


def _before_x(
    model: Any, x: Tensor, y: Tensor | None = None, values: dict[str, Tensor] | None = None
) -> tuple[dict[str, Tensor], Tensor]:
    """The values that the model has before x, by site, drawn where none is given; and the mean of p(x|.), `(N, *event)`."""
    if model is None:
        raise ValueError("objective: a method without a model makes no data")
    given = (values or {}) | ({} if y is None else {"y": y})
    stop = _Stop()
    with _alone(), poutine.trace() as traced, poutine.condition(data=given), poutine.uncondition(), stop:
        try:
            local(model)(x, y)
        except _Reached:
            pass
    if stop.p_x is None:
        raise ValueError("objective: its model has no site x, so it makes no data; ce, gm and vc model codes alone")
    mean = stop.p_x.mean
    found = {name: site["value"] for name, site in sample_sites(traced.trace)}
    return found, mean.expand(len(x), *stop.p_x.event_shape)


@contextmanager
def _alone() -> Iterator[None]:
    """Without gradient, the caller's parameter store or Pyro's checks."""
    with torch.no_grad(), pyro.get_param_store().scope(), pyro.validation_enabled(False):
        yield


class _Reached(Exception):
    """The model has come to x."""


class _Stop(Messenger):
    """Keeps the distribution of x, and stops there: what follows x is not needed for it."""

    p_x: Any = None

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == "x":
            self.p_x = msg["fn"]
            raise _Reached


class _Means(Messenger):
    """Latents at their means, where they have one."""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or msg["done"] or site_is_subsample(msg):
            return
        try:
            msg["value"], msg["done"] = msg["fn"].mean, True
        except NotImplementedError:
            pass

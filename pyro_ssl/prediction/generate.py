"""What a model makes: data from its prior, and data again from their codes; of any pair whose model has a site `x`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_ssl.infer.elbo import without_param_store
from pyro_ssl.infer.sites import sample_sites
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.prediction.predict import as_known, chunked, classified_at_once, label_of, rows_at_once
from pyro_ssl.utils.arguments import as_tensor, check_positive
from pyro_ssl.utils.context import empty_param_store, eval_mode, fixed_seed, validation_disabled

CANDIDATES = 100
"""Draws of what stands before y, or beside it, of which one is chosen by the likelihood of y."""


def generate(objective: Objective, n: int, y: Any = None, *, seed: int = 0) -> Tensor:
    """Data from the model: the mean of p(x|.) at draws of all that x depends on, `(n, *event)` on the CPU.

    Where y is given and the model does not draw it first, as in latent classifiers and SSLPE, a hundred draws are made for each
    datum and one is chosen in proportion to the likelihood of y. Random weights are at their posterior's mean. What a method
    with features (M1+M2) makes is these.

    Arguments:
        objective: The method.
        n: How many.
        y: One-hot, `(K,)` or `(n, K)`, or real; by default the model draws it.
        seed: Of the draws; with the same one the latents of models that draw y first are the same for every y.

    Raises:
        ValueError: The method has no model, or its model no x, or no y to give; y is not of its kind; n is not above 0.
    """
    check_positive(n=n)
    like = next(objective.parameters())
    with eval_mode(objective), fixed_seed(seed), objective.programs() as (model, guide):
        before, p_x = _before_x(model, like.new_zeros(1, 1))
        event = like.new_zeros(1, *p_x.event_shape)
        if y is None:
            blocks = like.new_zeros(n, 1).split(rows_at_once(event, 1))
            return torch.cat([_mean(_before_x(model, x)[1], len(x)) for x in blocks]).cpu()
        kind = before["y"]["fn"] if "y" in before else guide.classify(event)
        label = _label("y", y, n, kind).to(like)
        first = next(iter(before)) == "y"
        made = partial(_mean_of if first else _chosen, model)
        return torch.cat([made(part) for part in label.split(rows_at_once(event, 1 if first else CANDIDATES))]).cpu()


def reconstruct(objective: Objective, x: Any, y: Any = None, *, into: Any = None, seed: int = 0) -> Tensor:
    """Data again from their codes: the mean of p(x|.) at the means of the guide's latents, `(N, *event)` on the CPU.

    Random weights are at their posterior's mean. With features (M1+M2) it is these.

    Arguments:
        objective: The method.
        x: Data `(N, *event)`.
        y: Their labels, one-hot or real, `(K,)` or `(N, K)`; by default the likeliest, or the mean of a real one.
        into: The label under which x is made, where it is another than that of the code: an analogy. Of a model whose x does
            not depend on y, given the code, it changes nothing.
        seed: Of what is drawn, where a latent has no mean.

    Raises:
        ValueError: The method has no model, or its model no x; a label is not of its kind.
    """
    x = as_known(objective, x)
    q = label_of(objective, x)
    others = [_label(name, given, len(x), q) for name, given in (("y", y), ("into", into)) if given is not None]

    def function(x: Tensor, *given: Tensor) -> Tensor:
        label = given[0] if y is not None else _likeliest(objective, x)
        with objective.programs() as (model, guide):
            seen = objective.encode(x)
            with _alone(), poutine.trace() as traced, _Means():
                without_param_store(guide)(seen, label)
            codes = {n: s["value"] for n, s in sample_sites(traced.trace) if not s["is_observed"]}
            return _mean(_before_x(model, seen, label if into is None else given[-1], codes)[1], len(x))

    most = min(rows_at_once(x, 1), classified_at_once(objective, x))
    return chunked(objective, function, most, seed, x, *others)


def _label(name: str, given: Any, n: int, q: Any) -> Tensor:
    """A label for each of n data, `(n, K)`, of the kind that q(y|x) has."""
    label, size, one_hot = as_tensor(given, name), int(q.event_shape[-1]), q.has_enumerate_support
    fits = tuple(label.shape) in ((size,), (1, size), (n, size))
    if not fits or (one_hot and not (((label == 0) | (label == 1)).all() and (label.sum(-1) == 1).all())):
        kind = "one-hot" if one_hot else "real"
        raise ValueError(
            f"{name} should be {kind}, ({size},) or ({n}, {size}), got shape {tuple(label.shape)}; see one_hot"
        )
    return label.expand(n, size)


def _likeliest(objective: Objective, x: Tensor) -> Tensor:
    q = objective.classify(x)
    return torch.eye(q.event_shape[-1]).to(x)[q.mean.argmax(-1)] if q.has_enumerate_support else q.mean


def _mean_of(model: Any, y: Tensor) -> Tensor:
    return _mean(_before_x(model, y.new_zeros(len(y), 1), y)[1], len(y))


def _chosen(model: Any, y: Tensor) -> Tensor:
    """Of many draws for each y one, in proportion to the likelihood of y: what comes after x sees a draw of it."""
    many = y.repeat_interleave(CANDIDATES, 0)
    before, p_x = _before_x(model, many.new_zeros(len(many), 1), many)
    values = {name: site["value"] for name, site in before.items()}
    with _alone(), poutine.trace() as traced, poutine.condition(data=values):
        without_param_store(model)(_rows(p_x.sample(), p_x, len(many)), many)
    sites = dict(sample_sites(traced.trace))
    if "y" not in sites:
        raise ValueError("y: the model has none to give; leave it out")
    likelihood = sites["y"]["fn"].log_prob(sites["y"]["value"]).view(len(y), CANDIDATES).softmax(-1)
    place = likelihood.multinomial(1).squeeze(-1) + CANDIDATES * torch.arange(len(y), device=y.device)
    return _mean(p_x, len(many))[place]


def _before_x(
    model: Any, x: Tensor, y: Tensor | None = None, values: dict[str, Tensor] | None = None
) -> tuple[dict[str, Any], Any]:
    """The sites that the model has before x, with values drawn where none is given; and p(x|.)."""
    if model is None:
        raise ValueError("objective: a method without a model makes no data")
    given = (values or {}) | ({} if y is None else {"y": y})
    stop = _Stop()
    with _alone(), poutine.trace() as traced, poutine.condition(data=given), poutine.uncondition(), stop:
        try:
            without_param_store(model)(x, y)
        except _Reached:
            pass
    if stop.p_x is None:
        raise ValueError("objective: its model has no site x, so it makes no data; ce, gm and vc model codes alone")
    return dict(sample_sites(traced.trace)), stop.p_x


def _mean(p_x: Any, n: int) -> Tensor:
    return _rows(p_x.mean, p_x, n)


def _rows(x: Tensor, p_x: Any, n: int) -> Tensor:
    return x.expand(n, *p_x.event_shape)


@contextmanager
def _alone() -> Iterator[None]:
    """Without gradient, the caller's parameter store or Pyro's checks."""
    with torch.no_grad(), empty_param_store(), validation_disabled():
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

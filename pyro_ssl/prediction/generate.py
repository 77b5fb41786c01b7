"""Data from a model: generated from its prior, or reconstructed from latents.

Both work for any pair whose model has a site `x`.
"""

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

from pyro_ssl.infer.param_store import without_param_store
from pyro_ssl.infer.sites import latent_sites, sample_sites
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.prediction.bounds import is_one_hot
from pyro_ssl.prediction.chunks import chunked, known_rows, label_of, rows_at_once
from pyro_ssl.prediction.predict import classified_at_once
from pyro_ssl.utils.arguments import as_tensor, check_positive
from pyro_ssl.utils.context import (
    empty_param_store,
    eval_mode,
    fixed_seed,
    validation_disabled,
)

CANDIDATES = 100
"""Number of prior samples from which one is drawn in proportion to the likelihood of y."""


class NoDataError(ValueError):
    """The method cannot generate data, or data of a class: its model has no x, or no y.

    >>> issubclass(NoDataError, ValueError)
    True
    """


def generate(objective: Objective, n: int, y: Any = None, *, seed: int = 0) -> Tensor:
    """Generate data: the mean of p(x|.) at samples of x's parents, `(n, *event)` on the CPU.

    If y is given and the model does not sample it first, as in latent classifiers and SSLPE, one of
    a hundred samples is chosen for each datum, in proportion to the likelihood of y. Random weights
    have their posterior mean. A method with a pretrained encoder (M1+M2) generates codes.

    Arguments:
        objective: The method.
        n: Number of data.
        y: Labels, one-hot or real, `(K,)` or `(n, K)`; by default the model samples them.
        seed: Seed of the samples; with the same seed, models that sample y first have the same
            latents for every y.

    Raises:
        NoDataError: The method has no model, or its model no site x or y.
        ValueError: y is not a label of the method's kind; n is not above 0.

    >>> from pyro_ssl import zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> generate(m2, 5, y=torch.eye(3)[0]).shape
    torch.Size([5, 4])
    """
    check_positive(n=n)
    like = next(objective.parameters())
    with eval_mode(objective), fixed_seed(seed), objective.programs() as (model, guide):
        before, p_x = _run_to_x(model, like.new_zeros(1, 1))
        event = like.new_zeros(1, *p_x.event_shape)
        if y is None:
            blocks = like.new_zeros(n, 1).split(rows_at_once(event, 1))
            return torch.cat([_mean_of_samples(model, block) for block in blocks]).cpu()
        q_y = before["y"]["fn"] if "y" in before else guide.classify(event)
        labels = _as_label("y", y, n, q_y).to(like)
        if next(iter(before)) == "y":
            make = partial(_mean_given_label, model)
            samples = 1
        else:
            make = partial(_mean_of_chosen, model)
            samples = CANDIDATES
        parts = labels.split(rows_at_once(event, samples))
        return torch.cat([make(part) for part in parts]).cpu()


def reconstruct(
    objective: Objective, x: Any, y: Any = None, *, into: Any = None, seed: int = 0
) -> Tensor:
    """Reconstruct data: the mean of p(x|.) at the means of the guide's latents.

    Random weights have their posterior mean. A method with a pretrained encoder (M1+M2)
    reconstructs codes.

    Arguments:
        objective: The method.
        x: Data `(N, *event)`.
        y: Labels, one-hot or real, `(K,)` or `(N, K)`; by default the likeliest, or the mean of a
            real one.
        into: Label to reconstruct under, if it is not the label of the latents (an analogy). It has
            no effect in a model whose x does not depend on y given the latents.
        seed: Seed of the samples of latents without a mean.

    Returns:
        Reconstructions `(N, *event)`, on the CPU.

    Raises:
        ValueError: The method has no model, or its model no site x; a label is not of the method's
            kind.

    >>> from pyro_ssl import zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> reconstruct(m2, torch.zeros(5, 4)).shape
    torch.Size([5, 4])
    """
    x = known_rows(objective, x)
    q_y = label_of(objective, x)
    labels = []
    if y is not None:
        labels.append(_as_label("y", y, len(x), q_y))
    if into is not None:
        labels.append(_as_label("into", into, len(x), q_y))

    def of_batch(x: Tensor, *labels: Tensor) -> Tensor:
        label = labels[0] if y is not None else _likeliest(objective, x)
        target = labels[-1] if into is not None else label
        with objective.programs() as (model, guide):
            encoded = objective.encode(x)
            with _undisturbed(), poutine.trace() as traced, _Means():
                without_param_store(guide)(encoded, label)
            latents = {name: site["value"] for name, site in latent_sites(traced.trace).items()}
            _, p_x = _run_to_x(model, encoded, target, latents)
            return _mean(p_x, len(x))

    most = min(rows_at_once(x, 1), classified_at_once(objective, x))
    return chunked(objective, of_batch, most, seed, x, *labels)


def _as_label(name: str, label: Any, n: int, q_y: Any) -> Tensor:
    """A label of each of n data, `(n, K)`, of q(y|x)'s kind."""
    label = as_tensor(label, name)
    size = int(q_y.event_shape[-1])
    one_hot = q_y.has_enumerate_support
    fits = tuple(label.shape) in ((size,), (1, size), (n, size))
    if not fits or (one_hot and not is_one_hot(label)):
        kind = "one-hot" if one_hot else "real"
        raise ValueError(
            f"{name} should be {kind}, ({size},) or ({n}, {size}), got shape "
            f"{tuple(label.shape)}; see one_hot"
        )
    return label.expand(n, size)


def _likeliest(objective: Objective, x: Tensor) -> Tensor:
    q = objective.classify(x)
    if not q.has_enumerate_support:
        return q.mean
    return torch.eye(q.event_shape[-1]).to(x)[q.mean.argmax(-1)]


def _mean_of_samples(model: Any, x: Tensor) -> Tensor:
    _, p_x = _run_to_x(model, x)
    return _mean(p_x, len(x))


def _mean_given_label(model: Any, y: Tensor) -> Tensor:
    _, p_x = _run_to_x(model, y.new_zeros(len(y), 1), y)
    return _mean(p_x, len(y))


def _mean_of_chosen(model: Any, y: Tensor) -> Tensor:
    """The mean of p(x|.) at one of many samples for each y, chosen by the likelihood of y.

    Sites after x get a sample of x.
    """
    many = y.repeat_interleave(CANDIDATES, 0)
    before, p_x = _run_to_x(model, many.new_zeros(len(many), 1), many)
    values = {name: site["value"] for name, site in before.items()}
    with _undisturbed(), poutine.trace() as traced, poutine.condition(data=values):
        without_param_store(model)(_rows(p_x.sample(), p_x, len(many)), many)
    sites = dict(sample_sites(traced.trace))
    if "y" not in sites:
        raise NoDataError("y: the model has no site y; leave it out")
    log_p = sites["y"]["fn"].log_prob(sites["y"]["value"])
    likelihood = log_p.view(len(y), CANDIDATES).softmax(-1)
    chosen = likelihood.multinomial(1).squeeze(-1)
    first = CANDIDATES * torch.arange(len(y), device=y.device)
    return _mean(p_x, len(many))[chosen + first]


def _run_to_x(
    model: Any, x: Tensor, y: Tensor | None = None, values: dict[str, Tensor] | None = None
) -> tuple[dict[str, Any], Any]:
    """The model's sites before x, sampled where no value is given, and p(x|.)."""
    if model is None:
        raise NoDataError("objective: a method without a model generates no data")
    given = dict(values or {})
    if y is not None:
        given["y"] = y
    stop = _StopAtX()
    with (
        _undisturbed(),
        poutine.trace() as traced,
        poutine.condition(data=given),
        poutine.uncondition(),
        stop,
    ):
        try:
            without_param_store(model)(x, y)
        except _ReachedX:
            pass
    if stop.p_x is None:
        raise NoDataError(
            "objective: its model has no site x, so it generates no data; "
            "ce, gm and vc model latents alone"
        )
    return dict(sample_sites(traced.trace)), stop.p_x


def _mean(p_x: Any, n: int) -> Tensor:
    return _rows(p_x.mean, p_x, n)


def _rows(x: Tensor, p_x: Any, n: int) -> Tensor:
    return x.expand(n, *p_x.event_shape)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Run without gradients, the caller's parameter store and Pyro's checks."""
    with torch.no_grad(), empty_param_store(), validation_disabled():
        yield


class _ReachedX(Exception):
    """The model has reached its site x."""


class _StopAtX(Messenger):
    """Keep the distribution of x, and stop the model there: later sites are not needed."""

    p_x: Any = None

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == "x":
            self.p_x = msg["fn"]
            raise _ReachedX


class _Means(Messenger):
    """Set latents to their means, where they have one."""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or msg["done"] or site_is_subsample(msg):
            return
        try:
            msg["value"] = msg["fn"].mean
        except NotImplementedError:
            return
        msg["done"] = True

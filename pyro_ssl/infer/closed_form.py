"""KL terms in closed form that can replace log p - log q at a sample."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Literal

import pyro.distributions as dist
import torch
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import Categorical, OneHotCategorical, kl_divergence

from pyro_ssl.infer.decisions import decide
from pyro_ssl.infer.sites import Site, latent_sites, same_scale, sample_sites, scaled


def closed_form_kl(
    guide_trace: Trace, model_trace: Trace, sites: Literal["auto"] | Collection[str] = "auto"
) -> dict[str, Tensor]:
    """Compute KL(q || p) in closed form for each site, multiplied by the scale of the site.

    Arguments:
        guide_trace: Trace of the guide.
        model_trace: Trace of the model, replayed on the guide's.
        sites: Names of sites; "auto" uses those whose KL is known and exact, see
            `TraceTopKEnum_ELBO`.

    Raises:
        ValueError: A name is not a site of the model, or no KL in closed form is known for it.

    >>> from pyro_ssl import TraceTopKEnum_ELBO, zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> bound = TraceTopKEnum_ELBO(None).bound(m2.model, m2.guide, torch.randn(5, 4))
    >>> sorted(closed_form_kl(bound.guide_trace, bound.model_trace))
    ['y', 'z']
    """
    guided = latent_sites(guide_trace)
    if sites != "auto":
        return _named(guided, model_trace, sites)
    order = list(guided)
    earlier = set[str]()  # latents before the site in the model
    closed: dict[str, Tensor] = {}
    for name, p in latent_sites(model_trace).items():
        is_exact = name in guided and earlier <= set(order[: order.index(name)])
        kl = _kl(guided[name], p) if is_exact else None
        if kl is not None:
            closed[name] = kl
        earlier.add(name)
    return closed


def _named(
    guided: dict[str, Site], model_trace: Trace, sites: Collection[str]
) -> dict[str, Tensor]:
    unknown = [name for name in sites if name not in model_trace]
    if unknown:
        names = ", ".join(map(repr, unknown))
        raise ValueError(f"closed_form: the model has no site {names}")
    closed: dict[str, Tensor] = {}
    missing = []
    for name, p in sample_sites(model_trace):
        if name not in guided or name not in sites:
            continue
        kl = _kl(guided[name], p)
        if kl is None:
            missing.append(name)
        else:
            closed[name] = kl
    if missing:
        names = ", ".join(map(repr, missing))
        raise ValueError(f"closed_form: no KL in closed form is known for site {names}")
    return closed


def _kl(q: Site, p: Site) -> Tensor | None:
    """Compute the KL times the scale of the sites, `(..., B)`; None if unknown or not exact.

    It is not exact if the sites differ in scale, if one is masked, or if the posterior has mass
    outside the support of the prior: a sample may never fall there, but the KL is infinite.
    """
    if not same_scale(q["scale"], p["scale"]):
        return None
    if q["mask"] is not None or p["mask"] is not None:
        return None
    parts = [*_parts(q["fn"]), *_parts(p["fn"])]
    if any(isinstance(part, dist.MaskedDistribution | dist.Delta) for part in parts):
        return None
    if _is_categorical(q["fn"]) and _is_categorical(p["fn"]):
        return scaled(q, _kl_of_categoricals(q["fn"].logits, p["fn"].logits))
    kl = _registered_kl(q["fn"], p["fn"])
    if kl is None:
        return None
    kl = scaled(q, kl)
    is_finite = decide(kl.isfinite().all())
    return kl if is_finite else None


def _registered_kl(q: Any, p: Any) -> Tensor | None:
    """KL of two distributions by torch; None if torch has none for them."""
    try:
        if q.has_enumerate_support:  # torch's KL of two Bernoullis needs equal shapes
            shape = torch.broadcast_shapes(q.batch_shape, p.batch_shape)
            q = q.expand(shape)
            p = p.expand(shape)
        return kl_divergence(q, p)
    except NotImplementedError:
        return None


def _parts(fn: Any) -> Iterator[Any]:
    """Iterate over a distribution and the distributions that it wraps."""
    yield fn
    base = getattr(fn, "base_dist", None)
    if base is not None:
        yield from _parts(base)


def _is_categorical(fn: Any) -> bool:
    return isinstance(fn, Categorical | OneHotCategorical)


def _kl_of_categoricals(log_q: Tensor, log_p: Tensor) -> Tensor:
    """Compute the KL over the last dimension; torch's has a NaN gradient where q is exactly 0."""
    log_p = log_p.masked_fill(_is_zero(log_q), 0.0).clamp_min(torch.finfo(log_p.dtype).min)
    return -entropy_of(log_q) - (log_q.exp() * log_p).sum(-1)


def entropy_of(log_q: Tensor) -> Tensor:
    """Compute the entropy over the last dimension; 0 log 0 and its gradient are 0.

    >>> entropy_of(torch.tensor([0.0, -torch.inf]))
    tensor(-0.)
    """
    return -(log_q.exp() * log_q.masked_fill(_is_zero(log_q), 0.0)).sum(-1)


def _is_zero(log_q: Tensor) -> Tensor:
    """Return a mask of the entries where q is exactly 0.

    The log-probability that q is multiplied by should be replaced by 0 there. Otherwise it can be
    the lowest float: a gradient above 1 times that is infinite, and infinity times 0 is NaN.
    """
    return log_q.detach().exp() == 0

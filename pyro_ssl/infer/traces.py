"""What the traces of a pair hold: sites, their densities with scale and mask, and KL divergences in closed form."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pyro.distributions as dist
import torch
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Categorical, OneHotCategorical, kl_divergence

from pyro_ssl.infer.enumeration import data_plates, is_enumerated, is_per_datum
from pyro_ssl.utils.compat import DETERMINISTIC


def sample_sites(trace: Trace) -> Iterator[tuple[str, Any]]:
    """Name and site of every `pyro.sample` statement; plates and `pyro.deterministic` are left out."""
    sites: dict[str, Any] = trace.nodes
    for name, site in sites.items():
        if site["type"] != "sample" or site_is_subsample(site) or site["infer"].get(DETERMINISTIC):
            continue
        yield name, site


@dataclass
class TracePair:
    """The traces of a guide and of its model replayed on it, with the site that is enumerated.

    Arguments:
        guide: Trace of the guide.
        model: Trace of the model.
        rows: Number of data; None if neither the arguments nor the plates tell.
        label: The guide's enumerated site.
        summed_out: The site that the model enumerates, the guide having left it out.
        plate_names: Names of the plates that hold the label, or something that the model observes.
    """

    guide: Trace
    model: Trace
    rows: int | None
    label: dict[str, Any] | None
    summed_out: dict[str, Any] | None
    plate_names: frozenset[str]

    @classmethod
    def of(cls, guide: Trace, model: Trace, rows: int | None = None) -> TracePair:
        """The pair of two traces; `rows` is the number of data by the programs' arguments."""
        label = next((site for _, site in sample_sites(guide) if is_enumerated(site)), None)
        summed_out = next((s for n, s in sample_sites(model) if is_enumerated(s) and n not in guide), None)
        sites = [site for trace in (guide, model) for _, site in sample_sites(trace)]
        rows = _rows(sites, label or summed_out, rows)
        return cls(guide, model, rows, label, summed_out, _plate_names(model, sites, label or summed_out))

    @property
    def values(self) -> int:
        """Number V of values of the enumerated site; 1 without one."""
        site = self.label or self.summed_out
        return 1 if site is None else site["infer"]["log_weights"].shape[-2]

    def is_shared(self, site: Any) -> bool:
        """Whether a site is of no datum, but of all."""
        if not is_per_datum(site, self.rows):
            return True
        plates = data_plates(site)
        return self.rows == 1 and bool(plates) and plates[0].name not in self.plate_names


def _plate_names(model: Trace, sites: list[Any], enumerated: Any) -> frozenset[str]:
    """Names of the plates of the label and of what the model observes; where there is neither, of all."""
    of_data = [site for _, site in sample_sites(model) if site["is_observed"]]
    if enumerated is not None:
        of_data.append(enumerated)
    names = frozenset(plate.name for site in of_data for plate in data_plates(site))
    return names or frozenset(plate.name for site in sites for plate in data_plates(site))


def _rows(sites: list[Any], enumerated: Any, given: int | None) -> int | None:
    """The number of data: the size of the label's plate, else `given`, else of the plate of what is observed."""
    if enumerated is not None:
        return data_plates(enumerated)[0].size
    sizes = {plate.size for site in sites for plate in data_plates(site)}
    if given in sizes or not sizes:
        return given
    observed = {plate.size for site in sites if site["is_observed"] for plate in data_plates(site)}
    return max(observed or sizes)


def closed_form_kl(
    guide_trace: Trace, model_trace: Trace, sites: Literal["auto"] | Collection[str] = "auto"
) -> dict[str, Tensor]:
    """KL(q || p), with its scale, of the sites where it replaces log p - log q; see `TraceTopKEnum_ELBO`."""
    guided = {name: site for name, site in sample_sites(guide_trace) if not site["is_observed"]}
    latents = {name: site for name, site in sample_sites(model_trace) if name in guided}
    if sites != "auto":
        if unknown := [name for name in sites if name not in model_trace]:
            raise ValueError(f"closed_form: the model has no site {', '.join(map(repr, unknown))}")
        named = {name: _kl(guided[name], p) for name, p in latents.items() if name in sites}
        if missing := [name for name, kl in named.items() if kl is None]:
            raise ValueError(f"closed_form: no KL in closed form is known for site {', '.join(map(repr, missing))}")
        return {name: kl for name, kl in named.items() if kl is not None}
    order, before, closed = list(guided), set[str](), {}
    for name, p in sample_sites(model_trace):
        if p["is_observed"]:
            continue
        if name in guided and before <= set(order[: order.index(name)]) and (kl := _kl(guided[name], p)) is not None:
            closed[name] = kl
        before.add(name)
    return closed


def _kl(q: dict[str, Any], p: dict[str, Any]) -> Tensor | None:
    """KL with the sites' scale, `(..., B)`; None where the two are scaled apart or masked, or have no KL in closed form."""
    if not _same_scale(q["scale"], p["scale"]) or q["mask"] is not None or p["mask"] is not None:
        return None
    if any(isinstance(part, dist.MaskedDistribution | dist.Delta) for site in (q, p) for part in _parts(site["fn"])):
        return None
    q_fn, p_fn = q["fn"], p["fn"]
    if all(isinstance(fn, Categorical | OneHotCategorical) for fn in (q_fn, p_fn)):
        # torch's own has a NaN gradient where q is exactly 0
        log_q, log_p = q_fn.logits, p_fn.logits.clamp_min(torch.finfo(p_fn.logits.dtype).min)
        return scaled(q, -entropy_of(log_q) - (log_q.exp() * log_p).sum(-1))
    try:
        if q_fn.has_enumerate_support:  # torch's KL of two Bernoullis wants one shape
            shape = torch.broadcast_shapes(q_fn.batch_shape, p_fn.batch_shape)
            q_fn, p_fn = q_fn.expand(shape), p_fn.expand(shape)
        kl = scaled(q, kl_divergence(q_fn, p_fn))
    except NotImplementedError:
        return None
    return kl if kl.isfinite().all() else None  # a support beyond the prior's, which a sample may never meet


def _parts(fn: Any) -> Iterator[Any]:
    """A distribution and what it wraps."""
    yield fn
    if hasattr(fn, "base_dist"):
        yield from _parts(fn.base_dist)


def _same_scale(a: float | Tensor, b: float | Tensor) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    return not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b


def log_prob(site: Any) -> Tensor:
    """log-density of a site, `(..., B)`, with its scale and mask."""
    return scaled(site, site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"]))


def entropy_of(log_q: Tensor) -> Tensor:
    """Entropy of probabilities over the last dimension; 0 log 0 = 0, and so is its gradient."""
    return -(log_q.exp() * log_q.clamp_min(torch.finfo(log_q.dtype).min)).sum(-1)


def scaled(site: dict[str, Any], value: Tensor) -> Tensor:
    """The value with the scale and the mask of a site."""
    if site["mask"] is not None:
        value = torch.where(torch.as_tensor(site["mask"]), value, torch.zeros_like(value))
    return value if isinstance(site["scale"], (int, float)) and site["scale"] == 1 else site["scale"] * value

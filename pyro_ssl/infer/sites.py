"""One site of a trace: its plates, its density and its marks."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import Any

import torch
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_ssl.infer.decisions import decide
from pyro_ssl.utils.private_names import DETERMINISTIC

Site = Any
"""A site of a trace, or a message while its program runs: Pyro's dictionary, which has no type."""


def sample_sites(trace: Trace) -> Iterator[tuple[str, Site]]:
    """Name and site of every `pyro.sample` statement, without plates and `pyro.deterministic`.

    >>> import pyro, pyro.distributions as dist
    >>> def program():
    ...     with pyro.plate("data", 3):
    ...         pyro.sample("z", dist.Normal(0.0, 1.0))
    >>> [name for name, _ in sample_sites(pyro.poutine.trace(program).get_trace())]
    ['z']
    """
    sites: dict[str, Site] = trace.nodes
    for name, site in sites.items():
        if site["type"] != "sample" or site_is_subsample(site):
            continue
        if site["infer"].get(DETERMINISTIC):
            continue
        yield name, site


def data_plates(site: Site) -> list[Any]:
    """The vectorised plates around a site."""
    return [frame for frame in site["cond_indep_stack"] if frame.vectorized]


def is_per_datum(site: Site, rows: int | None = None, shared_plates: Collection[str] = ()) -> bool:
    """Whether a site has a value for each datum, rather than one that all data share.

    Arguments:
        site: The site.
        rows: Number of data; a plate of another size is shared by all data. None takes every plate
            for a plate of data.
        shared_plates: Names of plates that all data share, whatever their size.
    """
    plates = data_plates(site)
    if not plates:
        return not site_is_subsample(site) and math.prod(batch_shape(site)) != 1
    if rows is None:
        return True
    return any(plate.size == rows and plate.name not in shared_plates for plate in plates)


def batch_shape(site: Site) -> torch.Size:
    """Shape of the log-density: distribution and value, of which either may be smaller."""
    fn = site["fn"]
    if site["value"] is None:
        return torch.Size(fn.batch_shape)
    value_shape = torch.as_tensor(site["value"]).shape
    return torch.broadcast_shapes(fn.batch_shape, value_shape[: len(value_shape) - fn.event_dim])


def is_enumerated(site: Site) -> bool:
    """Whether a site is latent, marked for enumeration and discrete.

    A real y, under the same mark, is sampled.
    """
    is_marked = site["infer"].get("enumerate") == "parallel"
    return is_marked and not site["is_observed"] and bool(site["fn"].has_enumerate_support)


def log_prob(site: Site) -> Tensor:
    """log-density of a site, `(..., B)`, with its scale and mask."""
    return scaled(site, site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"]))


def scaled(site: Site, value: Tensor) -> Tensor:
    """Apply the scale and the mask of a site to a value."""
    mask, scale = site["mask"], site["scale"]
    if mask is not None:
        value = torch.where(torch.as_tensor(mask), value, torch.zeros_like(value))
    if isinstance(scale, int | float) and scale == 1:
        return value
    product: Tensor = scale * value
    return product


def same_scale(a: float | Tensor, b: float | Tensor) -> bool:
    """Whether two sites' scales are equal; a tensor and a number are not."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a is b or a.shape != b.shape:
            return a is b
        return bool(decide((a == b).all()))
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return False
    return a == b

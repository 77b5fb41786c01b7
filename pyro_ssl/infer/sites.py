"""Properties of a site of a trace: its plates, its log-density, and whether it is enumerated."""

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
"""A site of a trace, or a message while a program runs: a dictionary of Pyro, without a type."""


def sample_sites(trace: Trace) -> Iterator[tuple[str, Site]]:
    """Iterate over names and sites of `pyro.sample` statements, without `pyro.deterministic`.

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


def latent_sites(trace: Trace) -> dict[str, Site]:
    """The sites of `sample_sites` that are not observed, by name.

    >>> import pyro, pyro.distributions as dist
    >>> def program():
    ...     with pyro.plate("data", 3):
    ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...         pyro.sample("x", dist.Normal(z, 1.0), obs=torch.zeros(3))
    >>> list(latent_sites(pyro.poutine.trace(program).get_trace()))
    ['z']
    """
    return {name: site for name, site in sample_sites(trace) if not site["is_observed"]}


def data_plates(site: Site) -> list[Any]:
    """The vectorised plates around a site.

    >>> import pyro, pyro.distributions as dist
    >>> def program():
    ...     with pyro.plate("data", 3):
    ...         pyro.sample("z", dist.Normal(0.0, 1.0))
    >>> site = pyro.poutine.trace(program).get_trace().nodes["z"]
    >>> [plate.name for plate in data_plates(site)]
    ['data']
    """
    return [frame for frame in site["cond_indep_stack"] if frame.vectorized]


def is_per_datum(site: Site, rows: int | None = None, shared_plates: Collection[str] = ()) -> bool:
    """True if a site has one value per datum, False if all data share its value.

    Arguments:
        site: The site.
        rows: Number of data; all data share a plate of another size. With None, every plate counts
            as one of data.
        shared_plates: Names of plates that all data share, whatever their size.

    >>> import pyro, pyro.distributions as dist
    >>> def program():
    ...     with pyro.plate("data", 3):
    ...         pyro.sample("z", dist.Normal(0.0, 1.0))
    >>> site = pyro.poutine.trace(program).get_trace().nodes["z"]
    >>> is_per_datum(site, rows=3), is_per_datum(site, rows=5)
    (True, False)
    """
    plates = data_plates(site)
    if not plates:
        return not site_is_subsample(site) and math.prod(batch_shape(site)) != 1
    if rows is None:
        return True
    return any(plate.size == rows and plate.name not in shared_plates for plate in plates)


def batch_shape(site: Site) -> torch.Size:
    """Shape of the log-density: the batch shapes of distribution and value, broadcast.

    >>> import pyro, pyro.distributions as dist
    >>> def program():
    ...     with pyro.plate("data", 3):
    ...         pyro.sample("z", dist.Normal(0.0, 1.0))
    >>> site = pyro.poutine.trace(program).get_trace().nodes["z"]
    >>> batch_shape(site)
    torch.Size([3])
    """
    fn = site["fn"]
    if site["value"] is None:
        return torch.Size(fn.batch_shape)
    value_shape = torch.as_tensor(site["value"]).shape
    return torch.broadcast_shapes(fn.batch_shape, value_shape[: len(value_shape) - fn.event_dim])


def is_enumerated(site: Site) -> bool:
    """True if a site is latent, discrete, and marked `infer={"enumerate": "parallel"}`.

    A real y with the same mark is sampled.

    >>> import pyro, pyro.distributions as dist
    >>> def program():
    ...     with pyro.plate("data", 3):
    ...         pyro.sample("z", dist.Normal(0.0, 1.0))
    >>> site = pyro.poutine.trace(program).get_trace().nodes["z"]
    >>> is_enumerated(site)
    False
    """
    is_marked = site["infer"].get("enumerate") == "parallel"
    return is_marked and not site["is_observed"] and bool(site["fn"].has_enumerate_support)


def log_prob(site: Site) -> Tensor:
    """Log-density of a site, `(..., B)`, with its scale and mask.

    >>> import pyro, pyro.distributions as dist
    >>> def program():
    ...     with pyro.plate("data", 3):
    ...         pyro.sample("z", dist.Normal(0.0, 1.0))
    >>> site = pyro.poutine.trace(program).get_trace().nodes["z"]
    >>> log_prob(site).shape
    torch.Size([3])
    """
    return scaled(site, site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"]))


def scaled(site: Site, value: Tensor) -> Tensor:
    """Apply the mask and the scale of a site to a value.

    >>> scaled({"mask": None, "scale": 0.5}, torch.tensor(4.0))
    tensor(2.)
    """
    mask = site["mask"]
    scale = site["scale"]
    if mask is not None:
        if not isinstance(mask, Tensor):
            mask = torch.full((), mask, device=value.device)
        value = torch.where(mask, value, torch.zeros_like(value))
    if isinstance(scale, int | float) and scale == 1:
        return value
    product: Tensor = scale * value
    return product


def same_scale(a: float | Tensor, b: float | Tensor) -> bool:
    """True if the scales of two sites are equal; a tensor and a number never are.

    >>> same_scale(1.0, 1.0), same_scale(1.0, torch.tensor(1.0))
    (True, False)
    """
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a is b or a.shape != b.shape:
            return a is b
        return bool(decide((a == b).all()))
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return False
    return a == b

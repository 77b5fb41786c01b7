"""Check that a pair is in the scope of `TraceTopKEnum_ELBO`, at every evaluation of the bound.

`check_scope` reads plates, marks and distributions, but no tensor values, so it is cheap.
`check_shapes` runs only with Pyro's validation on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.distribution import Distribution
from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from pyro.util import check_model_guide_match, check_site_shape
from torch import Tensor

from pyro_ssl.infer.checks.enumeration_marks import wrong_dim
from pyro_ssl.infer.checks.scope_error import ScopeError
from pyro_ssl.infer.sites import (
    Site,
    batch_shape,
    data_plates,
    is_enumerated,
    log_prob,
    same_scale,
    sample_sites,
)
from pyro_ssl.infer.traces import TracePair

SCORELESS = (
    Distribution.score_parts,
    ExpandedDistribution.score_parts,
    MaskedDistribution.score_parts,
)
"""Implementations of `score_parts` that give reparameterised distributions no score term.

The last two delegate to the base distribution.
"""


def check_scope(pair: TracePair) -> None:
    """Check that `TraceTopKEnum_ELBO` computes the right bound of a pair.

    Raises:
        ScopeError: The bound would be wrong; the message says how to fix it.

    >>> from pyro_ssl import TraceTopKEnum_ELBO, zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> bound = TraceTopKEnum_ELBO(None).bound(m2.model, m2.guide, torch.randn(5, 4))
    >>> pair = TracePair.of(bound.guide_trace, bound.model_trace, rows=5)
    >>> check_scope(pair)
    """
    for who, site in all_sites(pair):
        _check_plates(who, site, pair)
    for _, site in sample_sites(pair.guide):
        if not is_enumerated(site) and not is_reparameterised(site):
            raise ScopeError(_why_not_reparameterised(site))
    _check_dependence(pair)
    _check_scales(pair)


def all_sites(pair: TracePair) -> Iterator[tuple[str, Site]]:
    """Iterate over the sites of a guide and then of its model, each with "guide" or "model".

    >>> from pyro_ssl import TraceTopKEnum_ELBO, zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> bound = TraceTopKEnum_ELBO(None).bound(m2.model, m2.guide, torch.randn(5, 4))
    >>> pair = TracePair.of(bound.guide_trace, bound.model_trace, rows=5)
    >>> [(who, site["name"]) for who, site in all_sites(pair)]
    [('guide', 'y'), ('guide', 'z'), ('model', 'y'), ('model', 'z'), ('model', 'x')]
    """
    for who, trace in (("guide", pair.guide), ("model", pair.model)):
        for _, site in sample_sites(trace):
            yield who, site


def _check_plates(who: str, site: Site, pair: TracePair) -> None:
    plates = data_plates(site)
    if not plates:
        return
    outer = [plate.name for plate in plates if plate.dim != -1]
    if outer:
        raise ScopeError(f"{who} {wrong_dim(site['name'], outer[0])}")
    plate = plates[0]
    if pair.rows is None or pair.rows == 1 or plate.size != pair.rows:
        return
    if plate.name not in pair.plate_names:
        raise ScopeError(
            f"{who} site {site['name']!r} is in plate {plate.name!r}, whose size {plate.size} "
            "equals the number of data, so it is unclear whether there is one value per datum; if "
            "there is, put the site into the plate of the observations, else use a batch of "
            "another size"
        )


def is_reparameterised(site: Site) -> bool:
    """True if the gradient of a guide's site passes through its sample, without a score term.

    >>> import pyro
    >>> with pyro.poutine.trace() as t:
    ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...     k = pyro.sample("k", dist.Bernoulli(0.5))
    >>> is_reparameterised(t.trace.nodes["z"]), is_reparameterised(t.trace.nodes["k"])
    (True, False)
    """
    fn = site["fn"]
    if not fn.has_rsample:
        return False
    # an override of `score_parts`, in the distribution or inside it, is asked for the site's value
    part: Any = fn
    while part is not None:
        score_parts = getattr(type(part), "score_parts", Distribution.score_parts)
        if score_parts not in SCORELESS:
            return not isinstance(fn.score_parts(site["value"]).score_function, Tensor)
        part = getattr(part, "base_dist", None)
    return True


def _why_not_reparameterised(site: Site) -> str:
    name = site["name"]
    if isinstance(site["fn"], dist.Unit):
        return (
            f"guide: pyro.factor({name!r}) needs has_rsample=True: otherwise Pyro adds a score "
            "term to its gradient. This, which is exact for any function of reparameterised "
            "samples and parameters"
        )
    if site["is_observed"]:
        return (
            f"guide site {name!r} is observed and has no reparameterised sample, so Pyro gives it "
            "a score term; leave it out of the guide, and add its log-probability as a term such "
            "as LabelLogProb"
        )
    return (
        f"guide site {name!r} is not (fully) reparameterised, so its gradient would be "
        'wrong; mark it infer={"enumerate": "parallel"} if it has few values, or use a '
        "reparameterised distribution"
    )


def _check_dependence(pair: TracePair) -> None:
    """Check that all sites that depend on the enumerated one are in its plate.

    Outside it, they could not be weighted by q(y|x).
    """
    label = pair.label or pair.summed_out
    if label is None:
        return
    label_plate = min(plate.name for plate in data_plates(label))
    for who, site in all_sites(pair):
        plates = data_plates(site)
        is_of_data = any(plate.size == pair.rows for plate in plates)
        if is_of_data or not _depends_on_label(site):
            continue
        where = "outside every plate"
        if plates:
            where = f"in plate {min(plate.name for plate in plates)!r}"
        raise ScopeError(
            f"{who} site {site['name']!r} depends on {label['name']!r}, which is enumerated in "
            f"plate {label_plate!r}, and is {where}; put it into the plate of {label['name']!r}"
        )


def _depends_on_label(site: Site) -> bool:
    """True if a site differs by the values of the enumerated one, along dimension -2."""
    shape = batch_shape(site)
    return len(shape) > 1 and shape[-2] > 1


def _check_scales(pair: TracePair) -> None:
    """Check that all sites that depend on the summed-out site have its scale.

    One scale multiplies the logarithm of the sum.
    """
    label = pair.summed_out
    if label is None:
        return
    for name, site in sample_sites(pair.model):
        depends = site is not label and _depends_on_label(site)
        if depends and not same_scale(site["scale"], label["scale"]):
            raise ScopeError(
                f"site {name!r} depends on {label['name']!r}, which the model sums out, and has "
                "another scale; give both one poutine.scale"
            )


def check_shapes(pair: TracePair, samples: int = 1) -> None:
    """Check shapes as Pyro does, and where each dimension of a log-density comes from.

    It belongs to the data, the label or the samples.

    Arguments:
        pair: The traces.
        samples: Number of samples S of the guide's sites, in dimension -3.

    Raises:
        ValueError: The traces do not match, or a log-density has a dimension that is not that of
            data, label or samples.

    >>> from pyro_ssl import TraceTopKEnum_ELBO, zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> bound = TraceTopKEnum_ELBO(None).bound(m2.model, m2.guide, torch.randn(5, 4))
    >>> pair = TracePair.of(bound.guide_trace, bound.model_trace, rows=5)
    >>> check_shapes(pair)
    """
    try:
        check_model_guide_match(pair.model, pair.guide, 1)
    except ValueError as error:
        raise ValueError(f"{error}; give the site the same event and batch shape in both") from None
    for who, site in all_sites(pair):
        if not _has_known_shape(site, pair, samples):
            raise ValueError(wrong_shape(who, site, pair.rows))


def wrong_shape(who: str, site: Site, rows: int | None) -> str:
    """Message for a site whose log-density does not have one value per datum.

    Arguments:
        who: "guide" or "model".
        site: The site.
        rows: Number of data.

    >>> import pyro
    >>> with pyro.poutine.trace() as t:
    ...     z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0))
    >>> wrong_shape("model", t.trace.nodes["z"], 5).partition(";")[0]
    "model site 'z': log_prob has shape (3,), should have (*, 5), one value per datum"
    """
    return (
        f"{who} site {site['name']!r}: log_prob has shape {tuple(log_prob(site).shape)}, "
        f"should have (*, {rows}), one value per datum; put the site into "
        "pyro.plate('data', len(x)) and its event dimensions into .to_event()"
    )


def _has_known_shape(site: Site, pair: TracePair, samples: int) -> bool:
    """True if each dimension of a log-density is that of a plate, the label or the samples."""
    shape = log_prob(site).shape
    # A z before y in the model may depend on the class of y, which Pyro would report as a conflict
    # of dimensions.
    unmarked: Any = {**site, "infer": {}, "log_prob": torch.empty(shape, device="meta")}
    try:
        check_site_shape(unmarked, 1)
    except ValueError:
        return False
    beside_data = shape[:-1]
    known_sizes = (samples, pair.num_values)
    if len(beside_data) > len(known_sizes):
        return False
    expected = known_sizes[len(known_sizes) - len(beside_data) :]
    return all(size in (1, most) for size, most in zip(beside_data, expected, strict=True))

"""Whether data are in the units and the support of the model."""

from __future__ import annotations

from typing import Any

from pyro.poutine import Trace
from torch import Tensor

from pyro_ssl.infer.sites import Site, log_prob, sample_sites


def check_input_units(x: Tensor, limit: float) -> None:
    """Raise ValueError if more than a tenth of a column of x is beyond a limit.

    At most 1 % of a standardised column is beyond 10, whatever its distribution (Chebyshev).

    Arguments:
        x: Data `(B, *event)`.
        limit: The largest absolute value of ordinary data.

    >>> import torch
    >>> check_input_units(torch.randn(100, 4), 10.0)
    """
    if not x.is_floating_point():
        return
    beyond = (x.abs() > limit).flatten(1).sum(0).max().item()
    if beyond > max(1, 0.1 * len(x)):
        raise ValueError(
            f"x: {beyond} of {len(x)} data are beyond {limit:g} in one of their numbers, up to "
            f"{x.abs().max().item():.4g}; the networks take numbers of about 1: divide pixels "
            "0 .. 255 by 255, standardise columns"
        )


def check_site_support(site: Site) -> None:
    """Raise ValueError if a site is observed outside the support of its distribution."""
    value = site["value"]
    if not site["is_observed"] or not isinstance(value, Tensor):
        return
    fn = site["fn"]
    if fn.support.check(value).all():
        return
    low = value.min().item()
    high = value.max().item()
    raise ValueError(
        f"site {site['name']!r} is observed outside the support of its {family_of(fn)}: got "
        f"values in [{low:.4g}, {high:.4g}]; {_support_fix(fn)}"
    )


def _support_fix(fn: Any) -> str:
    family = family_of(fn)
    inner = _innermost(fn)
    if family.endswith("Bernoulli") or family == "Beta":
        return (
            "for pixels 0 .. 255 divide by 255 (and do not standardise), for other data choose a "
            "Gaussian likelihood"
        )
    if family == "Multinomial":
        return (
            "each row should hold counts, whole numbers that sum to total_count, "
            f"{int(inner.total_count)}"
        )
    if inner.support.is_discrete:
        return (
            f"a {family} wants {inner.support}, such as counts that are neither scaled nor "
            "standardised"
        )
    return f"a {family} wants {fn.support}; give such data, or choose another likelihood"


def check_site_units(site: Site) -> None:
    """Raise ValueError if a Gaussian is observed hundreds of standard deviations from 0.

    Such data, pixels 0 .. 255 for example, are in other units than the model. The scale of y is not
    checked, since it is to be learned.
    """
    if not site["is_observed"] or site["name"] == "y" or family_of(site["fn"]) != "Normal":
        return
    sigma = site["fn"].stddev.min().item()
    largest = site["value"].abs().max().item()
    if largest > 300 * sigma:
        raise ValueError(
            f"site {site['name']!r} is observed up to {largest:.4g}, more than 300 times its "
            f"standard deviation {sigma:.4g}; for pixels 0 .. 255 divide by 255, standardise other "
            "data, or give a larger sigma"
        )


def family_of(fn: Any) -> str:
    """Name of a distribution's family, without what is wrapped around it."""
    return type(_innermost(fn)).__name__


def _innermost(fn: Any) -> Any:
    base = getattr(fn, "base_dist", None)
    return fn if base is None else _innermost(base)


def first_nonfinite(*traces: Trace) -> str | None:
    """Name of the first site, guide first, whose value or log-density is not finite."""
    for trace in traces:
        for name, site in sample_sites(trace):
            if not (site["value"].isfinite().all() and log_prob(site).isfinite().all()):
                return name
    return None

"""Check that data are in the units and the support of the model."""

from __future__ import annotations

from typing import Any

from pyro.poutine import Trace
from torch import Tensor

from pyro_ssl.infer.sites import Site, log_prob, sample_sites


def check_input_units(x: Tensor, limit: float) -> None:
    """Check that at most a tenth of each column of x is beyond a limit.

    Of a standardised column, at most 1 % is beyond 10, whatever its distribution (Chebyshev).

    Arguments:
        x: Data `(B, *event)`.
        limit: Largest absolute value of ordinary data.

    Raises:
        ValueError: More than a tenth of a column is beyond the limit.

    >>> import torch
    >>> check_input_units(torch.randn(100, 4), 10.0)
    """
    if not x.is_floating_point():
        return
    beyond = (x.abs() > limit).flatten(1).sum(0).max().item()
    if beyond > max(1, 0.1 * len(x)):
        raise ValueError(
            f"x: {beyond} of {len(x)} data are beyond {limit:g} in one of their numbers, up to "
            f"{x.abs().max().item():.4g}; the networks expect numbers of about 1: divide pixels "
            "0 .. 255 by 255, standardise columns"
        )


def check_site_support(site: Site) -> None:
    """Check that an observed site is in the support of its distribution.

    Raises:
        ValueError: It is not; the message says how to fix it.

    >>> import pyro, pyro.distributions as dist, torch
    >>> with pyro.poutine.trace() as t, pyro.validation_enabled(False):
    ...     x = pyro.sample("x", dist.Poisson(1.0), obs=torch.tensor(0.5))
    >>> check_site_support(t.trace.nodes["x"])
    Traceback (most recent call last):
    ValueError: site 'x' is observed outside the support of its Poisson: ...
    """
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
            f"a {family} needs {inner.support}, such as counts that are neither scaled nor "
            "standardised"
        )
    return f"a {family} needs {fn.support}; give such data, or choose another likelihood"


def check_site_units(site: Site) -> None:
    """Check that a Gaussian is not observed hundreds of standard deviations from 0.

    Such data, pixels 0 .. 255 for example, are in other units than the model. y is not checked,
    since its scale is learned.

    Raises:
        ValueError: It is; the message says how to fix it.

    >>> import pyro, pyro.distributions as dist, torch
    >>> with pyro.poutine.trace() as t:
    ...     x = pyro.sample("x", dist.Normal(0.0, 0.5), obs=torch.tensor(255.0))
    >>> check_site_units(t.trace.nodes["x"])
    Traceback (most recent call last):
    ValueError: site 'x' is observed up to 255, more than 300 times its standard deviation 0.5; ...
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
    """Name of a distribution's family, without wrappers such as `Independent`.

    >>> import pyro.distributions as dist, torch
    >>> family_of(dist.Normal(torch.zeros(3), 1.0).to_event(1))
    'Normal'
    """
    return type(_innermost(fn)).__name__


def _innermost(fn: Any) -> Any:
    base = getattr(fn, "base_dist", None)
    return fn if base is None else _innermost(base)


def first_nonfinite(*traces: Trace) -> str | None:
    """Name of the first site whose value or log-density is not finite; None if all are.

    Arguments:
        traces: Traces to search, in this order.

    >>> import pyro, pyro.distributions as dist, torch
    >>> with pyro.poutine.trace() as t, pyro.validation_enabled(False):
    ...     x = pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(torch.inf))
    >>> first_nonfinite(t.trace)
    'x'
    """
    for trace in traces:
        for name, site in sample_sites(trace):
            if not (site["value"].isfinite().all() and log_prob(site).isfinite().all()):
                return name
    return None

"""Checks of a site before it is enumerated or sampled, while a program runs."""

from __future__ import annotations

from torch.distributions import Independent

from pyro_ssl.infer.checks.scope_error import ScopeError
from pyro_ssl.infer.sites import Site, data_plates


def check_enumerable(site: Site, other: str | None) -> None:
    """Check that a site can be enumerated.

    Arguments:
        site: The site.
        other: Name of a site that is already enumerated, or None.

    Raises:
        ScopeError: The site cannot be enumerated; the message says how to fix it.

    >>> site = {"name": "y", "infer": {}, "cond_indep_stack": ()}
    >>> check_enumerable(site, "k")
    Traceback (most recent call last):
    pyro_ssl.infer.checks.scope_error.ScopeError: sites 'k' and 'y' are both enumerated, ...
    """
    name = site["name"]
    if other is not None:
        raise ScopeError(
            f"sites {other!r} and {name!r} are both enumerated, and model and guide together may "
            "have one such site"
        )
    _check_num_samples(site)
    plates = data_plates(site)
    if not plates:
        raise ScopeError(
            f"site {name!r} is enumerated outside every plate; put it into "
            "pyro.plate('data', len(x))"
        )
    outer = [plate.name for plate in plates if plate.dim != -1]
    if outer:
        raise ScopeError(wrong_dim(name, outer[0]))


def wrong_dim(name: str, plate: str) -> str:
    """Message for a site in a plate that is not at dimension -1.

    >>> wrong_dim("z", "pixels").partition(";")[0]
    "site 'z' is in plate 'pixels', which is not at dim -1"
    """
    return (
        f"site {name!r} is in plate {plate!r}, which is not at dim -1; use .to_event() instead of "
        "the plate"
    )


def check_sampled(site: Site) -> None:
    """Check that a site that is not enumerated may be sampled.

    Raises:
        ScopeError: Its `infer` asks for something else; the message says how to fix it.

    >>> check_sampled({"name": "y", "infer": {"enumerate": "sequential"}})
    Traceback (most recent call last):
    pyro_ssl.infer.checks.scope_error.ScopeError: site 'y' is marked "sequential"; ...
    """
    name = site["name"]
    how = site["infer"].get("enumerate")
    if how == "sequential":
        raise ScopeError(
            f'site {name!r} is marked "sequential"; mark it infer={{"enumerate": "parallel"}}'
        )
    _check_num_samples(site)
    fn = site["fn"]
    if how == "parallel" and isinstance(fn, Independent) and fn.base_dist.has_enumerate_support:
        raise ScopeError(
            f"site {name!r} is marked for enumeration, but .to_event() makes one variable of "
            "several discrete ones, whose combinations Pyro does not enumerate; use a "
            "OneHotCategorical over the combinations"
        )


def _check_num_samples(site: Site) -> None:
    if site["infer"].get("num_samples") is not None:
        raise ScopeError(
            f'site {site["name"]!r} has infer={{"num_samples": ...}}; use num_particles instead'
        )

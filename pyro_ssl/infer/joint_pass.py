"""Find out whether labeled and unlabeled data can share one pass through the programs."""

from __future__ import annotations

from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor, nn

from pyro_ssl.infer.checks.pair import trial
from pyro_ssl.infer.enumeration import EnumerateMessenger
from pyro_ssl.infer.sites import (
    Site,
    is_enumerated,
    is_per_datum,
    latent_sites,
    log_prob,
    sample_sites,
)
from pyro_ssl.types import classifies_by_one_draw
from pyro_ssl.utils.context import parts_in_eval_mode


def joint_pass_is_exact(model: nn.Module, guide: Any, batch: Any) -> bool:
    """Return True if labeled and unlabeled data can share a pass without changing either bound.

    The guide must enumerate `y`, with the q(y|x) of `classify`. At the same values, every other
    site must have the same log-density whether y is given or enumerated. The comparison is in eval
    mode, since batch norm in training mode mixes data. The random state is restored.

    Arguments:
        model: The model.
        guide: Its guide.
        batch: A `Batch` with labeled and unlabeled data.

    >>> from pyro_ssl import Batch, zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> batch = Batch(torch.randn(3, 4), torch.eye(3), torch.randn(5, 4))
    >>> joint_pass_is_exact(m2.model, m2.guide, batch)
    True
    """
    parts = [part for program in (model, guide) for part in program.modules()]
    try:
        with parts_in_eval_mode(parts), trial():
            return _is_exact(model, guide, batch)
    except (ValueError, RuntimeError, IndexError, TypeError):
        return False  # the pair supports labeled or unlabeled data, not both at once


def _is_exact(model: nn.Module, guide: Any, batch: Any) -> bool:
    x = batch.x
    y = batch.y
    both = torch.cat([x, batch.x_unlabeled])
    messenger = EnumerateMessenger(1, labels=y, rows=len(both))
    joint_guide = poutine.trace(messenger(guide)).get_trace(both)
    joint_model = poutine.trace(poutine.replay(model, joint_guide)).get_trace(both)
    label = dict(sample_sites(joint_guide)).get("y")
    if label is None or not is_enumerated(label):
        return False
    q = torch.cat([guide.classify(part).mean for part in (x, batch.x_unlabeled)])
    if not classifies_by_one_draw(guide) and not _is_close(label["fn"].mean, q):
        return False
    latents = {
        name: _first_values(site, len(x), len(both))
        for name, site in latent_sites(joint_guide).items()
        if name != "y"
    }
    guide_alone = poutine.trace(poutine.condition(guide, latents)).get_trace(x, y)
    model_alone = poutine.trace(poutine.condition(model, latents)).get_trace(x, y)
    return _are_same(guide_alone, joint_guide, len(x), len(both), without="y") and _are_same(
        model_alone, joint_model, len(x), len(both)
    )


def _first_values(site: Site, n: int, rows: int) -> Tensor:
    """Return a site's values at the first n data and the first class, or a shared site's value."""
    value: Tensor = site["value"]
    if not is_per_datum(site, rows):
        return value
    event_dim = site["fn"].event_dim
    if value.dim() - event_dim > 1:
        value = value.select(-2 - event_dim, 0)
    return value.narrow(-1 - event_dim, 0, n)


def _is_close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def _are_same(alone: Trace, joint: Trace, n: int, rows: int, without: str = "") -> bool:
    """Return True if traces have the same sites, and equal log-densities of the first n data."""
    sites = dict(sample_sites(alone))
    joint_sites = {name: site for name, site in sample_sites(joint) if name != without}
    if sites.keys() != joint_sites.keys():
        return False
    return all(_has_same_log_prob(sites[name], joint_sites[name], n, rows) for name in sites)


def _has_same_log_prob(alone: Site, joint: Site, n: int, rows: int) -> bool:
    one = log_prob(alone)
    other = log_prob(joint)
    if not is_per_datum(joint, rows):
        return one.shape == other.shape and torch.allclose(one, other)
    if other.dim() > 1:
        other = other[0]  # the first class
    other = other[:n]
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-4)

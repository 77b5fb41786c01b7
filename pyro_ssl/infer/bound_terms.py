"""The terms of a bound, as functions of a pair of traces.

A function of this file with values for the enumerated label has them in dimension -2, and samples,
if there are several, in dimension -3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_ssl.infer.closed_form import entropy_of
from pyro_ssl.infer.sites import Site, is_enumerated, log_prob, sample_sites, scaled
from pyro_ssl.infer.traces import TracePair


def log_weight(pair: TracePair, closed: dict[str, Tensor]) -> Tensor:
    r"""f(y) = log p(x, y, z) - log q(z|x, y), `([S,] V, B)`, without log q(y|x).

    Sites that all data share are left out. A site in closed form counts with minus its KL. The mask
    of the site that the model sums out is not applied, since its probabilities sum to 1.

    Arguments:
        pair: The traces.
        closed: KL by site, in closed form.
    """
    summed_out = None if pair.summed_out is None else pair.summed_out["name"]
    f = torch.zeros(())
    for name, site in sample_sites(pair.model):
        if pair.is_shared(site):
            continue
        if name == summed_out:
            f = f + log_prob(site | {"mask": None})
        elif name not in closed:
            f = f + log_prob(site)
        elif not is_enumerated(site):
            f = f - closed[name]
    for name, site in sample_sites(pair.guide):
        if not is_enumerated(site) and name not in closed and not pair.is_shared(site):
            f = f - log_prob(site)
    return f


def sum_of_sites(pair: TracePair, names: set[str]) -> Tensor:
    """Summed log-densities of sites of the model, `([S,] V, B)`.

    Raises:
        ValueError: The model has no site of that name.
    """
    unknown = sorted(names - {name for name, _ in sample_sites(pair.model)})
    if unknown:
        raise ValueError(f"only: the model has no site {', '.join(unknown)}")
    f = torch.zeros(())
    for name, site in sample_sites(pair.model):
        if name in names:
            f = f + log_prob(site)
    return f


def shared_cost(pair: TracePair, closed: dict[str, Tensor]) -> Tensor | None:
    """log q(W) - log p(W), or KL(q(W) || p(W)), of what all data share; None if there is nothing.

    Observations and factors outside the plate count as well, with minus their logarithm.
    """
    terms: list[Tensor] = []
    for name, site in sample_sites(pair.guide):
        if pair.is_shared(site):
            terms.append(closed[name] if name in closed else log_prob(site))
    for name, site in sample_sites(pair.model):
        if pair.is_shared(site) and name not in closed:
            terms.append(-log_prob(site))
    if not terms:
        return None
    return torch.stack([term.sum() for term in terms]).sum()


def sum_out(f: Tensor, site: Site | None) -> Tensor:
    """log sum_y exp f(y), for the y that the model enumerates.

    The scale, one for y and all that depends on it, stands outside the logarithm.
    """
    if site is None:
        return f.squeeze(-2) if f.dim() > 1 else f
    scale = site["scale"]
    total: Tensor = scale * (f / scale).logsumexp(-2)
    return total


def label_terms(pair: TracePair, f: Tensor, kl: Tensor | None) -> tuple[Tensor, Tensor]:
    """f(y), and what the label adds to its expectation: H(q(y|x)), or -KL(q(y|x) || p(y)).

    With the KL, f(y) has no log p(y), which rows with a given label need instead; and a given label
    has no entropy.

    Arguments:
        pair: The traces, of a guide that enumerates.
        f: f(y), `([S,] V, B)`; without log p(y) if there is a KL.
        kl: KL(q(y|x) || p(y)), if it is taken in closed form.
    """
    assert pair.label is not None
    notes = pair.label["infer"]
    known = notes["known"]
    if kl is None:
        rest = scaled(pair.label, entropy_of(notes["log_q"]))
    else:
        rest = -kl
        if known:
            log_p = log_prob(dict(sample_sites(pair.model))[pair.label["name"]])
            none = torch.zeros_like(log_p[..., known:])
            f = f + torch.cat([log_p[..., :known], none], -1)
    rest = rest.squeeze(-2) if rest.dim() > 1 else rest
    if known:
        rest = torch.cat([torch.zeros_like(rest[..., :known]), rest[..., known:]], -1)
    return f, rest


def expectation(f: Tensor, weights: Tensor) -> Tensor:
    """sum_y w(y) f(y), `([S,] B)`, with a baseline in the gradient with respect to w.

    The weights sum to one whatever the parameters of q(y|x), or do so in expectation, so
    subtracting the f of the first class changes no gradient in the mean. With `top_k`, the first
    class is the likeliest: it must not depend on the class drawn, or the estimate is biased.
    """
    fixed = weights.detach()
    # 0 log 0 = 0: a class that both programs rule out adds nothing
    f = torch.where(fixed == 0, 0.0, f)
    constant = f.detach()
    baseline = constant[..., :1, :]
    return torch.addcmul(fixed * f, weights - fixed, constant - baseline).sum(-2)

"""From a pair of traces to a bound: sums and expectations of its sites' log-densities.

In shapes, V is the number of values of the enumerated label, S of samples and B of data. The
dimension of S is there only if there are several samples.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pyro.poutine import Trace
from torch import Tensor

from pyro_ssl.infer.closed_form import entropy_of
from pyro_ssl.infer.sites import Site, is_enumerated, log_prob, sample_sites, scaled
from pyro_ssl.infer.traces import TracePair


def log_weight(pair: TracePair, closed: dict[str, Tensor]) -> Tensor:
    r"""f(y) = log p(x, y, z) - log q(z|x, y), `([S,] V, B)`, without log q(y|x).

    Sites that all data share are left out. For a site in `closed`, minus its KL replaces
    log p - log q. A mask of the site that the model sums out is ignored, since the probabilities of
    its values sum to 1.

    Arguments:
        pair: The traces.
        closed: KL in closed form, by site.

    >>> from pyro_ssl import TraceTopKEnum_ELBO, zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> bound = TraceTopKEnum_ELBO(None).bound(m2.model, m2.guide, torch.randn(5, 4))
    >>> pair = TracePair.of(bound.guide_trace, bound.model_trace, rows=5)
    >>> log_weight(pair, {}).shape
    torch.Size([3, 5])
    """
    summed_out = None if pair.summed_out is None else pair.summed_out["name"]
    f = torch.zeros(())
    for name, site in _sites_per_datum(pair, pair.model):
        if name == summed_out:
            f = f + log_prob(site | {"mask": None})
        elif name not in closed:
            f = f + log_prob(site)
        elif not is_enumerated(site):
            f = f - closed[name]
    for name, site in _sites_per_datum(pair, pair.guide):
        if name not in closed and not is_enumerated(site):
            f = f - log_prob(site)
    return f


def _sites_per_datum(pair: TracePair, trace: Trace) -> Iterator[tuple[str, Site]]:
    """Iterate over the sites of one of the traces that have a value per datum."""
    for name, site in sample_sites(trace):
        if not pair.is_shared(site):
            yield name, site


def sum_of_sites(pair: TracePair, names: set[str]) -> Tensor:
    """Sum of the log-densities of some sites of the model, `([S,] V, B)`.

    Raises:
        ValueError: The model has no site of one of the names.

    >>> from pyro_ssl import TraceTopKEnum_ELBO, zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> bound = TraceTopKEnum_ELBO(None).bound(m2.model, m2.guide, torch.randn(5, 4))
    >>> pair = TracePair.of(bound.guide_trace, bound.model_trace, rows=5)
    >>> sum_of_sites(pair, {"x"}).shape
    torch.Size([3, 5])
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
    """Sum of log q(W) - log p(W), or of KL(q(W) || p(W)), over sites that all data share.

    Minus the log-densities of observations and factors outside the plate are added. None if no site
    is shared.

    >>> from pyro_ssl import TraceTopKEnum_ELBO, zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> bound = TraceTopKEnum_ELBO(None).bound(m2.model, m2.guide, torch.randn(5, 4))
    >>> pair = TracePair.of(bound.guide_trace, bound.model_trace, rows=5)
    >>> shared_cost(pair, {}) is None
    True
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
    """log sum_y exp f(y) over the values of a site that the model enumerates.

    The site and all that depend on it have one scale, which multiplies the logarithm.

    Arguments:
        f: f(y), `([S,] V, B)`, with its scale.
        site: The site of y; None if the model enumerates nothing, and V is 1.

    >>> sum_out(torch.tensor([[1.0], [3.0]]).log(), {"scale": 1.0}).exp()
    tensor([4.])
    """
    if site is None:
        return f.squeeze(-2) if f.dim() > 1 else f
    scale = site["scale"]
    total: Tensor = scale * (f / scale).logsumexp(-2)
    return total


def label_terms(pair: TracePair, f: Tensor, kl: Tensor | None) -> tuple[Tensor, Tensor]:
    """Split the bound into f(y) and a term outside the sum over y.

    The term is H(q(y|x)), or -KL(q(y|x) || p(y)) if `kl` is given, since f(y) then lacks log p(y).
    For rows with a given label it is 0, and log p(y) is added to their f(y).

    Arguments:
        pair: The traces of a guide that enumerates y, and of its model.
        f: f(y), `([S,] V, B)`; without log p(y) if `kl` is given.
        kl: KL(q(y|x) || p(y)) in closed form, `([S,] B)`, or None.

    Returns:
        f(y), `([S,] V, B)`, and the term, `([S,] B)`.

    >>> from pyro_ssl import TraceTopKEnum_ELBO, zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> bound = TraceTopKEnum_ELBO(None).bound(m2.model, m2.guide, torch.randn(5, 4))
    >>> pair = TracePair.of(bound.guide_trace, bound.model_trace, rows=5)
    >>> f, term = label_terms(pair, log_weight(pair, {}), None)
    >>> f.shape, term.shape
    (torch.Size([3, 5]), torch.Size([5]))
    """
    assert pair.label is not None
    enumeration = pair.label["infer"]
    known = enumeration["known"]
    if kl is None:
        rest = scaled(pair.label, entropy_of(enumeration["log_q"]))
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
    """sum_y w(y) f(y), with a baseline that lowers the variance of the gradient.

    In the gradient with respect to w, f of the first class is subtracted from all f. The weights
    sum to one, at least in expectation, so this does not change the mean of the gradient. With
    `top_k`, the first class is the likeliest. A baseline that depends on the drawn class would bias
    the gradient.

    Arguments:
        f: f(y), `([S,] V, B)`.
        weights: w(y), `([S,] V, B)`.

    Returns:
        The sum, `([S,] B)`.

    >>> expectation(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.5], [0.5]]))
    tensor([2.])
    """
    fixed = weights.detach()
    # 0 log 0 = 0: a class with probability 0 in both programs adds nothing
    f = torch.where(fixed == 0, 0.0, f)
    constant = f.detach()
    baseline = constant[..., :1, :]
    return torch.addcmul(fixed * f, weights - fixed, constant - baseline).sum(-2)

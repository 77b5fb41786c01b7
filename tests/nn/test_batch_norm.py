"""Batch norm: torch's, weighted by classes, and of random weights."""

import pytest
import torch
from comparisons import seeded
from programs.bayesian import D, K, X, pieces, sslapd
from torch import Tensor, nn

from pyro_ssl import (
    MLP,
)
from pyro_ssl.nn.norm import BatchNorm
from pyro_ssl.nn.random_weights import RandomWeights
from pyro_ssl.nn.tensor_marks import class_weights, mark_normal

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_batch_norm_is_torchs_but_for_the_running_variance():
    ours, theirs = BatchNorm(4), nn.BatchNorm1d(4)
    h = 3 * torch.randn(7, 4, generator=torch.Generator().manual_seed(0)) + 1
    a, b = h.clone().requires_grad_(), h.clone().requires_grad_()
    outs = ours(a), theirs(b)
    assert torch.allclose(*outs, atol=1e-12)
    assert torch.allclose(
        *(torch.autograd.grad(out.sin().sum(), t)[0] for out, t in zip(outs, (a, b), strict=True))
    )
    assert torch.allclose(ours.running_mean, theirs.running_mean)
    assert torch.allclose(
        ours.running_var, 0.9 + 0.1 * h.var(0, unbiased=False)
    )  # paper 002, eq. 5.5: the batch's own
    assert torch.allclose(theirs.running_var, 0.9 + 0.1 * h.var(0))
    theirs.load_state_dict(ours.state_dict())
    assert torch.allclose(ours.eval()(h), theirs.eval()(h), atol=1e-12)


def normed(h: Tensor, log_weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """What a new batch norm gives, and its statistics."""
    layer, token = BatchNorm(h.shape[-1]), class_weights.set(log_weights)
    try:
        out = layer(h)
    finally:
        class_weights.reset(token)
    return out.detach(), layer.running_mean / 0.1, (layer.running_var - 0.9) / 0.1


def test_under_enumeration_each_class_counts_with_its_probability():
    h = torch.randn(K, 7, 4, generator=torch.Generator().manual_seed(0))
    q = torch.rand(K, 7, generator=torch.Generator().manual_seed(1)).softmax(0)
    out, mean, var = normed(h, q.log())
    by_hand = sum(q[k, i] * h[k, i] for k in range(K) for i in range(7)) / 7
    spread = sum(q[k, i] * (h[k, i] - by_hand) ** 2 for k in range(K) for i in range(7)) / 7
    assert torch.allclose(mean, by_hand) and torch.allclose(var, spread)
    assert torch.allclose(out, (h - by_hand) / (spread + 1e-5).sqrt())
    unweighted = normed(h, None)
    assert torch.allclose(unweighted[1], h.mean((0, 1))) and not torch.allclose(
        unweighted[1], mean, atol=1e-2
    )


def test_classes_without_weight_count_for_nothing():
    g = torch.Generator().manual_seed(0)
    h, y = torch.randn(K, 7, 4, generator=g), torch.arange(7) % K
    log_q = torch.full((K, 7), -torch.inf).scatter(0, y[None], 0.0)
    chosen = h[y, torch.arange(7)]
    out, mean, var = normed(h, log_q)
    assert torch.allclose(mean, chosen.mean(0)) and torch.allclose(
        var, chosen.var(0, unbiased=False)
    )
    assert torch.allclose(out[y, torch.arange(7)], BatchNorm(4)(chosen).detach())
    other = torch.where((log_q == 0)[..., None], h, 100 + h)
    again = normed(other, log_q)
    assert torch.allclose(again[1], mean) and torch.allclose(again[2], var)
    assert not torch.allclose(normed(other, None)[1], mean, atol=1.0)


@pytest.mark.parametrize("local", [False, True])
def test_statistics_of_random_weights_are_those_of_their_means(local):
    network = MLP(D, 2, (4, 3), activation=nn.Tanh, batch_norm=True)
    slots, norms = (
        RandomWeights(network),
        [part for part in network.modules() if isinstance(part, BatchNorm)],
    )
    mu, scale = slots.initial + 0.1, torch.full_like(slots.initial, 0.7)
    w = mu + scale * torch.randn(len(mu), generator=torch.Generator().manual_seed(0))
    mark_normal(w, mu, scale if local else None)
    seen = {}
    hooks = [
        n.register_forward_pre_hook(lambda n, h: seen.update({n: h[0].detach().clone()}))
        for n in norms
    ]
    hooks += [
        n.register_forward_hook(lambda n, _, out: seen.update({(n, "out"): out.detach()}))
        for n in norms
    ]
    with slots.substituted(w), torch.no_grad():
        torch.manual_seed(0)
        network(X)
    with slots.substituted(mu), torch.no_grad():
        a = X
        for layer, norm in ((network.first, norms[0]), (network.rest[2], norms[1])):
            mean = layer(a)  # mu_W a + mu_b, where a is what the drawn weights below have made
            assert not torch.allclose(mean, seen[norm], atol=0.1)
            expected = (seen[norm] - mean.mean(0)) / (mean.var(0, unbiased=False) + 1e-5).sqrt()
            assert torch.allclose(seen[norm, "out"], expected, atol=1e-12)
            assert torch.allclose(norm.running_mean, 0.1 * mean.mean(0))
            assert not torch.allclose(norm.running_mean, 0.1 * seen[norm].mean(0), atol=1e-3)
            a = torch.tanh(seen[norm, "out"])


@pytest.mark.parametrize("adapted", [True, False])
def test_a_step_of_sslapd_takes_weighted_statistics_of_the_means(adapted):
    o, u = sslapd(batch_norm=True, norm_from_mean_weights=adapted), X[6:]
    with torch.no_grad():
        sites = seeded(o._bound, u, None).guide_trace.nodes
        z, q = sites["z"]["value"], sites["y"]["infer"]["log_q"].exp()
        p = pieces(
            o.model, o.model.program.p_y.network, o.guide.loc if adapted else sites["W"]["value"]
        )
        h = u @ p["first.weights.0"] + z @ p["first.weights.1"] + p["first.bias"]  # (K, B, H)
        mean = torch.einsum("bk,kbh->h", q, h) / len(u)
        var = torch.einsum("bk,kbh->h", q, (h - mean) ** 2) / len(u)
    norm = o.model.program.p_y.network.rest[0]
    assert torch.allclose(norm.running_mean, 0.1 * mean) and torch.allclose(
        norm.running_var, 0.9 + 0.1 * var
    )

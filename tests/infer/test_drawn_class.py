"""The class that is drawn beside the likeliest."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from programs.pitfalls import X, small
from pyro import poutine

from pyro_ssl import (
    Objective,
    TraceTopKEnum_ELBO,
)
from pyro_ssl.infer.enumeration import EnumerateMessenger


def classes_and_log_weights(log_q: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What an enumerated site with q(y|x) gets.

    The likeliest classes and the one drawn, each `(top_k + 1, B)`.
    """

    def guide():
        with pyro.plate("data", len(log_q)):
            pyro.sample("y", dist.OneHotCategorical(logits=log_q), infer={"enumerate": "parallel"})

    site = poutine.trace(EnumerateMessenger(top_k)(guide)).get_trace().nodes["y"]
    assert (site["value"].sum(-1) == 1).all() and len(site["value"]) == top_k + 1
    return site["value"].argmax(-1), site["infer"]["log_weights"]


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize(
    "logits",
    [
        [1000.0, -1000.0, 0.0, -1000.0],
        [100.0, -60.0, -60.0, -60.0],
        [0.0, -torch.inf, -torch.inf, -torch.inf],
    ],
)
def test_a_likeliest_class_is_never_drawn_again(logits, top_k):
    n = 20_000
    log_q = torch.tensor(logits).log_softmax(-1).expand(n, 4).clone().requires_grad_()
    assert log_q[0].exp().tolist() == [1, 0, 0, 0]
    index, log_weights = classes_and_log_weights(log_q, top_k)
    best, drawn = index[:top_k], index[top_k]
    assert (best[0] == 0).all() and not (best == drawn).any()
    total = log_weights.exp().sum(0)
    assert torch.allclose(total, torch.ones(n)) and log_weights.exp().isfinite().all()
    (gradient,) = torch.autograd.grad(total.sum(), log_q)
    assert gradient.isfinite().all() and gradient.abs().max() <= 1


@pytest.mark.parametrize("u", [0.0, 1 - 2**-24])
@pytest.mark.parametrize("spread", [1.0, 50.0, 1000.0])
@pytest.mark.parametrize("classes", [3, 10, 1000])
def test_an_extreme_draw_does_not_draw_the_likeliest_again(classes, spread, u, monkeypatch):
    """The ends of what a float32 uniform can be, with the likeliest anywhere, and first or last."""
    logits = spread * torch.randn(300, classes, generator=torch.Generator().manual_seed(0))
    logits[:100], logits[100:200] = (
        logits[:100].sort(-1).values,
        logits[100:200].sort(-1, descending=True).values,
    )
    drawn = []
    monkeypatch.setattr(torch, "rand_like", lambda t: drawn.append(t) or torch.full_like(t, u))
    index, log_weights = classes_and_log_weights(logits.log_softmax(-1), 1)
    assert len(drawn) == 1
    assert torch.equal(index[0], logits.argmax(-1)) and not (index[0] == index[1]).any()
    assert log_weights.isfinite().all() and log_weights.max() < 1e-5


def test_the_loss_of_a_saturated_classifier_does_not_jump():
    o = small(top_k=1)
    with torch.no_grad():
        o.guide.q_y.network.rest[-1].bias.copy_(torch.tensor([300.0, 0.0, 0.0]))
        assert o.classify(X).probs.max(-1).values.min() == 1
        torch.manual_seed(0)
        exact = Objective(o.model, o.guide, elbo=TraceTopKEnum_ELBO(None)).bound(X)
        values = torch.stack([o.bound(X) for _ in range(100)])
    assert (
        values.isfinite().all()
        and values.min() > exact.min() - 100
        and values.max() < exact.max() + 100
    )

"""Predictions of methods that draw before y, and data of another shape."""

import math

import pytest
import torch
from programs.zoo_pairs import BY_HAND, LATENT, B, D, K, build, data

from pyro_ssl import (
    Batch,
    zoo,
)

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("method", ["adgm", "sdgm", *LATENT])
def test_a_prediction_averages_over_what_is_drawn_first(method):
    """Against an average over many draws; in training it is of one, which teaches the encoder."""
    o, (x, y) = build(method, draws=10_000).eval(), data()
    g = o.guide
    first = next(getattr(g, name) for name in ("q_a", "q_z_y", "q_z") if hasattr(g, name))
    p_y = (lambda a: g.q_y(x, a)) if hasattr(g, "q_a") else g.p_y
    torch.manual_seed(0)
    with torch.no_grad():
        each = p_y(first(x).sample(torch.Size([50_000]))).mean
    mean, error = each.mean(0), each.std(0) * math.sqrt(1 / 10_000 + 1 / 50_000)
    assert ((o.classify(x).mean - mean).abs() < 5 * error).all()
    one = o.train().classify(x)
    assert not torch.allclose(one.mean, mean, atol=1e-2)
    one.log_prob(y).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in first.parameters())


@pytest.mark.parametrize("method", BY_HAND)
def test_data_of_another_shape_are_refused(method):
    o, y = build(method), data()[1]
    for wrong in (torch.randn(B, D + 1), torch.randn(B)):
        with pytest.raises(ValueError, match=rf"input 0 should have shape \(\*, {D}\)"):
            o.check(Batch(wrong, y, wrong))


@pytest.mark.parametrize("method", LATENT)
def test_the_codes_classifier_is_one_in_model_and_guide(method):
    """p(y|z) has no dropout, which would be drawn twice: it still cancels from 003's bound."""
    o, x = zoo.build(method, (D,), K, hidden=(5,), dropout=0.3).double(), data()[0]
    assert o.training and not any(
        isinstance(part, torch.nn.Dropout) for part in o.model.p_y.modules()
    )
    assert any(isinstance(part, torch.nn.Dropout) for part in o.guide.modules())
    z = torch.randn(len(x), next(iter(o.model.p_y.network.first.weights)).shape[0])
    assert torch.equal(o.model.p_y(z).logits, o.guide.p_y(z).logits)

"""Outputs that are drawn in place of weights."""

import pyro
import pytest
import torch
from comparisons import seeded
from programs.bayesian import D, H, K, X, regression
from torch import Tensor, nn

from pyro_ssl import (
    Batch,
)
from pyro_ssl.nn.layers import Linear, SplitLinear
from pyro_ssl.nn.random_weights import RandomWeights
from pyro_ssl.nn.tensor_marks import mark_normal, mark_one_hot, mean_of

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def drawn_layer(
    kind: str = "split",
) -> tuple[nn.Module, list[Tensor], RandomWeights, Tensor, Tensor]:
    """A layer, inputs of which the first and the last datum are alike, and mean and scale of its
    weights.
    """
    layer = Linear(D, 4) if kind == "linear" else SplitLinear([D, K], 4)
    inputs = [X[[0, 1, 2, 3, 0]], torch.eye(K)[[0, 1, 2, 0, 0]]][: 1 if kind == "linear" else 2]
    slots = RandomWeights(layer)
    loc, noise = torch.randn(2, len(slots.initial), generator=torch.Generator().manual_seed(2))
    return layer, inputs, slots, loc, 0.2 + noise.abs()


@pytest.mark.parametrize("kind", ["linear", "split"])
def test_what_is_drawn_in_place_of_weights_has_their_mean_and_variance_and_noise_of_its_own(kind):
    layer, inputs, slots, loc, scale = drawn_layer(kind)
    with slots.substituted(loc):
        mean = layer(*inputs)
    with slots.substituted(scale**2):
        variance = layer(*(x**2 for x in inputs))
    draws, found = 20_000, {}
    torch.manual_seed(0)
    w = loc + scale * torch.randn(draws, 1, len(loc))
    with slots.substituted(w):
        found["weights"] = layer(*inputs)
    mark_normal(loc, loc, scale)
    with slots.substituted(loc):  # the draw itself is not looked at
        found["local"] = layer(inputs[0].expand(draws, 5, -1), *inputs[1:])
    for h in found.values():
        assert h.shape == (draws, 5, 4)
        assert ((h.mean(0) - mean).abs() < 4.5 * (variance / draws).sqrt()).all()
        assert ((h.var(0) / variance - 1).abs() < 4.5 * (2 / draws) ** 0.5).all()
    correlation = {k: torch.corrcoef(h[:, :, 0].T) - torch.eye(5) for k, h in found.items()}
    assert correlation["local"].abs().max() < 4.5 / draws**0.5
    assert correlation["weights"][0, 4] > 0.999  # one W for all data


def test_a_marked_one_hot_input_has_the_moments_of_a_dense_one():
    layer, (x, y), slots, loc, scale = drawn_layer()
    index = torch.tensor([[0], [2]])
    for dense, indices in ((y, y.argmax(-1)), (torch.eye(K)[index], index)):
        marked = dense.clone()
        mark_one_hot(marked, indices)
        for noise in (scale, None):
            w = loc + 0.1
            mark_normal(w, loc, noise)
            with slots.substituted(w):
                a, b = (seeded(layer, x, label) for label in (dense, marked))
            assert torch.allclose(a, b, atol=1e-12) and torch.allclose(
                mean_of(a), mean_of(b), atol=1e-12
            )


@pytest.mark.slow
def test_local_reparameterisation_has_the_same_mean_loss_and_a_quieter_gradient():
    batch = Batch(X.repeat(4, 1), torch.sin(X[:, :1]).repeat(4, 1))
    losses, gradients = {}, {}
    for local in (False, True):
        o = regression(local, hidden=(H,), log_variance=-3.0)
        torch.manual_seed(1)
        values, of_loc = [], []
        with pyro.validation_enabled(False):
            for _ in range(500):
                loss = o(batch)
                values.append(loss)
                of_loc.append(torch.autograd.grad(loss, o.guide.loc)[0])
        losses[local], gradients[local] = torch.stack(values).detach(), torch.stack(of_loc)
    for a, b in (losses.values(), gradients.values()):
        error = ((a.var(0) + b.var(0)) / 500).sqrt()
        assert ((a.mean(0) - b.mean(0)).abs() < 4 * error).all()
    ratio = (gradients[False].var(0).sum() / gradients[True].var(0).sum()).item()
    print(f"variance of the gradient in mu: {ratio:.1f} times lower by local reparameterisation")
    assert ratio > 5

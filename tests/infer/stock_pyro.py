"""Ours beside stock Pyro: the same value and gradient, or a refusal in words and a way out."""

from typing import Any

import pyro
import pytest
import torch
from programs.scope import B, Pair, data, one_hot
from pyro.infer import TraceEnum_ELBO
from torch import Tensor

from pyro_ssl import Batch, Objective, TraceTopKEnum_ELBO, bounds, fit
from pyro_ssl.infer.checks.scope_error import ScopeError


def gradients_of(loss: Tensor, pair: Pair) -> list[Tensor]:
    """Gradients of all parameters of a pair, zero where there is none."""
    parameters = [*pair.model.parameters(), *pair.guide.parameters()]
    grads = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, grads, strict=True)]


def loss_and_gradients(elbo: Any, pair: Pair, validate: bool = True) -> tuple[Tensor, list[Tensor]]:
    """Loss of an ELBO, and its gradients, in an empty parameter store and from one seed."""
    pyro.clear_param_store()
    torch.manual_seed(1)
    y = one_hot() if pair.labels else None
    with pyro.validation_enabled(validate):
        loss = elbo.differentiable_loss(pair.model, pair.guide, data(), y)
    return loss, gradients_of(loss, pair)


def stock_elbo(pair: Pair) -> TraceEnum_ELBO:
    particles = pair.options.get("num_particles", 1)
    return TraceEnum_ELBO(
        num_particles=particles, max_plate_nesting=pair.nesting, strict_enumeration_warning=False
    )


def assert_as_stock(pair: Pair) -> None:
    """Loss and gradients are stock Pyro's."""
    stock, expected = loss_and_gradients(stock_elbo(pair), pair, pair.stock_validates)
    elbo = TraceTopKEnum_ELBO(None, closed_form=(), **pair.options)
    ours, gradients = loss_and_gradients(elbo, pair)
    assert stock.isfinite()
    assert ours.item() == pytest.approx(stock.item(), rel=1e-10, abs=1e-10)
    assert any(gradient.abs().max() > 1e-3 for gradient in expected)
    for mine, theirs in zip(gradients, expected, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-9)


def assert_refused(pair: Pair) -> None:
    """Ours refuses the pair, and says so itself unless stock Pyro refuses it too."""
    with pytest.raises(ValueError, match=pair.refused) as error:
        loss_and_gradients(TraceTopKEnum_ELBO(None, closed_form=()), pair)
    if pair.stock:
        with pytest.raises((ValueError, NotImplementedError), match=pair.stock):
            loss_and_gradients(stock_elbo(pair), pair)
        return
    assert isinstance(error.value, ScopeError)
    message = str(error.value)
    assert message.count("Objective(elbo=pyro.infer.TraceEnum_ELBO") == 1
    assert "Trace Shapes" not in message


def assert_way_out(pair: Pair) -> None:
    """Under stock Pyro's ELBO the loss per datum is Pyro's, and `fit` runs; bounds are refused."""
    stock, expected = loss_and_gradients(stock_elbo(pair), pair)
    objective = Objective(pair.model, pair.guide, elbo=stock_elbo(pair))
    torch.manual_seed(1)
    parts = objective.parts(Batch(x_unlabeled=data()))
    assert parts.keys() == {"unlabeled"}
    assert parts["unlabeled"].item() == pytest.approx(stock.item() / B, rel=1e-10)
    gradients = gradients_of(parts["unlabeled"], pair)
    for gradient, total in zip(gradients, expected, strict=True):
        assert torch.allclose(gradient, total / B, rtol=1e-9, atol=1e-9)
    assert fit(objective, data(), epochs=2)["loss"][-1] is not None
    with pytest.raises(ValueError, match="bound per datum"):
        objective.bound(data())
    with pytest.raises(ValueError, match="bound per datum"):
        Objective(pair.model, pair.guide, elbo=stock_elbo(pair), joint_pass=True)
    with pytest.raises(ValueError, match=pair.refused):
        bounds(objective, data())

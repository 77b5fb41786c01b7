"""The differentiable loss of a stock ELBO: any `pyro.infer.ELBO`, for pairs outside our scope."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pyro_ssl.utils.context import empty_param_store


@runtime_checkable
class _Differentiable(Protocol):
    def differentiable_loss(self, model: nn.Module, guide: nn.Module, *args: Any) -> Tensor: ...


def differentiable_loss(elbo: Any, model: nn.Module, guide: nn.Module, *args: Any) -> Tensor:
    """The loss of any ELBO of Pyro, summed over data, with its gradient.

    The caller's parameter store is not touched. For an ELBO without `differentiable_loss`, the
    result has the gradients of `loss_and_grads`, and no second derivatives.

    Arguments:
        elbo: A `pyro.infer.ELBO`.
        model: The model.
        guide: Its guide.
        args: Arguments of both.

    >>> from pyro.infer import TraceEnum_ELBO
    >>> from pyro_ssl import zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> elbo = TraceEnum_ELBO(max_plate_nesting=1)
    >>> differentiable_loss(elbo, m2.model, m2.guide, torch.randn(5, 4)).requires_grad
    True
    """
    parameters = list(dict.fromkeys([*model.parameters(), *guide.parameters()]))  # each once
    with empty_param_store():
        if not torch.is_grad_enabled():  # differentiable_loss would raise
            return parameters[0].new_tensor(elbo.loss(model, guide, *args))
        if isinstance(elbo, _Differentiable):
            return torch.as_tensor(elbo.differentiable_loss(model, guide, *args))
        trained = [p for p in parameters if p.requires_grad]
        kept = [p.grad for p in trained]
        for p in trained:
            p.grad = None
        try:
            loss = elbo.loss_and_grads(model, guide, *args)
            gradients = [p.grad for p in trained]
        finally:
            for p, gradient in zip(trained, kept, strict=True):
                p.grad = gradient
    return _linear(loss, trained, gradients)


def _linear(loss: float, parameters: list[nn.Parameter], gradients: list[Tensor | None]) -> Tensor:
    """A scalar with this value and these gradients."""
    surrogate = parameters[0].new_tensor(loss)
    for p, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            surrogate = surrogate + ((p - p.detach()) * gradient).sum()
    return surrogate

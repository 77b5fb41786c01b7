"""Comparisons of values and gradients that several test files make."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def seeded(function: Callable[..., Any], *args: Any, seed: int = 1, **kwargs: Any) -> Any:
    """Call a function with torch's generator at a seed."""
    torch.manual_seed(seed)
    return function(*args, **kwargs)


def parameters(*parts: nn.Module) -> list[nn.Parameter]:
    """Parameters of the parts that are trained."""
    return [p for part in parts for p in part.parameters() if p.requires_grad]


def gradients(value: Tensor, of: Sequence[Tensor] | nn.Module) -> list[Tensor]:
    """Gradients of a sum in which each entry counts differently; zero where there is none."""
    tensors = parameters(of) if isinstance(of, nn.Module) else list(of)
    weights = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).reshape(value.shape)
    total = (weights * value).sum()
    grads = torch.autograd.grad(total, tensors, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(t) if g is None else g for g, t in zip(grads, tensors, strict=True)]


def assert_close(ours: Tensor, theirs: Tensor, tol: float) -> None:
    """Equal up to `tol` of the largest entry, or of 1 where that is smaller."""
    assert ours.shape == theirs.shape
    largest = max(1.0, theirs.abs().max().item())
    assert torch.allclose(ours, theirs, rtol=0, atol=tol * largest)


def assert_same(
    ours: Tensor, theirs: Tensor, of: Sequence[Tensor] | nn.Module, tol: float = 1e-12
) -> None:
    """Equal values, and equal gradients of each entry."""
    assert_close(ours, theirs, tol)
    for mine, other in zip(gradients(ours, of), gradients(theirs, of), strict=True):
        assert_close(mine, other, 10 * tol)


def assert_unbiased(draws: Tensor, exact: Tensor, low: float = 0.7, high: float = 1.3) -> None:
    """Draws, `(N, *)`, have this mean, by z-scores of 20 batches of them and of all."""
    std = draws.std(0)
    n = len(draws)
    of_batches = (draws.reshape(20, -1, *exact.shape).mean(1) - exact) / std * math.sqrt(n / 20)
    of_all = (draws.mean(0) - exact) / std * math.sqrt(n)
    assert low < of_batches.square().mean().sqrt() < high
    assert max(of_batches.abs().max(), of_all.abs().max()) < 4.5

"""The private names of torch, Pyro and argparse that the library uses.

A test says which of them is gone. Two more are methods that Pyro calls on our handlers, and are
therefore in the handlers: `_pyro_sample` and `_process_message`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.fx import GraphModule
from torch.nn.modules.batchnorm import _BatchNorm

BatchNormBase = _BatchNorm
"""Base class of torch's batch norms, and of those of other libraries."""

DETERMINISTIC = "_deterministic"
"""Key of a site's `infer` that marks a `pyro.deterministic`."""
ENUMERATE_DIM = "_enumerate_dim"
"""Key of a site's `infer` with the dimension along which it is enumerated."""


def children_of(module: nn.Module) -> list[nn.Module]:
    """The modules directly inside a module.

    `Module.children` also removes doubles, which costs time in every step.

    >>> children_of(nn.Sequential(nn.Tanh()))
    [Tanh()]
    """
    return [part for part in module._modules.values() if part is not None]


def has_pyro_attributes(module: nn.Module) -> bool:
    """Whether a module itself, and not a part of it, has `PyroParam` or `PyroSample` attributes."""
    if not isinstance(module, PyroModule):
        return False
    return bool(module._pyro_params or module._pyro_samples)


def distributions_validate() -> bool:
    """Whether torch's distributions validate their arguments by default.

    `Distribution.set_default_validate_args` sets it.
    """
    return Distribution._validate_args


def compiled_by_inductor(graph: GraphModule, inputs: Sequence[Tensor]) -> Any:
    """A graph of tensor operations compiled by Inductor, to be called without gradients.

    `torch.compile` would look at the graph's code first, and check the inputs at each call. Random
    numbers are torch's own, in the order of the graph.
    """
    from torch._inductor.compile_fx import compile_fx  # takes seconds to import

    patches: dict[str, Any] = {"fallback_random": True}
    if any(tensor.device.type == "cuda" for tensor in inputs):
        patches["triton.cudagraphs"] = True
    with torch.no_grad():
        return compile_fx(graph, list(inputs), config_patches=patches)


def validate_value(distribution: Distribution, value: Tensor) -> None:
    """Raise ValueError for a value outside the support, if the distribution validates."""
    if distribution._validate_args:
        distribution._validate_sample(value)


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Names of the values that a parser returns."""
    return {action.dest for action in parser._actions}

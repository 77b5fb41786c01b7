"""The private names of torch, Pyro and argparse that the library reads.

A test says which of them is gone. Two more are methods that Pyro calls on our handlers, and so
stand where the handlers are: `_pyro_sample` and `_process_message`.
"""

from __future__ import annotations

import argparse

from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.modules.batchnorm import _BatchNorm

BatchNormBase = _BatchNorm
"""The class that torch's batch norms inherit from, and those of other libraries."""

DETERMINISTIC = "_deterministic"
"""The mark of `pyro.deterministic` in a site's `infer`."""
ENUMERATE_DIM = "_enumerate_dim"
"""Where a site's `infer` holds the dimension along which it is enumerated."""


def children_of(module: nn.Module) -> list[nn.Module]:
    """List the modules directly inside.

    `Module.children` sorts out doubles too, which costs time in every step.
    """
    return [part for part in module._modules.values() if part is not None]


def has_pyro_attributes(module: nn.Module) -> bool:
    """Whether it has `PyroParam` or `PyroSample` attributes itself, and not in a part."""
    return isinstance(module, PyroModule) and bool(module._pyro_params or module._pyro_samples)


def distributions_validate() -> bool:
    """Whether torch's distributions check their arguments, unless they are told otherwise.

    `Distribution.set_default_validate_args` sets it.
    """
    return Distribution._validate_args


def validate_value(distribution: Distribution, value: Tensor) -> None:
    """Raise ValueError for a value outside the support, if the distribution is one that checks."""
    if distribution._validate_args:
        distribution._validate_sample(value)


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Names of the values that a parser returns."""
    return {action.dest for action in parser._actions}

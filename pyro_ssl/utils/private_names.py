"""The private names of torch, Pyro and argparse that the library uses.

A test fails if a new version lacks one of them. Two more, `_pyro_sample` and `_process_message`,
are methods of our handlers, which Pyro calls.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import timedelta
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributed import distributed_c10d
from torch.distributions import Distribution
from torch.fx import GraphModule
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

BatchNormBase = _BatchNorm
"""Base class of torch's batch norms, and of those of other libraries."""

DETERMINISTIC = "_deterministic"
"""Key of a site's `infer` that marks a `pyro.deterministic`."""
ENUMERATE_DIM = "_enumerate_dim"
"""Key of a site's `infer` with the dimension along which it is enumerated."""


def children_of(module: nn.Module) -> list[nn.Module]:
    """The modules directly inside a module.

    `Module.children` also looks for duplicates, which would take time in every step.

    >>> children_of(nn.Sequential(nn.Tanh()))
    [Tanh()]
    """
    return [part for part in module._modules.values() if part is not None]


def has_pyro_attributes(module: nn.Module) -> bool:
    """True if a module itself, not a part of it, has `PyroParam` or `PyroSample` attributes.

    >>> has_pyro_attributes(nn.Linear(2, 1))
    False
    """
    if not isinstance(module, PyroModule):
        return False
    return bool(module._pyro_params or module._pyro_samples)


def distributions_validate() -> bool:
    """True if torch's distributions validate their arguments by default.

    `Distribution.set_default_validate_args` sets it.

    >>> isinstance(distributions_validate(), bool)
    True
    """
    return Distribution._validate_args


def compiled_by_inductor(
    graph: GraphModule, inputs: Sequence[Tensor], save_memory: bool = False
) -> Any:
    """A graph of tensor operations compiled by Inductor, to be called without gradients.

    `torch.compile` would look at the graph's code first, and check the inputs at each call. Random
    numbers are torch's own, mostly in the order of the graph: Inductor can reorder operations,
    `save_memory` lets it do so more often.
    """
    from torch._inductor.compile_fx import compile_fx  # takes seconds to import

    patches: dict[str, Any] = {"fallback_random": True, "reorder_for_peak_memory": save_memory}
    if any(tensor.device.type == "cuda" for tensor in inputs):
        patches["triton.cudagraphs"] = True
    with torch.no_grad():
        return compile_fx(graph, list(inputs), config_patches=patches)


def set_group_timeout(timeout: timedelta) -> None:
    """Set how long operations of the processes' group wait for one another."""
    distributed_c10d._set_pg_timeout(timeout)


def validate_value(distribution: Distribution, value: Tensor) -> None:
    """Raise ValueError for a value outside the support, if the distribution validates.

    >>> import torch
    >>> uniform = torch.distributions.Uniform(0.0, 1.0, validate_args=True)
    >>> validate_value(uniform, torch.tensor(0.5))
    """
    if distribution._validate_args:
        distribution._validate_sample(value)


def dask_backend() -> Any:
    """Joblib's backend class for Dask, which needs `distributed`."""
    from joblib._dask import DaskDistributedBackend

    return DaskDistributedBackend


def workers_of_loader(items: Any) -> list[BaseProcess]:
    """The worker processes of an iterator of torch's DataLoader; none if it reads by itself.

    >>> workers_of_loader(iter([1]))
    []
    """
    if not isinstance(items, _MultiProcessingDataLoaderIter):
        return []
    return list(items._workers)


def end_workers_of_loader(items: Any) -> None:
    """End the worker processes of an iterator of torch's DataLoader.

    It ends them itself when nothing refers to it, but the traceback of an error does.

    >>> end_workers_of_loader(iter([1]))
    """
    if isinstance(items, _MultiProcessingDataLoaderIter):
        items._shutdown_workers()


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Names of the values that a parser returns.

    >>> sorted(options_of(argparse.ArgumentParser()))
    ['help']
    """
    return {action.dest for action in parser._actions}


def spellings_of(parser: argparse.ArgumentParser) -> list[str]:
    """The options of a parser as they are written, such as `--label-column`.

    >>> spellings_of(argparse.ArgumentParser())
    ['-h', '--help']
    """
    return [text for action in parser._actions for text in action.option_strings]

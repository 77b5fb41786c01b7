"""Programs and Pyro's parameter store, which a bound neither reads nor writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.utils.context import empty_param_store
from pyro_ssl.utils.private_names import children_of, has_pyro_attributes

Program = Callable[..., Any]
"""A model or a guide as Pyro takes it: a module or a function with `pyro.sample` statements."""


def without_param_store(program: Program) -> Program:
    """A program that does not register its parameters in Pyro's parameter store.

    A `PyroModule` registers all parameters of a conditional at each access, which takes a quarter
    of a small step, and the bound does not need it. A module with `PyroParam` or `PyroSample`
    attributes needs the store and is returned unchanged, as is a function.

    >>> from pyro_ssl import zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> with pyro.get_param_store().scope():
    ...     without_param_store(m2.guide)(torch.randn(5, 4))
    ...     len(pyro.get_param_store())
    0
    """
    if not isinstance(program, PyroModule) or _has_pyro_attributes(program):
        return program
    return partial(nn.Module.__call__, program)


def _has_pyro_attributes(module: nn.Module) -> bool:
    """True if a module, or a part of it, has `PyroParam` or `PyroSample` attributes."""
    if has_pyro_attributes(module):
        return True
    return any(_has_pyro_attributes(part) for part in children_of(module))


@contextmanager
def isolated_param_store(*programs: Program) -> Iterator[None]:
    """Give programs an empty parameter store, unless they need trained values of the caller's.

    Arguments:
        programs: The programs that run inside the block.

    Raises:
        ValueError: A program calls `pyro.param` for a parameter of the caller's store that has
            another value there.

    >>> program = lambda: pyro.param("mean", torch.zeros(2))
    >>> with isolated_param_store(program):
    ...     mean = program()
    >>> "mean" in pyro.get_param_store()
    False
    """
    trained = dict(pyro.get_param_store().named_parameters())
    with empty_param_store():
        yield
        if trained:
            _check_params(trained, programs)


def _check_params(trained: dict[str, Tensor], programs: tuple[Program, ...]) -> None:
    modules = [program for program in programs if isinstance(program, nn.Module)]
    of_programs = {id(p) for module in modules for p in module.parameters()}
    for name, p in pyro.get_param_store().named_parameters():
        if name in trained and id(p) not in of_programs and not torch.equal(p, trained[name]):
            raise ValueError(
                f"pyro.param({name!r}) has been trained in Pyro's parameter store, which a bound "
                "does not read; make it an attribute of the program, nn.Parameter or "
                "pyro.nn.PyroParam"
            )

"""What a step reads beside its tensors: numbers, names and flags in the attributes of modules.

A captured step holds them as constants. `PythonState` notices that one of them has changed, at a
cost of microseconds, so that the step is captured anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import getitem, is_
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

Container = dict[Any, Any] | list[Any]
"""Where an attribute stands: a dictionary or a list."""
PLAIN = (int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
"""Kinds of attributes that are compared by value; all others are compared by identity."""
OPAQUE = (Tensor, np.ndarray, type, ModuleType, torch.Generator)
"""Kinds of attributes that are not looked into."""
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
UNWATCHED = {*nn.Module().__dict__, *PyroModule().__dict__} - {
    *("training", "_modules", "_parameters", "_buffers"),
    *HOOKS,
}
"""Attributes of modules by which torch and Pyro keep their books."""
MOST_PLACES = 100_000
"""Attributes that are watched at most; a module that holds a data set has more."""


class PythonState:
    """The attributes of a module and of everything it holds, as they were when this was made.

    Looked into are modules, dictionaries, lists, tuples, sets, functions and other objects with
    attributes. Tensors are compared by identity: a captured step reads their values.

    Arguments:
        module: The module.

    Raises:
        ValueError: It holds more than `MOST_PLACES` attributes.

    >>> network = nn.Dropout(0.1)
    >>> state = PythonState(network)
    >>> state.changes()
    []
    >>> network.p = 0.2
    >>> state.changes()
    ['Dropout.p was 0.1, is 0.2']
    """

    def __init__(self, module: nn.Module) -> None:
        self._containers: list[Container] = []  # one for each place, with its key, value and name
        self._keys: list[Any] = []
        self._values: list[Any] = []
        self._names: list[str] = []
        self._distinct: list[tuple[Container, str]] = []
        self._kept: list[Any] = []  # a temporary container would lose its identity
        self._visited: set[int] = set()
        self._visit(module, type(module).__name__)
        self._distinct_containers = [container for container, _ in self._distinct]
        self._lengths = list(map(len, self._distinct_containers))
        self._known = {(id(c), k) for c, k in zip(self._containers, self._keys, strict=True)}

    @property
    def is_same(self) -> bool:
        """Whether nothing has changed, not even the identity of a number."""
        try:
            now = map(getitem, self._containers, self._keys)
            same_values = all(map(is_, now, self._values))
        except (KeyError, IndexError):
            return False
        return same_values and list(map(len, self._distinct_containers)) == self._lengths

    def changes(self) -> list[str]:
        """What has changed, in words; numbers are compared by their values."""
        changes = [f"{form.format(key)} is new" for _, key, form in self._added()]
        for container, key, was, name in self._places():
            try:
                now = container[key]
            except (KeyError, IndexError):
                changes.append(f"{name} is gone")
                continue
            if not _is_same(now, was):
                changes.append(f"{name} was {was!r:.80}, is {now!r:.80}")
        return changes

    def restore(self) -> None:
        """Set the attributes to what they were; what was added to a list stays."""
        for container, key, _ in list(self._added()):
            if isinstance(container, dict):
                del container[key]
        for container, key, was, _ in self._places():
            if isinstance(container, dict) or key < len(container):
                container[key] = was

    def _places(self) -> Iterator[tuple[Container, Any, Any, str]]:
        return zip(self._containers, self._keys, self._values, self._names, strict=True)

    def _added(self) -> Iterator[tuple[Container, Any, str]]:
        """Container, key and form of the name of what is new."""
        for (container, form), length in zip(self._distinct, self._lengths, strict=True):
            if len(container) <= length:
                continue
            keys = container if isinstance(container, dict) else range(len(container))
            for key in keys:
                if (id(container), key) not in self._known and key not in UNWATCHED:
                    yield container, key, form

    def _visit(self, value: Any, name: str) -> None:
        if isinstance(value, PLAIN) or isinstance(value, OPAQUE) or id(value) in self._visited:
            return
        self._visited.add(id(value))
        if isinstance(value, FunctionType):
            self._visit_function(value, name)
        elif isinstance(value, MethodType):
            self._visit(value.__self__, name)
        elif isinstance(value, tuple | set | frozenset):
            self._kept.append(value)
            for i, item in enumerate(value):
                self._visit(item, f"{name}[{i}]")
        elif isinstance(value, list):
            self._watch(value, list(enumerate(value)), f"{name}[{{}}]")
        elif isinstance(value, dict):
            parts = name.endswith(("._modules", "._parameters", "._buffers"))
            form = name[: name.rindex(".")] + ".{}" if parts else f"{name}[{{!r}}]"
            self._watch(value, list(value.items()), form)
        elif isinstance(getattr(value, "__dict__", None), dict):
            unwatched = UNWATCHED if isinstance(value, nn.Module) else ()
            items = [(k, v) for k, v in value.__dict__.items() if k not in unwatched]
            self._watch(value.__dict__, items, f"{name}.{{}}")

    def _visit_function(self, function: FunctionType, name: str) -> None:
        """Look into the variables and defaults that a function holds."""
        for cell in function.__closure__ or ():
            try:
                self._visit(cell.cell_contents, name)
            except ValueError:  # the variable has no value yet
                continue
        self._visit(function.__defaults__, name)

    def _watch(self, container: Container, items: list[tuple[Any, Any]], form: str) -> None:
        if len(self._values) + len(items) > MOST_PLACES:
            raise ValueError(
                f"objective holds more than {MOST_PLACES} attributes, too many to watch for "
                "changes; keep data out of its modules, or in tensors"
            )
        self._distinct.append((container, form))
        for key, value in items:
            name = form.format(key)
            self._containers.append(container)
            self._keys.append(key)
            self._values.append(value)
            self._names.append(name)
            self._visit(value, name)


def _is_same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    return isinstance(a, PLAIN) and type(a) is type(b) and a == b

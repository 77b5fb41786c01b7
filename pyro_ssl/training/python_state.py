"""The Python values that a step reads: numbers, names and flags in the attributes of modules.

A captured step holds them as constants. `PythonState` detects within microseconds that one of them
has changed, so that the step can be captured again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Set
from operator import getitem, is_
from types import FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

Container = dict[Any, Any] | list[Any] | MappingProxyType[str, Any]
"""A container of values: a dictionary, a list, or the attributes of a class."""
PLAIN = (int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
"""Types of attributes that are compared by value; all others are compared by identity."""
WATCHED_GLOBALS = (int, float, complex, str, list, dict)
"""Types of class attributes and global variables that are watched."""
OPAQUE = (Tensor, np.ndarray, type, ModuleType, torch.Generator)
"""Types of attributes whose contents are not watched."""
LEAVES = PLAIN + OPAQUE
"""Types of attributes at which a visit ends."""
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
UNWATCHED = {*nn.Module().__dict__, *PyroModule().__dict__} - {
    *("training", "_modules", "_parameters", "_buffers"),
    *HOOKS,
}
"""Internal attributes of the modules of torch and Pyro."""
LIBRARIES = {"torch", "pyro", "pyro_ssl", "numpy", *sys.stdlib_module_names}
"""Packages whose classes and functions are not watched; "__main__" is not among them."""
MOST_PLACES = 100_000
"""Largest number of watched attributes; a module that holds a data set has more."""


class PythonState:
    """A snapshot of the attributes of a module and of everything it holds.

    It covers modules, dictionaries, lists, tuples, sets, functions and other objects with
    attributes. Of the user's own classes, it also covers the class attributes and the global
    variables that their methods read. Tensors are compared by identity, since a captured step reads
    their values at each call.

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
        self._classes: dict[int, type] = {}  # by the identity of the holder of their attributes
        self._visit(module, type(module).__name__)
        self._distinct_containers = [container for container, _ in self._distinct]
        self._lengths = list(map(len, self._distinct_containers))
        self._known = {(id(c), k) for c, k in zip(self._containers, self._keys, strict=True)}

    @property
    def is_same(self) -> bool:
        """True if nothing has changed, not even the identity of a number."""
        try:
            now = map(getitem, self._containers, self._keys)
            same_values = all(map(is_, now, self._values))
        except (KeyError, IndexError):
            return False
        return same_values and list(map(len, self._distinct_containers)) == self._lengths

    def changes(self) -> list[str]:
        """Describe each change; numbers are compared by value."""
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
        """Set the attributes to what they were, and remove those that were added."""
        for container, key, _ in list(self._added()):
            if isinstance(container, dict):
                del container[key]
        for container, length in zip(self._distinct_containers, self._lengths, strict=True):
            if isinstance(container, list):
                del container[length:]
        for container, key, was, _ in self._places():
            if isinstance(container, MappingProxyType):
                setattr(self._classes[id(container)], key, was)
            elif isinstance(container, dict) or key < len(container):
                container[key] = was

    def _places(self) -> Iterator[tuple[Container, Any, Any, str]]:
        return zip(self._containers, self._keys, self._values, self._names, strict=True)

    def _added(self) -> Iterator[tuple[Container, Any, str]]:
        """Yield the container, the key and the name format of each new entry."""
        for (container, form), length in zip(self._distinct, self._lengths, strict=True):
            if len(container) <= length:
                continue
            keys = container if isinstance(container, dict) else range(len(container))
            for key in keys:
                if (id(container), key) not in self._known and key not in UNWATCHED:
                    yield container, key, form

    def _visit(self, value: Any, name: str) -> None:
        if isinstance(value, LEAVES) or id(value) in self._visited:
            return
        self._visited.add(id(value))
        if isinstance(value, FunctionType):
            self._visit_function(value, name)
        elif isinstance(value, MethodType):
            self._visit(value.__self__, name)
        elif isinstance(value, tuple | set | frozenset):
            self._visit_items(value, name)
        elif isinstance(value, list):
            self._watch(value, list(enumerate(value)), f"{name}[{{}}]")
        elif isinstance(value, dict):
            self._watch(value, list(value.items()), _form_of_items(name))
        elif isinstance(getattr(value, "__dict__", None), dict):
            self._visit_attributes(value, name)

    def _visit_items(self, values: tuple[Any, ...] | Set[Any], name: str) -> None:
        self._kept.append(values)
        for i, item in enumerate(values):
            self._visit(item, f"{name}[{i}]")

    def _visit_attributes(self, owner: Any, name: str) -> None:
        unwatched = UNWATCHED if isinstance(owner, nn.Module) else ()
        items = [(k, v) for k, v in owner.__dict__.items() if k not in unwatched]
        self._watch(owner.__dict__, items, f"{name}.{{}}")
        self._visit_class(type(owner))

    def _visit_class(self, kind: type) -> None:
        """Visit the attributes and methods of a user's class and of its bases."""
        for base in kind.__mro__:
            is_known = id(base) in self._visited
            if is_known or _is_of_library(base.__module__):
                continue
            self._visited.add(id(base))
            attributes = vars(base)
            self._classes[id(attributes)] = base
            self._kept.append(attributes)
            for key, value in attributes.items():
                if isinstance(value, FunctionType):
                    self._visit_globals(value)
                elif not key.startswith("__") and isinstance(value, WATCHED_GLOBALS):
                    self._watch_one(attributes, key, value, f"{base.__name__}.{key}")

    def _visit_globals(self, function: FunctionType) -> None:
        """Visit the global variables that a user's function reads, and the functions it calls."""
        if id(function.__code__) in self._visited or _is_of_library(function.__module__):
            return
        self._visited.add(id(function.__code__))
        self._kept.append(function.__code__)
        for name in function.__code__.co_names:
            value = function.__globals__.get(name)
            if isinstance(value, FunctionType):
                self._visit_globals(value)
            elif isinstance(value, WATCHED_GLOBALS):
                self._watch_one(function.__globals__, name, value, name)
            elif value is not None and not _is_of_library(type(value).__module__):
                self._visit(value, name)

    def _visit_function(self, function: FunctionType, name: str) -> None:
        """Visit the variables in a function's closure, and its defaults."""
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
            self._watch_one(container, key, value, form.format(key))

    def _watch_one(self, container: Container, key: Any, value: Any, name: str) -> None:
        self._containers.append(container)
        self._keys.append(key)
        self._values.append(value)
        self._names.append(name)
        self._visit(value, name)


def _form_of_items(name: str) -> str:
    """The form of the names of a dictionary's items; parts of a module are named as attributes."""
    if name.endswith(("._modules", "._parameters", "._buffers")):
        return name[: name.rindex(".")] + ".{}"
    return f"{name}[{{!r}}]"


def _is_of_library(module: str | None) -> bool:
    return module is None or module.partition(".")[0] in LIBRARIES


def _is_same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    return isinstance(a, PLAIN) and type(a) is type(b) and a == b

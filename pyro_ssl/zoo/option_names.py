"""Flat names for the options of a method, and back to groups of options.

`zoo.build("m2", ..., z_dim=10, alpha=2.0)` and the command line know options by flat names; the
function of a method has groups of them, see `options`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import cache
from typing import Any, get_type_hints


@dataclass(frozen=True)
class Option:
    """An option of a method.

    Arguments:
        name: Its name, unique in the method.
        kind: Its annotation.
        default: Its default.
        help: Its description in the docstring of its group or of the method.
        group: Title of its group: the first line of that docstring.

    >>> from pyro_ssl.zoo.options import LossOptions
    >>> def method(x_shape, classes, *, loss: LossOptions = LossOptions()): "A method."
    >>> flat_options(method)["alpha"].group
    'Weights of the bounds and of the other terms of the loss'
    """

    name: str
    kind: Any
    default: Any
    help: str
    group: str


def flat_options(function: Callable[..., Any]) -> dict[str, Option]:
    """List the options of a method: its keyword-only arguments and the fields of groups.

    Arguments:
        function: The method, over `(x_shape, classes, *, ...)`.

    Raises:
        ValueError: Two options have one name.

    >>> def method(x_shape, classes, *, z_dim: int = 50): "A method."
    >>> flat_options(method)["z_dim"].default
    50
    """
    options: dict[str, Option] = {}
    for option in _options_of(function):
        if option.name in options:
            raise ValueError(f"{function.__name__} has two options {option.name}; rename one")
        options[option.name] = option
    return options


def grouped(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert options by flat names to keyword arguments of a method.

    Arguments:
        function: The method.
        values: Options by name; the others keep the method's defaults.

    >>> from pyro_ssl.zoo.generative import m2
    >>> grouped(m2, {"z_dim": 10, "alpha": 2.0})["loss"].alpha
    2.0
    """
    arguments: dict[str, Any] = {}
    for parameter in _keywords(function):
        group = parameter.default
        if is_dataclass(group) and not isinstance(group, type):
            names = {option.name for option in fields(group)} & values.keys()
            if names:
                arguments[parameter.name] = replace(group, **{n: values[n] for n in names})
        elif parameter.name in values:
            arguments[parameter.name] = values[parameter.name]
    return arguments


def hint(name: str, known: Collection[str]) -> str:
    """Suggest the nearest known name for an unknown one, and list all names.

    >>> hint("alfa", ["alpha", "beta"])
    "did you mean 'alpha'? There are alpha, beta"
    """
    listed = f"there are {', '.join(known)}"
    near = get_close_matches(name, known, n=1)
    if not near:
        return listed
    return f"did you mean {near[0]!r}? T{listed[1:]}"


def summary(thing: Any) -> str:
    """First line of a docstring.

    >>> summary(summary)
    'First line of a docstring.'
    """
    return (inspect.getdoc(thing) or "").partition("\n")[0]


@cache
def _options_of(function: Callable[..., Any]) -> tuple[Option, ...]:
    """The options, read once: signatures and docstrings do not change."""
    return tuple(_options(function))


def _options(function: Callable[..., Any]) -> Iterator[Option]:
    kinds = get_type_hints(function)
    documentation = documented(function)
    for parameter in _keywords(function):
        name = parameter.name
        default = parameter.default
        if is_dataclass(default) and not isinstance(default, type):
            yield from _fields(default)
        else:
            text = documentation.get(name, "")
            yield Option(name, kinds.get(name, Any), default, text, _title(function))


def _fields(group: Any) -> Iterator[Option]:
    """The fields of a group, with the values of this instance as defaults."""
    kinds = get_type_hints(type(group))
    documentation = documented(type(group))
    for field in fields(group):
        name = field.name
        text = documentation.get(name, "")
        yield Option(name, kinds[name], getattr(group, name), text, _title(type(group)))


def _title(thing: Any) -> str:
    return summary(thing).removesuffix(".")


def _keywords(function: Callable[..., Any]) -> list[inspect.Parameter]:
    parameters = inspect.signature(function).parameters.values()
    return [p for p in parameters if p.kind is p.KEYWORD_ONLY]


def documented(thing: Any) -> dict[str, str]:
    """Descriptions of the arguments in a docstring, by name.

    >>> documented(flat_options)
    {'function': 'The method, over `(x_shape, classes, *, ...)`.'}
    """
    arguments = (inspect.getdoc(thing) or "").partition("Arguments:\n")[2]
    texts: dict[str, str] = {}
    name = ""
    for line in arguments.splitlines():
        if line.startswith("        "):
            texts[name] += " " + line.strip()
        elif line.startswith("    "):
            name, _, text = line.strip().partition(": ")
            texts[name] = text
        elif line:
            break
    return texts

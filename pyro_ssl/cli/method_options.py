"""Options of the methods in the zoo, as options of the command line."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser, Namespace

from pyro_ssl import zoo

GIVEN_BY_DATA = {"x_shape", "classes", "regression"}
"""Arguments of a method that the data set determines."""


def summary(name: str) -> str:
    """First line of a method's documentation.

    >>> summary("vae").endswith(".")
    True
    """
    return (zoo.method(name).build.__doc__ or "").splitlines()[0]


def add_method_options(parser: ArgumentParser, name: str) -> None:
    """Add a method's options to a parser, and set the training options that suit the method."""
    method = zoo.method(name)
    skip: set[str | int] = {*GIVEN_BY_DATA}
    parser.add_function_arguments(method.build, skip=skip)
    parser.set_defaults(method.training)


def chosen_options(name: str, arguments: Namespace | dict[str, Any]) -> dict[str, Any]:
    """All options of a method: the given ones, and the defaults of the others.

    >>> chosen_options("m2", {"z_dim": 3})["z_dim"]
    3
    """
    return {k: arguments.get(k, default) for k, default in zoo.options_of(name).items()}

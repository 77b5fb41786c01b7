"""The options of the methods, as options of the command line."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from pyro_ssl import zoo

GIVEN_BY_DATA = {"regression"}
"""Options of a method that follow from the data set."""


def summary(name: str) -> str:
    """First line of a method's documentation.

    >>> summary("vae").endswith(".")
    True
    """
    return zoo.method(name).summary


def add_method_options(parser: ArgumentParser, name: str) -> None:
    """Add a method's options to a parser, and set the training options that suit the method.

    >>> parser = ArgumentParser()
    >>> for name in zoo.method("vae").training:
    ...     _ = parser.add_argument(f"--{name}")
    >>> add_method_options(parser, "vae")
    >>> parser.parse_args([]).z_dim
    50
    """
    method = zoo.method(name)
    options = [option for option in method.options.values() if option.name not in GIVEN_BY_DATA]
    for title in dict.fromkeys(option.group for option in options):
        group = parser.add_argument_group(title)
        for option in options:
            if option.group == title:
                group.add_argument(
                    f"--{option.name}", type=option.kind, default=option.default, help=option.help
                )
    parser.set_defaults(method.training)


def parsed_with_preset(name: str, parsed: Namespace, given: Collection[str]) -> Namespace:
    """Fill in the values of the preset, if there is one, where the user has given none.

    With another number of epochs, the preset's warm-up keeps its share of them.

    Arguments:
        name: Name of the method.
        parsed: The parsed arguments of the method, with all defaults.
        given: Names of the options that the user gave.

    Raises:
        ValueError: See `zoo.preset_of`.

    >>> parsed = Namespace(preset="paper-004", z_dim=3, alpha=1.0, epochs=10)
    >>> filled = parsed_with_preset("m2", parsed, {"z_dim", "epochs"})
    >>> filled.z_dim, filled.alpha, filled.epochs, filled.warmup
    (3, 6.0, 10, 2.0)
    """
    if parsed.preset is None or parsed.get("resume"):  # a run goes on with its own settings
        return parsed
    preset = zoo.preset_of(name, parsed.preset)
    filled = parsed.clone()
    epochs = parsed.epochs if "epochs" in given else None
    for option, value in (preset.option_values | preset.training_for(epochs)).items():
        if option not in given:
            filled[option] = value
    return filled


def chosen_options(name: str, arguments: Namespace | dict[str, Any]) -> dict[str, Any]:
    """All options of a method: given values over defaults.

    >>> chosen_options("m2", {"z_dim": 3})["z_dim"]
    3
    """
    return {k: arguments.get(k, default) for k, default in zoo.options_of(name).items()}


def check_saved_options(name: str, options: dict[str, Any], path: Path) -> None:
    """Raise ValueError if a file has options that the method does not have in this version.

    >>> check_saved_options("m2", {"z_dim": 2}, Path("run/config.json"))
    """
    if zoo.current_options(options) != options:
        raise ValueError(
            f"{path.parent} is a run of an earlier version, which this version can evaluate but "
            "not resume; start a new run with --out"
        )
    unknown = sorted(options.keys() - zoo.options_of(name).keys())
    if unknown:
        raise ValueError(
            f"{path} was written by another version of pyro-ssl: {name} has no option "
            f"{', '.join(unknown)}; start a new run with --out"
        )

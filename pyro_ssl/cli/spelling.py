"""Options with dashes or underscores: both are accepted."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterable, Sequence

from pyro_ssl.utils.private_names import spellings_of


def as_declared(argv: Sequence[str], parsers: Iterable[ArgumentParser]) -> list[str]:
    """Spell options with dashes and underscores as the parsers declare them.

    An option that no parser has is left as it is, so that the error names what the user wrote.

    Arguments:
        argv: Arguments of the command line.
        parsers: The parsers of the command.

    >>> parser = ArgumentParser()
    >>> _ = parser.add_argument("--label-column"), parser.add_argument("--z_dim")
    >>> as_declared(["--label_column", "a_b", "--z-dim=3", "--no-such"], [parser])
    ['--label-column', 'a_b', '--z_dim=3', '--no-such']
    """
    spellings = {_key(text): text for parser in parsers for text in spellings_of(parser)}
    return [_as_declared(text, spellings) for text in argv]


def _as_declared(text: str, spellings: dict[str, str]) -> str:
    if not text.startswith("--"):
        return text
    option, equals, value = text.partition("=")
    name, dot, entry = option.partition(".")  # of a dictionary, such as --options.z_dim
    declared = spellings.get(_key(option))
    if declared is None and dot and _key(name) in spellings:
        declared = spellings[_key(name)] + dot + entry.replace("-", "_")
    return (option if declared is None else declared) + equals + value


def _key(option: str) -> str:
    return "--" + option.removeprefix("--").replace("-", "_")

"""The option `--config`: a YAML file, with errors that name unknown keys and deep nesting."""

from __future__ import annotations

from argparse import ArgumentError
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

from pyro_ssl.utils.private_names import options_of

MAX_DEPTH = 50
"""Levels of nesting in an argument or a configuration file."""


class ConfigFile(ActionConfigFile):
    """Read a configuration file, with an error that names unknown keys.

    jsonargparse itself loses their names in a subcommand of a subcommand. Deep nesting, which can
    crash the parser, is refused.

    >>> from jsonargparse import ArgumentParser
    >>> parser = ArgumentParser()
    >>> type(parser.add_argument("--config", action=ConfigFile)).__name__
    'ConfigFile'
    """

    def __call__(
        self, parser: Any, cfg: Any, values: Any, option_string: str | None = None
    ) -> None:
        try:
            self._check_depth(values)
            super().__call__(parser, cfg, values, option_string)
        except UnicodeDecodeError as error:
            raise ArgumentError(self, f"{values} should be text in UTF-8: {error}") from None
        unknown = sorted(vars(cfg).keys() - options_of(parser))
        if unknown:
            raise ArgumentError(self, f"{values}: there is no option {', '.join(unknown)}")

    def _check_depth(self, path: Any) -> None:
        if Path(path).is_file() and is_too_deep(Path(path).read_text(encoding="utf-8")):
            raise ArgumentError(self, f"{path} is nested too deeply to be read")


def is_too_deep(text: str) -> bool:
    """Return True if YAML or JSON is nested more deeply than `MAX_DEPTH`.

    >>> is_too_deep("[1, [2]]"), is_too_deep("[" * 100)
    (False, True)
    """
    if len(text) < MAX_DEPTH:
        return False
    depth = 0
    try:
        for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                return True
    except yaml.YAMLError as error:  # newer versions of libyaml have their own limit
        return "nesting depth" in str(error)
    return False

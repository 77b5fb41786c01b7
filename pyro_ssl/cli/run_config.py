"""The configuration of a run, `config.json`, and the lock on its directory.

The other files of a run are written by `training.callbacks.RunDirectory`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any

from pyro_ssl.utils import files

FIT_OPTIONS = (
    "epochs",
    "batch_size",
    "labeled_batch_size",
    "lr",
    "warmup",
    "clip_norm",
    "ema",
    "precision",
    "compile",
    "device",
    "checkpoint_every",
    "progress",
)
"""Arguments of `fit` that are options of `train`."""
NAMED_FIT_OPTIONS = ("schedule", "optimizer")
"""Arguments of `fit` that `train` takes by name."""
CONFIG = "config.json"
CONFIG_TYPES: dict[str, tuple[type, ...]] = {
    "method": (str,),
    "preset": (str, NoneType),
    "settings": (str,),
    "options": (dict,),
    "training": (dict,),
    "data": (str,),
    "data_root": (str, NoneType),
    "labels": (int, str, NoneType),
    "how": (str,),
    "label_file": (str, NoneType),
    "validation": (float,),
    "log": (str, NoneType),
    "seed": (int,),
    "binarise": (bool,),
    "label_column": (str,),
    "ignore_columns": (list,),
    "image_size": (int, NoneType),
}
"""Entries of `config.json` and their types."""
LATER_ENTRIES: dict[str, Any] = {
    "preset": None,
    "settings": "method",
    "validation": 0.0,
    "log": None,
    "label_column": "label",
    "ignore_columns": [],
    "image_size": None,
}
"""Entries that earlier versions did not write, and the values to assume for them."""
REMNANTS = {"lock", "fit.lock", "config.json.writing"}
"""Files that are left if a command is killed before it has written `config.json`."""


def check_new(out: Path) -> None:
    """Raise FileExistsError if the directory may hold another run.

    >>> check_new(Path("no such directory"))
    """
    others = _names_in(out) - REMNANTS
    if not others:
        return
    resume = ""
    if CONFIG in others:
        resume = f"--resume {out} continues that run with its settings; "
    raise FileExistsError(
        f"--out: {out} is not empty and may hold another run; {resume}"
        "give another directory for a new run"
    )


@contextmanager
def owned(out: Path) -> Iterator[None]:
    """Make and lock the directory; remove it again if nothing was written to it.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, owned(Path(folder) / "run"):
    ...     (Path(folder) / "run").is_dir()
    True
    """
    is_new = not out.exists()
    try:
        with files.locked(out):
            yield
    except BaseException:
        names = _names_in(out) if is_new else set()
        if names and names <= REMNANTS:
            for name in names:
                (out / name).unlink()
            out.rmdir()
        raise


@contextmanager
def configured(out: Path, config: dict[str, Any]) -> Iterator[None]:
    """Write `config.json`, and remove it again if training is refused before it starts.

    The same `--out` can then be used again.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, configured(Path(folder), {"method": "m2"}):
    ...     (Path(folder) / CONFIG).exists()
    True
    """
    path = out / CONFIG
    is_new = not path.exists()
    files.write_text(path, json.dumps(config, indent=1))
    try:
        yield
    except BaseException:
        if is_new and _names_in(out) - REMNANTS == {CONFIG}:
            path.unlink()
        raise


def _names_in(directory: Path) -> set[str]:
    if not directory.is_dir():
        return set()
    return {path.name for path in directory.iterdir()}


def read_config(directory: Path) -> dict[str, Any]:
    """Read the configuration of a run.

    Raises:
        FileNotFoundError: The directory holds no run.
        ValueError: The file is damaged.

    >>> read_config(Path("nowhere"))
    Traceback (most recent call last):
    ...
    FileNotFoundError: nowhere/config.json: no such file; nowhere is not the directory of a run
    """
    path = directory / CONFIG
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: no such file; {directory} is not the directory of a run{_hint(directory)}"
        ) from None
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if isinstance(config, dict):
        config = LATER_ENTRIES | config
    _check_config(config, path)
    return config


def _hint(directory: Path) -> str:
    """What a directory without a configuration is, and what can be done with it."""
    if (directory / "asked.json").exists():
        return f" but of pyro-ssl label; its model predicts by pyro-ssl predict {directory}"
    if directory.is_dir():
        return "; no run has started there: use --out again"
    return ""


def _check_config(config: Any, path: Path) -> None:
    """Raise ValueError unless a configuration has all entries, each of its type."""
    if not isinstance(config, dict) or not CONFIG_TYPES.keys() <= config.keys():
        raise ValueError(f"{path} is damaged, or was not written by pyro-ssl train")
    for name, types in CONFIG_TYPES.items():
        if type(config[name]) not in types:
            names = ["null" if kind is NoneType else kind.__name__ for kind in types]
            wanted = " or ".join(names)
            raise ValueError(
                f"{path} is damaged: {name} should be {wanted}, got {config[name]!r:.80}"
            )
    given = config["training"].keys()
    if not {"epochs", "ema"} <= given or not given <= {*FIT_OPTIONS, *NAMED_FIT_OPTIONS}:
        training = f"{config['training']!r:.200}"
        raise ValueError(
            f"{path} is damaged: training should hold arguments of fit, got {training}"
        )

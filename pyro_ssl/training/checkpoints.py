"""Checkpoints on disk: tensors and plain data, written atomically and read without running code.

`resuming.py` says what the checkpoint of a run holds, `packed_state.py` how its state becomes
tensors and plain data.

A directory holds `state.json` and `state.safetensors`. It is written under another name, flushed
and renamed; the one before it is kept as `<name>.previous`, and used if the newer one is damaged.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from torch import Tensor

from pyro_ssl.utils import files
from pyro_ssl.utils.files import CheckpointError, followed, naming

FORMAT = "pyro-ssl"
VERSION = 1


class CheckpointWarning(UserWarning):
    """A checkpoint could not be read, so the one before it is used.

    >>> issubclass(CheckpointWarning, UserWarning)
    True
    """


def save(
    directory: str | Path,
    tensors: dict[str, Tensor],
    data: dict[str, Any],
    *,
    keep_previous: bool = True,
) -> None:
    """Write tensors and JSON data as `directory`, atomically.

    If the directory is a symbolic link, its target is replaced and the link stays.

    >>> import torch
    >>> from tempfile import mkdtemp
    >>> directory = Path(mkdtemp()) / "checkpoint"
    >>> save(directory, {"w": torch.zeros(2)}, {"step": 7})
    >>> load(directory)
    ({'w': tensor([0., 0.])}, {'step': 7})

    Arguments:
        directory: The directory; its parent is made if missing.
        tensors: Any tensors, on any device; shared storage is written twice.
        data: JSON-serialisable data; floats are restored exactly.
        keep_previous: Keep the directory that was there as `<directory>.previous`.

    Raises:
        OSError: The disk is full or not writable; the directory that was there is unharmed.
        FileExistsError: `directory` is a file, or holds files that `save` did not write.
        TypeError: JSON cannot hold the data.
    """
    target = followed(directory)
    aside = _aside(target)
    previous = previous_of(target)
    for place in (target, aside, previous):
        _check_ours(place)
    blob = safetensors.torch.save(
        {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    )
    header = {"format": FORMAT, "version": VERSION, "sha256": _sha256(blob)}
    body = json.dumps(data, allow_nan=True, default=_number)
    text = json.dumps({**header, "sha256_data": _sha256(body.encode()), "data": body})
    _remove(aside)
    try:
        aside.mkdir(parents=True)
        for name, content in (("state.safetensors", blob), ("state.json", text.encode())):
            with naming(target / name):
                files.write_flushed(aside / name, content)
        _flush(aside)
    except OSError:
        _remove(aside)
        raise
    if _is_whole(target):
        _remove(previous)
        target.rename(previous)
    else:  # missing or damaged: the good one before it stays
        _remove(target)
    aside.rename(target)
    _flush(target.parent)
    if not keep_previous:
        _remove(previous)


def load(directory: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a directory that `save` wrote; if it is missing or damaged, read the one before it.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for step in (1, 2):
    ...         save(Path(folder) / "checkpoint", {}, {"step": step})
    ...     shutil.rmtree(Path(folder) / "checkpoint")
    ...     load(Path(folder) / "checkpoint")[1]
    {'step': 1}

    Raises:
        FileNotFoundError: Neither exists.
        CheckpointError: Neither can be used; the message says why.

    Warns:
        CheckpointWarning: The directory is damaged, and the one before it is used.
    """
    target = followed(directory)
    try:
        return _read(target)
    except (CheckpointError, FileNotFoundError) as error:
        if not previous_of(target).exists():
            raise
        result = _read(previous_of(target))
        if not isinstance(error, FileNotFoundError) or target.exists():
            warnings.warn(f"{error}; using the one before it", CheckpointWarning, stacklevel=2)
        return result


def exists(directory: str | Path) -> bool:
    """Return True if there is a directory for `load` to read.

    >>> exists("no such directory")
    False
    """
    return followed(directory).exists() or previous_of(Path(directory)).exists()


def previous_of(directory: Path) -> Path:
    """Path under which `save` keeps the directory that was there before.

    >>> previous_of(Path("runs/checkpoint")).name
    'checkpoint.previous'
    """
    directory = followed(directory)
    return directory.with_name(directory.name + ".previous")


def _remove(path: Path) -> None:
    """Remove a directory that `save` wrote, or a link to it, if it exists."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _aside(directory: Path) -> Path:
    return directory.with_name(directory.name + ".writing")


def _check_ours(target: Path) -> None:
    """Raise FileExistsError if replacing the directory would move or delete the user's files."""
    names = set()
    if target.is_dir():
        names = {path.name for path in target.iterdir()}
    elif target.exists():
        names = {target.name}
    other = sorted(names - {"state.json", "state.safetensors"})
    if other:
        raise FileExistsError(
            f"{target} holds other things, such as {other[0]}; give a new directory"
        )


def _is_whole(directory: Path) -> bool:
    try:
        _read(directory)
    except (CheckpointError, FileNotFoundError):
        return False
    return True


def _read(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The content of a directory, after all checks."""
    if not directory.exists():
        raise FileNotFoundError(f"{directory}: no such directory")
    header = _read_header(directory)
    body = header.get("data")
    if not isinstance(body, str) or _sha256(body.encode()) != header.get("sha256_data"):
        raise CheckpointError(f"{directory}/state.json is damaged: its checksum does not match")
    try:
        blob = (directory / "state.safetensors").read_bytes()
    except OSError as error:
        raise CheckpointError(f"{directory}/state.safetensors cannot be read: {error}") from None
    if _sha256(blob) != header.get("sha256"):
        raise CheckpointError(
            f"{directory}/state.safetensors is damaged: its checksum does not match"
        )
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{directory}/state.json is damaged: {error}") from None
    if not isinstance(data, dict):
        got = type(data).__name__
        raise CheckpointError(
            f"{directory}/state.json is damaged: its data are a {got}, not an object"
        )
    try:
        return safetensors.torch.load(blob), data
    except Exception as error:  # safetensors and torch raise half a dozen kinds of errors
        raise CheckpointError(f"{directory}/state.safetensors is damaged: {error}") from None


def _read_header(directory: Path) -> dict[str, Any]:
    """Read `state.json`, and check its format and version."""
    try:
        header = json.loads((directory / "state.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{directory} holds no state.json: not written by pyro-ssl, or damaged"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{directory}/state.json is damaged: {error}") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError(f"{directory}/state.json was not written by pyro-ssl")
    version = header.get("version")
    if not isinstance(version, int) or version < 1:
        raise CheckpointError(
            f"{directory}/state.json is damaged: its format version is {version!r}"
        )
    if version > VERSION:
        raise CheckpointError(
            f"{directory} has format version {version}, newer than {VERSION}, the newest known "
            "here; upgrade pyro-ssl"
        )
    return header


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _number(value: Any) -> Any:
    """Convert a number of numpy to Python's own; refuse other objects by name."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(
        f"data holds a {type(value).__name__}, {value!r}, which cannot be saved without pickling"
    )


def _flush(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

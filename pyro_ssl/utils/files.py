"""Files that are written whole or not at all, with checksums and locks."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class CheckpointError(ValueError):
    """A file that is damaged, foreign, or written by a newer version; the message says which."""


def followed(path: str | Path) -> Path:
    """Follow a symbolic link at the end of a path, so that what it points to is replaced and the link stays."""
    path = Path(path)
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Add the path to an OSError that names none, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def locked(directory: str | Path, name: str = "lock") -> Iterator[None]:
    """One process at a time in a directory, which is made if missing; the lock ends with the process.

    Where the file system has no such locks, nothing is locked.

    Arguments:
        directory: What the lock is for.
        name: File of the lock, which stays.

    Raises:
        ValueError: Another process, or another `locked` of this one, has it.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / name).open("a") as file:
        if not _flock(file.fileno()):
            raise ValueError(
                f"{directory} is in use by another process of pyro-ssl; wait for it, or end it, or give another directory"
            )
        yield


def _flock(descriptor: int) -> bool:
    """Whether the file is locked now, or cannot be; False if another one has locked it."""
    try:
        import fcntl
    except ImportError:  # as on Windows
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def write_flushed(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_file(path: str | Path, content: bytes) -> None:
    """Write a small file aside and rename it, so that a reader sees the old one or the new, never half of it.

    A symbolic link stays: the file it points to is replaced.
    """
    path = followed(path)
    aside = path.with_name(path.name + ".writing")
    try:
        with naming(path):
            write_flushed(aside, content)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    aside.replace(path)


def write_text(path: str | Path, text: str) -> None:
    """The same for text."""
    write_file(path, text.encode())


def sealed(data: dict[str, Any]) -> str:
    """Plain data as JSON text, with a checksum that `unsealed` compares."""
    return json.dumps(data | {"checksum": _seal(data)})


def unsealed(text: str | bytes, path: str | Path) -> dict[str, Any]:
    """The data of `sealed`, or of an earlier version's text without a checksum.

    Arguments:
        text: What the file holds.
        path: The file, for messages.

    Raises:
        CheckpointError: It is not JSON, or was changed after it was written.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} is damaged: it should hold an object, got {type(data).__name__}")
    if "checksum" in data and data.pop("checksum") != _seal(data):
        raise CheckpointError(
            f"{path} is damaged: its checksum does not match; if it was changed on purpose, delete the checksum in it"
        )
    return data


def write_sealed(path: str | Path, data: dict[str, Any]) -> None:
    """Write plain data as JSON with a checksum, as `write_text` writes text."""
    write_text(path, sealed(data))


def read_sealed(path: str | Path) -> dict[str, Any]:
    """Read what `write_sealed` wrote, in this version or an earlier one, which had no checksum.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged.
    """
    return unsealed(Path(path).read_bytes(), path)


def _seal(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def checksum(x: Tensor) -> int:
    """Of a tensor's values, to tell other data from the same."""
    return zlib.crc32(x.cpu().contiguous().view(torch.uint8).numpy().data)

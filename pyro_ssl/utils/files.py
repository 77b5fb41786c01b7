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
    """A file is damaged, foreign, or written by a newer version; the message says which."""


# --- files written aside and renamed --------------------------------------------------------------


def write_file(path: str | Path, content: bytes) -> None:
    """Write a small file aside and rename it, so that a reader sees the old one or the new one.

    A symbolic link stays: the file it points to is replaced.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     write_file(Path(directory) / "a.txt", b"whole")
    ...     (Path(directory) / "a.txt").read_text()
    'whole'
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
    """Write text as `write_file` writes bytes."""
    write_file(path, text.encode())


def write_flushed(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def followed(path: str | Path) -> Path:
    """Follow a symbolic link at the end of a path, so that its target is replaced and it stays."""
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


# --- JSON with a checksum -------------------------------------------------------------------------


def write_sealed(path: str | Path, data: dict[str, Any]) -> None:
    """Write plain data as JSON with a checksum, as `write_text` writes text."""
    write_text(path, sealed(data))


def read_sealed(path: str | Path) -> dict[str, Any]:
    """Read a file of `write_sealed`, or of an earlier version, which wrote no checksum.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged.
    """
    return unsealed(Path(path).read_bytes(), path)


def sealed(data: dict[str, Any]) -> str:
    """Plain data as JSON text, with a checksum that `unsealed` compares.

    >>> unsealed(sealed({"rows": [1, 2]}), "labels.json")
    {'rows': [1, 2]}
    """
    return json.dumps(data | {"checksum": _checksum_of(data)})


def unsealed(text: str | bytes, path: str | Path) -> dict[str, Any]:
    """The data of `sealed`, or of an earlier version's text without a checksum.

    Arguments:
        text: Content of the file.
        path: The file, for messages.

    Raises:
        CheckpointError: It is not JSON, or was changed after it was written.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    if not isinstance(data, dict):
        raise CheckpointError(
            f"{path} is damaged: it should hold an object, got {type(data).__name__}"
        )
    if "checksum" in data and data.pop("checksum") != _checksum_of(data):
        raise CheckpointError(
            f"{path} is damaged: its checksum does not match; "
            "if it was changed on purpose, delete the checksum in it"
        )
    return data


def _checksum_of(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def checksum(x: Tensor) -> int:
    """Checksum of a tensor's values, to recognise the same data.

    >>> checksum(torch.zeros(2)) == checksum(torch.zeros(2))
    True
    """
    return zlib.crc32(x.cpu().contiguous().view(torch.uint8).numpy().data)


# --- locks ----------------------------------------------------------------------------------------


@contextmanager
def locked(directory: str | Path, name: str = "lock") -> Iterator[None]:
    """Let one process at a time use a directory; the lock ends with the process.

    The directory is made if it is missing. On a file system without locks nothing is locked.

    Arguments:
        directory: The directory.
        name: Name of the lock's file, which stays.

    Raises:
        ValueError: Another process, or another `locked` of this one, has the lock.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / name).open("a") as file:
        if not _flock(file.fileno()):
            raise ValueError(
                f"{directory} is in use by another process of pyro-ssl; "
                "wait for it, or end it, or give another directory"
            )
        yield


def _flock(descriptor: int) -> bool:
    """Lock a file; False if another process has locked it, True if it cannot be locked."""
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

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
    """A file is damaged, of another program, or of a newer version; the message says which.

    >>> issubclass(CheckpointError, ValueError)
    True
    """


# --- files written aside and renamed --------------------------------------------------------------


def write_file(path: str | Path, content: bytes) -> None:
    """Replace a small file at once: readers see the old content or the new, never a part.

    The content is written to a second file, which is then renamed. If the path is a symbolic link,
    the file it points to is replaced.

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
    """Write text as `write_file` writes bytes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     write_text(Path(directory) / "a.txt", "whole")
    ...     (Path(directory) / "a.txt").read_bytes()
    b'whole'
    """
    write_file(path, text.encode())


def write_flushed(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     write_flushed(Path(directory) / "a.txt", b"whole")
    ...     (Path(directory) / "a.txt").stat().st_size
    5
    """
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def followed(path: str | Path) -> Path:
    """Resolve a path that is a symbolic link; any other path stays as it is.

    >>> str(followed("not-a-link.txt"))
    'not-a-link.txt'
    """
    path = Path(path)
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Add the path to an OSError without one, such as that of a full disk.

    >>> with naming("model.pt"):
    ...     raise OSError(28, "No space left on device")
    Traceback (most recent call last):
    OSError: [Errno 28] No space left on device: 'model.pt'
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


# --- JSON with a checksum -------------------------------------------------------------------------


def write_sealed(path: str | Path, data: dict[str, Any]) -> None:
    """Write data as JSON with a checksum; the file is replaced at once, as by `write_file`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     write_sealed(Path(directory) / "a.json", {"rows": 3})
    ...     read_sealed(Path(directory) / "a.json")
    {'rows': 3}
    """
    write_text(path, sealed(data))


def read_sealed(path: str | Path) -> dict[str, Any]:
    """Read a file of `write_sealed`, or of an earlier version that wrote no checksum.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is damaged.

    >>> read_sealed("missing.json")
    Traceback (most recent call last):
    FileNotFoundError: ...
    """
    return unsealed(Path(path).read_bytes(), path)


def sealed(data: dict[str, Any]) -> str:
    """Convert data to JSON text with a checksum, which `unsealed` verifies.

    >>> unsealed(sealed({"rows": [1, 2]}), "labels.json")
    {'rows': [1, 2]}
    """
    return json.dumps(data | {"checksum": _checksum_of(data)})


def unsealed(text: str | bytes, path: str | Path) -> dict[str, Any]:
    """Convert text of `sealed` back to data; text of an earlier version has no checksum.

    Arguments:
        text: Content of the file.
        path: Path of the file, for messages.

    Raises:
        CheckpointError: The text is not JSON, or was changed after it was written.

    >>> unsealed('{"rows": 3, "checksum": "0"}', "a.json")
    Traceback (most recent call last):
    pyro_ssl.utils.files.CheckpointError: a.json is damaged: its checksum does not match; ...
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


def as_json(data: Any, name: str) -> Any:
    """Data as they are after a way through JSON: tuples are lists, for example.

    Arguments:
        data: The data.
        name: Name of the data, for the message.

    Raises:
        ValueError: JSON cannot hold the data.

    >>> as_json({"hidden": (500, 500)}, "settings")
    {'hidden': [500, 500]}
    """
    try:
        return json.loads(json.dumps(data))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name} should be plain data that JSON can hold: {error}") from None


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
    """Let one process at a time use a directory, which is made if it is missing.

    The lock ends with the block or the process. On a file system without locks, nothing is locked.

    Arguments:
        directory: The directory.
        name: Name of the lock's file, which is not deleted.

    Raises:
        ValueError: Another process, or another block of this process, holds the lock.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory, locked(directory):
    ...     (Path(directory) / "lock").exists()
    True
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

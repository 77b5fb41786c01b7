"""Directories of tensors and plain data that are written whole or not at all, and never run code when read.

A directory holds `state.json` and `state.safetensors`. It is written aside, flushed and renamed; what stood there before
is kept beside it as `<name>.previous`, and is used when the newer one is damaged.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

FORMAT = "pyro-ssl"
VERSION = 1


class CheckpointError(ValueError):
    """A file that is damaged, foreign, or written by a newer version; the message says which."""


class CheckpointWarning(UserWarning):
    """A checkpoint could not be read, and the one before it is used."""


def save(
    directory: str | Path, tensors: dict[str, Tensor], data: dict[str, Any], *, keep_previous: bool = True
) -> None:
    """Write tensors and JSON data as `directory`, atomically.

    Arguments:
        directory: Where; its parent is made if missing.
        tensors: Any tensors, on any device; shared storage is written twice.
        data: What JSON can hold; floats come back bit for bit.
        keep_previous: Keep what stood there as `<directory>.previous`.

    Raises:
        OSError: The disk is full or not writable; what stood there before is unharmed.
        FileExistsError: `directory` is a file, or holds anything that `save` did not write.
        TypeError: `data` holds what JSON cannot.
    """
    target = Path(directory)
    aside, previous = _aside(target), previous_of(target)
    for directory in (target, aside, previous):
        _check_ours(directory)
    blob = safetensors.torch.save({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()})
    header = {"format": FORMAT, "version": VERSION, "sha256": hashlib.sha256(blob).hexdigest()}
    body = json.dumps(data, allow_nan=True, default=_number)
    text = json.dumps({**header, "sha256_data": hashlib.sha256(body.encode()).hexdigest(), "data": body})
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        _write(aside / "state.safetensors", blob)
        _write(aside / "state.json", text.encode())
        _flush(aside)
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if _is_whole(target):
        shutil.rmtree(previous, ignore_errors=True)
        target.rename(previous)
    else:  # nothing, or something damaged, for which the good one before it must not give way
        shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)
    _flush(target.parent)
    if not keep_previous:
        shutil.rmtree(previous, ignore_errors=True)


def load(directory: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save` wrote; if it is missing or damaged, what it had replaced, with a `CheckpointWarning`.

    Raises:
        FileNotFoundError: There is neither.
        CheckpointError: What there is cannot be used; the message says why.
    """
    target = Path(directory)
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
    """Whether there is anything for `load` to read."""
    return Path(directory).exists() or previous_of(Path(directory)).exists()


def previous_of(directory: Path) -> Path:
    """Where `save` keeps what stood in `directory` before."""
    return directory.with_name(directory.name + ".previous")


def _aside(directory: Path) -> Path:
    return directory.with_name(directory.name + ".writing")


def _check_ours(target: Path) -> None:
    """Raise FileExistsError where replacing the directory would move or delete things of the user's."""
    names = {p.name for p in target.iterdir()} if target.is_dir() else {target.name} if target.exists() else set()
    if other := sorted(names - {"state.json", "state.safetensors"}):
        raise FileExistsError(f"{target} holds other things, such as {other[0]}; give a new directory")


def _is_whole(directory: Path) -> bool:
    try:
        _read(directory)
    except (CheckpointError, FileNotFoundError):
        return False
    return True


def _read(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not directory.exists():
        raise FileNotFoundError(f"{directory}: no such directory")
    try:
        header = json.loads((directory / "state.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{directory} holds no state.json: not written by pyro-ssl, or damaged") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{directory}/state.json is damaged: {error}") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError(f"{directory}/state.json was not written by pyro-ssl")
    version = header.get("version")
    if not isinstance(version, int) or version < 1:
        raise CheckpointError(f"{directory}/state.json is damaged: its format version is {version!r}")
    if version > VERSION:
        raise CheckpointError(
            f"{directory} has format version {version}, newer than {VERSION}, the newest known here; upgrade pyro-ssl"
        )
    body = header.get("data")
    if not isinstance(body, str) or hashlib.sha256(body.encode()).hexdigest() != header.get("sha256_data"):
        raise CheckpointError(f"{directory}/state.json is damaged: its checksum does not match")
    try:
        blob = (directory / "state.safetensors").read_bytes()
    except OSError as error:
        raise CheckpointError(f"{directory}/state.safetensors cannot be read: {error}") from None
    if hashlib.sha256(blob).hexdigest() != header.get("sha256"):
        raise CheckpointError(f"{directory}/state.safetensors is damaged: its checksum does not match")
    try:
        return safetensors.torch.load(blob), json.loads(body)
    except (SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{directory} is damaged: {error}") from None


def _number(value: Any) -> Any:
    """A numpy number as Python's own; anything else is refused by name."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"data holds a {type(value).__name__}, {value!r}, which cannot be saved without pickling")


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: str | Path, content: bytes) -> None:
    """Write a small file aside and rename it, so that a reader sees the old one or the new, never half of it."""
    path = Path(path)
    aside = path.with_name(path.name + ".writing")
    try:
        _write(aside, content)
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


def said(thing: Any) -> str:
    """As text that is the same in another process: functions by their names."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(thing))


def pack(prefix: str, state: Any, tensors: dict[str, Tensor]) -> Any:
    """Nested dicts and lists with tensors in them, as plain data; the tensors go into `tensors` under paths from `prefix`.

    Raises:
        TypeError: Something is neither a tensor nor plain data, so it could only be restored by running code.
    """
    if isinstance(state, Tensor):
        while prefix in tensors:  # as under the keys 1 and "1", or "a/b" and "a" over "b"
            prefix += "'"
        tensors[prefix] = state
        return {"tensor": prefix}
    if isinstance(state, dict):
        return {"items": [[_plain(k, prefix), pack(f"{prefix}/{k}", v, tensors)] for k, v in state.items()]}
    if isinstance(state, (list, tuple)):
        kind = "list" if isinstance(state, list) else "tuple"
        return {kind: [pack(f"{prefix}/{i}", v, tensors) for i, v in enumerate(state)]}
    return {"plain": _plain(state, prefix)}


def unpack(packed: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `pack`."""
    ((kind, value),) = packed.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "items":
        return {k: unpack(v, tensors) for k, v in value}
    if kind == "plain":
        return value
    return (list if kind == "list" else tuple)(unpack(v, tensors) for v in value)


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{where} holds a {type(value).__name__}, which cannot be saved without pickling")


def rng_tensors() -> dict[str, Tensor]:
    """States of torch's global generators, by device."""
    states = {"rng/cpu": torch.get_rng_state()}
    return states | {
        f"rng/cuda/{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])
    }


def set_rng(tensors: dict[str, Tensor]) -> None:
    """Restore what `rng_tensors` gave."""
    torch.set_rng_state(tensors["rng/cpu"])
    for name, state in tensors.items():
        if name.startswith("rng/cuda/"):
            torch.cuda.set_rng_state(state, int(name.rsplit("/", 1)[1]))

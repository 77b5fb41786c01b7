"""Directories of tensors and plain data, written atomically and read without running code.

A directory holds `state.json` and `state.safetensors`. It is written under another name, flushed
and renamed; the one before it is kept as `<name>.previous`, and used if the newer one is damaged.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
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

    >>> from tempfile import mkdtemp
    >>> directory = Path(mkdtemp()) / "checkpoint"
    >>> save(directory, {"w": torch.zeros(2)}, {"step": 7})
    >>> load(directory)
    ({'w': tensor([0., 0.])}, {'step': 7})

    Arguments:
        directory: The directory; its parent is made if missing.
        tensors: Any tensors, on any device; shared storage is written twice.
        data: Data for JSON; floats come back bit for bit.
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
    """Read a directory of `save`; if it is missing or damaged, the one before it.

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
    """Remove a directory of `save`, or a link in its place, if it exists."""
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
        raise CheckpointError(f"{directory}/state.json is damaged: its data are a {got}, no object")
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


def stable_repr(value: Any) -> str:
    """Repr without memory addresses, which is the same in every process; functions by name.

    >>> stable_repr(stable_repr)
    '<function stable_repr>'
    """
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def pack(prefix: str, state: Any, tensors: dict[str, Tensor]) -> Any:
    """Convert nested dicts and lists with tensors to plain data for JSON.

    >>> tensors = {}
    >>> pack("run", {"w": torch.zeros(2)}, tensors)
    {'items': [['w', {'tensor': 'run/w'}]]}
    >>> list(tensors)
    ['run/w']

    Arguments:
        prefix: First part of the tensors' names.
        state: The state.
        tensors: Dictionary that is filled with the tensors, by their paths.

    Raises:
        TypeError: An entry is neither a tensor nor plain data; only code could restore it.
    """
    if isinstance(state, Tensor):
        while prefix in tensors:  # as under the keys 1 and "1", or "a/b" and "a" over "b"
            prefix += "'"
        tensors[prefix] = state
        return {"tensor": prefix}
    if isinstance(state, dict):
        return {
            "items": [
                [_plain(k, prefix), pack(f"{prefix}/{k}", v, tensors)] for k, v in state.items()
            ]
        }
    if isinstance(state, (list, tuple)):
        kind = "list" if isinstance(state, list) else "tuple"
        return {kind: [pack(f"{prefix}/{i}", v, tensors) for i, v in enumerate(state)]}
    return {"plain": _plain(state, prefix)}


def unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Convert plain data of `pack` back.

    >>> unpack({"items": [["w", {"tensor": "run/w"}]]}, {"run/w": torch.zeros(2)})
    {'w': tensor([0., 0.])}

    Raises:
        CheckpointError: It has another form than `pack` gives, or a tensor is missing or left over.
    """
    left = dict(tensors)
    try:
        state = _unpack(packed, left)
    except RecursionError:
        raise CheckpointError("the data are nested too deeply") from None
    if left:
        raise CheckpointError(f"the tensor {min(left)} belongs nowhere")
    return state


def _unpack(packed: Any, left: dict[str, Tensor]) -> Any:
    """Unpack one entry; its tensors are removed from `left`."""
    kind, value = _kind_and_value(packed)
    if kind == "plain":
        return value
    if kind == "tensor":
        return _taken(value, left)
    if kind == "items":
        return {name: _unpack(entry, left) for name, entry in value}
    entries = [_unpack(entry, left) for entry in value]
    return tuple(entries) if kind == "tuple" else entries


def _kind_and_value(packed: Any) -> tuple[str, Any]:
    """Kind and value of a packed entry; raise CheckpointError unless `pack` could give it."""
    if isinstance(packed, dict) and len(packed) == 1:
        ((kind, value),) = packed.items()
        if kind in _FORMS and _FORMS[kind](value):
            return kind, value
    raise CheckpointError(f"the data hold {packed!r:.80}, which this version does not write")


def _taken(name: str, left: dict[str, Tensor]) -> Tensor:
    if name not in left:
        raise CheckpointError(f"the tensor {name!r:.80} is missing, or there twice")
    return left.pop(name)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _are_items(value: Any) -> bool:
    """Return True for a list of [name, entry] whose names are plain and differ."""
    if not isinstance(value, list):
        return False
    are_pairs = all(isinstance(item, list) and len(item) == 2 for item in value)
    if not are_pairs or not all(_is_plain(name) for name, _ in value):
        return False
    return len({name for name, _ in value}) == len(value)


_FORMS: dict[str, Callable[[Any], bool]] = {
    "plain": _is_plain,
    "tensor": _is_text,
    "list": _is_list,
    "tuple": _is_list,
    "items": _are_items,
}
"""Kinds of packed entries, each with a check of its value."""


def check_tensors(tensors: Any, like: Mapping[str, Tensor], message: str) -> None:
    """Check that tensors have the names, shapes and dtypes of others; values may differ.

    Arguments:
        tensors: Tensors by name, from a file.
        like: The tensors to match.
        message: Start of the message.

    Raises:
        CheckpointError: They do not match.

    >>> check_tensors({"w": torch.ones(2)}, {"w": torch.zeros(2)}, "weights")
    """
    if not isinstance(tensors, Mapping) or not all(isinstance(v, Tensor) for v in tensors.values()):
        raise CheckpointError(
            f"{message}: tensors by name are wanted, got {type(tensors).__name__}"
        )
    missing = sorted(like.keys() - tensors.keys())
    if missing:
        raise CheckpointError(f"{message}: Missing key(s): {', '.join(missing[:5])}")
    unexpected = sorted(map(str, tensors.keys() - like.keys()))
    if unexpected:
        raise CheckpointError(f"{message}: Unexpected key(s): {', '.join(unexpected[:5])}")
    for name, tensor in like.items():
        if tensors[name].shape != tensor.shape:
            shapes = f"{tuple(tensors[name].shape)}, wanted {tuple(tensor.shape)}"
            raise CheckpointError(f"{message}: size mismatch for {name}: got {shapes}")
        if tensors[name].dtype != tensor.dtype:
            dtypes = f"{tensors[name].dtype}, wanted {tensor.dtype}"
            raise CheckpointError(f"{message}: dtype mismatch for {name}: got {dtypes}")


def _plain(value: Any, where: str) -> Any:
    if _is_plain(value):
        return value
    raise TypeError(
        f"{where} holds a {type(value).__name__}, which cannot be saved without pickling"
    )


def rng_tensors() -> dict[str, Tensor]:
    """States of torch's global generators, by device.

    >>> rng_tensors()["rng/cpu"].dtype
    torch.uint8
    """
    states = {"rng/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        for i, state in enumerate(torch.cuda.get_rng_state_all()):
            states[f"rng/cuda/{i}"] = state
    return states


def set_rng(tensors: Mapping[str, Tensor]) -> None:
    """Restore the states of `rng_tensors`.

    >>> before = rng_tensors()
    >>> first = torch.rand(())
    >>> set_rng(before)
    >>> bool(torch.rand(()) == first)
    True

    Raises:
        CheckpointError: They are not states of such generators.
    """
    cpu = "rng/cpu"
    if cpu not in tensors:
        raise CheckpointError("the state of the random numbers is missing")
    check_tensors(
        {cpu: tensors[cpu]}, {cpu: torch.get_rng_state()}, "the state of the random numbers"
    )
    try:
        torch.set_rng_state(tensors[cpu])
        for name in sorted(tensors.keys() - {cpu}):
            place = name.removeprefix("rng/cuda/")
            if not (place.isascii() and place.isdigit()):
                raise CheckpointError(f"{name!r:.80} is not a state of random numbers")
            if int(place) < torch.cuda.device_count():
                torch.cuda.set_rng_state(tensors[name], int(place))
    except (RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the state of the random numbers cannot be restored: {error}"
        ) from None

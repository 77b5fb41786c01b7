"""Convert the state of a run to tensors and plain data for a checkpoint, and back, with checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from pyro_ssl.utils.files import CheckpointError


def pack(prefix: str, state: Any, tensors: dict[str, Tensor]) -> Any:
    """Convert nested dicts and lists with tensors to plain data for JSON.

    >>> import torch
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
        TypeError: An entry is neither a tensor nor plain data.
    """
    if isinstance(state, Tensor):
        while prefix in tensors:  # keys 1 and "1", or "a/b" and "b" in "a", give one name
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
    """Convert the plain data that `pack` returns back to nested dicts and lists.

    >>> import torch
    >>> unpack({"items": [["w", {"tensor": "run/w"}]]}, {"run/w": torch.zeros(2)})
    {'w': tensor([0., 0.])}

    Raises:
        CheckpointError: The data do not have the form that `pack` returns, or a tensor is missing
            or unused.
    """
    unused = dict(tensors)
    try:
        state = _unpack(packed, unused)
    except RecursionError:
        raise CheckpointError("the data are nested too deeply") from None
    if unused:
        raise CheckpointError(f"the data do not use the tensor {min(unused)}")
    return state


def _unpack(packed: Any, unused: dict[str, Tensor]) -> Any:
    """Unpack one entry; its tensors are removed from `unused`."""
    kind, value = _kind_and_value(packed)
    if kind == "plain":
        return value
    if kind == "tensor":
        return _take(value, unused)
    if kind == "items":
        return {name: _unpack(entry, unused) for name, entry in value}
    entries = [_unpack(entry, unused) for entry in value]
    return tuple(entries) if kind == "tuple" else entries


def _kind_and_value(packed: Any) -> tuple[str, Any]:
    """Return kind and value of an entry; raise CheckpointError if `pack` could not have made it."""
    if isinstance(packed, dict) and len(packed) == 1:
        ((kind, value),) = packed.items()
        if kind in _FORMS and _FORMS[kind](value):
            return kind, value
    raise CheckpointError(f"the data hold {packed!r:.80}, which this version does not write")


def _take(name: str, unused: dict[str, Tensor]) -> Tensor:
    if name not in unused:
        raise CheckpointError(f"the tensor {name!r:.80} is missing, or used twice")
    return unused.pop(name)


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
        message: Start of the error message.

    Raises:
        CheckpointError: They do not match.

    >>> import torch
    >>> check_tensors({"w": torch.ones(2)}, {"w": torch.zeros(2)}, "weights")
    """
    if not isinstance(tensors, Mapping) or not all(isinstance(v, Tensor) for v in tensors.values()):
        raise CheckpointError(
            f"{message}: expected a mapping of names to tensors, got {type(tensors).__name__}"
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

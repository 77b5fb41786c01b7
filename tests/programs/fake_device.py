"""A device without hardware: numbers on the CPU, in tensors that say that they are elsewhere.

It is for a process of its own, since a device cannot be taken back: after `register()` there is a
device "fake", and it computes inside `in_use()`. Results and random numbers are those of the CPU,
to the bit. Like a GPU, it refuses to compute with tensors that are on the CPU. What makes Python
wait for a GPU is listed in `WAITS`: transfers, and operations that read values.

The registration is an experimental part of torch, `HAS_FAKE_DEVICES` says whether it is there.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

HAS_FAKE_DEVICES = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
WAITS: list[str] = []
"""What makes Python wait for a GPU, with the line of this project that asked for it."""

READS_VALUES = {
    "_local_scalar_dense": "a number is read",
    "equal": "torch.equal",
    "nonzero": "a shape depends on values",
    "masked_select": "a shape depends on values",
    "_unique2": "a shape depends on values",
    "unique_dim": "a shape depends on values",
    "bincount": "a shape depends on values",
    "repeat_interleave": "a shape depends on values",
    "multinomial": "torch.multinomial checks its probabilities",
    "_linalg_check_errors": "a decomposition checks its success",
}
"""Operations of ATen whose values a GPU has to give to Python."""

WITH_A_NUMBER = {"add", "sub", "rsub", "mul", "div", "pow", "lt", "le", "gt", "ge", "eq", "ne"}
WITH_A_NUMBER |= {"add_", "sub_", "mul_", "div_"}
"""Operations that take a tensor without dimensions from the CPU like a number."""

PROJECT = str(Path(__file__).parents[2])


class OnDevice(Tensor):
    """A tensor on the device; `numbers` is the same tensor on the CPU."""

    numbers: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, numbers: Tensor) -> OnDevice:
        made = Tensor._make_wrapper_subclass(
            cls,
            numbers.size(),
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=torch.device("fake", 0),
        )
        made.numbers = numbers
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} outside of in_use()")

    def __repr__(self) -> str:
        return f"OnDevice({self.numbers})"


class _Functions(TorchFunctionMode):
    """What torch does above its operations: tensors of numbers, and numbers of tensors."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("tolist", "numpy", "__array__") and isinstance(args[0], OnDevice):
            _note(f".{name}()")
            return func(args[0].numbers, *args[1:], **kwargs)
        if name == "new_tensor" and isinstance(args[0], OnDevice):
            _note(".new_tensor()")
            return OnDevice(func(args[0].numbers, *args[1:], **kwargs))
        is_made = name in ("tensor", "as_tensor") and not isinstance(args[0], Tensor)
        if is_made and _is_fake(kwargs.get("device")):
            _note(f"torch.{name} of numbers")
            return OnDevice(func(*args, **kwargs | {"device": "cpu"}))
        return func(*args, **kwargs)


class _Operations(TorchDispatchMode):
    """Operations with tensors on the device, or that make tensors there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves, form = pytree.tree_flatten((args, kwargs))
        inside = [leaf for leaf in leaves if isinstance(leaf, OnDevice)]
        target = kwargs.get("device")
        if not inside and not _is_fake(target):
            return func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        outside = [t for t in leaves if isinstance(t, Tensor) and not isinstance(t, OnDevice)]
        leaves_device = target is not None and not _is_fake(target)
        if name in ("to", "_to_copy", "copy_"):
            if outside or leaves_device:
                _note("a transfer between devices")
        elif any(t.dim() > 0 or name not in WITH_A_NUMBER for t in outside):
            raise RuntimeError(f"{func} with tensors on the fake device and on the CPU")
        if name in READS_VALUES:
            _note(READS_VALUES[name])
        if name in ("index", "index_put_") and any(map(_is_mask, args[1])):
            _note("an index is a mask, so a shape depends on values")
        on_cpu_args, on_cpu_kwargs = pytree.tree_unflatten(list(map(_on_cpu, leaves)), form)
        result = func(*on_cpu_args, **on_cpu_kwargs)
        if name == "to" and (outside or leaves_device):
            result = result.clone()
        if leaves_device or (name == "copy_" and not isinstance(args[0], OnDevice)):
            return result
        changed = {id(t.numbers): t for t in inside}  # in place

        def placed(t: Tensor) -> OnDevice:
            return changed[id(t)] if id(t) in changed else OnDevice(t)

        return pytree.tree_map_only(Tensor, placed, result)


def _is_fake(device: Any) -> bool:
    return device is not None and torch.device(device).type == "fake"


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


def _on_cpu(leaf: Any) -> Any:
    if isinstance(leaf, OnDevice):
        return leaf.numbers
    if isinstance(leaf, torch.device) and leaf.type == "fake":
        return torch.device("cpu")
    return leaf


def _note(what: str) -> None:
    for frame, line in traceback.walk_stack(None):
        file = frame.f_code.co_filename
        is_installed = "site-packages" in file  # also where .venv is a folder of the project
        if file.startswith(PROJECT) and not is_installed and file != __file__:
            WAITS.append(f"{what} ({Path(file).name}, line {line})")
            return
    WAITS.append(what)


def register() -> None:
    """Register the device; autograd needs it before the first backward pass of the process."""

    class Module(backend_registration._DummyBackendModule):
        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return []

    class Hook(backend_registration._DummyPrivateUse1Hook):
        def is_available(self) -> bool:
            return False  # as an accelerator with generators of its own

    backend_registration._setup_privateuseone_for_python_backend(
        "fake", backend_module=Module(), hook=Hook()
    )
    # modules keep their parameters when they are moved, as they do when moved to a GPU
    torch.__future__.set_swap_module_params_on_conversion(True)


@contextmanager
def in_use() -> Iterator[None]:
    """Make all operations with tensors on the device inside the block."""
    with _Functions(), _Operations():
        yield

"""Trained models on disk: a method's name, its options and its weights; nothing that runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pyro_ssl import zoo
from pyro_ssl.data.extent import Extent
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.training import checkpoints
from pyro_ssl.utils.files import CheckpointError

DTYPES = {"float64": torch.float64, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""Of weights, by the name in the file."""


@dataclass
class SavedModel:
    """A trained objective and what it takes to build it again.

    Arguments:
        method: Name in the zoo.
        x_shape: Event shape of x.
        classes: The classes' values, in the order of the columns of p(y|x).
        options: The method's options.
        objective: The trained objective.
        extra: Plain data of the caller's.
    """

    method: str
    x_shape: tuple[int, ...]
    classes: list[Any]
    options: dict[str, Any]
    objective: Objective
    extra: dict[str, Any] = field(default_factory=dict)

    def save(self, directory: str | Path) -> None:
        """Write it; what stood there is replaced at once or not at all.

        Raises:
            OSError: It cannot be written, or the directory holds other things; what stood there is unharmed.
        """
        data = {k: getattr(self, k) for k in ("method", "x_shape", "classes", "extra")}
        data["options"] = listed(self.options)
        extent = self.objective.extent
        data["extent"] = None if extent is None else extent.plain()
        dtype = str(next(self.objective.parameters()).dtype).removeprefix("torch.")
        tensors = dict(self.objective.state_dict())
        checkpoints.save(directory, tensors, data | {"kind": "model", "dtype": dtype}, keep_previous=False)

    @classmethod
    def load(cls, directory: str | Path) -> SavedModel:
        """Read it, in evaluation mode on the CPU.

        Raises:
            FileNotFoundError, CheckpointError: There is no such model, or it cannot be used.
        """
        tensors, data = checkpoints.load(directory)
        if data.get("kind") != "model":
            raise CheckpointError(f"{directory} holds no trained model")
        try:
            _check(data)
            x_shape, classes = tuple(data["x_shape"]), data["classes"]
            with _Budget(tensors):
                objective = zoo.build(data["method"], x_shape, len(classes), **data["options"])
            objective.to(DTYPES[data["dtype"]])
            checkpoints.check_tensors(tensors, objective.state_dict(), "weights")
            objective.load_state_dict(tensors)
            objective.extent = Extent.read(data.get("extent")) or _earlier_extent(x_shape, data["extra"])
        except Exception as error:  # whatever the method's code raises for options that it never wrote
            hint = ""
            if str(data.get("method")) not in zoo.METHODS:
                hint = "; a method of your own has to be in zoo.METHODS before"
            raise CheckpointError(f"{directory} does not fit this version of the zoo: {error!s:.500}{hint}") from None
        return cls(data["method"], x_shape, classes, data["options"], objective.eval(), data["extra"])


def _earlier_extent(x_shape: tuple[int, ...], extra: dict[str, Any]) -> Extent:
    """What files of earlier versions tell: the shape, and the range of images."""
    if len(x_shape) != 3 or "extent" not in extra:
        return Extent(x_shape)
    low, high = extra["extent"]
    return Extent(x_shape, (float(low),), (float(high),))


def _check(data: dict[str, Any]) -> None:
    """Raise CheckpointError unless what describes a model is of its kind."""
    kinds = {"method": str, "x_shape": list, "classes": list, "options": dict, "dtype": str, "extra": dict}
    for name, kind in kinds.items():
        if not isinstance(data.get(name), kind):
            raise CheckpointError(f"{name} should be a {kind.__name__}, got {data.get(name)!r:.80}")
    sizes = data["x_shape"]
    if not sizes or not all(type(size) is int and size > 0 for size in sizes):
        raise CheckpointError(f"x_shape should be whole numbers above 0, got {sizes!r:.80}")
    if data["dtype"] not in DTYPES:
        raise CheckpointError(f"dtype should be one of {', '.join(DTYPES)}, got {data['dtype']!r:.80}")


class _Budget(TorchFunctionMode):
    """Inside the block no tensor is made that is larger than all of a file's, nor many times as much or as many in all.

    A file's options may ask for networks of any size; they are refused before memory is.

    Arguments:
        tensors: What the file holds.

    Raises:
        CheckpointError: More is asked for.
    """

    SLACK = 2**20
    TIMES = 50

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.largest = sum(t.numel() for t in tensors.values()) + self.SLACK
        self.left = self.TIMES * self.largest
        self.calls = self.TIMES * (len(tensors) + 20)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FACTORIES:
            self.calls -= 1
            self.spend(_size(args, kwargs))
        result = func(*args, **kwargs)
        if isinstance(result, Tensor):
            self.spend(result.numel())
        return result

    def spend(self, size: int) -> None:
        """Count a tensor of so many elements."""
        self.left -= size
        if size > self.largest or min(self.left, self.calls) < 0:
            raise CheckpointError("its options ask for larger networks than it has weights for")


_FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.eye, torch.randperm}


def _size(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Elements of the tensor that such a function makes."""
    size = args[0] if args else kwargs.get("size", kwargs.get("n", 0))
    if isinstance(size, int):
        return math.prod(n for n in args if isinstance(n, int))
    return math.prod(size)


def whole_or_refused(load: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Decorate a `load(cls, directory)`: what its code raises for a file that it never wrote is a CheckpointError."""

    @wraps(load)
    def loaded(cls: Any, directory: str | Path) -> Any:
        try:
            return load(cls, directory)
        except (FileNotFoundError, CheckpointError):
            raise
        except Exception as error:
            said = f"{type(error).__name__}: {error!s:.200}"
            raise CheckpointError(f"{directory} does not hold what {cls.__name__}.save writes; {said}") from None

    return loaded


def listed(options: dict[str, Any]) -> dict[str, Any]:
    """Options whose arrays are lists."""
    return {k: v.tolist() if hasattr(v, "tolist") else v for k, v in options.items()}

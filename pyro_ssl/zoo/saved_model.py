"""Trained models on disk: a method's name, its options and its weights; no code."""

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
from pyro_ssl.training.packed_state import check_tensors
from pyro_ssl.utils.files import CheckpointError
from pyro_ssl.zoo.earlier_names import current_options

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
"""Dtypes of weights, by their names in the file."""

_KINDS: dict[str, type] = {
    "method": str,
    "x_shape": list,
    "classes": list,
    "options": dict,
    "dtype": str,
    "extra": dict,
}
"""Entries of the description of a model, and their types."""


@dataclass
class SavedModel:
    """A trained objective, with everything that is needed to build it again.

    Arguments:
        method: Name in the zoo.
        x_shape: Event shape of x.
        classes: Values of the classes, in the order of the columns of p(y|x).
        options: Options of the method; those of the preset, if there is one, are added.
        objective: The trained objective.
        extra: Further plain data of the caller.
        preset: Name of the preset that the objective was built with.

    Raises:
        ValueError: There is no such preset of the method.

    >>> from tempfile import TemporaryDirectory
    >>> objective = zoo.build("m2", (4,), 2, z_dim=2)
    >>> with TemporaryDirectory() as directory:
    ...     SavedModel("m2", (4,), ["a", "b"], {"z_dim": 2}, objective).save(directory)
    ...     SavedModel.load(directory).classes
    ['a', 'b']
    """

    method: str
    x_shape: tuple[int, ...]
    classes: list[Any]
    options: dict[str, Any]
    objective: Objective
    extra: dict[str, Any] = field(default_factory=dict)
    preset: str | None = None

    def __post_init__(self) -> None:
        if self.preset is not None:
            values = zoo.preset_of(self.method, self.preset).option_values
            self.options = values | self.options

    def save(self, directory: str | Path) -> None:
        """Write the model; an earlier one in the directory is replaced as a whole or not at all.

        Raises:
            OSError: The model cannot be written, or the directory holds other files; an earlier
                model is unchanged.
        """
        extent = self.objective.extent
        dtype = next(self.objective.parameters()).dtype
        description = {
            "method": self.method,
            "preset": self.preset,
            "x_shape": self.x_shape,
            "classes": self.classes,
            "extra": self.extra,
            "options": listed(self.options),
            "extent": None if extent is None else extent.plain(),
            "kind": "model",
            "dtype": str(dtype).removeprefix("torch."),
        }
        tensors = dict(self.objective.state_dict())
        checkpoints.save(directory, tensors, description, keep_previous=False)

    @classmethod
    def load(cls, directory: str | Path) -> SavedModel:
        """Read a model, in evaluation mode on the CPU; models of earlier versions load too.

        Raises:
            FileNotFoundError: There is no such model.
            CheckpointError: The model is damaged, or does not fit this version.
        """
        tensors, description = checkpoints.load(directory)
        if description.get("kind") != "model":
            raise CheckpointError(f"{directory} holds no trained model")
        try:
            return cls._built(tensors, description)
        except Exception as error:  # a method may raise anything for options that were edited
            hint = ""
            if str(description.get("method")) not in zoo.METHODS:
                hint = "; add a method of your own to zoo.METHODS first"
            raise CheckpointError(
                f"{directory} does not fit this version of the zoo: {error!s:.500}{hint}"
            ) from None

    @classmethod
    def _built(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> SavedModel:
        """The model of a file: built by its options, then filled with its weights."""
        _check(description)
        method = description["method"]
        x_shape = tuple(description["x_shape"])
        classes = description["classes"]
        options = current_options(description["options"])
        extra = description["extra"]
        with _Budget(tensors):
            objective = zoo.build(method, x_shape, len(classes), **options)
        objective.to(DTYPES[description["dtype"]])
        check_tensors(tensors, objective.state_dict(), "weights")
        objective.load_state_dict(tensors)
        extent = Extent.read(description.get("extent"))
        objective.extent = extent or _earlier_extent(x_shape, extra)
        saved = cls(method, x_shape, classes, options, objective.eval(), extra)
        # the name alone: the options in the file are those that the model was built with
        saved.preset = description.get("preset")
        return saved


def listed(options: dict[str, Any]) -> dict[str, Any]:
    """Options with lists instead of arrays.

    >>> listed({"class_probs": torch.tensor([0.25, 0.75])})
    {'class_probs': [0.25, 0.75]}
    """
    return {
        name: value.tolist() if hasattr(value, "tolist") else value
        for name, value in options.items()
    }


def whole_or_refused(load: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Decorate a `load(cls, directory)`, so that a damaged file raises CheckpointError.

    >>> @whole_or_refused
    ... def load(cls, directory):
    ...     return {}["history"]
    >>> load(SavedModel, "run")  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    ...
    CheckpointError: run does not hold what SavedModel.save writes; KeyError: 'history'
    """

    @wraps(load)
    def loaded(cls: Any, directory: str | Path) -> Any:
        try:
            return load(cls, directory)
        except (FileNotFoundError, CheckpointError):
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error!s:.200}"
            raise CheckpointError(
                f"{directory} does not hold what {cls.__name__}.save writes; {reason}"
            ) from None

    return loaded


def _check(description: dict[str, Any]) -> None:
    """Raise CheckpointError unless the description of a model has values of the right kinds."""
    for name, kind in _KINDS.items():
        value = description.get(name)
        if not isinstance(value, kind):
            raise CheckpointError(f"{name} should be a {kind.__name__}, got {value!r:.80}")
    preset = description.get("preset")
    if preset is not None and not isinstance(preset, str):
        raise CheckpointError(f"preset should be a name or null, got {preset!r:.80}")
    sizes = description["x_shape"]
    if not sizes or not all(type(size) is int and size > 0 for size in sizes):
        raise CheckpointError(f"x_shape should be whole numbers above 0, got {sizes!r:.80}")
    dtype = description["dtype"]
    if dtype not in DTYPES:
        raise CheckpointError(f"dtype should be one of {', '.join(DTYPES)}, got {dtype!r:.80}")


def _earlier_extent(x_shape: tuple[int, ...], extra: dict[str, Any]) -> Extent:
    """Read the extent from a file of an earlier version: the shape, and the range of images."""
    if len(x_shape) != 3 or "extent" not in extra:
        return Extent(x_shape)
    low, high = extra["extent"]
    return Extent(x_shape, (float(low),), (float(high),))


class _Budget(TorchFunctionMode):
    """Limits the tensors that are made inside the block to what a file's weights can need.

    No tensor may be larger than all of the file's, and neither the number of tensors nor their
    total size may be many times as large. The options of a file may ask for networks of any size:
    this refuses them before the memory is allocated.

    Arguments:
        tensors: The weights in the file.

    Raises:
        CheckpointError: The limits are exceeded.
    """

    SLACK = 2**20
    TIMES = 50

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.largest = sum(tensor.numel() for tensor in tensors.values()) + self.SLACK
        self.left = self.TIMES * self.largest
        self.calls = self.TIMES * (len(tensors) + 20)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
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
        """Count a tensor of `size` elements."""
        self.left -= size
        if size > self.largest or min(self.left, self.calls) < 0:
            raise CheckpointError("its options ask for larger networks than it has weights for")


_FACTORIES = {
    torch.empty,
    torch.zeros,
    torch.ones,
    torch.full,
    torch.rand,
    torch.randn,
    torch.eye,
    torch.randperm,
}


def _size(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Number of elements of the tensor that a factory makes."""
    size = args[0] if args else kwargs.get("size", kwargs.get("n", 0))
    if isinstance(size, int):
        return math.prod(n for n in args if isinstance(n, int))
    return math.prod(size)

"""Trained models on disk: a method's name, its options and its weights; nothing that runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pyro_ssl import checkpoints, zoo
from pyro_ssl.extent import Extent
from pyro_ssl.objective import Objective


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
            raise checkpoints.CheckpointError(f"{directory} holds no trained model")
        try:
            x_shape, classes = tuple(data["x_shape"]), data["classes"]
            objective = zoo.build(data["method"], x_shape, len(classes), **data["options"])
            objective.to(getattr(torch, data["dtype"])).load_state_dict(tensors)
            objective.extent = Extent.read(data.get("extent")) or _earlier_extent(x_shape, data["extra"])
        except (ValueError, TypeError, RuntimeError, LookupError, AttributeError) as error:
            raise checkpoints.CheckpointError(
                f"{directory} does not fit this version of the zoo: {error} "
                "(a method of your own has to be in zoo.METHODS before)"
            ) from None
        return cls(data["method"], x_shape, classes, data["options"], objective.eval(), data["extra"])


def _earlier_extent(x_shape: tuple[int, ...], extra: dict[str, Any]) -> Extent:
    """What files of earlier versions tell: the shape, and the range of images."""
    if len(x_shape) != 3 or "extent" not in extra:
        return Extent(x_shape)
    low, high = extra["extent"]
    return Extent(x_shape, (float(low),), (float(high),))


def listed(options: dict[str, Any]) -> dict[str, Any]:
    """Options whose arrays are lists."""
    return {k: v.tolist() if hasattr(v, "tolist") else v for k, v in options.items()}

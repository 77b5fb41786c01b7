"""The settings of a training run, checked when made and compared when a run is resumed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from pyro_ssl.training.optimizers import SCHEDULES, Schedule
from pyro_ssl.utils.arguments import check_kind, check_positive, check_seed
from pyro_ssl.utils.files import as_json
from pyro_ssl.utils.stable_repr import stable_repr

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Settings:
    """Settings of a run; see `fit` for the meaning of each.

    Raises:
        ValueError: A setting has a wrong type or is out of range; the message names it.

    >>> Settings(epochs=10, lr=3e-4).schedule
    'one_cycle'
    >>> Settings(lr=-1.0)
    Traceback (most recent call last):
    ValueError: lr should be above 0, got -1.0
    """

    epochs: int = 100
    batch_size: int = 200
    labeled_batch_size: int = 100
    lr: float = 1e-3
    optimizer: Callable[..., Optimizer] = torch.optim.Adam
    schedule: Schedule = "one_cycle"
    warmup: float = 0.0
    clip_norm: float | None = None
    ema: float = 0.0
    precision: Precision = "float32"
    transform: Callable[[Tensor], Tensor] | None = None
    seed: int = 0
    compile: bool = False
    identity: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self._check_functions()
        check_positive(
            epochs=self.epochs,
            batch_size=self.batch_size,
            labeled_batch_size=self.labeled_batch_size,
        )
        check_seed(self.seed)
        check_kind("compile", self.compile, bool)
        self._check_numbers()
        if self.precision not in get_args(Precision):
            names = ", ".join(get_args(Precision))
            raise ValueError(f"precision should be one of {names}, got {self.precision!r}")
        as_json(self.identity, "identity")

    def _check_functions(self) -> None:
        if not callable(self.optimizer):
            raise ValueError(
                "optimizer should be a torch optimiser class, such as torch.optim.Adam, "
                f"got {self.optimizer!r}"
            )
        if isinstance(self.schedule, str):
            known = self.schedule in SCHEDULES
        else:
            known = callable(self.schedule)
        if not known:
            names = ", ".join(SCHEDULES)
            raise ValueError(
                f"schedule should be one of {names}, or a function, got {self.schedule!r}"
            )
        if self.transform is not None and not callable(self.transform):
            raise ValueError(
                "transform should be a function of a batch of data, or None, "
                f"got {self.transform!r}"
            )

    def _check_numbers(self) -> None:
        for name in ("lr", "ema", "warmup"):
            _check_number(name, getattr(self, name))
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr should be above 0, got {self.lr}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema should be in [0, 1), got {self.ema}")
        if not 0 <= self.warmup < math.inf:
            raise ValueError(f"warmup should be 0 or more epochs, got {self.warmup}")
        if self.clip_norm is None:
            return
        _check_number("clip_norm", self.clip_norm)
        if not self.clip_norm > 0:
            raise ValueError(f"clip_norm should be above 0, or None, got {self.clip_norm}")

    def as_data(self) -> dict[str, Any]:
        """Return plain data to compare with a resumed run; functions are given by name."""
        names = ("epochs", "batch_size", "labeled_batch_size", "lr", "warmup", "clip_norm", "ema")
        data = {name: getattr(self, name) for name in (*names, "precision", "seed", "compile")}
        data["schedule"] = self.schedule
        if not isinstance(self.schedule, str):
            data["schedule"] = stable_repr(self.schedule)
        data["identity"] = as_json(self.identity, "identity")
        data["optimizer"] = stable_repr(self.optimizer)
        data["transform"] = stable_repr(self.transform)
        return {name: _plain_number(value) for name, value in data.items()}


def as_device(device: Any) -> torch.device:
    """Return the device with this name, after an empty tensor has been made on it.

    >>> as_device("cpu")
    device(type='cpu')

    Raises:
        ValueError: It is not available on this machine, or is the device `meta`.
    """
    try:
        available = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device!s} is not available: {reason}") from None
    if available.type == "meta":
        raise ValueError(
            "device meta holds no values; train on cpu, or on another device such as cuda"
        )
    return available


def _check_number(name: str, value: Any) -> None:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"{name} should be a number, got {value!r}")


def _plain_number(value: Any) -> Any:
    """Convert a number of numpy to Python's own."""
    return value.item() if isinstance(value, np.generic) else value

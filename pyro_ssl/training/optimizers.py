"""Optimisers and learning rates: schedules by name, and one parameter group for each player."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LRScheduler,
    OneCycleLR,
    StepLR,
)

from pyro_ssl.objectives.objective import Objective

Schedule = str | Callable[[Optimizer, int], LRScheduler]


def constant(optimizer: Optimizer, steps: int) -> LRScheduler:
    """The same learning rate in every step."""
    return ConstantLR(optimizer, factor=1.0)


def exponential(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Exponential decay to 1 % of the learning rate."""
    return ExponentialLR(optimizer, gamma=math.exp(math.log(0.01) / steps))


def halving(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Half the learning rate after every 15 % of the steps."""
    return StepLR(optimizer, step_size=math.ceil(0.15 * steps), gamma=0.5)


def cosine(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Half a cosine, down to 0."""
    return CosineAnnealingLR(optimizer, T_max=steps)


def one_cycle(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Up to the learning rate and down to nearly 0, see `torch.optim.lr_scheduler.OneCycleLR`."""
    rates = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, max_lr=rates, total_steps=steps)


SCHEDULES: dict[str, Callable[[Optimizer, int], LRScheduler]] = {
    "constant": constant,
    "exponential": exponential,
    "halving": halving,
    "cosine": cosine,
    "one_cycle": one_cycle,
}
"""Learning-rate schedules by name: functions of the optimiser and the number of steps."""


def parameter_groups(objective: Objective) -> list[tuple[float, list[nn.Parameter]]]:
    """The parameters of each player and its factor of the learning rate: model and guide first.

    Adam keeps averages per parameter, so the groups of one optimiser act as separate optimisers.
    """
    terms: Any = objective.terms
    adversaries = [term for term in terms if term.lr_scale is not None]
    groups = [(float(term.lr_scale), list(term.parameters())) for term in adversaries]
    taken = {id(parameter) for _, group in groups for parameter in group}
    own = [p for p in objective.parameters() if p.requires_grad and id(p) not in taken]
    return [(1.0, own), *groups]


def new_optimizer(
    make: Callable[..., Optimizer], groups: list[tuple[float, list[nn.Parameter]]], lr: float
) -> Optimizer:
    """The optimiser of all parameter groups, fused where that is implemented.

    Arguments:
        make: A torch optimiser class, or a function like one.
        groups: See `parameter_groups`.
        lr: Learning rate of the first group.

    Raises:
        ValueError: `make` takes other arguments, or returns something else.
    """
    parameters: list[dict[str, Any]] = [{"params": p, "lr": lr * scale} for scale, p in groups]
    for adversary in parameters[1:]:
        adversary["weight_decay"] = 0.0  # an optimiser's weight decay is meant for model and guide
    optimizer = _fused_if_possible(make, parameters, lr)
    if not isinstance(optimizer, Optimizer):
        got = type(optimizer).__name__
        raise ValueError(f"optimizer should give a torch.optim.Optimizer, got {got}")
    return optimizer


def new_schedule(schedule: Schedule, optimizer: Optimizer, steps: int) -> LRScheduler:
    """The learning rates of a run of that many steps.

    Raises:
        ValueError: A function of the user's gives no schedule.
    """
    if not isinstance(schedule, str):
        made = schedule(optimizer, steps)
    elif steps == 1:
        made = constant(optimizer, steps)  # a single step has no time to rise and fall
    else:
        made = SCHEDULES[schedule](optimizer, steps)
    if not isinstance(made, LRScheduler):
        raise ValueError(f"schedule should give an LRScheduler, got {type(made).__name__}")
    return made


def _fused_if_possible(make: Callable[..., Any], parameters: Any, lr: float) -> Any:
    try:
        return make(parameters, lr=lr, fused=True)
    except (TypeError, RuntimeError):  # not implemented by this optimiser or on this device
        pass
    try:
        return make(parameters, lr=lr)
    except TypeError as error:
        raise ValueError(
            f"optimizer should take parameters and lr, as torch.optim.Adam does: {error}"
        ) from error

"""Optimisers and learning rates: schedules by name, and a parameter group for each player."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    StepLR,
)

from pyro_ssl.objectives.objective import Objective

Schedule = str | Callable[[Optimizer, int], LRScheduler]


def constant(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Keep the learning rate constant.

    >>> import torch
    >>> optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> constant(optimizer, 10).get_last_lr()
    [0.1]
    """
    return ConstantLR(optimizer, factor=1.0)


def exponential(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Decay exponentially to 1 % of the learning rate.

    >>> import torch
    >>> optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> round(exponential(optimizer, 10).gamma ** 10, 9)
    0.01
    """
    return ExponentialLR(optimizer, gamma=math.exp(math.log(0.01) / steps))


def halving(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Halve the learning rate after every 15 % of the steps.

    >>> import torch
    >>> optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> halving(optimizer, 100).step_size
    15
    """
    return StepLR(optimizer, step_size=math.ceil(0.15 * steps), gamma=0.5)


def cosine(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Decay to 0 along half a cosine.

    >>> import torch
    >>> optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> cosine(optimizer, 10).T_max
    10
    """
    return CosineAnnealingLR(optimizer, T_max=steps)


def one_cycle(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Rise to the learning rate and fall to nearly 0; see `torch.optim.lr_scheduler.OneCycleLR`.

    >>> import torch
    >>> optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> one_cycle(optimizer, 10).total_steps
    10
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, max_lr=rates, total_steps=steps)


def fifths(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Take a fifth of the learning rate after 30, 60 and 80 % of the steps, as wide ResNets do.

    >>> import torch
    >>> optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> sorted(fifths(optimizer, 200).milestones)
    [60, 120, 160]
    """
    milestones = [int(share * steps) for share in (0.3, 0.6, 0.8)]
    return MultiStepLR(optimizer, milestones, gamma=0.2)


SCHEDULES: dict[str, Callable[[Optimizer, int], LRScheduler]] = {
    "constant": constant,
    "exponential": exponential,
    "halving": halving,
    "fifths": fifths,
    "cosine": cosine,
    "one_cycle": one_cycle,
}
"""Learning-rate schedules by name: functions of the optimiser and the number of steps."""


def nesterov(parameters: Any, lr: float) -> Optimizer:
    """Stochastic gradient descent as wide ResNets use it: Nesterov momentum and weight decay.

    Arguments:
        parameters: Parameters, or groups of them.
        lr: Learning rate.

    >>> import torch
    >>> nesterov([nn.Parameter(torch.zeros(1))], lr=0.1).defaults["weight_decay"]
    0.0005
    """
    return SGD(parameters, lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"adam": Adam, "nesterov": nesterov}
"""Optimisers by name."""


def named_optimizer(optimizer: str | Callable[..., Optimizer]) -> Callable[..., Optimizer]:
    """Look up an optimiser by its name; functions and classes are returned as they are.

    Raises:
        ValueError: There is no optimiser of that name.

    >>> named_optimizer("adam").__name__
    'Adam'
    """
    if not isinstance(optimizer, str):
        return optimizer
    if optimizer not in OPTIMIZERS:
        names = ", ".join(OPTIMIZERS)
        raise ValueError(
            f"optimizer should be one of {names}, or a torch optimiser class, such as "
            f"torch.optim.Adam, got {optimizer!r}"
        )
    return OPTIMIZERS[optimizer]


def parameter_groups(objective: Objective) -> list[tuple[float, list[nn.Parameter]]]:
    """List the parameters of each player, with its factor of the learning rate.

    The first player is model and guide; adversaries follow. Adam keeps averages per parameter, so
    the groups of one optimiser act as separate optimisers.

    >>> from pyro_ssl import zoo
    >>> groups = parameter_groups(zoo.build("m2_adversarial", 4, 2, adversary_lr=3.0))
    >>> [scale for scale, _ in groups]
    [1.0, 3.0]
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
    """Make the optimiser of all parameter groups, fused if that is implemented.

    Arguments:
        make: A torch optimiser class, or a function like one.
        groups: See `parameter_groups`.
        lr: Learning rate of the first group.

    Raises:
        ValueError: `make` has other arguments, or returns something else.

    >>> import torch
    >>> groups = [(1.0, [nn.Parameter(torch.zeros(1))])]
    >>> type(new_optimizer(torch.optim.Adam, groups, lr=0.1)).__name__
    'Adam'
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
    """Make the schedule of the learning rate for a number of steps.

    Raises:
        ValueError: A function of the user's does not give a schedule.

    >>> import torch
    >>> optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> new_schedule("constant", optimizer, 10).get_last_lr()
    [0.1]
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

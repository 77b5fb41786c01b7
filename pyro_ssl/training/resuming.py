"""What a training checkpoint has to hold: compared with what the run itself has, before any of it is taken over.

A checkpoint with a right checksum may still have been edited, or be of another program. What follows from the settings (the
schedule, the optimiser's arguments, which state it keeps) is computed anew and compared; the rest is checked for its form.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_ssl.training.checkpoints import check_tensors
from pyro_ssl.utils.files import CheckpointError

State = dict[str, Any]
OF_THE_MACHINE = ("params", "fused", "foreach")
"""What an optimiser's group has that is of the process, not of the run."""


def require(holds: bool, what: str) -> None:
    """Raise CheckpointError, with what the checkpoint should hold, unless it does."""
    if not holds:
        raise CheckpointError(f"the checkpoint was changed, or is not of this run: {what}")


def check_position(
    position: Any, history: Any, parts: Collection[str], *, steps_per_epoch: int, total: int, scored: bool
) -> None:
    """Check where a run is, and what it has measured until then, against each other.

    Arguments:
        position: Step, seconds, best score, epochs since, and sums of the epoch that is not over.
        history: Lists of one number per epoch.
        parts: Names of the parts of the run's loss.
        steps_per_epoch: Steps of an epoch.
        total: Steps of the run.
        scored: Whether the run has a score, for early stopping.

    Raises:
        CheckpointError: They are of another form, or contradict each other.
        ValueError: The run had early stopping, and has not now, or the other way round.
    """
    names = {"step", "seconds", "best", "since_best", "sums"}
    require(isinstance(position, dict) and position.keys() == names, f"position should hold {', '.join(sorted(names))}")
    step, sums = position["step"], position["sums"]
    require(type(step) is int and 0 < step <= total, f"step should be in 1 .. {total}, got {step!r:.80}")
    require(_is_finite(position["seconds"]), f"seconds should be a number, got {position['seconds']!r:.80}")
    require(isinstance(sums, dict) and all(map(_is_finite, sums.values())), "sums should be finite numbers by name")
    epochs, within = divmod(step, steps_per_epoch)
    names = {*parts, "loss"} if within else set()
    require(sums.keys() >= names and bool(sums) == bool(within), f"sums should hold {sorted(names)}")
    require(not within or _adds_up(sums), "sums should add up to the loss")
    _check_history(history, epochs, parts)
    if epochs and scored != ("score" in history):
        had = "none" if scored else "some"
        raise ValueError(f"early_stopping: the run to resume had {had}; give what it was started with")
    found = position["best"], position["since_best"]
    require(found == best_of(history.get("score", [])), "best should be the best score of the history")


def _check_history(history: Any, epochs: int, parts: Collection[str]) -> None:
    require(isinstance(history, dict), "history should hold lists by name")
    for name, values in history.items():
        whole = isinstance(values, list) and len(values) == epochs
        require(whole, f"history: {name!r:.80} should hold {epochs} numbers, one for each epoch")
        numbers = (v == -math.inf or _is_finite(v) for v in values)
        require(all(numbers), f"history: {name!r:.80} should hold numbers")
    names = {*parts, "loss", "lr", "seconds"} if epochs else set()
    require(history.keys() >= names and bool(history) == bool(names), f"history should hold {sorted(names)}")
    of_loss = history.keys() - {"lr", "seconds", "score"}
    for epoch in range(epochs):
        losses = {name: history[name][epoch] for name in of_loss}
        require(_adds_up(losses), f"history: the parts of epoch {epoch + 1} should add up to its loss")


def best_of(scores: Sequence[float]) -> tuple[float, int]:
    """The best score, -inf if there is none, and how many came after it."""
    best, since = -math.inf, 0
    for score in scores:
        since += 1
        if score > best:
            best, since = score, 0
    return best, since


def _adds_up(parts: Mapping[str, float]) -> bool:
    """Whether the parts of a loss sum to it, as far as single precision goes."""
    others = [value for name, value in parts.items() if name != "loss"]
    scale = 1.0 + sum(map(abs, others))
    return "loss" in parts and abs(sum(others) - parts["loss"]) < 1e-2 * scale


def replay(schedule: LRScheduler, steps: int) -> None:
    """Bring a new schedule, and its optimiser's learning rates, to where they are after so many steps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the optimiser has made no step
        for _ in range(steps):
            schedule.step()


def check_same(found: Any, expected: Any, where: str, but: Sequence[str] = ()) -> None:
    """Check plain data against data computed anew: numbers to nine digits, and of dicts what both have.

    Raises:
        CheckpointError: They differ.
    """
    said = f"{where} should be {expected!r:.80}, got {found!r:.80}"
    if isinstance(expected, dict):
        require(isinstance(found, dict), said)
        for name in expected.keys() & found.keys() - set(but):
            check_same(found[name], expected[name], f"{where}/{name}", but)
        return
    if isinstance(expected, (list, tuple)):
        require(isinstance(found, (list, tuple)) and len(found) == len(expected), said)
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            check_same(a, b, f"{where}/{i}", but)
        return
    if _is_number(expected):
        require(_is_number(found) and math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-15), said)
        return
    require(type(found) is type(expected) and found == expected, said)


def check_alike(found: Any, like: Any, where: str) -> None:
    """Check plain data for the form of others: keys, lengths and kinds; a number may be another finite one.

    Raises:
        CheckpointError: It is of another form.
    """
    said = f"{where} should be like {like!r:.80}, got {found!r:.80}"
    if isinstance(like, dict):
        require(isinstance(found, dict) and found.keys() == like.keys(), said)
        for name in like:
            check_alike(found[name], like[name], f"{where}/{name}")
        return
    if isinstance(like, (list, tuple)):
        require(type(found) is type(like) and len(found) == len(like), said)
        for i, (a, b) in enumerate(zip(found, like, strict=True)):
            check_alike(a, b, f"{where}/{i}")
        return
    if isinstance(like, Tensor):
        require(isinstance(found, Tensor), said)
        check_tensors({where: found}, {where: like}, "the checkpoint")
        return
    require(_is_finite(found) if _is_number(like) else type(found) is type(like), said)


def optimizer_state(optimizer: Optimizer) -> dict[int, State] | None:
    """The form of the state that an optimiser of torch's keeps for each parameter; None if it cannot be told.

    It is that after a step on a copy, with gradients of 0.
    """
    if not type(optimizer).__module__.startswith("torch.optim"):  # another one's may change its form as it goes
        return None
    trial = deepcopy(optimizer)
    for group in trial.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    try:
        trial.step()
    except (TypeError, RuntimeError):  # one that wants a closure, or sparse gradients
        return None
    return trial.state_dict()["state"]


def check_optimizer(found: Any, optimizer: Optimizer, used: Sequence[bool], exact: bool) -> None:
    """Check an optimiser's state dict.

    Arguments:
        found: That of the checkpoint.
        optimizer: A new one, whose learning rates are brought to the same step.
        used: Which of its parameters have a gradient.
        exact: Whether its groups have to be the same; else they have to be alike, as under a schedule of the user's.

    Raises:
        CheckpointError: It is of another form, or of other arguments.
    """
    whole = isinstance(found, dict) and found.keys() == {"state", "param_groups"} and isinstance(found["state"], dict)
    require(whole, "optimizer should hold state and param_groups")
    groups = optimizer.state_dict()["param_groups"]
    if exact:
        check_same(found["param_groups"], groups, "optimizer/param_groups", but=OF_THE_MACHINE)
    else:
        check_alike(found["param_groups"], groups, "optimizer/param_groups")
    indices = [index for group in groups for index in group["params"]]
    require(found["state"].keys() <= set(indices), "optimizer/state should be of the run's parameters")
    like = optimizer_state(optimizer)
    if like is None:
        return
    needed = {index for index, has_gradient in zip(indices, used, strict=True) if has_gradient and index in like}
    missing = sorted(needed - found["state"].keys())
    require(not missing, f"optimizer/state of the parameters {missing[:5]} is missing")
    for index, state in found["state"].items():
        check_alike(state, like.get(index, {}), f"optimizer/state/{index}")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)

"""A training run: its state, one optimiser step, and the loop over its steps."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from operator import ne
from typing import Any, Protocol
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pyro_ssl.infer.decisions import recorded_decisions
from pyro_ssl.objectives.batch import Batch
from pyro_ssl.objectives.objective import Objective, total
from pyro_ssl.training.batches import Batches
from pyro_ssl.training.compiled_step import CompiledStep
from pyro_ssl.training.distributed import Processes
from pyro_ssl.training.random_state import StepStart
from pyro_ssl.training.settings import Settings
from pyro_ssl.training.source_batches import SourceBatches
from pyro_ssl.utils.context import give_way, preserve_buffers, validation_disabled

History = dict[str, list[float]]
"""One number per epoch for each part of the loss, and for `loss`, `lr`, `seconds` and `score`."""

DIVERGED_FACTOR = 1000.0
"""A run counts as diverged if its mean loss is this many times that of the untrained weights."""


class DivergedError(FloatingPointError):
    """The loss or its gradient is not finite; the message names the site and the step.

    The weights are as they were before that step; the running statistics of batch norm include it.

    >>> issubclass(DivergedError, FloatingPointError)
    True
    """


class DivergedWarning(UserWarning):
    """The loss is finite, but orders of magnitude larger than with untrained weights.

    >>> issubclass(DivergedWarning, UserWarning)
    True
    """


@dataclass
class Position:
    """Progress of a run, as it is saved in the checkpoint.

    Arguments:
        step: Steps completed.
        seconds: Wall time of training so far: steps, and what happens between epochs.
        best: Best score of early stopping.
        since_best: Epochs since the best score.
        sums: Sums over the current epoch of the parts of the loss.

    >>> Position().step
    0
    """

    step: int = 0
    seconds: float = 0.0
    best: float = -math.inf
    since_best: int = 0
    sums: dict[str, float] = field(default_factory=dict)


@dataclass
class Run:
    """State of a training run; `new_run` makes one.

    Arguments:
        settings: The settings of training.
        settings_data: The settings as plain data, with checksums of the data, for checkpoints.
        objective: The objective in training.
        batches: The batch of every step.
        parameter_groups: For each player, the factor of its learning rate and its parameters. Model
            and guide are one player, each adversary of `objectives.adversarial` is another.
        optimizer: One optimiser for all players.
        schedule: Its learning rates.
        joint: Evaluate labeled and unlabeled data in one pass; see `Objective.joint_pass_for`.
        total: Total number of steps.
        part_names: Names of the parts of the loss.
        largest_loss: Absolute mean loss above which a `DivergedWarning` is issued.
        average: The averaged weights, with `ema`.
        compiled: The compiled step, with `compile`.
        patience: Epochs without a better score before the run stops; None for no early stopping.
        position: Progress: steps, seconds, best score.
        history: The measurements of each epoch.
        best_weights: The weights with the best score.
        processes: The processes of the run; None if there is only one.
        measured: Names of the callbacks' measurements in the history.
        decisions: Decisions on values in the last step, which the next step assumes; None if it
            reads the values.

    >>> from pyro_ssl import zoo
    >>> from pyro_ssl.training.new_run import new_run
    >>> settings = Settings(epochs=2, batch_size=10)
    >>> run = new_run(zoo.build("m2", 4, 2, hidden=(8,)), torch.rand(20, 4), None, settings)
    >>> run.epoch, run.total, run.is_over
    (0, 4, False)
    """

    settings: Settings
    settings_data: dict[str, Any]
    objective: Objective
    batches: Batches | SourceBatches
    parameter_groups: list[tuple[float, list[nn.Parameter]]]
    optimizer: Optimizer
    schedule: LRScheduler
    joint: bool
    total: int
    part_names: Sequence[str]
    largest_loss: float
    average: WeightAverage | None = None
    compiled: CompiledStep | None = None
    patience: int | None = None
    position: Position = field(default_factory=Position)
    history: History = field(default_factory=dict)
    best_weights: dict[str, Tensor] | None = None
    measured: set[str] = field(default_factory=set)
    processes: Processes | None = None
    decisions: tuple[int, ...] | None = None

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.objective.parameters()).device

    @property
    def assumes_decisions(self) -> bool:
        """True if Python should not wait for values, since it runs ahead of the device."""
        return self.device.type != "cpu" and self.processes is None

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.position.step // self.batches.steps_per_epoch

    @property
    def at_epoch_end(self) -> bool:
        """True after the last step of an epoch, and before the first step."""
        return self.position.step % self.batches.steps_per_epoch == 0

    @property
    def is_over(self) -> bool:
        """True if all steps are made, or early stopping has run out of patience."""
        if self.patience is not None and self.position.since_best >= self.patience:
            return True
        return self.position.step >= self.total

    @property
    def averaged(self) -> Objective:
        """Objective to evaluate: with averaged weights if there are any."""
        return self.objective if self.average is None else self.average.objective

    @property
    def kl_weight(self) -> float:
        """Weight of the latents' KL in this step: a linear warm-up to 1."""
        warmup_steps = self.settings.warmup * self.batches.steps_per_epoch
        if not warmup_steps:
            return 1.0
        return min(1.0, (self.position.step + 1) / warmup_steps)

    @property
    def metrics(self) -> dict[str, float]:
        """The measurements of the last epoch that have been made so far."""
        epochs = len(self.history.get("loss", []))
        return {name: values[-1] for name, values in self.history.items() if len(values) == epochs}


class Callback(Protocol):
    """Hooks after each step and each epoch; subclasses override the ones they need.

    >>> class Count(Callback):
    ...     epochs = 0
    ...     def after_epoch(self, run):
    ...         self.epochs += 1
    >>> Count().epochs
    0
    """

    def after_epoch(self, run: Run) -> None:
        """Run after an epoch, with its measurements in `run.history`."""
        return

    def after_step(self, run: Run) -> None:
        """Run after each step; at the end of an epoch, after `after_epoch` of all callbacks."""
        return


def train(run: Run, callbacks: Sequence[Callback], started: float | None = None) -> History:
    """Take the remaining steps, then load the best or averaged weights into the objective.

    Arguments:
        run: A new run, or one that was restored from a checkpoint.
        callbacks: Callbacks in the order of their calls.
        started: Time of `time.perf_counter` from which seconds count; by default this call's.

    Raises:
        DivergedError: The loss or its gradient is not finite.

    >>> from pyro_ssl import zoo
    >>> from pyro_ssl.training.new_run import new_run
    >>> settings = Settings(epochs=2, batch_size=10)
    >>> run = new_run(zoo.build("m2", 4, 2, hidden=(8,)), torch.rand(20, 4), None, settings)
    >>> len(train(run, [])["loss"])
    2
    """
    with _marked_as_being_trained(run):
        run.objective.train()
        counted = time.perf_counter() if started is None else started
        while not run.is_over:
            give_way()
            losses = train_step(run, run.batches(run.position.step))
            now = time.perf_counter()
            _record(run, losses, now - counted)
            counted = now
            if run.at_epoch_end:
                _end_epoch(run)
                for callback in callbacks:
                    callback.after_epoch(run)
            for callback in callbacks:
                callback.after_step(run)
        if run.compiled is not None:
            run.compiled.check_last()
    _load_final_weights(run)
    return run.history


def train_step(run: Run, batch: Batch) -> dict[str, float]:
    """Take one optimiser step on labeled and unlabeled data; return the loss and its parts.

    >>> from pyro_ssl import zoo
    >>> from pyro_ssl.training.new_run import new_run
    >>> settings = Settings(epochs=2, batch_size=10)
    >>> run = new_run(zoo.build("m2", 4, 2, hidden=(8,)), torch.rand(20, 4), None, settings)
    >>> sorted(train_step(run, run.batches(0)))
    ['ClassBalance', 'loss', 'unlabeled']

    Raises:
        DivergedError: The loss or its gradient is not finite; the weights have not changed.
    """
    with validation_disabled():  # the first batch was checked
        outputs = None
        if run.compiled is not None:
            outputs = run.compiled(batch, run.kl_weight)
        if outputs is None:
            outputs = _set_gradients(run, batch)
        names, values = outputs
        if not all(map(math.isfinite, values)):
            raise _diverged(run, batch)
    run.optimizer.step()
    run.schedule.step()
    if run.average is not None:
        run.average.update(run.position.step)
    names = [*names, "loss"]
    losses = values[: len(names)]  # the norms were only checked
    return dict(zip(names, losses, strict=True))


def _set_gradients(run: Run, batch: Batch) -> tuple[list[str], list[float]]:
    """Compute the loss, and set the gradients of all parameters.

    If the run assumes decisions on values, they are those of the last step. If they should have
    been others, the step is made again, and reads the values.

    Returns:
        The names of the loss's parts; and the values of the parts, of the loss and of the gradient
        norms.
    """
    if run.decisions:
        start = StepStart(run.objective)
        outputs = _gradients_with(run, batch, run.decisions)
        if outputs is not None:
            return outputs
        start.restore()
    outputs = _gradients_with(run, batch, None)
    assert outputs is not None
    return outputs


def _gradients_with(
    run: Run, batch: Batch, assumed: tuple[int, ...] | None
) -> tuple[list[str], list[float]] | None:
    """Set the gradients, see `_set_gradients`; None if the assumed decisions are wrong."""
    with recorded_decisions(assumed) as decisions:
        parts = _loss_parts(run, batch)
    loss = total(parts)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    losses = torch.stack([*parts.values(), loss]).detach()
    if run.processes is not None:
        losses = run.processes.sum_gradients(_parameters(run), losses)
    norms = _clip_gradients(run)
    # whole numbers are exact in float32, and not in a loss of half precision
    losses = losses.to(torch.promote_types(losses.dtype, torch.float32))
    outcomes = [outcome.to(losses) for outcome in decisions.outcomes]
    # one transfer from the device for all numbers
    values: list[float] = torch.cat([losses, torch.stack([*norms, *outcomes]).detach()]).tolist()
    end = len(values) - len(outcomes)
    if any(map(ne, values[end:], decisions.made)):
        return None
    if run.assumes_decisions:
        run.decisions = tuple(decisions.made)
    return list(parts), values[:end]


def _parameters(run: Run) -> list[nn.Parameter]:
    return [parameter for _, group in run.parameter_groups for parameter in group]


def _loss_parts(run: Run, batch: Batch) -> dict[str, Tensor]:
    if run.processes is not None:
        batch = run.processes.part(batch)
    half = run.settings.precision == "bfloat16"
    with torch.autocast(run.device.type, torch.bfloat16, enabled=half):
        return run.objective.parts(batch, kl_weight=run.kl_weight, joint=run.joint)


def _clip_gradients(run: Run) -> list[Tensor]:
    """Return the norm of each player's gradient; clip the gradients if `clip_norm` is set."""
    groups = [group for _, group in run.parameter_groups]
    norms = []
    for group in groups:
        gradients = [p.grad for p in group if p.grad is not None]
        norms.append(nn.utils.get_total_norm(gradients))
    if run.settings.clip_norm is not None:
        for group, norm in zip(groups, norms, strict=True):
            nn.utils.clip_grads_with_norm_(group, run.settings.clip_norm, norm)
    return norms


def _diverged(run: Run, batch: Batch) -> DivergedError:
    with preserve_buffers(run.objective):
        culprit = run.objective.culprit(batch, joint=run.joint)
    return DivergedError(
        f"step {run.position.step}: the loss or its gradient is not finite, first at {culprit}; "
        "the weights are as they were before this step; try a smaller lr or a clip_norm"
    )


def _record(run: Run, losses: dict[str, float], seconds: float) -> None:
    """Count a step, its time and its losses."""
    position = run.position
    position.step += 1
    position.seconds += seconds
    for name, value in losses.items():
        position.sums[name] = position.sums.get(name, 0.0) + value


def _end_epoch(run: Run) -> None:
    """Move the means over the epoch into the history."""
    steps = run.batches.steps_per_epoch
    metrics = {name: value / steps for name, value in run.position.sums.items()}
    metrics["lr"] = float(run.schedule.get_last_lr()[0])
    metrics["seconds"] = run.position.seconds
    run.position.sums = {}
    for name, value in metrics.items():
        run.history.setdefault(name, []).append(value)
    is_first = run.processes is None or run.processes.is_first
    if is_first and abs(metrics["loss"]) > run.largest_loss:
        warnings.warn(
            f"epoch {run.epoch}: the mean loss is {metrics['loss']:.3g} nats, more than "
            f"{DIVERGED_FACTOR:.0f} times that of untrained weights: training has diverged; "
            "try a smaller lr or a clip_norm",
            DivergedWarning,
            stacklevel=4,  # the caller of fit
        )
        run.largest_loss = math.inf  # warn once


def _load_final_weights(run: Run) -> None:
    """Load the best weights if there are any, else the averaged ones; otherwise keep the last."""
    if run.best_weights is not None:
        run.objective.load_state_dict(run.best_weights)
    elif run.average is not None:
        run.objective.load_state_dict(run.average.objective.state_dict())
    run.objective.eval()


class WeightAverage:
    """Exponential average of parameters and buffers.

    Its decay rises from 0, so that the initial weights fade fast.

    Arguments:
        objective: The objective whose weights are averaged.
        decay: Largest decay per step.

    >>> from pyro_ssl import zoo
    >>> average = WeightAverage(zoo.build("classifier", 4, 2, hidden=(8,)), decay=0.99)
    >>> average.update(step=0)
    """

    def __init__(self, objective: Objective, decay: float) -> None:
        self.objective = deepcopy(objective)
        self.decay = decay
        self._averages: list[Tensor] = []
        self._current: list[Tensor] = []
        self._counters: list[tuple[Tensor, Tensor]] = []  # whole numbers, such as batch norm's
        for average, current in zip(_tensors(self.objective), _tensors(objective), strict=True):
            if average.is_floating_point():
                self._averages.append(average)
                self._current.append(current)
            else:
                self._counters.append((average, current))

    def update(self, step: int) -> None:
        """Add the weights after a step to the average; the steps count from 0."""
        for counter, current in self._counters:
            counter.copy_(current)
        decay = 0.0 if step == 0 else min(self.decay, (1 + step) / (10 + step))
        average = get_ema_multi_avg_fn(decay)
        average(self._averages, self._current, None)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    for parameter in module.parameters():
        yield parameter.detach()
    for buffer in module.buffers():
        yield buffer.detach()


_BEING_TRAINED: WeakSet[Objective] = WeakSet()


def is_being_trained(objective: Objective) -> bool:
    """Return True while a run trains this objective, or its average.

    >>> from pyro_ssl import zoo
    >>> is_being_trained(zoo.build("classifier", 4, 2, hidden=(8,)))
    False
    """
    return objective in _BEING_TRAINED


@contextmanager
def _marked_as_being_trained(run: Run) -> Iterator[None]:
    """Refuse nested training of the objective; restore the modes of its modules after an error."""
    modes = {part: part.training for part in run.objective.modules()}
    objectives = (run.objective, run.averaged)
    _BEING_TRAINED.update(objectives)
    try:
        yield
    except BaseException:
        for part, training in modes.items():
            part.training = training
        raise
    finally:
        _BEING_TRAINED.difference_update(objectives)

"""Training: `fit` an objective on arrays, with labels where there are any; resumable at any step, to the same bits."""

from __future__ import annotations

import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, Literal, get_args
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LRScheduler,
    OneCycleLR,
    StepLR,
)
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from pyro_ssl.data.extent import Extent
from pyro_ssl.data.labels import warn_of_missing_classes
from pyro_ssl.infer.validation import classified
from pyro_ssl.objectives.batch import Batch, transformed
from pyro_ssl.objectives.objective import Objective, total
from pyro_ssl.objectives.pretrained import PretrainedEncoder
from pyro_ssl.training import checkpoints, resuming
from pyro_ssl.training.batches import Batches
from pyro_ssl.utils import files
from pyro_ssl.utils.arguments import (
    as_codes,
    as_input,
    as_values,
    check_kind,
    check_positive,
    check_seed,
    one_hot,
    placed,
)
from pyro_ssl.utils.context import (
    eval_mode,
    exclusive,
    fixed_seed,
    give_way,
    one_training,
    preserve_buffers,
    validation_disabled,
)

History = dict[str, list[float]]
Precision = Literal["float32", "bfloat16"]
Schedule = str | Callable[[Optimizer, int], LRScheduler]

SCHEDULES: dict[str, Callable[[Optimizer, int], LRScheduler]] = {
    "constant": lambda optimizer, steps: ConstantLR(optimizer, factor=1.0),
    "exponential": lambda optimizer, steps: ExponentialLR(optimizer, gamma=math.exp(math.log(0.01) / steps)),
    "halving": lambda optimizer, steps: StepLR(optimizer, step_size=math.ceil(0.15 * steps), gamma=0.5),
    "cosine": lambda optimizer, steps: CosineAnnealingLR(optimizer, T_max=steps),
    "one_cycle": lambda optimizer, steps: OneCycleLR(
        optimizer, max_lr=[g["lr"] for g in optimizer.param_groups], total_steps=steps
    ),
}
"""Learning rates by name: to 1 % exponentially, halved after every 15 % of the steps, cosine to 0, up and down in one cycle."""


class DivergedError(FloatingPointError):
    """The loss or its gradient is not finite; the message names the site and the step.

    The weights are as before that step; batch norm's running statistics have seen it.
    """


class DivergedWarning(UserWarning):
    """The loss is finite, and larger by orders of magnitude than untrained weights have it."""


ABSURD = 1000.0
"""An epoch's mean loss is told as diverged above this many times the size of the first loss, see `_Run.largest_loss`."""
MOST_STEPS = 10**12
"""Of a run; at a microsecond a step they take eleven days."""
_BEING_TRAINED: WeakSet[Objective] = WeakSet()


@dataclass
class EarlyStopping:
    """Stop when a score has not risen for `patience` epochs, and keep the weights that scored best.

    Arguments:
        score: Of the objective with its averaged weights, in evaluation mode; higher is better. What it looks at is the
            caller's choice: the unlabeled bound, labels kept aside, never the test set. A score that is NaN ends the training
            with a ValueError.
        patience: Epochs without improvement before stopping.
    """

    score: Callable[[Objective], float]
    patience: int = 10


@dataclass(frozen=True)
class Epoch:
    """What a callback is given after each epoch: how far the run is, what it measured, and the objective itself."""

    epoch: int
    step: int
    metrics: dict[str, float]
    objective: Objective


def fit(
    objective: Objective,
    x: Any,
    y: Any = None,
    *,
    epochs: int = 100,
    batch_size: int = 200,
    labeled_batch_size: int = 100,
    lr: float = 1e-3,
    optimizer: Callable[..., Optimizer] = torch.optim.Adam,
    schedule: Schedule = "one_cycle",
    warmup: float = 0.0,
    clip_norm: float | None = None,
    ema: float = 0.0,
    precision: Precision = "float32",
    transform: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    early_stopping: EarlyStopping | None = None,
    callbacks: Sequence[Callable[[Epoch], None]] = (),
    directory: str | Path | None = None,
    identity: dict[str, Any] | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    progress: bool | None = None,
) -> History:
    """Train an objective in place; every step sees labeled and unlabeled data together.

    At the end the objective holds the averaged weights (with `ema`), or the best ones (with `early_stopping`), and is in
    evaluation mode. The caller's random state and Pyro's parameter store are left as they were.

    In several threads one training waits for the other. Predictions of other threads run between its
    steps, and change nothing. But torch has one random state for all threads: while this function
    runs, another thread should draw no random numbers, or draw them from a `torch.Generator`.

    Arguments:
        objective: What to train.
        x: Data `(N, *event)`; any array of finite numbers, none of them masked. They become numbers
            of the weights' dtype, except whole numbers where the model or the guide holds an
            `nn.Embedding` or `nn.EmbeddingBag`: these stay whole, int64.
        y: LatentOptions `(N,)` in 0 .. K - 1, -1 or masked for unlabeled; for a method of real labels these,
            `(N,)` or `(N, D)`, with NaN or a mask for unlabeled; None if nothing is labeled. A
            `LabelWarning` names classes without a label.
        epochs: Passes over the unlabeled data, or over the labeled, where that takes more steps or the objective learns from
            no others.
        batch_size: Unlabeled data per step.
        labeled_batch_size: Labeled data per step beside them.
        lr: Learning rate, the largest one of the schedule.
        optimizer: A torch optimiser class, called with the parameters and `lr`; `fused` where it can be.
        schedule: A name out of `SCHEDULES`, or a function of (optimiser, total steps) that gives an `LRScheduler`.
        warmup: Epochs over which the weight of the continuous latents' KL rises linearly to 1.
        clip_norm: Largest global norm of the gradient.
        ema: Decay per step of the weights' exponential average; 0 for none.
        precision: Of the networks' matrix products: "bfloat16" is faster where the machine has it in hardware and the
            networks are wide; weights, densities and the loss stay as they are.
        transform: Applied to the data of each batch anew, such as `torch.bernoulli` for a fresh binarisation. What it draws
            it should draw with torch, whose state is in the checkpoint.
        seed: Of the order of the data and of all noise in training.
        device: Where to train; by default where the objective is.
        early_stopping: On a score of the caller's.
        callbacks: Called after each epoch.
        directory: Where to write `metrics.jsonl` and checkpoints; None for neither.
        identity: Plain data that a resumed run must share beside `fit`'s own arguments, of which functions are compared by
            their names: the method, its options.
        checkpoint_every: Steps between checkpoints; by default one per epoch.
        resume: Go on from the directory's checkpoint, if there is one.
        progress: Show a bar; by default on a terminal only.

    Returns:
        The history: a list of one number per epoch for each part of the loss, and for `loss`, `lr` and `seconds`.

    Raises:
        ValueError: Data, labels or an argument do not fit, or another process trains in the directory; nothing has been
            changed then. Or a score of `early_stopping` is not a number.
        FileExistsError: The directory holds another run, and `resume` is not set.
        CheckpointError: The checkpoint to resume was changed, or is of another run; nothing has been changed then.
        DivergedError: The loss is not finite; the last checkpoint is kept.

    Warns:
        DivergedWarning: The loss is finite, but larger by orders of magnitude than that of the untrained weights.
    """
    check_positive(checkpoint_every=1 if checkpoint_every is None else checkpoint_every)
    check_kind("resume", resume, bool)
    check_kind("progress", progress, bool | None)
    if not isinstance(directory, str | os.PathLike | None):
        raise ValueError(f"directory should be a path, got {directory!r}")
    callbacks = _callbacks(callbacks)
    _check_objective(objective)
    begin = partial(
        _Run, objective, x, y, epochs=epochs, batch_size=batch_size, labeled_batch_size=labeled_batch_size, lr=lr,
        optimizer=optimizer, schedule=schedule, warmup=warmup, clip_norm=clip_norm, ema=ema, precision=precision,
        transform=transform, seed=seed, device=device, early_stopping=early_stopping, identity=identity,
    )  # fmt: skip
    with one_training(), torch.inference_mode(False), torch.enable_grad(), ExitStack() as held:
        with _as_before(objective):
            run = begin()
            store = None if directory is None else _Store(Path(directory))
            if store is not None:
                held.enter_context(files.locked(store.directory, "fit.lock"))
                store.begin(resume)
            if isinstance(objective.features, PretrainedEncoder) and not objective.features.trained:
                first = None if directory is None else Path(directory) / "features"
                data = as_input(objective, x)
                shared: dict[str, Any] = {"seed": seed, "resume": resume, "progress": progress, "transform": transform}
                pretrain(objective.features, data, directory=first, **shared)
                run = begin()
            objective.extent = run.averaged.extent = Extent.of(as_input(objective, x))
            held.enter_context(fixed_seed(seed))
            if store is not None:
                store.restore(run)
        try:
            run.train(callbacks, store, checkpoint_every, progress)
        except DivergedError as error:
            if store is None:
                raise
            raise DivergedError(
                f"{error}; begin anew with it, in another directory: {directory} resumes with what has diverged"
            ) from None
    return run.history


def pretrain(features: PretrainedEncoder, x: Tensor, **arguments: Any) -> None:
    """Train an encoder's own objective on all data, without labels, and find which latents it uses.

    Arguments:
        features: The encoder.
        x: Data `(N, *event)`.
        arguments: Arguments of `fit`; they take precedence over those that the encoder was given.
    """
    features.objective.requires_grad_(True)
    try:
        fit(features.objective, x, **features.arguments | arguments)
    finally:
        features.objective.requires_grad_(False)
    features.finish_training(x)


def _callbacks(callbacks: Any) -> tuple[Callable[[Epoch], None], ...]:
    if not isinstance(callbacks, Sequence) or not all(map(callable, callbacks)):
        raise ValueError(f"callbacks should be functions in a tuple or list, such as (f,), got {callbacks!r}")
    return tuple(callbacks)


def _check_objective(objective: Any) -> None:
    """Raise ValueError, with the way out, unless it is an objective whose weights can be trained."""
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    parts = list(objective.modules()) if isinstance(objective, nn.Module) else []
    if wrapped := [type(part).__name__ for part in parts if isinstance(part, parallel)]:
        raise ValueError(
            f"objective: got a {wrapped[0]}, but fit trains on one device; give what it wraps, its attribute .module"
        )
    if not isinstance(objective, Objective):
        raise ValueError(f"objective should be a pyro_ssl.Objective, got {type(objective).__name__}")
    if objective in _BEING_TRAINED:
        raise ValueError("objective is being trained by the fit that has called this one; train a copy.deepcopy of it")
    weights = [*objective.parameters(), *objective.buffers()]
    if not any(weight.requires_grad for weight in weights):
        raise ValueError("objective has no parameter that requires a gradient, so there is nothing to train")
    if any(weight.is_meta for weight in weights):
        raise ValueError("objective: weights on the device meta have no values; build it on a real device")
    if any(weight.is_inference() for weight in weights):
        raise ValueError(
            "objective was made under torch.inference_mode, so its weights cannot be trained; make it outside that block"
        )


@contextmanager
def _as_before(objective: Objective) -> Iterator[None]:
    """Put the objective back as it was if the block fails: what precedes the first step changes no weights."""
    device, sizes, extent = next(objective.parameters()).device, objective.sizes, objective.extent
    modes = {part: part.training for part in objective.modules()}
    try:
        yield
    except BaseException:
        objective.to(device)
        objective.sizes, objective.extent = sizes, extent
        for part, training in modes.items():
            part.training = training
        raise


@dataclass
class _Position:
    """Where a run is; all of it is in the checkpoint."""

    step: int = 0
    seconds: float = 0.0
    best: float = -math.inf
    since_best: int = 0
    sums: dict[str, float] = field(default_factory=dict)


class _Average:
    """An exponential average of parameters and buffers, whose decay rises from 0 to `decay`: the start is soon forgotten."""

    def __init__(self, objective: Objective, decay: float) -> None:
        self.objective, self.decay = deepcopy(objective), decay
        pairs = [(a.detach(), b.detach()) for a, b in zip(_tensors(self.objective), _tensors(objective), strict=True)]
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        self.averages, self.current = [a for a, _ in floating], [b for _, b in floating]
        self.counters = [pair for pair in pairs if not pair[0].is_floating_point()]  # batch norm's

    def update(self, step: int) -> None:
        for counter, current in self.counters:
            counter.copy_(current)
        decay = min(self.decay, (1 + step) / (10 + step)) if step else 0.0
        get_ema_multi_avg_fn(decay)(self.averages, self.current, None)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


class _Run:
    """The state of a training run and its one loop."""

    @exclusive()
    def __init__(
        self, objective: Objective, x: Any, y: Any, *, epochs: int, batch_size: int, labeled_batch_size: int, lr: float,
        optimizer: Callable[..., Optimizer], schedule: Schedule, warmup: float, clip_norm: float | None, ema: float,
        precision: Precision, transform: Callable[[Tensor], Tensor] | None, seed: int, device: str | torch.device | None,
        early_stopping: EarlyStopping | None, identity: dict[str, Any] | None,
    ) -> None:  # fmt: skip
        _check_functions(optimizer, schedule, transform, early_stopping)
        self.settings = _checked(
            epochs=epochs, batch_size=batch_size, labeled_batch_size=labeled_batch_size, lr=lr, warmup=warmup,
            clip_norm=clip_norm, ema=ema, precision=precision, seed=seed, schedule=schedule if isinstance(schedule, str) else None,
        )  # fmt: skip
        parameters = [p for p in objective.parameters() if p.requires_grad]
        home = parameters[0].device if device is None else as_device(device)
        x = as_input(objective, x)
        labels, known = _labels(objective, x, y)
        if not objective.learns_unlabeled and known.any():
            x, labels, known = x[known], labels[known], known[known]
        named = schedule if isinstance(schedule, str) else checkpoints.said(schedule)
        self.settings |= {"identity": _plain(identity), "schedule": named}
        self.settings |= {"optimizer": checkpoints.said(optimizer), "transform": checkpoints.said(transform)}
        self.settings |= {
            "x": files.checksum(x),
            "y": files.checksum(labels.where(known[:, None], -1)),
        }
        self.objective, self.parameters, self.transform, self.device = objective, parameters, transform, home
        with fixed_seed(seed), preserve_buffers(objective.to(home)):
            features, self.encoded = objective.features, False
            if isinstance(features, PretrainedEncoder) and features.trained and transform is None:
                x, self.transform, self.encoded = features.moments(x), features.sample, True
            self.batches = Batches(x.to(home), labels, known, int(batch_size), int(labeled_batch_size), seed)
            objective.sizes = len(self.batches.x), len(self.batches.x_unlabeled)
            first = self.batch(0)
            objective.check(first, self._prepared(self.batches.extremes()))
            self.joint = objective.joint_pass_for(first)
            self.largest_loss = self._largest_loss()
        self.parameter_groups = parameter_groups(objective)
        groups = [{"params": p, "lr": lr * scale} for scale, p in self.parameter_groups]
        groups[1:] = [group | {"weight_decay": 0.0} for group in groups[1:]]  # an optimiser's is of the pair
        self.optimizer = _fused(optimizer, groups, lr)
        self.total = int(epochs) * self.batches.steps_per_epoch
        if self.total > MOST_STEPS:
            raise ValueError(f"epochs should be fewer, got {epochs}: that makes more than {MOST_STEPS:.0e} steps")
        if self.total == 1 and isinstance(schedule, str):
            schedule = "constant"  # one step has no time to rise and fall
        make = SCHEDULES[schedule] if isinstance(schedule, str) else schedule
        self.schedule = make(self.optimizer, self.total)
        self.replayable = isinstance(schedule, str)
        if not isinstance(self.schedule, LRScheduler):
            raise ValueError(f"schedule should give an LRScheduler, got {type(self.schedule).__name__}")
        self.warmup_steps = warmup * self.batches.steps_per_epoch
        self.max_norm = clip_norm
        self.average = _Average(objective, ema) if ema else None
        self.early_stopping = early_stopping
        self.best_state: dict[str, Tensor] | None = None
        self.at = _Position()
        self.history: History = {}

    @torch.no_grad()
    def _largest_loss(self) -> float:
        """The size from which on a loss is absurd: of untrained weights on a batch, on the data farthest out, in nats per column."""
        parts = self.objective.parts(self.batch(0), joint=self.joint)
        self.part_names = list(parts)
        extreme = self.objective.parts(self._prepared(self.batches.extremes()), joint=self.joint)
        largest = max(abs(total(parts).item()), abs(total(extreme).item()))
        return ABSURD * (largest + self.batches.columns + 1)

    def batch(self, step: int) -> Batch:
        """The data of a step, transformed; of an objective whose features are trained, these."""
        return self._prepared(self.batches(step))

    def _prepared(self, batch: Batch) -> Batch:
        return replace(transformed(batch, self.transform), encoded=self.encoded)

    @property
    def averaged(self) -> Objective:
        """The objective to evaluate: with averaged weights, once there are any."""
        return self.objective if self.average is None else self.average.objective

    def train(
        self,
        callbacks: tuple[Callable[[Epoch], None], ...],
        store: _Store | None,
        checkpoint_every: int | None,
        progress: bool | None,
    ) -> None:
        modes = {part: part.training for part in self.objective.modules()}
        _BEING_TRAINED.update((self.objective, self.averaged))
        try:
            self._train(callbacks, store, checkpoint_every, progress)
        except BaseException:
            for part, training in modes.items():
                part.training = training
            raise
        finally:
            _BEING_TRAINED.difference_update((self.objective, self.averaged))
        self.finish()

    def _train(
        self,
        callbacks: tuple[Callable[[Epoch], None], ...],
        store: _Store | None,
        checkpoint_every: int | None,
        progress: bool | None,
    ) -> None:
        every = checkpoint_every or self.batches.steps_per_epoch  # at least one: `fit` has checked
        hide = not (sys.stderr.isatty() if progress is None else progress)
        self.objective.train()
        with tqdm(total=self.total, initial=self.at.step, disable=hide, unit="step", leave=False) as bar:
            while self.at.step < self.total and not self.stopped:
                give_way()
                started = time.perf_counter()
                self.step()
                self.at.seconds += time.perf_counter() - started
                bar.update()
                if self.at.step % self.batches.steps_per_epoch == 0:
                    epoch = self.end_epoch()
                    bar.set_postfix(loss=f"{epoch.metrics['loss']:.4g}")
                    if store is not None:
                        store.log(self.history)
                    self.call(callbacks, epoch)
                if store is not None and (self.at.step % every == 0 or self.at.step == self.total):
                    store.save(self)

    def step(self) -> None:
        """One optimiser step on labeled and unlabeled data."""
        batch = self.batch(self.at.step)
        kl_weight = min(1.0, (self.at.step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        with validation_disabled():  # the first batch was checked
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings["precision"] == "bfloat16"):
                parts = self.objective.parts(batch, kl_weight=kl_weight, joint=self.joint)
            loss = total(parts)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norms = [
                nn.utils.get_total_norm([p.grad for p in group if p.grad is not None])
                for _, group in self.parameter_groups
            ]
            if self.max_norm is not None:
                for (_, group), norm in zip(self.parameter_groups, norms, strict=True):
                    nn.utils.clip_grads_with_norm_(group, self.max_norm, norm)
            values = torch.stack([*parts.values(), loss, *norms]).detach().tolist()
            if not all(map(math.isfinite, values)):
                with preserve_buffers(self.objective):
                    culprit = self.objective.culprit(batch, joint=self.joint)
                raise DivergedError(
                    f"step {self.at.step}: the loss or its gradient is not finite, first at {culprit}; "
                    "the weights are as they were before this step; try a smaller lr or a clip_norm"
                )
        self.optimizer.step()
        self.schedule.step()
        if self.average is not None:
            self.average.update(self.at.step)
        for name, value in zip([*parts, "loss"], values, strict=False):
            self.at.sums[name] = self.at.sums.get(name, 0.0) + value
        self.at.step += 1

    def end_epoch(self) -> Epoch:
        n = self.batches.steps_per_epoch
        metrics = {name: value / n for name, value in self.at.sums.items()}
        metrics |= {"lr": float(self.schedule.get_last_lr()[0]), "seconds": self.at.seconds}
        self.at.sums = {}
        self._warn_if_absurd(metrics["loss"])
        if self.early_stopping is not None:
            metrics["score"] = self.evaluate(self.early_stopping)
        for name, value in metrics.items():
            self.history.setdefault(name, []).append(value)
        return Epoch(self.at.step // n, self.at.step, metrics, self.averaged)

    def _warn_if_absurd(self, loss: float) -> None:
        """Warn, once, of a loss that is finite and far beyond that of untrained weights."""
        if abs(loss) <= self.largest_loss:
            return
        warnings.warn(
            f"epoch {self.at.step // self.batches.steps_per_epoch}: the mean loss is {loss:.3g} nats, more than {ABSURD:.0f} "
            "times that of untrained weights: training has diverged; try a smaller lr or a clip_norm",
            DivergedWarning,
            stacklevel=6,
        )
        self.largest_loss = math.inf

    def call(self, callbacks: tuple[Callable[[Epoch], None], ...], epoch: Epoch) -> None:
        """Callbacks see the objective as it would be evaluated, and move nothing of the training's."""
        for callback in callbacks:
            with fixed_seed(0), eval_mode(epoch.objective):
                callback(epoch)

    def evaluate(self, stopping: EarlyStopping) -> float:
        """The score of this epoch; keeps the weights if it is the best. Training's random state does not move."""
        with fixed_seed(0), eval_mode(self.averaged):
            score = _score(stopping.score(self.averaged), len(self.history["loss"]) + 1 if self.history else 1)
        if score > self.at.best:
            self.at.best, self.at.since_best = score, 0
            self.best_state = {k: v.detach().clone() for k, v in self.averaged.state_dict().items()}
        else:
            self.at.since_best += 1
        return score

    @property
    def stopped(self) -> bool:
        return self.early_stopping is not None and self.at.since_best >= self.early_stopping.patience

    def finish(self) -> None:
        """Leave the weights to use in the objective: the best, else the averaged, else the last."""
        if self.best_state is not None:
            self.objective.load_state_dict(self.best_state)
        elif self.average is not None:
            self.objective.load_state_dict(self.average.objective.state_dict())
        self.objective.eval()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors: dict[str, Tensor] = checkpoints.rng_tensors()
        packed = checkpoints.pack("run", self._parts(), tensors)
        return tensors, {"run": packed, "position": vars(self.at), "history": self.history, "settings": self.settings}

    def restore(self, tensors: dict[str, Tensor], data: dict[str, Any]) -> None:
        """Take the state of a checkpoint; all of it is checked before anything is changed.

        Raises:
            CheckpointError: It was changed, or is not one of such a run.
            ValueError: It is of a run with other settings, or other data.
        """
        whole = {"settings", "run", "position", "history"} <= data.keys() and isinstance(data["settings"], dict)
        resuming.require(whole, "it should hold settings, run, position and history")
        self._check_settings(data["settings"])
        rng = {name: state for name, state in tensors.items() if name.startswith("rng/")}
        parts = checkpoints.unpack(data["run"], {k: v for k, v in tensors.items() if k not in rng})
        position, history = data["position"], data["history"]
        resuming.check_position(
            position, history, self.part_names, steps_per_epoch=self.batches.steps_per_epoch, total=self.total,
            scored=self.early_stopping is not None,
        )  # fmt: skip
        if self.replayable:
            resuming.replay(self.schedule, position["step"])
        self._check_parts(parts, position["step"])
        resuming.require(position["best"] == -math.inf or parts["best"] is not None, "the best weights are missing")
        checkpoints.set_rng(rng)  # first, for it may still refuse
        self.objective.load_state_dict(parts["objective"])
        groups = self.optimizer.state_dict()["param_groups"] if self.replayable else parts["optimizer"]["param_groups"]
        self.optimizer.load_state_dict({"state": parts["optimizer"]["state"], "param_groups": groups})
        for like, state in self.optimizer.state.items():  # a fused step pairs them by place in memory: channels_last
            for k, v in state.items():
                if torch.is_tensor(v) and v.shape == like.shape:
                    state[k] = torch.empty_like(like, dtype=v.dtype, requires_grad=False).copy_(v)
        if not self.replayable:
            self.schedule.load_state_dict(parts["schedule"])
        if self.average is not None:
            self.average.objective.load_state_dict(parts["average"])
        self.best_state = parts["best"]
        self.at, self.history = _Position(**position), history

    def _check_settings(self, settings: dict[str, Any]) -> None:
        """Raise ValueError, naming the first setting that is another than that of the run to resume."""
        for name, value in self.settings.items():
            was = settings.get(name, value)  # what an earlier version did not keep is not compared
            if was != value and not (name == "schedule" and was is None):
                raise ValueError(
                    f"{name}: the run to resume had {was}, got {value}; give what it was started with "
                    "(x and y are compared by their checksums)"
                )

    def _check_parts(self, parts: Any, step: int) -> None:
        """Raise CheckpointError unless weights, optimiser and schedule are of the form that this run has, at a step."""
        names = {"objective", "optimizer", "schedule", "average", "best"}
        whole = isinstance(parts, dict) and parts.keys() == names
        resuming.require(whole, f"run should hold {', '.join(sorted(names))}")
        weights = self.objective.state_dict()
        what = "objective: its weights have not the names, shapes and dtypes of those of the run to resume"
        checkpoints.check_tensors(parts["objective"], weights, what)
        resuming.require((parts["average"] is None) == (self.average is None), "average should go with ema")
        for name in ("average", "best"):
            if parts[name] is not None:
                checkpoints.check_tensors(parts[name], weights, name)
        if self.replayable:
            resuming.check_same(parts["schedule"], self.schedule.state_dict(), "schedule")
        else:
            resuming.check_alike(parts["schedule"], self.schedule.state_dict(), "schedule")
            resuming.require(parts["schedule"].get("last_epoch", step) == step, f"schedule should be at step {step}")
        resuming.check_optimizer(parts["optimizer"], self.optimizer, self._used(), self.replayable)

    def _used(self) -> list[bool]:
        """Which parameters have a gradient, in the order of the optimiser's."""
        parameters = [p for _, group in self.parameter_groups for p in group]
        with fixed_seed(0), preserve_buffers(self.objective):  # which the gradient needs as they are here
            loss = total(self.objective.parts(self.batch(0), joint=self.joint))
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        return [gradient is not None for gradient in gradients]

    def _parts(self) -> dict[str, Any]:
        return {
            "objective": dict(self.objective.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": None if self.average is None else dict(self.average.objective.state_dict()),
            "best": self.best_state,
        }


class _Store:
    """The files of a run: `checkpoint/`, `checkpoint.previous/` and `metrics.jsonl`."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.checkpoint, self.metrics = directory, directory / "checkpoint", directory / "metrics.jsonl"
        self.logged = 0

    def begin(self, resume: bool) -> None:
        """Raise FileExistsError if there is another run, and it is not to be resumed."""
        if not resume and (checkpoints.exists(self.checkpoint) or self.metrics.exists()):
            raise FileExistsError(
                f"directory {self.directory} holds another run; resume it, or choose another directory"
            )

    def restore(self, run: _Run) -> None:
        if checkpoints.exists(self.checkpoint):
            tensors, data = checkpoints.load(self.checkpoint)
            try:
                run.restore(tensors, data)
            except files.CheckpointError as error:
                raise files.CheckpointError(f"{self.checkpoint}: {error}") from None
        files.write_text(self.metrics, "".join(_lines(run.history, 0)))
        self.logged = len(run.history.get("loss", []))

    def log(self, history: History) -> None:
        with files.naming(self.metrics), self.metrics.open("a") as file:
            file.writelines(_lines(history, self.logged))
        self.logged = len(history["loss"])

    def save(self, run: _Run) -> None:
        checkpoints.save(self.checkpoint, *run.state())


def _lines(history: History, start: int) -> list[str]:
    n = len(history.get("loss", []))
    return [json.dumps({"epoch": i + 1} | {k: v[i] for k, v in history.items()}) + "\n" for i in range(start, n)]


def as_device(device: Any) -> torch.device:
    """The device of a name, tried.

    Raises:
        ValueError: It is not available here, or holds no values.
    """
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(f"device {device!s} is not available: {str(error).splitlines()[0]}") from None
    if found.type == "meta":
        raise ValueError("device meta holds no values; train on cpu, or on a device such as cuda")
    return found


def _check_functions(optimizer: Any, schedule: Any, transform: Any, early_stopping: Any) -> None:
    """Raise ValueError, naming the first argument that cannot be called as `fit` does."""
    if not callable(optimizer):
        raise ValueError(f"optimizer should be a torch optimiser class, such as torch.optim.Adam, got {optimizer!r}")
    known = schedule in SCHEDULES if isinstance(schedule, str) else callable(schedule)
    if not known:
        raise ValueError(f"schedule should be one of {', '.join(SCHEDULES)}, or a function, got {schedule!r}")
    if transform is not None and not callable(transform):
        raise ValueError(f"transform should be a function of a batch of data, or None, got {transform!r}")
    if early_stopping is None:
        return
    if not isinstance(early_stopping, EarlyStopping):
        raise ValueError(f"early_stopping should be an EarlyStopping(score, patience), got {early_stopping!r}")
    if not callable(early_stopping.score):
        raise ValueError(f"early_stopping: score should be a function of the objective, got {early_stopping.score!r}")
    check_positive(patience=early_stopping.patience)


def _plain(identity: Any) -> Any:
    """The identity as JSON gives it back."""
    try:
        return json.loads(json.dumps(identity))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"identity should be plain data, as JSON holds: {error}") from None


def _score(score: Any, epoch: int) -> float:
    """A score as a number that can be compared with others.

    Raises:
        ValueError: It is not one; -inf is, the worst.
    """
    try:
        number = float(score)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"early_stopping: score should give a number, got {score!r:.80} in epoch {epoch}") from None
    if math.isnan(number) or number == math.inf:
        raise ValueError(
            f"early_stopping: score should give a number, got {number} in epoch {epoch}, so no epoch can be called the "
            "best; mend the score, or try a smaller lr if the weights have diverged"
        )
    return number


def _checked(**settings: Any) -> dict[str, Any]:
    """The settings, or an error that names the first that does not fit."""
    check_positive(**{name: settings[name] for name in ("epochs", "batch_size", "labeled_batch_size")})
    check_seed(settings["seed"])
    lr, ema, warmup, clip_norm = (settings[k] for k in ("lr", "ema", "warmup", "clip_norm"))
    for name in ("lr", "ema", "warmup", "clip_norm"):
        value = settings[name]
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not number and not (name == "clip_norm" and value is None):
            raise ValueError(f"{name} should be a number, got {value!r}")
    if not 0 < lr < math.inf:
        raise ValueError(f"lr should be above 0, got {lr}")
    if not 0 <= ema < 1:
        raise ValueError(f"ema should be in [0, 1), got {ema}")
    if not 0 <= warmup < math.inf:
        raise ValueError(f"warmup should be 0 or more epochs, got {warmup}")
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"clip_norm should be above 0, or None, got {clip_norm}")
    if settings["precision"] not in get_args(Precision):
        raise ValueError(f"precision should be one of {', '.join(get_args(Precision))}, got {settings['precision']!r}")
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in settings.items()}


def parameter_groups(objective: Objective) -> list[tuple[float, list[nn.Parameter]]]:
    """The parameters that one player trains and its share of the learning rate: the pair's first, then each adversary's.

    Adam keeps its averages per parameter, so groups of one optimiser are optimisers of their own.
    """
    terms: Any = objective.terms
    adversaries = [(float(term.lr_scale), list(term.parameters())) for term in terms if term.lr_scale is not None]
    theirs = {id(p) for _, group in adversaries for p in group}
    return [(1.0, [p for p in objective.parameters() if p.requires_grad and id(p) not in theirs]), *adversaries]


def _fused(optimizer: Callable[..., Optimizer], parameters: list[dict[str, Any]], lr: float) -> Optimizer:
    """The optimiser, fused where it can be."""
    try:
        made = optimizer(parameters, lr=lr, fused=True)
    except (TypeError, RuntimeError):  # this optimiser, or this device, has no fused version
        try:
            made = optimizer(parameters, lr=lr)
        except TypeError as error:
            raise ValueError(f"optimizer should take parameters and lr, as torch.optim.Adam does: {error}") from error
    if not isinstance(made, Optimizer):
        raise ValueError(f"optimizer should give a torch.optim.Optimizer, got {type(made).__name__}")
    return made


def _labels(objective: Objective, x: Tensor, y: Any) -> tuple[Tensor, Tensor]:
    """Labels as the objective's q(y|x) has them, `(N, K)`, one-hot or real, and which rows have one, `(N,)`."""
    like = next(objective.parameters())
    if y is None:
        return torch.zeros(len(x), 1, dtype=like.dtype), torch.zeros(len(x), dtype=torch.bool)
    with eval_mode(objective), fixed_seed(0):
        q = classified(objective.guide, objective.encode(placed(x[:2], like)))
    size = q.event_shape[-1]
    if not q.has_enumerate_support:
        return as_values(y, len(x), size, like.dtype)
    codes = as_codes(y, len(x)).cpu()
    if int(codes.max()) >= size:
        raise ValueError(f"y: got label {int(codes.max())}, but q(y|x) has {size} classes, 0 .. {size - 1}")
    warn_of_missing_classes(codes, range(size))
    return one_hot(codes.clamp_min(0), size, like.dtype), codes >= 0

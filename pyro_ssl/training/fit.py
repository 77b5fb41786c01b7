"""`fit`: train an objective on arrays, with labels where there are any."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pyro_ssl.data.sources import InputRows, Source, as_source
from pyro_ssl.data.training_range import Extent
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.objectives.pretrained_encoder import ROWS_AT_ONCE, PretrainedEncoder
from pyro_ssl.training.callbacks import (
    EarlyStopping,
    Epoch,
    RunDirectory,
    UserCallbacks,
    progress_bar,
)
from pyro_ssl.training.new_run import new_run
from pyro_ssl.training.optimizers import Schedule
from pyro_ssl.training.run import (
    Callback,
    DivergedError,
    History,
    is_being_trained,
    train,
)
from pyro_ssl.training.settings import Precision, Settings
from pyro_ssl.training.source_batches import check_workers
from pyro_ssl.utils import files
from pyro_ssl.utils.arguments import as_input, as_stored, check_kind, check_positive, is_pixels
from pyro_ssl.utils.context import fixed_seed, one_training


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
    workers: int | None = None,
    early_stopping: EarlyStopping | None = None,
    callbacks: Sequence[Callable[[Epoch], None]] = (),
    directory: str | Path | None = None,
    identity: dict[str, Any] | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    progress: bool | None = None,
) -> History:
    """Train an objective in place; every step uses labeled and unlabeled data together.

    At the end the objective holds the averaged weights (with `ema`), or the best ones (with
    `early_stopping`), and is in evaluation mode. The global random state and Pyro's parameter store
    do not change.

    Trainings in several threads take turns. Predictions of other threads run between two steps and
    do not change the result. But torch has one random state for all threads: while `fit` runs,
    other threads should draw no random numbers, or draw them from a `torch.Generator`.

    >>> from pyro_ssl import zoo
    >>> x = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
    >>> y = torch.where(torch.arange(60) < 20, torch.arange(60) % 2, -1)
    >>> history = fit(zoo.build("m2", 4, 2, hidden=(8,)), x, y, epochs=2)
    >>> len(history["loss"])
    2

    Arguments:
        objective: What to train.
        x: Data `(N, *event)`; any array of finite numbers, none of them masked. It is converted to
            the dtype of the weights, except that images `(N, C, H, W)` of uint8 are also divided by
            255, and that integers stay int64 if the model or the guide has an `nn.Embedding` or
            `nn.EmbeddingBag`. Or data that do not fit into memory, which are read batch by batch:
            an `np.memmap`, or a map-style torch `Dataset` with items x or (x, y), where y is -1 or
            None for unlabeled data. Their range is that of up to 1000 evenly spaced rows; a batch
            that goes beyond it is checked like the first one. See `docs/your_data.md`.
        y: Class indices `(N,)` in 0 .. K - 1, with -1 or a mask for unlabeled data; for a method of
            real labels, `(N,)` or `(N, D)`, with NaN or a mask for unlabeled data; None if nothing
            is labeled, or if the items of a `Dataset` hold the labels, which are then read in one
            pass before training. A `LabelWarning` names classes without a label.
        epochs: Passes over the unlabeled data; over the labeled data where that takes more steps,
            or if the objective learns from no others.
        batch_size: Unlabeled data per step.
        labeled_batch_size: Labeled data per step.
        lr: Learning rate, the largest one of the schedule.
        optimizer: A torch optimiser class, called with the parameters and `lr`, and with
            `fused=True` where that is implemented.
        schedule: A name from `SCHEDULES`, or a function of (optimiser, total steps) that returns an
            `LRScheduler`.
        warmup: Epochs over which the weight of the continuous latents' KL rises linearly to 1.
        clip_norm: Largest global norm of the gradient.
        ema: Decay per step of the exponential average of the weights; 0 for none.
        precision: Precision of the networks' matrix products. "bfloat16" is faster if the hardware
            supports it and the networks are wide; weights, densities and the loss keep their dtype.
        transform: Function applied anew to the data of each batch, such as `torch.bernoulli` for
            dynamic binarisation. Its random numbers should come from torch's global generator,
            whose state is in the checkpoint.
        seed: Seed of the order of the data and of all noise in training.
        device: Where to train; by default where the objective is.
        workers: Processes that read a memory map or a `Dataset` ahead; 0 reads between the steps.
            The result does not depend on it. By default two, or one where there are two cores.
        early_stopping: Score and patience.
        callbacks: Functions of an `Epoch`, called after each epoch.
        directory: Where to write `metrics.jsonl` and checkpoints; None for neither.
        identity: Plain data that a resumed run must share with the run it resumes, such as the
            method and its options. The arguments of `fit` are compared anyway, functions by name.
        checkpoint_every: Steps between checkpoints; by default one per epoch.
        resume: Continue from the directory's checkpoint, if there is one. The result is the same to
            the bit as that of an uninterrupted run.
        progress: Show a progress bar; by default on a terminal only.

    Returns:
        The history: for each part of the loss, and for `loss`, `lr` and `seconds`, a list of one
        number per epoch.

    Raises:
        ValueError: Data, labels or an argument do not fit, or another process trains in the
            directory; nothing has been changed then. Or a score of `early_stopping` is not a
            number.
        FileExistsError: The directory holds another run, and `resume` is not set.
        CheckpointError: The checkpoint to resume was changed, or is of another run; nothing has
            been changed then.
        DivergedError: The loss is not finite; the last checkpoint is kept.

    Warns:
        DivergedWarning: The loss is finite, but orders of magnitude larger than with untrained
            weights.
    """
    settings = Settings(
        epochs=epochs,
        batch_size=batch_size,
        labeled_batch_size=labeled_batch_size,
        lr=lr,
        optimizer=optimizer,
        schedule=schedule,
        warmup=warmup,
        clip_norm=clip_norm,
        ema=ema,
        precision=precision,
        transform=transform,
        seed=seed,
        identity=identity,
    )
    _check_files(directory, checkpoint_every, resume, progress)
    check_workers(workers)
    _check_callbacks(callbacks, early_stopping)
    _check_objective(objective)
    x = as_source(x)
    patience = None if early_stopping is None else early_stopping.patience
    begin = partial(
        new_run, objective, x, y, settings, device=device, patience=patience, workers=workers
    )
    run_directory = None if directory is None else RunDirectory(directory, checkpoint_every)
    with one_training(), torch.inference_mode(False), torch.enable_grad(), ExitStack() as stack:
        with _restored_on_error(objective):
            run = begin()
            if run_directory is not None:
                stack.enter_context(files.locked(run_directory.directory, "fit.lock"))
                if not resume:
                    run_directory.check_is_free()
            features = objective.features
            if isinstance(features, PretrainedEncoder) and not features.trained:
                pretrain(
                    features,
                    x.without_labels() if isinstance(x, Source) else as_stored(objective, x),
                    directory=None if directory is None else Path(directory) / "features",
                    seed=seed,
                    resume=resume,
                    progress=progress,
                    transform=transform,
                    workers=workers,
                )
                run = begin()
            objective.extent = run.averaged.extent = _extent_of(objective, x)
            stack.callback(run.batches.close)
            stack.enter_context(fixed_seed(seed))
            if run_directory is not None:
                run_directory.restore(run)
        bar = stack.enter_context(progress_bar(run, progress))
        # metrics are written before the user's callbacks, the checkpoint of the step after them
        in_order = (early_stopping, bar, run_directory, UserCallbacks(callbacks))
        hooks: list[Callback] = [callback for callback in in_order if callback is not None]
        try:
            return train(run, hooks)
        except DivergedError as error:
            if directory is None:
                raise
            raise DivergedError(
                f"{error}; start again with it in another directory: {directory} would resume "
                "the diverged run"
            ) from None


def pretrain(features: PretrainedEncoder, x: Tensor | Source, **arguments: Any) -> None:
    """Train an encoder's own objective on all data, without labels, and find which latents it uses.

    Arguments:
        features: The encoder.
        x: Data `(N, *event)`.
        arguments: Arguments of `fit`; they take precedence over those given to the encoder.
    """
    features.objective.requires_grad_(True)
    try:
        fit(features.objective, x, **features.arguments | arguments)
    finally:
        features.objective.requires_grad_(False)
    if isinstance(x, Source):
        features.finish_training_on(InputRows(x, features.objective).split(ROWS_AT_ONCE))
    else:
        features.finish_training(as_input(features.objective, x))


def _extent_of(objective: Objective, x: Any) -> Extent:
    """Shape and range of the data; of a source those of some rows."""
    if isinstance(x, Source):
        return InputRows(x, objective).extent()
    data = as_stored(objective, x)
    extent = Extent.of(data)
    return extent.divided(255) if is_pixels(data) else extent


def _check_files(directory: Any, checkpoint_every: Any, resume: Any, progress: Any) -> None:
    if checkpoint_every is not None:
        check_positive(checkpoint_every=checkpoint_every)
    check_kind("resume", resume, bool)
    check_kind("progress", progress, bool | None)
    if not isinstance(directory, str | os.PathLike | None):
        raise ValueError(f"directory should be a path, got {directory!r}")


def _check_callbacks(callbacks: Any, early_stopping: Any) -> None:
    if not isinstance(callbacks, Sequence) or not all(map(callable, callbacks)):
        raise ValueError(
            f"callbacks should be functions in a tuple or list, such as (f,), got {callbacks!r}"
        )
    if early_stopping is None:
        return
    if not isinstance(early_stopping, EarlyStopping):
        raise ValueError(
            f"early_stopping should be an EarlyStopping(score, patience), got {early_stopping!r}"
        )
    early_stopping.check()


def _check_objective(objective: Any) -> None:
    """Raise ValueError, with the fix, unless it is an objective whose weights can be trained."""
    if isinstance(objective, nn.Module):
        _check_not_parallel(objective)
    if not isinstance(objective, Objective):
        got = type(objective).__name__
        raise ValueError(f"objective should be a pyro_ssl.Objective, got {got}")
    if is_being_trained(objective):
        raise ValueError(
            "objective is being trained by the fit that has called this one; "
            "train a copy.deepcopy of it"
        )
    weights = [*objective.parameters(), *objective.buffers()]
    if not any(weight.requires_grad for weight in weights):
        raise ValueError(
            "objective has no parameter that requires a gradient, so there is nothing to train"
        )
    if any(weight.is_meta for weight in weights):
        raise ValueError(
            "objective: weights on the device meta have no values; build it on a real device"
        )
    if any(weight.is_inference() for weight in weights):
        raise ValueError(
            "objective was made under torch.inference_mode, so its weights cannot be trained; "
            "make it outside that block"
        )


def _check_not_parallel(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.DataParallel | nn.parallel.DistributedDataParallel):
            raise ValueError(
                f"objective: got a {type(part).__name__}, but fit trains on one device; "
                "give what it wraps, its attribute .module"
            )


@contextmanager
def _restored_on_error(objective: Objective) -> Iterator[None]:
    """Put the objective back as it was if the block fails; no step has changed its weights yet."""
    device = next(objective.parameters()).device
    sizes = objective.sizes
    extent = objective.extent
    modes = {part: part.training for part in objective.modules()}
    try:
        yield
    except BaseException:
        objective.to(device)
        objective.sizes = sizes
        objective.extent = extent
        for part, training in modes.items():
            part.training = training
        raise

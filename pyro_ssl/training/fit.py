"""`fit`: train an objective on labeled and unlabeled data."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pyro_ssl.data.extent import Extent
from pyro_ssl.data.sources import InputRows, Source, as_source
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.objectives.pretrained_encoder import ROWS_AT_ONCE, PretrainedEncoder
from pyro_ssl.training.callbacks import (
    EarlyStopping,
    Epoch,
    InStep,
    RunDirectory,
    UserCallbacks,
    progress_bar,
)
from pyro_ssl.training.distributed import (
    Processes,
    check_divisible,
    connection_errors_explained,
    from_first,
)
from pyro_ssl.training.new_run import new_run
from pyro_ssl.training.optimizers import Schedule, named_optimizer
from pyro_ssl.training.preemption import preempted
from pyro_ssl.training.run import (
    Callback,
    DivergedError,
    History,
    Run,
    is_being_trained,
    train,
)
from pyro_ssl.training.settings import Precision, Settings
from pyro_ssl.training.source_batches import check_workers
from pyro_ssl.training.threads import threads_for
from pyro_ssl.training.watch import current_watch
from pyro_ssl.utils import files
from pyro_ssl.utils.arguments import as_input, as_stored, check_kind, check_positive, is_pixels
from pyro_ssl.utils.context import fixed_seed, one_training, preserve_buffers


def fit(
    objective: Objective,
    x: Any,
    y: Any = None,
    *,
    epochs: int = 100,
    batch_size: int = 200,
    labeled_batch_size: int = 100,
    lr: float = 1e-3,
    optimizer: str | Callable[..., Optimizer] = torch.optim.Adam,
    schedule: Schedule = "one_cycle",
    warmup: float = 0.0,
    clip_norm: float | None = None,
    ema: float = 0.0,
    precision: Precision = "float32",
    transform: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
    compile: bool = False,
    device: str | torch.device | None = None,
    workers: int | None = None,
    early_stopping: EarlyStopping | None = None,
    callbacks: Sequence[Callable[[Epoch], Any]] = (),
    directory: str | Path | None = None,
    identity: dict[str, Any] | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    progress: bool | None | Callable[[str], None] = None,
) -> History:
    """Train an objective in place; every step uses labeled and unlabeled data together.

    At the end the objective holds the averaged weights (with `ema`), or the best ones (with
    `early_stopping`), and is in evaluation mode. The global random state and Pyro's parameter store
    do not change.

    Training runs in several threads take turns. Predictions of other threads run between two steps
    and do not change the result. But torch has one random state for all threads: while `fit` runs,
    other threads should draw no random numbers, or draw them from a `torch.Generator`.

    Small networks are trained in one thread, since more would not be faster. OMP_NUM_THREADS and
    `torch.set_num_threads` set another number.

    A run with a directory that receives SIGTERM or SIGINT writes a checkpoint of the last step, and
    ends by `SystemExit(143)` or `KeyboardInterrupt`. Processes that torchrun has started train one
    objective together: see `docs/howto/several_machines.md`.

    >>> from pyro_ssl import zoo
    >>> x = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
    >>> y = torch.where(torch.arange(60) < 20, torch.arange(60) % 2, -1)
    >>> history = fit(zoo.build("m2", 4, 2, hidden=(8,)), x, y, epochs=2)
    >>> len(history["loss"])
    2

    Arguments:
        objective: The objective to train.
        x: Data `(N, *event)`; any array of finite numbers, none of them masked. It is converted to
            the dtype of the weights, except that images `(N, C, H, W)` of uint8 are also divided by
            255, and that integers stay int64 if the model or the guide has an `nn.Embedding` or
            `nn.EmbeddingBag`. Data that do not fit into memory are read batch by batch: give an
            `np.memmap`, or a map-style torch `Dataset` with items x or (x, y), where y is -1 or
            None for unlabeled data. See `docs/howto/your_data.md`.
        y: Class indices `(N,)` in 0 .. K - 1, with -1 or a mask for unlabeled data; for a method of
            real labels, `(N,)` or `(N, D)`, with NaN or a mask for unlabeled data; None if nothing
            is labeled, or if the items of a `Dataset` hold the labels, which are then read in one
            pass before training. A `LabelWarning` names classes without a label.
        epochs: Passes over the unlabeled data, or over the labeled data if that takes more steps or
            if the objective learns from labeled data only.
        batch_size: Unlabeled rows per step.
        labeled_batch_size: Labeled rows per step.
        lr: Peak learning rate of the schedule.
        optimizer: A name from `OPTIMIZERS`, or a torch optimiser class, called with the parameters
            and `lr`, and with `fused=True` if that is implemented.
        schedule: A name from `SCHEDULES`, or a function of (optimiser, total steps) that returns an
            `LRScheduler`.
        warmup: Epochs over which the weight of the continuous latents' KL rises linearly to 1.
        clip_norm: Largest global norm of the gradient.
        ema: Decay per step of the exponential average of the weights; 0 for none.
        precision: Precision of the networks' matrix products. "bfloat16" is faster if the hardware
            supports it and the networks are wide; weights, densities and the loss keep their dtype.
        transform: Function applied to the data of each batch, such as `torch.bernoulli` for dynamic
            binarisation. Its random numbers should come from torch's global generator, whose state
            is in the checkpoint.
        seed: Seed of the order of the data and of all noise in training.
        compile: Compile the loss and its gradients, see `docs/howto/compiled_steps.md`: several
            times faster for small networks, after some seconds of compilation for each kind of
            step. The numbers differ from those without it by rounding. A step that cannot be
            compiled is made without it, with a `NotCompiledWarning`.
        device: Device to train on; by default the device of the objective.
        workers: Processes that read a memory map or a `Dataset` ahead; 0 reads between the steps.
            The result does not depend on it. By default two, or one on a machine with two cores.
        early_stopping: Score and patience.
        callbacks: Functions of an `Epoch`, called after each epoch. They may return a dictionary of
            numbers, which the history, the progress bar and `metrics.jsonl` then show; see
            `Accuracy`.
        directory: Folder for `metrics.jsonl` and checkpoints; None writes neither.
        identity: Plain data that a resumed run must share with the original one, such as the method
            and its options. The arguments of `fit` are compared anyway, functions by name.
        checkpoint_every: Steps between checkpoints; by default one per epoch.
        resume: Continue from the directory's checkpoint, if there is one. The result is
            bit-identical to that of an uninterrupted run. More `epochs` than before extend the run:
            from the checkpoint on, a named schedule has the learning rates of the longer run, so
            `one_cycle` rises again.
        progress: Show a progress bar; by default on a terminal only. A function, such as `print`,
            is called with a line of text instead, about every 10 seconds.

    Returns:
        The history: for each part of the loss, and for `loss`, `lr` and `seconds`, a list of one
        number per epoch. `seconds` is the wall time since the call, with all that happens between
        epochs; that of a resumed run is added to it.

    Raises:
        ValueError: Data, labels or an argument do not fit, or another process trains in the
            directory (in these cases nothing has been changed); or a score of `early_stopping` is
            not a number.
        FileExistsError: The directory holds another run, and `resume` is not set.
        CheckpointError: The checkpoint to resume was changed, or belongs to another run; the
            objective is unchanged then.
        DivergedError: The loss is not finite; the last checkpoint is kept.
        LostProcessError: Another process of the run has ended.
        LostWorkerError: A worker process that reads a memory map or a `Dataset` has ended; the last
            checkpoint is kept.

    Warns:
        DivergedWarning: The loss is finite, but orders of magnitude larger than with untrained
            weights.
        NotCompiledWarning: With `compile`, a step cannot be compiled; the warning has the reason.
    """
    started = time.perf_counter()
    settings = Settings(
        epochs=epochs,
        batch_size=batch_size,
        labeled_batch_size=labeled_batch_size,
        lr=lr,
        optimizer=named_optimizer(optimizer),
        schedule=schedule,
        warmup=warmup,
        clip_norm=clip_norm,
        ema=ema,
        precision=precision,
        transform=transform,
        seed=seed,
        compile=compile,
        identity=identity,
    )
    _check_files(directory, checkpoint_every, resume, progress)
    check_workers(workers)
    _check_callbacks(callbacks, early_stopping)
    _check_objective(objective)
    x = as_source(x)
    patience = None if early_stopping is None else early_stopping.patience
    processes = Processes.joined(device)
    run_directory = _run_directory(directory, checkpoint_every, processes)
    begin = partial(
        _begin,
        objective,
        x,
        y,
        settings,
        device=device,
        patience=patience,
        workers=workers,
        processes=processes,
    )
    with one_training(), torch.inference_mode(False), torch.enable_grad(), ExitStack() as stack:
        preemption = stack.enter_context(preempted(run_directory))
        stack.enter_context(connection_errors_explained(processes))
        with _restored_on_error(objective):
            run = begin()
            if run_directory is not None:
                _claim(run_directory, resume, stack)
            encoder = _untrained_encoder(objective)
            if encoder is not None:
                pretrain(
                    encoder,
                    _without_labels(objective, x),
                    directory=None if directory is None else Path(directory) / "features",
                    seed=seed,
                    resume=resume,
                    progress=_of_encoder(progress),
                    transform=transform,
                    workers=workers,
                    compile=compile or encoder.arguments.get("compile", False),
                )
                run = begin()  # again, with the encoder's active latents
            objective.extent = run.averaged.extent = _extent_of(objective, x)
            stack.callback(run.batches.close)
            stack.enter_context(run.batches.lost_workers_explained())
            stack.enter_context(fixed_seed(seed))
            if run_directory is not None:
                run_directory.restore(run)
        stack.enter_context(threads_for(objective, run.batches))
        bar = stack.enter_context(progress_bar(run, progress))
        if run.compiled is not None:
            run.compiled.announce = bar.describe
        # callbacks measure what the bar and the files show; the checkpoint is written last
        measuring = (InStep(), early_stopping, UserCallbacks(callbacks), bar)
        hooks = _given(*measuring, run_directory, preemption, current_watch())
        if preemption is not None:
            preemption.begin()
        stack.enter_context(_advice_on_divergence(directory))
        return train(run, hooks, started)


def _of_encoder(progress: bool | None | Callable[[str], None]) -> Any:
    """The progress of the encoder's training, whose lines say so."""
    if not callable(progress):
        return progress
    return lambda line: progress(f"encoder: {line}")


def _run_directory(
    directory: str | Path | None, checkpoint_every: int | None, processes: Processes | None
) -> RunDirectory | None:
    if directory is None:
        return None
    return RunDirectory(directory, checkpoint_every, processes)


def _claim(run_directory: RunDirectory, resume: bool, stack: ExitStack) -> None:
    """Lock the directory until the stack is closed; without `resume` it must not hold a run."""
    processes = run_directory.processes
    lock = files.locked(run_directory.directory, "fit.lock")
    from_first(processes, partial(stack.enter_context, lock))
    if not resume:
        from_first(processes, run_directory.check_is_free)


def _given(*callbacks: Callback | None) -> list[Callback]:
    """The callbacks that are not None."""
    return [callback for callback in callbacks if callback is not None]


@contextmanager
def _advice_on_divergence(directory: str | Path | None) -> Iterator[None]:
    """Add to a `DivergedError` that a run with a directory needs another one."""
    try:
        yield
    except DivergedError as error:
        if directory is None:
            raise
        raise DivergedError(
            f"{error}; use another directory for the new run: resuming in {directory} would "
            "continue the diverged one"
        ) from None


def _begin(
    objective: Objective,
    x: Any,
    y: Any,
    settings: Settings,
    *,
    processes: Processes | None,
    **arguments: Any,
) -> Run:
    """Make a new run; several processes must have the same data, settings and weights."""
    if processes is None:
        return new_run(objective, x, y, settings, **arguments)
    with processes.agreed():
        if settings.compile:
            raise ValueError(
                "compile: a step of several processes cannot be compiled; leave it out"
            )
        check_divisible(objective)
    processes.share_weights(objective)
    with processes.agreed(), _warnings_of_first(processes):
        run = new_run(objective, x, y, settings, **arguments)
        first = processes.part(run.batches(0))
        with fixed_seed(settings.seed), preserve_buffers(objective):
            objective.check(first)
    processes.check_same(run.settings_data | {"parts of the loss": list(run.part_names)})
    processes.check_close("objective: its untrained loss", run.largest_loss)
    run.processes = processes
    return run


@contextmanager
def _warnings_of_first(processes: Processes) -> Iterator[None]:
    """Warn in the first process only."""
    with warnings.catch_warnings():
        if not processes.is_first:
            warnings.simplefilter("ignore")
        yield


def _untrained_encoder(objective: Objective) -> PretrainedEncoder | None:
    """The encoder to be trained before the objective, if it has one."""
    features = objective.features
    if isinstance(features, PretrainedEncoder) and not features.trained:
        return features
    return None


def _without_labels(objective: Objective, x: Any) -> Tensor | Source:
    if isinstance(x, Source):
        return x.without_labels()
    return as_stored(objective, x)


def pretrain(features: PretrainedEncoder, x: Tensor | Source, **arguments: Any) -> None:
    """Train the objective of an encoder on all data, without labels, and find its active latents.

    Arguments:
        features: The encoder.
        x: Data `(N, *event)`.
        arguments: Arguments of `fit`; they take precedence over those given to the encoder.

    >>> from pyro_ssl import zoo
    >>> m1_m2 = zoo.build("m1_m2", 4, 2, hidden=(8,), m1_hidden=(8,))
    >>> pretrain(m1_m2.features, torch.rand(20, 4), epochs=1)
    >>> bool(m1_m2.features.trained)
    True
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
    """Shape and range of the data; the range of a source is estimated from some rows."""
    if isinstance(x, Source):
        return InputRows(x, objective).extent()
    data = as_stored(objective, x)
    extent = Extent.of(data)
    return extent.divided(255) if is_pixels(data) else extent


def _check_files(directory: Any, checkpoint_every: Any, resume: Any, progress: Any) -> None:
    if checkpoint_every is not None:
        check_positive(checkpoint_every=checkpoint_every)
    check_kind("resume", resume, bool)
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise ValueError(
            "progress should be True, False, None or a function of a line of text, "
            f"got {progress!r:.80}"
        )
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
    """Raise ValueError unless it is an objective whose weights can be trained."""
    if isinstance(objective, nn.Module):
        _check_not_parallel(objective)
    if not isinstance(objective, Objective):
        got = type(objective).__name__
        raise ValueError(f"objective should be a pyro_ssl.Objective, got {got}")
    if is_being_trained(objective):
        raise ValueError(
            "objective is already being trained by an enclosing call of fit; train a "
            "copy.deepcopy of it"
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
    """Restore the objective if the block, which changes no weights, fails."""
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

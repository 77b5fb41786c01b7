"""Make a `Run` from data, labels and settings, with all checks before the first step."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_ssl.data.missing_labels import warn_of_missing_classes
from pyro_ssl.data.sources import InputRows, Source
from pyro_ssl.infer.checks.pair import q_y_of
from pyro_ssl.objectives.batch import Batch
from pyro_ssl.objectives.objective import Objective, total
from pyro_ssl.objectives.pretrained_encoder import PretrainedEncoder
from pyro_ssl.training.batches import Batches
from pyro_ssl.training.captured_step import LossStep
from pyro_ssl.training.compiled_step import CompiledStep
from pyro_ssl.training.optimizers import new_optimizer, new_schedule, parameter_groups
from pyro_ssl.training.run import DIVERGED_FACTOR, Run, WeightAverage
from pyro_ssl.training.settings import Settings, as_device
from pyro_ssl.training.source_batches import SourceBatches, SourceLabels, workers_of
from pyro_ssl.utils.arguments import (
    as_class_indices,
    as_input,
    as_stored,
    as_values,
    one_hot,
    placed,
)
from pyro_ssl.utils.arrays import brief
from pyro_ssl.utils.context import eval_mode, exclusive, fixed_seed, preserve_buffers
from pyro_ssl.utils.files import checksum

MAX_STEPS = 10**12
"""Largest number of steps in a run; at a microsecond each, they take eleven days."""


@exclusive()
def new_run(
    objective: Objective,
    x: Any,
    y: Any,
    settings: Settings,
    *,
    device: str | torch.device | None = None,
    patience: int | None = None,
    workers: int | None = None,
) -> Run:
    """Check the data against the objective, and set up optimiser and schedule.

    Arguments:
        objective: The objective to train; it is moved to the device.
        x: Data `(N, *event)`, an array or a `Source`.
        y: Labels `(N,)`, real labels `(N, D)`, or None.
        settings: The settings of training.
        device: Device to train on; by default the device of the objective.
        patience: With early stopping, epochs without a better score before the run stops.
        workers: Number of processes that read a source; see `fit`.

    Raises:
        ValueError: Data, labels or settings do not fit the objective.

    >>> from pyro_ssl import zoo
    >>> objective = zoo.build("m2", 4, 2, hidden=(8,))
    >>> new_run(objective, torch.rand(20, 4), None, Settings(epochs=3, batch_size=10)).total
    6
    """
    if device is not None:
        device = as_device(device)
    else:
        device = next(p.device for p in objective.parameters() if p.requires_grad)
    make = _from_source if isinstance(x, Source) else _from_arrays
    make_batches, data = make(objective, x, y, settings, device, workers)
    objective.to(device)
    with fixed_seed(settings.seed), preserve_buffers(objective):
        batches = make_batches()
        objective.sizes = batches.sizes
        first = batches(0)
        objective.check(first, batches.extremes())
        joint = objective.joint_pass_for(first)
        part_names, largest_loss = _first_losses(objective, batches, joint)
    if isinstance(batches, SourceBatches):
        batches.check = partial(_check_later_batch, objective)
    steps = int(settings.epochs) * batches.steps_per_epoch
    if steps > MAX_STEPS:
        raise ValueError(
            f"epochs should be fewer, got {settings.epochs}: "
            f"that makes more than {MAX_STEPS:.0e} steps"
        )
    groups = parameter_groups(objective)
    optimizer = new_optimizer(settings.optimizer, groups, settings.lr)
    step = LossStep(
        objective,
        [group for _, group in groups],
        joint=joint,
        half=settings.precision == "bfloat16",
        clip_norm=settings.clip_norm,
    )
    return Run(
        settings=settings,
        settings_data=settings.as_data() | data,
        objective=objective,
        batches=batches,
        parameter_groups=groups,
        optimizer=optimizer,
        schedule=new_schedule(settings.schedule, optimizer, steps),
        joint=joint,
        total=steps,
        part_names=part_names,
        largest_loss=largest_loss,
        compiled=CompiledStep(step) if settings.compile else None,
        average=WeightAverage(objective, settings.ema) if settings.ema else None,
        patience=patience,
    )


Prepared = tuple[Callable[[], Batches | SourceBatches], dict[str, Any]]
"""A function that makes the batches once the objective is on its device; and `described` data."""


def described(
    shape: Sequence[int], dtype: torch.dtype, x: int, known: int, labeled: np.ndarray, y: int
) -> dict[str, Any]:
    """Plain data by which a resumed run recognises its data, and says what differs.

    Arguments:
        shape: Shape of x.
        dtype: Dtype of x.
        x: Checksum of x.
        known: Number of labeled rows.
        labeled: The labeled rows, in a form that `zlib.crc32` takes.
        y: Checksum of the labels.
    """
    return {
        "x: shape": list(shape),
        "x: dtype": str(dtype).removeprefix("torch."),
        "x": x,
        "y: labeled rows": known,
        "y: places of labeled rows": zlib.crc32(labeled.data),
        "y": y,
    }


def _from_arrays(
    objective: Objective,
    x: Any,
    y: Any,
    settings: Settings,
    device: torch.device,
    workers: int | None,
) -> Prepared:
    """Prepare batches of data that stay on the device."""
    x = as_stored(objective, x)
    labels, known = _labels(objective, x, y)
    if not objective.learns_unlabeled and known.any():
        x, labels, known = x[known], labels[known], known[known]
    rows = known.nonzero().flatten().cpu().numpy()
    of_labels = checksum(labels.where(known[:, None], -1))
    data = described(x.shape, x.dtype, checksum(x), len(rows), rows, of_labels)
    return partial(_batches, objective, x, labels, known, settings, device), data


def _from_source(
    objective: Objective,
    source: Source,
    y: Any,
    settings: Settings,
    device: torch.device,
    workers: int | None,
) -> Prepared:
    """Prepare batches of data that are read on demand."""
    workers = workers_of(workers)
    rows = InputRows(source, objective)
    if y is None:
        y = source.labels(workers)
        if y is not None:
            y = _item_labels(objective, rows, y)
    labels = _source_labels(objective, rows, y)
    batches = SourceBatches(
        rows,
        labels,
        batch_size=int(settings.batch_size),
        labeled_batch_size=int(settings.labeled_batch_size),
        seed=settings.seed,
        transform=settings.transform,
        device=device,
        workers=workers,
    )
    values = np.ascontiguousarray(labels.values.numpy())
    label_checksum = zlib.crc32(values.data, zlib.crc32(labels.rows.data))
    data = described(
        source.shape,
        source.dtype,
        source.fingerprint,
        len(labels.rows),
        labels.rows,
        label_checksum,
    )
    return lambda: batches, data


def _labels(objective: Objective, x: Tensor, y: Any) -> tuple[Tensor, Tensor]:
    """Return labels with the shape of q(y|x), `(N, K)`, and a mask of the labeled rows, `(N,)`.

    Labels are one-hot or real.
    """
    like = next(objective.parameters())
    if y is None:
        return torch.zeros(len(x), 1, dtype=like.dtype), torch.zeros(len(x), dtype=torch.bool)
    size, is_class = _kind_of_label(objective, as_input(objective, x[:2]))
    if not is_class:
        return as_values(y, len(x), size, like.dtype)
    classes = _classes(y, len(x), size)
    return one_hot(classes.clamp_min(0), size, like.dtype), classes >= 0


def _source_labels(objective: Objective, rows: InputRows, y: Any) -> SourceLabels:
    """Return the labels of a source; only labeled rows are kept."""
    n = len(rows)
    if y is None:
        return SourceLabels(n, np.empty(0, np.int64), torch.empty(0, dtype=torch.int64), 1)
    size, is_class = _kind_of_label(objective, rows[:2])
    if is_class:
        values = _classes(y, n, size)
        known = values >= 0
    else:
        values, known = as_values(y, n, size, rows.dtype)
    labeled = known.nonzero().flatten()
    only_labeled = not objective.learns_unlabeled and len(labeled) > 0
    classes = size if is_class else None
    return SourceLabels(n, labeled.numpy(), values[labeled], classes, only_labeled)


def _item_labels(objective: Objective, rows: InputRows, labels: Sequence[Any]) -> list[Any]:
    """The labels of a Dataset's items, with -1 or NaN in place of None.

    Raises:
        ValueError: A label does not fit; the message names the first such item.
    """
    size, is_class = _kind_of_label(objective, rows[:2])
    missing: Any = -1
    if not is_class:
        missing = np.nan if size == 1 else [np.nan] * size
    labels = [missing if label is None else label for label in labels]
    for i, label in enumerate(labels):
        fits = _is_class(label, size) if is_class else np.size(label) == size
        if not fits:
            wanted = f"real label of {size} numbers, or NaN"
            if is_class:
                wanted = f"class index, 0 .. {size - 1}, or -1 or None"
            raise ValueError(
                f"{rows.source.name}: item {i} has the label {brief(label)}; it should be a "
                f"{wanted} where there is none"
            )
    return labels


def _is_class(label: Any, size: int) -> bool:
    return isinstance(label, int) and -1 <= label < size


def _kind_of_label(objective: Objective, first: Tensor) -> tuple[int, bool]:
    """Return the size of y, and True if y is a class; both follow from q(y|x) of the first rows."""
    like = next(objective.parameters())
    with eval_mode(objective), fixed_seed(0):
        q = q_y_of(objective.guide, objective.encode(placed(first, like)))
    return int(q.event_shape[-1]), bool(q.has_enumerate_support)


def _classes(y: Any, n: int, size: int) -> Tensor:
    """Return class indices `(n,)`, -1 for unlabeled rows, below the number of classes."""
    classes = as_class_indices(y, n).cpu()
    largest = int(classes.max())
    if largest >= size:
        raise ValueError(f"y: got label {largest}, but q(y|x) has {size} classes, 0 .. {size - 1}")
    warn_of_missing_classes(classes, range(size))
    return classes


def _batches(
    objective: Objective,
    x: Tensor,
    labels: Tensor,
    known: Tensor,
    settings: Settings,
    device: torch.device,
) -> Batches:
    """Make batches; without a transform, a trained encoder encodes all data once."""
    transform = settings.transform
    features = objective.features
    encoded = False
    if isinstance(features, PretrainedEncoder) and features.trained and transform is None:
        x = features.moments(as_input(objective, x))
        transform = features.sample
        encoded = True
    return Batches(
        x.to(device),
        labels,
        known,
        batch_size=int(settings.batch_size),
        labeled_batch_size=int(settings.labeled_batch_size),
        seed=settings.seed,
        transform=transform,
        encoded=encoded,
    )


def _check_later_batch(objective: Objective, batch: Batch, extremes: Batch) -> None:
    """Check a batch during training like the first one; see `Objective.check`."""
    with fixed_seed(0), preserve_buffers(objective):
        objective.check(batch, extremes)


@torch.no_grad()
def _first_losses(
    objective: Objective, batches: Batches | SourceBatches, joint: bool
) -> tuple[list[str], float]:
    """Return the names of the loss's parts, and the limit above which a mean loss has diverged.

    The limit is a multiple of the loss with untrained weights (the larger of those on the first
    batch and on the most extreme data) plus a nat per column.
    """
    parts = objective.parts(batches(0), joint=joint)
    extreme = objective.parts(batches.extremes(), joint=joint)
    largest = max(abs(total(parts).item()), abs(total(extreme).item()))
    return list(parts), DIVERGED_FACTOR * (largest + batches.columns + 1)

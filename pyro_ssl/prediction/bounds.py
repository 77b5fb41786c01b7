"""Bounds and evidence of a data set, in nats per datum."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_ssl.data.sources import InputRows
from pyro_ssl.distributions.row_noise import RowNoise
from pyro_ssl.infer.checks.pair import check_pair, check_support
from pyro_ssl.infer.elbo import TraceTopKEnum_ELBO
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.prediction.chunks import chunked, input_rows, known_rows, label_of, rows_at_once
from pyro_ssl.types import RandomWeightsGuide
from pyro_ssl.utils.arguments import as_tensor, as_values, check_positive, placed
from pyro_ssl.utils.arrays import extreme_rows
from pyro_ssl.utils.context import eval_mode, fixed_seed

ROWS_CHECKED = 100
"""Number of rows on which a pair is checked."""


def bounds(
    objective: Objective,
    x: Any,
    y: Any = None,
    *,
    num_particles: int = 1,
    importance_weighted: bool = False,
    chunk: int | None = None,
    seed: int = 0,
) -> Tensor:
    """Lower bound per datum, `(N,)` nats on the CPU: L(x, y), or U(x) if y is not given.

    With random weights these are bounds given one draw of W for all data; KL(W) belongs to the data
    set as a whole, see `weight_kl`. With a pretrained encoder (M1+M2) they bound the density of the
    mean code, not of x.

    Arguments:
        objective: The method.
        x: Data `(N, *event)`; a memory map or a torch Dataset is read chunk by chunk.
        y: One-hot labels `(N, K)`.
        num_particles: Samples of z per class.
        importance_weighted: Use the tighter, importance-weighted bound over these samples in place
            of their mean; see `TraceTopKEnum_ELBO`.
        chunk: Rows at once; by default as many as fit into about 1 GB.
        seed: Seed of the samples.

    Raises:
        ValueError: y does not have one one-hot row per datum; the method has no model; x is
            outside the model's support.

    >>> from pyro_ssl import zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> bounds(m2, torch.zeros(5, 4)).shape
    torch.Size([5])
    """
    return bounds_in_any_units(
        objective,
        known_rows(objective, x),
        y,
        num_particles,
        importance_weighted=importance_weighted,
        chunk=chunk,
        seed=seed,
    )


def bounds_in_any_units(
    objective: Objective,
    x: Any,
    y: Any = None,
    num_particles: int = 1,
    *,
    importance_weighted: bool = False,
    chunk: int | None = None,
    seed: int = 0,
) -> Tensor:
    """Compute `bounds` without checking the units of x, for out-of-distribution data.

    >>> from pyro_ssl import zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> bounds_in_any_units(m2, torch.zeros(5, 4)).shape
    torch.Size([5])
    """
    elbo = TraceTopKEnum_ELBO(
        None, num_particles=num_particles, importance_weighted=importance_weighted
    )

    def bound(*batch: Tensor) -> Tensor:
        return elbo.bound(objective.model, objective.guide, *batch).value

    return _checked_in_chunks(objective, bound, x, y, num_particles, chunk, seed)


def class_bounds(
    objective: Objective,
    x: Any,
    *,
    only: Collection[str] | None = None,
    num_particles: int = 1,
    importance_weighted: bool = False,
    chunk: int | None = None,
    seed: int = 0,
) -> Tensor:
    """L(x, y) of every class, `(N, K)` nats on the CPU.

    Their softmax is the model's own p(y|x), up to the bound's gap.

    Arguments:
        objective: A method whose guide enumerates y.
        x: Data `(N, *event)`.
        only: Names of the model's sites to sum; `("x",)` gives log p(x|y,z), whose argmax
            classifies by reconstruction.
        num_particles: See `bounds`.
        importance_weighted: See `bounds`.
        chunk: See `bounds`.
        seed: Seed of the samples, whose noise is the same for all classes.

    Raises:
        ValueError: The guide enumerates nothing; `only` is not a tuple of the model's sites, or the
            bound is importance-weighted; the method has no model.

    >>> from pyro_ssl import zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> class_bounds(m2, torch.zeros(5, 4)).shape
    torch.Size([5, 3])
    """
    x = known_rows(objective, x)
    elbo = TraceTopKEnum_ELBO(
        None,
        common_random_numbers=True,
        num_particles=num_particles,
        importance_weighted=importance_weighted,
    )

    def bound(batch: Tensor) -> Tensor:
        return elbo.class_bounds(objective.model, objective.guide, batch, only=only)

    return _checked_in_chunks(objective, bound, x, None, num_particles, chunk, seed)


def log_evidence(
    objective: Objective,
    x: Any,
    y: Any = None,
    *,
    num_particles: int = 100,
    chunk: int | None = None,
    seed: int = 0,
) -> Tensor:
    """Estimate log p(x), or log p(x, y) with y, by importance sampling: `(N,)` nats on the CPU.

    The estimate is the logarithm of the mean of `num_particles` weights p(x, y, z) / q(z|x, y),
    summed over all classes where y is not given; its expectation is a lower bound. With random
    weights it is not such a bound: each block of samples has its own draw of W, and the estimate
    averages over them. Memory does not grow with `num_particles`.

    Arguments:
        objective: The method.
        x: Data `(N, *event)`.
        y: One-hot labels `(N, K)`.
        num_particles: Samples of z per class.
        chunk: Rows at once; by default as many as fit into about 1 GB.
        seed: Seed of the samples.

    Raises:
        ValueError: See `bounds`; num_particles is not above 0.

    References:
        Burda et al. 2016.

    >>> from pyro_ssl import zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> log_evidence(m2, torch.zeros(5, 4), num_particles=10).shape
    torch.Size([5])
    """
    check_positive(num_particles=num_particles)
    x = known_rows(objective, x)
    block = min(num_particles, rows_at_once(x, _num_values_of_label(objective, x, y)))
    blocks, rest = divmod(num_particles, block)
    elbos = [TraceTopKEnum_ELBO(None, num_particles=block)] * blocks
    if rest:
        elbos.append(TraceTopKEnum_ELBO(None, num_particles=rest))

    def evidence(*batch: Tensor) -> Tensor:
        logs = []
        for elbo in elbos:
            log_mean = elbo.log_evidence(objective.model, objective.guide, *batch)
            logs.append(log_mean + math.log(elbo.num_particles))
        return torch.stack(logs).logsumexp(0) - math.log(num_particles)

    return _checked_in_chunks(objective, evidence, x, y, block, chunk, seed)


def weight_kl(objective: Objective) -> float:
    """KL(q(W) || p(W)) of random weights, in nats for all data together; 0 if there are none.

    `bounds` leaves it out.

    >>> from pyro_ssl import zoo
    >>> weight_kl(zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2))
    0.0
    """
    guide = objective.guide
    if not isinstance(guide, RandomWeightsGuide):
        return 0.0
    with torch.no_grad():
        return float(kl_divergence(guide.q_w(), objective.model.p_w()))


def _checked_in_chunks(
    objective: Objective,
    function: Callable[..., Tensor],
    x: Any,
    y: Any,
    samples: int,
    chunk: int | None,
    seed: int,
) -> Tensor:
    """Check the data against the model, and apply a function to them, chunk by chunk."""
    check_positive(num_particles=samples, chunk=1 if chunk is None else chunk)
    x = input_rows(objective, x)
    num_values = _num_values_of_label(objective, x, y)
    labels = [] if y is None else [_as_labels(objective, x, y)]
    _check_data(objective, x, labels)
    is_read_in_chunks = isinstance(x, InputRows)

    def of_encoded(x: Tensor, *labels: Tensor) -> Tensor:
        if is_read_in_chunks:
            _check_chunk(objective, x, labels)
        return function(objective.encode(x), *labels)

    if chunk is None:
        chunk = rows_at_once(x, num_values * samples)
    return chunked(objective, of_encoded, chunk, seed, x, *labels)


def _check_data(objective: Objective, x: Tensor | InputRows, labels: list[Tensor]) -> None:
    """Check the pair on the first rows, and the support of p(x|.) on the most extreme rows.

    The support of data that are read in chunks is checked chunk by chunk.
    """
    like = next(objective.parameters())

    def check(rows: Any, check_rows: Callable[..., None]) -> None:
        encoded = objective.encode(placed(x[rows], like))
        y = labels[0][rows].to(like) if labels else None
        check_rows(objective.model, objective.guide, encoded, y)

    with eval_mode(objective):
        check(slice(ROWS_CHECKED), check_pair)
        if isinstance(x, Tensor):
            check(extreme_rows(x).cpu(), check_support)


def _check_chunk(objective: Objective, x: Tensor, labels: Sequence[Tensor]) -> None:
    """Check the support of the most extreme rows of a chunk, whose noise stays as it is."""
    rows = extreme_rows(x)
    extreme = x[rows]
    y = labels[0][rows] if labels else None
    with fixed_seed(0), RowNoise(extreme, 0):
        check_support(objective.model, objective.guide, objective.encode(extreme), y)


def _num_values_of_label(objective: Objective, x: Any, y: Any) -> int:
    """Number of values of the label for which the model is evaluated."""
    if objective.model is None:
        raise ValueError("objective: a method without a model has no bound and no evidence")
    if y is not None:
        return 1
    q = label_of(objective, x)
    return int(q.event_shape[-1]) if q.has_enumerate_support else 1


def _as_labels(objective: Objective, x: Any, y: Any) -> Tensor:
    """Labels as a tensor `(N, K)`, one-hot or real as q(y|x) is."""
    q = label_of(objective, x)
    shape = (len(x), int(q.event_shape[-1]))
    labels = as_tensor(y, "y")
    if not q.has_enumerate_support:
        return as_values(y, *shape, dtype=next(objective.parameters()).dtype)[0]
    if labels.shape != shape or not is_one_hot(labels):
        raise ValueError(
            f"y should be one-hot with shape {shape}, got {tuple(labels.shape)}; "
            "see pyro_ssl.one_hot"
        )
    return labels


def is_one_hot(y: Tensor) -> bool:
    """Return True if each row of y is 1 in one place and 0 in all others.

    >>> is_one_hot(torch.tensor([[0, 1], [1, 0]])), is_one_hot(torch.tensor([[1, 1]]))
    (True, False)
    """
    return bool(((y == 0) | (y == 1)).all()) and bool((y.sum(-1) == 1).all())

"""Prediction and evaluation, in chunks of bounded memory; nothing is trained and no random state moves."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_ssl.distributions.row_noise import RowNoise
from pyro_ssl.infer.elbo import TraceTopKEnum_ELBO
from pyro_ssl.infer.gibbs import Gibbs
from pyro_ssl.infer.gibbs import gibbs as sample
from pyro_ssl.infer.validation import check_pair, check_support, classified
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.utils.arguments import as_input, as_tensor, as_values, check_positive, placed
from pyro_ssl.utils.arrays import extreme_rows
from pyro_ssl.utils.context import eval_mode, fixed_seed, validation_disabled

AT_ONCE = 2**15
"""Evaluations of p(x|.) at once, data times classes times samples: what bounds the memory, with 784 pixels to 1 GB."""


def predict_proba(objective: Objective, x: Any, *, chunk: int | None = None, seed: int = 0) -> Tensor:
    """p(y|x) of each datum, `(N, K)` on the CPU, by what the method predicts with.

    Arguments:
        objective: The method.
        x: Data `(N, *event)`.
        chunk: Data at once; by default 4096, or fewer where each is large or has several Gibbs chains.
        seed: Of what is drawn.

    Raises:
        ValueError: chunk is not above 0; y is real; x has not the shape or the units of the training data.
    """
    return _probs(objective, as_known(objective, x), chunk, seed)


def probs_of_any(objective: Objective, x: Any, *, chunk: int | None = None, seed: int = 0) -> Tensor:
    """`predict_proba` of data that need not be in the units of training, such as attacked ones."""
    return _probs(objective, as_input(objective, x), chunk, seed)


def _probs(objective: Objective, x: Tensor, chunk: int | None, seed: int) -> Tensor:
    check_positive(chunk=1 if chunk is None else chunk)

    def function(x: Tensor) -> Tensor:
        p = objective.classify(x)
        if not p.has_enumerate_support:
            raise ValueError(
                "objective: its y is real and has no class probabilities; pyro_ssl.gibbs gives mean and variance"
            )
        return p.mean

    return chunked(objective, function, chunk or classified_at_once(objective, x), seed, x)


def as_known(objective: Objective, x: Any, name: str = "x") -> Tensor:
    """Data `(N, *event)` as `as_input` takes them, of the shape and in the units of what the method was trained on.

    Raises:
        ValueError: They have another shape, or are in other units; see `Extent`.
    """
    x = as_input(objective, x, name)
    if objective.extent is not None:
        objective.extent.check(x, name)
    return x


def classified_at_once(objective: Objective, x: Tensor) -> int:
    """How many data are classified at once: a classifier may widen each number by hundreds."""
    return max(1, min(4096, AT_ONCE // objective.predictor.chains, 2**19 // x[0].numel()))


def weight_kl(objective: Objective) -> float:
    """KL(q(W) || p(W)) of random weights: nats of all data together, which `bounds` leaves out; 0 where there are none."""
    model, guide = objective.model, objective.guide
    if not hasattr(guide, "q_w"):
        return 0.0
    with torch.no_grad():
        return float(kl_divergence(guide.q_w(), model.p_w()))


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
    """L(x, y), or U(x) without y and summed over all classes, per datum: `(N,)` nats on the CPU.

    With random weights they are bounds given W, one draw of it for all data, without KL(W), which belongs to no datum. With
    features (M1+M2) they are of the features' mean, not of x. `weight_kl` has KL(W).

    Arguments:
        objective: The method.
        x: Data `(N, *event)`.
        y: One-hot labels `(N, K)`.
        num_particles: Samples of z per class.
        importance_weighted: The tighter bound over these samples, in place of their mean; see `TraceTopKEnum_ELBO`.
        chunk: Data at once; by default what bounds the memory.
        seed: Of the samples.

    Raises:
        ValueError: There is not one one-hot row of y per datum; the method has no model; x is not of the model's support.
    """
    x = as_known(objective, x)
    return bounds_of_any(
        objective, x, y, num_particles, importance_weighted=importance_weighted, chunk=chunk, seed=seed
    )


def bounds_of_any(
    objective: Objective,
    x: Any,
    y: Any = None,
    num_particles: int = 1,
    *,
    importance_weighted: bool = False,
    chunk: int | None = None,
    seed: int = 0,
) -> Tensor:
    """`bounds` of data that need not be in the units of training, such as foreign ones."""
    elbo = TraceTopKEnum_ELBO(None, num_particles=num_particles, importance_weighted=importance_weighted)
    function = lambda *seen: elbo.bound(objective.model, objective.guide, *seen).value  # noqa: E731
    return _by_model(objective, function, x, y, num_particles, chunk, seed)


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
    """L(x, y) of every class, `(N, K)` nats on the CPU: its softmax is the model's own p(y|x), up to the bound's gap.

    Arguments:
        objective: A method whose guide enumerates y.
        x: Data `(N, *event)`.
        only: Names of the model's sites to sum: with ("x",), log p(x|y,z), the argmax classifies by reconstruction.
        num_particles: As of `bounds`.
        importance_weighted: As of `bounds`.
        chunk: As of `bounds`.
        seed: Of the samples, whose noise is the same for all classes.

    Raises:
        ValueError: The guide enumerates nothing; `only` is not a tuple of the model's sites, or is importance-weighted; the
            method has no model.
    """
    x = as_known(objective, x)
    elbo = TraceTopKEnum_ELBO(
        None, common_random_numbers=True, num_particles=num_particles, importance_weighted=importance_weighted
    )
    function = lambda batch: elbo.class_bounds(objective.model, objective.guide, batch, only=only)  # noqa: E731
    return _by_model(objective, function, x, None, num_particles, chunk, seed)


def log_evidence(
    objective: Objective,
    x: Any,
    y: Any = None,
    *,
    num_particles: int = 100,
    chunk: int | None = None,
    seed: int = 0,
) -> Tensor:
    """Importance-sampling estimate of log p(x), or of log p(x, y) with y: `(N,)` nats on the CPU.

    With random weights it is neither, but a mean over as many draws of W as there are blocks of samples. The mean of
    `num_particles` weights p(x, y, z) / q(z|x, y), summed over all classes where y is not given; a lower bound in the mean.
    Memory does not grow with `num_particles`.

    Arguments:
        objective: The method.
        x: Data `(N, *event)`.
        y: One-hot labels `(N, K)`.
        num_particles: Number of samples of z per class.
        chunk: Data at once; by default what bounds the memory.
        seed: Of the samples.

    Raises:
        ValueError: As of `bounds`; num_particles is not above 0.

    References:
        Burda et al. 2016.
    """
    check_positive(num_particles=num_particles)
    x = as_known(objective, x)
    block = min(num_particles, rows_at_once(x, _classes(objective, x, y)))
    blocks, rest = divmod(num_particles, block)
    elbos = [TraceTopKEnum_ELBO(None, num_particles=block)] * blocks
    elbos += [TraceTopKEnum_ELBO(None, num_particles=rest)] if rest else []

    def function(*batch: Tensor) -> Tensor:
        logs = [e.log_evidence(objective.model, objective.guide, *batch) + math.log(e.num_particles) for e in elbos]
        return torch.stack(logs).logsumexp(0) - math.log(num_particles)

    return _by_model(objective, function, x, y, block, chunk, seed)


def gibbs(
    objective: Objective,
    x: Any,
    *,
    steps: int = 10,
    chains: int = 1,
    hard: bool = False,
    chunk: int | None = None,
    seed: int = 0,
) -> Gibbs:
    """p(y|x) and the code, by Gibbs sampling in the method's own model; see `sampling.gibbs` for the formulas.

    Arguments:
        objective: A method whose model predicts, such as `sslpe`.
        x: Data `(N, *event)`.
        steps: T of each chain.
        chains: Independent chains for each datum, averaged; with random weights each step of each has its own draw of them.
        hard: Average the labels drawn, and not their probabilities.
        chunk: Data at once; by default what bounds the memory.
        seed: Of the chains.

    Returns:
        `Gibbs(mean, variance, z)`, of y and of the code, `(N, K)` and `(N, Z)`, on the CPU.

    Raises:
        ValueError: The method's model does not predict; steps, chains or chunk is not above 0.
    """
    check_positive(steps=steps, chains=chains, chunk=1 if chunk is None else chunk)

    def function(batch: Tensor) -> Tensor:
        found = sample(objective.model, objective.guide, objective.encode(batch), steps=steps, chains=chains, hard=hard)
        sizes[:] = [part.shape[-1] for part in found]
        return torch.cat(found, -1)

    sizes: list[int] = []
    x = as_known(objective, x)
    return Gibbs(*chunked(objective, function, chunk or rows_at_once(x, chains), seed, x).split(sizes, -1))


def rows_at_once(x: Tensor, times: int) -> int:
    """How many data are evaluated at once, each so many times: fewer, where they are larger than the images of `AT_ONCE`."""
    return max(1, min(AT_ONCE, AT_ONCE * 784 // x[0].numel()) // times)


def _by_model(
    objective: Objective, function: Callable[..., Tensor], x: Any, y: Any, samples: int, chunk: int | None, seed: int
) -> Tensor:
    """The function of all data, in chunks; the first data, and those furthest out, are checked against the model."""
    check_positive(num_particles=samples, chunk=1 if chunk is None else chunk)
    like = next(objective.parameters())
    x = as_input(objective, x)
    classes = _classes(objective, x, y)
    others = [] if y is None else [_one_hot_rows(objective, x, y)]
    for rows, checked in ((slice(100), check_pair), (extreme_rows(x).cpu(), check_support)):
        first = [placed(x[rows], like), *(d[rows].to(like) for d in others)]
        with eval_mode(objective):
            checked(objective.model, objective.guide, objective.encode(first[0]), first[1] if others else None)
    of_seen = lambda x, *others: function(objective.encode(x), *others)  # noqa: E731
    return chunked(objective, of_seen, chunk or rows_at_once(x, classes * samples), seed, x, *others)


def _one_hot_rows(objective: Objective, x: Any, y: Any) -> Tensor:
    q = label_of(objective, x)
    wanted = (len(x), int(q.event_shape[-1]))
    y = as_tensor(y, "y")
    if not q.has_enumerate_support:
        return as_values(y, *wanted, dtype=next(objective.parameters()).dtype)[0]
    if y.shape != wanted or not ((y == 0) | (y == 1)).all() or not (y.sum(-1) == 1).all():
        raise ValueError(f"y should be one-hot with shape {wanted}, got {tuple(y.shape)}; see pyro_ssl.one_hot")
    return y


def _classes(objective: Objective, x: Any, y: Any) -> int:
    """For how many values of the label the model is evaluated."""
    if objective.model is None:
        raise ValueError("objective: a method without a model has no bound and no evidence")
    if y is not None:
        return 1
    q = label_of(objective, x)
    return int(q.event_shape[-1]) if q.has_enumerate_support else 1


def label_of(objective: Objective, x: Any) -> Any:
    """q(y|x) of the first datum: what kind of y it is."""
    like = next(objective.parameters())
    with eval_mode(objective), fixed_seed(0):
        return classified(objective.guide, objective.encode(placed(as_input(objective, x[:1]), like)))


def chunked(
    objective: Objective, function: Callable[..., Tensor], chunk: int, seed: int, x: Any, *others: Tensor
) -> Tensor:
    """A function of the rows of x and others, chunk by chunk, in evaluation and without gradient: `(N, *)` on the CPU.

    What is drawn for a row goes by its values, see `RowNoise`; what all rows share is drawn alike in each chunk.
    A tensor x is taken as it is: `as_input` has checked it.
    """
    like = next(objective.parameters())
    data = [x if isinstance(x, Tensor) else as_input(objective, x), *others]
    with eval_mode(objective), validation_disabled():
        found: list[Tensor] = []
        for x, *rest in zip(*(d.split(chunk) for d in data), strict=True):
            with fixed_seed(seed), RowNoise(x, seed):
                found.append(function(placed(x, like), *(d.to(like) for d in rest)).cpu())
        return torch.cat(found)

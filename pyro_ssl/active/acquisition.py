"""Acquisition functions: scores of how much the label of each datum is worth.

To add one, write a function and give it a row in `ACQUISITIONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.special import entr

from pyro_ssl.active.bald import bald, batch_bald
from pyro_ssl.active.pool import check_count, in_order, order_by_value
from pyro_ssl.active.prediction_draws import (
    Members,
    as_members,
    check_draws,
    draws_differ,
    draws_in_order,
    moments,
    predictions,
    predicts_classes,
)
from pyro_ssl.active.top_n import check_power, power_scores, top_n
from pyro_ssl.data.sources import InputRows
from pyro_ssl.evaluation.metrics import as_probabilities
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.prediction.chunks import known_rows, label_of
from pyro_ssl.utils.arguments import check_positive

Score = Callable[[Tensor], Tensor]
"""A function of draws of p(y|x), `(S, N, K)`, that gives one score per datum, `(N,)`."""
MAX_DRAWN_VALUES = 2**24
"""Probabilities held at once, rows times draws times classes: 130 MB in double precision."""


# --- functions ------------------------------------------------------------------------------------


def entropy(p: Any) -> Tensor:
    r"""Entropy of the mean prediction, `(N,)` nats.

    .. math:: \mathcal H[\bar p], \qquad \bar p = \frac1S \sum_s p_s

    >>> p = torch.tensor([[[0.5, 0.5], [1.0, 0.0]]])
    >>> [round(score, 3) for score in entropy(p).tolist()]
    [0.693, 0.0]

    Arguments:
        p: Draws of p(y|x), `(S, N, K)`, a tensor or an array.

    Raises:
        ValueError: p does not hold probabilities of two or more classes; see
            `metrics.as_probabilities`. The same holds for the functions below.

    References:
        Paper 002, eq. 2.3 and 3.11.
    """
    nats: Tensor = entr(_mean(p)).sum(-1)
    return nats


def variation_ratios(p: Any) -> Tensor:
    r"""Probability that the likeliest class is wrong, :math:`1 - \max_y \bar p(y)`, `(N,)`.

    >>> variation_ratios(torch.tensor([[[0.5, 0.5], [1.0, 0.0]]])).tolist()
    [0.5, 0.0]

    References:
        Paper 002, eq. 2.2 and 3.10.
    """
    return 1 - _mean(p).amax(-1)


def margin(p: Any) -> Tensor:
    r"""One minus the difference of the two largest probabilities in :math:`\bar p`, `(N,)`.

    >>> margin(torch.tensor([[[0.5, 0.5], [1.0, 0.0]]])).tolist()
    [1.0, 0.0]
    """
    largest = _mean(p).topk(2, -1).values
    return 1 - largest[..., 0] + largest[..., 1]


def variance(means: Tensor, variances: Tensor) -> Tensor:
    """Variance of a real label, summed over its dimensions, `(N,)`; the members are a mixture.

    >>> variance(torch.tensor([[[0.0]], [[2.0]]]), torch.ones(2, 1, 1)).tolist()
    [2.0]

    Arguments:
        means: Each member's E[y|x], `(M, N, D)`.
        variances: Each member's Var[y|x], `(M, N, D)`.
    """
    return (variances.mean(0) + means.var(0, correction=0)).sum(-1)


def uniform(size: int, seed: int) -> Tensor:
    """Random scores, `(N,)`: the baseline that ignores the method.

    >>> uniform(3, seed=0).shape
    torch.Size([3])
    """
    return torch.rand(size, generator=torch.Generator().manual_seed(seed))


def _mean(p: Any) -> Tensor:
    return as_probabilities(p, "p", "(S, N, K)").mean(0)


# --- the table ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Acquisition:
    """A row of the table of acquisition functions.

    Arguments:
        score: The function.
        needs: Input of the function: `predictions` `(M, N, K)` of the members; `draws` `(S, N, K)`
            that differ; `shared draws`, each of which applies to all data; `moments`, mean and
            variance of a real label; `nothing` but the size of the pool and a seed.
        batch: Function that chooses n data by all their draws together; None takes the n highest
            scores.

    >>> ACQUISITIONS["margin"].needs
    'predictions'
    """

    score: Callable[..., Tensor]
    needs: Literal["predictions", "draws", "shared draws", "moments", "nothing"]
    batch: Callable[..., tuple[Tensor, Tensor]] | None = None


ACQUISITIONS = {
    "entropy": Acquisition(entropy, "predictions"),
    "variation_ratios": Acquisition(variation_ratios, "predictions"),
    "margin": Acquisition(margin, "predictions"),
    "bald": Acquisition(bald, "draws"),
    "batch_bald": Acquisition(bald, "shared draws", batch_bald),
    "variance": Acquisition(variance, "moments"),
    "random": Acquisition(uniform, "nothing"),
}
"""Acquisition functions by name."""


# --- scores and choices ---------------------------------------------------------------------------


def scores(
    members: Members,
    x: Any,
    acquisition: str | Score = "entropy",
    *,
    draws: int = 20,
    seed: int = 0,
) -> Tensor:
    """Score the data of a pool, `(N,)` on the CPU.

    The memory it uses is a copy of the pool and its p(y|x). A memory map or a torch Dataset is read
    chunk by chunk, several times, in the order of `pool.order_by_value`.

    >>> from pyro_ssl import zoo
    >>> objective = zoo.build("m2", (3,), 2, hidden=(4,))
    >>> scores(objective, torch.zeros(5, 3), "margin").shape
    torch.Size([5])

    Arguments:
        members: A trained objective, or an ensemble of several whose mean predicts.
        x: The pool, `(N, *event)`.
        acquisition: A name in `ACQUISITIONS`, or a function of draws of p(y|x), `(S, N, K)`, like
            `bald`; a deterministic method has one draw, its prediction. `bald` and `batch_bald`
            need draws that differ, see `label_draws`; `variance` is for a real y.
        draws: S, used by BALD and by a custom function.
        seed: Seed of the draws.

    Raises:
        ValueError: The method does not offer what the acquisition function needs.
    """
    members = as_members(members)
    x = known_rows(members[0], x)
    check_acquisition(acquisition, members, x, draws)
    order = order_by_value(x)
    in_its_order = in_order(x, order, members[0])
    return _scores(members, in_its_order, acquisition, draws, seed)[order.argsort()]


def acquire(
    members: Members,
    x: Any,
    n: int,
    acquisition: str | Score = "entropy",
    *,
    power: float | None = None,
    draws: int = 20,
    candidates: int = 1000,
    seed: int = 0,
) -> Tensor:
    """Choose the n data of a pool whose labels are worth most: indices `(n,)`, best first.

    The order of the pool does not matter: draws and ties depend on the values of a datum.

    >>> from pyro_ssl import zoo
    >>> objective = zoo.build("m2", (3,), 2, hidden=(4,))
    >>> acquire(objective, torch.randn(5, 3), n=2).shape
    torch.Size([2])

    Arguments:
        members: See `scores`.
        x: The pool, `(N, *event)`.
        n: Number of data.
        acquisition: See `scores`. `batch_bald` measures the joint information of the labels; the
            others score each datum alone.
        power: Draw data in proportion to this power of the scores, see `power_scores`; None takes
            the highest scores.
        draws: S, for BALD; all labels together have at most log S nats of information.
        candidates: `batch_bald` chooses among this many data with the highest BALD.
        seed: Seed of the draws, and of the order among ties.

    Raises:
        ValueError: See `scores` and `power_scores`; n is not in 1 .. N; `batch_bald` has a power.
    """
    members = as_members(members)
    x = known_rows(members[0], x)
    check_positive(n=n, candidates=candidates)
    check_choice(acquisition, power)
    check_count(n, len(x))
    check_acquisition(acquisition, members, x, draws)
    order = order_by_value(x)
    x = in_order(x, order, members[0])
    values = _scores(members, x, acquisition, draws, seed)
    batch = _row(acquisition, members, x).batch
    if batch is not None:
        best = top_n(values, min(max(n, candidates), len(x)), seed)
        p = draws_in_order(members, x[best], draws, seed)
        indices, _ = batch(p, n, seed=seed)
        return order[best[indices]]
    if power is not None:
        values = power_scores(values, power, seed)
    return order[top_n(values, n, seed)]


def _scores(
    members: list[Objective],
    x: Tensor | InputRows,
    acquisition: str | Score,
    draws: int,
    seed: int,
) -> Tensor:
    """Scores of sorted data, checked for their shape."""
    row = _row(acquisition, members, x)
    values = _score_all(row, members, x, draws, seed)
    if values.shape != (len(x),):
        shape = tuple(values.shape)
        raise ValueError(
            f"acquisition: the function should give ({len(x)},), one score per datum; got {shape}"
        )
    return values


def _score_all(
    row: Acquisition, members: list[Objective], x: Tensor | InputRows, draws: int, seed: int
) -> Tensor:
    if row.needs == "nothing":
        return row.score(len(x), seed)
    if row.needs == "moments":
        return row.score(*moments(members, x, seed))
    if row.needs == "predictions":
        return row.score(predictions(members, x, seed))
    classes = int(label_of(members[0], x).event_shape[-1])
    rows = max(1, MAX_DRAWN_VALUES // (draws * len(members) * classes))
    parts = [draws_in_order(members, part, draws, seed).double() for part in x.split(rows)]
    return torch.cat([row.score(part) for part in parts])


def _row(acquisition: str | Score, members: list[Objective], x: Tensor | InputRows) -> Acquisition:
    """The row of a name, or one for a function of the user's."""
    if isinstance(acquisition, str):
        return ACQUISITIONS[acquisition]
    return Acquisition(acquisition, "draws" if draws_differ(members, x) else "predictions")


# --- checks ---------------------------------------------------------------------------------------


def check_choice(acquisition: str | Score, power: float | None) -> None:
    """Raise ValueError unless the power is valid and the acquisition function can use it.

    >>> check_choice("entropy", 1.0)
    """
    check_power(power)
    row = ACQUISITIONS.get(acquisition) if isinstance(acquisition, str) else None
    if power is not None and row is not None and row.batch is not None:
        raise ValueError(
            f"power: {acquisition} cannot use it, since it scores data together; use bald"
        )


def check_acquisition(acquisition: str | Score, members: Members, x: Any, draws: int = 20) -> None:
    """Raise ValueError unless the objectives offer what an acquisition function needs.

    Arguments:
        acquisition: See `scores`.
        members: See `scores`.
        x: Data like those of the pool, `(N, *event)`.
        draws: S.

    >>> from pyro_ssl import zoo
    >>> check_acquisition("entropy", zoo.build("m2", (3,), 2, hidden=(4,)), torch.zeros(5, 3))
    """
    needs = _needs_of(acquisition)
    members = as_members(members)
    if needs == "nothing":
        return
    if needs == "moments" and predicts_classes(members, x):
        raise ValueError(
            f"acquisition: {acquisition} is for a real y; "
            "for classes use entropy, variation_ratios or margin"
        )
    if needs != "moments" and not predicts_classes(members, x):
        name = getattr(acquisition, "__name__", acquisition)
        raise ValueError(
            f"acquisition: {name} is for classes, but y is real; use variance or random"
        )
    if needs in ("draws", "shared draws"):
        check_draws(members, x, draws, shared=needs == "shared draws")


def _needs_of(acquisition: str | Score) -> str:
    """What an acquisition function scores, see `Acquisition`; a user's own takes any draws."""
    if isinstance(acquisition, str) and acquisition in ACQUISITIONS:
        return ACQUISITIONS[acquisition].needs
    if callable(acquisition):
        return "draws of any kind"
    names = ", ".join(ACQUISITIONS)
    raise ValueError(f"acquisition should be one of {names}, or a function; got {acquisition!r}")

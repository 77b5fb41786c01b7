"""Adversarial attacks: small changes of x that change the prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any, Literal

import torch
from pyro.distributions import Uniform
from torch import Tensor, nn

from pyro_ssl.data.sources import InputRows
from pyro_ssl.distributions.row_noise import RowNoise, draw
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.prediction.chunks import known_rows
from pyro_ssl.prediction.predict import probs_of_any
from pyro_ssl.utils.arguments import as_class_indices, check_positive
from pyro_ssl.utils.context import eval_mode, fixed_seed

Aim = Literal["loss", "logits"]
AIMS: tuple[Aim, ...] = ("loss", "logits")
Attack = Literal["fgsm", "pgd"]
Bounds = tuple[float, float] | None
ROWS_AT_ONCE = 4096
"""Rows of a memory map or a Dataset that `under_attack` attacks at once."""


def fgsm(
    objective: Objective,
    x: Any,
    y: Tensor,
    epsilon: float,
    *,
    aim: Aim = "loss",
    bounds: Bounds = (0.0, 1.0),
    chunk: int = 256,
    seed: int = 0,
) -> Tensor:
    r"""Attack by the fast gradient sign method; `(N, *event)` on the CPU.

    .. math:: x' = \mathrm{clip}\big(x + \epsilon\, \mathrm{sign}\, \nabla_x \ell(x, y)\big), \qquad
              \ell = -\log q(y \mid x)

    Paper 000 prints it without the gradient. In float32 a saturated softmax has no gradient, which
    looks like robustness; with `aim="logits"` the attack raises the difference of logits, which
    never saturates: :math:`\max_{k \neq y} \log q(k|x) - \log q(y|x)`.

    >>> from pyro_ssl import zoo
    >>> objective = zoo.build("classifier", 4, 2, hidden=(8,))
    >>> fgsm(objective, torch.rand(3, 4), torch.tensor([0, 1, 0]), 0.1).shape
    torch.Size([3, 4])

    Arguments:
        objective: The method; random draws of its prediction are new ones for each gradient.
        x: Data `(N, *event)`, within `bounds`.
        y: Class indices `(N,)`.
        epsilon: Largest change of a pixel, in the units of x; 0 and above.
        aim: Quantity that the attack raises: `loss` or `logits`.
        bounds: Range of the pixels; None for no bounds.
        chunk: Rows per pass.
        seed: Seed of the draws.

    Raises:
        ValueError: epsilon is below 0; the aim is unknown; x, its range or y does not fit; the
            prediction has no gradient in x.

    References:
        Goodfellow et al. 2015; paper 000, section 5.3.
    """
    return next(_fgsm(objective, x, y, [epsilon], aim=aim, bounds=bounds, chunk=chunk, seed=seed))


def _fgsm(
    objective: Objective,
    x: Any,
    y: Tensor,
    epsilons: Iterable[float],
    *,
    bounds: Bounds = (0.0, 1.0),
    **arguments: Any,
) -> Iterator[Tensor]:
    """Run `fgsm` for each size, from one gradient."""
    sizes = [_checked(epsilon) for epsilon in epsilons]
    search = lambda loss, x: _slope(loss, x).sign()  # noqa: E731
    x, signs = _attacked(objective, x, y, search, bounds=bounds, **arguments)
    for size in sizes:
        parts = zip(x.split(ROWS_AT_ONCE), signs.split(ROWS_AT_ONCE), strict=True)
        yield torch.cat([_within(part + size * sign, bounds) for part, sign in parts])


def pgd(
    objective: Objective,
    x: Any,
    y: Tensor,
    epsilon: float,
    *,
    steps: int = 20,
    step_size: float | None = None,
    restarts: int = 1,
    aim: Aim = "loss",
    bounds: Bounds = (0.0, 1.0),
    chunk: int = 256,
    seed: int = 0,
) -> Tensor:
    """Attack by projected gradient ascent from random starts; the strongest result for each datum.

    If the prediction has random draws, each step has new ones, so that the attack does not overfit
    to one draw (Athalye et al. 2018).

    >>> from pyro_ssl import zoo
    >>> objective = zoo.build("classifier", 4, 2, hidden=(8,))
    >>> x = torch.rand(3, 4)
    >>> attacked = pgd(objective, x, torch.tensor([0, 1, 0]), 0.1, steps=2)
    >>> bool((attacked - x).abs().max() <= 0.1 + 1e-6)
    True

    Arguments:
        objective: See `fgsm`.
        x: See `fgsm`.
        y: See `fgsm`.
        epsilon: See `fgsm`.
        steps: Steps of each restart.
        step_size: Size of a step; by default 2.5 epsilon / steps.
        restarts: Number of starts.
        aim: See `fgsm`.
        bounds: See `fgsm`.
        chunk: See `fgsm`.
        seed: Seed of the starts and of the draws.

    Raises:
        ValueError: See `fgsm`; steps or restarts is not above 0.

    References:
        Madry et al. 2018.
    """
    check_positive(steps=steps, restarts=restarts)
    epsilon = _checked(epsilon)
    size = 2.5 * epsilon / steps if step_size is None else step_size

    def search(loss: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        largest = torch.full((len(x),), -torch.inf, device=x.device)
        best = x
        event_dims = x.dim() - 1
        ones = torch.ones_like(x)
        uniform: Any = Uniform(-ones, ones)
        for _ in range(restarts):
            at = _within(x + epsilon * draw(uniform.to_event(event_dims)), bounds)
            for _ in range(steps):
                moved = at + size * _slope(loss, at).sign()
                at = _within(moved.clamp(x - epsilon, x + epsilon), bounds)
            with torch.no_grad():
                value = loss(at)
            better = (value > largest).view(-1, *[1] * event_dims)
            best = torch.where(better, at, best)
            largest = largest.maximum(value)
        return best

    return _attacked(objective, x, y, search, aim=aim, bounds=bounds, chunk=chunk, seed=seed)[1]


def _pgd(
    objective: Objective, x: Any, y: Tensor, epsilons: Iterable[float], **arguments: Any
) -> Iterator[Tensor]:
    """Run `pgd` for each size."""
    yield from (pgd(objective, x, y, epsilon, **arguments) for epsilon in epsilons)


def under_attack(
    objective: Objective,
    x: Any,
    y: Tensor,
    epsilons: Iterable[float],
    attack: Attack = "fgsm",
    *,
    seed: int = 0,
    **arguments: Any,
) -> list[dict[str, float]]:
    """Accuracy under an attack of each size: by each aim, and by the worse of both per datum.

    >>> from pyro_ssl import zoo
    >>> objective = zoo.build("classifier", 4, 2, hidden=(8,))
    >>> rows = under_attack(objective, torch.rand(3, 4), torch.tensor([0, 1, 0]), [0.0, 0.1])
    >>> list(rows[0])
    ['epsilon', 'loss', 'logits', 'either']

    Arguments:
        objective: The method.
        x: Data `(N, *event)`.
        y: Class indices `(N,)`.
        epsilons: Sizes of the attack.
        attack: `fgsm` or `pgd`.
        seed: Seed of the starts and of the draws.
        arguments: Other arguments of the attack.

    Returns:
        For each size `epsilon`, `loss`, `logits` and `either`.

    Raises:
        ValueError: There is no such attack; see the attack.
    """
    if attack not in ATTACKS:
        raise ValueError(f"attack should be one of {', '.join(ATTACKS)}, got {attack!r}")
    data = known_rows(objective, x)
    y = as_class_indices(y, len(data))
    sizes = [float(epsilon) for epsilon in epsilons]
    parts: list[Iterable[dict[str, Tensor]]] = []
    at_once = ROWS_AT_ONCE if isinstance(data, InputRows) else len(data)
    for part, labels in zip(data.split(at_once), y.split(at_once), strict=True):
        attacked = [
            ATTACKS[attack](objective, part, labels, sizes, aim=aim, seed=seed, **arguments)
            for aim in AIMS
        ]
        parts.append(
            [_correct(objective, moved, labels, seed) for moved in zip(*attacked, strict=True)]
        )
    rows: list[dict[str, float]] = []
    for size, *of_parts in zip(sizes, *parts, strict=True):
        accuracies = {}
        for name in (*AIMS, "either"):
            values = torch.cat([correct[name] for correct in of_parts])
            accuracies[name] = float(values.double().mean())
        rows.append({"epsilon": size} | accuracies)
    return rows


def _correct(
    objective: Objective, moved: Sequence[Tensor], y: Tensor, seed: int
) -> dict[str, Tensor]:
    """Whether each datum is classified correctly under the attack by each aim, and under both."""
    correct: dict[str, Tensor] = {}
    for aim, x in zip(AIMS, moved, strict=True):
        correct[aim] = probs_of_any(objective, x, seed=seed).argmax(-1) == y
    correct["either"] = correct["loss"] & correct["logits"]
    return correct


ATTACKS: dict[str, Callable[..., Iterator[Tensor]]] = {"fgsm": _fgsm, "pgd": _pgd}


def _checked(epsilon: float) -> float:
    if not epsilon >= 0:
        raise ValueError(f"epsilon should be 0 or above, got {epsilon}")
    return float(epsilon)


def _slope(loss: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(loss(x).sum(), x)[0]


def _within(x: Tensor, bounds: Bounds) -> Tensor:
    return x if bounds is None else x.clamp(*bounds)


def _attacked(
    objective: Objective,
    x: Any,
    y: Tensor,
    search: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor],
    *,
    aim: Aim = "loss",
    bounds: Bounds,
    chunk: int = 256,
    seed: int = 0,
) -> tuple[Tensor | InputRows, Tensor]:
    """Search chunk by chunk for the data that raise the loss; return the data and the result."""
    if aim not in AIMS:
        raise ValueError(f"aim should be one of {', '.join(AIMS)}, got {aim!r}")
    check_positive(chunk=chunk)
    like = next(objective.parameters())
    x = known_rows(objective, x)
    if isinstance(x, Tensor):
        x = x.to(like.dtype)
        _check_bounds(x, bounds)
    y = as_class_indices(y, len(x))
    classes = _check_gradient(objective, x[:1].to(like), seed)
    if int(y.min()) < 0 or int(y.max()) >= classes:
        raise ValueError(f"y should be in 0 .. {classes - 1}, got {int(y.min())} .. {int(y.max())}")
    data = x.to(like) if isinstance(x, Tensor) else x
    chunks = zip(data.split(chunk), y.to(like.device).split(chunk), strict=True)
    results: list[Tensor] = []
    with eval_mode(objective), torch.enable_grad(), fixed_seed(seed):
        for rows, labels in chunks:
            part = rows.to(like)
            if isinstance(x, InputRows):
                _check_bounds(part, bounds)
            loss = partial(_loss, objective, labels, aim, count(seed))
            with RowNoise(part, seed):
                results.append(search(loss, part).cpu())
    return x, torch.cat(results)


def _check_bounds(x: Tensor, bounds: Bounds) -> None:
    low = float(x.min())
    high = float(x.max())
    if bounds is not None and not bounds[0] <= low <= high <= bounds[1]:
        raise ValueError(f"x should be within bounds {bounds}, got {low:.4g} .. {high:.4g}")


def _check_gradient(objective: Objective, x: Tensor, seed: int) -> int:
    """Number of classes; raise ValueError unless the prediction has a gradient in x."""
    with eval_mode(objective), torch.enable_grad(), fixed_seed(seed):
        x.requires_grad_()
        logits = objective.classify(x).logits
        gradient = None
        if logits.requires_grad:
            (gradient,) = torch.autograd.grad(logits.sum(), x, allow_unused=True)
    if gradient is None:
        raise ValueError(
            "objective: its prediction has no gradient in x, because of Gibbs sampling or a "
            "pretrained encoder"
        )
    return int(logits.shape[-1])


def _loss(
    objective: Objective, labels: Tensor, aim: Aim, seeds: Iterator[int], x: Tensor
) -> Tensor:
    """Quantity that the attack raises, `(B,)`; each call has the draws of the next seed."""
    with fixed_seed(next(seeds)):
        logits: Tensor = objective.classify(x).logits
    own = labels.unsqueeze(-1)
    if aim == "loss":
        return -logits.log_softmax(-1).gather(-1, own).squeeze(-1)
    is_own = nn.functional.one_hot(labels, logits.shape[-1]).bool()
    others = logits.masked_fill(is_own, -torch.inf)
    return others.amax(-1) - logits.gather(-1, own).squeeze(-1)

"""Adversarial images: what a small change of x does to what a method predicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count
from typing import Any, Literal

import torch
from pyro.distributions import Uniform
from torch import Tensor, nn

from pyro_ssl.distributions.row_noise import RowNoise, draw
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.prediction.chunks import as_known
from pyro_ssl.prediction.predict import probs_of_any
from pyro_ssl.utils.arguments import as_codes, check_positive
from pyro_ssl.utils.context import eval_mode, fixed_seed

Aim = Literal["loss", "logits"]
AIMS: tuple[Aim, ...] = ("loss", "logits")
Attack = Literal["fgsm", "pgd"]
Bounds = tuple[float, float] | None


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
    r"""The fast gradient sign method, in chunks; `(N, *event)` on the CPU.

    .. math:: x' = \mathrm{clip}\big(x + \epsilon\, \mathrm{sign}\, \nabla_x \ell(x, y)\big), \qquad
              \ell = -\log q(y \mid x)

    The paper prints it without the gradient. A saturated softmax has none in float32, which looks like robustness; `aim` may
    be the difference of logits, which never saturates: :math:`\max_{k \neq y} \log q(k|x) - \log q(y|x)`.

    Arguments:
        objective: The method; what it draws to predict is drawn anew for each gradient.
        x: Data `(N, *event)`, within `bounds`.
        y: LatentOptions `(N,)`.
        epsilon: Largest change of a pixel, in the units of x; 0 and above.
        aim: What is made larger: `loss` or `logits`.
        bounds: Of the pixels; None for none.
        chunk: Data at once.
        seed: Of what is drawn.

    Raises:
        ValueError: epsilon is below 0; the aim is unknown; x, its range or y does not fit; the prediction has no gradient
            in x.

    References:
        Goodfellow et al. 2015; paper 000, section 5.3.
    """
    return next(_fgsm(objective, x, y, [epsilon], aim=aim, bounds=bounds, chunk=chunk, seed=seed))


def _fgsm(
    objective: Objective, x: Any, y: Tensor, epsilons: Iterable[float], *, bounds: Bounds = (0.0, 1.0), **arguments: Any
) -> Iterator[Tensor]:
    """`fgsm` of each size, from one gradient."""
    sizes = [_checked(epsilon) for epsilon in epsilons]
    search = lambda loss, x: _slope(loss, x).sign()  # noqa: E731
    x, signs = _attacked(objective, x, y, search, bounds=bounds, **arguments)
    yield from (_within(x + size * signs, bounds) for size in sizes)


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
    """Projected gradient ascent from random starts within epsilon; of each datum the restart that did worst to it.

    A method that draws to predict has other draws in each step, so that no step is against one of them (Athalye et al. 2018).

    Arguments:
        objective: As of `fgsm`.
        x: As of `fgsm`.
        y: As of `fgsm`.
        epsilon: As of `fgsm`.
        steps: Steps of each restart.
        step_size: Of a step; by default 2.5 epsilon / steps.
        restarts: Number of starts.
        aim: As of `fgsm`.
        bounds: As of `fgsm`.
        chunk: As of `fgsm`.
        seed: Of the starts, and of what is drawn.

    Raises:
        ValueError: As of `fgsm`; steps or restarts is not above 0.

    References:
        Madry et al. 2018.
    """
    check_positive(steps=steps, restarts=restarts)
    epsilon = _checked(epsilon)
    size = 2.5 * epsilon / steps if step_size is None else step_size

    def search(loss: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        worst, found = torch.full((len(x),), -torch.inf, device=x.device), x
        for _ in range(restarts):
            start = draw(Uniform(-torch.ones_like(x), torch.ones_like(x)).to_event(x.dim() - 1))
            at = _within(x + epsilon * start, bounds)
            for _ in range(steps):
                at = _within((at + size * _slope(loss, at).sign()).clamp(x - epsilon, x + epsilon), bounds)
            with torch.no_grad():
                value = loss(at)
            better = (value > worst).view(-1, *[1] * (x.dim() - 1))
            worst, found = worst.maximum(value), torch.where(better, at, found)
        return found

    return _attacked(objective, x, y, search, aim=aim, bounds=bounds, chunk=chunk, seed=seed)[1]


def _pgd(objective: Objective, x: Any, y: Tensor, epsilons: Iterable[float], **arguments: Any) -> Iterator[Tensor]:
    """`pgd` of each size."""
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
    """Accuracy under an attack of each size, by each of its aims, and under the worse of both for each datum.

    Arguments:
        objective: The method.
        x: Data `(N, *event)`.
        y: LatentOptions `(N,)`.
        epsilons: Sizes.
        attack: `fgsm` or `pgd`.
        seed: Of the starts, and of what is drawn.
        arguments: Others of the attack.

    Returns:
        For each size `epsilon`, `loss`, `logits` and `either`.

    Raises:
        ValueError: There is no such attack; as of the attack.
    """
    if attack not in ATTACKS:
        raise ValueError(f"attack should be one of {', '.join(ATTACKS)}, got {attack!r}")
    y, epsilons = as_codes(y, len(x)), [float(epsilon) for epsilon in epsilons]
    rows: list[dict[str, float]] = []
    attacked = [ATTACKS[attack](objective, x, y, epsilons, aim=aim, seed=seed, **arguments) for aim in AIMS]
    for epsilon, *moved in zip(epsilons, *attacked, strict=True):
        probs = (probs_of_any(objective, at, seed=seed) for at in moved)
        right: dict[str, Tensor] = {aim: p.argmax(-1) == y for aim, p in zip(AIMS, probs, strict=True)}
        right["either"] = right["loss"] & right["logits"]
        rows.append({"epsilon": epsilon} | {k: v.double().mean().item() for k, v in right.items()})
    return rows


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
) -> tuple[Tensor, Tensor]:
    """Data, and what a search from the loss and a chunk gives for them."""
    if aim not in AIMS:
        raise ValueError(f"aim should be one of {', '.join(AIMS)}, got {aim!r}")
    check_positive(chunk=chunk)
    like = next(objective.parameters())
    x = as_known(objective, x).to(like.dtype)
    if bounds is not None and not bounds[0] <= float(x.min()) <= float(x.max()) <= bounds[1]:
        raise ValueError(f"x should be within bounds {bounds}, got {float(x.min()):.4g} .. {float(x.max()):.4g}")
    y = as_codes(y, len(x))
    with eval_mode(objective), torch.enable_grad(), fixed_seed(seed):
        probe = x[:1].to(like).requires_grad_()
        logits = objective.classify(probe).logits
        free = not logits.requires_grad or torch.autograd.grad(logits.sum(), probe, allow_unused=True)[0] is None
    if int(y.min()) < 0 or int(y.max()) >= logits.shape[-1]:
        raise ValueError(f"y should be in 0 .. {logits.shape[-1] - 1}, got {int(y.min())} .. {int(y.max())}")
    if free:
        raise ValueError(
            "objective: what it predicts has no gradient in x, such as by Gibbs sampling or features as given"
        )
    found: list[Tensor] = []
    with eval_mode(objective), torch.enable_grad(), fixed_seed(seed):
        for part, codes in zip(x.to(like).split(chunk), y.to(like.device).split(chunk), strict=True):
            with RowNoise(part, seed):
                found.append(search(partial(_loss, objective, codes, aim, count(seed)), part).cpu())
    return x, torch.cat(found)


def _loss(objective: Objective, codes: Tensor, aim: Aim, seeds: Iterator[int], x: Tensor) -> Tensor:
    with fixed_seed(next(seeds)):
        log_q = objective.classify(x).logits
    own = log_q.gather(-1, codes.unsqueeze(-1)).squeeze(-1)
    if aim == "loss":
        return -log_q.log_softmax(-1).gather(-1, codes.unsqueeze(-1)).squeeze(-1)
    others = log_q.masked_fill(nn.functional.one_hot(codes, log_q.shape[-1]).bool(), -torch.inf)
    return others.amax(-1) - own

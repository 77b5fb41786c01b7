"""How familiar a datum looks to a classifier, and how well that tells foreign data from its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from pyro_ssl.checks import as_codes, as_data
from pyro_ssl.layers import SplitLinear
from pyro_ssl.objective import Objective
from pyro_ssl.prediction import bounds, chunked


def scores(
    objective: Objective, x: Any, densities: ClassDensities | None = None, *, chunk: int = 1024, seed: int = 0
) -> dict[str, Tensor]:
    r"""Every score that the method has of each datum, `(N,)` on the CPU: the higher, the more familiar the datum.

    `max p`, max_y p(y|x) as its logarithm, which never saturates, and `entropy`, -H(p(y|x)), of any method. `energy`,
    log sum_y exp f_y, where p(y|x) is the softmax of a layer's output f. `log p(z)` where p(y|z) follows from densities, by
    these; `log p(z), refitted` by densities that are given. `log p(x)`, the bound, where the model generates x.

    Arguments:
        objective: The method.
        x: Data `(N, *event)`.
        densities: Of `features` of the training data.
        chunk: Data at once.
        seed: Of what is drawn.

    References:
        Liu et al. 2020 for the energy; Mukhoti et al. 2021 (DDU) for densities of features.
    """
    logits = chunked(objective, lambda x: objective.classify(x).logits, chunk, seed, x).log_softmax(-1)
    found = {"max p": logits.amax(-1), "entropy": (logits.exp() * logits).sum(-1)}
    if hasattr(objective.guide, "joint"):
        joint = chunked(objective, lambda x: objective.guide.joint(objective.seen(x)), chunk, seed, x)
        found["log p(z)"] = joint.logsumexp(-1)
    elif _last_layer(objective, x) is not None:
        found["energy"] = _of_last_layer(objective, x, 1, chunk, seed).logsumexp(-1)
    if densities is not None:
        found["log p(z), refitted"] = densities.log_prob(features(objective, x, chunk=chunk, seed=seed)).float()
    with objective.programs() as (model, _):
        generates = hasattr(model, "p_x")
    if generates:
        found["log p(x)"] = bounds(objective, x, seed=seed)
    return found


def features(objective: Objective, x: Any, *, chunk: int = 1024, seed: int = 0) -> Tensor:
    """What the method classifies: the mean of its code, or else what the last layer of q(y|x) reads; `(N, F)` on the CPU.

    Arguments:
        objective: The method.
        x: Data `(N, *event)`.
        chunk: Data at once.
        seed: Of what is drawn.

    Raises:
        ValueError: It has no features, one for each datum.
    """
    if hasattr(objective.guide, "joint"):
        return chunked(objective, lambda x: objective.guide.q_z(objective.seen(x)).mean, chunk, seed, x)
    if _last_layer(objective, x) is None:
        raise ValueError("objective: no linear layer reads features, one for each datum, and gives q(y|x)")
    return _of_last_layer(objective, x, 0, chunk, seed)


def _of_last_layer(objective: Objective, x: Any, which: int, chunk: int, seed: int) -> Tensor:
    """The input (0) or the output (1) of the layer whose softmax q(y|x) is."""
    layer, seen = _last_layer(objective, x), []
    assert layer is not None
    hook = layer.register_forward_hook(lambda _, given, output: seen.append((given[0], output)[which]))

    def function(x: Tensor) -> Tensor:
        seen.clear()
        objective.classify(x)
        return seen[-1].flatten(1)

    try:
        return chunked(objective, function, chunk, seed, x)
    finally:
        hook.remove()


def _last_layer(objective: Objective, x: Any) -> nn.Module | None:
    """The linear layer that gives q(y|x)'s logits, up to a constant of the datum; None if there is none."""
    layers = [m for m in objective.guide.modules() if isinstance(m, nn.Linear | SplitLinear)]
    calls: list[tuple[nn.Module, Tensor]] = []
    hooks = [m.register_forward_hook(lambda m, _, output: calls.append((m, output))) for m in layers]
    try:
        logits = chunked(objective, lambda x: objective.classify(x).logits, 2, 0, x[:2]).log_softmax(-1)
    finally:
        for hook in hooks:
            hook.remove()
    layer, output = calls[-1] if calls else (None, logits)
    same = output.shape == logits.shape and torch.allclose(output.cpu().log_softmax(-1), logits, atol=1e-5)
    return layer if same else None


class ClassDensities:
    r"""Gaussians fitted to the codes of each class, with their full covariance, and the mixture's density.

    .. math:: \log p(z) = \log \sum_y \pi_y\, \mathcal N(z; \mu_y, \Sigma_y + \epsilon I)

    Arguments:
        z: Codes of training data, `(N, Z)`.
        y: Their classes, `(N,)`.
        ridge: epsilon, over the mean variance of the codes.

    Raises:
        ValueError: Shapes do not match, z holds NaN, a label is -1, or a class has no datum.

    References:
        Mukhoti et al. 2021, DDU.
    """

    def __init__(self, z: Tensor, y: Tensor, ridge: float = 1e-4) -> None:
        if z.dim() != 2 or y.shape != z.shape[:1]:
            raise ValueError(f"z should have shape (N, Z) and y (N,), got {tuple(z.shape)} and {tuple(y.shape)}")
        z, y = as_data(z, "z").double(), as_codes(y, len(z)).to(z.device)
        if int(y.min()) < 0:
            raise ValueError("y should hold a class for each row of z; -1 is none")
        counts = y.bincount()
        if not counts.all():
            raise ValueError(f"y: class {int((counts == 0).nonzero()[0])} has no datum")
        member = torch.nn.functional.one_hot(y).double()
        mean = member.T @ z / counts[:, None]
        centred = z - mean[y]
        noise = ridge * centred.square().mean() * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        covariance = (
            torch.stack([centred[y == k].T @ centred[y == k] for k in range(len(counts))]) / counts[:, None, None]
        )
        self.log_prior = (counts / counts.sum()).log()
        self.densities = MultivariateNormal(mean, covariance + noise)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z): `(N, Z)` -> `(N,)` nats."""
        return (self.log_prior + self.densities.log_prob(z.double().unsqueeze(-2))).logsumexp(-1)


def separations(
    objective: Objective, own: Any, foreign: dict[str, Any], densities: ClassDensities | None = None, *, seed: int = 0
) -> dict[str, dict[str, dict[str, float]]]:
    """`separation` by each of `scores`, of each foreign set: `{set: {score: {"auroc": ...}}}`.

    Arguments:
        objective: The method.
        own: Test data of its own, `(N, *event)`.
        foreign: Other sets, by name.
        densities: As of `scores`.
        seed: Of what is drawn.

    Raises:
        ValueError: A foreign set has another event shape.
    """
    for name, x in foreign.items():
        if tuple(x.shape[1:]) != tuple(own.shape[1:]):
            raise ValueError(
                f"foreign: {name} has data of shape {tuple(x.shape[1:])}, the method's are {tuple(own.shape[1:])}"
            )
    mine = scores(objective, own, densities, seed=seed)
    theirs = {name: scores(objective, x, densities, seed=seed) for name, x in foreign.items()}
    return {name: {k: separation(mine[k], s[k]) for k in mine} for name, s in theirs.items()}


def separation(own: Tensor, foreign: Tensor) -> dict[str, float]:
    """How well a score tells own from foreign data, own ones to score higher.

    Arguments:
        own: Scores of data from the classifier's distribution, `(N,)`.
        foreign: Of others, `(M,)`.

    Returns:
        `auroc`; `aupr`, with foreign data as what is looked for; `fpr95`, the share of foreign data above the score that 95 %
        of the own exceed.

    Raises:
        ValueError: A part is empty, or a score is NaN.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    scores = torch.cat([own, foreign]).double().cpu()
    if not len(own) or not len(foreign) or scores.isnan().any():
        raise ValueError(f"own and foreign should hold scores without NaN, got {len(own)} and {len(foreign)} of them")
    is_foreign = torch.cat([torch.zeros(len(own)), torch.ones(len(foreign))])
    finite: Any = scores.clamp(torch.finfo(torch.float64).min, torch.finfo(torch.float64).max).numpy()
    false, true, _ = roc_curve(1 - is_foreign, finite, drop_intermediate=False)
    return {
        "auroc": float(roc_auc_score(1 - is_foreign, finite)),
        "aupr": float(average_precision_score(is_foreign, -finite)),
        "fpr95": float(false[(true >= 0.95).argmax()]),
    }

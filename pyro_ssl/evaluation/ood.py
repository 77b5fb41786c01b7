"""How familiar a datum looks to a classifier, and how well that tells foreign data from its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from pyro_ssl.distributions.priors import Bayes
from pyro_ssl.nn.layers import SplitLinear
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.prediction.bounds import bounds_of_any
from pyro_ssl.prediction.chunks import as_known, chunked
from pyro_ssl.utils.arguments import as_codes, as_data, check_event_shape, check_positive


def scores(
    objective: Objective, x: Any, densities: ClassDensities | None = None, *, chunk: int = 1024, seed: int = 0
) -> dict[str, Tensor]:
    r"""Every score that the method has of each datum, `(N,)` on the CPU: the higher, the more familiar the datum.

    `max p`, max_y p(y|x), as its logarithm, and `entropy`, -H(p(y|x)), of any method. `energy`, log sum_y exp f_y, where
    p(y|x) is the softmax of a layer's output f, or of densities with one variance. `log p(z)` where p(y|z) follows from
    densities, by these; `log p(z), refitted` by densities that are given. `log p(x)`, the bound, where the model generates x.

    Arguments:
        objective: The method.
        x: Data `(N, *event)`, in any units: they may be foreign.
        densities: Of `features` of the training data.
        chunk: Data at once.
        seed: Of what is drawn.

    References:
        Liu et al. 2020 for the energy; Mukhoti et al. 2021 (DDU) for densities of features.
    """
    x = _of_its_shape(objective, x)
    logits = chunked(objective, lambda x: objective.classify(x).logits, chunk, seed, x).log_softmax(-1)
    found = {"max p": _log_max(logits), "entropy": (logits.exp() * logits).sum(-1)}
    z, outputs = _read(objective, x, chunk, seed)
    if z is not None and isinstance(p_y := getattr(objective.guide, "p_y", None), Bayes):
        found["log p(z)"] = chunked(objective, p_y.joint, chunk, seed, z).logsumexp(-1)
        if p_y.is_softmax:
            found["energy"] = chunked(objective, p_y.layer, chunk, seed, z).logsumexp(-1)
    elif outputs is not None:
        found["energy"] = outputs.logsumexp(-1)
    if densities is not None and z is not None:
        found["log p(z), refitted"] = densities.log_prob(z).float()
    with objective.programs() as (model, _):
        generates = hasattr(model, "p_x")
    if generates:
        found["log p(x)"] = bounds_of_any(objective, x, seed=seed)
    return found


def _of_its_shape(objective: Objective, x: Any) -> Tensor:
    """Data of the method's shape, in whatever units: they may be foreign."""
    x = as_data(x)
    if objective.extent is not None:
        check_event_shape(x, objective.extent.shape)
    return x


def _log_max(log_p: Tensor) -> Tensor:
    """log max_y p from log p `(N, K)`, precise where that is near 0: from the others' odds, and not as a difference."""
    best = log_p.topk(1, -1)
    others = (log_p - best.values).scatter(-1, best.indices, -torch.inf)
    return -others.exp().sum(-1).log1p()


def features(objective: Objective, x: Any, *, chunk: int = 1024, seed: int = 0) -> Tensor | None:
    """What the method classifies: the mean of its code, or else what the last layer of q(y|x) reads; `(N, F)` on the CPU.

    None where there is neither for a datum alone: where what is classified is drawn (ADGM), or Gibbs sampling predicts.

    Arguments:
        objective: The method.
        x: Data `(N, *event)`.
        chunk: Data at once.
        seed: Of what is drawn.
    """
    check_positive(chunk=chunk)
    return _read(objective, _of_its_shape(objective, x), chunk, seed)[0]


def fitted(objective: Objective, x: Any, y: Any, *, chunk: int = 1024, seed: int = 0) -> ClassDensities | None:
    """`ClassDensities` of the features of labeled data; None where the method has none.

    Arguments:
        objective: As of `features`.
        x: Labeled data `(N, *event)`.
        y: Their classes `(N,)`.
        chunk: As of `features`.
        seed: As of `features`.

    Raises:
        ValueError: As of `ClassDensities`, of every class that the method has.
    """
    x = as_known(objective, x)
    z = features(objective, x, chunk=chunk, seed=seed)
    if z is None:
        return None
    return ClassDensities(z, y, chunked(objective, lambda x: objective.classify(x).logits, 1, seed, x[:1]).shape[-1])


def _read(objective: Objective, x: Any, chunk: int, seed: int) -> tuple[Tensor | None, Tensor | None]:
    """`features`, and the output of the layer whose softmax q(y|x) is, where that reads them."""
    z = None
    with objective.programs() as (_, guide):
        if hasattr(guide, "code"):
            z = chunked(objective, lambda x: guide.code(objective.encode(x)).mean, chunk, seed, x)
    if (last := _last_layer(objective, x)) is None:
        return z, None
    layer, classes = last
    calls: list[tuple[Tensor, Tensor]] = []
    hook = layer.register_forward_hook(lambda _, given, output: calls.append((given[0].flatten(1), output)))

    def both(x: Tensor) -> Tensor:
        objective.classify(x)
        found = torch.cat(calls[-1], -1)
        calls.clear()
        return found

    try:
        found = chunked(objective, both, chunk, seed, x)
    finally:
        hook.remove()
    return found[:, :-classes] if z is None else z, found[:, -classes:]


def _last_layer(objective: Objective, x: Any) -> tuple[nn.Module, int] | None:
    """The linear layer that gives q(y|x)'s logits, up to a constant of the datum, and their number; None if there is none."""
    layers = [m for m in objective.guide.modules() if isinstance(m, nn.Linear | SplitLinear)]
    calls: list[tuple[nn.Module, Tensor]] = []
    hooks = [m.register_forward_hook(lambda m, _, output: calls.append((m, output))) for m in layers]
    try:
        logits = chunked(objective, lambda x: objective.classify(x).logits, 2, 0, x[:2]).log_softmax(-1)
    finally:
        for hook in hooks:
            hook.remove()
    if not calls:
        return None
    layer, output = calls[-1]
    same = output.shape == logits.shape and torch.allclose(output.cpu().log_softmax(-1), logits, atol=1e-5)
    return (layer, logits.shape[-1]) if same else None


class ClassDensities:
    r"""Gaussians fitted to the codes of each class, with their full covariance, and the mixture's density.

    .. math:: \log p(z) = \log \sum_y \pi_y\, \mathcal N(z; \mu_y, \Sigma_y + \epsilon I)

    Arguments:
        z: LatentOptions of training data, `(N, Z)`.
        y: Their classes, `(N,)`.
        classes: K; by default as many as y has.
        ridge: epsilon, over the mean variance of the codes within classes.

    Raises:
        ValueError: Shapes do not match, z holds NaN or does not vary within classes, a label is -1, or a class has fewer than
            two data.

    References:
        Mukhoti et al. 2021, DDU.
    """

    def __init__(self, z: Any, y: Any, classes: int | None = None, ridge: float = 1e-4) -> None:
        shapes = tuple(np.shape(z)), tuple(np.shape(y))
        if len(shapes[0]) != 2 or shapes[1] != shapes[0][:1]:
            raise ValueError(f"z should have shape (N, Z) and y (N,), got {shapes[0]} and {shapes[1]}")
        z = as_data(z, "z").double()
        y = as_codes(y, len(z)).to(z.device)
        if int(y.min()) < 0:
            raise ValueError("y should hold a class for each row of z; -1 is none")
        counts = y.bincount(minlength=classes or 0)
        if classes is not None and len(counts) > classes:
            raise ValueError(f"y should be below {classes}, the number of classes; got {len(counts) - 1}")
        if int(counts.min()) < 2:
            raise ValueError(f"y: class {int(counts.argmin())} has {int(counts.min())} data; a covariance wants 2")
        mean = torch.nn.functional.one_hot(y, len(counts)).double().T @ z / counts[:, None]
        centred = z - mean[y]
        if not centred.any():
            raise ValueError("z does not vary within classes, so that it has no covariance")
        noise = ridge * centred.square().mean() * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        by_class = centred[y.argsort()].split(counts.tolist())
        covariance = torch.stack([part.T @ part / len(part) for part in by_class])
        self.log_prior = (counts / counts.sum()).log()
        self.densities = MultivariateNormal(mean, covariance + noise)

    def log_prob(self, z: Any) -> Tensor:
        """log p(z): `(N, Z)` -> `(N,)` nats."""
        z = as_data(z, "z")
        check_event_shape(z, self.densities.event_shape, "z")
        parts = z.double().to(self.log_prior.device).unsqueeze(-2).split(1024)
        return torch.cat([(self.log_prior + self.densities.log_prob(part)).logsumexp(-1) for part in parts])


def score_sets(
    objective: Objective, sets: dict[str, Any], densities: ClassDensities | None = None, *, seed: int = 0
) -> dict[str, dict[str, Tensor]]:
    """`scores` of several sets by name.

    Arguments:
        objective: The method.
        sets: Data `(N, *event)`, those of the method's own distribution first.
        densities: As of `scores`.
        seed: Of what is drawn.

    Raises:
        ValueError: A set has another event shape than the first.
    """
    shapes = {name: tuple(x.shape[1:]) for name, x in sets.items()}
    own = next(iter(shapes.values()))
    for name, shape in shapes.items():
        if shape != own:
            raise ValueError(f"sets: {name} has data of shape {shape}, the method's are {own}")
    return {name: scores(objective, x, densities, seed=seed) for name, x in sets.items()}


def ood_metrics(scored: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, dict[str, float]]]:
    """`separation` of the first set from each of the others by each score, `{set: {score: {"auroc": ...}}}`, from `score_sets`."""
    own, *others = scored
    return {name: {k: separation(mine, scored[name][k]) for k, mine in scored[own].items()} for name in others}


def separation(own: Any, foreign: Any) -> dict[str, float]:
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

    own, foreign = torch.as_tensor(own), torch.as_tensor(foreign)
    both = (own, foreign)
    if any(s.dim() != 1 or not len(s) or s.isnan().any() for s in both):
        raise ValueError(
            f"own and foreign should be (N,) and (M,) without NaN, got {tuple(own.shape)} and {tuple(foreign.shape)}"
        )
    scores = torch.cat(both).double().cpu()
    is_foreign = torch.cat([torch.zeros(len(own)), torch.ones(len(foreign))])
    finite: Any = scores.clamp(torch.finfo(torch.float64).min, torch.finfo(torch.float64).max).numpy()
    false, true, _ = roc_curve(1 - is_foreign, finite, drop_intermediate=False)
    return {
        "auroc": float(roc_auc_score(1 - is_foreign, finite)),
        "aupr": float(average_precision_score(is_foreign, -finite)),
        "fpr95": float(false[(true >= 0.95).argmax()]),
    }

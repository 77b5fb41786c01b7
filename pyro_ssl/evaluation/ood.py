"""Out-of-distribution detection: scores of familiarity, and how well they separate data sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from pyro_ssl.data.sources import InputRows, Source, as_source
from pyro_ssl.distributions.priors import Bayes
from pyro_ssl.nn.layers import SplitLinear
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.prediction.bounds import bounds_in_any_units
from pyro_ssl.prediction.chunks import chunked, known_rows
from pyro_ssl.types import CodeClassifier, CodeGuide, GenerativeModel
from pyro_ssl.utils.arguments import as_class_indices, as_data, check_event_shape, check_positive


def scores(
    objective: Objective,
    x: Any,
    densities: ClassDensities | None = None,
    *,
    chunk: int = 1024,
    seed: int = 0,
) -> dict[str, Tensor]:
    r"""Compute all scores of the method for each datum, `(N,)` on the CPU; higher is more familiar.

    ==================== ==========================================================================
    `max p`              log max_y p(y|x); every method
    `entropy`            -H(p(y|x)); every method
    `energy`             log sum_y exp f_y, with f the logits of p(y|x): the output of a layer, or
                         of Bayes' rule for densities with equal variance
    `log p(z)`           the mixture of the class densities, if p(y|z) follows from them
    `log p(z), refitted` the same under `densities`
    `log p(x)`           the bound, if the model generates x
    ==================== ==========================================================================

    >>> from pyro_ssl import zoo
    >>> list(scores(zoo.build("m2", 4, 2, hidden=(8,)), torch.rand(3, 4)))
    ['max p', 'entropy', 'energy', 'log p(x)']

    Arguments:
        objective: The method.
        x: Data `(N, *event)`, in or out of distribution; units are not checked.
        densities: Densities of the `features` of the training data.
        chunk: Rows per pass.
        seed: Seed of the draws.

    References:
        Liu et al. 2020 for the energy; Mukhoti et al. 2021 (DDU) for densities of features.
    """
    x = _of_its_shape(objective, x)
    logits = chunked(objective, lambda x: objective.classify(x).logits, chunk, seed, x)
    log_p = logits.log_softmax(-1)
    by_name = {"max p": _log_max(log_p), "entropy": (log_p.exp() * log_p).sum(-1)}
    z, outputs = _features_and_outputs(objective, x, chunk, seed)
    guide = objective.guide
    p_y = guide.p_y if isinstance(guide, CodeClassifier) else None
    if z is not None and isinstance(p_y, Bayes):
        by_name["log p(z)"] = chunked(objective, p_y.joint, chunk, seed, z).logsumexp(-1)
        if p_y.is_softmax:
            by_name["energy"] = chunked(objective, p_y.layer, chunk, seed, z).logsumexp(-1)
    elif outputs is not None:
        by_name["energy"] = outputs.logsumexp(-1)
    if densities is not None and z is not None:
        by_name["log p(z), refitted"] = densities.log_prob(z).float()
    with objective.programs() as (model, _):
        generates = isinstance(model, GenerativeModel)
    if generates:
        data = x if isinstance(x, Tensor) else x.source  # in the dtype of the weights
        by_name["log p(x)"] = bounds_in_any_units(objective, data, seed=seed)
    return by_name


def features(objective: Objective, x: Any, *, chunk: int = 1024, seed: int = 0) -> Tensor | None:
    """Features from which the method classifies, `(N, F)` on the CPU.

    They are the mean of the latent that is classified, or else the input of the last layer of
    q(y|x). None if neither is a function of x alone: in ADGM the input is drawn, and in SSLPE Gibbs
    sampling predicts.

    >>> from pyro_ssl import zoo
    >>> features(zoo.build("m2", 4, 2, hidden=(8,)), torch.rand(3, 4)).shape
    torch.Size([3, 8])

    Arguments:
        objective: The method.
        x: Data `(N, *event)`.
        chunk: Rows per pass.
        seed: Seed of the draws.
    """
    check_positive(chunk=chunk)
    return _features_and_outputs(objective, _of_its_shape(objective, x), chunk, seed)[0]


def fit_densities(
    objective: Objective, x: Any, y: Any, *, chunk: int = 1024, seed: int = 0
) -> ClassDensities | None:
    """Fit `ClassDensities` to the features of labeled data; None if the method has no features.

    >>> from pyro_ssl import zoo
    >>> objective = zoo.build("m2", 4, 2, hidden=(8,))
    >>> densities = fit_densities(objective, torch.rand(6, 4), torch.tensor([0, 0, 0, 1, 1, 1]))
    >>> densities.log_prob(features(objective, torch.rand(3, 4))).shape
    torch.Size([3])

    Arguments:
        objective: See `features`.
        x: Labeled data `(N, *event)`.
        y: Class indices `(N,)`.
        chunk: See `features`.
        seed: See `features`.

    Raises:
        ValueError: See `ClassDensities`; every class of the method needs data.
    """
    x = known_rows(objective, x)
    z = features(objective, x, chunk=chunk, seed=seed)
    if z is None:
        return None
    logits = chunked(objective, lambda x: objective.classify(x).logits, 1, seed, x[:1])
    return ClassDensities(z, y, logits.shape[-1])


def _of_its_shape(objective: Objective, x: Any) -> Tensor | InputRows:
    """Convert data and check their shape, but not their units."""
    data = _as_rows(objective, x)
    if objective.extent is not None:
        check_event_shape(data, objective.extent.shape)
    return data


def _as_rows(objective: Objective, x: Any) -> Tensor | InputRows:
    """Rows in their own dtype, float32 or float64; memory maps and Datasets are read in chunks."""
    if isinstance(x, InputRows):
        return x
    source = as_source(x)
    if not isinstance(source, Source):
        return as_data(x)
    is_double = source.dtype == torch.float64
    return InputRows(source, objective, torch.float64 if is_double else torch.float32)


def _log_max(log_p: Tensor) -> Tensor:
    """log max_y p for log p `(N, K)`.

    It is computed from the odds of the other classes, which is precise near 0.
    """
    best = log_p.topk(1, -1)
    others = (log_p - best.values).scatter(-1, best.indices, -torch.inf)
    return -others.exp().sum(-1).log1p()


def _features_and_outputs(
    objective: Objective, x: Any, chunk: int, seed: int
) -> tuple[Tensor | None, Tensor | None]:
    """`features`, and the output of the layer whose softmax is q(y|x); None for a missing one.

    A hook joins input and output of that layer, so that one pass in chunks returns both.
    """
    z = None
    with objective.programs() as (_, guide):
        if isinstance(guide, CodeGuide):
            z = chunked(objective, lambda x: guide.code(objective.encode(x)).mean, chunk, seed, x)
    last = _last_layer(objective, x)
    if last is None:
        return z, None
    layer, classes = last
    calls: list[Tensor] = []

    def record(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append(torch.cat([inputs[0].flatten(1), output], -1))

    hook = layer.register_forward_hook(record)

    def input_and_output(x: Tensor) -> Tensor:
        objective.classify(x)
        last_call = calls[-1]
        calls.clear()
        return last_call

    try:
        both = chunked(objective, input_and_output, chunk, seed, x)
    finally:
        hook.remove()
    layer_input = both[:, :-classes]
    layer_output = both[:, -classes:]
    if z is None:
        z = layer_input
    return z, layer_output


def _last_layer(objective: Objective, x: Any) -> tuple[nn.Module, int] | None:
    """The last linear layer that `classify` calls, and the number K of classes.

    None unless its output is the logits of q(y|x), up to a constant per datum.
    """
    calls: list[tuple[nn.Module, Tensor]] = []
    hooks = []
    for module in objective.guide.modules():
        if isinstance(module, nn.Linear | SplitLinear):
            hook = module.register_forward_hook(lambda m, _, output: calls.append((m, output)))
            hooks.append(hook)
    try:
        logits = chunked(objective, lambda x: objective.classify(x).logits, 2, 0, x[:2])
    finally:
        for hook in hooks:
            hook.remove()
    if not calls:
        return None
    layer, output = calls[-1]
    if output.shape != logits.shape:
        return None
    log_p = logits.log_softmax(-1)
    if not torch.allclose(output.cpu().log_softmax(-1), log_p, atol=1e-5):
        return None
    return layer, logits.shape[-1]


class ClassDensities:
    r"""A Gaussian with full covariance for the latents of each class, and the mixture's density.

    .. math:: \log p(z) = \log \sum_y \pi_y\, \mathcal N(z; \mu_y, \Sigma_y + \epsilon I)

    >>> z = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    >>> ClassDensities(z, torch.arange(20) % 2).log_prob(z).shape
    torch.Size([20])

    Arguments:
        z: Latents or features of training data, `(N, Z)`.
        y: Class indices `(N,)`.
        classes: K; by default the number of classes in y.
        ridge: epsilon, relative to the mean variance within classes.

    Raises:
        ValueError: Shapes do not match, z holds NaN or does not vary within classes, a label is -1,
            or a class has fewer than two rows.

    References:
        Mukhoti et al. 2021, DDU.
    """

    def __init__(self, z: Any, y: Any, classes: int | None = None, ridge: float = 1e-4) -> None:
        z_shape = tuple(np.shape(z))
        y_shape = tuple(np.shape(y))
        if len(z_shape) != 2 or y_shape != z_shape[:1]:
            raise ValueError(f"z should have shape (N, Z) and y (N,), got {z_shape} and {y_shape}")
        z = as_data(z, "z").double()
        y = as_class_indices(y, len(z)).to(z.device)
        counts = _class_counts(y, classes)
        sums = torch.nn.functional.one_hot(y, len(counts)).double().T @ z
        mean = sums / counts[:, None]
        centred = z - mean[y]
        if not centred.any():
            raise ValueError("z does not vary within classes, so it has no covariance")
        identity = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        noise = ridge * centred.square().mean() * identity
        by_class = centred[y.argsort()].split(counts.tolist())
        covariance = torch.stack([part.T @ part / len(part) for part in by_class])
        self.log_prior = (counts / counts.sum()).log()
        self.densities = MultivariateNormal(mean, covariance + noise)

    def log_prob(self, z: Any) -> Tensor:
        """log p(z): `(N, Z)` -> `(N,)` nats."""
        z = as_data(z, "z")
        check_event_shape(z, self.densities.event_shape, "z")
        parts = z.double().to(self.log_prior.device).unsqueeze(-2).split(1024)
        log_p_z: Any = self.densities.log_prob
        joint = [self.log_prior + log_p_z(part) for part in parts]
        return torch.cat([log_p.logsumexp(-1) for log_p in joint])


def _class_counts(y: Tensor, classes: int | None) -> Tensor:
    """Number of rows of each class, `(K,)`, two or more."""
    if int(y.min()) < 0:
        raise ValueError("y should hold a class for each row of z, got -1 (no class)")
    counts = y.bincount(minlength=classes or 0)
    if classes is not None and len(counts) > classes:
        raise ValueError(
            f"y should be below {classes}, the number of classes; got {len(counts) - 1}"
        )
    fewest = int(counts.argmin())
    if int(counts[fewest]) < 2:
        raise ValueError(f"y: class {fewest} has {int(counts[fewest])} data; a covariance needs 2")
    return counts


def score_sets(
    objective: Objective,
    sets: dict[str, Any],
    densities: ClassDensities | None = None,
    *,
    seed: int = 0,
) -> dict[str, dict[str, Tensor]]:
    """Compute `scores` of several data sets, by name.

    >>> from pyro_ssl import zoo
    >>> sets = {"own": torch.rand(3, 4), "other": 5 + torch.rand(3, 4)}
    >>> list(score_sets(zoo.build("m2", 4, 2, hidden=(8,)), sets))
    ['own', 'other']

    Arguments:
        objective: The method.
        sets: Data `(N, *event)` by name, the method's own data set first.
        densities: See `scores`.
        seed: Seed of the draws.

    Raises:
        ValueError: A set has another event shape than the first.
    """
    sets = {name: as_source(x, name) for name, x in sets.items()}
    shapes = {name: tuple(x.shape[1:]) for name, x in sets.items()}
    own = next(iter(shapes.values()))
    for name, shape in shapes.items():
        if shape != own:
            raise ValueError(f"sets: {name} has data of shape {shape}, the method's are {own}")
    return {name: scores(objective, x, densities, seed=seed) for name, x in sets.items()}


def ood_metrics(scored: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, dict[str, float]]]:
    """Compute the `separation` of the first set from each other one, by each score.

    >>> metrics = ood_metrics({"own": {"energy": [2.0, 3.0]}, "other": {"energy": [0.0, 1.0]}})
    >>> metrics["other"]["energy"]["auroc"]
    1.0

    Arguments:
        scored: Scores of each set, from `score_sets`.

    Returns:
        The numbers `auroc`, `aupr` and `fpr95`, by set and score.
    """
    own, *others = scored
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for name in others:
        metrics[name] = {}
        for score, values in scored[own].items():
            metrics[name][score] = separation(values, scored[name][score])
    return metrics


def separation(own: Any, other: Any) -> dict[str, float]:
    """AUROC, AUPR and FPR95 of a score that should be higher for own than for other data.

    >>> separation([2.0, 3.0], [0.0, 1.0])
    {'auroc': 1.0, 'aupr': 1.0, 'fpr95': 0.0}

    Arguments:
        own: Scores of data from the classifier's distribution, `(N,)`.
        other: Scores of out-of-distribution data, `(M,)`.

    Returns:
        `auroc`; `aupr`, with other data as the positive class; `fpr95`, the share of other data
        above the score that 95 % of the own data exceed.

    Raises:
        ValueError: A part is empty, or a score is NaN.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    parts = (torch.as_tensor(own), torch.as_tensor(other))
    for part in parts:
        if part.dim() != 1 or not len(part) or part.isnan().any():
            shapes = " and ".join(str(tuple(part.shape)) for part in parts)
            raise ValueError(f"own and other should be (N,) and (M,) without NaN, got {shapes}")
    limits = torch.finfo(torch.float64)
    finite = torch.cat(parts).double().cpu().clamp(limits.min, limits.max).numpy()
    is_other = torch.cat([torch.zeros(len(parts[0])), torch.ones(len(parts[1]))])
    false, true, _ = roc_curve(1 - is_other, finite, drop_intermediate=False)
    return {
        "auroc": float(roc_auc_score(1 - is_other, finite)),
        "aupr": float(average_precision_score(is_other, -finite)),
        "fpr95": float(false[(true >= 0.95).argmax()]),
    }

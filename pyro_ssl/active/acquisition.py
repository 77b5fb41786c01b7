"""Which data to ask labels of: functions of draws of p(y|x), over pools of any size, one by one or as a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from pyro_ssl.evaluation.metrics import as_probabilities
from pyro_ssl.infer.gibbs import Gibbs, walk
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.objectives.predictors import GibbsPredictor
from pyro_ssl.prediction.chunks import AT_ONCE, as_known, chunked, label_of
from pyro_ssl.prediction.gibbs import gibbs
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.utils.arguments import as_data, check_positive
from pyro_ssl.utils.context import eval_mode, fixed_seed

MAX_DRAWN_VALUES = 2**24
"""Numbers p(y|x) that are held at once, data times draws times classes: 130 MB in double precision."""

Acquisition = Literal["entropy", "variation_ratios", "margin", "bald", "batch_bald", "variance", "random"]
Score = Callable[[Tensor], Tensor]


# --- of draws ---------------------------------------------------------------------------------------------------------


def entropy(p: Any) -> Tensor:
    r"""H of the mean prediction, `(N,)` nats: :math:`\mathcal H[\bar p]`, with :math:`\bar p = \frac1S \sum_s p_s`.

    Arguments:
        p: Draws of p(y|x), `(S, N, K)`, a tensor or an array.

    Raises:
        ValueError: They are no probabilities of two classes or more; see `metrics.as_probabilities`, here and below.

    References:
        Paper 002, eq. 2.3 and 3.11.
    """
    return torch.special.entr(_draws(p).mean(0)).sum(-1)


def variation_ratios(p: Any) -> Tensor:
    r""":math:`1 - \max_y \bar p(y)`, `(N,)`; of draws `(S, N, K)`. Paper 002, eq. 2.2 and 3.10."""
    return 1 - _draws(p).mean(0).amax(-1)


def margin(p: Any) -> Tensor:
    r"""1 less the distance of the two likeliest classes in :math:`\bar p`, `(N,)`; of draws `(S, N, K)`."""
    best = _draws(p).mean(0).topk(2, -1).values
    return 1 - best[..., 0] + best[..., 1]


def bald(p: Any) -> Tensor:
    r"""The mutual information of label and what differs between the draws, `(N,)` nats in 0 .. log K.

    .. math:: \mathcal H[\bar p] - \frac1S \sum_s \mathcal H[p_s]

    Arguments:
        p: Draws of p(y|x), `(S, N, K)`: given weights, given a latent, or of the members of an ensemble.

    References:
        Paper 002, eq. 2.4 and 3.13; Houlsby et al. 2011.
    """
    p = _draws(p).double()
    found = entropy(p) - torch.special.entr(p).sum(-1).mean(0)
    return found.masked_fill(found <= 1e-12, 0)  # rounding


def _draws(p: Any) -> Tensor:
    return as_probabilities(p, "p", "(S, N, K)")


MEAN_SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "entropy": entropy, "variation_ratios": variation_ratios, "margin": margin
}  # fmt: skip
"""Of the mean prediction alone, so that any method has them."""


def top_n(scores: Any, n: int, seed: int = 0) -> Tensor:
    """The n highest scores' places, highest first, `(n,)`; among equals, to nine digits of the highest, the seed decides.

    Raises:
        ValueError: n is not in 1 .. N; a score is NaN.
    """
    check_positive(n=n)
    scores = _scores_of_data(scores)
    if n > len(scores):
        raise ValueError(f"n should be at most {len(scores)}, the data there are to choose from; got {n}")
    values = scores.cpu().double()
    largest = float(values[values.isfinite()].abs().amax(0)) if values.isfinite().any() else 0.0
    values = (values / max(largest, 1e-300)).round(decimals=9)  # rounding is no reason to ask
    order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(seed))
    return order[values[order].sort(descending=True, stable=True).indices[:n]]


def _scores_of_data(scores: Any) -> Tensor:
    scores = torch.as_tensor(scores).detach()
    if scores.dim() != 1:
        raise ValueError(f"scores should have shape (N,), one for each datum; got {tuple(scores.shape)}")
    if scores.isnan().any():
        raise ValueError(f"scores hold NaN, first of datum {int(scores.isnan().nonzero()[0])}")
    return scores


def power_scores(scores: Any, power: float, seed: int = 0) -> Tensor:
    r"""Scores whose highest are a draw, without replacement, in proportion to :math:`s^\beta`: `power * log(s)` + Gumbel noise.

    The n highest of all are much alike, for each is asked as if it were alone; a draw is not.

    Arguments:
        scores: s, `(N,)`, 0 or above.
        power: beta; the larger, the closer to the n highest.
        seed: Of the draw.

    Raises:
        ValueError: power is not above 0; a score is below 0, or NaN.

    References:
        Kirsch et al. 2023, Stochastic batch acquisition.
    """
    check_power(power)
    scores = _scores_of_data(scores)
    if not (scores >= 0).all():
        raise ValueError(f"power wants scores of 0 or above, got {scores.min().item()}")
    uniform = torch.rand(len(scores), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return power * scores.cpu().double().log() - (-uniform.log()).log()


def batch_bald(p: Any, n: int, *, configurations: int = 10_000, seed: int = 0) -> tuple[Tensor, Tensor]:
    r"""n data whose labels together tell most of what differs between the draws, chosen one after the other.

    .. math:: i_m = \arg\max_i\; I(y_i; s \mid y_{i_1}, \dots, y_{i_{m-1}})
              = \sum_c \pi_c \Big( \mathcal H\Big[\sum_s w_{c,s}\, p_{s,i}\Big] - \sum_s w_{c,s} \mathcal H[p_{s,i}] \Big)

    c runs over the labels that those chosen before may have, with probability :math:`\pi_c`, and :math:`w_{c,s} = p(s \mid c)`. All of
    them are summed while there are not too many; then labels of further data are drawn, for each c one. The sum of the gains is
    BatchBALD, I(y_{i_1}, .., y_{i_n}; s). Among equal gains, as when a few draws are told apart and no label can tell more, the
    datum with the greater BALD of its own goes before, then the seed decides.

    Arguments:
        p: Draws of p(y|x), `(S, N, K)`; a draw is the same weights, or the same member, for all data.
        n: Data to choose.
        configurations: The most labelings c, with the next datum's label, that are summed.
        seed: Of ties, and of labels drawn.

    Returns:
        Their places `(n,)` in the order of the choice, and the gain of each, `(n,)` nats.

    Raises:
        ValueError: n is not in 1 .. N; configurations is below K; p holds no probabilities.

    References:
        Kirsch et al. 2019.
    """
    p = _draws(p).double()
    draws, size, classes = p.shape
    check_positive(n=n)
    if n > size or configurations < classes:
        raise ValueError(
            f"n should be at most {size}, the data, and configurations at least {classes}, the classes; "
            f"got {n} and {configurations}"
        )
    generator = torch.Generator(p.device).manual_seed(seed)
    known, alone = torch.special.entr(p).sum(-1), bald(p)
    weight, posterior = p.new_ones(1), p.new_full((1, draws), 1 / draws)
    chosen: list[int] = []
    gains: list[Tensor] = []
    for _ in range(n):
        rows = max(1, 2**20 // (len(weight) * classes))
        mixed = [
            weight @ torch.special.entr(torch.einsum("cs,snk->cnk", posterior, part)).sum(-1)
            for part in p.split(rows, 1)
        ]
        gain = torch.cat(mixed) - (weight @ posterior) @ known
        gain[chosen] = -torch.inf
        chosen.append(int(top_n(alone.where(gain > gain.max() - 1e-9, -torch.inf), 1, seed)))
        gains.append(gain[chosen[-1]])
        weight, posterior = _condition_on_label(
            weight, posterior, p[:, chosen[-1]], configurations // classes, generator
        )
    return torch.tensor(chosen), torch.stack(gains).clamp_min(0)


def _condition_on_label(
    weight: Tensor, posterior: Tensor, p: Tensor, most: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Labelings `(C,)` and what each says of the draws, `(C, S)`, with one more datum's label, `p` `(S, K)`: all, or one each."""
    joint = posterior[:, None] * p.T  # (C, K, S)
    of_label = joint.sum(-1)
    if of_label.numel() <= most:
        weight, joint = (weight[:, None] * of_label).flatten(), joint.flatten(0, 1)
        joint, weight = joint[weight > 0], weight[weight > 0]
        return weight, joint / joint.sum(-1, keepdim=True)
    if (weight != weight[0]).any() or len(weight) < most:  # from now on each labeling stands for as much as the others
        place = weight.multinomial(most, True, generator=generator)
        weight, joint, of_label = weight.new_full((most,), 1 / most), joint[place], of_label[place]
    label = of_label.multinomial(1, generator=generator)
    joint = joint.take_along_dim(label[..., None], 1).squeeze(1)
    return weight, joint / joint.sum(-1, keepdim=True)


def diverse(codes: Any, n: int, seed: int = 0) -> Tensor:
    """n data that stand for the others, before any label is known: the nearest to each of n centres of their codes, `(n,)`.

    Arguments:
        codes: Of each datum a vector, `(N, Z)`, in whose distances its scales are.
        n: How many; the k of k-means.
        seed: Of the centres.

    Raises:
        ValueError: n is not in 1 .. N.
    """
    from sklearn.cluster import MiniBatchKMeans

    codes = as_data(codes, "codes").flatten(1).cpu()
    order = _by_value(codes)
    codes = codes[order]
    check_positive(n=n)
    if n > len(codes):
        raise ValueError(f"n should be at most {len(codes)}, the data there are to choose from; got {n}")
    found = MiniBatchKMeans(n, random_state=seed, n_init=3, batch_size=4096).fit(codes.numpy())
    apart = torch.cdist(torch.as_tensor(found.cluster_centers_).to(codes), codes)
    chosen: list[int] = []
    for row in apart:  # a datum stands for one centre
        row[chosen] = torch.inf
        chosen.append(int(row.argmin()))
    return order[chosen]


def _by_value(x: Tensor) -> Tensor:
    """The places of the rows sorted by what they hold, `(N,)`: what is drawn for a datum is then drawn wherever it stands."""
    rows = x.flatten(1)
    direction = torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(x.device)
    parts = rows.split(max(1, 2**20 // rows.shape[1]))
    return torch.cat([(part * direction).sum(-1) for part in parts]).argsort(stable=True).cpu()


# --- of methods -------------------------------------------------------------------------------------------------------


def label_draws(members: Objective | Sequence[Objective], x: Any, draws: int = 20, *, seed: int = 0) -> Tensor:
    """Draws of p(y|x), `(S, N, K)` on the CPU; by what differs between them, in this order:

    - random weights (SSLAPD, `bayesian`): each draw has one W for all data; z is averaged, by ten Gibbs chains of which the
      first half of the steps is left out: too few draws of z would look like draws of W that differ;
    - several objectives: their predictions, one draw each;
    - latents (z of SSLPE's Gibbs chains and of latent classifiers, a of ADGM): each datum has its own, and BALD is then the
      information that the label has of that latent, not of what training could still change.

    Arguments:
        members: A trained objective, or several of the same classes.
        x: Data `(N, *event)`.
        draws: S, or as many of each of several objectives with random weights.
        seed: Of the draws.

    Raises:
        ValueError: Nothing differs between the draws; draws is not above 1; y is real.
    """
    members = _several(members)
    x = as_known(members[0], x)
    check("bald", members, x, draws)
    order = _by_value(x)
    return _label_draws(members, x[order], draws, seed)[:, order.argsort()]


def _label_draws(members: list[Objective], x: Tensor, draws: int, seed: int) -> Tensor:
    one = len(members) == 1
    return torch.cat([
        _draws_of(m, x, draws, seed + i) if one or _drawn(m, x) == "weights" else predict_proba(m, x, seed=seed)[None]
        for i, m in enumerate(members)
    ])  # fmt: skip


def scores(
    members: Objective | Sequence[Objective],
    x: Any,
    acquisition: Acquisition | Score = "entropy",
    *,
    draws: int = 20,
    seed: int = 0,
) -> Tensor:
    """How much the label of each datum is wanted, `(N,)` on the CPU; of the pool one copy is made, and p(y|x), `(N, K)`, kept.

    Arguments:
        members: A trained objective, or several, an ensemble, whose mean predicts.
        x: The pool, `(N, *event)`.
        acquisition: `entropy`, `variation_ratios`, `margin` of classes; `bald`, also of `batch_bald`'s first choice, where draws
            differ, see `label_draws`; `variance` of a real y, summed over its dimensions; `random`; or a function of draws of
            p(y|x), `(S, N, K)`, as `bald` is, of which a deterministic method has one, its prediction.
        draws: S, of BALD and of a function.
        seed: Of whatever is drawn.

    Raises:
        ValueError: The method has not what the acquisition asks for; the message says what.
    """
    members = _several(members)
    x = as_known(members[0], x)
    check(acquisition, members, x, draws)
    order = _by_value(x)
    return _scores(members, x[order], acquisition, draws, seed)[order.argsort()]


def _scores(members: list[Objective], x: Tensor, acquisition: Acquisition | Score, draws: int, seed: int) -> Tensor:
    if acquisition == "random":
        return torch.rand(len(x), generator=torch.Generator().manual_seed(seed))
    found = _scored(members, x, acquisition, draws, seed)
    if found.shape != (len(x),):
        raise ValueError(
            f"acquisition: the function should give ({len(x)},), one of each datum; got {tuple(found.shape)}"
        )
    return found


def _scored(members: list[Objective], x: Tensor, acquisition: Acquisition | Score, draws: int, seed: int) -> Tensor:
    if acquisition == "variance":
        return _variance(members, x, seed)
    if acquisition in MEAN_SCORES or (callable(acquisition) and not _differ(members, x)):
        p = torch.stack([predict_proba(m, x, seed=seed) for m in members]).double()
        return acquisition(p) if callable(acquisition) else MEAN_SCORES[acquisition](p)
    score = acquisition if callable(acquisition) else bald
    classes = int(label_of(members[0], x).event_shape[-1])
    parts = x.split(max(1, MAX_DRAWN_VALUES // (draws * len(members) * classes)))
    return torch.cat([score(_label_draws(members, part, draws, seed).double()) for part in parts])


def acquire(
    members: Objective | Sequence[Objective],
    x: Any,
    n: int,
    acquisition: Acquisition | Score = "entropy",
    *,
    power: float | None = None,
    draws: int = 20,
    candidates: int = 1000,
    seed: int = 0,
) -> Tensor:
    """The n data of a pool whose labels are wanted most, `(n,)`, most wanted first.

    The pool's order does not matter: a datum's draws, and who goes first among equals, go by what it holds.

    Arguments:
        members: As of `scores`.
        x: The pool, `(N, *event)`.
        n: How many.
        acquisition: As of `scores`; `batch_bald` counts what they tell together, the others what each tells alone.
        power: Draw them in proportion to the scores to this power, see `power_scores`; None takes the highest.
        draws: S, of BALD: no more than log S nats can be told by all labels together.
        candidates: Data with the highest BALD, from which `batch_bald` chooses.
        seed: Of whatever is drawn, and of ties.

    Raises:
        ValueError: As of `scores` and `power_scores`; n is not in 1 .. N; there is a power of `batch_bald`.
    """
    members = _several(members)
    x = as_known(members[0], x)
    check_positive(n=n, candidates=candidates)
    check_power(power, acquisition)
    if n > len(x):
        raise ValueError(f"n should be at most {len(x)}, the size of the pool; got {n}")
    check(acquisition, members, x, draws)
    order = _by_value(x)
    x = x[order]
    found = _scores(members, x, acquisition, draws, seed)
    if acquisition != "batch_bald":
        return order[top_n(found if power is None else power_scores(found, power, seed), n, seed)]
    first = top_n(found, min(max(n, candidates), len(x)), seed)
    return order[first[batch_bald(_label_draws(members, x[first], draws, seed), n, seed=seed)[0]]]


def check_power(power: float | None, acquisition: Acquisition | Score | None = None) -> None:
    """Raise ValueError unless it is None, or a number above 0 of an acquisition that has a use for it."""
    if power is None:
        return
    if not 0 < power < math.inf:
        raise ValueError(f"power should be above 0 and finite, got {power}")
    if acquisition == "batch_bald":
        raise ValueError("power: batch_bald has no use for it, for it counts what data tell together; take bald")


def check(acquisition: Acquisition | Score, members: Objective | Sequence[Objective], x: Any, draws: int = 20) -> None:
    """Raise ValueError unless the objectives have what an acquisition asks for, of data like x `(N, *event)`."""
    if acquisition not in get_args(Acquisition) and not callable(acquisition):
        raise ValueError(
            f"acquisition should be one of {', '.join(get_args(Acquisition))}, or a function; got {acquisition!r}"
        )
    members = _several(members)
    real = not label_of(members[0], x).has_enumerate_support
    if real and acquisition not in ("variance", "random"):
        name = getattr(acquisition, "__name__", acquisition)
        raise ValueError(f"acquisition: {name} is of classes, but y is real; take variance or random")
    if not real and acquisition == "variance":
        raise ValueError("acquisition: variance is of a real y; of classes take entropy, variation_ratios or margin")
    if acquisition not in ("bald", "batch_bald"):
        return
    check_positive(draws=draws)
    if draws < 2:
        raise ValueError(f"draws should be above 1, for BALD is what differs between them; got {draws}")
    kinds = {_drawn(m, x) for m in members}
    if len(members) > 1 or kinds == {"weights"}:
        return
    if kinds == {None}:
        raise ValueError(
            f"acquisition: {acquisition} wants draws of p(y|x) that differ, but this method is deterministic: a label tells "
            "nothing of its weights. Take entropy; or random weights (sslapd, or bayesian=...), or several members"
        )
    if acquisition == "batch_bald":
        raise ValueError(
            "acquisition: batch_bald wants draws that all data share, of weights or of members; this method draws a latent "
            "for each datum, of which no other label tells anything. Take bald"
        )


def _several(members: Objective | Sequence[Objective]) -> list[Objective]:
    found = [members] if isinstance(members, Objective) else list(members)
    if not found:
        raise ValueError("members should be an objective, or several; got none")
    return found


CHAINS = 10
"""Gibbs chains for each draw of W: what they leave of z's noise in BALD falls with their number."""


def _differ(members: Sequence[Objective], x: Tensor) -> bool:
    return len(members) > 1 or _drawn(members[0], x) is not None


def _drawn(objective: Objective, x: Tensor) -> Literal["weights", "latents"] | None:
    """What differs between a method's draws of p(y|x), for data like x."""
    if _weights_predict(objective):
        return "weights"
    if isinstance(objective.predictor, GibbsPredictor):
        return "latents"
    with eval_mode(objective), fixed_seed(0), torch.no_grad():
        few = objective.encode(x[:8].to(next(objective.parameters(), x)))
        once, again = (_classified(objective.guide, few) for _ in range(2))
    return None if once.equal(again) else "latents"


def _weights_predict(objective: Objective) -> bool:
    """Whether random weights are of what predicts."""
    guide, model = objective.guide, objective.model
    if not hasattr(guide, "draw_weights"):
        return False
    if not hasattr(model, "slots"):  # a pair of another's, whose `given` fills what Gibbs sampling predicts with
        return isinstance(objective.predictor, GibbsPredictor)
    if not isinstance(objective.predictor, GibbsPredictor):
        return guide.slots is not None
    random = {id(owner) for owner, _ in model.slots.places}
    return any(id(part) in random for part in model.program.p_y.modules())


def _draws_of(objective: Objective, x: Tensor, draws: int, seed: int) -> Tensor:
    """Draws of one objective's p(y|x), `(S, N, K)`."""
    kind, guide = _drawn(objective, x), objective.guide
    steps = objective.predictor.steps if isinstance(objective.predictor, GibbsPredictor) else 0
    w = None
    if kind == "weights":
        with eval_mode(objective), fixed_seed(seed):
            w = guide.draw_weights(draws)

    def of_batch(x: Tensor) -> Tensor:
        x = objective.encode(x)
        if steps and w is not None:
            p = walk(objective.model, guide, x, steps=steps, chains=CHAINS, weights=w, skipped=steps // 2)[0].mean(1)
        elif steps:  # the last step's: a mean over z would be no draw of it
            p = walk(objective.model, guide, x, steps=steps, chains=draws, skipped=steps - 1)[0]
        elif w is not None:
            p = torch.stack([_given(guide, one.squeeze(0), x) for one in w])
        else:
            p = torch.stack([_classified(guide, x) for _ in range(draws)])
        return p.transpose(0, 1)

    at_once = AT_ONCE // (draws * (CHAINS if steps and w is not None else 1))
    return chunked(objective, of_batch, max(1, min(at_once, 2**19 // x[0].numel())), seed, x).transpose(0, 1)


def _given(guide: Any, w: Tensor, x: Tensor) -> Tensor:
    with guide.slots.substituted(w):
        return guide.program.classify(x).mean


def _classified(guide: Any, x: Tensor) -> Tensor:
    """p(y|x) by one draw of the latent, where `classify` averages several."""
    inner = getattr(guide, "program", guide)
    before = getattr(inner, "draws", None)
    try:
        if before is not None:
            inner.draws = 1
        return guide.classify(x).mean
    finally:
        if before is not None:
            inner.draws = before


def _variance(members: list[Objective], x: Tensor, seed: int) -> Tensor:
    """Var[y|x], summed over y's dimensions: the mean of the members' variances and the variance of their means."""
    found = [_gibbs(member, x, seed) for member in members]
    means = torch.stack([f.mean for f in found])
    return (torch.stack([f.variance for f in found]).mean(0) + means.var(0, correction=0)).sum(-1)


def _gibbs(objective: Objective, x: Tensor, seed: int) -> Gibbs:
    predictor = objective.predictor
    assert isinstance(predictor, GibbsPredictor)  # the zoo refuses a real y without one
    return gibbs(objective, x, steps=predictor.steps, chains=max(4, predictor.chains), seed=seed)

"""The inputs of acquisition functions: predictions, draws that differ, moments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from pyro_ssl.active.pool import in_order, order_by_value
from pyro_ssl.data.sources import InputRows
from pyro_ssl.infer.gibbs_chain import run_chains
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.objectives.predictors import GibbsPredictor
from pyro_ssl.prediction.chunks import AT_ONCE, chunked, known_rows, label_of
from pyro_ssl.prediction.gibbs import predict_real
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.types import AveragingGuide, WeightSampler, WeightSlots, unwrapped
from pyro_ssl.utils.arguments import check_positive
from pyro_ssl.utils.context import eval_mode, fixed_seed

Members = Objective | Sequence[Objective]
"""A trained objective, or an ensemble of several whose mean predicts."""

CHAINS = 10
"""Gibbs chains per draw of W; the noise of z that remains in BALD falls with their number."""


def label_draws(members: Members, x: Any, draws: int = 20, *, seed: int = 0) -> Tensor:
    """Draw p(y|x) several times, `(S, N, K)` on the CPU.

    The draws differ in the first of these that the method has:

    - random weights (SSLAPD, `bayesian`): a draw is one W for all data. z is averaged over ten
      Gibbs chains without the first half of their steps, since noise of z would look like
      differences between draws of W;
    - several objectives: a draw is the prediction of one of them;
    - latents (z of SSLPE's Gibbs chains and of latent classifiers, a of ADGM): each datum has its
      own. BALD is then information about the latent of that datum, not about anything that
      training can learn.

    >>> from pyro_ssl import zoo
    >>> members = [zoo.build("m2", (3,), 2, hidden=(4,), seed=seed) for seed in range(3)]
    >>> label_draws(members, torch.zeros(5, 3)).shape
    torch.Size([3, 5, 2])

    Arguments:
        members: A trained objective, or several for the same classes.
        x: Data `(N, *event)`.
        draws: S, per objective where these have random weights.
        seed: Seed of the draws.

    Raises:
        ValueError: The draws are all the same; draws is below 2; y is real.
    """
    members = as_members(members)
    x = known_rows(members[0], x)
    if not predicts_classes(members, x):
        raise ValueError("members: y is real and has no class probabilities to draw")
    check_draws(members, x, draws)
    order = order_by_value(x)
    in_its_order = in_order(x, order, members[0])
    return draws_in_order(members, in_its_order, draws, seed)[:, order.argsort()]


def draws_in_order(
    members: list[Objective], x: Tensor | InputRows, draws: int, seed: int
) -> Tensor:
    """Draw as in `label_draws`, but with random numbers that depend on the order of the data.

    >>> from pyro_ssl import zoo
    >>> members = [zoo.build("m2", (3,), 2, hidden=(4,), seed=seed) for seed in range(3)]
    >>> draws_in_order(members, torch.zeros(5, 3), draws=4, seed=0).shape
    torch.Size([3, 5, 2])
    """
    parts = []
    for i, member in enumerate(members):
        if len(members) == 1 or randomness_of(member, x) == "weights":
            parts.append(_draws_of_one(member, x, draws, seed + i))
        else:
            parts.append(predict_proba(member, x, seed=seed)[None])
    return torch.cat(parts)


def predictions(members: list[Objective], x: Tensor | InputRows, seed: int) -> Tensor:
    """Each member's p(y|x), `(M, N, K)` in double precision.

    >>> from pyro_ssl import zoo
    >>> predictions([zoo.build("m2", (3,), 2, hidden=(4,))], torch.zeros(5, 3), seed=0).shape
    torch.Size([1, 5, 2])
    """
    return torch.stack([predict_proba(member, x, seed=seed) for member in members]).double()


def moments(members: list[Objective], x: Tensor | InputRows, seed: int) -> tuple[Tensor, Tensor]:
    """Each member's E[y|x] and Var[y|x] of a real label, both `(M, N, D)`, by Gibbs sampling.

    >>> from pyro_ssl import zoo
    >>> sslpe = zoo.build("sslpe", (3,), 1, regression=True, hidden=(4,))
    >>> means, variances = moments([sslpe], torch.zeros(5, 3), seed=0)
    >>> variances.shape
    torch.Size([1, 5, 1])
    """
    results = [predict_real(member, x, seed=seed) for member in members]
    means = torch.stack([result.mean for result in results])
    variances = torch.stack([result.variance for result in results])
    return means, variances


def _gibbs_steps(objective: Objective) -> int:
    """Steps of the Gibbs sampler by which an objective predicts; 0 if it predicts by its guide."""
    predictor = objective.predictor
    return predictor.steps if isinstance(predictor, GibbsPredictor) else 0


# --- checks ---------------------------------------------------------------------------------------


def as_members(members: Members) -> list[Objective]:
    """Return one objective or several as a list; raise ValueError if there is none.

    >>> from pyro_ssl import zoo
    >>> len(as_members(zoo.build("m2", (3,), 2, hidden=(4,))))
    1
    """
    if isinstance(members, Objective):
        return [members]
    if not members:
        raise ValueError("members should be an objective or several, got none")
    return list(members)


def predicts_classes(members: list[Objective], x: Any) -> bool:
    """Return True if y is a class, and False if it is real.

    >>> from pyro_ssl import zoo
    >>> predicts_classes([zoo.build("m2", (3,), 2, hidden=(4,))], torch.zeros(5, 3))
    True
    """
    return bool(label_of(members[0], x).has_enumerate_support)


def check_draws(
    members: list[Objective], x: Tensor | InputRows, draws: int, *, shared: bool = False
) -> None:
    """Raise ValueError unless draws of p(y|x) differ.

    Arguments:
        members: The objectives.
        x: Data like those of the pool.
        draws: S.
        shared: Each draw has to apply to all data, as for the joint information of labels.

    >>> from pyro_ssl import zoo
    >>> adgm = zoo.build("adgm", (3,), 2, hidden=(4,))
    >>> check_draws([adgm], torch.rand(5, 3), draws=20)
    """
    check_positive(draws=draws)
    if draws < 2:
        raise ValueError(f"draws should be above 1, since BALD compares draws; got {draws}")
    if len(members) > 1:
        return
    randomness = randomness_of(members[0], x)
    if randomness is None:
        raise ValueError(
            "acquisition: this method is deterministic, so its draws of p(y|x) do not differ; "
            "use entropy, random weights (sslapd, or bayesian=...) or several members"
        )
    if shared and randomness == "latents":
        raise ValueError(
            "acquisition: batch_bald needs draws that all data share, of weights or of members, "
            "but this method draws a latent for each datum; use bald"
        )


def draws_differ(members: list[Objective], x: Tensor | InputRows) -> bool:
    """Return True if draws of p(y|x) differ.

    >>> from pyro_ssl import zoo
    >>> draws_differ([zoo.build("m2", (3,), 2, hidden=(4,))], torch.rand(5, 3))
    False
    """
    return len(members) > 1 or randomness_of(members[0], x) is not None


def randomness_of(
    objective: Objective, x: Tensor | InputRows
) -> Literal["weights", "latents"] | None:
    """Source of the differences between a method's draws of p(y|x), for data like x.

    None if the draws do not differ.

    >>> from pyro_ssl import zoo
    >>> randomness_of(zoo.build("adgm", (3,), 2, hidden=(4,)), torch.rand(5, 3))
    'latents'
    """
    if _weights_predict(objective):
        return "weights"
    if _gibbs_steps(objective):
        return "latents"
    with eval_mode(objective), fixed_seed(0), torch.no_grad():
        rows = x[:8]
        few = objective.encode(rows.to(next(objective.parameters(), rows)))
        first = _classify_by_one_draw(objective.guide, few)
        second = _classify_by_one_draw(objective.guide, few)
    return None if first.equal(second) else "latents"


def _weights_predict(objective: Objective) -> bool:
    """Return True if weights that take part in the prediction are random."""
    guide = objective.guide
    model = objective.model
    if not isinstance(objective.guide, WeightSampler):
        return False
    if not isinstance(objective.model, WeightSlots):  # not the zoo's: `given` sets what predicts
        return _gibbs_steps(objective) > 0
    if not _gibbs_steps(objective):
        return guide.slots is not None
    random_modules = {id(owner) for owner, _ in model.slots.entries}
    return any(id(module) in random_modules for module in model.program.p_y.modules())


# --- draws of one objective -----------------------------------------------------------------------


def _draws_of_one(objective: Objective, x: Tensor | InputRows, draws: int, seed: int) -> Tensor:
    """Draws of one objective's p(y|x), `(S, N, K)`."""
    weights = None
    if randomness_of(objective, x) == "weights":
        with eval_mode(objective), fixed_seed(seed):
            weights = objective.guide.draw_weights(draws)

    def draws_of_batch(batch: Tensor) -> Tensor:
        return _draws_of_batch(objective, objective.encode(batch), draws, weights).transpose(0, 1)

    evaluations = draws
    if _gibbs_steps(objective) and weights is not None:
        evaluations = draws * CHAINS
    rows = max(1, min(AT_ONCE // evaluations, 2**19 // x[0].numel()))
    return chunked(objective, draws_of_batch, rows, seed, x).transpose(0, 1)


def _draws_of_batch(objective: Objective, x: Tensor, draws: int, weights: Tensor | None) -> Tensor:
    """Draws `(S, B, K)` for encoded data."""
    model = objective.model
    guide = objective.guide
    steps = _gibbs_steps(objective)
    if steps and weights is not None:
        burn_in = steps // 2
        p, _, _ = run_chains(
            model, guide, x, steps=steps, chains=CHAINS, weights=weights, burn_in=burn_in
        )
        return p.mean(1)
    if steps:  # only the last step: a mean over steps would average z out
        p, _, _ = run_chains(model, guide, x, steps=steps, chains=draws, burn_in=steps - 1)
        return p
    if weights is not None:
        return torch.stack([_classify_given_weights(guide, w.squeeze(0), x) for w in weights])
    return torch.stack([_classify_by_one_draw(guide, x) for _ in range(draws)])


def _classify_given_weights(guide: Any, weights: Tensor, x: Tensor) -> Tensor:
    with guide.slots.substituted(weights):
        return _classify(guide.program, x)


def _classify_by_one_draw(guide: Any, x: Tensor) -> Tensor:
    """p(y|x) by one draw of the latent, where `classify` averages over several."""
    program = unwrapped(guide)
    averaged = program.draws if isinstance(program, AveragingGuide) else None
    if averaged is None:
        return _classify(guide, x)
    try:
        program.draws = 1
        return _classify(guide, x)
    finally:
        program.draws = averaged


def _classify(guide: Any, x: Tensor) -> Tensor:
    p: Tensor = guide.classify(x).mean
    return p

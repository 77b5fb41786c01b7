"""The earlier losses beside variational classification, against their formulas."""

import math

import pytest
import torch

from pyro_ssl import Batch, fit, zoo
from pyro_ssl.objectives.objective import Objective


@pytest.fixture
def margins(scripts):
    return scripts("margins")


def classified(method: str, **options: object) -> tuple[Objective, torch.Tensor, torch.Tensor]:
    """An objective in float64, one-hot classes `(6, 3)` and codes `(6, 2)`."""
    objective = zoo.build(method, (4,), 3, z_dim=2, seed=0, hidden=(4,), **options).double()
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    return objective, torch.eye(3).double()[torch.arange(6) % 3], z


@pytest.mark.parametrize("margin", [1, 2, 3, 4])
def test_the_angular_function_is_that_of_the_paper_and_falls(margins, margin):
    theta = torch.linspace(0.01, math.pi - 0.01, 301, dtype=torch.float64)
    k = (theta * margin / math.pi).floor()
    expected = (-1) ** k * (margin * theta).cos() - 2 * k
    found = margins.angular(theta.cos(), margin)
    torch.testing.assert_close(found, expected)
    assert bool((found.diff() < 0).all())


def test_large_margin_softmax_is_cross_entropy_with_the_own_logit_lowered(margins):
    ce, y, z = classified("ce")
    p_z = ce.model.p_z
    w = p_z.loc / p_z.scale**2
    bias = ce.guide.p_y.layer(torch.zeros(1, 2).double())
    logits = z @ w.T + bias
    for i in range(6):
        own = w[i % 3]
        theta = torch.acos(own @ z[i] / own.norm() / z[i].norm())
        psi = (2 * theta).cos() if theta < math.pi / 2 else -(2 * theta).cos() - 2
        logits[i, i % 3] = own.norm() * z[i].norm() * psi + bias[0, i % 3]
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(6) % 3)
    torch.testing.assert_close(margins.LargeMargin(ce.guide.p_y, 2).loss(y, z), expected)


def test_without_a_margin_both_losses_are_the_cross_entropy(margins):
    for method, term in (("ce", margins.LargeMargin), ("gm", margins.MixtureMargin)):
        objective, y, z = classified(method)
        expected = -objective.guide.p_y(z).log_prob(y).mean()
        no_margin = 1 if method == "ce" else 0.0
        torch.testing.assert_close(term(objective.guide.p_y, no_margin).loss(y, z), expected)


def test_the_mixtures_margin_multiplies_the_own_distance(margins):
    gm, y, z = classified("gm")
    p_z = gm.model.p_z
    distance = 0.5 * ((z.unsqueeze(1) - p_z.loc) / p_z.scale).square().sum(-1)
    logits = gm.guide.p_y.joint(z) - 0.3 * y * distance
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(6) % 3)
    torch.testing.assert_close(margins.MixtureMargin(gm.guide.p_y, 0.3).loss(y, z), expected)


def test_centres_move_by_the_papers_rule(margins):
    _, y, z = classified("ce")
    term = margins.CentreLoss(2, 3, 0.003, rate=0.5).double()
    term.centres = torch.ones(3, 2).double()
    term.move(y[:4], z[:4])  # class 0 twice, the others once
    first = 1 - 0.5 * ((1 - z[0]) + (1 - z[3])) / 3
    second = 1 - 0.5 * (1 - z[1]) / 2
    torch.testing.assert_close(term.centres[:2], torch.stack([first, second]))


def test_centres_rest_in_evaluation_and_are_saved(margins):
    comparator = margins.COMPARATORS["centre"]
    objective = margins.build(
        "centre", (4,), 3, arguments=comparator.arguments, seed=0, options={"z_dim": 2}
    )
    batch = Batch(torch.rand(6, 4), torch.eye(3)[torch.arange(6) % 3])
    before = objective.terms[-1].centres.clone()
    objective.eval()(batch)
    assert torch.equal(objective.terms[-1].centres, before)
    objective.train()(batch)
    assert not torch.equal(objective.terms[-1].centres, before)
    assert any(key.endswith("centres") for key in objective.state_dict())


@pytest.mark.parametrize("name", ["large_margin", "centre", "mixture_margin"])
def test_a_comparator_lowers_its_own_loss(margins, name):
    comparator = margins.COMPARATORS[name]
    options = {"z_dim": 2, "hidden": (8,), "unlabeled_weight": 0.0} | comparator.options
    objective = margins.build(
        name, (4,), 3, arguments=comparator.arguments, seed=0, options=options
    )
    y = torch.arange(60) % 3
    x = torch.rand(60, 4, generator=torch.Generator().manual_seed(0)) + y.unsqueeze(-1)
    settings = {"batch_size": 60, "labeled_batch_size": 60, "progress": False}
    history = fit(objective, x, y, epochs=30, lr=0.03, seed=0, **settings)
    part = {"large_margin": "LargeMargin", "mixture_margin": "MixtureMargin"}
    losses = history[part.get(name, "LabelLogProb")]
    assert losses[-1] < 0.5 * losses[0]


def test_margins_that_are_none_are_refused(margins):
    bayes = zoo.build("gm", (4,), 3, z_dim=2).guide.p_y
    with pytest.raises(ValueError, match="one variance"):
        margins.LargeMargin(bayes, 2)
    with pytest.raises(ValueError, match="margin should be 0 or above, got -1"):
        margins.MixtureMargin(bayes, -1.0)
    with pytest.raises(ValueError, match="margin should be 1 or above, got 0"):
        margins.LargeMargin(bayes, 0)

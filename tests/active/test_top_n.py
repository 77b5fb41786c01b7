"""The n highest scores, and draws in proportion to a power of them."""

import math

import pytest
import torch
from programs.active import K, N, draws

from pyro_ssl.active.bald import bald, batch_bald
from pyro_ssl.active.top_n import power_scores, top_n


def test_top_n_are_the_highest_and_ties_depend_on_the_seed():
    values = torch.tensor([1.0, 3.0, 2.0, 3.0, 3.0, 0.0])
    assert top_n(values, 4).tolist()[3] == 2 and set(top_n(values, 3).tolist()) == {1, 3, 4}
    firsts = {tuple(top_n(values, 1, seed).tolist()) for seed in range(30)}
    assert firsts == {(1,), (3,), (4,)} and top_n(values, 5, 7).equal(top_n(values, 5, 7))
    agree = bald(draws(1, (1, 200, K)).expand(5, -1, -1))
    assert len({int(top_n(agree, 1, seed)) for seed in range(5)}) == 5
    assert top_n(torch.tensor([-torch.inf, 1e-30, -torch.inf]), 1).tolist() == [1]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: top_n(torch.zeros(3), 4), "n should be at most 3"),
        (lambda: top_n(torch.zeros(3), 0), "n should be a whole number above 0"),
        (lambda: top_n(torch.tensor([0.0, math.nan]), 1), "NaN"),
        (lambda: top_n(bald(math.nan * draws()), 1), "NaN"),
        (lambda: batch_bald(math.nan * draws(), 1), "NaN"),
        (lambda: batch_bald(draws(), N + 1), f"n should be at most {N}"),
        (lambda: batch_bald(draws(), 1, configurations=K - 1), "configurations"),
    ],
)
def test_selection_refuses_invalid_arguments(call, said):
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_power_scores_draw_in_proportion(power):
    """The first pick as often as its share, the second as often as its share of the rest."""
    scores = torch.tensor([1.0, 2.0, 0.5, 0.0])
    share = scores.double() ** power / (scores.double() ** power).sum()
    seeds = 4000
    picks = torch.stack([top_n(power_scores(scores, power, s), 2, s) for s in range(seeds)])
    first, pairs = (
        picks[:, 0].bincount(minlength=4) / seeds,
        (picks == torch.tensor([1, 0])).all(1).double().mean(),
    )
    assert (first - share).abs().max() < 4 * 0.5 / math.sqrt(seeds)
    assert abs(pairs - share[1] * share[0] / (1 - share[1])) < 4 * 0.5 / math.sqrt(seeds)
    assert not (picks == 3).any()  # what tells nothing comes last
    assert top_n(power_scores(scores, 1e6), 4).tolist() == [1, 0, 2, 3]

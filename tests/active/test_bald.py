"""BALD within its bounds, BatchBALD against the whole joint distribution of the labels."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from programs.active import K, N, draws

from pyro_ssl.active.bald import bald, batch_bald


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(2, 5), st.floats(0.01, 30))
@settings(max_examples=50, deadline=None)
def test_bald_is_bounded_and_zero_for_equal_draws(seed, s, k, sharpness):
    p = (sharpness * draws(seed, (s, N, k)).log()).softmax(-1)
    assert (bald(p) >= 0).all() and (bald(p) <= math.log(k) + 1e-12).all()
    assert (bald(p[:1].expand(s, N, k)) < 1e-12).all()


def test_bald_reaches_its_bounds():
    certain = torch.eye(K, dtype=torch.float64)[:, None].expand(
        K, N, K
    )  # each draw is sure, of another class
    torch.testing.assert_close(bald(certain), torch.full((N,), math.log(K), dtype=torch.float64))
    assert bald(certain[:1]).eq(0).all()


def information(p, rows):
    """I(y_rows; s) by the whole table of their joint."""
    s, _, k = p.shape
    joint = []
    for labels in product(range(k), repeat=len(rows)):
        factors = [p[:, i, c] for i, c in zip(rows, labels, strict=True)]
        joint.append(torch.stack(factors).prod(0))
    joint = torch.stack(joint)
    return (
        torch.special.entr(joint.mean(1)).sum()
        - torch.special.entr(p[:, rows]).sum(-1).sum(1).mean()
    )


def test_batch_bald_of_one_equals_bald():
    p = draws()
    chosen, gains = batch_bald(p, 1)
    assert int(chosen) == int(bald(p).argmax())
    torch.testing.assert_close(gains[0], bald(p).max(), atol=1e-10, rtol=0)


@pytest.mark.parametrize("seed", range(5))
def test_batch_bald_is_greedy_by_the_whole_joint(seed):
    p = draws(seed)
    chosen, gains = batch_bald(p, 3)
    for m in range(3):
        before = chosen[:m].tolist()
        every = {i: information(p, [*before, i]) for i in range(N) if i not in before}
        assert int(chosen[m]) == max(every, key=every.get)
        torch.testing.assert_close(gains[: m + 1].sum(), every[int(chosen[m])], atol=1e-10, rtol=0)


@pytest.mark.parametrize("configurations", [10_000, 9_999, 2_000])
def test_batch_bald_with_sampled_labels_has_the_exact_gains(configurations, monkeypatch):
    """Eight of ten classes are impossible, so 2^10 labelings remain: two classes sum them all.

    With ten classes the same labelings are sampled.
    """
    generator = torch.Generator().manual_seed(0)
    two = (3 * torch.randn(20, 10, 2, generator=generator, dtype=torch.float64)).softmax(-1)
    p = torch.cat([two * (1 - 8e-9), torch.full((20, 10, 8), 1e-9, dtype=torch.float64)], -1)
    _, exact = batch_bald(two, 10, configurations=2**12)
    found = torch.stack(
        [
            batch_bald(p, 10, configurations=configurations, seed=seed)[1].cumsum(0)
            for seed in range(5)
        ]
    )
    assert not found[0, 9].equal(found[1, 9])  # drawn
    error = found.std(0) / 5**0.5
    assert ((found.mean(0) - exact.cumsum(0)).abs() < 4 * error + 0.01).all() and error[9] < 0.03


def test_batch_bald_does_not_choose_equivalent_data():
    bits = torch.tensor(
        [[0, 0, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    )  # of four draws, sure of all
    p = torch.eye(2, dtype=torch.float64)[bits]
    assert bald(p)[:3].allclose(torch.tensor(math.log(2)).double())
    for seed in range(10):
        chosen, gains = batch_bald(p, 2, seed=seed)
        assert sorted(i // 3 for i in chosen.tolist()) == [0, 1] and gains.sum().allclose(
            torch.tensor(math.log(4)).double()
        )


def test_batch_bald_breaks_ties_by_bald():
    """Two certain draws are told apart by one label; the gains of the others are rounding."""
    p = (20 * draws(5, (2, 60, K)).log()).softmax(-1)
    alone, (chosen, gains) = bald(p), batch_bald(p, 10)
    assert gains[1:].max() < 1e-3
    assert int((gains > 1e-9).sum()) < 10 and len(set(chosen.tolist())) == 10
    assert alone[chosen].min() > alone.sort().values[-10] - 1e-8 > 0.6
    agree = p[:1].expand(3, -1, -1)
    assert not batch_bald(agree, 5, seed=0)[0].equal(batch_bald(agree, 5, seed=1)[0])


def test_batch_bald_is_at_most_log_of_the_draws():
    assert batch_bald(draws(3, (4, 50, K)), 20)[1].sum() <= 1.02 * math.log(4)

"""Acquisition functions against loops, BatchBALD against the whole joint, draws against what they are draws of."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_ssl import (
    Objective,
    fit,
    gibbs,
    guides,
    predict_proba,
    zoo,
)
from pyro_ssl.active import acquisition
from pyro_ssl.active.acquisition import (
    bald,
    batch_bald,
    entropy,
    label_draws,
    margin,
    scores,
    top_n,
    variation_ratios,
)
from pyro_ssl.infer.gibbs import Gibbs

S, N, K = 5, 7, 3
FUNCTIONS = {"entropy": entropy, "variation_ratios": variation_ratios, "margin": margin, "bald": bald}


def draws(seed=0, size=(S, N, K)):
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(size, generator=generator, dtype=torch.float64)).softmax(-1)


def by_loops(name, p):
    """One datum after the other, with Python's own logarithm."""
    found = []
    for i in range(p.shape[1]):
        rows = [[float(v) for v in row] for row in p[:, i]]
        mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        h = lambda q: -sum(v * math.log(v) for v in q if v)  # noqa: E731
        top_k = sorted(mean, reverse=True)
        found.append({
            "entropy": h(mean), "variation_ratios": 1 - top_k[0], "margin": 1 - top_k[0] + top_k[1],
            "bald": h(mean) - sum(map(h, rows)) / len(rows),
        }[name])  # fmt: skip
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_functions_are_what_loops_give(name, seed):
    p = draws(seed)
    p[:, 0] = torch.eye(K, dtype=p.dtype)[1]  # of probability 0 the logarithm is not taken
    torch.testing.assert_close(FUNCTIONS[name](p), by_loops(name, p), atol=1e-10, rtol=0)


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(2, 5), st.floats(0.01, 30))
@settings(max_examples=50, deadline=None)
def test_bald_is_within_its_bounds_and_zero_where_draws_agree(seed, s, k, sharpness):
    p = (sharpness * draws(seed, (s, N, k)).log()).softmax(-1)
    assert (bald(p) >= 0).all() and (bald(p) <= math.log(k) + 1e-12).all()
    assert (bald(p[:1].expand(s, N, k)) < 1e-12).all()


def test_bald_reaches_its_bounds():
    certain = torch.eye(K, dtype=torch.float64)[:, None].expand(K, N, K)  # each draw is sure, of another class
    torch.testing.assert_close(bald(certain), torch.full((N,), math.log(K), dtype=torch.float64))
    assert bald(certain[:1]).eq(0).all()


# --- batches ----------------------------------------------------------------------------------------------------------


def information(p, rows):
    """I(y_rows; s) by the whole table of their joint."""
    s, _, k = p.shape
    joint = torch.stack([
        torch.stack([p[:, i, c] for i, c in zip(rows, labels, strict=True)]).prod(0) for labels in product(range(k), repeat=len(rows))
    ])  # fmt: skip
    return torch.special.entr(joint.mean(1)).sum() - torch.special.entr(p[:, rows]).sum(-1).sum(1).mean()


def test_batch_bald_of_one_is_bald():
    p = draws()
    chosen, gains = batch_bald(p, 1)
    assert int(chosen) == int(bald(p).argmax())
    torch.testing.assert_close(gains[0], bald(p).max(), atol=1e-10, rtol=0)


@pytest.mark.parametrize("seed", range(5))
def test_batch_bald_of_two_and_three_is_greedy_by_the_whole_joint(seed):
    p = draws(seed)
    chosen, gains = batch_bald(p, 3)
    for m in range(3):
        before = chosen[:m].tolist()
        every = {i: information(p, [*before, i]) for i in range(N) if i not in before}
        assert int(chosen[m]) == max(every, key=every.get)
        torch.testing.assert_close(gains[: m + 1].sum(), every[int(chosen[m])], atol=1e-10, rtol=0)


@pytest.mark.parametrize("configurations", [10_000, 9_999, 2_000])
def test_batch_bald_of_labels_drawn_has_the_gains_of_all_labels(configurations, monkeypatch):
    """Ten classes of which eight never are: of ten data 2^10 labels can be, which are summed as two classes, and drawn as ten."""
    generator = torch.Generator().manual_seed(0)
    two = (3 * torch.randn(20, 10, 2, generator=generator, dtype=torch.float64)).softmax(-1)
    p = torch.cat([two * (1 - 8e-9), torch.full((20, 10, 8), 1e-9, dtype=torch.float64)], -1)
    _, exact = batch_bald(two, 10, configurations=2**12)
    found = torch.stack([batch_bald(p, 10, configurations=configurations, seed=seed)[1].cumsum(0) for seed in range(5)])
    assert not found[0, 9].equal(found[1, 9])  # drawn
    error = found.std(0) / 5**0.5
    assert ((found.mean(0) - exact.cumsum(0)).abs() < 4 * error + 0.01).all() and error[9] < 0.03


NO_DRAWS = {
    "logits": (lambda p: p.log() - 1, "p should be probabilities, got numbers from"),
    "not normalised": (lambda p: 0.5 * p, r"p should sum to 1 over the classes, got a row of sum 0\.5"),
    "NaN": (lambda p: p.index_fill(1, torch.tensor([2]), torch.nan), "p holds NaN or infinity, first in row 2"),
    "one draw's": (lambda p: p[0], r"p should have shape \(S, N, K\).*got \(7, 3\)"),
    "no draws": (lambda p: p[:0], r"p should have shape \(S, N, K\)"),
    "one class": (lambda p: p[..., :1], r"with two classes or more, got \(5, 7, 1\)"),
    "words": (lambda p: np.full(p.shape, "a"), "p should hold numbers"),
}


@pytest.mark.parametrize("name", [*FUNCTIONS, "batch_bald"])
@pytest.mark.parametrize("case", NO_DRAWS)
def test_what_are_no_draws_is_refused(name, case):
    function = FUNCTIONS.get(name, lambda p: batch_bald(p, 2))
    spoil, message = NO_DRAWS[case]
    with pytest.raises((ValueError, TypeError), match=message):
        function(spoil(draws()))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_draws_may_be_an_array(name):
    p = draws()
    torch.testing.assert_close(FUNCTIONS[name](p.numpy()), FUNCTIONS[name](p))
    assert batch_bald(p.numpy(), 2)[0].equal(batch_bald(p, 2)[0])
    scored = FUNCTIONS[name](p)
    assert top_n(scored.numpy(), 3).equal(top_n(scored, 3))
    assert acquisition.power_scores(scored.numpy(), 1.0).equal(acquisition.power_scores(scored, 1.0))


def test_batch_bald_does_not_ask_the_same_twice():
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


def test_draws_that_are_told_apart_are_asked_by_what_each_datum_tells():
    """Of two draws that are sure, one label says all: what is left of the others' gains is rounding."""
    p = (20 * draws(5, (2, 60, K)).log()).softmax(-1)
    alone, (chosen, gains) = bald(p), batch_bald(p, 10)
    assert gains[1:].max() < 1e-3
    assert int((gains > 1e-9).sum()) < 10 and len(set(chosen.tolist())) == 10
    assert alone[chosen].min() > alone.sort().values[-10] - 1e-8 > 0.6
    agree = p[:1].expand(3, -1, -1)
    assert not batch_bald(agree, 5, seed=0)[0].equal(batch_bald(agree, 5, seed=1)[0])


def test_batches_tell_no_more_than_the_draws_differ():
    assert batch_bald(draws(3, (4, 50, K)), 20)[1].sum() <= 1.02 * math.log(4)


# --- choosing ---------------------------------------------------------------------------------------------------------


def test_the_best_are_the_highest_and_ties_go_by_the_seed():
    values = torch.tensor([1.0, 3.0, 2.0, 3.0, 3.0, 0.0])
    assert top_n(values, 4).tolist()[3] == 2 and set(top_n(values, 3).tolist()) == {1, 3, 4}
    firsts = {tuple(top_n(values, 1, seed).tolist()) for seed in range(30)}
    assert firsts == {(1,), (3,), (4,)} and top_n(values, 5, 7).equal(top_n(values, 5, 7))
    agree = bald(draws(1, (1, 200, K)).expand(5, -1, -1))
    assert len({int(top_n(agree, 1, seed)) for seed in range(5)}) == 5
    assert top_n(torch.tensor([-torch.inf, 1e-30, -torch.inf]), 1).tolist() == [1]


@pytest.mark.parametrize("name", [*FUNCTIONS, "batch_bald"])
def test_the_order_of_the_pool_does_not_matter(name):
    p, order = draws(4, (S, 40, K)), torch.randperm(40, generator=torch.Generator().manual_seed(1))
    pick = (lambda p: batch_bald(p, 5)[0]) if name == "batch_bald" else (lambda p: top_n(FUNCTIONS[name](p), 5))
    assert order[pick(p[:, order])].equal(pick(p))


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
def test_what_cannot_be_chosen_is_said(call, said):
    with pytest.raises(ValueError, match=said):
        call()


# --- methods ----------------------------------------------------------------------------------------------------------

SMALL = {"hidden": (8,), "z_dim": 2}
X = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long().where(torch.arange(30) < 10, -1)


def trained(name, seed=0, **options):
    objective = zoo.build(
        name, (4,), 2, seed=seed, **{k: v for k, v in (SMALL | options).items() if k in zoo.options_of(name)}
    )
    fit(objective, X, Y, epochs=5, batch_size=10, progress=False)
    return objective


@pytest.fixture(scope="module")
def methods():
    torch.manual_seed(0)
    spread = {"log_variance": -2.0}
    return {
        "m2": trained("m2"), "adgm": trained("adgm"), "sslpe": trained("sslpe"), "sslapd": trained("sslapd", **spread),
        "latent_classifier": trained("latent_classifier"), "ce": trained("ce"),
        "random latent": trained("latent_classifier", bayesian=("p_y",), **spread),
    }  # fmt: skip


STOCHASTIC = ["adgm", "sslpe", "sslapd", "latent_classifier", "random latent"]


@pytest.mark.parametrize("name", STOCHASTIC)
def test_the_mean_of_the_draws_is_what_is_predicted(methods, name):
    objective = methods[name]
    p = label_draws(objective, X, 400)
    assert p.shape == (400, 30, 2) and not p[0].equal(p[1])
    torch.testing.assert_close(p.sum(-1), torch.ones(400, 30))
    many = torch.stack([predict_proba(objective, X, seed=s) for s in range(40)])
    error = (p.var(0) / 400 + many.var(0) / 40).sqrt() + 1e-4
    assert ((p.mean(0) - many.mean(0)).abs() / error).max() < 5


@pytest.mark.parametrize("name", ["sslapd", "random latent"])
def test_a_draw_of_weights_is_the_same_for_all_data(methods, name):
    twice = torch.cat([X, X])
    p = label_draws(methods[name], twice, 200)
    same = torch.corrcoef(torch.stack([p[:, 0, 1], p[:, 30, 1]]))[0, 1]
    assert same > 0.8  # z is another in each copy, W is not
    assert acquisition._drawn(methods[name], X) == "weights"


def test_the_chains_of_one_draw_of_weights_do_not_look_like_several(methods):
    """BALD of equal weights is zero but for z's noise, which has to be far below what weights that differ give."""
    objective = methods["sslapd"]
    apart = bald(label_draws(objective, X, 20).double())
    draw = objective.guide.draw_weights
    try:
        objective.guide.draw_weights = lambda n: draw(1).expand(n, 1, -1)
        same = bald(label_draws(objective, X, 20).double())
    finally:
        del objective.guide.draw_weights
    assert same.mean() < 0.2 * apart.mean()


def test_weights_that_do_not_predict_are_no_draws():
    objective = trained("sslpe", bayesian=("p_x",))
    assert acquisition._drawn(objective, X) == "latents"
    with pytest.raises(ValueError, match="latent for each datum"):
        scores(objective, X, "batch_bald")


@pytest.mark.parametrize("name", ["sslpe", "adgm", "latent_classifier"])
def test_a_latent_is_another_for_each_datum(methods, name):
    p = label_draws(methods[name], torch.cat([X, X + 1e-6]), 200)
    apart = torch.corrcoef(torch.stack([p[:, 0, 1], p[:, 30, 1]]))[0, 1]
    assert apart.abs() < 0.3 and acquisition._drawn(methods[name], X) == "latents"


@pytest.mark.parametrize("name", STOCHASTIC)
def test_scores_of_parts_are_those_of_the_pool(methods, name, monkeypatch):
    whole = scores(methods[name], X, "bald", draws=8)
    assert whole.shape == (30,) and (whole >= 0).all() and whole.max() > 0
    torch.testing.assert_close(whole, bald(label_draws(methods[name], X, 8).double()))
    monkeypatch.setattr(acquisition, "MAX_DRAWN_VALUES", 8 * 2 * 7)
    torch.testing.assert_close(scores(methods[name], X, "bald", draws=8), whole, atol=1e-4, rtol=0)


def test_an_ensemble_is_draws_of_its_members(methods):
    members = [trained("m2", seed) for seed in range(3)]
    p = torch.stack([predict_proba(m, X) for m in members])
    torch.testing.assert_close(label_draws(members, X), p)
    torch.testing.assert_close(scores(members, X, "bald"), bald(p.double()))
    torch.testing.assert_close(scores(members, X, "entropy"), entropy(p.double()))
    assert acquisition.acquire(members, X, 3, "batch_bald").equal(batch_bald(p, 3)[0])
    assert label_draws([methods["sslapd"], methods["sslapd"]], X, 4).shape == (8, 30, 2)


def test_variance_of_a_real_label(monkeypatch):
    target = torch.sin(X[:, :1]).where(Y[:, None] >= 0, torch.nan)
    members = []
    for seed in range(2):
        objective = zoo.build("sslpe", (4,), 1, seed=seed, regression=True, **SMALL)
        fit(objective, X, target, epochs=5, batch_size=10, progress=False)
        members.append(objective)
    x = X[acquisition._by_value(X)]  # as they are drawn for
    one, two = (gibbs(m, x, steps=10, chains=4) for m in members)
    torch.testing.assert_close(scores(members[0], x, "variance"), one.variance.sum(-1))
    spread = (one.mean - two.mean).square() / 4
    torch.testing.assert_close(scores(members, x, "variance"), ((one.variance + two.variance) / 2 + spread).sum(-1))
    with pytest.raises(ValueError, match="y is real; take variance"):
        scores(members, x, "entropy")

    generator = torch.Generator().manual_seed(0)
    found = [Gibbs(*torch.rand(3, N, 2, generator=generator, dtype=torch.float64)) for _ in range(2)]
    answers = iter(found)
    monkeypatch.setattr(acquisition, "gibbs", lambda *_, **__: next(answers))
    by_loop = []
    for i in range(N):  # of each dimension the mixture's second moment less its mean squared
        total = 0.0
        for d in range(2):
            m, v = ([float(getattr(f, what)[i, d]) for f in found] for what in ("mean", "variance"))
            total += sum(v[k] + m[k] ** 2 for k in range(2)) / 2 - (sum(m) / 2) ** 2
        by_loop.append(total)
    wanted = torch.tensor(by_loop, dtype=torch.float64)
    torch.testing.assert_close(scores(members, x[:N], "variance"), wanted, atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("name", "asked", "draws", "said"),
    [
        ("m2", "bald", 5, "deterministic"),
        ("ce", "bald", 5, "deterministic"),
        ("m2", "batch_bald", 5, "deterministic"),
        ("adgm", "batch_bald", 5, "latent for each datum"),
        ("sslpe", "batch_bald", 5, "latent for each datum"),
        ("sslapd", "bald", 1, "draws should be above 1"),
        ("sslapd", "bald", 2.5, "draws should be a whole number"),
        ("m2", "variance", 5, "of a real y"),
        ("m2", "surprise", 5, "acquisition should be one of"),
    ],
)
def test_what_a_method_has_not_is_said(methods, name, asked, draws, said):
    with pytest.raises(ValueError, match=said):
        scores(methods[name], X, asked, draws=draws)


def test_no_members_and_too_many_data(methods):
    with pytest.raises(ValueError, match="members"):
        scores([], X)
    with pytest.raises(ValueError, match="n should be at most 30"):
        acquisition.acquire(methods["m2"], X, 31)
    with pytest.raises(ValueError, match="is empty"):
        acquisition.acquire(methods["m2"], X[:0], 1)


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_by_power_data_are_drawn_in_proportion(power):
    """The first pick as often as its share, the second as often as its share of the rest."""
    scores = torch.tensor([1.0, 2.0, 0.5, 0.0])
    share = scores.double() ** power / (scores.double() ** power).sum()
    seeds = 4000
    picks = torch.stack([top_n(acquisition.power_scores(scores, power, s), 2, s) for s in range(seeds)])
    first, pairs = picks[:, 0].bincount(minlength=4) / seeds, (picks == torch.tensor([1, 0])).all(1).double().mean()
    assert (first - share).abs().max() < 4 * 0.5 / math.sqrt(seeds)
    assert abs(pairs - share[1] * share[0] / (1 - share[1])) < 4 * 0.5 / math.sqrt(seeds)
    assert not (picks == 3).any()  # what tells nothing comes last
    assert top_n(acquisition.power_scores(scores, 1e6), 4).tolist() == [1, 0, 2, 3]


def test_power_of_a_method_and_what_has_none(methods):
    top_k, drawn, again = (acquisition.acquire(methods["m2"], X, 6, power=p, seed=1) for p in (None, 1.0, 1.0))
    assert drawn.equal(again) and not drawn.equal(top_k) and len(set(drawn.tolist())) == 6
    with pytest.raises(ValueError, match="power: batch_bald has no use for it"):
        acquisition.acquire(methods["sslapd"], X, 2, "batch_bald", power=1.0)
    for power, of, message in (
        (0.0, torch.ones(2), "power should be above 0 and finite, got 0.0"),
        (float("inf"), torch.ones(2), "power should be above 0"),
        (1.0, torch.tensor([1.0, -1.0]), "scores of 0 or above, got -1.0"),
        (1.0, torch.tensor([1.0, torch.nan]), "scores hold NaN, first of datum 1"),
    ):
        with pytest.raises(ValueError, match=message):
            acquisition.power_scores(of, power)


@pytest.mark.parametrize("name", ["m2", "adgm", "sslapd", "latent_classifier"])
def test_the_pool_may_be_numpys(methods, name):
    for asked in ("entropy", "bald" if name != "m2" else "margin", acquisition.variation_ratios):
        of_double = acquisition.acquire(methods[name], X.double().numpy(), 5, asked)
        assert of_double.equal(acquisition.acquire(methods[name], X, 5, asked))


def test_random_is_by_the_seed_and_moves_nothing(methods):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    found = [acquisition.acquire(methods["sslapd"], X, 5, name, seed=3) for name in ("random", "bald", "batch_bald")]
    assert torch.get_rng_state().equal(before)
    again = [acquisition.acquire(methods["sslapd"], X, 5, name, seed=3) for name in ("random", "bald", "batch_bald")]
    assert all(a.equal(b) and len(set(a.tolist())) == 5 for a, b in zip(found, again, strict=True))
    assert not found[0].equal(acquisition.acquire(methods["sslapd"], X, 5, "random", seed=4))


def test_chains_of_one_draw_of_weights_are_those_of_as_many_draws(methods):
    model, guide = methods["sslapd"].model, methods["sslapd"].guide
    w = guide.draw_weights(3)
    torch.manual_seed(0)
    found = acquisition.walk(model, guide, X, steps=4, chains=5, weights=w)[0]
    torch.manual_seed(0)
    apart = acquisition.walk(model, guide, X, steps=4, chains=1, weights=w.repeat_interleave(5, 0))[0]
    torch.testing.assert_close(found, apart.unflatten(0, (3, 5)).squeeze(2))


def test_each_member_of_an_ensemble_draws_weights_of_its_own(methods):
    one, two = label_draws([methods["sslapd"]] * 2, X, 4).split(4)
    assert not one.isclose(two).all(2).all(1).any()


def test_chains_average_what_z_leaves_in_bald(monkeypatch):
    objective = trained("sslapd")  # weights that hardly differ: all of BALD is z's noise
    found = scores(objective, X, "bald", draws=10).mean()
    monkeypatch.setattr(acquisition, "CHAINS", 1)
    assert found < 0.4 * scores(objective, X, "bald", draws=10).mean()


def test_draws_are_held_of_parts_of_the_pool(methods, monkeypatch):
    members, sizes, own = [methods["m2"], methods["ce"]], [], acquisition._label_draws
    monkeypatch.setattr(acquisition, "_label_draws", lambda m, x, *args: sizes.append(len(x)) or own(m, x, *args))
    whole = scores(members, X, "bald", draws=2)
    monkeypatch.setattr(acquisition, "MAX_DRAWN_VALUES", 2 * 2 * 2 * 7)  # draws, members, classes, rows
    torch.testing.assert_close(scores(members, X, "bald", draws=2), whole)
    assert sizes == [30, 7, 7, 7, 7, 2]


def test_a_batch_is_chosen_from_the_candidates(methods):
    own = top_n(scores(methods["sslapd"], X, "bald", draws=6), 8)
    chosen = [acquisition.acquire(methods["sslapd"], X, 5, "batch_bald", draws=6, candidates=c) for c in (5, 8, 30)]
    assert set(chosen[0].tolist()) == set(own[:5].tolist()) and set(chosen[1].tolist()) <= set(own.tolist())


def test_a_pool_of_more_rows_than_fit_at_once():
    objective: Objective = trained("sslapd")
    x = torch.randn(40_000, 4, generator=torch.Generator().manual_seed(2))
    sizes = []
    handle = objective.guide.program.q_z.register_forward_hook(
        lambda _, given, __: sizes.append(given[1].shape[:-1].numel())
    )
    chosen = acquisition.acquire(objective, x, 10, "batch_bald", draws=4, candidates=50)
    handle.remove()
    assert len(set(chosen.tolist())) == 10 and max(sizes) <= 2**15
    assert len(acquisition.acquire(objective, x, 10, "entropy")) == 10


def test_a_program_of_ones_own_predicts_here_too():
    class Mine(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.eye(4)[:, :2])

        def classify(self, x):
            return guides.Classifier(lambda x: zoo.OneHotCategorical(lambda x: x @ self.weight)(x)).classify(x)

    assert scores(Objective(None, Mine()), X, "margin").shape == (30,)

    class Noisy(Mine):
        def classify(self, x):
            return super().classify(x * torch.empty_like(x).bernoulli_(0.5))

    assert acquisition._drawn(Objective(None, Noisy()), X) == "latents"
    assert (scores(Objective(None, Noisy()), X, "bald") > 0).any()


def test_random_weights_of_ones_own(methods):
    """A pair that offers what the README's table asks of random weights, and no `slots`."""
    theirs = methods["sslapd"]

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = theirs.model

        def given(self, w):
            return self.inner.given(w)

        def predict(self, x, z):
            return self.inner.predict(x, z)

    class Guide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = theirs.guide

        def classify(self, x):
            return self.inner.classify(x)

        def encode(self, x, y):
            return self.inner.encode(x, y)

        def draw_weights(self, draws):
            return self.inner.draw_weights(draws)

    own = Objective(Model(), Guide(), predictor=theirs.predictor)
    assert label_draws(own, X, 6).equal(label_draws(theirs, X, 6))


def test_a_function_of_ones_own_is_asked_by(methods):
    least_likely = lambda p: 1 - p.mean(0).amin(-1)  # noqa: E731
    assert scores(methods["m2"], X, variation_ratios).equal(scores(methods["m2"], X, "variation_ratios"))
    assert scores(methods["sslapd"], X, bald).equal(scores(methods["sslapd"], X, "bald"))
    assert acquisition.acquire(methods["m2"], X, 3, least_likely).shape == (3,)
    with pytest.raises(ValueError, match=r"the function should give \(30,\), one of each datum; got \(30, 2\)"):
        scores(methods["m2"], X, lambda p: p.mean(0))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        *product(("m2", "ce", "adgm", "sslpe", "sslapd"), ("entropy", "random")),
        ("adgm", "bald"), ("sslpe", "bald"), ("sslapd", "bald"), ("sslapd", "batch_bald"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("power", [None, 1.0])
def test_the_order_of_the_pool_does_not_matter_to_a_method(methods, name, wanted, power):
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    power = None if wanted == "batch_bald" else power
    picks = [acquisition.acquire(methods[name], x, 5, wanted, draws=6, power=power) for x in (X, X[order])]
    assert order[picks[1]].equal(picks[0])
    values = [scores(methods[name], x, wanted, draws=6) for x in (X, X[order])]
    torch.testing.assert_close(values[1], values[0][order])


def test_the_order_does_not_matter_to_clusters():
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    assert order[acquisition.diverse(X[order], 5)].equal(acquisition.diverse(X, 5))

"""Acquisition functions: their values, scores of a pool, and the choice of data."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from programs.active import LABELS, SMALL, K, N, S, X, draws, trained

from pyro_ssl import Objective, fit, gibbs, zoo
from pyro_ssl.active import acquisition
from pyro_ssl.active import prediction_draws as draws_module
from pyro_ssl.active.acquisition import acquire, entropy, margin, scores, variation_ratios
from pyro_ssl.active.bald import bald, batch_bald
from pyro_ssl.active.pool import order_by_value
from pyro_ssl.active.prediction_draws import label_draws
from pyro_ssl.active.top_n import power_scores, top_n
from pyro_ssl.infer.gibbs_chain import Gibbs

# --- functions ------------------------------------------------------------------------------------


FUNCTIONS = {
    "entropy": entropy,
    "variation_ratios": variation_ratios,
    "margin": margin,
    "bald": bald,
}


def by_loops(name, p):
    """One datum after the other, with Python's own logarithm."""
    found = []
    for i in range(p.shape[1]):
        rows = [[float(v) for v in row] for row in p[:, i]]
        mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        h = lambda q: -sum(v * math.log(v) for v in q if v)  # noqa: E731
        top_k = sorted(mean, reverse=True)
        found.append(
            {
                "entropy": h(mean),
                "variation_ratios": 1 - top_k[0],
                "margin": 1 - top_k[0] + top_k[1],
                "bald": h(mean) - sum(map(h, rows)) / len(rows),
            }[name]
        )
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_functions_equal_loops(name, seed):
    p = draws(seed)
    p[:, 0] = torch.eye(K, dtype=p.dtype)[1]  # of probability 0 the logarithm is not taken
    torch.testing.assert_close(FUNCTIONS[name](p), by_loops(name, p), atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_take_arrays(name):
    p = draws()
    torch.testing.assert_close(FUNCTIONS[name](p.numpy()), FUNCTIONS[name](p))
    assert batch_bald(p.numpy(), 2)[0].equal(batch_bald(p, 2)[0])
    scored = FUNCTIONS[name](p)
    assert top_n(scored.numpy(), 3).equal(top_n(scored, 3))
    assert power_scores(scored.numpy(), 1.0).equal(power_scores(scored, 1.0))


NO_DRAWS = {
    "logits": (lambda p: p.log() - 1, "p should be probabilities, got numbers from"),
    "not normalised": (
        lambda p: 0.5 * p,
        r"p should sum to 1 over the classes, got a row of sum 0\.5",
    ),
    "NaN": (
        lambda p: p.index_fill(1, torch.tensor([2]), torch.nan),
        "p holds NaN or infinity, first in row 2",
    ),
    "one draw's": (lambda p: p[0], r"p should have shape \(S, N, K\).*got \(7, 3\)"),
    "no draws": (lambda p: p[:0], r"p should have shape \(S, N, K\)"),
    "one class": (lambda p: p[..., :1], r"with two classes or more, got \(5, 7, 1\)"),
    "words": (lambda p: np.full(p.shape, "a"), "p should hold numbers"),
}


@pytest.mark.parametrize("name", [*FUNCTIONS, "batch_bald"])
@pytest.mark.parametrize("case", NO_DRAWS)
def test_functions_refuse_what_is_not_probabilities(name, case):
    function = FUNCTIONS.get(name, lambda p: batch_bald(p, 2))
    spoil, message = NO_DRAWS[case]
    with pytest.raises((ValueError, TypeError), match=message):
        function(spoil(draws()))


@pytest.mark.parametrize("name", [*FUNCTIONS, "batch_bald"])
def test_top_n_does_not_depend_on_the_order_of_the_pool(name):
    p, order = draws(4, (S, 40, K)), torch.randperm(40, generator=torch.Generator().manual_seed(1))
    pick = (
        (lambda p: batch_bald(p, 5)[0])
        if name == "batch_bald"
        else (lambda p: top_n(FUNCTIONS[name](p), 5))
    )
    assert order[pick(p[:, order])].equal(pick(p))


# --- scores of a pool -----------------------------------------------------------------------------


STOCHASTIC = ["adgm", "sslpe", "sslapd", "latent_classifier", "random latent"]


@pytest.mark.parametrize("name", STOCHASTIC)
def test_scores_in_parts_equal_scores_of_the_whole_pool(methods, name, monkeypatch):
    whole = scores(methods[name], X, "bald", draws=8)
    assert whole.shape == (30,) and (whole >= 0).all() and whole.max() > 0
    torch.testing.assert_close(whole, bald(label_draws(methods[name], X, 8).double()))
    monkeypatch.setattr(acquisition, "MAX_DRAWN_VALUES", 8 * 2 * 7)
    torch.testing.assert_close(scores(methods[name], X, "bald", draws=8), whole, atol=1e-4, rtol=0)


def test_draws_are_made_in_parts_of_bounded_size(methods, monkeypatch):
    members, sizes, own = [methods["m2"], methods["ce"]], [], acquisition.draws_in_order
    monkeypatch.setattr(
        acquisition, "draws_in_order", lambda m, x, *args: sizes.append(len(x)) or own(m, x, *args)
    )
    whole = scores(members, X, "bald", draws=2)
    monkeypatch.setattr(
        acquisition, "MAX_DRAWN_VALUES", 2 * 2 * 2 * 7
    )  # draws, members, classes, rows
    torch.testing.assert_close(scores(members, X, "bald", draws=2), whole)
    assert sizes == [30, 7, 7, 7, 7, 2]


def test_variance_of_a_real_label_is_that_of_the_mixture(monkeypatch):
    target = torch.sin(X[:, :1]).where(LABELS[:, None] >= 0, torch.nan)
    members = []
    for seed in range(2):
        objective = zoo.build("sslpe", (4,), 1, seed=seed, regression=True, **SMALL)
        fit(objective, X, target, epochs=5, batch_size=10, progress=False)
        members.append(objective)
    x = X[order_by_value(X)]  # as they are drawn for
    one, two = (gibbs(m, x, steps=10, chains=4) for m in members)
    torch.testing.assert_close(scores(members[0], x, "variance"), one.variance.sum(-1))
    spread = (one.mean - two.mean).square() / 4
    torch.testing.assert_close(
        scores(members, x, "variance"), ((one.variance + two.variance) / 2 + spread).sum(-1)
    )
    with pytest.raises(ValueError, match="y is real; use variance"):
        scores(members, x, "entropy")

    generator = torch.Generator().manual_seed(0)
    found = [
        Gibbs(*torch.rand(3, N, 2, generator=generator, dtype=torch.float64)) for _ in range(2)
    ]
    answers = iter(found)
    monkeypatch.setattr(draws_module, "predict_real", lambda *_, **__: next(answers))
    by_loop = []
    for i in range(N):  # of each dimension the mixture's second moment less its mean squared
        total = 0.0
        for d in range(2):
            m, v = ([float(getattr(f, what)[i, d]) for f in found] for what in ("mean", "variance"))
            total += sum(v[k] + m[k] ** 2 for k in range(2)) / 2 - (sum(m) / 2) ** 2
        by_loop.append(total)
    wanted = torch.tensor(by_loop, dtype=torch.float64)
    torch.testing.assert_close(scores(members, x[:N], "variance"), wanted, atol=1e-10, rtol=0)


def test_acquisition_is_one_row_of_the_table(methods, monkeypatch):
    def least_likely(p):
        return 1 - p.mean(0).amin(-1)

    row = acquisition.Acquisition(least_likely, "predictions")
    monkeypatch.setitem(acquisition.ACQUISITIONS, "least_likely", row)
    by_name = scores(methods["m2"], X, "least_likely")
    assert by_name.equal(scores(methods["m2"], X, least_likely))


def test_acquisition_may_be_a_function(methods):
    least_likely = lambda p: 1 - p.mean(0).amin(-1)  # noqa: E731
    assert scores(methods["m2"], X, variation_ratios).equal(
        scores(methods["m2"], X, "variation_ratios")
    )
    assert scores(methods["sslapd"], X, bald).equal(scores(methods["sslapd"], X, "bald"))
    assert acquire(methods["m2"], X, 3, least_likely).shape == (3,)
    with pytest.raises(
        ValueError, match=r"the function should give \(30,\), one score per datum; got \(30, 2\)"
    ):
        scores(methods["m2"], X, lambda p: p.mean(0))


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
        ("m2", "variance", 5, "is for a real y"),
        ("m2", "surprise", 5, "acquisition should be one of"),
    ],
)
def test_scores_refuse_a_method_without_what_they_need(methods, name, asked, draws, said):
    with pytest.raises(ValueError, match=said):
        scores(methods[name], X, asked, draws=draws)


# --- choices --------------------------------------------------------------------------------------


def test_acquire_refuses_no_members_and_too_many_data(methods):
    with pytest.raises(ValueError, match="members"):
        scores([], X)
    with pytest.raises(ValueError, match="n should be at most 30"):
        acquire(methods["m2"], X, 31)
    with pytest.raises(ValueError, match="is empty"):
        acquire(methods["m2"], X[:0], 1)


def test_acquire_with_a_power(methods):
    top_k, drawn, again = (acquire(methods["m2"], X, 6, power=p, seed=1) for p in (None, 1.0, 1.0))
    assert drawn.equal(again) and not drawn.equal(top_k) and len(set(drawn.tolist())) == 6
    with pytest.raises(ValueError, match="power: batch_bald cannot use it"):
        acquire(methods["sslapd"], X, 2, "batch_bald", power=1.0)
    for power, of, message in (
        (0.0, torch.ones(2), "power should be above 0 and finite, got 0.0"),
        (float("inf"), torch.ones(2), "power should be above 0"),
        (1.0, torch.tensor([1.0, -1.0]), "scores of 0 or above, got -1.0"),
        (1.0, torch.tensor([1.0, torch.nan]), "scores hold NaN, first for datum 1"),
    ):
        with pytest.raises(ValueError, match=message):
            power_scores(of, power)


@pytest.mark.parametrize("name", ["m2", "adgm", "sslapd", "latent_classifier"])
def test_acquire_takes_numpy_arrays(methods, name):
    for asked in ("entropy", "bald" if name != "m2" else "margin", variation_ratios):
        of_double = acquire(methods[name], X.double().numpy(), 5, asked)
        assert of_double.equal(acquire(methods[name], X, 5, asked))


def test_acquire_depends_on_the_seed_alone(methods):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    found = [
        acquire(methods["sslapd"], X, 5, name, seed=3) for name in ("random", "bald", "batch_bald")
    ]
    assert torch.get_rng_state().equal(before)
    again = [
        acquire(methods["sslapd"], X, 5, name, seed=3) for name in ("random", "bald", "batch_bald")
    ]
    assert all(a.equal(b) and len(set(a.tolist())) == 5 for a, b in zip(found, again, strict=True))
    assert not found[0].equal(acquire(methods["sslapd"], X, 5, "random", seed=4))


def test_batch_bald_chooses_among_the_candidates(methods):
    own = top_n(scores(methods["sslapd"], X, "bald", draws=6), 8)
    chosen = [
        acquire(methods["sslapd"], X, 5, "batch_bald", draws=6, candidates=c) for c in (5, 8, 30)
    ]
    assert set(chosen[0].tolist()) == set(own[:5].tolist()) and set(chosen[1].tolist()) <= set(
        own.tolist()
    )


@pytest.mark.slow
def test_acquire_from_a_pool_larger_than_a_chunk():
    objective: Objective = trained("sslapd")
    x = torch.randn(40_000, 4, generator=torch.Generator().manual_seed(2))
    sizes = []
    handle = objective.guide.program.q_z.register_forward_hook(
        lambda _, given, __: sizes.append(given[1].shape[:-1].numel())
    )
    chosen = acquire(objective, x, 10, "batch_bald", draws=4, candidates=50)
    handle.remove()
    assert len(set(chosen.tolist())) == 10 and max(sizes) <= 2**15
    assert len(acquire(objective, x, 10, "entropy")) == 10


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        *product(("m2", "ce", "adgm", "sslpe", "sslapd"), ("entropy", "random")),
        ("adgm", "bald"),
        ("sslpe", "bald"),
        ("sslapd", "bald"),
        ("sslapd", "batch_bald"),
    ],
)
@pytest.mark.parametrize("power", [None, 1.0])
def test_choices_do_not_depend_on_the_order_of_the_pool(methods, name, wanted, power):
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    power = None if wanted == "batch_bald" else power
    picks = [acquire(methods[name], x, 5, wanted, draws=6, power=power) for x in (X, X[order])]
    assert order[picks[1]].equal(picks[0])
    values = [scores(methods[name], x, wanted, draws=6) for x in (X, X[order])]
    torch.testing.assert_close(values[1], values[0][order])

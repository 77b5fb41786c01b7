"""What every method of the zoo promises, and every way of building its networks."""

import warnings

import pytest
import torch
from pyro import poutine

from pyro_ssl import (
    Batch,
    bounds,
    fit,
    one_hot,
    predict_proba,
    zoo,
)
from pyro_ssl.distributions.row_noise import RowNoise
from pyro_ssl.infer.checks.pair import check_pair

SHAPE, K = (1, 8, 8), 3
X = torch.rand(12, *SHAPE, generator=torch.Generator().manual_seed(0))
Y = one_hot(torch.arange(12) % K, K)
SMALL = {
    "hidden": (9,),
    "z_dim": 2,
    "a_dim": 2,
    "z_dims": (3, 2),
    "z_y_dim": 2,
    "draws": 3,
    "gibbs_steps": 2,
}
SMALL |= {"z1_dim": 3, "m1_hidden": (9,), "m1_epochs": 2}
CASES = {
    "mlp": {},
    "conv": {"network": "conv", "channels": (8, 8)},
    "regularised": {
        "noise": 0.1,
        "dropout": 0.2,
        "batch_norm": True,
        "l2": 0.1,
        "entropy": 0.1,
        "mutual_information": 0.1,
    },
    "grey": {"likelihood": "bernoulli"},
    "learned sigma": {"likelihood": "gaussian", "sigma": None},
    "fixed sigma": {"likelihood": "gaussian", "sigma": 0.5},
    "variance network": {"likelihood": "heteroscedastic_gaussian", "x_log_variance": -2.0},
    "decoder": {"decoder_hidden": (7, 8)},
    "all classes": {"top_k": None},
    "likeliest class": {"top_k": 1},
    "random weights": {"bayesian": ("p_x",), "local_reparameterisation": True},
    "random classifier": {"bayesian": ("p_y",), "local_reparameterisation": True, "gibbs_steps": 2},
    "flow": {"flow": 2},
    "vamp": {"prior": "vamp", "pseudo_inputs": 3},
    "class prior": {"class_prior": True},
    "vamp by class": {"prior": "vamp", "class_prior": True, "pseudo_inputs": 3, "flow": 1},
    "mixture": {"mixture": True},
    "samples": {"num_particles": 3},
    "importance weighted": {"num_particles": 2, "importance_weighted": True},
}


def build(method: str, case: str, seed: int = 0):
    known = zoo.options_of(method)
    one_draw = (
        {"local_reparameterisation": False} if case == "importance weighted" else {}
    )  # of random weights, for all data
    options = {k: v for k, v in (SMALL | CASES[case] | one_draw).items() if k in known}
    return zoo.build(method, SHAPE, K, seed=seed, **options)


everything = [
    pytest.param(m, c, id=f"{m}-{c}")
    for m in zoo.METHODS
    for c in CASES
    if set(CASES[c]) <= {*zoo.options_of(m)} or c == "regularised"
]


@pytest.mark.parametrize(("method", "case"), everything)
def test_contract(method, case):
    o = build(method, case)
    learns = zoo.METHODS[method].unlabeled
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        o.check(Batch(X, Y, X))
        loss = o(Batch(X, Y, X))
        assert loss.shape == () and loss.isfinite()
        loss.backward()
    trained = [(n, p) for n, p in o.named_parameters() if p.requires_grad]
    unused = [n for n, p in trained if p.grad is None or not p.grad.isfinite().all()]
    assert not unused, "every parameter gets a gradient"
    for part in (Batch(X, Y), Batch(x_unlabeled=X)) if learns else (Batch(X, Y),):
        assert o(part).isfinite()
    q = o.eval().classify(X).mean
    assert q.shape == (12, K) and torch.allclose(q.sum(-1), torch.ones(12), atol=1e-6)
    if o.model is not None:
        assert o.bound(X).shape == o.bound(X, Y).shape == (12,)
    other = build(method, case, seed=1)
    other.load_state_dict(o.state_dict())
    assert torch.equal(predict_proba(other.eval(), X), predict_proba(o, X))


@pytest.mark.slow
@pytest.mark.parametrize(("method", "case"), everything)
def test_it_learns_its_training_data(method, case):
    x = (Y @ torch.eye(K, 64)).reshape(-1, *SHAPE) * 0.8 + 0.1
    o = build(method, case)
    epochs = 16 if case == "conv" else 8  # convolutions are slower to begin
    history = fit(o, x, Y.argmax(-1), epochs=epochs, lr=3e-2, schedule="constant", batch_size=12)
    part = "LabelLogProb" if method == "vc" else "loss"  # a game's loss need not fall
    assert history[part][-1] < history[part][0]
    assert torch.isfinite(predict_proba(o, x)).all()


@pytest.mark.parametrize("method", [m for m, row in zoo.METHODS.items() if row.model])
def test_a_pair_matches_with_and_without_labels(method):
    o = build(method, "mlp")
    x = o.encode(X)
    for y in (Y, None):
        check_pair(o.model, o.guide, x, y)
        guide = poutine.trace(o.guide).get_trace(x, y)
        model = poutine.trace(poutine.replay(o.model, guide)).get_trace(x, y)
        alone = {n for n in model.stochastic_nodes if model.nodes[n]["infer"].get("enumerate")} - {
            *guide.stochastic_nodes
        }
        assert (
            set(guide.stochastic_nodes) == set(model.stochastic_nodes) - alone
        )  # y, where the model sums it out


@pytest.mark.parametrize("method", [m for m, row in zoo.METHODS.items() if row.model])
def test_bounds_are_per_datum_and_come_in_chunks(method):
    o = build(method, "fixed sigma").eval()
    assert bounds(o, X).shape == (12,)
    assert torch.equal(bounds(o, X, chunk=12), bounds(o, X, chunk=12))
    assert bounds(o, X, Y, chunk=5).isfinite().all() and len(bounds(o, X, Y, chunk=5)) == 12
    found = bounds(o, X, Y)
    with torch.no_grad(), RowNoise(X, 0):
        torch.manual_seed(0)
        assert torch.allclose(found, o.bound(X, Y), atol=1e-5)


def test_rows_say_what_they_are():
    with pytest.raises(
        ValueError, match="method should be one of classifier, vae, m2, .*; got 'm3'"
    ):
        zoo.build("m3", 4, 2)
    with pytest.raises(
        ValueError,
        match="m2 has no option alfa; did you mean 'alpha'\\? There are z_dim, .*labeled_weight",
    ):
        zoo.build("m2", 4, 2, alfa=1.0)
    with pytest.raises(ValueError, match="likelihood should be"):
        zoo.build("m2", 4, 2, likelihood="poisson")
    for row in zoo.METHODS.values():
        assert not row.training.keys() - fit.__kwdefaults__.keys()


def test_weights_come_from_the_seed_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, again, other = (build("m2", "mlp", seed=s).state_dict() for s in (0, 0, 1))
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


OWN_WORDS = {"m1_m2", "sslapd", "ce", "gm", "vc"}
"""Methods whose rows say more than their programs: M1's code, random weights, densities."""


@pytest.mark.parametrize("method", [m for m in zoo.METHODS if m not in OWN_WORDS])
def test_a_row_states_the_factorisation_of_its_programs(method):
    row = zoo.METHODS[method]
    o = build(method, "mlp")
    assert row.guide.startswith(o.guide.factorisation)
    if o.model is not None:
        assert row.model == o.model.factorisation

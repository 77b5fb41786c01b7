"""Draws of p(y|x) against the predictive mean, and what differs between them."""

import pytest
import torch
from programs.active import X, trained

from pyro_ssl import Objective, guides, predict_proba
from pyro_ssl.active import prediction_draws as draws_module
from pyro_ssl.active.acquisition import acquire, entropy, scores
from pyro_ssl.active.bald import bald, batch_bald
from pyro_ssl.active.prediction_draws import label_draws, randomness_of
from pyro_ssl.distributions.conditionals import OneHotCategorical
from pyro_ssl.infer.gibbs_chain import run_chains

STOCHASTIC = ["adgm", "sslpe", "sslapd", "latent_classifier", "random latent"]


@pytest.mark.parametrize("name", STOCHASTIC)
def test_mean_of_the_draws_is_the_prediction(methods, name):
    objective = methods[name]
    p = label_draws(objective, X, 400)
    assert p.shape == (400, 30, 2) and not p[0].equal(p[1])
    torch.testing.assert_close(p.sum(-1), torch.ones(400, 30))
    many = torch.stack([predict_proba(objective, X, seed=s) for s in range(40)])
    error = (p.var(0) / 400 + many.var(0) / 40).sqrt() + 1e-4
    assert ((p.mean(0) - many.mean(0)).abs() / error).max() < 5


def test_draws_of_an_ensemble_are_its_members(methods):
    members = [trained("m2", seed) for seed in range(3)]
    p = torch.stack([predict_proba(m, X) for m in members])
    torch.testing.assert_close(label_draws(members, X), p)
    torch.testing.assert_close(scores(members, X, "bald"), bald(p.double()))
    torch.testing.assert_close(scores(members, X, "entropy"), entropy(p.double()))
    assert acquire(members, X, 3, "batch_bald").equal(batch_bald(p, 3)[0])
    assert label_draws([methods["sslapd"], methods["sslapd"]], X, 4).shape == (8, 30, 2)


def test_members_with_random_weights_draw_independently(methods):
    one, two = label_draws([methods["sslapd"]] * 2, X, 4).split(4)
    assert not one.isclose(two).all(2).all(1).any()


# --- what differs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sslapd", "random latent"])
def test_all_data_share_a_draw_of_weights(methods, name):
    twice = torch.cat([X, X])
    p = label_draws(methods[name], twice, 200)
    same = torch.corrcoef(torch.stack([p[:, 0, 1], p[:, 30, 1]]))[0, 1]
    assert same > 0.8  # z is another in each copy, W is not
    assert randomness_of(methods[name], X) == "weights"


@pytest.mark.parametrize("name", ["sslpe", "adgm", "latent_classifier"])
def test_each_datum_has_its_own_latent(methods, name):
    p = label_draws(methods[name], torch.cat([X, X + 1e-6]), 200)
    apart = torch.corrcoef(torch.stack([p[:, 0, 1], p[:, 30, 1]]))[0, 1]
    assert apart.abs() < 0.3 and randomness_of(methods[name], X) == "latents"


def test_random_weights_of_the_decoder_alone_are_not_draws():
    objective = trained("sslpe", bayesian=("p_x",))
    assert randomness_of(objective, X) == "latents"
    with pytest.raises(ValueError, match="latent for each datum"):
        scores(objective, X, "batch_bald")


# --- Gibbs chains ---------------------------------------------------------------------------------


def test_bald_of_equal_weights_is_nearly_zero(methods):
    """What remains is noise of z, which has to be far below BALD of different weights."""
    objective = methods["sslapd"]
    apart = bald(label_draws(objective, X, 20).double())
    draw = objective.guide.draw_weights
    try:
        objective.guide.draw_weights = lambda n: draw(1).expand(n, 1, -1)
        same = bald(label_draws(objective, X, 20).double())
    finally:
        del objective.guide.draw_weights
    assert same.mean() < 0.2 * apart.mean()


def test_chains_of_a_draw_equal_chains_of_repeated_draws(methods):
    model, guide = methods["sslapd"].model, methods["sslapd"].guide
    w = guide.draw_weights(3)
    torch.manual_seed(0)
    found = run_chains(model, guide, X, steps=4, chains=5, weights=w)[0]
    torch.manual_seed(0)
    apart = run_chains(model, guide, X, steps=4, chains=1, weights=w.repeat_interleave(5, 0))[0]
    torch.testing.assert_close(found, apart.unflatten(0, (3, 5)).squeeze(2))


def test_more_chains_reduce_the_noise_of_z_in_bald(monkeypatch):
    objective = trained("sslapd")  # weights that hardly differ: all of BALD is z's noise
    found = scores(objective, X, "bald", draws=10).mean()
    monkeypatch.setattr(draws_module, "CHAINS", 1)
    assert found < 0.4 * scores(objective, X, "bald", draws=10).mean()


# --- programs from outside the zoo ----------------------------------------------------------------


def test_guide_from_outside_the_zoo():
    class Mine(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.eye(4)[:, :2])

        def classify(self, x):
            return guides.Classifier(
                lambda x: OneHotCategorical(lambda x: x @ self.weight)(x)
            ).classify(x)

    assert scores(Objective(None, Mine()), X, "margin").shape == (30,)

    class Noisy(Mine):
        def classify(self, x):
            return super().classify(x * torch.empty_like(x).bernoulli_(0.5))

    assert randomness_of(Objective(None, Noisy()), X) == "latents"
    assert (scores(Objective(None, Noisy()), X, "bald") > 0).any()


def test_random_weights_from_outside_the_zoo(methods):
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

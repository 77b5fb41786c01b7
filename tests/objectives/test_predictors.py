"""Predictors of an objective: by the guide, or by Gibbs sampling in the model."""

import pytest
import torch

from pyro_ssl import GibbsPredictor, GuidePredictor, Objective, zoo
from pyro_ssl import gibbs as gibbs_of_data
from pyro_ssl.infer.gibbs_chain import gibbs
from pyro_ssl.prediction.gibbs import predict_real
from pyro_ssl.utils.context import eval_mode, fixed_seed

SMALL = {"hidden": (6,), "z_dim": 2}


@pytest.fixture
def x():
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("method", "predictor"), [("m2", GuidePredictor), ("sslpe", GibbsPredictor)]
)
def test_a_method_builds_its_predictor(method, predictor):
    assert isinstance(zoo.build(method, (4,), 3, **SMALL).predictor, predictor)


def test_options_of_a_method_are_those_of_its_predictor():
    by_gibbs = zoo.build("sslpe", (4,), 3, **SMALL, gibbs_steps=7, gibbs_chains=2)
    assert by_gibbs.predictor == GibbsPredictor(steps=7, chains=2)
    assert zoo.build("sslpe", (4,), 3, **SMALL, gibbs_steps=0).predictor == GuidePredictor()
    assert zoo.build("sslapd", (4,), 3, **SMALL, gibbs_hard=True).predictor.hard


def test_the_guide_predicts_by_default(x):
    m2 = zoo.build("m2", (4,), 3, **SMALL)
    objective = Objective(m2.model, m2.guide)
    with eval_mode(objective):
        assert torch.equal(objective.classify(x).mean, m2.guide.classify(x).mean)


def test_gibbs_sampling_predicts_by_the_model(x):
    sslpe = zoo.build("sslpe", (4,), 3, **SMALL)
    objective = Objective(sslpe.model, sslpe.guide, predictor=GibbsPredictor(steps=3, chains=2))
    with eval_mode(objective):
        with fixed_seed(0):
            predicted = objective.classify(x).mean
        with fixed_seed(0):
            sampled = gibbs(sslpe.model, sslpe.guide, x, steps=3, chains=2).mean
    assert torch.allclose(predicted, sampled)


def test_a_hard_prediction_is_the_average_of_drawn_labels(x):
    """Paper 002, eq. 4.24, with the draws of eq. 4.23 written out."""
    steps = 7
    sslpe = zoo.build("sslpe", (4,), 3, **SMALL, gibbs_steps=steps, gibbs_hard=True)
    soft = zoo.build("sslpe", (4,), 3, **SMALL, gibbs_steps=steps)
    model, guide = sslpe.model, sslpe.guide
    with eval_mode(sslpe), eval_mode(soft), torch.no_grad():
        with fixed_seed(0):
            predicted = sslpe.classify(x).mean
        with fixed_seed(0):
            total = torch.zeros(5, 3)
            y = guide.q_y(x).sample()
            for _ in range(steps):
                z = guide.q_z(x, y).sample()
                y = model.p_y(x, z).sample()
                total += y
        with fixed_seed(0):
            averaged = soft.classify(x).mean
    assert torch.allclose(predicted, total / steps)
    assert not torch.allclose(predicted, averaged, atol=1e-2)


def test_a_hard_prediction_of_a_real_label_has_the_moments_of_the_draws(x):
    sslpe = zoo.build("sslpe", (4,), 1, **SMALL, regression=True, balance=0.0, gibbs_hard=True)
    drawn = gibbs_of_data(sslpe, x, steps=10, chains=4, hard=True)
    predicted = predict_real(sslpe, x)
    assert torch.equal(predicted.mean, drawn.mean)
    assert torch.equal(predicted.variance, drawn.variance)
    averaged = gibbs_of_data(sslpe, x, steps=10, chains=4)
    assert not torch.allclose(predicted.mean, averaged.mean)


def test_hard_is_a_bool():
    with pytest.raises(ValueError, match="hard should be True or False, got 1"):
        GibbsPredictor(hard=1)


def test_a_real_label_has_the_mean_and_the_variance_of_the_chains(x):
    sslpe = zoo.build("sslpe", (4,), 1, **SMALL, regression=True, balance=0.0)
    objective = Objective(sslpe.model, sslpe.guide, predictor=GibbsPredictor(steps=4, chains=3))
    with eval_mode(objective):
        with fixed_seed(0):
            predicted = objective.classify(x)
        with fixed_seed(0):
            sampled = gibbs(sslpe.model, sslpe.guide, x, steps=4, chains=3)
    assert torch.equal(predicted.mean, sampled.mean)
    assert torch.allclose(predicted.variance, sampled.variance)


@pytest.mark.parametrize("arguments", [{"steps": 0}, {"chains": 0}, {"steps": 1.5}])
def test_numbers_of_steps_and_chains_are_above_0(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"{name} should be a whole number above 0"):
        GibbsPredictor(**arguments)

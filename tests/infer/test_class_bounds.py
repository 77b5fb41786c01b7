"""A bound for each class."""

import math

import pytest
import torch
from comparisons import assert_same, parameters, seeded
from programs.pairs import B, D, Z, data, m2

from pyro_ssl import (
    ClassPrior,
    TraceTopKEnum_ELBO,
    zoo,
)

pytestmark = pytest.mark.usefixtures("float64")
BOUNDS = [
    {}, {"closed_form": ()}, {"num_particles": 3}, {"num_particles": 3, "closed_form": ()},
    {"num_particles": 3, "importance_weighted": True},
]  # fmt: skip


@pytest.mark.parametrize("options", BOUNDS, ids=str)
def test_bounds_per_class_are_the_labeled_bounds_and_add_up_to_the_unlabeled_one(options):
    o, (x, _) = m2(), data()
    o.model.p_y = ClassPrior([0.5, 0.3, 0.2]).double()
    bound, of = TraceTopKEnum_ELBO(1, common_random_numbers=True, **options), parameters(o)
    every = seeded(bound.class_bounds, o.model, o.guide, x)
    assert every.shape == (B, 3)
    for k in range(3):
        y = torch.eye(3)[k].expand(B, 3)
        assert_same(every[:, k], seeded(bound.bound, o.model, o.guide, x, y).value, of)
    q = o.guide.q_y.network(x).softmax(-1)
    whole = seeded(
        TraceTopKEnum_ELBO(None, common_random_numbers=True, **options).bound, o.model, o.guide, x
    ).value
    assert_same((q * (every - q.log())).sum(-1), whole, of)


@pytest.mark.parametrize("particles", [1, 3])
def test_a_bound_per_class_of_some_sites_alone(particles):
    o, (x, _) = m2(), data()
    bound = TraceTopKEnum_ELBO(common_random_numbers=True, num_particles=particles)
    torch.manual_seed(1)
    noise, eye = torch.randn(particles, 1, B, Z), torch.eye(3)[:, None]
    q = o.guide.q_z(x, eye).base_dist
    z = q.loc + q.scale * noise
    by_hand = o.model.p_x(eye, z).log_prob(x).mean(0).T
    assert_same(
        seeded(bound.class_bounds, o.model, o.guide, x, only=("x",)), by_hand, parameters(o)
    )
    log_pz = o.model.p_z().log_prob(z).mean(0).T
    assert_same(
        seeded(bound.class_bounds, o.model, o.guide, x, only=["z", "x"]),
        by_hand + log_pz,
        parameters(o),
    )
    prior = bound.class_bounds(o.model, o.guide, x, only=("y",))
    assert torch.allclose(prior, torch.full((B, 3), -math.log(3)))


def test_bounds_per_class_want_known_sites_and_classes():
    o, vae, (x, _) = m2(), zoo.build("vae", D, 3, likelihood="gaussian").double(), data()
    with pytest.raises(ValueError, match="only: the model has no site a, w"):
        TraceTopKEnum_ELBO().class_bounds(o.model, o.guide, x, only=("w", "x", "a"))
    for options in ({}, {"only": ("x",)}):
        with pytest.raises(ValueError, match="guide: no site is enumerated"):
            TraceTopKEnum_ELBO().class_bounds(vae.model, vae.guide, x, **options)

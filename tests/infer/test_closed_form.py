"""KL in closed form: where it is taken, and that it is exact there."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from comparisons import assert_same, parameters, seeded
from programs.pairs import B, D, InPlate, Z, adgm, data, m2, pair_over, sslpe, without_z
from pyro import poutine
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_ssl import (
    ClassPrior,
    Normal,
    TraceTopKEnum_ELBO,
    zoo,
)
from pyro_ssl.infer.closed_form import closed_form_kl
from pyro_ssl.infer.scales import scale_latents

pytestmark = pytest.mark.usefixtures("float64")
SAMPLED = TraceTopKEnum_ELBO(None, closed_form=())
"""The sum over all classes with one sample of everything else.

Pyro's own, as test_bound_values.py shows.
"""


def closed(model, guide, x: Tensor, y: Tensor | None = None, sites="auto") -> set[str]:
    bound = TraceTopKEnum_ELBO(None, closed_form=()).bound(model, guide, x, y)
    return set(closed_form_kl(bound.guide_trace, bound.model_trace, sites))


def test_sites_are_in_closed_form_where_the_guide_has_drawn_what_the_model_conditions_on():
    x, y = data()
    o, vae = m2(), zoo.build("vae", D, 3, z_dim=Z, likelihood="gaussian").double()
    assert closed(o.model, o.guide, x) == {"y", "z"}
    assert closed(o.model, o.guide, x, y) == {"z"}
    assert closed(vae.model, vae.guide, x) == {"z"}
    assert closed(*adgm(), x) == {"y", "z"}
    assert closed(*adgm(), x, y) == {"z"}
    assert closed(*sslpe(), x) == closed(*sslpe(), x, y) == {"z"}


def test_masked_or_differently_scaled_sites_are_sampled():
    o, (x, _) = m2(), data()
    keep, half = torch.arange(B) < 4, torch.full((B,), 0.5)
    mask = lambda p: poutine.mask(p, mask=keep)  # noqa: E731
    scale = lambda p, s: poutine.scale(p, scale=s)  # noqa: E731
    assert closed(mask(o.model), mask(o.guide), x) == closed(mask(o.model), o.guide, x) == set()
    assert (
        closed(scale(o.model, 0.5), o.guide, x)
        == closed(scale(o.model, half), scale(o.guide, 2 * half), x)
        == set()
    )
    for s in (0.5, half):
        assert closed(scale(o.model, s), scale(o.guide, s), x) == {"y", "z"}
    for model, guide in ((mask(o.model), mask(o.guide)), (scale(o.model, 0.5), o.guide)):
        ours = seeded(TraceTopKEnum_ELBO(None).bound, model, guide, x).value
        assert_same(ours, seeded(SAMPLED.bound, model, guide, x).value, parameters(o))
    ours = seeded(
        TraceTopKEnum_ELBO(None).bound, scale(o.model, half), scale(o.guide, half), x
    ).value
    assert_same(
        ours, 0.5 * seeded(TraceTopKEnum_ELBO(None).bound, o.model, o.guide, x).value, parameters(o)
    )


def test_a_family_without_a_known_kl_is_sampled_and_not_to_be_named():
    class Flow(Normal):
        def forward(self, *inputs):
            stretch = dist.transforms.AffineTransform(0.1, 1.5, event_dim=1)
            return dist.TransformedDistribution(super().forward(*inputs), [stretch])

    o, (x, _) = m2(), data()
    o.guide.q_z = Flow(o.guide.q_z.network)
    assert closed(o.model, o.guide, x) == {"y"}
    unknown, none = "the model has no site 'w'", "no KL in closed form is known for site 'z'"
    for names, wrong in ((("z",), none), (("y", "z"), none), (("y", "w"), unknown)):
        with pytest.raises(ValueError, match=f"closed_form: {wrong}"):
            TraceTopKEnum_ELBO(None, closed_form=names).bound(o.model, o.guide, x)
    assert closed(o.model, o.guide, x, sites=("y",)) == {"y"}
    ours = seeded(TraceTopKEnum_ELBO(None).bound, o.model, o.guide, x).value
    assert_same(
        ours, seeded(SAMPLED.bound, o.model, o.guide, x).value, parameters(o)
    )  # y is summed over, either way


@pytest.mark.parametrize(
    "options", [{"importance_weighted": True, "closed_form": ("z",)}, {"closed_form": "z"}]
)
def test_what_closed_form_cannot_be_is_refused(options):
    with pytest.raises(ValueError, match="closed_form"):
        TraceTopKEnum_ELBO(**options)


@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("given", [True, False])
def test_m2_with_kl_in_closed_form_is_reconstruction_minus_kl(given, beta):
    """At the same z; KL(q(z|x,y) || p(z)) has the weight beta, and KL(q(y|x) || p(y)) keeps its
    own.
    """
    o, (x, y) = m2(), data()
    o.model.p_y = ClassPrior([0.5, 0.3, 0.2]).double()
    with scale_latents(beta):
        bound = seeded(TraceTopKEnum_ELBO(None).bound, o.model, o.guide, x, y if given else None)
    z = bound.guide_trace.nodes["z"]["value"]
    y = y if given else torch.eye(3)[:, None]
    q_z = o.guide.q_z(x, y).base_dist
    loc = q_z.loc
    scale = q_z.scale
    kl_z = (0.5 * (loc**2 + scale**2 - 1) - scale.log()).sum(-1)
    f = o.model.p_x(y, z).log_prob(x) - beta * kl_z
    log_p, q_y = torch.tensor([0.5, 0.3, 0.2]).log(), o.guide.q_y.network(x).softmax(-1)
    by_hand = f + y @ log_p if given else (q_y * (f.T + log_p - q_y.log())).sum(-1)
    assert_same(bound.value, by_hand, parameters(o))


@pytest.mark.parametrize("top_k", [1, 2, "auto"])
def test_the_labels_kl_is_the_sum_over_all_classes_whatever_is_summed_over(top_k):
    """Where x and z do not depend on y, nothing is left of the draw.

    -KL(q(y|x) || p(y)), p(y) not uniform.
    """
    o, (x, _) = without_z(m2(5)), data()
    prior = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05])
    o.model.p_y = ClassPrior(prior).double()
    with torch.no_grad():
        o.model.p_x.network.first.weights[0].zero_()
        o.guide.q_z.network.first.weights[1].zero_()
        o.guide.q_y.network.rest[-1].bias[3] = 6.0
    y, q = torch.eye(5)[0], o.guide.q_y.network(x).softmax(-1)
    z_free = o.model.p_x(y, torch.zeros(B, Z)).log_prob(x) - kl_divergence(
        o.guide.q_z(x, y), o.model.p_z()
    )
    ours = TraceTopKEnum_ELBO(top_k).bound(o.model, o.guide, x)
    assert len(ours.guide_trace.nodes["y"]["value"]) < 5
    assert_same(ours.value, z_free - (q * (q.log() - prior.log())).sum(-1), parameters(o.guide.q_y))


def test_a_closed_form_that_does_not_hold_is_wrong():
    """SSLPE's p(y|x,z), negative control: z is drawn after y, so it is another z for each class."""
    model, guide = sslpe()
    with torch.no_grad():
        model.p_y.network.first.weights[1].mul_(10)
        guide.q_z.network.first.weights[1].mul_(10)
    x = data()[0].repeat_interleave(4000, 0)
    values = {}
    with torch.no_grad():
        for name, sites in (("sampled", ()), ("auto", "auto"), ("forced", ("y",))):
            values[name] = (
                TraceTopKEnum_ELBO(None, closed_form=sites)
                .bound(model, guide, x)
                .value.reshape(B, -1)
            )
    error = {
        k: (values["sampled"].var(1) / 4000 + v.var(1) / 4000).sqrt() for k, v in values.items()
    }
    z = {k: (v.mean(1) - values["sampled"].mean(1)).abs() / error[k] for k, v in values.items()}
    assert z["auto"].max() < 4 and z["forced"].max() > 10


def test_a_labels_kl_may_be_named_where_some_labels_are_given():
    o, (x, y) = m2(), data()
    named = TraceTopKEnum_ELBO(None, closed_form=("y", "z"))
    auto = TraceTopKEnum_ELBO(None)
    for label in (None, y):
        values = [seeded(e.bound, o.model, o.guide, x, label).value for e in (named, auto)]
        assert_same(*values, parameters(o))


def in_z(q_z, p_z):
    """A pair over z with these distributions, and x observed beside."""

    def model(p, x, y):
        z = pyro.sample("z", p_z)
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    return InPlate(model), InPlate(lambda q, x, y: pyro.sample("z", q_z))


KEEP = torch.arange(B) < 3
DIFFERENT = {
    "density of a delta": lambda: (
        dist.Delta(torch.zeros(B), log_density=1.7),
        dist.Normal(0.0, 1.0),
    ),
    "masks": lambda: (
        dist.Normal(torch.zeros(B), 0.5).mask(True),
        dist.Normal(0.0, 1.0).expand([B]).mask(KEEP),
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_kl_that_is_not_the_mean_of_its_sample_is_not_taken(name):
    pair, x = in_z(*DIFFERENT[name]()), data()[0]
    with torch.no_grad():
        auto, sampled = (
            TraceTopKEnum_ELBO(None, closed_form=c, num_particles=20_000).bound(*pair, x).value
            for c in ("auto", ())
        )
    assert torch.allclose(auto, sampled, atol=0.1)


@pytest.mark.parametrize("particles", [1, 2])
def test_a_binary_label_has_its_kl_in_closed_form(particles):
    pair = pair_over(dist.Bernoulli(torch.tensor(0.4)), dist.Bernoulli(torch.tensor(0.8)))
    with torch.no_grad():
        auto, sampled = (
            TraceTopKEnum_ELBO(None, closed_form=c, num_particles=n).bound(*pair, data()[0]).value
            for c, n in (("auto", 20_000 * particles), ((), 20_000))
        )
    assert torch.allclose(auto, sampled, atol=0.1)


def test_an_infinite_kl_is_not_taken():
    """The prior's support is narrower than the guide's, whose samples may never leave it."""
    y = dist.OneHotCategorical(torch.ones(3) / 3)
    model, guide = pair_over(y, y, dist.Uniform(-10.0, 10.0), dist.Normal(1.0, 0.1))
    assert "z" not in closed(model, guide, data()[0])
    assert TraceTopKEnum_ELBO(None).bound(model, guide, data()[0]).value.isfinite().all()

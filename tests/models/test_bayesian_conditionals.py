"""Random weights in any conditional of any method, and errors."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from programs.bayesian import SCALE, SMALL, D, H, K, Nothing, X, Z, kl_by_hand
from torch import Tensor, nn

from pyro_ssl import (
    MLP,
    Batch,
    Objective,
    OneHotCategorical,
    StandardNormal,
    fit,
    models,
    zoo,
)
from pyro_ssl.evaluation import plots
from pyro_ssl.nn.random_weights import RandomWeights
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.zoo.options import RandomWeightOptions

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_m2_may_have_a_bayesian_decoder(network, local):
    shape = (1, 4, 4)
    options = {
        "hidden": (H,),
        "z_dim": Z,
        "network": network,
        "likelihood": "bernoulli",
        "noise": 0.0,
    }
    o = zoo.build("m2", shape, K, **options)
    weights = RandomWeightOptions(
        bayesian=("p_x",), local_reparameterisation=local, prior_scale=SCALE
    )
    b = Objective(*weights.with_random_weights(o.model, o.guide), o.terms, elbo=o.elbo)
    x = torch.rand(8, *shape)
    batch = Batch(x[:3], torch.eye(K), x[3:])
    b.check(batch)
    parts = b.parts(batch)
    assert torch.allclose(5 * parts["weights"], kl_by_hand(b.guide))
    sum(parts.values()).backward()
    assert not [n for n, p in b.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert torch.equal(b.eval().classify(x).probs, o.eval().guide.classify(x).probs)
    fit(b, x, torch.tensor([0, 1, 2, *[-1] * 5]), epochs=2, batch_size=5)


class Loose(Nothing):
    """A latent of shape `(B, 2)` outside every plate."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(2))


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="bayesian: the network has no Linear or SplitLinear"):
        RandomWeights(nn.Conv2d(1, 2, 3), nn.BatchNorm1d(2))
    model = models.SSLPE(
        StandardNormal(Z), OneHotCategorical(nn.Identity()), OneHotCategorical(MLP([D, Z], K))
    )
    with pytest.raises(ValueError, match="has no Linear or SplitLinear"):
        RandomWeightOptions(bayesian=("p_x",)).with_random_weights(model, Nothing())
    for wrong in (("p_w",), "p_y", ("p_z",)):
        with pytest.raises(
            ValueError,
            match="bayesian should name conditionals of the model, of p_x, p_y; got",
        ):
            RandomWeightOptions(bayesian=wrong).with_random_weights(model, Nothing())
    for scale in (0, -1.0):
        with pytest.raises(ValueError, match=f"prior_scale should be above 0, got {scale}"):
            zoo.build("sslapd", D, K, **SMALL | {"prior_scale": scale})
    with pytest.raises(
        ValueError, match=r"guide site 'z': log_prob has shape \(\), should have \(\*, 6\)"
    ):
        Objective(Loose(), Loose()).check(Batch(x_unlabeled=torch.randn(6, 2)))


DRAWN = {
    "adgm": ("p_a",),
    "sdgm": ("p_a",),
    "lvae": ("p_z",),
    "sslpe": ("p_y",),
    "sslapd": ("p_y",),
}
DRAWN |= {m: ("p_y",) for m in zoo.METHODS if m.startswith("latent")}


@pytest.mark.parametrize(
    ("method", "name"),
    [
        (m, n)
        for m in zoo.METHODS
        if "bayesian" in zoo.options_of(m)
        for n in ("p_x", *DRAWN.get(m, ()))
    ],
)
def test_any_conditional_of_any_model_may_have_random_weights(method, name):
    """Its weights get gradients, and KL(W) counts once per data set.

    Also where the guide has the same conditional.
    """
    options = {
        "bayesian": (name,),
        "hidden": (5,),
        "alpha": 1.0,
        "local_reparameterisation": False,
        "likelihood": "gaussian",
    }
    o = zoo.build(
        method, D, K, **{k: v for k, v in options.items() if k in zoo.options_of(method)}
    ).double()
    x, y = X[:6], torch.eye(K)[torch.arange(6) % K]
    o.sizes = (6, 30)
    parts = o.parts(Batch(x, y, X[6:]))
    q_w = torch.distributions.Normal(o.guide.loc, (0.5 * o.guide.log_variance).exp())
    prior = torch.distributions.Normal(torch.zeros_like(o.guide.loc), o.model.scale)
    kl = torch.distributions.kl_divergence(q_w, prior).sum()
    assert torch.allclose(parts["weights"], kl / 30, rtol=1e-10)
    sum(parts.values()).backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for p in (o.guide.loc, o.guide.log_variance)
    )
    with pytest.raises(
        ValueError, match=f"bayesian should name conditionals of the model, of .*{name}"
    ):
        zoo.build(method, D, K, bayesian=("p_w",))
    q = predict_proba(o, x)
    assert q.shape == (6, K) and torch.equal(q, predict_proba(o, x))


@pytest.mark.parametrize("method", [m for m in zoo.METHODS if m.startswith("latent")])
def test_a_conditional_of_both_programs_has_one_draw_in_a_bound(method):
    """With hardly any variance of W, bound, gradient and prediction are those of weights that are
    what its mean is.
    """
    options = {"hidden": (5,), "z_dim": 2, "noise": 0.0, "dropout": 0.0, "draws": 2000}
    options |= {"z_y_dim": 2} if method.endswith("split") else {}
    plain = zoo.build(method, D, K, **options).double()
    drawn = zoo.build(method, D, K, bayesian=("p_y",), log_variance=-60.0, **options).double()
    for x, y in ((X[:6], None), (X[:6], torch.eye(K)[torch.arange(6) % K])):
        found = []
        for o in (plain, drawn):
            torch.manual_seed(0)
            if o is plain:
                torch.randn(drawn.guide.loc.shape)
            found.append(o.bound(x, y))
        assert torch.allclose(*found, rtol=1e-9)
        of = [dict(o.named_parameters()) for o in (plain, drawn)]
        names = [n for n in of[0] if n.replace("model.", "model.program.", 1) in of[1]]
        assert names
        mine, theirs = (
            torch.autograd.grad(
                f.sum(),
                [p[n if o is plain else n.replace("model.", "model.program.", 1)] for n in names],
                allow_unused=True,
            )
            for f, p, o in zip(found, of, (plain, drawn), strict=True)
        )
        assert all(
            (a is None) == (b is None) and (a is None or torch.allclose(a, b, atol=1e-9))
            for a, b in zip(mine, theirs, strict=True)
        )
    assert torch.allclose(predict_proba(plain, X[:6]), predict_proba(drawn, X[:6]), atol=0.03)
    with torch.no_grad():
        drawn.guide.log_variance.fill_(2.0)
    wide = predict_proba(drawn, X[:6])
    assert not torch.allclose(wide, predict_proba(plain, X[:6]), atol=0.03)
    torch.manual_seed(1)
    q = drawn.eval().guide.classify(X[:6]).mean
    torch.manual_seed(1)
    each = []
    for _ in range(10):
        with drawn.guide.slots.substituted(drawn.guide.q_w().rsample()):
            each.append(drawn.guide.program.classify(X[:6]).mean)
    assert torch.allclose(q, torch.stack(each).mean(0), rtol=1e-10)
    with pytest.raises(
        ValueError, match="local_reparameterisation: a network that model and guide share"
    ):
        zoo.build(method, D, K, bayesian=("p_y",), local_reparameterisation=True)


def test_pictures_of_a_model_with_random_weights_are_at_their_mean():
    o = zoo.build("m2", (1, 4, 4), K, hidden=(5,), bayesian=("p_x",)).eval()
    with torch.no_grad():
        o.guide.log_variance.fill_(2.0)
        o.guide.loc.zero_()
    with o.programs() as (
        model,
        _,
    ):  # no weight at all: no picture of a class, and no noise of a draw
        pictures = model.p_x(torch.eye(K), torch.randn(K, 50)).mean
    assert torch.equal(pictures, pictures[:1].expand_as(pictures))
    assert (
        plots.class_samples(o, K, 2) is not None
        and plots.analogies(o, torch.rand(2, 1, 4, 4), K) is not None
    )

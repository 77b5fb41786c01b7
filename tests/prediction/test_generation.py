"""What models make: data from the prior, data again from their latents."""

import pyro
import pytest
import torch
from pyro import poutine

from pyro_ssl import Objective, generate, predict_proba, reconstruct, zoo

K, IMAGE = 3, (1, 4, 4)
EYE = torch.eye(K)
X = torch.rand(5, *IMAGE, generator=torch.Generator().manual_seed(0))
Y = EYE[torch.arange(5) % K]
MODELS = [name for name in zoo.METHODS if name not in ("classifier", "ce", "gm", "vc")]
OF_Y = [name for name in MODELS if name != "vae"]


def build(name: str, **options):
    chosen = {"hidden": (6,), "z_dim": 2, "z_dims": (3, 2), "flow": 0} | options
    return zoo.build(
        name, IMAGE, K, **{k: v for k, v in chosen.items() if k in zoo.options_of(name)}
    )


@pytest.mark.parametrize(
    "options", [{}, {"class_prior": True}, {"prior": "vamp", "flow": 1}, {"bayesian": ("p_x",)}]
)
@pytest.mark.parametrize("name", MODELS)
def test_any_model_makes_data(name, options):
    o = build(name, **options).train()
    before, modes = torch.get_rng_state(), [m.training for m in o.modules()]
    made = [generate(o, 4, seed=1), reconstruct(o, X, seed=1)]
    made += (
        [generate(o, 4, EYE[1], seed=1), reconstruct(o, X, Y, into=EYE[2])] if name in OF_Y else []
    )
    shape = (50,) if name == "m1_m2" else IMAGE
    assert [tuple(m.shape) for m in made] == [(n, *shape) for n in (4, 5, 4, 5)[: len(made)]]
    assert all(m.isfinite().all() and not m.requires_grad for m in made)
    assert torch.equal(made[0], generate(o, 4, seed=1)) and not torch.equal(
        made[0], generate(o, 4, seed=2)
    )
    assert torch.equal(before, torch.get_rng_state()) and not pyro.get_param_store()
    assert [m.training for m in o.modules()] == modes


def test_they_are_the_means_of_the_formulas():
    o = build("m2").eval()
    with torch.no_grad():
        q = predict_proba(o, X)
        z = o.guide.q_z(X, Y).mean
        torch.testing.assert_close(reconstruct(o, X, Y), o.model.p_x(Y, z).mean)
        torch.testing.assert_close(reconstruct(o, X), reconstruct(o, X, EYE[q.argmax(-1)]))
        torch.testing.assert_close(
            reconstruct(o, X, Y, into=EYE[0]), o.model.p_x(EYE[0].expand(5, K), z).mean
        )
        two = [generate(o, 6, EYE[k], seed=3) for k in (0, 1)]
        o.model.p_x.network.first.weights[
            0
        ].zero_()  # the class does not matter, and the latents are the same
        same = [generate(o, 6, EYE[k], seed=3) for k in (0, 1)]
    assert not torch.equal(*two) and torch.equal(*same)


def test_an_auxiliary_variable_and_a_ladder_go_their_own_way():
    adgm, lvae = build("adgm").eval(), build("lvae").eval()
    with torch.no_grad():
        a = adgm.guide.q_a(X).mean
        torch.testing.assert_close(
            reconstruct(adgm, X, Y), adgm.model.p_x(Y, adgm.guide.q_z(X, a, Y).mean).mean
        )
        assert (reconstruct(lvae, X, Y) != reconstruct(lvae, X.flip(0), Y)).any()


@pytest.mark.parametrize("name", ["latent_classifier", "latent_classifier_simplified", "sslpe"])
def test_codes_are_drawn_given_the_class(name):
    """In a model that samples y after z, p(y|.) chooses z, and x is of the class."""
    o = build(name, likelihood="gaussian", noise=0.0, dropout=0.0, sigma=1.0).eval()
    p_y = o.model.p_y.network
    with torch.no_grad():  # z's first number decides the class, and is the image
        for p in (*p_y.parameters(), *o.model.p_x.network.parameters()):
            p.zero_()
        p_y.first.weights[-1][0, :2] = torch.tensor([1.0, -1.0])
        p_y.rest[-1].weight[:2, :2] = torch.tensor([[9.0, 0.0], [0.0, 9.0]])
        p_y.rest[-1].bias[2] = -100.0
        o.model.p_x.network.first.weights[-1][0, :2] = torch.tensor([1.0, -1.0])
        o.model.p_x.network.rest[-1].weight[0, :2] = torch.tensor([1.0, -1.0])
    first, second, any_of_them = (
        generate(o, 200, y).flatten(1)[:, 0] for y in (EYE[0], EYE[1], None)
    )
    assert (first > -1.5).all() and (second < 1.5).all()  # p(y|z) is e^-13 there
    assert first.mean() > 0.5 and second.mean() < -0.5 and abs(any_of_them.mean()) < 0.3


def test_a_model_may_flatten_what_its_guide_does_not():
    o = build("m2", likelihood="gaussian").eval()
    flat = zoo.build("m2", 16, K, hidden=(6,), z_dim=2).eval()

    class Flat(type(o.model)):
        def forward(self, x, y=None):
            super().forward(x.flatten(1), y)

    own = Objective(Flat(flat.model.p_y, flat.model.p_z, flat.model.p_x), o.guide).eval()
    assert generate(own, 3, EYE[:1]).shape == (3, 16) and reconstruct(own, X, Y).shape == (5, 16)


def test_what_comes_after_x_sees_a_draw_of_it():
    """z ~ N(0, 1), x ~ N(z, 1), and the class is the sign of x: E[z | class] is 0.564.

    With x = z it would be 0.79.
    """
    o = zoo.build(
        "sslpe",
        (1,),
        2,
        z_dim=1,
        hidden=(),
        classifier_hidden=(),
        sigma=1.0,
        noise=0.0,
        dropout=0.0,
    ).eval()
    p_y, p_x = o.model.p_y.network, o.model.p_x.network
    with torch.no_grad():
        for p in (*p_y.parameters(), *p_x.parameters()):
            p.zero_()
        p_x.first.weights[0].fill_(1.0)
        p_y.first.weights[0].copy_(torch.tensor([[40.0, -40.0]]))
    assert abs(generate(o, 4000, torch.tensor([1.0, 0.0])).mean() - 0.564) < 0.06


@pytest.mark.parametrize("factor", [0.1, 20.0])
def test_a_scale_is_no_likelihood(factor):
    o = build("latent_classifier", likelihood="gaussian", sigma=1.0).eval()

    class Scaled(type(o.model)):
        def forward(self, x, y=None):
            with poutine.scale(scale=factor):
                super().forward(x, y)

    scaled = Objective(Scaled(o.model.p_z, o.model.p_y, o.model.p_x), o.guide).eval()
    torch.testing.assert_close(generate(scaled, 6, EYE[0]), generate(o, 6, EYE[0]))


def test_a_program_of_ones_own_and_a_real_label():
    wave = zoo.build("sslpe", (2,), 1, z_dim=2, hidden=(5,), regression=True)
    x = torch.randn(7, 2)
    assert reconstruct(wave, x).shape == (7, 2)
    assert generate(wave, 3, torch.zeros(1)).shape == generate(wave, 3).shape == (3, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: generate(build("classifier"), 2), "without a model generates no data"),
        (lambda: generate(build("vc"), 2), "no site x"),
        (lambda: reconstruct(build("ce"), X), "no site x"),
        (lambda: generate(build("vae"), 2, EYE[0]), "y: the model has no site y"),
        (lambda: generate(build("m2"), 0), "n should be a whole number above 0"),
        (
            lambda: generate(build("m2"), 4, EYE),
            r"y should be one-hot, \(3,\) or \(4, 3\), got shape \(3, 3\)",
        ),
        (lambda: generate(build("m2"), 3, torch.tensor([0, 1, 2])), "y should be one-hot"),
        (lambda: generate(build("m2"), 3, torch.eye(5)[0]), "y should be one-hot"),
        (
            lambda: reconstruct(build("m2"), X, EYE),
            r"y should be one-hot, \(3,\) or \(5, 3\), got shape \(3, 3\)",
        ),
        (lambda: reconstruct(build("m2"), X, into=0.5 * Y), "into should be one-hot"),
    ],
)
def test_what_cannot_be_made_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call()

"""The zoo's bounds against sums written out by hand and against the papers, in float64."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_ssl import (
    Batch,
    Objective,
    TraceTopKEnum_ELBO,
    guides,
    models,
    one_hot,
    zoo,
)
from pyro_ssl.distributions.conditionals import OneHotCategorical, expected, merge
from pyro_ssl.distributions.priors import ClassPrior
from pyro_ssl.infer.joint_pass import joint_pass_is_exact
from pyro_ssl.nn.tensor_annotations import class_weights
from pyro_ssl.objectives.loss_context import LossContext
from pyro_ssl.objectives.terms import Consistency, Entropy, MutualInformation, entropy
from pyro_ssl.prediction.predict import predict_proba

pytestmark = pytest.mark.usefixtures("float64")
D, K, B, P_Y = 4, 3, 6, (0.5, 0.3, 0.2)
SMALL = {
    "hidden": (5,),
    "z_dim": 2,
    "a_dim": 3,
    "z_dims": (4, 3, 2),
    "z_y_dim": 3,
    "top_k": None,
    "activation": "tanh",
}
PLAIN = {"noise": 0.0, "dropout": 0.0, "balance": 0.0, "alpha": 0.0, "labeled_weight": 1.0}
ROWS = {B: slice(B), 8: slice(8), 16: slice(8, 24), 24: slice(24)}
LATENT = (
    "latent_classifier",
    "latent_classifier_exact",
    "latent_classifier_simplified",
    "latent_classifier_split",
)


def build(method: str, p_y: tuple[float, ...] | None = P_Y, **options) -> Objective:
    """A method with weights and biases in general position, and a p(y) that is not uniform."""
    known = zoo.options_of(method)
    o = zoo.build(
        method, D, K, **{k: v for k, v in (SMALL | PLAIN | options).items() if k in known}
    ).double()
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in o.parameters():
            p.add_(0.4 * torch.randn(p.shape, generator=g))
    if p_y and isinstance(o.model.p_y, ClassPrior):
        o.model.p_y = ClassPrior(p_y).double()
    return o


def data(n: int = B) -> tuple[Tensor, Tensor]:
    x = torch.randn(24, D, generator=torch.Generator().manual_seed(0))
    return x[ROWS[n]], one_hot(torch.arange(24) % K, K, torch.float64)[ROWS[n]]


@pytest.fixture
def noise(monkeypatch, float64):
    """Standard normal noise that depends on class, datum and size of the site, not on the order."""
    g = torch.Generator().manual_seed(2)
    pool = {size: torch.randn(K, 24, size, generator=g) for size in (1, 2, 3, 4)}

    def drawn(shape, **_) -> Tensor:
        *values, rows, size = shape
        return pool[size][: values[0], ROWS[rows]] if values else pool[size][0, ROWS[rows]]

    monkeypatch.setattr(torch.distributions.normal, "_standard_normal", drawn)
    monkeypatch.setattr(
        torch, "randn_like", lambda t: drawn(t.shape)
    )  # what classes share, see EnumerateMessenger
    return pool


def gradients(value: Tensor, o) -> list[Tensor]:
    """Of a sum in which each datum counts differently."""
    of, weights = list(o.parameters()), torch.linspace(0.5, 1.5, value.numel()).reshape(value.shape)
    found = torch.autograd.grad((weights * value).sum(), of, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, of, strict=True)]


def assert_same(ours: Tensor, theirs: Tensor, o) -> None:
    assert ours.shape == theirs.shape
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-10)
    for a, b in zip(gradients(ours, o), gradients(theirs, o), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-8)


# --- every bound, written out ---------------------------------------------------------------------
#
# Each function gives log p - log q of everything but q(y|.), for one y, and q(y|.). `draw` is
# z = mean + scale * noise, its second argument saying that the site comes after y; `mc` is
# log p - log q at the sample; `kl` stands where the KL is exact:
# all that the model conditions the site on has been drawn in the guide before it.


def m2(m, g, x, y, draw, kl, mc):
    z = draw(q_z := g.q_z(x, y), True)
    return m.p_y().log_prob(y) + kl(q_z, m.p_z(), z) + m.p_x(y, z).log_prob(x), g.q_y(x)


def adgm(m, g, x, y, draw, kl, mc):
    a = draw(q_a := g.q_a(x), False)
    z = draw(q_z := g.q_z(x, a, y), True)
    f = m.p_y().log_prob(y) + kl(q_z, m.p_z(), z) + m.p_x(y, z).log_prob(x)
    return f + mc(q_a, m.p_a(x, y, z), a), g.q_y(x, a)


def sdgm(m, g, x, y, draw, kl, mc):
    a = draw(q_a := g.q_a(x), False)
    z = draw(q_z := g.q_z(x, a, y), True)
    f = m.p_y().log_prob(y) + kl(q_z, m.p_z(), z) + m.p_x(a, y, z).log_prob(x)
    return f + mc(q_a, m.p_a(y, z), a), g.q_y(x, a)


def product(a, b):
    """Of two Gaussians, by variances."""
    loc = (a.mean * b.variance + b.mean * a.variance) / (a.variance + b.variance)
    return dist.Normal(loc, (a.variance * b.variance / (a.variance + b.variance)).sqrt()).to_event(
        1
    )


def lvae(m, g, x, y, draw, kl, mc):
    d_1 = g.up[0](x, y)
    d_2 = g.up[1](d_1)
    d_3 = g.up[2](d_2)
    z_3 = draw(q_3 := g.q_z[2](d_3), True)
    p_2 = m.p_z[1](z_3)
    z_2 = draw(q_2 := product(g.q_z[1](d_2), p_2), True)
    p_1 = m.p_z[0](z_2)
    z_1 = draw(q_1 := product(g.q_z[0](d_1), p_1), True)
    f = m.p_y().log_prob(y) + kl(q_3, m.p_z_top(), z_3) + kl(q_2, p_2, z_2) + kl(q_1, p_1, z_1)
    return f + m.p_x(y, z_1).log_prob(x), g.q_y(x)


def sslpe(m, g, x, y, draw, kl, mc):
    z = draw(q_z := g.q_z(x, y), True)
    return kl(q_z, m.p_z(), z) + m.p_x(z).log_prob(x) + m.p_y(x, z).log_prob(y), g.q_y(x)


def latent_classifier(m, g, x, y, draw, kl, mc):
    z = draw(q_z := g.q_z(x), False)
    return kl(q_z, m.p_z(), z) + m.p_y(z).log_prob(y) + m.p_x(y, z).log_prob(x), m.p_y(z)


def latent_classifier_simplified(m, g, x, y, draw, kl, mc):
    z = draw(q_z := g.q_z(x), False)
    f = kl(q_z, m.p_z(), z) + m.p_x(z).log_prob(x)
    return f if y is None else f + m.p_y(z).log_prob(y), None


def latent_classifier_split(m, g, x, y, draw, kl, mc):
    z_y = draw(q_y := g.q_z_y(x), False)
    z_u = draw(q_u := g.q_z_u(x, z_y), False)
    f = kl(q_y, m.p_z_y(), z_y) + kl(q_u, m.p_z_u(), z_u) + m.p_x(z_y, z_u).log_prob(x)
    return f if y is None else f + m.p_y(z_y).log_prob(y), None


SUMMED = {
    "m2": m2,
    "adgm": adgm,
    "sdgm": sdgm,
    "lvae": lvae,
    "sslpe": sslpe,
    "latent_classifier": latent_classifier,
}
BY_HAND = SUMMED | {
    "latent_classifier_exact": latent_classifier,
    "latent_classifier_simplified": latent_classifier_simplified,
    "latent_classifier_split": latent_classifier_split,
}


def classes_by_hand(
    method: str,
    o: Objective,
    x,
    y,
    pool,
    *,
    closed_form=True,
    shared=True,
    beta=1.0,
    free=0.0,
    slip=None,
):
    """log p - log q and q(y|.) of the y given, or of each class in turn, `(K, B)`.

    `slip` is an error on purpose: the size of a site that is left out, or "detached" samples.
    """

    def mc(q, p, value):
        return 0.0 if slip == q.event_shape[0] else beta * (p.log_prob(value) - q.log_prob(value))

    def kl(q, p, value):
        exact = closed_form and slip != q.event_shape[0]
        return -beta * kl_divergence(q, p).clamp_min(free) if exact else mc(q, p, value)

    def one(y, k):
        def draw(q, after_y):
            z = q.mean + q.stddev * pool[q.event_shape[0]][k if after_y else 0, ROWS[len(x)]]
            return z.detach() if slip == "detached" else z

        return BY_HAND[method](o.model, o.guide, x, y, draw, kl, mc)

    if y is not None or method.endswith(("simplified", "split")):
        return one(y, 0)
    every = [one(torch.eye(K)[k].expand(len(x), K), 0 if shared else k) for k in range(K)]
    return torch.stack([f for f, _ in every]), every[0][1]


def by_hand(method: str, o: Objective, x, y, pool, **options) -> Tensor:
    """L(x, y), or U(x)."""
    f, q = classes_by_hand(method, o, x, y, pool, **options)
    if f.dim() == 1:
        return f
    if method == "latent_classifier_exact":
        return f.exp().sum(0).log()
    return sum(q.probs[:, k] * (f[k] - q.probs[:, k].log()) for k in range(K))


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(
    ("closed_form", "shared", "beta"),
    [(True, True, 1.0), (True, False, 0.3), (False, True, 0.3), (False, False, 1.0)],
)
@pytest.mark.parametrize("method", BY_HAND)
def test_bounds_are_the_sums_written_out(method, closed_form, shared, beta, given, noise):
    o, (x, y) = build(method, closed_form=closed_form, common_random_numbers=shared), data()
    y = y if given else None
    theirs = by_hand(method, o, x, y, noise, closed_form=closed_form, shared=shared, beta=beta)
    assert_same(o.bound(x, y, kl_weight=beta), theirs, o)


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(("free", "beta"), [(3.0, 1.0), (2.0, 0.3)])
@pytest.mark.parametrize("method", BY_HAND)
def test_free_bits_are_the_least_that_a_closed_kl_counts(method, free, beta, given, noise):
    """For each site and datum alone, and times beta under warm-up; some above and some below."""
    o, (x, y) = build(method, free_bits=free), data()
    y = y if given else None
    assert_same(
        o.bound(x, y, kl_weight=beta), by_hand(method, o, x, y, noise, beta=beta, free=free), o
    )
    assert not torch.allclose(
        o.bound(x, y, kl_weight=beta), by_hand(method, o, x, y, noise, beta=beta)
    )


SIZES = {"adgm": (2, 3), "sdgm": (2, 3), "lvae": (2, 3, 4), "latent_classifier_split": (2, 3)}
SLIPS = [(m, slip) for m in BY_HAND for slip in (*SIZES.get(m, (2,)), "detached")]


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(("method", "slip"), SLIPS)
def test_a_wrong_sum_shows(method, slip, given, noise):
    """Negative control of the comparison: it detects a missing site and a missing gradient."""
    o, (x, y) = build(method), data()
    y = y if given else None
    ours, theirs = o.bound(x, y), by_hand(method, o, x, y, noise, slip=slip)
    assert torch.allclose(ours, theirs) == (slip == "detached")
    with pytest.raises(AssertionError):
        assert_same(ours, theirs, o)


@pytest.mark.parametrize(
    ("method", "sites"), [("adgm", ("a", "z")), ("sdgm", ("a", "z")), ("sslpe", ("y", "z"))]
)
def test_a_kl_where_it_is_not_exact_shows(method, sites, noise):
    """Negative control of the bound: in the model these sites depend on later ones of the guide."""
    o, (x, _) = build(method), data()
    o.elbo = TraceTopKEnum_ELBO(None, common_random_numbers=True, closed_form=sites)
    assert not torch.allclose(o.bound(x), by_hand(method, o, x, None, noise), atol=1e-2)


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("scale", [1.0, 0.37])
@pytest.mark.parametrize("method", BY_HAND)
def test_bounds_are_pyros_own(method, scale, given, noise):
    """Of latent_classifier_exact it is Pyro that sums y out of the model.

    Pyro's validation takes SSLPE's p(y|x,z), with a z for each class, for a conflict of
    dimensions; its sum is right.
    """
    o, (x, y) = build(method, closed_form=False, common_random_numbers=False), data()
    y = y if given else None
    stock = TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)
    with pyro.poutine.scale(scale=scale), pyro.validation_enabled(method != "sslpe"):
        theirs, ours = stock.differentiable_loss(o.model, o.guide, x, y), -o.bound(x, y).sum()
    assert_same(ours, theirs, o)


@pytest.mark.parametrize("method", [*SUMMED, "latent_classifier_exact"])
def test_a_bound_per_class_is_the_labeled_bound(method, noise):
    o, (x, _) = build(method), data()
    every = [o.bound(x, torch.eye(K)[k].expand(B, K)) for k in range(K)]
    assert_same(o.elbo.class_bounds(o.model, o.guide, x), torch.stack(every, -1), o)


# --- labeled and unlabeled data in one call -------------------------------------------------------


@pytest.mark.parametrize(("closed_form", "top_k"), [(True, None), (False, None), (True, 1)])
@pytest.mark.parametrize("method", SUMMED)
def test_together_is_as_apart(method, closed_form, top_k, noise):
    """And as written out; labeled data have their own bound whatever is summed over."""
    o, (x, y), (u, _) = build(method, closed_form=closed_form, top_k=top_k), data(8), data(16)
    batch, options = Batch(x, y, u), {"closed_form": closed_form, "beta": 0.5}
    assert joint_pass_is_exact(o.model, o.guide, batch)
    weights, terms = (
        {"labeled_weight": 0.3, "unlabeled_weight": 2.0},
        [Entropy(0.4), MutualInformation(0.6)],
    )
    parts, calls = {}, []
    o.guide.register_forward_pre_hook(lambda *_: calls.append(len(calls)))
    for joint_pass in (True, False):
        whole = Objective(o.model, o.guide, terms, **weights, elbo=o.elbo, joint_pass=joint_pass)
        parts[joint_pass] = whole.parts(batch, kl_weight=0.5)
        assert len(calls) == (1 if joint_pass else 3)
    assert (
        list(parts[True])
        == list(parts[False])
        == ["labeled", "unlabeled", "Entropy", "MutualInformation"]
    )
    for name, value in parts[True].items():
        if name != "unlabeled" or top_k is None:
            assert_same(value, parts[False][name], o)
    assert_same(parts[True]["labeled"], -0.3 * by_hand(method, o, x, y, noise, **options).mean(), o)
    if top_k is None:
        assert_same(
            parts[True]["unlabeled"], -2.0 * by_hand(method, o, u, None, noise, **options).mean(), o
        )


@pytest.mark.parametrize("method", LATENT[1:])
def test_a_guide_without_y_is_called_apart(method):
    o, (x, y) = build(method), data()
    o.check(Batch(x, y, x))
    assert not joint_pass_is_exact(o.model, o.guide, Batch(x, y, x))
    assert o(Batch(x, y, x)).isfinite()


# --- what the papers say --------------------------------------------------------------------------


@pytest.mark.parametrize("closed_form", ["auto", ()])
def test_sslpe_guided_by_its_own_classifier_is_a_vae(closed_form, noise):
    """Paper 002, appendix A: all terms in y cancel for each datum; p(y|x,z) gets no gradient."""
    o, other, (x, _) = build("sslpe"), build("latent_classifier"), data()
    p_y, q_z, bound = (
        o.model.p_y,
        other.guide.q_z,
        TraceTopKEnum_ELBO(None, closed_form=closed_form).bound,
    )

    def guide(x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", q_z(x))
            pyro.sample("y", p_y(x, z), infer={"enumerate": "parallel"})

    ours = bound(o.model, guide, x).value
    vae = (
        models.VAE(o.model.p_z, o.model.p_x),
        guides.VAE(q_z, OneHotCategorical(torch.nn.Identity())),
    )
    assert_same(ours, bound(*vae, x).value, torch.nn.ModuleList([o, other]))
    assert all(g.abs().max() < 1e-12 for g in gradients(ours, p_y))
    assert any(
        g.abs().max() > 1e-3 for g in gradients(o.bound(x), p_y)
    )  # SSLPE's own guide does teach it


def test_ours_is_below_the_exact_bound_at_every_z(noise):
    """Paper 003, propositions 1 and 2: by Jensen's inequality over p(y|z)."""
    ours, exact, (x, y) = build("latent_classifier"), build("latent_classifier_exact"), data()
    exact.load_state_dict(ours.state_dict())
    q, m = ours.guide.q_z(x), ours.model
    z = q.mean + q.stddev * noise[2][0, :B]
    log_px = torch.stack([m.p_x(torch.eye(K)[k].expand(B, K), z).log_prob(x) for k in range(K)], -1)
    assert_same(ours.bound(x), (m.p_y(z).probs * log_px).sum(-1) - kl_divergence(q, m.p_z()), ours)
    gap = exact.bound(x) - ours.bound(x)
    assert (gap >= 0).all() and gap.max() > 1e-3
    assert torch.allclose(ours.bound(x, y), exact.bound(x, y), rtol=0, atol=1e-12)  # L is the same


def log_evidence(method: str, m, x, y=None) -> Tensor:
    """log p(x) or log p(x, y), by a sum over a grid of each code, of size 1."""
    sizes = (1, 801) if method != "latent_classifier_split" else (2, 161)
    line = torch.linspace(-8, 8, sizes[1])
    codes = [c.reshape(-1, 1, 1) for c in torch.meshgrid(*[line] * sizes[0], indexing="ij")]
    f = (
        dist.Normal(0.0, 1.0).log_prob(torch.cat(codes, -1)).sum(-1)
        + len(codes) * (line[1] - line[0]).log()
    )
    p_y = m.p_y(codes[0])
    if method in LATENT[2:]:
        f = f + m.p_x(*codes).log_prob(x)
        return (f if y is None else f + p_y.log_prob(y)).logsumexp(0)
    every = torch.eye(K)[:, None, None] if y is None else y[None]
    return (f + p_y.log_prob(every) + m.p_x(every, *codes).log_prob(x)).flatten(0, -2).logsumexp(0)


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("method", LATENT)
def test_bounds_are_below_the_evidence(method, given):
    o, (x, y), n = build(method, z_dim=1, z_y_dim=1), data(), 4000
    y = y if given else None
    torch.manual_seed(0)
    with torch.no_grad():
        for q in (
            q for name, q in o.guide.named_children() if name.startswith("q_z")
        ):  # wider than any posterior
            for p in q.parameters():
                p.mul_(0.1)
            q.network.rest[-1].bias.copy_(torch.tensor([0.0, 1.0]))
        evidence = log_evidence(method, o.model, x, y)
        draws = o.bound(
            x.repeat_interleave(n, 0), None if y is None else y.repeat_interleave(n, 0)
        ).reshape(B, n)
        assert (draws.mean(1) - 4 * draws.std(1) / math.sqrt(n) < evidence).all()
        sampled = TraceTopKEnum_ELBO(None, num_particles=20_000).log_evidence(
            o.model, o.guide, x, y
        )
    assert torch.allclose(sampled, evidence, atol=0.1) and (draws.mean(1) < evidence - 0.05).any()


@pytest.mark.parametrize("method", LATENT[2:])
def test_a_label_adds_its_log_probability_given_the_code(method, noise):
    """Paper 003, where p(x,y|z) = p(x|z) p(y|z): L(x, y) - U(x) = log p(y|z)."""
    o, (x, y) = build(method), data()
    q, size = (o.guide.q_z(x), 2) if method == LATENT[2] else (o.guide.q_z_y(x), 3)
    z = q.mean + q.stddev * noise[size][0, :B]
    assert_same(o.bound(x, y) - o.bound(x), o.model.p_y(z).log_prob(y), o)


@pytest.mark.parametrize("seed", range(5))
def test_the_labels_kl_is_mutual_information_and_balance(seed):
    """Paper 004, eq. 6 to 8: E KL(q(y|x) || p(y)) - I(y;x) = KL(q(y) || p(y)).

    It is 0 where q(y), the mean, is p(y).
    """
    logits = 3 * torch.randn(7, K, generator=torch.Generator().manual_seed(seed))
    q, known = logits.softmax(-1), {"unlabeled": dist.OneHotCategorical(logits=logits)}
    information = -MutualInformation().formula(LossContext(Batch(x_unlabeled=logits), None, known))
    assert torch.allclose(information, entropy(q.mean(0)) - entropy(q).mean(), rtol=0, atol=1e-12)
    for p in (torch.tensor(P_Y), q.mean(0)):
        excess = (q * (q / p).log()).sum(-1).mean() - information
        assert torch.allclose(excess, (q.mean(0) * (q.mean(0) / p).log()).sum(), rtol=0, atol=1e-12)
        assert (excess > 1e-3) != torch.allclose(p, q.mean(0))


@pytest.mark.parametrize("method", ["m2", "adgm", "sdgm", "lvae"])
def test_mier_leaves_five_entropies_net(method, noise):
    """Paper 004, eq. 9: the bound's -1, beta = 5 and gamma = 1 make 5 H(q(y|x)) - H(q(y)).

    q is evaluated at the bound's own sample of a.
    """
    o, x = build(method, p_y=None, entropy=5.0, mutual_information=1.0), data()[0]
    plain, batch, calls = Objective(o.model, o.guide, elbo=o.elbo), Batch(x_unlabeled=x), []
    f, q = classes_by_hand(method, o, x, None, noise)
    conditional, marginal = -(q.probs * q.probs.log()).sum(-1).mean(), entropy(q.probs.mean(0))
    o.guide.q_y.register_forward_hook(lambda *_: calls.append(1))
    loss = o(batch)
    assert len(calls) == 1
    assert_same(loss - plain(batch), 6 * conditional - marginal, o)
    assert_same(loss, 5 * conditional - marginal - (q.probs.T * f).sum(0).mean(), o)


# --- parts ----------------------------------------------------------------------------------------


def gaussian(loc: float, scale: float) -> dist.Independent:
    return dist.Normal(torch.tensor([loc]), torch.tensor([scale])).to_event(1)


KNOWN, VAGUE = (0.7, 0.4), (-50.0, 1e7)
PAIRS = [((0.3, 0.5), (-1.2, 1.4)), ((2.0, 0.2), (2.5, 0.3)), (KNOWN, VAGUE), (VAGUE, KNOWN)]


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_merge_is_the_normalised_product(a, b):
    """What knows nothing merges away."""
    grid = torch.linspace(-12, 12, 20_001)[:, None]
    density = (gaussian(*a).log_prob(grid) + gaussian(*b).log_prob(grid)).exp()
    density = density / (density.sum() * (grid[1, 0] - grid[0, 0]))
    assert torch.allclose(
        merge(gaussian(*a), gaussian(*b)).log_prob(grid).exp(), density, rtol=0, atol=1e-10
    )
    if VAGUE in (a, b):
        assert torch.allclose(density, gaussian(*KNOWN).log_prob(grid).exp(), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("rows", "draws", "blocks"), [(5, 7, [7]), (2**13, 7, [2, 2, 2, 1]), (2**15, 3, [1, 1, 1])]
)
def test_expected_is_the_mean_over_so_many_draws(rows, draws, blocks):
    g = torch.Generator().manual_seed(0)
    w, seen = torch.randn(1, K, generator=g), []
    given = dist.Normal(torch.randn(rows, 1, generator=g), 0.5).to_event(1)

    def p_y(z):
        seen.append(z)
        return dist.OneHotCategorical(logits=z @ w)

    q = expected(p_y, given, draws)
    z = torch.cat([z.reshape(-1, rows, 1) for z in seen])
    assert [len(part) for part in seen] == blocks and len(z) == draws
    assert torch.allclose(q.probs, (z @ w).softmax(-1).mean(0), rtol=0, atol=1e-12)
    assert len(z.unique()) == z.numel()


@pytest.mark.parametrize("method", ["adgm", "sdgm", *LATENT])
def test_a_prediction_averages_over_what_is_drawn_first(method):
    """Against an average over many draws; in training it is of one, which teaches the encoder."""
    o, (x, y) = build(method, draws=10_000).eval(), data()
    g = o.guide
    first = next(getattr(g, name) for name in ("q_a", "q_z_y", "q_z") if hasattr(g, name))
    p_y = (lambda a: g.q_y(x, a)) if hasattr(g, "q_a") else g.p_y
    torch.manual_seed(0)
    with torch.no_grad():
        each = p_y(first(x).sample(torch.Size([50_000]))).mean
    mean, error = each.mean(0), each.std(0) * math.sqrt(1 / 10_000 + 1 / 50_000)
    assert ((o.classify(x).mean - mean).abs() < 5 * error).all()
    one = o.train().classify(x)
    assert not torch.allclose(one.mean, mean, atol=1e-2)
    one.log_prob(y).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in first.parameters())


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", BY_HAND)
def test_data_of_another_shape_are_refused(method):
    o, y = build(method), data()[1]
    for wrong in (torch.randn(B, D + 1), torch.randn(B)):
        with pytest.raises(ValueError, match=rf"input 0 should have shape \(\*, {D}\)"):
            o.check(Batch(wrong, y, wrong))


@pytest.mark.parametrize("method", ["m2", "adgm", "latent_classifier"])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 1.0])
def test_consistency_is_the_cross_entropy_of_what_is_certain_without_noise(method, threshold):
    o, x = zoo.build(method, (D,), K, noise=0.7, dropout=0.4, hidden=(5,)).double(), data()[0]
    step = LossContext(Batch(x_unlabeled=x), o.guide)
    modes = {name: part.training for name, part in o.named_modules()}
    torch.manual_seed(1)
    ours = Consistency(threshold=threshold).formula(step)
    assert modes == {name: part.training for name, part in o.named_modules()} and o.training
    sure, q = step.q_without_noise, step.q_unlabeled.mean
    assert not torch.allclose(sure, q) and not sure.requires_grad
    if method == "m2":
        assert torch.equal(sure, predict_proba(o, x))
    theirs = sum(-q[i, row.argmax()].log() for i, row in enumerate(sure) if row.max() >= threshold)
    assert torch.allclose(ours, torch.as_tensor(theirs, dtype=ours.dtype) / len(x), rtol=1e-12)
    if threshold < 1:
        mine, hand = (
            torch.autograd.grad(v, list(o.guide.parameters()), retain_graph=True, allow_unused=True)
            for v in (ours, theirs / len(x))
        )
        assert all(
            (a is None) == (b is None) and (a is None or torch.allclose(a, b, rtol=1e-10))
            for a, b in zip(mine, hand, strict=True)
        )


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.1, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold"):
        Consistency(threshold=threshold)


@pytest.mark.parametrize("method", LATENT)
def test_the_codes_classifier_is_one_in_model_and_guide(method):
    """p(y|z) has no dropout, which would be drawn twice: it still cancels from 003's bound."""
    o, x = zoo.build(method, (D,), K, hidden=(5,), dropout=0.3).double(), data()[0]
    assert o.training and not any(
        isinstance(part, torch.nn.Dropout) for part in o.model.p_y.modules()
    )
    assert any(isinstance(part, torch.nn.Dropout) for part in o.guide.modules())
    z = torch.randn(len(x), next(iter(o.model.p_y.network.first.weights)).shape[0])
    assert torch.equal(o.model.p_y(z).logits, o.guide.p_y(z).logits)


def test_a_vae_weighs_all_data_alike():
    o, (x, y) = zoo.build("vae", (D,), K, likelihood="gaussian", sigma=0.7).double(), data()
    batch = Batch(x[:2], y[:2], x[2:])
    torch.manual_seed(0)
    parts = o.parts(batch)
    torch.manual_seed(0)
    bound = torch.cat([o.bound(x[:2], y[:2]), o.bound(x[2:])])
    ours = (parts["labeled"] + parts["unlabeled"]) * (len(x) - 2)
    assert torch.allclose(ours, -bound.sum(), rtol=1e-12)


def test_checks_leave_no_weights_of_classes_behind():
    o, (x, y) = zoo.build("m2", (D,), K, batch_norm=True).double(), data()
    before = class_weights.get()  # of a test that enumerates by hand
    o.check(Batch(x, y, x))
    o.bound(x)
    assert class_weights.get() is before


def test_convolutions_with_batch_norm_see_all_data_in_one_call():
    o = zoo.build("m2", (1, 8, 8), 3, network="conv", channels=(2, 2), hidden=(4,), batch_norm=True)
    x, y = torch.rand(6, 1, 8, 8), torch.eye(3)[torch.arange(6) % 3]
    assert o.double().joint_pass_for(Batch(x.double(), y.double(), x.double()))

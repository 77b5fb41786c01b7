"""Codes: flows, VampPrior, mixtures, the adversary of a code, and the codes of a first model, in float64, by hand."""

import math
from contextlib import suppress
from copy import deepcopy
from itertools import product

import numpy as np
import pyro.distributions as dist
import pytest
import torch
import zuko
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_ssl import (
    Batch,
    Objective,
    TraceTopKEnum_ELBO,
    fit,
    guides,
    one_hot,
    predict_proba,
    zoo,
)
from pyro_ssl.distributions.flows import Flow, FlowDistribution
from pyro_ssl.distributions.mixture import MixtureOfNormals
from pyro_ssl.distributions.priors import VampPrior
from pyro_ssl.infer.closed_form import closed_form_kl
from pyro_ssl.objectives.adversarial import Adversary
from pyro_ssl.objectives.loss_context import LossContext
from pyro_ssl.training.fit import pretrain
from pyro_ssl.training.optimizers import parameter_groups
from pyro_ssl.utils.context import eval_mode
from pyro_ssl.zoo.saved_model import SavedModel

D, K, B, Z, P = 4, 3, 6, 2, 4
SMALL = {"hidden": (5,), "z_dim": Z, "activation": "tanh", "pseudo_inputs": P, "top_k": None}
PLAIN = {"noise": 0.0, "dropout": 0.0, "balance": 0.0, "alpha": 0.0}
EYE = torch.eye(K, dtype=torch.float64)


def build(method: str = "m2", spread: float = 0.4, **options) -> Objective:
    """A method with weights and biases in general position."""
    known = zoo.options_of(method)
    o = zoo.build(
        method, D, K, **{k: v for k, v in (SMALL | PLAIN).items() if k in known} | options
    ).double()
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in o.parameters():
            p.add_(spread * torch.randn(p.shape, generator=g))
    return o


@pytest.fixture(autouse=True)
def seeded(float64):
    torch.manual_seed(0)


def data(n: int = B) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, D, generator=torch.Generator().manual_seed(0))
    return x, one_hot(torch.arange(n) % K, K, torch.float64)


@pytest.fixture
def noise(monkeypatch, seeded):
    """Standard normal noise that depends on the class alone, the same for every datum."""
    pool = torch.randn(K, 1, Z, generator=torch.Generator().manual_seed(2))

    def drawn(shape, **_) -> Tensor:
        return (pool if len(shape) > 2 else pool[0]).expand(shape)

    monkeypatch.setattr(torch.distributions.normal, "_standard_normal", drawn)
    monkeypatch.setattr(
        torch, "randn_like", lambda t: drawn(t.shape)
    )  # what classes share, see EnumerateMessenger
    return pool


def gradients(value: Tensor, of: list[Tensor]) -> list[Tensor]:
    """Of a sum in which each datum counts differently."""
    weights = torch.linspace(0.5, 1.5, value.numel()).reshape(value.shape)
    found = torch.autograd.grad((weights * value).sum(), of, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, of, strict=True)]


def assert_same(ours: Tensor, theirs: Tensor, of: list[Tensor]) -> None:
    assert ours.shape == theirs.shape
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-10)
    for a, b in zip(gradients(ours, of), gradients(theirs, of), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-8)


def assert_unbiased(draws: Tensor, exact: Tensor, low: float = 0.7, high: float = 1.3) -> None:
    """z-scores of the means of 20 batches of draws, `(N, *)`, and of them all."""
    std, n = draws.std(0), len(draws)
    z = (draws.reshape(20, -1, *exact.shape).mean(1) - exact) / std * math.sqrt(n / 20)
    of_all = (draws.mean(0) - exact) / std * math.sqrt(n)
    assert low < z.square().mean().sqrt() < high and max(z.abs().max(), of_all.abs().max()) < 4.5


def traces(o: Objective, x: Tensor) -> tuple:
    return o.elbo.bound(o.model, o.guide, x)[1:3]


# --- bounds, written out ----------------------------------------------------------------------------------------------

CODES = {
    "flow": {"flow": 2},
    "vamp": {"prior": "vamp"},
    "vamp by class": {"prior": "vamp", "class_prior": True},
    "vamp and flow": {"prior": "vamp", "flow": 1},
    "vamp by class and flow": {"prior": "vamp", "class_prior": True, "flow": 2},
    "class prior": {"class_prior": True},
    "class prior and flow": {"class_prior": True, "flow": 1},
}


def log_q(q_z, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """log q(z|x,y) of a given z, which a flow has to be inverted for."""
    if not isinstance(q_z, Flow):
        return q_z(x, y).log_prob(z)
    u = q_z.transform().inv(z)
    return q_z.base(x, y).log_prob(u) - q_z.transform().call_and_ladj(u)[1]


def log_vamp(p_z: VampPrior, y: Tensor, z: Tensor) -> Tensor:
    x, *others = p_z.inputs
    each = [log_q(p_z.q_z, x[p], others[0][p] if others else y, z) for p in range(P)]
    return torch.stack(each).logsumexp(0) - math.log(P)


def f_by_hand(o: Objective, x: Tensor, y: Tensor, noise: Tensor) -> Tensor:
    """log p(x, y, z) - log q(z|x,y), with the KL in closed form where both are Gaussians."""
    p_z, q_z, flow = o.model.p_z, o.guide.q_z, isinstance(o.guide.q_z, Flow)
    q = (q_z.base if flow else q_z)(x, y)
    z = q.mean + q.stddev * noise
    z = q_z.transform()(z) if flow else z
    log_px = math.log(1 / K) + o.model.p_x(y, z).log_prob(x)
    if isinstance(p_z, VampPrior):
        return log_px + log_vamp(p_z, y, z) - log_q(q_z, x, y, z)
    return log_px + (
        p_z(y).log_prob(z) - log_q(q_z, x, y, z) if flow else -kl_divergence(q, p_z(y))
    )


def by_hand(o: Objective, x: Tensor, y: Tensor | None, pool: Tensor, shared: bool = True) -> Tensor:
    if y is not None:
        return f_by_hand(o, x, y, pool[0])
    q = o.guide.q_y(x).probs
    every = [f_by_hand(o, x, EYE[k].expand(len(x), K), pool[0 if shared else k]) for k in range(K)]
    return sum(q[:, k] * (every[k] - q[:, k].log()) for k in range(K))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("codes", CODES.values(), ids=CODES)
def test_bounds_are_the_sums_written_out(codes, shared, noise):
    """Without y, with it, and with the labels of the first rows; there K copies of each stand for it, of one noise each."""
    o, (x, y) = build(common_random_numbers=shared, **codes), data()
    of, vamp, by_class = list(o.parameters()), codes.get("prior") == "vamp", "class_prior" in codes
    assert (isinstance(o.model.p_z, VampPrior), isinstance(o.guide.q_z, Flow)) == (
        vamp,
        "flow" in codes,
    )
    assert torch.equal(*(o.model.p_z(e).log_prob(torch.zeros(Z)) for e in EYE[:2])) != by_class
    assert_same(o.bound(x), by_hand(o, x, None, noise, shared), of)
    assert_same(o.bound(x, y), by_hand(o, x, y, noise), of)
    if shared:
        parts = by_hand(o, x[:2], y[:2], noise), by_hand(o, x[2:], None, noise)
        assert_same(o.elbo.bound(o.model, o.guide, x, labels=y[:2]).value, torch.cat(parts), of)


def ladder_by_hand(o: Objective, x: Tensor, y: Tensor, noise: Tensor) -> Tensor:
    """The same of two latents, of which the top_k one has the families."""
    m, g = o.model, o.guide
    of_top, flow, vamp = g.q_z[-1], isinstance(g.q_z[-1], Flow), isinstance(m.p_z_top, VampPrior)
    top_k = guides.LadderTop(g.up, of_top.base if flow else of_top)
    q = top_k(x, y)
    z_2 = q.mean + q.stddev * noise
    z_2 = of_top.transform()(z_2) if flow else z_2
    p_1, seen = m.p_z[0](z_2), g.q_z[0](g.up[0](x, y))
    precision = 1 / p_1.variance + 1 / seen.variance
    mean = (p_1.mean / p_1.variance + seen.mean / seen.variance) / precision
    q_1 = dist.Normal(mean, precision.rsqrt()).to_event(1)
    rest = (
        m.p_x(y, mean + precision.rsqrt() * noise).log_prob(x)
        - kl_divergence(q_1, p_1)
        + math.log(1 / K)
    )
    if not (flow or vamp):
        return rest - kl_divergence(q, m.p_z_top(y))
    log_p = log_vamp(m.p_z_top, y, z_2) if vamp else m.p_z_top(y).log_prob(z_2)
    return rest + log_p - log_q(Flow(top_k, of_top.transform) if flow else top_k, x, y, z_2)


@pytest.mark.parametrize("codes", CODES.values(), ids=CODES)
def test_the_top_of_a_ladder_may_be_of_any_family(codes, noise):
    o, (x, y) = build("lvae", common_random_numbers=False, **codes, z_dims=(Z, Z)), data()
    of = list(o.parameters())
    assert_same(o.bound(x, y), ladder_by_hand(o, x, y, noise[0]), of)
    q = o.guide.q_y(x).probs
    every = [ladder_by_hand(o, x, EYE[k].expand(B, K), noise[k]) for k in range(K)]
    assert_same(o.bound(x), sum(q[:, k] * (every[k] - q[:, k].log()) for k in range(K)), of)


@pytest.mark.parametrize("method", ["m2", "adgm", "sdgm", "sslpe"])
@pytest.mark.parametrize("codes", CODES.values(), ids=CODES)
def test_the_kl_of_two_gaussians_alone_is_closed(codes, method):
    codes = {k: v for k, v in codes.items() if k in zoo.options_of(method)}
    closed = closed_form_kl(*traces(build(method, **codes), data()[0]))
    assert ("z" in closed) == (not codes.keys() & {"prior", "flow"})


# --- flows ------------------------------------------------------------------------------------------------------------


def flowing(transforms: int, *lead: int) -> tuple[FlowDistribution, list[Tensor]]:
    maf = zuko.flows.MAF(Z, transforms=transforms, hidden_features=(8,)).transform
    with torch.no_grad():
        for p in maf.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    loc, scale = (
        torch.randn(*lead, Z).requires_grad_(),
        torch.rand(*lead, Z).add(0.5).requires_grad_(),
    )
    return FlowDistribution(dist.Normal(loc, scale).to_event(1), maf()), [
        loc,
        scale,
        *maf.parameters(),
    ]


def integral(log_prob, half: float = 20.0) -> float:
    line = torch.linspace(-half, half, 401)
    with torch.no_grad():
        return (
            log_prob(torch.cartesian_prod(line, line)).exp().sum() * (line[1] - line[0]) ** 2
        ).item()


@pytest.mark.parametrize("lead", [(B,), (K, B), ()])
@pytest.mark.parametrize("transforms", [1, 3])
def test_a_flow_is_a_change_of_variables(transforms, lead):
    """Against a Jacobian of each row; what is kept of the drawing, and what an inverse finds, in value and gradient."""
    q, of = flowing(transforms, *lead)
    u = q.base.rsample()
    z = q.transform_base(u)
    jacobians = [torch.autograd.functional.jacobian(q.transform, row) for row in u.reshape(-1, Z)]
    ladj = torch.linalg.slogdet(torch.stack(jacobians))[1].reshape(lead)
    kept, found = q.log_prob(z), q.log_prob(z.clone())
    assert torch.allclose(kept, q.base.log_prob(u) - ladj, rtol=0, atol=1e-10)
    assert_same(kept, found, of)
    assert all(g.abs().max() > 0 for g in gradients(kept, of))
    q.rsample()
    assert torch.allclose(
        q.log_prob(z), kept, rtol=0, atol=1e-10
    )  # it is not the last draw any more
    if not lead:
        assert integral(q.log_prob) == pytest.approx(1, abs=5e-3)


def test_expansions_of_a_flow_share_what_was_drawn(monkeypatch):
    q, _ = flowing(2, B)
    wide = q.expand(torch.Size([K, B]))
    z = wide.rsample()
    assert z.shape == (K, B, Z)
    expected = q.log_prob(z.clone())
    monkeypatch.setattr(type(q.transform), "inv", None)  # whoever inverts fails
    assert torch.allclose(q.log_prob(z), expected, rtol=0, atol=1e-10) and wide.log_prob(
        z
    ) is q.log_prob(z)
    with pytest.raises(TypeError):
        q.log_prob(z.clone())


@pytest.mark.parametrize("shared", [True, False])
def test_shared_noise_is_one_noise_in_the_base(shared):
    o, x = build(flow=2, common_random_numbers=shared), data()[0]
    z = traces(o, x)[0].nodes["z"]["value"]
    base = o.guide.q_z.base(x, EYE[:, None])
    u = (o.guide.q_z.transform().inv(z) - base.mean) / base.stddev
    assert z.shape == (K, B, Z) and torch.allclose(u, u[:1].expand_as(u), atol=1e-8) == shared


def test_the_likeliest_and_one_are_unbiased_for_a_flow():
    """Value and gradient, in q(y|x)'s and q(z|x,y)'s last biases, of which each row of data has its own."""
    o, n = build(flow=1), 20_000
    x, draws = data(1)[0].expand(n, D), {}
    last = [o.guide.q_y.network.rest[-1], o.guide.q_z.base.network.rest[-1]]
    for top_k in (1, None):
        own = [layer.bias.detach().expand(n, -1).clone().requires_grad_() for layer in last]
        hooks = [
            m.register_forward_hook(lambda m, i, h, b=b: h - m.bias + b)
            for m, b in zip(last, own, strict=True)
        ]
        bound = (
            TraceTopKEnum_ELBO(top_k, common_random_numbers=True).bound(o.model, o.guide, x).value
        )
        draws[top_k] = torch.cat(
            [bound[:, None], *torch.autograd.grad(bound.sum(), own)], -1
        ).detach()
        for hook in hooks:
            hook.remove()
    error = (draws[1].mean(0) - draws[None].mean(0)) / (
        (draws[1].var(0) + draws[None].var(0)) / n
    ).sqrt()
    assert error.abs().max() < 4 and (draws[1].std(0) > draws[None].std(0)).any()


# --- VampPrior --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_class", [True, False])
@pytest.mark.parametrize("flow", [0, 2])
def test_a_vamp_prior_is_the_mean_of_posteriors_and_normalised(flow, by_class):
    z, q_z = torch.randn(5, B, Z), build("sslpe", spread=0.1, flow=flow).guide.q_z
    p_z = VampPrior(q_z, [D, K], P, by_class=by_class)
    for y in EYE:
        assert_same(p_z(y).log_prob(z), log_vamp(p_z, y, z), list(p_z.parameters()))
    assert integral(p_z(y).log_prob) == pytest.approx(1, abs=5e-3)


def test_a_vamp_prior_reads_its_pseudo_inputs_without_noise():
    o, z = (
        build("latent_classifier", prior="vamp", noise=0.7, dropout=0.5).train(),
        torch.randn(5, Z),
    )
    assert not torch.equal(o.guide.q_z(data()[0]).mean, o.guide.q_z(data()[0]).mean)
    assert torch.equal(o.model.p_z().log_prob(z), o.model.p_z().log_prob(z))


def test_pseudo_inputs_are_no_weights():
    o = build("m2", prior="vamp", l2=0.1)
    weights = [p for name, p in o.named_parameters() if p.dim() > 1 and "inputs" not in name]
    found = o.parts(Batch(*data()))["L2"]
    assert len(weights) < sum(p.dim() > 1 for p in o.parameters())
    assert torch.allclose(found, 0.05 * sum(w.square().sum() for w in weights))


@pytest.mark.parametrize("codes", [{}, {"class_prior": True}, {"flow": 1}])
def test_pseudo_inputs_learn_and_the_bound_stays_below_the_evidence(codes):
    """The evidence by a grid over codes, and by importance sampling."""
    o, n = zoo.build("m2", 2, K, **SMALL | PLAIN | codes, prior="vamp").double(), 2000
    before = [p.detach().clone() for p in o.model.p_z.inputs]
    y = torch.arange(60) % K
    x = 2 * EYE[y][:, :2] + 0.4 * torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    history = fit(o, x, y.where(torch.arange(60) < 30, -1), epochs=40, batch_size=30, lr=2e-2)
    assert history["loss"][-1] < history["loss"][0] - 1
    assert all((a - b).abs().max() > 1e-2 for a, b in zip(o.model.p_z.inputs, before, strict=True))
    line = torch.linspace(-9, 9, 121)
    z = torch.cartesian_prod(line, line)[:, None]
    with torch.no_grad():
        log_p = [
            o.model.p_z(e).log_prob(z) + o.model.p_x(e.expand(1, K), z).log_prob(x[:B]) for e in EYE
        ]
        evidence = torch.cat(log_p).logsumexp(0) + 2 * (line[1] - line[0]).log() - math.log(K)
        draws = o.bound(x[:B].repeat_interleave(n, 0)).reshape(B, n)
        sampled = TraceTopKEnum_ELBO(None, num_particles=n).log_evidence(o.model, o.guide, x[:B])
    assert torch.allclose(sampled, evidence, atol=0.1)
    assert (
        draws.mean(1) - 4 * draws.std(1) / math.sqrt(n) < evidence
    ).all() and draws.mean() < evidence.mean() - 0.01


# --- mixtures of Gaussians --------------------------------------------------------------------------------------------


def mixture(k: int, z: int, seed: int = 0) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    logits, loc, raw = (torch.randn(*s, generator=g) for s in ((k,), (k, z), (k, z)))
    return [p.requires_grad_() for p in (logits, loc, (0.3 * raw).exp())]


def rows(parameters: list[Tensor], n: int) -> list[Tensor]:
    """A copy for each draw, so that one backward pass gives the gradient of each."""
    return [p.detach().expand(n, *p.shape).clone().requires_grad_() for p in parameters]


def nodes(loc: Tensor, scale: Tensor, degree: int = 24) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite quadrature of diagonal Gaussians `(K, Z)`: places `(K, M, Z)` and weights `(M,)`."""
    t, w = (torch.as_tensor(a) for a in np.polynomial.hermite_e.hermegauss(degree))
    t, w = (
        torch.stack(torch.meshgrid(*[a] * loc.shape[-1], indexing="ij"), -1).flatten(0, -2)
        for a in (t, w)
    )
    return loc.unsqueeze(-2) + scale.unsqueeze(-2) * t, w.prod(-1) / math.sqrt(
        2 * math.pi
    ) ** loc.shape[-1]


def smooth(z: Tensor) -> Tensor:
    """A function of all of z that no product or sum of functions of its parts is."""
    s = z.cumsum(-1)
    return s.sin().sum(-1) + 0.3 * s[..., -1].square() + (0.5 * z[..., 0]).cos() * s[..., -1]


def test_a_mixture_has_its_density_and_its_moments():
    logits, loc, scale = mixture(3, Z)
    q = MixtureOfNormals(logits, loc, scale)
    parts = dist.Normal(loc, scale).to_event(1)
    other = dist.MixtureSameFamily(dist.Categorical(logits=logits), parts)
    z = q.rsample(torch.Size([100_000])).detach()
    assert_same(q.log_prob(z[:9]), other.log_prob(z[:9]), [logits, loc, scale])
    joint = logits.log_softmax(-1) + parts.log_prob(z[:9, None])
    assert torch.allclose(q.component_logits(z[:9]), joint.log_softmax(-1), rtol=0, atol=1e-12)
    mean = (logits.softmax(-1)[:, None] * loc).sum(0)
    second = (
        logits.softmax(-1)[:, None, None]
        * (loc[:, :, None] * loc[:, None] + scale.square().diag_embed())
    ).sum(0)
    assert torch.allclose(q.mean, mean) and q.expand(torch.Size([4, 5])).rsample().shape == (
        4,
        5,
        Z,
    )
    assert_unbiased(z, mean.detach())
    assert_unbiased(z[:, :, None] * z[:, None], second.detach())


@pytest.mark.parametrize(("z", "k"), product((1, 2, 3), (2, 5)))
def test_the_pathwise_gradient_is_that_of_the_expectation(z, k):
    """Against quadrature; the drawn component's own reparameterisation, a negative control, misses that of the weights."""
    parameters, n = mixture(k, z, seed=3), 100_000
    places, weights = nodes(*parameters[1:])
    exact = torch.autograd.grad(parameters[0].softmax(-1) @ (smooth(places) @ weights), parameters)
    own = rows(parameters, n)
    found = torch.autograd.grad(smooth(MixtureOfNormals(*own).rsample()).sum(), own)
    flat, wanted = (
        torch.cat([g.reshape(n, -1) for g in found], -1),
        torch.cat([g.flatten() for g in exact]),
    )
    assert_unbiased(flat, wanted, low=0.5, high=1.5)
    index = torch.distributions.Categorical(logits=own[0]).sample()
    loc, scale = (p[torch.arange(n), index] for p in own[1:])
    naive = torch.autograd.grad(
        smooth(loc + scale * torch.randn(n, z)).sum(), own, allow_unused=True
    )
    assert naive[0] is None and exact[0].abs().max() > 0.05
    assert_unbiased(
        torch.cat([g.reshape(n, -1) for g in naive[1:]], -1), wanted[k:], low=0.5, high=1.5
    )


def cdfs(z: Tensor, logits: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """F_d(z_d|z_<d), `(*, Z)`, of parameters `(*, K)` and `(*, K, Z)`."""
    parts, z = dist.Normal(loc, scale), z.unsqueeze(-2)
    before = parts.log_prob(z).cumsum(-1).roll(1, -1)
    before[..., 0] = 0
    return ((logits.unsqueeze(-1) + before).softmax(-2) * parts.cdf(z)).sum(-2)


@pytest.mark.parametrize("seed", range(4))
def test_a_samples_gradient_is_that_of_the_inverse_cdfs(seed):
    """The definition, :math:`z_d = F_d^{-1}(u_d|z_<d)`, by bisection and finite differences at one u."""
    parameters, h = mixture(3, 3, seed), 1e-4
    torch.manual_seed(seed)
    z = MixtureOfNormals(*parameters).rsample()
    found = [torch.autograd.grad(z[d], parameters, retain_graph=True) for d in range(3)]
    flat, eye = torch.cat([p.detach().flatten() for p in parameters]), h * torch.eye(21)
    logits, *others = (flat + torch.cat([eye, -eye])).split([3, 9, 9], -1)
    moved = logits, *(p.unflatten(-1, (3, 3)) for p in others)
    u, images = cdfs(z, *parameters).detach(), torch.zeros(42, 3)
    for d in range(3):
        low, high = torch.full((42,), -60.0), torch.full((42,), 60.0)
        for _ in range(70):
            images[:, d] = (low + high) / 2
            below = cdfs(images, *moved)[:, d] < u[d]
            low, high = (
                torch.where(below, images[:, d], low),
                torch.where(below, high, images[:, d]),
            )
    plus, minus = images.chunk(2)
    assert torch.allclose((plus + minus) / 2, z.expand_as(plus), atol=1e-4)
    ours = torch.stack([torch.cat([g.flatten() for g in gs]) for gs in found], -1)
    assert torch.allclose(ours, (plus - minus) / (2 * h), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [1, 2])
def test_equal_components_are_one_gaussian(k):
    """Whose own gradient it is; the weights have none."""
    own, w = rows([p.expand(k, *p.shape[1:]) for p in mixture(1, 3)], 50), torch.randn(3)
    z = MixtureOfNormals(*own).rsample()
    found, eps = torch.autograd.grad((z * w).sum(), own), (z - own[1][:, 0]) / own[2][:, 0]
    assert found[0].abs().max() < 1e-12
    assert torch.allclose(found[1].sum(1), w.expand(50, 3), rtol=0, atol=1e-9)
    assert torch.allclose(found[2].sum(1), w * eps, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logits", [(80.0, -80.0), (0.0, 0.0), (-80.0, 80.0)])
@pytest.mark.parametrize(
    ("apart", "scale"), [(0.0, 1.0), (50.0, 1.0), (1e4, 1e-3), (0.0, 1e-3), (3.0, 100.0)]
)
def test_extreme_mixtures_stay_finite(apart, scale, logits, dtype):
    loc = torch.tensor([[-apart], [apart]]).expand(2, 8)
    own = rows([p.to(dtype) for p in (torch.tensor(logits), loc, torch.full((2, 8), scale))], 200)
    q = MixtureOfNormals(*own)
    z = q.rsample()
    found = torch.autograd.grad(
        z.sin().sum() + q.log_prob(z).sum() + q.component_logits(z).exp().sum(), own
    )
    assert z.dtype == dtype and z.isfinite().all() and all(g.isfinite().all() for g in found)


# --- the guide that draws the code first ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("guide", "top_k"), [(guides.Mixture, None), (guides.M2, 1), (guides.M2, None)]
)
@pytest.mark.parametrize("classes", [3, 10])
def test_the_mixture_guide_has_the_bound_of_the_sum(classes, guide, top_k):
    """Value and gradient against quadrature; p(x|z) of one code for each datum, where a sum has one for each class."""
    n, counted, o = 20_000, [], zoo.build("sslpe", D, classes, **SMALL | PLAIN).double()
    x, eye, start = data(1)[0].expand(n, D), torch.eye(classes), mixture(classes, Z, seed=5)
    places, weights = nodes(*start[1:])
    log_y = o.model.p_y(x[0], places).log_prob(eye[:, None]) + o.model.p_x(places).log_prob(x[0])
    parts, log_q = (
        dist.Normal(*(p[:, None] for p in start[1:])).to_event(1),
        start[0].log_softmax(-1),
    )
    f = log_y + o.model.p_z().log_prob(places) - parts.log_prob(places)
    bound = log_q.exp() @ (f @ weights - log_q)
    exact = torch.cat(
        [bound.view(1), *(g.flatten() for g in torch.autograd.grad(bound, start))]
    ).detach()
    logits, *gaussians = own = rows(
        start, n
    )  # q(y|x) and q(z|x,y) are parameters, of each row its own
    q_z = lambda x, y: dist.Normal(*((y.unsqueeze(-1) * p).sum(-2) for p in gaussians)).to_event(1)  # noqa: E731
    program = guide(lambda x: dist.OneHotCategorical(logits=logits), q_z)
    o.model.p_x.register_forward_pre_hook(
        lambda m, inputs: counted.append(inputs[0].shape[:-1].numel())
    )
    value = TraceTopKEnum_ELBO(top_k, common_random_numbers=True).bound(o.model, program, x).value
    found = torch.autograd.grad(value.sum(), own)
    assert_unbiased(
        torch.cat([value[:, None], *(g.reshape(n, -1) for g in found)], -1).detach(), exact
    )
    copies = 1 if guide is guides.Mixture else classes if top_k is None else top_k + 1
    assert counted == [copies * n]
    cost = f"{copies} rows of p(x|z), variance of q(y|x)'s gradient {found[0].var(0).sum():.3f}"
    print(f"K = {classes}, {guide.__name__}, top_k={top_k}: {cost}")


def test_the_mixture_guide_factorises_as_m2s():
    """q(z|x) q(y|x,z) = q(y|x) q(z|x,y), as traced; with y it is M2's guide."""
    o, (x, y) = build("sslpe", mixture=True), data()
    trace = traces(o, x)[0]
    z, q_z, q_y = trace.nodes["z"]["value"], trace.nodes["z"]["fn"], trace.nodes["y"]["fn"]
    joint = o.guide.classify(x).logits + o.guide.encode(x, EYE[:, None]).log_prob(z).T
    assert z.shape == (B, Z) and isinstance(q_z, MixtureOfNormals)
    assert torch.allclose(q_z.log_prob(z)[:, None] + q_y.logits, joint, rtol=0, atol=1e-10)
    torch.manual_seed(0)
    ours = o.bound(x, y)
    torch.manual_seed(0)
    assert_same(
        ours,
        Objective(o.model, guides.M2(o.guide.q_y, o.guide.q_z)).bound(x, y),
        list(o.parameters()),
    )


# --- the adversary of a code ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", [0, 1])
def test_the_game_by_hand(flow):
    """The pair feels w E[log f(y|z)] alone, f minus E[log f(y|z)] alone."""
    o, (x, y) = build("m2_adversarial", adversary=0.7, adversary_lr=3.0, flow=flow), data()
    (term,) = (t for t in o.terms if isinstance(t, Adversary))
    (one, pair), (scale, theirs) = parameter_groups(o)
    assert (one, scale) == (1.0, 3.0) and all(
        a is b for a, b in zip(theirs, term.f.parameters(), strict=True)
    )
    assert sorted(map(id, [*pair, *theirs])) == sorted(map(id, o.parameters()))
    torch.manual_seed(0)
    value = term(LossContext(Batch(x, y), o.guide))
    torch.manual_seed(0)
    log_f = (y * term.f.network(o.guide.encode(x, y).rsample()).log_softmax(-1)).sum(-1).mean()
    assert torch.allclose(value, 0.7 * log_f)
    encoder = {id(p) for p in o.guide.q_z.parameters()}
    for group, weight in ((pair, 0.7), (theirs, -1.0)):
        for p, ours, of_f in zip(
            group, gradients(value, group), gradients(log_f, group), strict=True
        ):
            assert torch.allclose(ours, weight * of_f, rtol=0, atol=1e-12)
            assert ours.any() == (id(p) in encoder or group is theirs)


def stop(epoch) -> None:
    if epoch.epoch == 2:
        raise KeyboardInterrupt


def trained(method: str, directory=None, callbacks=(), options: dict | None = None, **arguments):
    """A method after `fit`, one step an epoch, and by how much each of its tensors has moved."""
    o, x, known = build(method, **(options or {})), data(40)[0].sigmoid(), torch.arange(40) < 20
    before, arguments = (
        state(o),
        {"epochs": 4, "lr": 1e-2, "batch_size": 20, "labeled_batch_size": 20} | arguments,
    )
    with suppress(KeyboardInterrupt):
        fit(
            o,
            x,
            (torch.arange(40) % K).where(known, -1),
            directory=directory,
            callbacks=callbacks,
            **arguments,
        )
    return o, {k: v - before[k] for k, v in state(o).items() if v.is_floating_point()}


def state(o: Objective) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in o.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def norms(moved: dict[str, Tensor]) -> list[float]:
    """Of the pair and of the adversary."""
    groups = [
        [v for k, v in moved.items() if k.startswith("terms.") == theirs]
        for theirs in (False, True)
    ]
    return [math.sqrt(sum(v.square().sum().item() for v in group)) for group in groups]


def test_each_player_has_its_own_step_and_its_own_norm():
    step = {"epochs": 1, "optimizer": torch.optim.SGD, "schedule": "constant"}
    game = [
        norms(trained("m2_adversarial", options={"adversary_lr": s}, lr=1e-5, **step)[1])
        for s in (1.0, 3.0)
    ]
    assert game[0][1] > 0 and game[1] == pytest.approx([game[0][0], 3 * game[0][1]], rel=1e-6)
    clipped = trained(
        "m2_adversarial", options={"adversary_lr": 3.0}, lr=1.0, clip_norm=1e-2, **step
    )[1]
    assert norms(clipped) == pytest.approx([1e-2, 3e-2], rel=1e-3)


RESUMED = {
    "m2_adversarial": {"flow": 1, "prior": "vamp"},
    "m1_m2": {"z1_dim": 3, "m1_hidden": (5,), "m1_epochs": 2},
}


@pytest.mark.parametrize("method", RESUMED)
def test_a_run_that_was_stopped_resumes_to_the_same_bits(method, tmp_path):
    """Of M1+M2 while the second model trained; the first is found as it was."""
    arguments = {"options": RESUMED[method], "ema": 0.5}
    unbroken, moved = trained(method, **arguments)
    stopped, _ = trained(method, tmp_path, callbacks=(stop,), **arguments)
    stamps = [file.stat().st_mtime_ns for file in tmp_path.glob("features/checkpoint/*")]
    assert len(stamps) == (2 if method == "m1_m2" else 0)
    resumed, _ = trained(method, tmp_path, resume=True, **arguments)
    assert stamps == [file.stat().st_mtime_ns for file in tmp_path.glob("features/checkpoint/*")]
    assert same(state(resumed), state(unbroken)) and not same(state(stopped), state(unbroken))
    still = ("features.objective.guide.q_y", "features.used")  # no label teaches the first model
    assert all(
        v.any()
        for k, v in moved.items()
        if not k.startswith(still) and k.endswith(("weight", "bias"))
    )


# --- the codes of a first model ---------------------------------------------------------------------------------------


def test_the_first_model_is_trained_first_and_then_rests():
    seen, o = [], build("m1_m2", **RESUMED["m1_m2"])
    before, x, y = state(o.features), data(40)[0].sigmoid(), torch.arange(40) % K

    def look(epoch) -> None:
        seen.append(state(o.features))
        assert not any(p.requires_grad for p in o.features.parameters()) and o.features.trained

    fit(o, x, y, epochs=3, batch_size=20, callbacks=(look,))
    fit(o, x, y, epochs=1, callbacks=(look,))  # it is trained once
    assert not before["trained"] and all(same(s, seen[0]) for s in seen) and len(seen) == 4
    assert not any(torch.equal(seen[0][k], v) for k, v in before.items() if ".q_z." in k)
    alone = build("m1_m2", **RESUMED["m1_m2"]).features
    pretrain(alone, x, seed=0)
    assert same(state(alone), seen[0])


@pytest.mark.parametrize("uses", [1, 2, 0])
def test_features_are_fresh_samples_in_training_and_means_in_evaluation(uses):
    """Latents that the encoder does not use are 0 in both; where it uses none, all stay."""
    o, x = build("m1_m2", **RESUMED["m1_m2"]), data(40)[0].sigmoid()
    twin = deepcopy(o.features)
    pretrain(twin, x)
    deviations = twin.objective.guide.q_z(x).mean.std(0, correction=0)
    o.features.least = deviations.sort(descending=True).values[uses - 1].item() if uses else 1e9
    pretrain(o.features, x)
    q, used = (
        o.features.objective.guide.q_z(x),
        (deviations >= o.features.least).double() if uses else torch.ones(3),
    )
    assert torch.equal(o.features.used, used) and used.sum() == (uses or 3)
    with eval_mode(o):
        assert torch.equal(o.encode(x), used * q.mean)
    o.train()
    draws = torch.stack([o.encode(x) for _ in range(4000)])
    assert not draws.requires_grad and torch.equal(draws, used * draws)
    assert_unbiased(draws[..., used.bool()], q.mean[..., used.bool()].detach())
    assert torch.allclose(draws.std(0), used * q.stddev, rtol=0.06)


def test_training_encodes_each_datum_once_and_a_transform_each_time():
    """To the same weights, if the transform changes nothing."""
    ends, calls = [], []
    for transform in (None, torch.clone):
        o, x = build("m1_m2", **RESUMED["m1_m2"]), data(40)[0].sigmoid()
        pretrain(o.features, x)
        rows: list[int] = []
        o.features.objective.guide.q_z.register_forward_hook(
            lambda m, given, q, rows=rows: rows.append(len(given[0]))
        )
        fit(
            o,
            x,
            torch.where(torch.arange(40) < 9, torch.arange(40) % K, -1),
            epochs=2,
            batch_size=10,
            transform=transform,
        )
        ends.append(state(o))
        calls.append(rows)
    assert calls[0] == [2, 40] and len(calls[1]) > 2 * 2 * 3  # `fit` looks at two rows first
    assert all(
        torch.allclose(a, b, atol=1e-9)
        for a, b in zip(ends[0].values(), ends[1].values(), strict=True)
    )


SAVED = RESUMED | {"m2": CODES["vamp by class and flow"], "sslpe": {"mixture": True}}


@pytest.mark.parametrize("method", SAVED)
def test_models_of_codes_go_to_disk_and_back(method, tmp_path):
    options = SMALL | PLAIN | SAVED[method]
    o, x = zoo.build(method, D, K, **options).double(), data(40)[0].sigmoid()
    fit(o, x, torch.arange(40) % K, epochs=1)
    SavedModel(method, (D,), list(range(K)), options, o).save(tmp_path / "model")
    loaded = SavedModel.load(tmp_path / "model").objective
    other = zoo.build(method, D, K, seed=1, **options).double()
    other.load_state_dict(o.state_dict())
    for twin in (loaded, other):
        assert same(state(twin), state(o)) and torch.equal(
            predict_proba(twin, x), predict_proba(o, x)
        )

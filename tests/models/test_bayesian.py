"""Random weights: KL(W) once per data set, the bound given W, local reparameterisation, and batch norm's statistics."""

import itertools
import math
import signal
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_ssl import (
    MLP,
    Batch,
    Objective,
    OneHotCategorical,
    StandardNormal,
    fit,
    guides,
    models,
    one_hot,
    zoo,
)
from pyro_ssl.evaluation import plots
from pyro_ssl.nn.layers import Linear, SplitLinear
from pyro_ssl.nn.norm import BatchNorm
from pyro_ssl.nn.random_weights import RandomWeights
from pyro_ssl.nn.tensor_annotations import class_weights, mark_normal, mark_one_hot, mean_of
from pyro_ssl.prediction.bounds import weight_kl
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.zoo.options import RandomWeightOptions

pytestmark = pytest.mark.usefixtures("float64")
D, K, Z, H = 3, 3, 2, 5
SIGMA, SCALE = 0.7, 0.8
SMALL = {
    "hidden": (H,),
    "z_dim": Z,
    "sigma": SIGMA,
    "noise": 0.0,
    "dropout": 0.0,
    "balance": 0.0,
    "alpha": 0.0,
}
SMALL |= {
    "top_k": None,
    "common_random_numbers": False,
    "local_reparameterisation": False,
    "prior_scale": SCALE,
    "log_variance": -2.0,
    "gibbs_steps": 2,
}
X = torch.randn(18, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.where(torch.arange(18) < 6, torch.arange(18) % K, -1)
LABELED, UNLABELED = 6, 12


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def labels() -> Tensor:
    return one_hot(Y[Y >= 0], K, X.dtype)


def batches(size: int, labeled: int) -> list[Batch]:
    """A pass over the unlabeled data, beside as many passes over the labeled ones as it takes."""
    x, y = X[:LABELED].split(labeled), labels().split(labeled)
    return [Batch(x[i % len(x)], y[i % len(x)], u) for i, u in enumerate(X[LABELED:].split(size))]


def sslapd(joint_pass: bool | None = None, **options) -> Objective:
    """With means and variances of q(W) that all differ."""
    o = zoo.build("sslapd", D, K, **SMALL | options).double()
    noise = torch.randn(
        2, len(o.guide.loc), generator=torch.Generator().manual_seed(1), dtype=X.dtype
    )
    with torch.no_grad():
        o.guide.loc += 0.3 * noise[0]
        o.guide.log_variance += 0.5 * noise[1]
    weights = {
        "labeled_weight": o.labeled_weight,
        "unlabeled_weight": o.unlabeled_weight,
        "joint_pass": joint_pass,
    }
    return o if joint_pass is None else Objective(o.model, o.guide, o.terms, elbo=o.elbo, **weights)


def kl_by_hand(guide: nn.Module, s: float = SCALE) -> Tensor:
    mean, variance = guide.loc, guide.log_variance.exp()
    return 0.5 * ((variance + mean**2) / s**2 - 1 + 2 * math.log(s) - variance.log()).sum()


def pieces(model: nn.Module, network: nn.Module, w: Tensor) -> dict[str, Tensor]:
    """The weights by the names that they have in a network of point estimates."""
    names = {id(part): name for name, part in network.named_modules()}
    flat = w.split([shape.numel() for shape in model.slots.shapes])
    places = [f"{names[id(owner)]}.{name}" for owner, name in model.slots.places]
    return {name: f.reshape(s) for name, f, s in zip(places, flat, model.slots.shapes, strict=True)}


def by_hand(o: Objective, x: Tensor, y: Tensor, w: Tensor, beta: float = 1.0) -> Tensor:
    """L(x, y | W), with one draw of z from the global generator; y may have a leading dimension of classes."""
    loc, raw = o.guide.program.q_z.network(x, y).chunk(2, -1)
    scale = softplus(raw) + 1e-3
    z = loc + scale * torch.randn(loc.shape)
    error = (x - o.model.program.p_x.network(z)) / SIGMA
    log_px = (-0.5 * error**2 - math.log(SIGMA) - 0.5 * math.log(2 * math.pi)).sum(-1)
    p = pieces(o.model, o.model.program.p_y.network, w)
    h = torch.relu(x @ p["first.weights.0"] + z @ p["first.weights.1"] + p["first.bias"])
    log_py = (y * (h @ p["rest.1.weight"].T + p["rest.1.bias"]).log_softmax(-1)).sum(-1)
    return log_px + log_py - beta * 0.5 * (scale**2 + loc**2 - 1 - 2 * scale.log()).sum(-1)


def bound_by_hand(o: Objective, x: Tensor, y: Tensor | None, beta: float = 1.0) -> Tensor:
    """L(x, y | W) or U(x | W), with one draw of W from the global generator."""
    w = o.guide.loc + (0.5 * o.guide.log_variance).exp() * torch.randn(len(o.guide.loc))
    if y is not None:
        return by_hand(o, x, y, w, beta)
    log_q = o.guide.program.q_y.network(x).log_softmax(-1)
    f = by_hand(o, x, torch.eye(K)[:, None].expand(K, len(x), K), w, beta)
    return (log_q.exp() * (f.T - log_q)).sum(-1)


def seeded(function, *args, seed: int = 3, **kwargs):
    torch.manual_seed(seed)
    return function(*args, **kwargs)


# --- KL(W), and the bound given W -------------------------------------------------------------------------------------


@pytest.mark.parametrize("joint_pass", [False, True])
@pytest.mark.parametrize(("labeled", "unlabeled"), [(1.0, 1.0), (0.25, 2.0), (0.0, 1.0)])
@pytest.mark.parametrize("size", [3, 4, 12])
def test_a_pass_over_the_data_has_the_kl_of_the_weights_once(joint_pass, labeled, unlabeled, size):
    o = sslapd(joint_pass, labeled_weight=labeled, unlabeled_weight=unlabeled)
    o.sizes = LABELED, UNLABELED
    for kl_weight in (1.0, 0.3):
        steps = [o.parts(batch, kl_weight=kl_weight) for batch in batches(size, 2)]
        assert all(
            set(parts)
            == {"labeled", "unlabeled", "weights"} - ({"labeled"} if not labeled else set())
            for parts in steps
        )
        total = sum(size / unlabeled * parts["weights"] for parts in steps)
        assert torch.allclose(total, kl_by_hand(o.guide), rtol=1e-12)


@pytest.mark.parametrize("closed_form", [True, False])
def test_labeled_data_alone_have_it_and_a_sample_of_it_has_its_mean(closed_form):
    o, batch = (
        sslapd(labeled_weight=0.5, unlabeled_weight=0.0, closed_form=closed_form),
        Batch(X[:LABELED], labels()),
    )
    draws = torch.stack(
        [o.parts(batch, kl_weight=0.3)["weights"] * LABELED / 0.5 for _ in range(300)]
    ).detach()
    assert abs(draws.mean() - kl_by_hand(o.guide)) < 4 * draws.std() / 300**0.5 + 1e-10
    assert (draws.std() > 0.1) != closed_form


def test_it_can_be_asked_for():
    o = sslapd()
    assert weight_kl(o) == pytest.approx(kl_by_hand(o.guide).item(), rel=1e-12)
    assert (
        weight_kl(zoo.build("sslpe", 3, 2, hidden=(5,)))
        == weight_kl(zoo.build("classifier", 3, 2))
        == 0.0
    )


@pytest.mark.parametrize("joint_pass", [False, True])
def test_fit_divides_it_by_the_data_it_has(joint_pass):
    o = sslapd(joint_pass, unlabeled_weight=2.0)
    kl = kl_by_hand(o.guide).item()
    settings = {"batch_size": 4, "labeled_batch_size": 2, "lr": 1e-9, "warmup": 2}
    assert fit(o, X, Y, epochs=2, **settings)["weights"] == pytest.approx(
        [kl / (UNLABELED / 2.0)] * 2, rel=1e-4
    )


@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_the_bound_given_the_weights_is_that_of_a_plain_network_with_them(beta):
    o, u = sslapd(), X[6:]
    for x, y in ((X[:6], labels()), (u, None)):
        ours, theirs = seeded(o.bound, x, y, kl_weight=beta), seeded(bound_by_hand, o, x, y, beta)
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-11)
        both = [
            torch.autograd.grad(v.sum(), list(o.parameters()), allow_unused=True)
            for v in (ours, theirs)
        ]
        for a, b in zip(*both, strict=True):
            assert (a is None) == (b is None) and (
                a is None or torch.allclose(a, b, rtol=0, atol=1e-9)
            )


def in_one_call(o: Objective, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
    """The sum of L(x, y | W) and U(u | W) by one W, the labeled data as often as there are classes."""
    w, n = o.guide.loc + (0.5 * o.guide.log_variance).exp() * torch.randn(len(o.guide.loc)), len(x)
    every = torch.eye(K)[:, None].expand(K, len(u), K)
    f = by_hand(o, torch.cat([x, u]), torch.cat([y.expand(K, n, K), every], 1), w).T
    log_q = o.guide.program.q_y.network(u).log_softmax(-1)
    return f[:n].mean(1).sum() + (log_q.exp() * (f[n:] - log_q)).sum()


@pytest.mark.parametrize("joint_pass", [False, True])
def test_a_pass_over_the_data_is_minus_their_bound(joint_pass):
    o = sslapd(joint_pass)
    assert o.labeled_weight is None
    o.sizes = LABELED, UNLABELED
    theirs = kl_by_hand(o.guide)
    for i, batch in enumerate(batches(4, 2)):
        torch.manual_seed(i)
        if joint_pass:
            theirs = theirs - in_one_call(o, batch.x, batch.y, batch.x_unlabeled)
        else:
            theirs = (
                theirs
                - bound_by_hand(o, batch.x, batch.y).sum()
                - bound_by_hand(o, batch.x_unlabeled, None).sum()
            )
    ours = (
        sum(seeded(o, batch, seed=i) for i, batch in enumerate(batches(4, 2))) / 3
    )  # J, the mean over the pass
    assert torch.allclose(UNLABELED * ours, theirs, rtol=1e-12)


# --- Bayesian linear regression, where all is known -------------------------------------------------------------------


class Regression(PyroModule):
    """y ~ N(f(x), s^2), real."""

    def __init__(self, network: nn.Module, s: float) -> None:
        super().__init__()
        self.network, self.s = network, s

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(self.network(x), self.s).to_event(1), obs=y)


class Nothing(PyroModule):
    def forward(self, x: Tensor, y: Tensor | None = None) -> None: ...


def regression(local: bool, hidden=(), log_variance: float = -1.0) -> Objective:
    torch.manual_seed(0)
    network = MLP(D, 1, hidden, activation=nn.Tanh)
    slots = RandomWeights(network)
    guide = guides.MeanField(Nothing(), slots.initial, log_variance, local_reparameterisation=local)
    return Objective(models.Bayesian(Regression(network, 0.5), slots, SCALE), guide)


def optimum(o: Objective, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best mean and variance of q(W), in the order of `RandomWeights`, and the log evidence."""
    columns = [torch.ones(1, len(x)) if name == "bias" else x.T for _, name in o.model.slots.places]
    phi = torch.cat(columns).T
    precision = torch.eye(phi.shape[1]) / SCALE**2 + phi.T @ phi / 0.25
    covariance = 0.25 * torch.eye(len(x)) + SCALE**2 * phi @ phi.T
    evidence = dist.MultivariateNormal(torch.zeros(len(x)), covariance).log_prob(y.squeeze(-1))
    return torch.linalg.solve(precision, phi.T @ y / 0.25).squeeze(-1), precision, evidence


def expected_loss(o: Objective, batch: Batch, monkeypatch) -> Tensor:
    """E[loss], exactly: noise of all combinations of 1 and -1 has the moments that a square asks for."""
    if o.guide.local_reparameterisation:
        patterns = [torch.full((), s) for s in (1.0, -1.0)]
    else:
        patterns = [
            torch.tensor(p) for p in itertools.product([1.0, -1.0], repeat=len(o.guide.loc))
        ]
    losses = []
    for noise in patterns:
        monkeypatch.setattr(torch, "randn_like", lambda t, noise=noise: noise.expand(t.shape))
        rsample = lambda self, shape=torch.Size(), noise=noise: self.loc + self.scale * noise  # noqa: B008, E731
        monkeypatch.setattr(torch.distributions.Normal, "rsample", rsample)
        losses.append(o(batch))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("design", ["orthogonal", "general"])
def test_mean_field_regression_has_its_optimum_where_it_should(local, design, monkeypatch):
    signs = torch.tensor(list(itertools.product([1.0, -1.0], repeat=3)))
    x = (
        signs * torch.tensor([0.3, 1.0, 2.0]) if design == "orthogonal" else X
    )  # orthogonal to the bias's column too
    y = (x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.4) + 0.3 * torch.sin(7 * x[:, :1])
    o = regression(local)
    mean, precision, evidence = optimum(o, x, y)
    with torch.no_grad():
        o.guide.loc.copy_(mean)
        o.guide.log_variance.copy_(-precision.diag().log())
    loss = expected_loss(o, Batch(x, y), monkeypatch)
    for gradient in torch.autograd.grad(loss, [o.guide.loc, o.guide.log_variance]):
        assert gradient.abs().max() < 1e-12
    gap = 0.5 * (precision.diag().log().sum() - precision.logdet())  # KL(q || posterior)
    assert torch.allclose(-len(x) * loss, evidence - gap, rtol=1e-12)
    assert (gap < 1e-12) if design == "orthogonal" else (gap > 0.01)
    with torch.no_grad():
        o.guide.loc += 0.1
    assert (
        torch.autograd.grad(expected_loss(o, Batch(x, y), monkeypatch), o.guide.loc)[0].abs().max()
        > 1e-2
    )


# --- local reparameterisation -----------------------------------------------------------------------------------------


def drawn_layer(
    kind: str = "split",
) -> tuple[nn.Module, list[Tensor], RandomWeights, Tensor, Tensor]:
    """A layer, inputs of which the first and the last datum are alike, and mean and scale of its weights."""
    layer = Linear(D, 4) if kind == "linear" else SplitLinear([D, K], 4)
    inputs = [X[[0, 1, 2, 3, 0]], torch.eye(K)[[0, 1, 2, 0, 0]]][: 1 if kind == "linear" else 2]
    slots = RandomWeights(layer)
    loc, noise = torch.randn(2, len(slots.initial), generator=torch.Generator().manual_seed(2))
    return layer, inputs, slots, loc, 0.2 + noise.abs()


@pytest.mark.parametrize("kind", ["linear", "split"])
def test_what_is_drawn_in_place_of_weights_has_their_mean_and_variance_and_noise_of_its_own(kind):
    layer, inputs, slots, loc, scale = drawn_layer(kind)
    with slots.substituted(loc):
        mean = layer(*inputs)
    with slots.substituted(scale**2):
        variance = layer(*(x**2 for x in inputs))
    draws, found = 20_000, {}
    torch.manual_seed(0)
    w = loc + scale * torch.randn(draws, 1, len(loc))
    with slots.substituted(w):
        found["weights"] = layer(*inputs)
    mark_normal(loc, loc, scale)
    with slots.substituted(loc):  # the draw itself is not looked at
        found["local"] = layer(inputs[0].expand(draws, 5, -1), *inputs[1:])
    for h in found.values():
        assert h.shape == (draws, 5, 4)
        assert ((h.mean(0) - mean).abs() < 4.5 * (variance / draws).sqrt()).all()
        assert ((h.var(0) / variance - 1).abs() < 4.5 * (2 / draws) ** 0.5).all()
    correlation = {k: torch.corrcoef(h[:, :, 0].T) - torch.eye(5) for k, h in found.items()}
    assert correlation["local"].abs().max() < 4.5 / draws**0.5
    assert correlation["weights"][0, 4] > 0.999  # one W for all data


def test_a_marked_one_hot_input_has_the_moments_of_a_dense_one():
    layer, (x, y), slots, loc, scale = drawn_layer()
    index = torch.tensor([[0], [2]])
    for dense, codes in ((y, y.argmax(-1)), (torch.eye(K)[index], index)):
        marked = dense.clone()
        mark_one_hot(marked, codes)
        for noise in (scale, None):
            w = loc + 0.1
            mark_normal(w, loc, noise)
            with slots.substituted(w):
                a, b = (seeded(layer, x, label) for label in (dense, marked))
            assert torch.allclose(a, b, atol=1e-12) and torch.allclose(
                mean_of(a), mean_of(b), atol=1e-12
            )


def test_local_reparameterisation_has_the_same_mean_loss_and_a_quieter_gradient():
    batch = Batch(X.repeat(4, 1), torch.sin(X[:, :1]).repeat(4, 1))
    losses, gradients = {}, {}
    for local in (False, True):
        o = regression(local, hidden=(H,), log_variance=-3.0)
        torch.manual_seed(1)
        values, of_loc = [], []
        with pyro.validation_enabled(False):
            for _ in range(500):
                values.append(loss := o(batch))
                of_loc.append(torch.autograd.grad(loss, o.guide.loc)[0])
        losses[local], gradients[local] = torch.stack(values).detach(), torch.stack(of_loc)
    for a, b in (losses.values(), gradients.values()):
        error = ((a.var(0) + b.var(0)) / 500).sqrt()
        assert ((a.mean(0) - b.mean(0)).abs() < 4 * error).all()
    ratio = (gradients[False].var(0).sum() / gradients[True].var(0).sum()).item()
    print(f"variance of the gradient in mu: {ratio:.1f} times lower by local reparameterisation")
    assert ratio > 5


# --- several draws of weights at once, and where weights live ---------------------------------------------------------


@pytest.mark.parametrize("lead", [(), (4,)])
def test_several_draws_of_weights_are_a_loop_over_them(lead):
    network = MLP([(1, 2, 2), K], (2, 3), (5, 4), batch_norm=True).eval()
    for part in network.modules():
        if isinstance(part, BatchNorm):
            for t in (part.running_mean, part.running_var, part.weight.data, part.bias.data):
                t.uniform_(0.5, 2.0)
    x, y = torch.randn(6, 1, 2, 2), torch.randn(*lead, 6, K)
    slots = RandomWeights(network)
    w = torch.randn(4, 1, len(slots.initial))
    with slots.substituted(w):
        joint_pass = network(x, y)
    assert joint_pass.shape == (4, 6, 2, 3)
    for s in range(4):
        with slots.substituted(w[s, 0]):
            assert torch.allclose(
                joint_pass[s], network(x, y[s] if lead else y), rtol=0, atol=1e-12
            )


def test_weights_leave_the_network_and_come_back_for_a_block():
    o = sslapd()
    network, names = o.model.program.p_y.network, {n for n, _ in o.named_parameters()}
    assert not list(network.parameters()) and {"guide.loc", "guide.log_variance"} <= names
    assert not any("p_y" in name for name in names | set(o.state_dict()))
    plain = zoo.build(
        "sslpe",
        D,
        K,
        **{k: v for k, v in SMALL.items() if k not in ("prior_scale", "log_variance")},
    )
    with o.model.given(
        zoo.build("sslapd", D, K, **SMALL).guide.loc
    ):  # the start of mu is the network's own
        x, z = torch.randn(2, D), torch.randn(2, Z)
        assert torch.allclose(o.model.predict(x, z).probs, plain.double().model.predict(x, z).probs)
    with pytest.raises(RuntimeError, match="mine"), o.model.given(o.guide.loc):
        assert network.first.bias is not None
        raise RuntimeError("mine")
    assert network.first.bias is None and network.rest[1].weight is None
    assert all(owner.__dict__[name] is None for owner, name in o.model.slots.places)


def test_a_copy_is_independent_and_a_state_goes_round():
    o = sslapd(batch_norm=True)
    batch, before = Batch(X[:6], labels(), X[6:]), {k: v.clone() for k, v in o.state_dict().items()}
    loss, copy = seeded(deepcopy(o), batch), deepcopy(o)
    assert torch.equal(seeded(copy, batch), loss)
    with torch.no_grad():
        copy.guide.loc += 1
    assert not torch.equal(seeded(copy, batch), loss)
    assert all(torch.equal(v, before[k]) for k, v in o.state_dict().items())
    parts = {id(part) for part in copy.model.program.p_y.modules()}
    assert {id(owner) for owner, _ in copy.model.slots.places} <= parts
    assert not parts & {id(owner) for owner, _ in o.model.slots.places}
    other = zoo.build("sslapd", D, K, seed=1, **SMALL | {"batch_norm": True}).double()
    other.load_state_dict(o.state_dict())
    assert torch.equal(seeded(other, batch), loss)


def resumable(directory: Path, **options) -> dict[str, Tensor]:
    torch.set_default_dtype(torch.float64)
    o = sslapd(batch_norm=True, dropout=0.2, local_reparameterisation=True, alpha=0.5)
    settings = {
        "epochs": 2,
        "batch_size": 4,
        "labeled_batch_size": 2,
        "ema": 0.9,
        "checkpoint_every": 2,
    }
    fit(o, X, Y, **settings, directory=directory, resume=True, **options)
    return o.state_dict()


CHILD = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_bayesian as t
parts, left = t.Objective.parts, [6]  # once in the trial, five steps
def dying(self, *arguments, **more):
    left[0] -= 1
    return parts(self, *arguments, **more) if left[0] else os.kill(os.getpid(), signal.SIGKILL)
t.Objective.parts = dying
t.resumable(Path(sys.argv[1]))
"""


def test_a_killed_run_resumes_to_the_same_bits(tmp_path):
    whole = resumable(tmp_path / "whole")
    child = CHILD.format(tests=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", child, str(tmp_path / "killed")], capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "killed" / "checkpoint").exists()
    resumed, start = resumable(tmp_path / "killed"), sslapd(batch_norm=True).state_dict()
    assert whole.keys() == resumed.keys() and all(
        torch.equal(v, resumed[k]) for k, v in whole.items()
    )
    assert not torch.equal(whole["guide.loc"], start["guide.loc"])


# --- batch norm -------------------------------------------------------------------------------------------------------


def test_batch_norm_is_torchs_but_for_the_running_variance():
    ours, theirs = BatchNorm(4), nn.BatchNorm1d(4)
    h = 3 * torch.randn(7, 4, generator=torch.Generator().manual_seed(0)) + 1
    a, b = h.clone().requires_grad_(), h.clone().requires_grad_()
    outs = ours(a), theirs(b)
    assert torch.allclose(*outs, atol=1e-12)
    assert torch.allclose(
        *(torch.autograd.grad(out.sin().sum(), t)[0] for out, t in zip(outs, (a, b), strict=True))
    )
    assert torch.allclose(ours.running_mean, theirs.running_mean)
    assert torch.allclose(
        ours.running_var, 0.9 + 0.1 * h.var(0, unbiased=False)
    )  # paper 002, eq. 5.5: the batch's own
    assert torch.allclose(theirs.running_var, 0.9 + 0.1 * h.var(0))
    theirs.load_state_dict(ours.state_dict())
    assert torch.allclose(ours.eval()(h), theirs.eval()(h), atol=1e-12)


def normed(h: Tensor, log_weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """What a new batch norm gives, and its statistics."""
    layer, token = BatchNorm(h.shape[-1]), class_weights.set(log_weights)
    try:
        out = layer(h)
    finally:
        class_weights.reset(token)
    return out.detach(), layer.running_mean / 0.1, (layer.running_var - 0.9) / 0.1


def test_under_enumeration_each_class_counts_with_its_probability():
    h = torch.randn(K, 7, 4, generator=torch.Generator().manual_seed(0))
    q = torch.rand(K, 7, generator=torch.Generator().manual_seed(1)).softmax(0)
    out, mean, var = normed(h, q.log())
    by_hand = sum(q[k, i] * h[k, i] for k in range(K) for i in range(7)) / 7
    spread = sum(q[k, i] * (h[k, i] - by_hand) ** 2 for k in range(K) for i in range(7)) / 7
    assert torch.allclose(mean, by_hand) and torch.allclose(var, spread)
    assert torch.allclose(out, (h - by_hand) / (spread + 1e-5).sqrt())
    unweighted = normed(h, None)
    assert torch.allclose(unweighted[1], h.mean((0, 1))) and not torch.allclose(
        unweighted[1], mean, atol=1e-2
    )


def test_classes_without_weight_count_for_nothing():
    g = torch.Generator().manual_seed(0)
    h, y = torch.randn(K, 7, 4, generator=g), torch.arange(7) % K
    log_q = torch.full((K, 7), -torch.inf).scatter(0, y[None], 0.0)
    chosen = h[y, torch.arange(7)]
    out, mean, var = normed(h, log_q)
    assert torch.allclose(mean, chosen.mean(0)) and torch.allclose(
        var, chosen.var(0, unbiased=False)
    )
    assert torch.allclose(out[y, torch.arange(7)], BatchNorm(4)(chosen).detach())
    other = torch.where((log_q == 0)[..., None], h, 100 + h)
    again = normed(other, log_q)
    assert torch.allclose(again[1], mean) and torch.allclose(again[2], var)
    assert not torch.allclose(normed(other, None)[1], mean, atol=1.0)


@pytest.mark.parametrize("local", [False, True])
def test_statistics_of_random_weights_are_those_of_their_means(local):
    network = MLP(D, 2, (4, 3), activation=nn.Tanh, batch_norm=True)
    slots, norms = (
        RandomWeights(network),
        [part for part in network.modules() if isinstance(part, BatchNorm)],
    )
    mu, scale = slots.initial + 0.1, torch.full_like(slots.initial, 0.7)
    w = mu + scale * torch.randn(len(mu), generator=torch.Generator().manual_seed(0))
    mark_normal(w, mu, scale if local else None)
    seen = {}
    hooks = [
        n.register_forward_pre_hook(lambda n, h: seen.update({n: h[0].detach().clone()}))
        for n in norms
    ]
    hooks += [
        n.register_forward_hook(lambda n, _, out: seen.update({(n, "out"): out.detach()}))
        for n in norms
    ]
    with slots.substituted(w), torch.no_grad():
        torch.manual_seed(0)
        network(X)
    with slots.substituted(mu), torch.no_grad():
        a = X
        for layer, norm in ((network.first, norms[0]), (network.rest[2], norms[1])):
            mean = layer(a)  # mu_W a + mu_b, where a is what the drawn weights below have made
            assert not torch.allclose(mean, seen[norm], atol=0.1)
            expected = (seen[norm] - mean.mean(0)) / (mean.var(0, unbiased=False) + 1e-5).sqrt()
            assert torch.allclose(seen[norm, "out"], expected, atol=1e-12)
            assert torch.allclose(norm.running_mean, 0.1 * mean.mean(0))
            assert not torch.allclose(norm.running_mean, 0.1 * seen[norm].mean(0), atol=1e-3)
            a = torch.tanh(seen[norm, "out"])


@pytest.mark.parametrize("adapted", [True, False])
def test_a_step_of_sslapd_takes_weighted_statistics_of_the_means(adapted):
    o, u = sslapd(batch_norm=True, norm_from_mean_weights=adapted), X[6:]
    with torch.no_grad():
        sites = seeded(o._bound, u, None).guide_trace.nodes
        z, q = sites["z"]["value"], sites["y"]["infer"]["log_q"].exp()
        p = pieces(
            o.model, o.model.program.p_y.network, o.guide.loc if adapted else sites["W"]["value"]
        )
        h = u @ p["first.weights.0"] + z @ p["first.weights.1"] + p["first.bias"]  # (K, B, H)
        mean = torch.einsum("bk,kbh->h", q, h) / len(u)
        var = torch.einsum("bk,kbh->h", q, (h - mean) ** 2) / len(u)
    norm = o.model.program.p_y.network.rest[0]
    assert torch.allclose(norm.running_mean, 0.1 * mean) and torch.allclose(
        norm.running_var, 0.9 + 0.1 * var
    )


# --- other conditionals, and errors -----------------------------------------------------------------------------------


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
    b = Objective(*weights.pair(o.model, o.guide), o.terms, elbo=o.elbo)
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
    with pytest.raises(ValueError, match="bayesian: got a network without Linear or SplitLinear"):
        RandomWeights(nn.Conv2d(1, 2, 3), nn.BatchNorm1d(2))
    model = models.SSLPE(
        StandardNormal(Z), OneHotCategorical(nn.Identity()), OneHotCategorical(MLP([D, Z], K))
    )
    with pytest.raises(ValueError, match="without Linear or SplitLinear"):
        RandomWeightOptions(bayesian=("p_x",)).pair(model, Nothing())
    for wrong in (("p_w",), "p_y", ("p_z",)):
        with pytest.raises(
            ValueError,
            match="bayesian should name conditionals of the model, of p_x, p_y; got",
        ):
            RandomWeightOptions(bayesian=wrong).pair(model, Nothing())
    for scale in (0, -1.0):
        with pytest.raises(ValueError, match=f"prior_scale should be above 0, got {scale}"):
            zoo.build("sslapd", D, K, **SMALL | {"prior_scale": scale})
    with pytest.raises(
        ValueError, match=r"guide site 'z': log_prob has shape \(\), want \(\*, 6\)"
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
    """Its weights get gradients, and KL(W) counts once per data set; also where the guide has the same conditional."""
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
    """With hardly any variance of W, bound, gradient and prediction are those of weights that are what its mean is."""
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

"""Losses and gradients against hand-written sums, in float64."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from pyro.nn import PyroModule
from torch.distributions import Normal, kl_divergence

from pyro_ssl import (
    L2,
    MLP,
    Batch,
    Entropy,
    LabelLogProb,
    MutualInformation,
    Objective,
    OneHotCategorical,
    one_hot,
    zoo,
)

pytestmark = pytest.mark.usefixtures("float64")
D, Z, B = 5, 3, 6


def m2(classes: int, **options) -> Objective:
    plain = {"noise": 0.0, "dropout": 0.0, "balance": 0.0, "top_k": None, "closed_form": False}
    options = (
        plain
        | {
            "z_dim": Z,
            "hidden": (7,),
            "likelihood": "gaussian",
            "sigma": 0.7,
            "alpha": 0.3,
            "common_random_numbers": False,
        }
        | options
    )
    return zoo.build("m2", D, classes, **options).double()


def data(classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(B, D, generator=g), one_hot(
        torch.arange(B) % classes, classes, torch.float64
    )


def by_hand(o: Objective, x, y, beta: float = 1.0) -> torch.Tensor:
    """log p(x, y, z) - log q(z|x, y) for a fixed class y and one z, written out.

    Z's noise comes from the global generator.
    """
    classes = y.shape[-1]
    p_x, q_z = o.model.p_x, o.guide.q_z
    loc, raw = q_z.network(x, y).chunk(2, -1)
    scale = torch.nn.functional.softplus(raw) + 1e-3
    eps = torch.randn(loc.shape)
    z = loc + scale * eps
    mean, sigma = p_x.network(y, z), 0.7
    log_px = (-0.5 * ((x - mean) / sigma) ** 2 - math.log(sigma) - 0.5 * math.log(2 * math.pi)).sum(
        -1
    )
    log_pz = (-0.5 * z**2 - 0.5 * math.log(2 * math.pi)).sum(-1)
    log_qz = (-0.5 * eps**2 - scale.log() - 0.5 * math.log(2 * math.pi)).sum(-1)
    return log_px + beta * (log_pz - log_qz) - math.log(classes)


def unlabeled_by_hand(o: Objective, x, classes: int, beta: float = 1.0) -> torch.Tensor:
    """Sum over classes of q(y|x) (f(y) - log q(y|x))."""
    log_q = o.guide.q_y.network(x).log_softmax(-1)
    f = by_hand(o, x, torch.eye(classes)[:, None].expand(classes, 1, classes), beta)
    return (log_q.exp() * (f.T - log_q)).sum(-1)


def gradients(value: torch.Tensor, o: Objective) -> list[torch.Tensor]:
    found = torch.autograd.grad(value, list(o.parameters()), allow_unused=True, retain_graph=True)
    return [
        torch.zeros_like(p) if g is None else g for g, p in zip(found, o.parameters(), strict=True)
    ]


def assert_same(o: Objective, ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12 * max(1.0, theirs.abs().max().item()))
    for a, b in zip(gradients(ours.sum(), o), gradients(theirs.sum(), o), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("beta", [1.0, 0.25])
def test_m2_bounds_are_the_papers_sums(classes, beta):
    o, (x, y) = m2(classes), data(classes)
    torch.manual_seed(1)
    labeled = o.bound(x, y, kl_weight=beta)
    torch.manual_seed(1)
    assert_same(o, labeled, by_hand(o, x, y, beta))
    torch.manual_seed(1)
    unlabeled = o.bound(x, kl_weight=beta)
    torch.manual_seed(1)
    assert_same(o, unlabeled, unlabeled_by_hand(o, x, classes, beta))


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_m2_loss_is_the_papers_objective(classes):
    """Paper 004, eq. 4 and 9, with the bounds weighted by lambda, per datum."""
    o, (x, y), (u, _) = (
        m2(
            classes,
            labeled_weight=0.5,
            unlabeled_weight=2.0,
            balance=0.8,
            entropy=0.4,
            mutual_information=0.6,
            l2=0.1,
        ),
        data(classes),
        data(classes, 1),
    )
    torch.manual_seed(1)
    parts = o.parts(Batch(x, y, u))
    torch.manual_seed(1)
    q_l, q_u = o.guide.q_y.network(x).softmax(-1), o.guide.q_y.network(u).softmax(-1)
    entropy = -(q_u * q_u.log()).sum(-1).mean()
    marginal = q_u.mean(0)
    expected = {
        "labeled": -0.5 * by_hand(o, x, y).mean(),
        "unlabeled": -2.0 * unlabeled_by_hand(o, u, classes).mean(),
        "LabelLogProb": -0.3 * (y * q_l.log()).sum(-1).mean(),
        "ClassBalance": 0.8 * (marginal * marginal.log()).sum(),
        "Entropy": 0.4 * entropy,
        "MutualInformation": 0.6 * (entropy + (marginal * marginal.log()).sum()),
        "L2": 0.05
        * sum(
            (w**2).sum()
            for program in (o.model, o.guide)
            for w in program.parameters()
            if w.dim() > 1
        ),
    }
    assert parts.keys() == expected.keys()
    for name in parts:
        assert_same(o, parts[name], expected[name])
    torch.manual_seed(1)
    assert_same(o, o(Batch(x, y, u)), sum(expected.values()))


def test_mier_is_entropy_minimisation_with_marginal_balance():
    """U + gamma I - beta H has the weights (1 - beta - gamma) on E H(q(y|x)) and gamma on H(q(y)),
    paper 004.
    """
    (x, _), beta, gamma = data(3), 5.0, 1.0
    o = m2(3, entropy=beta, mutual_information=gamma)
    q = o.classify(x).probs
    conditional, marginal = -(q * q.log()).sum(-1).mean(), -(q.mean(0) * q.mean(0).log()).sum()
    torch.manual_seed(1)
    parts = o.parts(Batch(x_unlabeled=x))
    torch.manual_seed(1)
    eye = torch.eye(3)[:, None].expand(3, 1, 3)
    expectation = (q.T * by_hand(o, x, eye)).sum(0).mean()
    assert_same(
        o, sum(parts.values()), -(expectation + (1 - beta - gamma) * conditional + gamma * marginal)
    )


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("given", [True, False])
def test_bound_is_pyros_trace_enum_elbo(classes, given):
    o, (x, y) = m2(classes), data(classes)
    y = y if given else None
    stock = TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)
    torch.manual_seed(1)
    ours = -o.bound(x, y).sum()
    torch.manual_seed(1)
    assert_same(o, ours, stock.differentiable_loss(o.model, o.guide, x, y))


def test_balance_is_the_divergence_to_the_classes_frequencies():
    p = torch.tensor([0.2, 0.5, 0.3])
    o, (x, _) = m2(3, balance=0.8, class_probs=p.tolist()), data(3)
    marginal = o.classify(x).probs.mean(0)
    kl = kl_divergence(
        torch.distributions.Categorical(marginal), torch.distributions.Categorical(p)
    )
    assert_same(o, o.parts(Batch(x_unlabeled=x))["ClassBalance"], 0.8 * (kl - math.log(3)))
    assert torch.allclose(o.model.p_y().probs, p)


def test_what_stands_outside_the_plate_counts_once():
    o, (x, _) = m2(3), data(3)

    def model(x):
        pyro.factor("of all", torch.tensor(-1.0))
        pyro.sample("seen", dist.Normal(torch.zeros(()), 1.0), obs=torch.tensor(2.0))
        o.model(x)

    def guide(x):
        pyro.factor("of the guide", torch.tensor(0.3), has_rsample=True)
        o.guide(x)

    stock = TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)
    torch.manual_seed(1)
    ours = o.elbo.differentiable_loss(model, guide, x)
    torch.manual_seed(1)
    assert_same(o, ours, stock.differentiable_loss(model, guide, x))
    torch.manual_seed(1)
    bound = o.elbo.bound(model, guide, x)
    torch.manual_seed(1)
    assert_same(o, bound.value.sum(), o.bound(x).sum())
    assert bound.shared is not None and bound.shared.item() == pytest.approx(
        1.3 + 2.0 + 0.5 * math.log(2 * math.pi)
    )


@pytest.mark.parametrize("joint_pass", [True, False])
def test_what_stands_outside_the_plate_counts_once_in_a_data_set(joint_pass):
    """Of 8 labeled and 32 unlabeled data, whatever the weights of the two parts."""
    o, (x, y) = m2(3), data(3)

    class Whole(PyroModule):
        def forward(self, x, y=None):
            pyro.factor("of all", torch.tensor(-3.0))
            with pyro.plate("data", len(x)):
                pyro.sample("y", o.model.p_y(), obs=y)

    class Guide(PyroModule):
        def __init__(self):
            super().__init__()
            self.q_y = o.guide.q_y

        def classify(self, x):
            return self.q_y(x)

        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                if y is None:
                    pyro.sample("y", self.q_y(x), infer={"enumerate": "parallel"})

    for labeled, unlabeled in ((1.0, 1.0), (0.5, 1.0), (1.0, 0.5)):
        whole = Objective(
            Whole(),
            Guide(),
            labeled_weight=labeled,
            unlabeled_weight=unlabeled,
            joint_pass=joint_pass,
        )
        whole.sizes = 8, 32
        whole.check(Batch(x, y, x))
        assert whole.parts(Batch(x, y, x))["weights"].item() == pytest.approx(3.0 * unlabeled / 32)


def test_what_has_no_plate_is_of_its_datum_where_its_value_is():
    o, (x, y) = m2(3), data(3)

    def bare(x, y):
        pyro.sample("y", o.model.p_y(), obs=y)
        z = pyro.sample("z", o.model.p_z(y))
        pyro.sample("x", o.model.p_x(y, z), obs=x)

    guide = lambda x, y: pyro.sample("z", o.guide.q_z(x, y))  # noqa: E731
    with pytest.raises(ValueError, match="shapes disagree at site .z."):
        o.elbo.bound(bare, guide, x, y)
    torch.manual_seed(1)
    with pyro.validation_enabled(False):
        found = o.elbo.bound(bare, guide, x, y)
    torch.manual_seed(1)
    assert_same(o, found.value.sum(), o.bound(x, y).sum())
    assert found.shared is None


def test_scaled_bound_is_pyros_too():
    o, (x, _) = m2(3), data(3)
    scaled = pyro.poutine.scale(scale=0.37)
    torch.manual_seed(1)
    ours = o.parts(Batch(x_unlabeled=x))["unlabeled"]
    weighted = Objective(o.model, o.guide, unlabeled_weight=0.37, elbo=o.elbo)
    torch.manual_seed(1)
    assert_same(o, weighted.parts(Batch(x_unlabeled=x))["unlabeled"], 0.37 * ours)
    torch.manual_seed(1)
    with scaled:
        stock = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(o.model, o.guide, x) / B
    assert_same(o, 0.37 * ours, stock)


def test_vae_bound_is_reconstruction_minus_kl_in_the_mean():
    n = 20_000
    o, x = (
        zoo.build("vae", D, 2, z_dim=Z, hidden=(7,), likelihood="gaussian", sigma=0.7).double(),
        data(2)[0][:1].expand(n, D),
    )
    torch.manual_seed(1)
    with torch.no_grad():
        draws = o.bound(x)
        q = o.guide.q_z(x).base_dist
        log_px = Normal(o.model.p_x.network(q.sample()), 0.7).log_prob(x).sum(-1)
        expected = log_px - kl_divergence(q, Normal(0.0, 1.0)).sum(-1)
    error = ((draws.var() + expected.var()) / n).sqrt()
    assert (draws.mean() - expected.mean()).abs() < 4.5 * error


def test_terms_switch_off_with_what_they_need():
    o, (x, y) = m2(3, entropy=1.0, mutual_information=1.0), data(3)
    assert set(o.parts(Batch(x, y))) == {"labeled", "LabelLogProb"}
    assert set(o.parts(Batch(x_unlabeled=x))) == {"unlabeled", "Entropy", "MutualInformation"}
    with pytest.raises(ValueError, match="no part of the loss"):
        o(Batch())


def test_another_enumerated_variable_is_not_the_label():
    """A cluster c that the guide enumerates beside an observed y leaves the classification term to
    classify(x).
    """

    class Model(PyroModule):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                pyro.sample("c", dist.OneHotCategorical(logits=torch.zeros(3)))
                pyro.sample("y", dist.OneHotCategorical(logits=torch.zeros(3)), obs=y)
                pyro.sample("x", dist.Normal(torch.zeros(D), 1.0).to_event(1), obs=x)

    class Guide(PyroModule):
        def __init__(self):
            super().__init__()
            self.q_y, self.q_c = (OneHotCategorical(MLP(D, 3, ())) for _ in range(2))

        def classify(self, x):
            return self.q_y(x)

        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                pyro.sample("c", self.q_c(x), infer={"enumerate": "parallel"})

    x, y = data(3)
    o = Objective(Model(), Guide(), [LabelLogProb()]).double()
    o.parts(Batch(x, y))["LabelLogProb"].backward()
    assert all(p.grad is not None for p in o.guide.q_y.parameters())
    assert all(p.grad is None for p in o.guide.q_c.parameters())


def test_terms_alone():
    guide = zoo.build("classifier", D, 3, hidden=(7,), noise=0.0, dropout=0.0).guide.double()
    x, y = data(3)
    o = Objective(
        None, guide, [LabelLogProb(2.0), Entropy(-1.0), MutualInformation(0.0), L2(guide, 0.0)]
    )
    q = guide.classify(x).probs
    expected = -2.0 * (y * q.log()).sum(-1).mean() + (q * q.log()).sum(-1).mean()
    assert torch.allclose(o(Batch(x, y, x)), expected, atol=1e-12)

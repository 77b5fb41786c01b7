"""CE, GM and VC against their written objectives."""

import math
from dataclasses import replace

import pytest
import torch
from pyro.distributions import OneHotCategorical
from torch import nn

from pyro_ssl import fit, models, predict_proba, zoo
from pyro_ssl.distributions.conditionals import Delta, expected
from pyro_ssl.distributions.priors import Bayes, ClassNormal, ClassPrior
from pyro_ssl.evaluation.ood import ClassDensities
from pyro_ssl.objectives.adversarial import Discrimination, Discriminators
from pyro_ssl.objectives.batch import Batch
from pyro_ssl.objectives.terms import L2
from pyro_ssl.training.optimizers import parameter_groups

N, K, Z = 7, 3, 4


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def batch(seed=0):
    g = torch.Generator().manual_seed(seed)
    return Batch(torch.randn(N, 5, generator=g), torch.eye(K)[torch.randint(K, (N,), generator=g)])


def built(name, **options):
    objective = zoo.build(name, (5,), K, seed=1, z_dim=Z, hidden=(8,), **options).double()
    with torch.no_grad():
        objective.model.p_y.logits.copy_(torch.tensor([0.2, -0.1, 0.4]))
        objective.model.p_z.raw_scale.add_(torch.rand_like(objective.model.p_z.raw_scale))
    objective.sizes = (N, 0)
    return objective.train()


def written(objective, b, density, ratio, bounded=False):
    """J of paper 000, eq. 6, by hand: CE, plus the weighted densities and ratios."""
    p_z, log_p_y = objective.model.p_z, objective.model.p_y.logits.log_softmax(-1)
    z = objective.guide.q_z.network(b.x)
    scale = p_z.scale.expand(K, Z)
    log_p_z = (
        -0.5 * ((z[:, None] - p_z.loc) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)
    ).sum(-1)
    log_p_y_z = (log_p_z + log_p_y).log_softmax(-1)
    own = (b.y * (log_p_y_z + log_p_y + density * log_p_z)).sum(-1)
    if ratio:
        t = (b.y * objective.model.log_ratio.discriminators(z)).sum(-1)
        own = own - ratio * (2 * ((1 + t.exp()) / 2).log() if bounded else t)
        fitted = (-0.5 * ((z.detach()[:, None] - p_z.loc) / scale) ** 2 - scale.log()).sum(-1)
        own = own + ratio * (b.y * (fitted - fitted.detach())).sum(-1)
    return -own.mean()


@pytest.mark.parametrize(
    ("name", "options", "density", "ratio"),
    [
        ("ce", {}, 0.0, 0.0),
        ("gm", {"density": 1.0}, 1.0, 0.0),
        ("gm", {}, 0.1, 0.0),
        ("vc", {"ratio": 1.0, "bounded": False}, 0.0, 1.0),
        ("vc", {"ratio": 0.3, "density": 0.2, "bounded": False}, 0.2, 0.3),
        ("vc", {}, 0.0, 0.1),
    ],
)
def test_the_objective_is_the_written_one_in_value_and_gradient(name, options, density, ratio):
    objective, b = built(name, **options), batch()
    parameters = dict(objective.guide.named_parameters())
    assert {
        "q_z.network.first.weights.0",
        "p_y.p_y.logits",
        "p_y.p_z.loc",
        "p_y.p_z.raw_scale",
    } <= parameters.keys()
    ours, theirs = objective(b), written(objective, b, density, ratio, options.get("bounded", True))
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-10)
    for name_, a, t in zip(
        parameters,
        torch.autograd.grad(ours, list(parameters.values()), retain_graph=True),
        torch.autograd.grad(theirs, list(parameters.values())),
        strict=True,
    ):
        assert torch.allclose(a, t, atol=1e-10), name_


def test_with_equal_variances_and_no_prior_term_it_is_a_softmax_classifier():
    p_y, p_z = ClassPrior(K, learn=True), ClassNormal(K, Z, shared=True).double()
    with torch.no_grad():
        p_y.logits.copy_(torch.randn(K))
    z, y = torch.randn(N, Z, requires_grad=True), torch.randint(K, (N,))
    ours = nn.functional.cross_entropy(Bayes(p_y, p_z)(z).logits, y)
    w = p_z.loc / p_z.scale**2
    b = p_y.logits - 0.5 * (p_z.loc * w).sum(-1)
    theirs = nn.functional.cross_entropy(z @ w.T + b, y)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-10)
    given = [z, *p_y.parameters(), *p_z.parameters()]
    for a, t in zip(
        torch.autograd.grad(ours, given, retain_graph=True),
        torch.autograd.grad(theirs, given),
        strict=True,
    ):
        assert torch.allclose(a, t, atol=1e-10)


def test_the_unlabeled_bound_of_a_mixture_is_the_density_of_its_code():
    objective, x = built("gm", density=1.0), torch.randn(6, 5)
    z = objective.guide.q_z.network(x)
    log_p_z = objective.guide.p_y.joint(z).logsumexp(-1)
    assert torch.allclose(objective.bound(x), log_p_z, atol=1e-10)


def test_weight_decay_is_the_pairs_alone():
    made = []

    def sgd(groups, lr):
        made.append(torch.optim.SGD(groups, lr, weight_decay=0.1))
        return made[-1]

    fit(built("vc"), batch().x, batch().y.argmax(-1), epochs=1, optimizer=sgd, progress=False)
    assert [group["weight_decay"] for group in made[0].param_groups] == [0.1, 0.0]


def test_what_its_options_are_for():
    players_of = parameter_groups(zoo.build("vc", (5,), K, hidden=(8,), discriminator_lr=0.3))
    assert [share for share, _ in players_of] == [1.0, 0.3]
    objective = built("vc", l2=1.0, discriminator_hidden=5)
    (l2,) = [term for term in objective.terms if isinstance(term, L2)]
    assert {id(w) for w in l2.weights} == {
        id(p) for p in objective.guide.q_z.parameters() if p.dim() > 1
    }
    x, probs = torch.randn(4, 5), {}
    for draws in (1, 4000):
        objective = built("vc", stochastic=True, draws=draws).eval()
        probs[draws] = predict_proba(objective, x)
    z = objective.guide.q_z(x).sample((4000,))
    expected = objective.guide.p_y(z).mean.mean(0)
    assert torch.allclose(probs[4000], expected, atol=0.03) and not torch.allclose(
        probs[1], expected, atol=0.03
    )


def test_a_code_without_noise_is_classified_once():
    calls, z = [], torch.randn(4, Z)

    def p_y(z):
        calls.append(z.shape)
        return OneHotCategorical(logits=z)

    found = expected(p_y, Delta(nn.Identity())(z), 100)
    assert calls == [(4, Z)] and torch.equal(found.logits, OneHotCategorical(logits=z).logits)


def test_the_mean_over_codes_does_not_saturate():
    given = torch.distributions.Normal(torch.zeros(2, 1), 0.1).expand((2, 1))
    p_y = lambda z: OneHotCategorical(logits=torch.cat([400 + z, 0 * z], -1))  # noqa: E731
    logits = expected(p_y, torch.distributions.Independent(given, 1), 50).logits
    assert (logits[:, 1] < -390).all() and torch.allclose(logits.exp().sum(-1), torch.ones(2))


def test_with_mutual_information_the_missing_labels_part_is_the_codes_marginal_objective():
    """Sum_y p(y|z) (log p(y) - w T_y(z)) + H(mean p(y|z)).

    It is -KL[q(z) || p(z)] where T is the true ratio.
    """
    objective, b = built("vc", ratio=0.3, bounded=False), batch()
    u = torch.randn(6, 5)
    objective.sizes = (N, 6)
    parts = objective.parts(replace(b, x_unlabeled=u))
    z = objective.guide.q_z.network(u)
    p = objective.guide.p_y(z).probs
    log_prior, t = (
        objective.model.p_y.logits.log_softmax(-1),
        objective.model.log_ratio.discriminators(z),
    )
    own = (p * (log_prior - 0.3 * t)).sum(-1).mean() + torch.special.entr(p.mean(0)).sum()
    assert (parts["unlabeled"] + parts["MutualInformation"]).item() == pytest.approx(
        -own.item(), abs=1e-10
    )


@pytest.mark.parametrize("method", ["ce", "gm", "vc"])
def test_a_batch_without_some_class(method):
    o = zoo.build(method, (5,), K, hidden=(8,), z_dim=Z).double()
    x = torch.randn(4, 5)
    assert o(Batch(x, torch.eye(K)[:1].expand(4, K), x)).isfinite()


BAD = {
    "z_dim": ({"z_dim": 0}, "z_dim should be a whole number above 0, got 0"),
    "inputs": (
        {"discriminator_inputs": "cubes"},
        "inputs should be one of linear, squared, quadratic, got 'cubes'",
    ),
    "hidden": (
        {"discriminator_hidden": -1},
        "discriminator_hidden should be 0 or above and .*, got -1 and",
    ),
    "rate": ({"discriminator_lr": 0.0}, "discriminator_lr above 0, got 0 and 0.0"),
    "ratio": ({"ratio": math.nan}, "ratio should be a finite number, got nan"),
    "draws": ({"draws": 0}, "draws should be a whole number above 0"),
    "negative": ({"ratio": -0.1}, "ratio should be above 0 with a log_ratio"),
    "density": ({"density": -1.0}, "^density should be 0 or above, got -1"),
    "labeled": ({"labeled_weight": 0.0}, "labeled_weight should be a number above 0"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        zoo.build("vc", (5,), K, **{"hidden": (8,)} | options)


@pytest.mark.parametrize(
    "make",
    [
        lambda: models.VC(ClassPrior(K), ClassNormal(K, Z), ratio=1.0),
        lambda: models.VC(ClassPrior(K), ClassNormal(K, Z), log_ratio=nn.Identity()),
        lambda: ClassNormal(K, Z, min_scale=2.0),
        lambda: ClassNormal(0, Z),
        lambda: Discriminators(0, K),
        lambda: Discriminators(Z, 0),
    ],
)
def test_parts_of_ones_own_refuse_what_they_cannot_be(make):
    with pytest.raises(ValueError, match="should be"):
        make()


def test_labels_beyond_the_classes_and_data_of_nan_are_refused():
    o, x = zoo.build("vc", (5,), K, hidden=(8,)), torch.randn(6, 5)
    with pytest.raises(ValueError, match="got label 3, but .* 3 classes"):
        fit(o, x, torch.tensor([0, 1, 2, 3, 0, 1]), epochs=1)
    with pytest.raises(ValueError, match="NaN"):
        fit(
            o,
            x.index_fill(0, torch.tensor([2]), math.nan),
            torch.tensor([0, 1, 2, 2, 0, 1]),
            epochs=1,
        )
    for z, y, message in (
        (
            x.index_fill(0, torch.tensor([2]), math.nan),
            torch.arange(6) % 3,
            "z holds NaN or infinity, first in row 2",
        ),
        (x, torch.arange(6) % 3 - 1, "y should hold a class"),
        (x, torch.arange(5), r"z should have shape \(N, Z\) and y \(N,\)"),
        (x, torch.tensor([0, 1, 1, 0, 2, 0]), "y: class 2 has 1 data; a covariance needs 2"),
        (torch.ones(6, 5), torch.arange(6) % 3, "z does not vary within classes"),
    ):
        with pytest.raises(ValueError, match=message):
            ClassDensities(z, y)


@pytest.mark.parametrize("stochastic", [False, True])
def test_the_unlabeled_bound_is_the_sum_over_classes(stochastic):
    """log p(y) + v log p(z|y) - w T_y(z) under q(y|x) = p(y|z), and its entropy, with gradient."""
    o = built("vc", stochastic=stochastic, density=0.2, ratio=0.3, bounded=False)
    x = torch.randn(6, 5)
    torch.manual_seed(0)
    found = o.bound(x)
    torch.manual_seed(0)
    z = o.guide.q_z(x).rsample()
    q, p_z = o.guide.p_y(z).probs, o.model.p_z
    log_p = o.model.p_y.logits.log_softmax(-1)
    by_hand = 0.0
    for k in range(K):
        y = torch.eye(K)[k].expand(6, K)
        by_hand = by_hand + q[:, k] * (
            log_p[k] + 0.2 * p_z(y).log_prob(z) - 0.3 * o.model.log_ratio(y, z) - q[:, k].log()
        )
    assert torch.allclose(found, by_hand, atol=1e-10)
    theirs = {id(p) for t in o.terms if isinstance(t, Discrimination) for p in t.parameters()}
    of = [p for p in o.parameters() if id(p) not in theirs]
    weights = torch.linspace(0.5, 1.5, 6)
    for a, b in zip(
        torch.autograd.grad((weights * found).sum(), of),
        torch.autograd.grad((weights * by_hand).sum(), of),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-9)


@pytest.mark.slow
def test_semi_supervised_learning_with_every_term():
    """Two stripes, labeled at opposite ends: labels alone cut them; the gap needs the rest."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(400) % 2
    x = torch.stack(
        [8 * torch.rand(400, generator=g) - 4, 2.0 * y - 1 + 0.15 * torch.randn(400, generator=g)],
        1,
    )
    known = torch.full((400,), -1)
    for k, at in ((0, -0.7), (1, 0.7)):
        known[(x[:, 0] - at).abs().masked_fill(y != k, math.inf).argsort()[:2]] = k
    x, accuracy, histories = x.float(), [], []
    for weight in (0.0, 1.0):  # an epoch without unlabeled data is one step
        terms = {
            "unlabeled_weight": weight,
            "entropy": 0.5 * weight,
            "mutual_information": 0.5 * weight,
            "balance": weight,
        }
        o = zoo.build("vc", (2,), 2, z_dim=2, hidden=(32,), noise=0.3, seed=1, **terms).float()
        histories.append(
            fit(o, x, known, epochs=40 if weight else 300, batch_size=50, lr=3e-3, seed=1)
        )
        accuracy.append(float((o.classify(x).mean.argmax(-1) == y).float().mean()))
    assert {"labeled", "unlabeled", "Entropy", "MutualInformation", "Discrimination"} <= histories[
        1
    ].keys()
    assert accuracy[0] < 0.8 and accuracy[1] > 0.98

"""Fewer classes, KL in closed form, several samples, both parts in one call: each against the exact value."""

import math
from functools import cache
from statistics import NormalDist

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, kl_divergence
from torch.utils.flop_counter import FlopCounterMode

from pyro_ssl import (
    MLP,
    Batch,
    ClassBalance,
    ClassPrior,
    Entropy,
    Gaussian,
    MutualInformation,
    Normal,
    Objective,
    OneHotCategorical,
    SplitLinear,
    StandardNormal,
    TraceTopKEnum_ELBO,
    guides,
    models,
    one_hot,
    zoo,
)
from pyro_ssl.infer import elbo, enumeration
from pyro_ssl.infer.closed_form import closed_form_kl
from pyro_ssl.infer.joint_pass import joint_pass_is_exact
from pyro_ssl.infer.param_store import without_param_store
from pyro_ssl.infer.scales import scale_latents
from pyro_ssl.infer.top_k import MASS, MOST, TopKPolicy
from pyro_ssl.nn.tensor_annotations import mark_one_hot

pytestmark = pytest.mark.usefixtures("float64")
D, Z, B = 4, 2, 6
PARALLEL = {"enumerate": "parallel"}
SAMPLED = TraceTopKEnum_ELBO(None, closed_form=())
"""The sum over all classes with one sample of everything else: Pyro's own, as test_exact.py shows."""


def data(n: int = B, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, D, generator=g), one_hot(
        torch.arange(n) % classes, classes, torch.float64
    )


def m2(classes: int = 3, **options) -> Objective:
    plain = {"z_dim": Z, "hidden": (5,), "noise": 0.0, "dropout": 0.0, "balance": 0.0, "sigma": 0.7}
    return zoo.build("m2", D, classes, **plain | options).to(torch.get_default_dtype())


def without_z(o: Objective) -> Objective:
    """p(x|y,z) ignores z: with KL in closed form, the bound is then a function of the classes and of no noise."""
    with torch.no_grad():
        o.model.p_x.network.first.weights[1].zero_().requires_grad_(False)
    return o


class Program(PyroModule):
    """A program over one plate, with conditionals by name; `classify` is a function of the program and x."""

    def __init__(self, body, classifier=None, **conditionals):
        super().__init__()
        self.body, self.classifier = body, classifier
        for name, conditional in conditionals.items():
            setattr(self, name, conditional)

    def classify(self, x):
        return self.classifier(self, x)

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            self.body(self, x, y)


def adgm(classes: int = 3) -> tuple[Program, Program]:
    """p(y) p(z) p(x|y,z) p(a|x,y,z), guided by q(a|x) q(y|a,x) q(z|a,x,y): a is drawn before y."""

    def model(p, x, y):
        y, z = pyro.sample("y", p.p_y(), obs=y), pyro.sample("z", p.p_z())
        pyro.sample("a", p.p_a(x, y, z))
        pyro.sample("x", p.p_x(y, z), obs=x)

    def guide(q, x, y):
        a = pyro.sample("a", q.q_a(x))
        y = pyro.sample("y", q.q_y(a, x), infer=PARALLEL) if y is None else y
        pyro.sample("z", q.q_z(a, x, y))

    def classify(q, x):
        return dist.OneHotCategorical(probs=q.q_y(q.q_a(x).sample((20,)), x).mean.mean(0))

    torch.manual_seed(0)
    p_x, p_a = (
        Gaussian(MLP([classes, Z], D, (5,)), sigma=0.7),
        Normal(MLP([D, classes, Z], 2, (5,))),
    )
    q_a, q_y = Normal(MLP(D, 2, (5,))), OneHotCategorical(MLP([1, D], classes, (5,)))
    q_z = Normal(MLP([1, D, classes], 2 * Z, (5,)))
    prior = torch.arange(1.0, classes + 1) / sum(range(classes + 1))
    return (
        Program(model, p_y=ClassPrior(prior), p_z=StandardNormal(Z), p_x=p_x, p_a=p_a),
        Program(guide, classify, q_a=q_a, q_y=q_y, q_z=q_z),
    )


def sslpe(classes: int = 3) -> tuple[Program, Program]:
    """p(z) p(x|z) p(y|x,z), guided by q(y|x) q(z|x,y): the model's y depends on what the guide draws after it."""

    def model(p, x, y):
        z = pyro.sample("z", p.p_z())
        pyro.sample("x", p.p_x(z), obs=x)
        pyro.sample("y", p.p_y(x, z), obs=y)

    torch.manual_seed(0)
    p_x, p_y = Gaussian(MLP(Z, D, (5,)), sigma=0.7), OneHotCategorical(MLP([D, Z], classes, (5,)))
    q_y, q_z = OneHotCategorical(MLP(D, classes, (5,))), Normal(MLP([D, classes], 2 * Z, (5,)))
    return Program(model, p_z=StandardNormal(Z), p_x=p_x, p_y=p_y), guides.M2(q_y, q_z)


def seeded(function, *args, seed: int = 1, **kwargs):
    torch.manual_seed(seed)
    return function(*args, **kwargs)


def parameters(*parts: nn.Module) -> list[nn.Parameter]:
    return [p for part in parts for p in part.parameters() if p.requires_grad]


def gradients(value: Tensor, of: list[nn.Parameter]) -> list[Tensor]:
    found = torch.autograd.grad(value, of, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, of, strict=True)]


def assert_same(ours: Tensor, theirs: Tensor, of: list[nn.Parameter], tol: float = 1e-12) -> None:
    """Equal values, and gradients of their sums."""
    assert ours.shape == theirs.shape
    pairs = zip(
        [ours, *gradients(ours.sum(), of)], [theirs, *gradients(theirs.sum(), of)], strict=True
    )
    for a, b in pairs:
        assert torch.allclose(a, b, rtol=0, atol=tol * max(1.0, b.abs().max().item()))


# --- fewer classes: the same in the mean ------------------------------------------------------------------------------

DATA, DRAWS = 100, 800


class PerDatum(nn.Module):
    """A network plus parameters of each datum and class, `(B, K, H)`: their gradient is one draw per row."""

    def __init__(self, network: nn.Module, label: int, rows: Tensor):
        super().__init__()
        self.network, self.label, self.rows = network, label, nn.Parameter(rows)

    def forward(self, *inputs):
        y = inputs[self.label]
        y = y.expand(*y.shape[:-2], *self.rows.shape[:2])
        return self.network(*inputs) + torch.einsum("...bk,bkh->...bh", y, self.rows)


class Table(nn.Module):
    """Logits that are parameters, one row per datum."""

    def __init__(self, rows: Tensor):
        super().__init__()
        self.rows = nn.Parameter(rows)

    def forward(self, x):
        return self.rows


def draws(
    bound: TraceTopKEnum_ELBO,
    classes: int,
    lead: float = 0.0,
    *,
    seed: int = 1,
    labeled: int = 0,
    kl_weight: float = 1.0,
) -> dict[str, Tensor]:
    """Bounds, and gradients of each datum's own parameters: DRAWS times for DATA data, `(DATA, DRAWS, *)`.

    Arguments:
        bound: The estimator.
        classes: K.
        lead: What the first class's logit is above the others', which are spread over [0, 1].
        seed: Of the estimator's draws.
        labeled: That many data, the first, have a given y.
        kl_weight: Weight of z's KL.
    """
    g = torch.Generator().manual_seed(classes)
    x, rows = torch.randn(DATA, D, generator=g), torch.randn(DATA, classes, D, generator=g)
    logits = torch.rand(DATA, classes, generator=g)
    logits[:, 0] += lead
    each = [
        t.repeat_interleave(DRAWS, 0) for t in (x, logits, rows, torch.zeros(DATA, classes, 2 * Z))
    ]
    torch.manual_seed(0)
    q_y = Table(each[1])
    p_x = PerDatum(MLP([classes, Z], D, (4,)), 0, each[2])
    q_z = PerDatum(MLP([D, classes], 2 * Z, (4,)), 1, each[3])
    model = models.M2(ClassPrior(classes), StandardNormal(Z), Gaussian(p_x, sigma=0.7))
    guide = guides.M2(OneHotCategorical(q_y), Normal(q_z))
    y = (
        one_hot(torch.arange(labeled) % classes, classes, torch.float64).repeat_interleave(DRAWS, 0)
        if labeled
        else None
    )
    with scale_latents(kl_weight):
        value = seeded(bound.bound, model, guide, each[0], labels=y, seed=seed).value
    found = dict(
        zip(
            ("logits", "decoder", "encoder"),
            gradients(value.sum(), [q_y.rows, p_x.rows, q_z.rows]),
            strict=True,
        )
    )
    return {k: v.detach().reshape(DATA, DRAWS, -1) for k, v in (found | {"value": value}).items()}


@cache
def exact(classes: int, lead: float = 0.0, kl_weight: float = 1.0) -> dict[str, Tensor]:
    return draws(SAMPLED, classes, lead, seed=0, kl_weight=kl_weight)


def agree(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    """Whether means agree: standardised differences of root-mean-square 1, and none in the Bonferroni tail of 4 sigma.

    The root-mean-square is over data and coordinates: 200 independent ones at least for each kind of gradient, which
    leaves that of an unbiased estimator a standard deviation of 0.05. The largest is sought among coordinates pooled
    over data: one datum's means, of a class drawn seldom, are too skewed for a normal's far tail.
    """
    rms, pooled = {}, []
    for name in theirs:
        difference = ours[name] - theirs[name]
        mean, error = difference.mean(1), difference.std(1) / math.sqrt(DRAWS)
        rms[name] = (mean / error).square().mean().sqrt().item()
        pooled.append((mean.sum(0) / error.square().sum(0).sqrt()).abs())
    largest, rms = (
        torch.cat(pooled),
        {name: value for name, value in rms.items() if name != "value"},
    )
    line = NormalDist().inv_cdf(1 - math.erfc(4 / math.sqrt(2)) / 2 / len(largest))
    spread = {name: (ours[name].var(1).sum() / theirs[name].var(1).sum()).item() for name in theirs}
    rounded = {name: round(value, 3) for name, value in rms.items()}
    print(f"  |z| up to {largest.max():.2f} (line {line:.2f}), root-mean-square", rounded)
    print("  variance over that of exact enumeration", {k: round(v, 3) for k, v in spread.items()})
    return bool(largest.max() < line) and all(0.8 < value < 1.2 for value in rms.values())


CASES = [
    (3, 0.0, 1),
    (10, 0.0, 1),
    (10, 0.0, 2),
    (10, 0.0, 8),
    (10, 4.0, "auto"),
    (10, 7.0, "auto"),
]
FEWER = [(*case, shared) for case in CASES for shared in (False, True)] + [(18, 0.0, "auto", True)]


@pytest.mark.parametrize(("classes", "lead", "top_k", "shared"), FEWER)
def test_fewer_classes_give_the_same_value_and_gradient_in_the_mean(classes, lead, top_k, shared):
    print(f"\nK = {classes}, lead {lead}, top_k {top_k}, shared noise {shared}")
    assert agree(
        draws(
            TraceTopKEnum_ELBO(top_k, common_random_numbers=shared, closed_form=()), classes, lead
        ),
        exact(classes, lead),
    )


@pytest.mark.parametrize("kl_weight", [1.0, 0.3])
@pytest.mark.parametrize(
    "options",
    [
        {"common_random_numbers": False},
        {"common_random_numbers": True, "top_k": 1},
        {"num_particles": 3},
    ],
)
def test_kl_in_closed_form_gives_the_same_value_and_gradient_in_the_mean(options, kl_weight):
    print(f"\nK = 10, KL in closed form with weight {kl_weight}, {options}")
    ours = draws(TraceTopKEnum_ELBO(**{"top_k": None} | options), 10, kl_weight=kl_weight)
    assert agree(ours, exact(10, kl_weight=kl_weight))
    if options == {"common_random_numbers": False}:
        assert ours["value"].var(1).sum() < exact(10, kl_weight=kl_weight)["value"].var(1).sum()


def test_data_beside_labeled_data_have_the_same_gradient_in_the_mean():
    """The labels of the first half are given, and q(y|x) is not taught by them."""
    half = DATA // 2
    ours = draws(TraceTopKEnum_ELBO(2), 10, labeled=half)
    print("\nK = 10, top_k 2, beside labeled data")
    assert agree(
        *({name: value[half:] for name, value in found.items()} for found in (ours, exact(10)))
    )
    assert (ours["logits"][:half] == 0).all()


def drawn_classes_own_f(f: Tensor) -> Tensor:
    return f[..., -1:, :]


def mean_of_f(f: Tensor) -> Tensor:
    return f.mean(-2, keepdim=True)


@pytest.mark.parametrize("baseline", [drawn_classes_own_f, mean_of_f])
@pytest.mark.parametrize("classes", [3, 10])
def test_a_baseline_that_depends_on_the_drawn_class_shows(classes, baseline, monkeypatch):
    """Negative control: the same test fails it."""

    def expectation(f, weights):
        f = f.expand(torch.broadcast_shapes(f.shape, weights.shape))
        constant = f.detach() - baseline(f.detach())
        return (weights.detach() * f).sum(-2) + ((weights - weights.detach()) * constant).sum(-2)

    monkeypatch.setattr(elbo, "expectation", expectation)
    print(f"\nK = {classes}, top_k 1, wrong baseline: {baseline.__name__}")
    assert not agree(draws(TraceTopKEnum_ELBO(1, closed_form=()), classes), exact(classes))


@pytest.mark.parametrize("classes", [3, 10])
def test_a_missing_weight_shows(classes, monkeypatch):
    """Negative control: the drawn class without one over its probability."""

    def unweighted(log_q, top_k, right=enumeration.likeliest_and_one):
        index, correction = right(log_q, top_k)
        return index, torch.zeros_like(correction)

    monkeypatch.setattr(enumeration, "likeliest_and_one", unweighted)
    print(f"\nK = {classes}, top_k 1, without 1 / pi")
    assert not agree(draws(TraceTopKEnum_ELBO(1, closed_form=()), classes), exact(classes))


@pytest.mark.parametrize(
    "options", [{"closed_form": ()}, {"common_random_numbers": True}, {"num_particles": 3}]
)
@pytest.mark.parametrize(
    ("classes", "top_k"), [(2, 1), (2, "auto"), (3, 2), (3, 3), (10, 9), (10, 12)]
)
def test_all_but_one_class_and_the_one_left_are_all(classes, top_k, options):
    o, (x, _) = m2(classes), data(classes=classes)
    ours, theirs = (
        seeded(TraceTopKEnum_ELBO(t, **options).bound, o.model, o.guide, x).value
        for t in (top_k, None)
    )
    assert_same(ours, theirs, parameters(o))
    few = seeded(TraceTopKEnum_ELBO(1, **options).bound, o.model, o.guide, x).value
    assert torch.allclose(few, theirs) == (classes < 3)


def test_shared_noise_is_one_draw_per_datum_and_lowers_the_gradients_variance():
    spread = {}
    for shared in (False, True):
        o, (x, _) = m2(4), data(500)
        bound = TraceTopKEnum_ELBO(None, common_random_numbers=shared).bound(o.model, o.guide, x)
        q_z, z = bound.guide_trace.nodes["z"]["fn"].base_dist, bound.guide_trace.nodes["z"]["value"]
        noise = (z - q_z.loc) / q_z.scale
        assert torch.allclose(noise, noise[:1], atol=1e-9) == shared
        assert abs(noise.std() - 1) < 0.05 and not torch.allclose(noise[:, 0], noise[:, 1])
        spread[shared] = (
            draws(TraceTopKEnum_ELBO(None, common_random_numbers=shared, closed_form=()), 3)[
                "logits"
            ]
            .var(1)
            .sum(0)
        )
    assert (spread[True] < spread[False]).all()


# --- top_k="auto" -------------------------------------------------------------------------------------------------------


def log_q(classes: int, mass: float, rows: int = 4) -> Tensor:
    """q(y|x) with this share in a class that differs by row, the rest evenly over the others."""
    q = torch.full((rows, classes), (1 - mass) / max(1, classes - 1))
    q[torch.arange(rows), torch.arange(rows) % classes] = mass
    return q.log()


def uniform(classes: int, rows: int = 4) -> Tensor:
    return torch.full((rows, classes), 1 / classes).log()


RULE = [
    (1, 1.0, None, None), (2, 0.99, None, None), (3, 0.99, 1, None), (10, 0.99, 1, None), (17, 0.99, 1, None),
    (18, 0.99, 1, 16), (100, 0.99, 1, 16), (100, 0.2, 16, 16),
]  # fmt: skip


@pytest.mark.parametrize(("classes", "mass", "concentrated", "spread"), RULE)
def test_auto_sums_over_all_classes_while_they_are_few_or_q_is_spread_and_over_two_once_it_is_not(
    classes, mass, concentrated, spread
):
    assert (MASS, MOST) == (0.95, 16)
    assert TopKPolicy("auto").number(log_q(classes, mass)) == concentrated
    assert TopKPolicy("auto").number(uniform(classes)) == (None if classes <= 17 else 16)
    assert TopKPolicy(None).number(log_q(classes, mass)) is None
    assert TopKPolicy(16).number(log_q(classes, mass)) == spread


@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_auto_takes_the_first_power_of_two_that_holds_its_share(k):
    for share, expected in ((MASS + 1e-9, k), (MASS - 1e-9, 2 * k)):
        q = torch.full((3, 40), (1 - share) / (40 - k))
        q[:, :k] = share / k
        assert TopKPolicy("auto").number(q.log()) == expected


def test_auto_goes_by_the_batchs_mean():
    sure, unsure = log_q(10, 1 - 1e-12, 94), uniform(10, 6)
    assert TopKPolicy("auto").number(sure) == 1 and TopKPolicy("auto").number(unsure) is None
    assert (
        TopKPolicy("auto").number(torch.cat([sure, unsure])) == 2
    )  # 0.94 + 0.06 * 0.1 is below 0.95, and with two classes 0.952
    assert TopKPolicy("auto").number(torch.cat([sure, sure, unsure])) == 1
    assert TopKPolicy("auto").number(torch.cat([sure] + 10 * [unsure])) is None


def test_auto_is_a_function_of_q_alone():
    """It draws nothing and sees no bound; order of data and classes does not matter, nor data with a given y."""
    q = (
        (3 * torch.randn(50, 30, generator=torch.Generator().manual_seed(0)))
        .log_softmax(-1)
        .requires_grad_()
    )
    before = torch.get_rng_state()
    k = TopKPolicy("auto").number(q)
    assert k == TopKPolicy("auto").number(q.flip(0)) == TopKPolicy("auto").number(q.flip(1)) == 8
    assert torch.equal(torch.get_rng_state(), before)
    guide = guides.M2(
        OneHotCategorical(Table(torch.cat([uniform(30, 20), q.detach()]))), m2(30).guide.q_z
    )
    x, y = data(70, 30)
    for given, expected in ((y[:20], 8), (None, 16)):
        bound = TraceTopKEnum_ELBO("auto").bound(m2(30).model, guide, x, labels=given)
        assert len(bound.guide_trace.nodes["y"]["value"]) == expected + 1


# --- KL in closed form ------------------------------------------------------------------------------------------------


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
    """At the same z; KL(q(z|x,y) || p(z)) has the weight beta, and KL(q(y|x) || p(y)) keeps its own."""
    o, (x, y) = m2(), data()
    o.model.p_y = ClassPrior([0.5, 0.3, 0.2]).double()
    with scale_latents(beta):
        bound = seeded(TraceTopKEnum_ELBO(None).bound, o.model, o.guide, x, y if given else None)
    z = bound.guide_trace.nodes["z"]["value"]
    y = y if given else torch.eye(3)[:, None]
    loc, scale = (q := o.guide.q_z(x, y).base_dist).loc, q.scale
    kl_z = (0.5 * (loc**2 + scale**2 - 1) - scale.log()).sum(-1)
    f = o.model.p_x(y, z).log_prob(x) - beta * kl_z
    log_p, q_y = torch.tensor([0.5, 0.3, 0.2]).log(), o.guide.q_y.network(x).softmax(-1)
    by_hand = f + y @ log_p if given else (q_y * (f.T + log_p - q_y.log())).sum(-1)
    assert_same(bound.value, by_hand, parameters(o))


@pytest.mark.parametrize("top_k", [1, 2, "auto"])
def test_the_labels_kl_is_the_sum_over_all_classes_whatever_is_summed_over(top_k):
    """Where x and z do not depend on y, nothing is left of the draw: -KL(q(y|x) || p(y)), p(y) not uniform."""
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


# --- what the guide draws before y ------------------------------------------------------------------------------------


def adgm_by_hand(
    model: Program, guide: Program, x: Tensor, bound: elbo.Bound, closed_form: bool
) -> Tensor:
    """Mean over particles of the sum over classes, at the values of a and z and of the classes in the guide's trace."""
    a, y, z = (bound.guide_trace.nodes[name]["value"] for name in ("a", "y", "z"))
    classes = y.shape[-1]
    q = guide.q_y(a, x).probs.reshape(-1, B, classes)
    index = y.argmax(-1).expand(len(y), B)
    weights = torch.stack([q_s.gather(-1, index.T).T for q_s in q])  # (S, V, B)
    if len(y) < classes:
        marginal = q.mean(0).gather(-1, index.T).T.detach()
        assert (marginal[:1] >= marginal).all()
        last = weights[:, -1:] / (marginal[-1] / (1 - marginal[:-1].sum(0)))
        weights = torch.cat([weights[:, :-1], last], 1)
    f = model.p_x(y, z).log_prob(x) + model.p_a(x, y, z).log_prob(a) - guide.q_a(x).log_prob(a)
    q_z, p_z = guide.q_z(a, x, y), model.p_z()
    f = f - kl_divergence(q_z, p_z) if closed_form else f + p_z.log_prob(z) - q_z.log_prob(z)
    log_p = model.p_y().logits.log_softmax(-1)
    rest = -(q * q.log()).sum(-1)
    if closed_form:
        rest = rest + (q * log_p).sum(-1)
    else:
        f = f + y @ log_p
    f = f.reshape(-1, len(y), B)
    surrogate = (weights - weights.detach()) * (f - f[:, :1]).detach()
    return ((weights.detach() * f).sum(1) + surrogate.sum(1) + rest).mean(0)


@pytest.mark.parametrize("closed_form", [True, False])
@pytest.mark.parametrize("top_k", [None, 1, 2, "auto"])
@pytest.mark.parametrize("particles", [1, 5])
def test_a_guide_that_draws_before_y(particles, top_k, closed_form):
    (model, guide), (x, y) = adgm(4), data(classes=4)
    bound = TraceTopKEnum_ELBO(
        top_k, num_particles=particles, closed_form="auto" if closed_form else ()
    )
    of = parameters(model, guide)
    ours = bound.bound(model, guide, x)
    assert len(ours.guide_trace.nodes["y"]["value"]) == {None: 4, 1: 2, 2: 3, "auto": 4}[top_k]
    assert ours.guide_trace.nodes["z"]["value"].shape[:-3] == ((5,) if particles > 1 else ())
    assert_same(ours.value, adgm_by_hand(model, guide, x, ours, closed_form), of, 1e-10)
    assert all(g.isfinite().all() and g.any() for g in gradients(ours.value.sum(), of))
    labeled = seeded(bound.bound, model, guide, x, y)
    a, z = (labeled.guide_trace.nodes[name]["value"] for name in ("a", "z"))
    q_z, p_z = guide.q_z(a, x, y), model.p_z()
    f = (
        model.p_y().log_prob(y)
        + model.p_x(y, z).log_prob(x)
        + model.p_a(x, y, z).log_prob(a)
        - guide.q_a(x).log_prob(a)
    )
    f = f - kl_divergence(q_z, p_z) if closed_form else f + p_z.log_prob(z) - q_z.log_prob(z)
    assert_same(labeled.value, f.reshape(-1, B).mean(0), of, 1e-10)


@pytest.mark.parametrize("shared", [False, True])
def test_the_particles_are_independent_also_where_classes_share_their_noise(shared):
    (model, guide), (x, _) = adgm(), data()
    nodes = (
        TraceTopKEnum_ELBO(None, num_particles=400, common_random_numbers=shared)
        .bound(model, guide, x)
        .guide_trace.nodes
    )
    q_z = nodes["z"]["fn"].base_dist
    noise = (nodes["z"]["value"] - q_z.loc) / q_z.scale
    assert nodes["a"]["value"].shape == (400, 1, B, 1) and noise.shape == (400, 3, B, Z)
    assert torch.allclose(noise, noise[:, :1], atol=1e-9) == shared
    assert (torch.corrcoef(noise[:, 0].flatten(1).T) - torch.eye(B * Z)).abs().max() < 0.2


# --- labels, few classes and saturated classifiers --------------------------------------------------------------------


class Labels(PyroModule):
    """x given a class, one-hot or a code; model and guide share their tables."""

    def __init__(self, codes: bool, tables: nn.ParameterDict):
        super().__init__()
        self.family = dist.Categorical if codes else dist.OneHotCategorical
        self.codes, self.tables = codes, tables

    def rows(self, name: str, y: Tensor) -> Tensor:
        return self.tables[name][y] if self.codes else y @ self.tables[name]


class LabelModel(Labels):
    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", self.family(logits=self.tables["p_y"]), obs=y)
            z = pyro.sample("z", dist.Normal(torch.zeros(D), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.rows("p_x", y) + z.tanh(), 0.5).to_event(1), obs=x)


class LabelGuide(Labels):
    def classify(self, x):
        return self.family(logits=x @ self.tables["q_y"])

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", self.classify(x), infer=PARALLEL) if y is None else y
            pyro.sample("z", dist.Normal(self.rows("q_z", y) * x, 0.5).to_event(1))


@pytest.mark.parametrize("classes", [1, 2, 3, 5])
@pytest.mark.parametrize("top_k", [None, 1, 2, "auto", 7])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"closed_form": ()},
        {"num_particles": 3},
        {"num_particles": 3, "importance_weighted": True},
    ],
)
def test_codes_are_as_good_as_one_hot_labels(options, top_k, classes):
    torch.manual_seed(0)
    shapes = {"p_y": (classes,), "p_x": (classes, D), "q_y": (D, classes), "q_z": (classes, D)}
    tables = nn.ParameterDict({name: nn.Parameter(torch.randn(s)) for name, s in shapes.items()})
    (x, y), bound, of = (
        data(classes=classes),
        TraceTopKEnum_ELBO(top_k, **options),
        list(tables.values()),
    )
    pairs = [(LabelModel(codes, tables), LabelGuide(codes, tables)) for codes in (False, True)]
    values = [seeded(bound.bound, *pair, x).value for pair in pairs]
    assert_same(values[1], values[0], of)
    labels = (y, y.argmax(-1))
    assert_same(
        *(
            seeded(bound.bound, *pair, x, each).value
            for pair, each in zip(pairs, labels, strict=True)
        ),
        of,
    )
    beside = [
        seeded(bound.bound, *pair, x, labels=each[:2]).value
        for pair, each in zip(pairs, labels, strict=True)
    ]
    assert_same(beside[1], beside[0], of)
    per_class = [seeded(bound.class_bounds, *pair, x) for pair in pairs]
    assert_same(per_class[1], per_class[0], of)


CERTAIN = {
    "80": torch.tensor([[80.0, -80.0, 0.0, 0.0]]),
    "1000": torch.tensor([[1000.0, -1000.0, 0.0, -1000.0]]),
    "-80": torch.tensor([[-80.0, -80.0, -80.0, 80.0]]),
    "-inf": torch.tensor([[0.0, -torch.inf, -torch.inf, -torch.inf]]),
    "one -inf": torch.tensor([[90.0, -torch.inf, -90.0, 0.0]]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("top_k", [1, 2, "auto"])
@pytest.mark.parametrize("closed_form", [(), ("z",), "auto"])
@pytest.mark.parametrize("logits", CERTAIN)
def test_a_saturated_classifier_gives_the_exact_sum(logits, closed_form, top_k, dtype):
    """With q(y|x) exactly 0 or 1, and f the same whatever z: the class that is drawn for nothing leaves no trace."""
    torch.set_default_dtype(dtype)
    o, x = without_z(m2(4)), data()[0].to(dtype)
    with torch.no_grad():  # q(z|x,y) is p(z): with z sampled too, log p - log q is 0
        o.guide.q_z.network.rest[-1].weight.zero_()
        o.guide.q_z.network.rest[-1].bias[Z:] = math.log(math.expm1(1 - 1e-3))
    o.guide.q_y = OneHotCategorical(Table(CERTAIN[logits].to(dtype).expand(B, 4).clone()))
    of = parameters(o.model, o.guide.q_y)
    exact, ours = (
        TraceTopKEnum_ELBO(t, closed_form=closed_form).bound(o.model, o.guide, x).value
        for t in (None, top_k)
    )
    assert exact.isfinite().all() and exact.min() > -1e3
    assert all(g.isfinite().all() for g in gradients(ours.sum(), of))
    assert_same(ours, exact, of, {torch.float32: 1e-5, torch.float64: 1e-12}[dtype])


# --- importance weights -----------------------------------------------------------------------------------------------

W = torch.tensor([[1.0, 0.5], [0.8, -0.4], [0.0, 0.0], [-0.5, 1.025]], dtype=torch.float64)
W[:, 1] -= W[:, 0] * (W[:, 0] @ W[:, 1]) / W[:, 0].square().sum()
MEANS = torch.tensor(
    [[0.0, 1.0, 0.0, -1.0], [1.5, 0.0, 0.0, 0.0], [0.0, -1.0, 1.0, 0.5]], dtype=torch.float64
)
PRIOR, S2 = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), 0.6


def joint(x: Tensor) -> Tensor:
    """log p(x, y) of every class, `(B, K)`: z is integrated out."""
    return MultivariateNormal(MEANS, W @ W.T + S2 * torch.eye(D)).log_prob(x[:, None]) + PRIOR.log()


def linear(p, x, y):
    y = pyro.sample("y", dist.OneHotCategorical(PRIOR), obs=y)
    z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    if p.auxiliary:
        pyro.sample("a", dist.Normal(z[..., 0] + x[:, 0], 1.0))
    pyro.sample("x", dist.Normal(y @ MEANS + z @ W.T, S2**0.5).to_event(1), obs=x)


def inference(q, x, y):
    """The posterior, W's columns being orthogonal; moved away from it by the parameter `off`."""
    logits = (1 - q.off) * joint(x)
    if q.auxiliary:
        logits = logits + 0.3 * pyro.sample("a", dist.Normal(x[:, 0] + 0.3, 1.5))[
            ..., None
        ] * torch.arange(3)
    if y is None:
        y = pyro.sample("y", dist.OneHotCategorical(logits=logits), infer=PARALLEL)
    variance = 1 / (1 + W.square().sum(0) / S2)
    loc = variance * ((x - y @ MEANS) @ W) / S2
    pyro.sample("z", dist.Normal(loc + q.off, (1 + q.off) * variance.sqrt()).to_event(1))


def linear_gaussian(off: float, auxiliary: bool = False) -> tuple[Program, Program]:
    pair = Program(linear), Program(inference, off=nn.Parameter(torch.tensor(off)))
    for program in pair:
        program.auxiliary = auxiliary
    return pair


@pytest.mark.parametrize("given", [True, False])
def test_an_importance_weighted_bound_rises_with_its_samples_to_the_evidence(given):
    n, pair, (x, y) = 4000, linear_gaussian(0.4), data(3)
    x, y = x.repeat_interleave(n, 0), y.repeat_interleave(n, 0) if given else None
    with torch.no_grad():
        values = [
            TraceTopKEnum_ELBO(None, num_particles=s, importance_weighted=True)
            .bound(*pair, x, y)
            .value
            for s in (1, 5, 50)
        ]
        mean, plain = (
            TraceTopKEnum_ELBO(None, num_particles=s).bound(*pair, x, y).value for s in (5, 1)
        )
    values = [v.reshape(3, n) for v in [*values, mean, plain]]
    means, errors = [v.mean(1) for v in values], [v.std(1) / math.sqrt(n) for v in values]
    one, five, fifty, averaged, elbo_ = range(5)
    for low, high in ((one, five), (five, fifty)):
        assert (means[high] - means[low] > 4 * (errors[high] ** 2 + errors[low] ** 2).sqrt()).all()
    for a, b in ((one, elbo_), (averaged, elbo_)):  # a mean of logarithms is no tighter
        assert ((means[a] - means[b]).abs() < 4 * (errors[a] ** 2 + errors[b] ** 2).sqrt()).all()
    log_p = joint(x[::n])
    q = (0.6 * log_p).softmax(-1)
    limit = log_p.diagonal() if given else (q * (log_p - q.log())).sum(-1)
    assert (means[fifty] < limit + 4 * errors[fifty]).all() and (limit - means[fifty] < 0.1).all()


@pytest.mark.parametrize("auxiliary", [False, True])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_log_evidence_is_unbiased_for_the_evidence(given, auxiliary, shared):
    n, pair, (x, y) = 1000, linear_gaussian(0.3, auxiliary), data(3)
    exact = joint(x).diagonal() if given else joint(x).logsumexp(-1)

    def estimate(s, x, y):
        return TraceTopKEnum_ELBO(1, num_particles=s, common_random_numbers=shared).log_evidence(
            *pair, x, y
        )

    torch.manual_seed(0)
    with torch.no_grad():
        for s in (1, 20):
            draws = estimate(
                s, x.repeat_interleave(n, 0), y.repeat_interleave(n, 0) if given else None
            )
            ratio = (draws.reshape(3, n) - exact[:, None]).exp()
            assert (
                (ratio.mean(1) - 1).abs() < 5 * ratio.std(1) / math.sqrt(n)
            ).all()  # its tails are heavy
        assert torch.allclose(estimate(20_000, x, y if given else None), exact, atol=0.1)


@pytest.mark.parametrize("given", [True, False])
def test_one_sample_is_the_elbo(given):
    (x, y), y_given = data(), None
    for pair in (linear_gaussian(0.4), linear_gaussian(0.4, auxiliary=True), adgm(), sslpe()):
        y_given = y if given else None
        weighted = seeded(
            TraceTopKEnum_ELBO(None, importance_weighted=True).bound, *pair, x, y_given
        ).value
        assert_same(weighted, seeded(SAMPLED.bound, *pair, x, y_given).value, parameters(*pair))


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("samples", [1, 2, 7])
def test_every_bound_is_the_evidence_where_the_guide_is_the_posterior(samples, given):
    pair, (x, y) = linear_gaussian(0.0), data()
    exact = (joint(x) * y).sum(-1) if given else joint(x).logsumexp(-1)
    for options in ({"importance_weighted": True}, {"closed_form": ()}):
        bound = TraceTopKEnum_ELBO(None, num_particles=samples, **options)
        assert torch.allclose(
            bound.bound(*pair, x, y if given else None).value, exact, rtol=0, atol=1e-10
        )
        assert torch.allclose(
            bound.log_evidence(*pair, x, y if given else None), exact, rtol=0, atol=1e-10
        )
        assert torch.allclose(bound.class_bounds(*pair, x), joint(x), rtol=0, atol=1e-10)


# --- bounds per class -------------------------------------------------------------------------------------------------

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


# --- labeled and unlabeled data in one call ---------------------------------------------------------------------------


@pytest.mark.parametrize("closed_form", [True, False])
@pytest.mark.parametrize(
    "weights",
    [
        {"labeled_weight": 0.3, "unlabeled_weight": 2.0},
        {"labeled_weight": 0.7, "unlabeled_weight": 0.7},
    ],
)
def test_together_is_as_apart(weights, closed_form):
    """The same noise: torch draws 16 numbers at a time, so those of 8 and of 16 rows are those of 24."""
    terms = {"balance": 0.5, "entropy": 0.4, "mutual_information": 0.6, "l2": 0.1, "alpha": 0.2}
    o = m2(top_k=None, closed_form=closed_form, common_random_numbers=True, **terms, **weights)
    batch, parts = Batch(*data(8), data(16, seed=1)[0]), {}
    for o.joint_pass in (True, False):
        parts[o.joint_pass] = seeded(o.parts, batch, kl_weight=0.5)
    assert list(parts[True]) == list(parts[False]) and len(parts[True]) == 7
    for name, value in parts[True].items():
        assert_same(value, parts[False][name], parameters(o))


@pytest.mark.parametrize("top_k", [1, "auto"])
def test_together_gives_labeled_data_their_own_bound_whatever_is_summed_over(top_k):
    o = without_z(m2(20, top_k=top_k, labeled_weight=0.3, unlabeled_weight=2.0))
    batch = Batch(*data(8, 20), data(16, seed=1)[0])
    labeled = {}
    for o.joint_pass in (True, False):
        labeled[o.joint_pass] = o.parts(batch, kl_weight=0.5)["labeled"]
    assert_same(labeled[True], labeled[False], parameters(o))


def leaves_out_y(p, x, y):
    """Without y, q(z|x,y) sees the mean label: another program than with it."""
    label = pyro.sample("y", p.q_y(x), infer=PARALLEL) if y is None else y
    pyro.sample("z", p.q_z(x, torch.full_like(label, 1 / 3) if y is None else label))


def as_m2(p, x, y):
    y = pyro.sample("y", p.q_y(x), infer=PARALLEL) if y is None else y
    pyro.sample("z", p.q_z(x, y))


def classify(p, x):
    return p.q_y(x)


def averages(p, x):
    return dist.OneHotCategorical(probs=(p.q_y(x).probs + p.q_y(-x).probs) / 2)


def more_without_y(p, x, y):
    missing = y is None
    y, z = pyro.sample("y", p.p_y(), obs=y), pyro.sample("z", p.p_z())
    pyro.sample("x", p.p_x(y, z), obs=x)
    if missing:
        pyro.factor("more", z.sum(-1))


def test_pairs_that_treat_labels_alike():
    o, (x, y) = m2(), data()
    batch = Batch(x, y, data(4, seed=1)[0])
    parts = {"q_y": o.guide.q_y, "q_z": o.guide.q_z}
    assert joint_pass_is_exact(o.model, Program(as_m2, classify, **parts), batch)
    assert not joint_pass_is_exact(o.model, Program(as_m2, averages, **parts), batch)
    model = {"p_y": o.model.p_y, "p_z": o.model.p_z, "p_x": o.model.p_x}
    assert joint_pass_is_exact(o.model, o.guide, batch)
    assert joint_pass_is_exact(o.model, m2(noise=1.0, dropout=0.5).guide.train(), batch)
    assert not joint_pass_is_exact(Program(more_without_y, **model), o.guide, batch)
    assert not joint_pass_is_exact(o.model, Program(leaves_out_y, classify, **parts), batch)
    normed = m2(
        batch_norm=True
    )  # as in evaluation: in training its statistics are to be those of all data
    assert joint_pass_is_exact(normed.model, normed.guide, batch)
    assert not joint_pass_is_exact(*adgm(), batch)
    o.guide.q_y.network.register_forward_pre_hook(lambda q_y, args: (args[0] - args[0].mean(0),))
    assert not joint_pass_is_exact(
        o.model, o.guide, batch
    )  # q(y|x) of a datum depends on the others
    vae = zoo.build("vae", D, 3, likelihood="gaussian").double()
    assert not joint_pass_is_exact(vae.model, vae.guide, batch)
    assert joint_pass_is_exact(*sslpe(), batch)


def test_whether_labels_are_treated_alike_is_found_out_without_a_trace():
    o, (x, y) = m2(noise=0.5, dropout=0.5), data()
    o.guide.q_z.eval()
    batch = Batch(x, y, data(4, seed=1)[0])
    modes, before = [m.training for m in o.modules()], torch.get_rng_state()
    assert joint_pass_is_exact(o.model, o.guide, batch)
    assert [m.training for m in o.modules()] == modes
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in o.parameters()) and not pyro.get_param_store()


@pytest.mark.parametrize(
    ("options", "joint_pass"),
    [
        ({}, True),
        ({"hidden": (4000,), "top_k": None}, False),
        ({"hidden": (4000,), "top_k": None, "batch_norm": True}, True),
    ],
)
def test_a_step_calls_its_programs_once_where_that_is_exact_and_cheap(options, joint_pass):
    o, calls = m2(**options), {"q_y": 0, "q_z": 0, "p_x": 0}
    batch = Batch(*data(600), data(16, seed=1)[0])
    assert o.joint_pass_for(batch) is joint_pass
    for name in calls:
        part = getattr(o.guide, name, None) or getattr(o.model, name)
        part.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    o.parts(batch, joint=joint_pass)
    assert calls == (
        {"q_y": 1, "q_z": 1, "p_x": 1} if joint_pass else {"q_y": 2, "q_z": 2, "p_x": 2}
    )


# --- rows in place of products ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lead", [(100, 1), (3, B)])
def test_a_marked_one_hot_picks_its_row(lead):
    index = torch.arange(100)[:, None] if lead == (100, 1) else torch.randint(100, lead)
    plain, marked = one_hot(index, 100, torch.float64), one_hot(index, 100, torch.float64)
    mark_one_hot(marked, index)
    split, x = SplitLinear([D, 100], 7), data()[0]
    limit = math.sqrt(6 / (D + 100 + 7))  # drawn as one layer's
    assert all(0.8 * limit < w.abs().max() <= limit for w in split.weights[1:])
    assert_same(split(x, marked), split(x, plain), parameters(split))
    flops = {}
    for y in (plain, marked, 1 * marked):
        with FlopCounterMode(display=False) as count:
            split(x, y)
        flops[id(y)] = count.get_total_flops()
    first = 2 * D * 7 * B
    rest = 2 * 100 * 7 * math.prod(lead)
    assert list(flops.values()) == [first + rest, first, first + rest]


@pytest.mark.parametrize("top_k", [None, 2])
@pytest.mark.parametrize("classes", [3, 100])
def test_a_bound_with_many_classes_is_that_of_products(classes, top_k, monkeypatch):
    (x, y), of, marks = data(classes=classes), parameters(o := m2(classes, top_k=top_k)), []

    def spy(value, index):
        assert torch.equal(value.argmax(-1), index.expand(value.shape[:-1]))
        marks.append(value)
        mark_one_hot(value, index)

    values, flops = {}, {}
    for mark in (spy, lambda value, index: None):
        monkeypatch.setattr(enumeration, "mark_one_hot", mark)
        with FlopCounterMode(display=False) as count:
            values[mark] = seeded(o.bound, x)
        flops[mark] = count.get_total_flops()
    assert_same(*values.values(), of)
    assert len(marks) == 1 and flops[spy] < max(flops.values())
    assert o.bound(x, y).isfinite().all()


@pytest.mark.parametrize("given", [True, False])
def test_a_weight_multiplies_an_importance_weighted_bound(given):
    o, (x, y) = m2(), data()
    o.elbo = TraceTopKEnum_ELBO(None, num_particles=5, importance_weighted=True)
    batch = Batch(x, y) if given else Batch(x_unlabeled=x)
    part = "labeled" if given else "unlabeled"
    whole = seeded(o.parts, batch)[part]
    o.labeled_weight = o.unlabeled_weight = 0.3
    assert_same(seeded(o.parts, batch)[part], 0.3 * whole, parameters(o))


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

    return Program(model), Program(lambda q, x, y: pyro.sample("z", q_z))


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


@pytest.mark.parametrize("particles", [1, 5])
@pytest.mark.parametrize("term", [Entropy, MutualInformation, ClassBalance])
def test_terms_of_a_guide_that_draws_before_y_are_of_what_it_classifies_by(term, particles):
    (model, guide), (x, _) = adgm(), data()
    guide.classifier = lambda q, x: q.q_y(torch.zeros(len(x), 1), x)
    o = Objective(model, guide, [term()], elbo=TraceTopKEnum_ELBO(None, num_particles=particles))
    apart = Objective(None, guide, [term()])
    batch, name = Batch(x_unlabeled=x), term.__name__
    assert_same(o.parts(batch)[name], apart.parts(batch)[name], parameters(guide))


def test_a_conditional_of_codes_gives_its_networks_output():
    p_x = Gaussian(nn.Embedding(3, D), sigma=0.7)
    assert torch.equal(p_x(torch.arange(3)).mean, p_x.network.weight)


@pytest.mark.parametrize("top_k", [None, 1, "auto"])
@pytest.mark.parametrize("weighted", [False, True])
def test_certainty_leaves_gradients_finite_in_float32(weighted, top_k):
    torch.set_default_dtype(torch.float32)
    o, x = m2(top_k=top_k, num_particles=3, importance_weighted=weighted), data()[0].float()
    with torch.no_grad():
        o.guide.q_y.network.rest[-1].bias.copy_(torch.tensor([80.0, -80.0, 0.0]))
    o.bound(x).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in o.parameters())


def pair_over(y_model, y_guide, z_model=None, z_guide=None, extra=lambda x: None):
    """A pair with these distributions of y and z, and something of the user's beside them in the guide."""
    z_model, z_guide = z_model or dist.Normal(0.0, 1.0), z_guide or dist.Normal(0.3, 0.7)

    def model(p, x, y):
        z, y = pyro.sample("z", z_model), pyro.sample("y", y_model, obs=y)
        pyro.sample("x", dist.Normal(z + (y[..., 0] if y_model.event_dim else y), 1.0), obs=x[:, 0])

    def guide(q, x, y):
        if y is None:
            pyro.sample("y", y_guide, infer=PARALLEL)
        pyro.sample("z", z_guide)
        extra(x)

    return Program(model), Program(guide, lambda q, x: y_guide.expand([len(x)]))


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


@pytest.mark.parametrize(
    "extra",
    [
        lambda x: pyro.factor("more", torch.zeros(1), has_rsample=True),
        lambda x: pyro.sample("o", dist.Normal(0.0, 1.0), obs=torch.zeros(())),
    ],
)
def test_what_else_a_guide_says_does_not_stop_its_training(extra):
    y = dist.OneHotCategorical(torch.ones(3) / 3)
    pair, (x, labels) = pair_over(y, y, extra=extra), data()
    assert joint_pass_is_exact(*pair, Batch(x, labels, x)) in (True, False)


def test_labels_of_another_kind_go_apart():
    y = dist.Categorical(torch.ones(3) / 3)
    pair, (x, labels) = pair_over(y, y), data()
    assert not joint_pass_is_exact(*pair, Batch(x, labels, x))
    with pytest.raises(
        ValueError, match=r"labels: site 'y' takes at most 6 values of shape \(\), got \(6, 3\)"
    ):
        TraceTopKEnum_ELBO().bound(*pair, x, labels=labels)
    with pytest.raises(ValueError, match="labels: the guide has no enumerated site"):
        TraceTopKEnum_ELBO().bound(*pair, x, labels.argmax(-1), labels=labels)


def test_a_plate_of_ones_own_is_refused_by_name():
    def model(p, x, y):
        with pyro.plate("pixels", D, dim=-2):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x.T)

    o = Objective(Program(model), Program(lambda q, x, y: None, lambda q, x: None))
    for run in (lambda x: o.bound(x), lambda x: o.check(Batch(x_unlabeled=x))):
        with pytest.raises(ValueError, match="site 'x' is in plate 'pixels', not at dim -1"):
            run(data()[0])


def test_a_prior_that_is_added_later_counts():
    o, x = m2(), data()[0]
    o.bound(x)
    o.model.w = pyro.nn.PyroSample(dist.Normal(0.0, 1.0))
    assert (
        not callable(getattr(without_param_store(o.model), "func", None))
        and without_param_store(o.guide) is not o.guide
    )

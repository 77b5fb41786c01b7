"""Sums over fewer classes have the value and gradient of the whole sum in the mean."""

import math
from functools import cache
from statistics import NormalDist

import pytest
import torch
from comparisons import assert_same, gradients, parameters, seeded
from programs.pairs import D, Table, Z, data, m2
from torch import Tensor, nn

from pyro_ssl import (
    MLP,
    ClassPrior,
    Gaussian,
    Normal,
    OneHotCategorical,
    StandardNormal,
    TraceTopKEnum_ELBO,
    guides,
    models,
    one_hot,
)
from pyro_ssl.infer import elbo, enumeration
from pyro_ssl.infer.scales import scale_latents

pytestmark = pytest.mark.usefixtures("float64")
SAMPLED = TraceTopKEnum_ELBO(None, closed_form=())
"""The sum over all classes with one sample of everything else.

Pyro's own, as test_bound_values.py shows.
"""
DATA, DRAWS = 100, 400


class PerDatum(nn.Module):
    """A network plus parameters of each datum and class, `(B, K, H)`.

    Their gradient is one draw per row.
    """

    def __init__(self, network: nn.Module, label: int, rows: Tensor):
        super().__init__()
        self.network, self.label, self.rows = network, label, nn.Parameter(rows)

    def forward(self, *inputs):
        y = inputs[self.label]
        y = y.expand(*y.shape[:-2], *self.rows.shape[:2])
        return self.network(*inputs) + torch.einsum("...bk,bkh->...bh", y, self.rows)


def draws(
    bound: TraceTopKEnum_ELBO,
    classes: int,
    lead: float = 0.0,
    *,
    seed: int = 1,
    labeled: int = 0,
    kl_weight: float = 1.0,
) -> dict[str, Tensor]:
    """Bounds, and gradients of each datum's own parameters, `(DATA, DRAWS, *)`.

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
    """Whether means agree, by their standardised differences.

    Their root-mean-square should be 1, and none should be in the Bonferroni tail of 4 sigma. The
    root-mean-square is over data and coordinates: 200 independent ones at least for each kind of
    gradient, which leaves that of an unbiased estimator a standard deviation of 0.05. The largest
    is sought among coordinates pooled over data: one datum's means, of a class drawn seldom, are
    too skewed for a normal's far tail.
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


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "lead", "top_k", "shared"), FEWER)
def test_fewer_classes_give_the_same_value_and_gradient_in_the_mean(classes, lead, top_k, shared):
    print(f"\nK = {classes}, lead {lead}, top_k {top_k}, shared noise {shared}")
    assert agree(
        draws(
            TraceTopKEnum_ELBO(top_k, common_random_numbers=shared, closed_form=()), classes, lead
        ),
        exact(classes, lead),
    )


@pytest.mark.slow
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

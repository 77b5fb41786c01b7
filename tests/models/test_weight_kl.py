"""KL(W) once per data set, and the bound given W, against sums by hand."""

import math

import pytest
import torch
from comparisons import seeded
from programs.bayesian import SIGMA, K, X, Y, kl_by_hand, labels, pieces, sslapd
from torch import Tensor
from torch.nn.functional import softplus

from pyro_ssl import (
    Batch,
    Objective,
    fit,
    zoo,
)
from pyro_ssl.prediction.bounds import weight_kl

pytestmark = pytest.mark.usefixtures("float64")
LABELED, UNLABELED = 6, 12


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def batches(size: int, labeled: int) -> list[Batch]:
    """A pass over the unlabeled data, beside as many passes over the labeled ones as it takes."""
    x, y = X[:LABELED].split(labeled), labels().split(labeled)
    return [Batch(x[i % len(x)], y[i % len(x)], u) for i, u in enumerate(X[LABELED:].split(size))]


def by_hand(o: Objective, x: Tensor, y: Tensor, w: Tensor, beta: float = 1.0) -> Tensor:
    """L(x, y | W), with one draw of z from the global generator.

    Y may have a leading dimension of classes.
    """
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


@pytest.mark.slow
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
    """The sum of L(x, y | W) and U(u | W) by one W; labeled data as often as there are classes."""
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

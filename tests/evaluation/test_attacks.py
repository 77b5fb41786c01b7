"""Attacks on a classifier."""

from itertools import pairwise

import pytest
import torch

from pyro_ssl import zoo
from pyro_ssl.evaluation import metrics
from pyro_ssl.evaluation.attacks import fgsm, pgd, under_attack
from pyro_ssl.prediction.predict import predict_proba


def mean_loss(objective, x, y):
    return float(-predict_proba(objective, x).gather(1, y[:, None]).log().mean())


def test_fgsm_moves_exactly_epsilon_up_the_loss(trained):
    objective, x, y = trained
    before = [None if p.grad is None else p.grad.clone() for p in objective.parameters()]
    moved = fgsm(objective, x, y, 0.05, bounds=(-9.0, 9.0))
    for p, grad in zip(objective.parameters(), before, strict=True):
        assert (p.grad is None) == (grad is None) and (grad is None or torch.equal(p.grad, grad))
    z = x.clone().requires_grad_()
    loss = -objective.classify(z).log_prob(torch.eye(10)[y]).sum()
    (slope,) = torch.autograd.grad(loss, z)
    assert torch.allclose(moved, x + 0.05 * slope.sign(), atol=1e-7)
    changed = (moved - x).abs()
    assert torch.allclose(changed[slope != 0], torch.tensor(0.05), atol=1e-6)
    assert mean_loss(objective, moved, y) > mean_loss(objective, x, y)


def test_pgd_stays_within_epsilon_and_does_worse_than_one_step(trained):
    objective, x, y = trained
    one = fgsm(objective, x, y, 0.1)
    many = pgd(objective, x, y, 0.1, restarts=2)
    for moved in (one, many):
        assert (
            float((moved - x).abs().max()) <= 0.1 + 1e-6
            and 0 <= float(moved.min())
            and float(moved.max()) <= 1
        )
    assert mean_loss(objective, many, y) > mean_loss(objective, one, y)
    assert torch.equal(many, pgd(objective, x, y, 0.1, restarts=2))


def losses(objective, x, y):
    return -predict_proba(objective, x).double().gather(1, y[:, None]).log().squeeze(1)


def test_pgd_keeps_of_each_datum_the_worst_of_random_starts(trained):
    objective, x, y = trained
    start = pgd(objective, x, y, 0.1, steps=1, step_size=0.0)
    assert 0.03 < float((start - x).abs().mean()) <= 0.1
    once, often = (  # in one chunk, so that the first start is the same
        losses(objective, pgd(objective, x, y, 0.1, steps=3, restarts=n, chunk=len(x)), y)
        for n in (1, 4)
    )
    assert (often >= once - 1e-6).all() and (often > once + 1e-3).any()


def test_a_code_that_is_drawn_is_drawn_anew_in_each_step(monkeypatch):
    o, x, seen = (
        zoo.build("vc", (1, 4, 4), 3, z_dim=2, hidden=(8,), stochastic=True),
        torch.rand(5, 1, 4, 4),
        [],
    )
    classify = type(o).classify
    monkeypatch.setattr(type(o), "classify", lambda *a: seen.append(classify(*a)) or seen[-1])
    pgd(o, x, torch.arange(5) % 3, 0.0, steps=3)
    of_steps = [p.logits.detach() for p in seen if len(p.logits) == 5]
    assert len(of_steps) == 4 and all(not torch.equal(a, b) for a, b in pairwise(of_steps))


def test_under_attack_counts_what_neither_aim_turns(trained):
    objective, x, y = trained
    (row,) = under_attack(objective, x, y, [0.1])
    right = [
        predict_proba(objective, fgsm(objective, x, y, 0.1, aim=aim)).argmax(-1) == y
        for aim in ("loss", "logits")
    ]
    expected = [float(part.double().mean()) for part in (*right, right[0] & right[1])]
    assert [row["loss"], row["logits"], row["either"]] == pytest.approx(expected)
    (row,) = under_attack(objective, x, y.tolist(), [0.0])
    assert row["either"] == pytest.approx(metrics.accuracy(predict_proba(objective, x), y))


def test_data_beyond_their_bounds_are_not_clipped_in_silence(trained):
    objective, x, y = trained
    with pytest.raises(ValueError, match=r"x should be within bounds \(0.0, 1.0\), got 0 .. 2"):
        fgsm(objective, 2 * x, y, 0.0)
    assert torch.equal(fgsm(objective, 2 * x, y, 0.0, bounds=None), 2 * x)


def test_the_difference_of_logits_does_not_saturate(trained):
    objective, x, y = trained
    sure = zoo.build("classifier", x.shape[1:], 10, seed=0, hidden=(32,), noise=0.0, dropout=0.0)
    sure.load_state_dict(objective.state_dict())
    with torch.no_grad():
        last = [p for name, p in sure.named_parameters() if "rest" in name][-2:]
        for p in last:
            p.mul_(200)
    right = predict_proba(sure, x).argmax(-1) == y
    x, y = x[right], y[right]
    by_loss, by_logits = (fgsm(sure, x, y, 0.1, aim=aim) for aim in ("loss", "logits"))
    accuracy = [metrics.accuracy(predict_proba(sure, moved), y) for moved in (by_loss, by_logits)]
    assert (
        accuracy[1] < accuracy[0] - 0.1
    )  # the loss has lost its gradient, not the classifier its weakness


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon": -0.1}, "epsilon"),
        ({"aim": "labels"}, "aim"),
        ({"y": torch.zeros(3, dtype=torch.long)}, "y should"),
        ({"y": torch.full((300,), -1)}, "y should be in 0 .. 9"),
        ({"y": torch.full((300,), 10)}, "y should be in 0 .. 9"),
    ],
)
def test_bad_attacks(trained, changes, message):
    objective, x, y = trained
    arguments = {"y": y, "epsilon": 0.1} | changes
    with pytest.raises(ValueError, match=message):
        fgsm(objective, x, **arguments)

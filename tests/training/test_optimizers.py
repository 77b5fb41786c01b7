"""Schedules, optimisers, clipping and the average of the weights."""

import math

import pytest
import torch
from programs.training_runs import X, run, same, small, weights
from torch import nn

from pyro_ssl import (
    EarlyStopping,
    Objective,
)
from pyro_ssl.training import OPTIMIZERS, SCHEDULES


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_those_of_their_names(name):
    parameter = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    schedule, rates = SCHEDULES[name](optimizer, 60), []
    for _ in range(60):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step() if len(rates) < 60 else None
    expected = {
        "constant": [0.1] * 60,
        "exponential": [0.1 * 0.01 ** (t / 60) for t in range(60)],
        "halving": [0.1 * 0.5 ** (t // 9) for t in range(60)],
        "fifths": [0.1 * 0.2 ** sum(t >= end for end in (18, 36, 48)) for t in range(60)],
        "cosine": [0.05 * (1 + math.cos(math.pi * t / 60)) for t in range(60)],
    }
    if name in expected:
        assert rates == pytest.approx(expected[name])
    else:
        peak = rates.index(max(rates))
        assert rates == pytest.approx(sorted(rates[:peak]) + sorted(rates[peak:], reverse=True))
        assert max(rates) == pytest.approx(0.1) and rates[0] < 0.01 and rates[-1] < 1e-5


def test_every_schedule_and_optimiser_trains():
    for schedule in SCHEDULES:
        run(schedule=schedule, epochs=2)
    for optimizer in (torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.NAdam):
        _, history = run(
            optimizer=optimizer, lr=1e-3, schedule=lambda o, n: torch.optim.lr_scheduler.LinearLR(o)
        )
        assert math.isfinite(history["loss"][-1])


def test_a_named_optimiser_is_its_class():
    by_name, by_class = small(), small()
    run(by_name, optimizer="adam", epochs=2)
    run(by_class, optimizer=torch.optim.Adam, epochs=2)
    assert same(weights(by_name), weights(by_class))


def test_nesterov_steps_as_wide_resnets_do():
    """Two steps by hand: v = 0.9 v + g, w = w - lr (g + 0.9 v), g with 5e-4 w of weight decay."""
    w = nn.Parameter(torch.tensor([2.0, -1.0], dtype=torch.float64))
    gradients = torch.tensor([[0.3, 0.1], [-0.2, 0.4]], dtype=torch.float64)
    optimizer = OPTIMIZERS["nesterov"]([w], lr=0.1)
    expected, velocity = w.detach().clone(), torch.zeros(2, dtype=torch.float64)
    for gradient in gradients:
        w.grad = gradient.clone()
        optimizer.step()
        g = gradient + 5e-4 * expected
        velocity = 0.9 * velocity + g
        expected = expected - 0.1 * (g + 0.9 * velocity)
    assert torch.allclose(w.detach(), expected, rtol=1e-12)


def test_warmup_counts_steps_of_training_alone():
    """The first KL weight is 1/steps, evaluation does not advance it, and it ends at 1."""
    seen, kl = [], Objective.parts

    def spy(self, batch, *, kl_weight=1.0, joint=None):
        seen.append(kl_weight)
        return kl(self, batch, kl_weight=kl_weight, joint=joint)

    score = EarlyStopping(lambda o: o.bound(X).mean().item())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Objective, "parts", spy)
        run(warmup=2, epochs=3, early_stopping=score)
    assert seen[2:] == pytest.approx([min(1.0, t / 14) for t in range(1, 22)])


def test_gradient_is_clipped_by_its_global_norm():
    o = small()
    before = weights(o)
    run(
        o,
        optimizer=torch.optim.SGD,
        lr=1.0,
        schedule="constant",
        clip_norm=0.01,
        epochs=1,
        batch_size=70,
        labeled_batch_size=20,
    )
    moved = math.sqrt(sum((v - before[k]).square().sum().item() for k, v in weights(o).items()))
    assert moved == pytest.approx(0.01, rel=1e-3)


def test_average_is_the_exponential_one_and_is_what_remains():
    path: list[dict] = []
    o = small()
    watch = lambda e: path.append(weights(o))  # noqa: E731
    run(o, ema=0.8, epochs=5, batch_size=70, labeled_batch_size=20, callbacks=(watch,))
    expected, decays = path[0], [min(0.8, (1 + n) / (10 + n)) for n in range(1, 5)]
    for decay, current in zip(decays, path[1:], strict=True):
        expected = {k: decay * v + (1 - decay) * current[k] for k, v in expected.items()}
    assert all(torch.allclose(v, expected[k], atol=1e-6) for k, v in weights(o).items())

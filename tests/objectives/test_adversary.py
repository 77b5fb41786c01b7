"""The adversary of a latent: its game, its steps and resumed runs."""

import math
from contextlib import suppress

import pytest
import torch
from comparisons import gradients
from programs.latents import RESUMED, K, build, same, state
from programs.pairs import data
from torch import Tensor

from pyro_ssl import (
    Batch,
    fit,
)
from pyro_ssl.objectives.adversarial import Adversary
from pyro_ssl.objectives.loss_context import LossContext
from pyro_ssl.training.optimizers import parameter_groups


@pytest.fixture(autouse=True)
def seeded(float64):
    torch.manual_seed(0)


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

"""Stacked steps of several draws are those of each draw alone."""

import pytest
import torch

from pyro_ssl import Batch, zoo
from pyro_ssl.training.captured_step import CaptureError, LossStep

pytestmark = pytest.mark.slow

K = 3
OPTIONS = {"hidden": (6,), "z_dim": 2, "sigma": 1.0}


def built(seed: int, **options):
    return zoo.build("m2", 4, K, seed=seed, **OPTIONS | options).double().train()


def batch(seed: int) -> Batch:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(16, 4, generator=g, dtype=torch.float64)
    y = torch.eye(K, dtype=torch.float64)[torch.randint(K, (6,), generator=g)]
    return Batch(x[:6], y, x[6:])


def alone(objective, seed: int, steps: int) -> tuple[list[float], list[torch.Tensor]]:
    """Losses and weights of steps by Adam, with the noise of a fixed seed."""
    parameters = list(objective.parameters())
    adam = torch.optim.Adam(parameters)
    step = LossStep(objective, [parameters])
    torch.manual_seed(0)
    losses = []
    for number in range(steps):
        result = step(batch(10 * number + seed), 1.0)
        losses.append(float(result.values[len(result.names)]))
        for parameter, gradient in zip(parameters, result.gradients, strict=True):
            parameter.grad = gradient
        adam.step()
    return losses, [*parameters, *objective.buffers()]


@pytest.mark.parametrize("options", [{"top_k": None}, {"top_k": 1, "batch_norm": True}])
def test_stacked_steps_are_single_steps(scripts, options):
    seeds = (0, 1, 2)
    stacked_objectives = [built(seed, **options) for seed in seeds]
    stacked = scripts("stacked_draws").StackedDraws(
        stacked_objectives, [batch(seed) for seed in seeds], randomness="same"
    )
    torch.manual_seed(0)
    losses = [stacked.step([batch(10 * number + seed) for seed in seeds]) for number in range(4)]
    stacked.write_back()
    for place, seed in enumerate(seeds):
        expected, weights = alone(built(seed, **options), seed, steps=4)
        assert torch.allclose(torch.stack(losses)[:, place], torch.tensor(expected).double())
        own = stacked_objectives[place]
        for a, b in zip([*own.parameters(), *own.buffers()], weights, strict=True):
            assert torch.allclose(a, b, rtol=1e-6, atol=1e-9)


def test_draws_have_noise_of_their_own(scripts):
    same = batch(0)
    stacked = scripts("stacked_draws").StackedDraws([built(0), built(0)], [same, same])
    first, second = stacked.step([same, same])
    assert first != second


def test_objectives_of_another_kind_are_refused(scripts):
    objectives = [built(0, top_k=None), built(0, top_k=None, alpha=7.0)]
    with pytest.raises(CaptureError, match="differs from the eager step"):
        scripts("stacked_draws").StackedDraws(objectives, [batch(0), batch(1)])
    with pytest.raises(ValueError, match="got 2 objectives and 1 batches"):
        scripts("stacked_draws").StackedDraws(objectives, [batch(0)])

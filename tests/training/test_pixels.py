"""Images of uint8 stay pixels in memory, and give the result of the same images in [0, 1]."""

import numpy as np
import pytest
import torch
from programs.training_runs import same, weights

from pyro_ssl import fit, zoo
from pyro_ssl.training.batches import Batches

PIXELS = torch.randint(
    0, 256, (90, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
Y = torch.where(torch.arange(90) < 20, torch.arange(90) % 3, -1)


@pytest.mark.parametrize("method", ["m2", "classifier", "m1_m2"])
@pytest.mark.parametrize("transform", [None, torch.bernoulli])
def test_the_result_is_that_of_numbers(method, transform):
    def train(x):
        options = {"m1_epochs": 1} if method == "m1_m2" else {}
        objective = zoo.build(method, (1, 4, 4), 3, hidden=(6,), **options)
        history = fit(objective, x, Y, epochs=2, batch_size=10, transform=transform)
        return weights(objective), history["loss"], objective.extent

    expected, loss, extent = train(PIXELS.float() / 255)
    for x in (PIXELS, PIXELS.numpy()):
        state, losses, found = train(x)
        assert same(state, expected) and losses == loss and found == extent


def test_pixels_are_kept_as_they_are():
    batches = Batches(PIXELS, torch.eye(3)[Y.clamp_min(0)], Y >= 0, 10, 8, seed=0)
    assert batches.x.dtype == batches.x_unlabeled.dtype == torch.uint8
    for batch in (batches(0), batches.extremes()):
        assert batch.x.dtype == batch.x_unlabeled.dtype == torch.float32
        assert 0 <= batch.x_unlabeled.min() <= batch.x_unlabeled.max() <= 1


def test_binary_pixels_and_other_whole_numbers_are_refused():
    m2 = zoo.build("m2", (1, 4, 4), 3, hidden=(6,))
    with pytest.raises(ValueError, match="uint8 with no number above 1.*float32"):
        fit(m2, PIXELS % 2, Y, epochs=1)
    with pytest.raises(ValueError, match="divide pixels 0 .. 255 by 255|divide by 255"):
        fit(m2, np.asarray(PIXELS, np.int64), Y, epochs=1)

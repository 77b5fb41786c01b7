"""Warps of images, which the classifier alone sees in training."""

import pytest
import torch

from pyro_ssl import (
    zoo,
)
from pyro_ssl.nn.augmentation import warped
from pyro_ssl.objectives.batch import Batch

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_a_warp_of_nothing_is_the_image_and_one_of_each_datum_its_own():
    x = torch.rand(3, 2, 1, 12, 12)
    torch.testing.assert_close(warped(x, 0.0), x, atol=1e-6, rtol=0)
    torch.manual_seed(0)
    same = torch.rand(1, 1, 12, 12).expand(5, 1, 12, 12)
    moved = warped(same, 0.3)
    assert all((moved[i] - moved[j]).abs().max() > 0.01 for i in range(5) for j in range(i))


def test_a_warp_is_the_affine_map_that_its_formula_names():
    """With E = 0 and e = (1, 0) it looks w half widths to the right.

    The image moves left by w W / 2 pixels.
    """
    x = torch.zeros(1, 1, 8, 8)
    x[..., 3, 5] = 1.0
    draws = torch.full((1, 2, 3), 0.5)
    draws[0, 0, 2] = 1.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda *size, **_: draws)
        moved = warped(x, 0.25)
    assert moved[0, 0, 3, 4] == 1.0 and moved.sum() == 1.0


def test_only_the_classifier_sees_the_warp_and_only_in_training():
    seen = {}
    objective = zoo.build(
        "m2",
        (1, 8, 8),
        3,
        warp=0.3,
        noise=0.0,
        hidden=(4,),
        classifier_network="conv",
        channels=(2, 2),
    )
    x = torch.rand(5, 1, 8, 8)
    first = lambda name: lambda module, inputs: seen.__setitem__(name, inputs[0])  # noqa: E731
    objective.guide.q_y.network.features.register_forward_pre_hook(first("q_y"))
    objective.guide.q_z.network.first.register_forward_pre_hook(first("q_z"))
    objective.parts(Batch(x, torch.eye(3)[:1].expand(5, 3), x))
    assert not torch.equal(seen["q_y"][-5:], x) and torch.equal(
        seen["q_z"].reshape(-1, 1, 8, 8)[-5:], x
    )
    objective.eval().classify(x)
    assert torch.equal(seen["q_y"], x)


@pytest.mark.parametrize(
    "options", [{"warp": -0.1}, {"warp": float("nan")}, {"channels": (0,)}, {"channels": 3}]
)
def test_bad_warps_and_channels_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        zoo.build("m2", (1, 8, 8), 3, **options)


def test_a_warp_of_what_is_no_image_is_refused():
    with pytest.raises(ValueError, match="warp"):
        zoo.build("m2", (8,), 3, warp=0.1)

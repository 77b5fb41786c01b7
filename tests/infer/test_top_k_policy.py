"""How many classes `top_k="auto"` sums over."""

import pytest
import torch
from programs.pairs import Table, data, m2
from torch import Tensor

from pyro_ssl import (
    OneHotCategorical,
    TraceTopKEnum_ELBO,
    guides,
)
from pyro_ssl.infer.top_k import MASS, MOST, TopKPolicy

pytestmark = pytest.mark.usefixtures("float64")


def log_q(classes: int, mass: float, rows: int = 4) -> Tensor:
    """q(y|x) with this share in a class that differs by row, the rest evenly over the others."""
    q = torch.full((rows, classes), (1 - mass) / max(1, classes - 1))
    q[torch.arange(rows), torch.arange(rows) % classes] = mass
    return q.log()


def uniform(classes: int, rows: int = 4) -> Tensor:
    return torch.full((rows, classes), 1 / classes).log()


RULE = [
    (1, 1.0, None, None), (2, 0.99, None, None), (3, 0.99, 1, None), (10, 0.99, 1, None),
    (17, 0.99, 1, None), (18, 0.99, 1, 16), (100, 0.99, 1, 16), (100, 0.2, 16, 16),
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
    """It draws nothing and sees no bound.

    Order of data and classes does not matter, nor data with a given y.
    """
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

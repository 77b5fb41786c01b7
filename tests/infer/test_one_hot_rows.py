"""One-hot labels pick a row of a weight in place of a product."""

import math

import pytest
import torch
from comparisons import assert_same, parameters, seeded
from programs.pairs import B, D, data, m2
from torch.utils.flop_counter import FlopCounterMode

from pyro_ssl import (
    SplitLinear,
    one_hot,
)
from pyro_ssl.infer import enumeration
from pyro_ssl.nn.tensor_marks import mark_one_hot

pytestmark = pytest.mark.usefixtures("float64")


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
    x, y = data(classes=classes)
    o = m2(classes, top_k=top_k)
    of = parameters(o)
    marks = []

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

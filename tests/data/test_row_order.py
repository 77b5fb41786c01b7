"""A random order of rows is a bijection, repeatable, and needs no list of all rows."""

import numpy as np
import pytest

from pyro_ssl.data.row_order import RowOrder, listed_order


@pytest.mark.parametrize("n", [1, 2, 3, 17, 1000, 4097])
@pytest.mark.parametrize("most_listed", [0, 10**6])
def test_every_row_comes_once(n, most_listed):
    order = RowOrder(n, (0, 1, 2), most_listed)[0:n]
    assert sorted(order.tolist()) == list(range(n))


def test_few_rows_have_the_order_of_batches():
    assert RowOrder(50, (3, 1, 4))[10:20].tolist() == listed_order(50, (3, 1, 4))[10:20].tolist()


def test_any_part_of_a_long_order_is_the_same_part():
    order = RowOrder(10**9, (0, 0, 0))
    places = order[5_000_000:5_000_300]
    assert places.min() >= 0 and places.max() < 10**9 and len(set(places.tolist())) == 300
    again = RowOrder(10**9, (0, 0, 0))
    assert again[5_000_100:5_000_200].tolist() == places[100:200].tolist()


def test_orders_of_two_passes_and_two_seeds_differ():
    orders = [RowOrder(5000, words, 0)[0:5000] for words in ((0, 1, 0), (0, 1, 1), (1, 1, 0))]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert (one == other).sum() < 10  # one in expectation


def test_a_computed_order_is_spread_evenly():
    n = 100_000
    order = RowOrder(n, (0, 1, 0), most_listed=0)[0:1000]
    counts = np.histogram(order, bins=10, range=(0, n))[0]
    assert ((counts - 100) ** 2 / 100).sum() < 27.9  # chi-squared, 9 degrees, p = 0.001
    steps = np.diff(order)
    assert abs((steps > 0).mean() - 0.5) < 0.05
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.1

"""The map of features: its components are the same each time, and no global state moves."""

import numpy as np
import torch

from pyro_ssl.evaluation import plots


def test_a_map_of_many_features_is_drawn_without_numpys_global_numbers():
    features = torch.randn(60, 600, generator=torch.Generator().manual_seed(0))
    y = torch.arange(60) % 2
    np.random.seed(3)
    expected = np.random.random(2)
    np.random.seed(3)
    first, second = (plots.feature_map(features, y, ["a", "b"]).axes[0] for _ in range(2))
    assert np.array_equal(np.random.random(2), expected)
    for one, other in zip(first.collections, second.collections, strict=True):
        assert np.array_equal(one.get_offsets(), other.get_offsets())

"""Fixtures that several files of this folder use."""

import numpy as np
import pytest
from programs.estimators import tiny


@pytest.fixture
def blobs():
    """Two far blobs of 20 rows each, and the blob of each row."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(-2, 0.3, (20, 2)), rng.normal(2, 0.3, (20, 2))]), np.repeat(
        [0, 1], 20
    )


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(30, 3)), np.array(["p", "q", "r"] * 10)
    return tiny().fit(x, y), x

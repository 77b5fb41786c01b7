"""Fixtures that several files of this folder use."""

import pytest

from pyro_ssl import data, zoo
from pyro_ssl.training import fit
from pyro_ssl.utils.torchvision_repair import torchvision

torchvision()  # torchmetrics imports it


@pytest.fixture(scope="module")
def trained():
    digits = data.load("digits")
    objective = zoo.build(
        "classifier", digits.x_shape, 10, seed=0, hidden=(32,), noise=0.0, dropout=0.0
    )
    fit(objective, digits.x, digits.y, epochs=20, batch_size=64, lr=3e-3, progress=False)
    return objective, digits.x_test[:300], digits.y_test[:300]

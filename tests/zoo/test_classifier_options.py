"""The classifier's network has the same options in every method that classifies x by one."""

import pytest
from torch import nn

from pyro_ssl import zoo


def linear_widths(objective):
    return {m.out_features for m in objective.modules() if hasattr(m, "out_features")}


@pytest.mark.parametrize("name", ["classifier", "ce", "gm", "vc", "m2", "sslpe"])
def test_the_classifiers_own_network_is_used(name):
    objective = zoo.build(name, (1, 8, 8), 3, hidden=(5,), classifier_hidden=(7, 9))
    assert 9 in linear_widths(objective.guide)
    convolutional = zoo.build(name, (1, 8, 8), 3, hidden=(5,), classifier_network="conv")
    assert any(isinstance(module, nn.Conv2d) for module in convolutional.guide.modules())


@pytest.mark.parametrize("name", ["classifier", "ce", "gm", "vc"])
def test_without_it_the_network_is_the_common_one(name):
    first = zoo.build(name, (4,), 3, hidden=(5,), seed=1)
    second = zoo.build(name, (4,), 3, hidden=(6,), classifier_hidden=(5,), seed=1)
    state = second.guide.state_dict()
    assert all(value.equal(state[key]) for key, value in first.guide.state_dict().items())

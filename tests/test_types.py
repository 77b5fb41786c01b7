"""The Protocols: what is in the zoo offers what they say, and submodules and parameters count."""

import pytest
import torch
from torch import nn

from pyro_ssl import types, zoo

OFFERS = {
    "m2": ({"Program"}, {"Program", "Guide", "Encoder"}),
    "adgm": ({"Program"}, {"Program", "Guide", "AveragingGuide", "OneDrawGuide"}),
    "sslpe": ({"Program", "Predictor"}, {"Program", "Guide", "Encoder"}),
    "gm": (
        {"Program"},
        {"Program", "Guide", "CodeGuide", "CodeClassifier", "AveragingGuide", "OneDrawGuide"},
    ),
}
PROTOCOLS = [
    p for p in vars(types).values() if isinstance(p, type) and getattr(p, "_is_protocol", False)
]
PROTOCOLS = [p for p in PROTOCOLS if p.__module__ == types.__name__]


def offered(program):
    """Names of the Protocols that a program is an instance of."""
    return {protocol.__name__ for protocol in PROTOCOLS if isinstance(program, protocol)}


@pytest.mark.parametrize("name", OFFERS)
def test_what_a_pair_of_the_zoo_offers(name):
    objective = zoo.build(name, (4,), 2, seed=0)
    of_model, of_guide = OFFERS[name]
    assert offered(objective.model) - {"GenerativeModel", "CodeClassifier"} == of_model
    assert offered(objective.guide) == of_guide


def test_what_random_weights_offer():
    objective = zoo.build("sslapd", (4,), 2, seed=0)
    common = {"Program", "WrappedProgram", "WeightSlots"}
    assert offered(objective.model) == common | {
        "Predictor",
        "ConditionedOnWeights",
        "RandomWeightsModel",
    }
    assert offered(objective.guide) == common | {
        "Guide",
        "Encoder",
        "OneDrawGuide",
        "WeightSampler",
        "RandomWeightsGuide",
    }
    assert isinstance(types.unwrapped(objective.model), types.GenerativeModel)
    assert not types.classifies_by_one_draw(objective.guide)


@pytest.mark.parametrize(
    "attribute",
    [nn.Linear(2, 2), nn.Parameter(torch.zeros(2)), lambda x, y: x],
    ids=["submodule", "parameter", "function"],
)
def test_any_attribute_counts(attribute):
    program = nn.Module()
    assert not isinstance(program, types.Encoder)
    program.encode = attribute
    assert isinstance(program, types.Encoder)

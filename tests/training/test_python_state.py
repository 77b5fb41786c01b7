"""Attributes, class attributes and global variables that a step reads are watched for changes."""

import pytest
from torch import nn

from pyro_ssl.training.python_state import PythonState

FACTOR = {"value": 1.0}
SHIFT = 0.0


class Scaled(nn.Module):
    beta = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.history = [0]

    def forward(self, x):
        return self.beta * FACTOR["value"] * x + shift()


def shift() -> float:
    return SHIFT


@pytest.mark.parametrize("owner", ["class", "global", "dictionary"])
def test_a_change_outside_the_object_is_seen_and_undone(owner, monkeypatch):
    change = {
        "class": lambda: monkeypatch.setattr(Scaled, "beta", 0.5),
        "global": lambda: monkeypatch.setitem(globals(), "SHIFT", 0.5),
        "dictionary": lambda: monkeypatch.setitem(FACTOR, "value", 0.5),
    }
    module = Scaled()
    before = float(module(1.0))
    state = PythonState(module)
    assert state.is_same
    change[owner]()
    assert not state.is_same
    (sentence,) = state.changes()
    assert sentence.endswith("is 0.5")
    state.restore()
    assert state.is_same
    assert float(module(1.0)) == before


def test_what_was_added_to_a_list_is_removed():
    module = Scaled()
    state = PythonState(module)
    module.history.append(1)
    assert not state.is_same
    state.restore()
    assert module.history == [0]
    assert state.is_same

"""Checkpoints come back bit for bit, without code."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from programs.checkpoints import many, same

from pyro_ssl.training.checkpoints import (
    load,
    save,
)
from pyro_ssl.training.packed_state import pack, unpack

DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.complex64,
)


@st.composite
def tensors(draw):
    dtype, shape = draw(st.sampled_from(DTYPES)), draw(st.lists(st.integers(0, 3), max_size=3))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    x = (torch.randn(shape, generator=g, dtype=torch.float64) * 100).to(dtype)
    return x.T if x.dim() == 2 else x.expand(2, *shape) if draw(st.booleans()) else x


numbers = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 1e-308, 5e-324, 0.1])
plain = st.none() | st.booleans() | st.integers() | numbers | st.text(max_size=5)
keys = (
    st.text(max_size=3)
    | st.integers(-2, 12)
    | st.sampled_from(["a", "a/b", "b", "0", "tensor", "items", "plain"])
)
states = st.recursive(
    plain | tensors(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.slow
@many
@given(states)
def test_any_state_comes_back_bit_for_bit(tmp_path, state):
    found: dict[str, torch.Tensor] = {}
    packed = pack("run", state, found)
    save(tmp_path / "c", found, {"state": packed})
    tensors, data = load(tmp_path / "c")
    assert same(unpack(data["state"], tensors), state)


def test_keys_that_look_alike_keep_their_tensors(tmp_path):
    one, two, three = torch.arange(3.0)
    state = {"a/b": one, "a": {"b": two}, 1: two, "1": three}
    found: dict[str, torch.Tensor] = {}
    packed = pack("run", state, found)
    assert same(unpack(json.loads(json.dumps(packed)), found), state)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": [1, {"b": object()}]}, "run/a/1/b holds a object"),
        ({"f": len}, "run/f holds a builtin_function_or_method"),
        ({"s": {1, 2}}, "run/s holds a set"),
        ({(1, 2): 3}, "run holds a tuple"),
        ({"b": b"bytes"}, "run/b holds a bytes"),
    ],
)
def test_what_would_need_pickling_is_refused_by_its_path(state, message):
    with pytest.raises(TypeError, match=message):
        pack("run", state, {})


def test_a_checkpoint_of_training_goes_round(tmp_path):
    """An optimiser's and a schedule's state, as torch gives them."""
    p = torch.nn.Parameter(torch.randn(3))
    optimizer = torch.optim.AdamW([p], lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9)
    p.sum().backward()
    optimizer.step()
    schedule.step()
    found: dict[str, torch.Tensor] = {}
    state = [optimizer.state_dict(), schedule.state_dict()]
    packed = pack("run", state, found)
    save(tmp_path / "c", found, {"run": packed})
    tensors, data = load(tmp_path / "c")
    assert same(unpack(data["run"], tensors), state)

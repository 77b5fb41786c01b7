"""A checkpoint's content, and what it is compared by."""

import math
import struct

import torch
from hypothesis import HealthCheck, settings

FILES = ("state.json", "state.safetensors")


# every example overwrites the one before it, as a run's checkpoints do
many = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def same(a, b) -> bool:
    """Equal in type, value and bits; NaN equals NaN."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and bytes_of(a) == bytes_of(b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return math.isnan(a) and math.isnan(b) or struct.pack("d", a) == struct.pack("d", b)
    return a == b


def bytes_of(x: torch.Tensor) -> bytes:
    return bytes(x.contiguous().flatten().view(torch.uint8).tolist()) if x.numel() else b""


CONTENT = {"w": torch.arange(6.0).reshape(2, 3)}, {"step": 7, "name": "é\n", "x": [0.1, math.inf]}
OLD = {"w": torch.zeros(1)}, {"step": 6}


def same_content(a, b) -> bool:
    return same(list(a), list(b))

"""Fixtures that several files of this folder use."""

import pytest
import torch
from programs.zoo_pairs import ROWS, K
from torch import Tensor


@pytest.fixture
def noise(monkeypatch, float64):
    """Standard normal noise that depends on class, datum and size of the site, not on the order."""
    g = torch.Generator().manual_seed(2)
    pool = {size: torch.randn(K, 24, size, generator=g) for size in (1, 2, 3, 4)}

    def drawn(shape, **_) -> Tensor:
        *values, rows, size = shape
        return pool[size][: values[0], ROWS[rows]] if values else pool[size][0, ROWS[rows]]

    monkeypatch.setattr(torch.distributions.normal, "_standard_normal", drawn)
    monkeypatch.setattr(
        torch, "randn_like", lambda t: drawn(t.shape)
    )  # what classes share, see EnumerateMessenger
    return pool

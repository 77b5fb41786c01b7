"""Whole numbers stay whole for a method with an embedding."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_ssl import (
    Objective,
    bounds,
    class_bounds,
    fit,
    one_hot,
    predict_proba,
    zoo,
)

pytestmark = pytest.mark.slow

X = np.linspace(0, 1, 24).reshape(8, 3)


Y = np.array([0, 1, 2, -1, -1, 0, 1, 2])


class Words(nn.Module):
    """p(x|y) of rows of word numbers."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.logits = nn.Embedding(2, words)

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(x.new_ones(2, dtype=torch.float32)), obs=y)
            p = dist.Categorical(
                logits=self.logits(y.argmax(-1))[..., None, :].expand(
                    *y.shape[:-1], x.shape[-1], -1
                )
            )
            pyro.sample("x", p.to_event(1), obs=x)


class Reader(nn.Module):
    """q(y|x) of the mean of word vectors, which wants whole numbers."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.vectors = nn.EmbeddingBag(words, 4)
        self.out = nn.Linear(4, 2)
        self.seen: list[torch.dtype] = []

    def classify(self, x):
        self.seen.append(x.dtype)
        return dist.OneHotCategorical(logits=self.out(self.vectors(x)))

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            if y is None:
                pyro.sample("y", self.classify(x), infer={"enumerate": "parallel"})


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_whole_numbers_stay_whole_for_an_embedding(dtype):
    torch.manual_seed(0)
    rng, y = np.random.default_rng(0), np.arange(60) % 2
    tokens = (rng.integers(0, 10, (60, 6)) + 10 * y[:, None]).astype(dtype)
    objective = Objective(Words(20), Reader(20))
    fit(objective, tokens, np.where(np.arange(60) < 10, y, -1), epochs=100, lr=0.1)
    assert set(objective.guide.seen) == {torch.int64}
    assert (predict_proba(objective, tokens).argmax(-1).numpy() == y).mean() > 0.9
    assert class_bounds(objective, tokens).argmax(-1).tolist() == y.tolist()
    assert bounds(objective, tokens, one_hot(torch.tensor(y), 2)).isfinite().all()
    assert set(objective.guide.seen) == {torch.int64}


def test_whole_numbers_become_those_of_the_weights_elsewhere():
    objective = m2()
    fit(objective, (X > 0.5).astype(np.int64), Y, epochs=1)
    assert predict_proba(objective, (X > 0.5).astype(np.int64)).shape == (8, 3)


def m2(**options):
    return zoo.build(
        "m2",
        3,
        3,
        **{"hidden": (5,), "z_dim": 2, "batch_norm": True, "likelihood": "bernoulli"} | options,
    )

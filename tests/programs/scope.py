"""Pairs of ordinary Pyro, with how stock Pyro and ours treat them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from programs.pairs import PARALLEL, Program

B, D, K = 6, 3, 2


class Scaled(Program):
    """A program that classifies by the first columns times its parameter a."""

    def classify(self, x: Tensor) -> Any:
        return dist.OneHotCategorical(logits=x[:, :K] * self.a)


@dataclass
class Pair:
    """A model, its guide, and what ours does with them: equal, or a word out of its refusal."""

    model: Any
    guide: Any
    refused: str = ""
    labels: bool = False
    nesting: int = 1
    stock_validates: bool = True
    stock: str = ""  # how stock Pyro refuses it
    options: dict[str, Any] = field(default_factory=dict)


def data(n: int = B, d: int = D) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def one_hot(n: int = B) -> Tensor:
    return torch.eye(K, dtype=torch.float64)[torch.arange(n) % K]


def plate(x: Tensor, name: str = "data", **arguments: Any) -> Any:
    return pyro.plate(name, len(x), **arguments)


def normal(loc: Any, scale: Any = 1.0) -> Any:
    """A diagonal Gaussian over vectors."""
    return dist.Normal(loc, scale).to_event(1)


def p_y(n: int = K) -> Any:
    return dist.OneHotCategorical(logits=torch.linspace(0, 1, n))


def column(values: Tensor) -> Tensor:
    """A number for each datum and class as the mean of all columns."""
    return values.unsqueeze(-1) + torch.zeros(D)


def labeled_by(
    p: Callable[[], Any], q: Callable[[Any, Tensor], Any], number: Callable[[Tensor], Tensor]
) -> Pair:
    """y in the guide, of any kind; x ~ N(number(y) m, 1)."""

    def model(s, x, y):
        with plate(x):
            y = pyro.sample("y", p())
            pyro.sample("x", normal(column(number(y) * s.m)), obs=x)

    def guide(s, x, y):
        with plate(x):
            pyro.sample("y", q(s, x), infer=PARALLEL)

    return Pair(Scaled(model, m=1.5), Scaled(guide, a=0.7))


def first(y: Tensor) -> Tensor:
    return y[..., 0]


def identity(y: Tensor) -> Tensor:
    return y.to(torch.float64)


def one_hot_label() -> Pair:
    return labeled_by(p_y, lambda s, x: dist.OneHotCategorical(logits=x[:, :K] * s.a), first)


def label_and_code() -> Pair:
    """M2: z ~ q(z|x, y) after y."""

    def model(s, x, y):
        with plate(x):
            y = pyro.sample("y", p_y(), obs=y)
            z = pyro.sample("z", normal(torch.zeros(2)))
            pyro.sample("x", normal(column(first(y) * s.m + z.sum(-1))), obs=x)

    def guide(s, x, y):
        with plate(x):
            if y is None:
                y = pyro.sample("y", s.classify(x), infer=PARALLEL)
            pyro.sample("z", normal(x[:, :2] * s.b + y, s.c.exp()))

    return Pair(Scaled(model, m=1.0), Scaled(guide, a=0.5, b=0.3, c=-0.2))


def summed(q: Callable[[], Any], number: Callable[[Tensor], Tensor]) -> Pair:
    def model(s, x, y):
        with plate(x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            c = pyro.sample("c", q(), infer=PARALLEL)
            pyro.sample("x", normal(column(number(c) * s.m + z)), obs=x)

    def guide(s, x, y):
        with plate(x):
            pyro.sample("z", dist.Normal(x[:, 0] * s.a, 1.0))

    return Pair(Scaled(model, m=1.0), Scaled(guide, a=0.3))


def summed_one_hot() -> Pair:
    return summed(p_y, first)


def partly(handler: Callable[[Tensor], Any], summed_out: bool = False, refused: str = "") -> Pair:
    """The observation alone inside a handler."""

    def model(s, x, y):
        with plate(x):
            y = pyro.sample("y", p_y(), infer=PARALLEL if summed_out else {})
            with handler(x):
                pyro.sample("x", normal(column(first(y) * s.m)), obs=x)

    def guide(s, x, y):
        if summed_out:
            return
        with plate(x):
            pyro.sample("y", s.classify(x), infer=PARALLEL)

    return Pair(Scaled(model, m=1.0), Scaled(guide, a=0.5), refused=refused)

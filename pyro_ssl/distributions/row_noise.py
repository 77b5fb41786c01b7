"""Random draws that do not depend on the order or the number of rows: noise seeded by each row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextvars import ContextVar, Token
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    Independent,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
)

_active: ContextVar[RowNoise | None] = ContextVar("row_noise", default=None)


class RowNoise(Messenger):
    r"""Draw by noise that depends only on the seed and on the values of each row of x.

    A row gets the same draws in every order of rows, subset and chunk. Different rows get
    independent draws, so a mean over rows is as precise as with torch's generator. The i-th number
    drawn for row x is

    .. math:: u_i(x) = h\big(h(x) + h(\mathrm{seed} + i)\big) \in (0, 1), \qquad
              \epsilon_i(x) = \Phi^{-1}(u_i(x))

    with a hash h of 32 bits. Inside the block, `pyro.sample` and `draw` use it for distributions
    whose last batch dimension is that of the rows: Gaussians, classes, Bernoullis, all families
    with an inverse CDF, and mixtures and flows of these. Other families, such as a Gamma, and draws
    for all rows together, such as random weights, use torch's generator.

    Arguments:
        x: The rows `(B, *event)`.
        seed: Seed of the noise.

    >>> x = torch.tensor([[1.0], [2.0], [1.0]])
    >>> with RowNoise(x, seed=0):
    ...     z = draw(Normal(torch.zeros(3), 1.0))
    >>> bool(z[0] == z[2]), bool(z[0] == z[1])
    (True, False)
    """

    def __init__(self, x: Tensor, seed: int) -> None:
        super().__init__()
        self.x = x
        self._start = _wrapped(int(np.random.SeedSequence(seed % 2**64).generate_state(1)[0]))
        self._drawn = 0
        self._keys: Tensor | None = None
        self._outer: list[Token[RowNoise | None]] = []

    def __enter__(self) -> Any:
        self._outer.append(_active.set(self))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        _active.reset(self._outer.pop())

    @property
    def keys(self) -> Tensor:
        """A hash of each row, `(B,)`, computed at the first draw: most methods make none."""
        if self._keys is None:
            self._keys = _hash_of_rows(self.x)
        return self._keys

    def is_of_rows(self, fn: Any) -> bool:
        """True if a distribution's last batch dimension has the size of the rows."""
        return fn.batch_shape[-1:] == (len(self.x),)

    def symmetric(self, shape: Sequence[int], event_dim: int, like: Tensor) -> Tensor:
        """Uniform numbers in (-1, 1), `(*, B, *event)`, with dtype and device of `like`."""
        lead = shape[: len(shape) - event_dim - 1]
        event = shape[len(shape) - event_dim :]
        size = math.prod(lead) * math.prod(event)
        place = torch.arange(self._drawn, self._drawn + size, device=like.device)
        self._drawn += size
        salt = _mixed((place + self._start).to(torch.int32)).view(*lead, 1, *event)
        bits = _mixed(salt + self.keys.to(like.device).view(-1, *[1] * event_dim))
        dtype = torch.promote_types(like.dtype, torch.float32)
        digits = 32 if dtype == torch.float64 else 23  # so that no number rounds to -1 or 1
        bits >>= 32 - digits
        return bits.to(dtype).mul_(2.0 ** (1 - digits)).add_(2.0**-digits)

    def uniform(self, shape: Sequence[int], event_dim: int, like: Tensor) -> Tensor:
        """Uniform numbers in (0, 1), see `symmetric`."""
        return self.symmetric(shape, event_dim, like).add_(1).mul_(0.5)

    def gaussian(self, shape: Sequence[int], event_dim: int, like: Tensor) -> Tensor:
        """Standard Gaussian numbers, see `symmetric`."""
        return self.symmetric(shape, event_dim, like).erfinv_().mul_(math.sqrt(2))

    def _pyro_sample(self, msg: Any) -> None:
        if msg["done"] or msg["is_observed"] or site_is_subsample(msg):
            return
        if self.is_of_rows(msg["fn"]):
            msg["value"] = draw(msg["fn"])
            msg["done"] = True


def draw(fn: Any, sample_shape: Sequence[int] = ()) -> Tensor:
    """Draw a sample, `(*sample_shape, *batch, *event)`, reparameterised if possible.

    Inside a block of `RowNoise`, its noise is used.

    Arguments:
        fn: The distribution.
        sample_shape: Shape of the samples.

    >>> draw(Normal(torch.zeros(3), 1.0), [2]).shape
    torch.Size([2, 3])
    """
    shape = torch.Size(sample_shape)
    noise = _active.get()
    if noise is not None and noise.is_of_rows(fn):
        by_rows = _by_rows(noise, fn, shape)
        if by_rows is not None:
            return by_rows
    if fn.has_rsample:
        return fn.rsample(shape)
    if isinstance(fn, Categorical | OneHotCategorical) and not shape:
        return _class(fn)
    value: Tensor = fn.sample(shape)
    return value


@torch.no_grad()
def _class(fn: Any) -> Tensor:
    """A sample of a distribution over classes, the same as `fn.sample()`.

    It is the algorithm of `torch.multinomial` without the check of the probabilities, for which
    Python would wait for a GPU.
    """
    probs = fn.probs.reshape(-1, fn.probs.shape[-1])
    ratios = probs / torch.empty_like(probs).exponential_()
    index = ratios.argmax(-1).reshape(fn.probs.shape[:-1])
    if isinstance(fn, Categorical):
        return index
    return torch.nn.functional.one_hot(index, probs.shape[-1]).to(probs)


def _by_rows(noise: RowNoise, fn: Any, sample_shape: torch.Size) -> Tensor | None:
    """A sample from the rows' noise; None for a family that is not a known transform of noise."""
    base = fn
    while isinstance(base, Independent | dist.MaskedDistribution):
        base = base.base_dist
    shape = sample_shape + base.batch_shape
    # batch dimensions of the base that are event dimensions of a row
    event_dim = len(fn.event_shape) - len(base.event_shape)
    if isinstance(base, Normal):
        return torch.addcmul(base.loc, base.scale, noise.gaussian(shape, event_dim, base.loc))
    if isinstance(base, MultivariateNormal):
        white = noise.gaussian(shape + base.event_shape, event_dim + 1, base.loc)
        return base.loc + (base.scale_tril @ white.unsqueeze(-1)).squeeze(-1)
    if isinstance(base, Categorical):
        return _index(base.probs, noise.uniform(shape, event_dim, base.probs))
    if isinstance(base, OneHotCategorical):
        index = _index(base.probs, noise.uniform(shape, event_dim, base.probs))
        return torch.nn.functional.one_hot(index, base.event_shape[-1]).to(base.probs)
    if isinstance(base, Bernoulli):
        return (noise.uniform(shape, event_dim, base.probs) < base.probs).to(base.probs)
    return _by_inverse_cdf(noise, base, shape, event_dim)


def _by_inverse_cdf(noise: RowNoise, base: Any, shape: torch.Size, event_dim: int) -> Tensor | None:
    if base.event_shape:
        return None
    try:
        like = base.icdf(torch.tensor(0.5))
    except (NotImplementedError, RuntimeError):
        return None
    return base.icdf(noise.uniform(shape, event_dim, like))


def _index(probs: Tensor, uniform: Tensor) -> Tensor:
    """Classes drawn with probabilities `(*, K)` by uniform numbers `(*,)`, as by an inverse CDF."""
    cdf = probs.cumsum(-1)
    # scaled by the sum, which is rounded: otherwise a last class of probability 0 could be drawn
    level = uniform.unsqueeze(-1) * cdf[..., -1:]
    return (level > cdf[..., :-1]).sum(-1)


def _mixed(x: Tensor) -> Tensor:
    """Hash int32 numbers in place, by the finaliser of MurmurHash3.

    Products wrap around; right shifts fill with zeros.
    """
    shifted = torch.empty_like(x)
    for shift, factor in ((16, _wrapped(0x85EBCA6B)), (13, _wrapped(0xC2B2AE35)), (16, 1)):
        torch.bitwise_right_shift(x, shift, out=shifted)
        shifted &= 2 ** (32 - shift) - 1
        x ^= shifted
        x *= factor
    return x


def _wrapped(x: int) -> int:
    """A number in 0 .. 2**32 - 1 as the signed number with the same bits."""
    return x - 2**32 if x >= 2**31 else x


def _hash_of_rows(x: Tensor) -> Tensor:
    """A hash of 32 bits of each row, `(B,)`: the bits of its numbers times fixed multipliers."""
    rows = x.detach().flatten(1).cpu().double().numpy() + 0.0  # turns -0.0 into 0.0
    bits = rows.view(np.int64)
    bits ^= bits >> 32  # the lower half of a round number is 0
    multipliers = np.random.default_rng(0).integers(-(2**63), 2**63, bits.shape[1]) | 1
    return _mixed(torch.from_numpy((bits @ multipliers) >> 32).to(torch.int32))

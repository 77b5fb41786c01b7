"""Convergence of Markov chains: R-hat and the effective sample size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

MOST_VALUES = 2**22
"""Draws that are ranked at once, which bounds the memory."""
FEWEST_DRAWS = 4
Array = np.ndarray[Any, np.dtype[np.float64]]


def rhat(draws: Any) -> Array:
    r"""Rank-normalised split R-hat of each quantity; 1 for chains that agree.

    Each chain is cut into halves. With the ranks of the draws as normal scores,

    .. math:: \hat R = \sqrt{\frac{n - 1}{n} + \frac{\mathrm{Var}(\text{means of the halves})}
              {\text{mean of their variances}}}

    for halves of n draws; the result is the larger one of those of the draws and of their distances
    from the median. Chains that mix have an R-hat below 1.01.

    Arguments:
        draws: Draws `(chains, draws, *)` of two chains or more.

    Returns:
        Numbers `(*)`; NaN where all draws are the same.

    Raises:
        ValueError: There are fewer than two chains, or fewer than four draws in each.

    References:
        Vehtari, Gelman, Simpson, Carpenter, Buerkner 2021, "Rank-normalization, folding, and
        localization: an improved R-hat for assessing convergence of MCMC".

    >>> mixed = np.random.default_rng(0).normal(size=(4, 500))
    >>> bool(rhat(mixed) < 1.01), bool(rhat(mixed + np.arange(4)[:, None]) < 1.2)
    (True, False)
    """
    draws = _checked(draws, fewest_chains=2)
    return _in_blocks(_rhat, draws)


def effective_sample_size(draws: Any) -> Array:
    r"""Number of independent draws that would give a mean as precise as all draws together.

    This is the bulk effective sample size, of normal scores of the draws' ranks,

    .. math:: \mathrm{ESS} = \frac{S}{-1 + 2 \sum_k P_k}, \quad
              P_k = \hat\rho_{2k} + \hat\rho_{2k+1}

    for S draws in all with autocorrelation :math:`\hat\rho_t`; the sum ends before the first
    negative P, and no P is larger than the one before it.

    Arguments:
        draws: Draws `(chains, draws, *)`.

    Returns:
        Numbers `(*)`; S where all draws are the same.

    Raises:
        ValueError: There are fewer than four draws in each chain.

    References:
        Vehtari et al. 2021, see `rhat`; Geyer 1992.

    >>> rng = np.random.default_rng(0)
    >>> walk = np.cumsum(rng.normal(size=(4, 500)), axis=1)
    >>> bool(effective_sample_size(rng.normal(size=(4, 500))) > 1000)
    True
    >>> bool(effective_sample_size(walk) < 20)
    True
    """
    draws = _checked(draws, fewest_chains=1)
    return _in_blocks(_bulk_size, draws)


def _checked(draws: Any, fewest_chains: int) -> Array:
    values: Array = np.asarray(draws, dtype=np.float64)
    if values.ndim < 2:
        raise ValueError(f"draws should have shape (chains, draws, *), got {values.shape}")
    chains, length = values.shape[:2]
    if chains < fewest_chains:
        raise ValueError(f"chains should be {fewest_chains} or more to compare them, got {chains}")
    if length < FEWEST_DRAWS:
        raise ValueError(
            f"draws should be {FEWEST_DRAWS} or more in each chain, got {length}; take more steps"
        )
    return values


def _in_blocks(function: Callable[[Array], Array], draws: Array) -> Array:
    """Apply a function of `(chains, draws, quantities)` to some quantities at a time."""
    flat = draws.reshape(*draws.shape[:2], -1)
    block = max(1, MOST_VALUES // (flat.shape[0] * flat.shape[1]))
    results = [
        function(flat[:, :, start : start + block]) for start in range(0, flat.shape[2], block)
    ]
    joined: Array = np.concatenate(results).reshape(draws.shape[2:])
    return joined


def _rhat(draws: Array) -> Array:
    halves = _halves(draws)
    distances = np.abs(halves - np.median(halves, axis=(0, 1)))
    largest: Array = np.fmax(_rhat_of(_normal_scores(halves)), _rhat_of(_normal_scores(distances)))
    return np.where(_is_constant(halves), np.nan, largest)


def _rhat_of(chains: Array) -> Array:
    length = chains.shape[1]
    between = chains.mean(1).var(0, ddof=1)
    within = chains.var(1, ddof=1).mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Array = np.sqrt((length - 1) / length + between / within)
    return ratio


def _halves(draws: Array) -> Array:
    """The halves of each chain, as chains; the middle one of an odd number of draws is left out."""
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])


def _normal_scores(draws: Array) -> Array:
    flat = draws.reshape(-1, draws.shape[2])
    ranks = stats.rankdata(flat, method="average", axis=0)
    scores: Array = stats.norm.ppf((ranks - 3 / 8) / (len(flat) + 1 / 4))
    return scores.reshape(draws.shape)


def _is_constant(draws: Array) -> Any:
    return np.ptp(draws, axis=(0, 1)) == 0  # ranks know no scale, so tiny draws count in full


def _bulk_size(draws: Array) -> Array:
    halves = _halves(draws)
    size = halves.shape[0] * halves.shape[1]
    time = _autocorrelation_time(_normal_scores(halves))
    # antithetic chains count for more than their draws, but not for any number
    sizes: Array = size / np.maximum(time, 1 / np.log10(size))
    total = float(draws.shape[0] * draws.shape[1])
    return np.where(_is_constant(halves), total, sizes)


def _autocorrelation_time(chains: Array) -> Array:
    """Geyer's estimate, `(quantities,)`."""
    rho = _autocorrelation(chains)
    pairs = max(1, (chains.shape[1] - 1) // 2)
    even, odd = rho[0 : 2 * pairs : 2], rho[1 : 2 * pairs : 2]
    sums = even + odd
    is_negative = sums < 0
    first_negative = np.where(is_negative.any(0), is_negative.argmax(0), pairs - 1)
    is_counted = np.arange(pairs)[:, None] < first_negative
    monotone = np.minimum.accumulate(sums)
    last = np.take_along_axis(even, first_negative[None], 0)[0]
    time: Array = -1 + 2 * (monotone * is_counted).sum(0) + np.maximum(last, 0)
    return time


def _autocorrelation(chains: Array) -> Array:
    """Correlation of draws at each distance, `(draws, quantities)`, within and between chains."""
    length = chains.shape[1]
    centred = chains - chains.mean(1, keepdims=True)
    spectrum = np.fft.rfft(centred, n=2 * length, axis=1)  # padded, so that it does not wrap around
    power = np.abs(spectrum) ** 2
    covariance = np.fft.irfft(power, n=2 * length, axis=1)[:, :length] / length
    mean_covariance = covariance.mean(0)
    within = mean_covariance[0] * length / (length - 1)
    total = mean_covariance[0] + chains.mean(1).var(0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        rho: Array = 1 - (within - mean_covariance) / total
    rho[0] = 1
    return rho

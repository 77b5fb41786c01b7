"""Random orders of rows, also of so many that a permutation of them would fill the memory."""

from __future__ import annotations

import numpy as np
import torch

MOST_LISTED = 2**22
"""Most rows whose order is listed, 32 MB; of more rows each place is computed."""
ROUNDS = 6
"""Rounds of the Feistel network; four suffice for a pseudorandom permutation (Luby, Rackoff)."""
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class RowOrder:
    """A random order of n rows, as a function of a seed and the number of the pass.

    Up to `MOST_LISTED` rows it is `torch.randperm`. For more rows it is a Feistel network with
    cycle walking, a bijection that needs no memory.

    Arguments:
        n: Number of rows.
        words: Whole numbers that seed the order, such as (seed, part, pass).
        most_listed: Most rows whose order is listed.

    References:
        Black and Rogaway 2002, Ciphers with arbitrary finite domains.

    >>> order = RowOrder(5, (0, 1, 2), most_listed=0)
    >>> sorted(order[0:5].tolist())
    [0, 1, 2, 3, 4]
    """

    def __init__(self, n: int, words: tuple[int, ...], most_listed: int = MOST_LISTED) -> None:
        self.n = n
        seeds = np.random.SeedSequence(list(words))
        self._listed: np.ndarray | None = None
        if n <= most_listed:
            self._listed = listed_order(n, words).numpy()
            return
        self._keys = seeds.generate_state(ROUNDS, np.uint64)
        self._half = max(1, ((n - 1).bit_length() + 1) // 2)

    def __getitem__(self, places: slice) -> np.ndarray:
        """The rows at these places of the order, int64."""
        if self._listed is not None:
            return self._listed[places]
        values = np.arange(*places.indices(self.n), dtype=np.uint64)
        values = self._shuffle(values)
        outside = values >= self.n
        while outside.any():  # walk the cycle until it is back among the rows
            values[outside] = self._shuffle(values[outside])
            outside = values >= self.n
        return values.astype(np.int64)

    def _shuffle(self, values: np.ndarray) -> np.ndarray:
        """A bijection of 0 .. 4**half - 1, by rounds of a Feistel network."""
        half = np.uint64(self._half)
        mask = np.uint64(2**self._half - 1)
        left = values >> half
        right = values & mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        return (left << half) | right


def listed_order(n: int, words: tuple[int, ...]) -> torch.Tensor:
    """The order of n rows as a permutation, `(n,)`.

    >>> listed_order(4, (0, 0, 0)).sort().values
    tensor([0, 1, 2, 3])
    """
    word = np.random.SeedSequence(list(words)).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(word >> np.uint64(1)))
    return torch.randperm(n, generator=generator)


def _mixed(values: np.ndarray) -> np.ndarray:
    """A hash of 64-bit numbers (splitmix64)."""
    with np.errstate(over="ignore"):
        values = values + GOLDEN
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))

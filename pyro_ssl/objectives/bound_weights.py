"""Weights of the labeled and the unlabeled bound, and the size of the data set that they imply."""

from __future__ import annotations

from typing import NamedTuple


class BoundWeights(NamedTuple):
    """Weights lambda_l and lambda_u of the bounds, and the size of the data set.

    `size`: number of data that J averages over; N_u / lambda_u if unlabeled data count.

    >>> BoundWeights.of(None, 1.0, sizes=(100, 1000))
    BoundWeights(labeled=0.1, unlabeled=1.0, size=1000.0)
    """

    labeled: float
    unlabeled: float
    size: float

    @classmethod
    def of(
        cls,
        labeled_weight: float | None,
        unlabeled_weight: float,
        sizes: tuple[int, int],
    ) -> BoundWeights:
        """The weights for data sets of given sizes.

        Arguments:
            labeled_weight: lambda_l; None gives N_l / N_u, and 1 where nothing is unlabeled.
            unlabeled_weight: lambda_u.
            sizes: N_l and N_u.
        """
        n_labeled, n_unlabeled = sizes
        uses_unlabeled = bool(n_unlabeled and unlabeled_weight)
        if labeled_weight is None:
            labeled_weight = n_labeled / n_unlabeled if uses_unlabeled else 1.0
        size = 1.0
        if uses_unlabeled:
            size = n_unlabeled / unlabeled_weight
        elif n_labeled:
            size = n_labeled / (labeled_weight or 1.0)
        return cls(labeled_weight, unlabeled_weight, size)

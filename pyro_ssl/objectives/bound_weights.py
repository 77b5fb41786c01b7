"""The weights of the labeled and the unlabeled bound in the loss."""

from __future__ import annotations

from typing import NamedTuple


class BoundWeights(NamedTuple):
    """Weights of the two bounds, and the number of data that they imply.

    Arguments:
        labeled: Weight lambda_l of the labeled bound.
        unlabeled: Weight lambda_u of the unlabeled bound.
        size: Number of data that the loss J is a mean over: N_u / lambda_u with unlabeled data,
            else N_l / lambda_l.

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
            labeled_weight: lambda_l; None gives N_l / N_u, or 1 without unlabeled data.
            unlabeled_weight: lambda_u.
            sizes: Numbers N_l and N_u of labeled and unlabeled data.
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

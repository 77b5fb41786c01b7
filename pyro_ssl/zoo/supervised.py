"""The supervised baseline."""

from __future__ import annotations

from pyro_ssl import guides
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.objectives.terms import L2, LabelLogProb, Term
from pyro_ssl.utils.arguments import check_kind
from pyro_ssl.zoo import presets
from pyro_ssl.zoo.conditional_factory import Conditionals
from pyro_ssl.zoo.options import ClassifierOptions, NetworkOptions


def classifier(
    x_shape: tuple[int, ...],
    classes: int,
    *,
    l2: float = 0.0,
    networks: NetworkOptions = presets.NETWORKS,
    classifier: ClassifierOptions = presets.CLASSIFIER,
) -> Objective:
    """Supervised baseline: q(y|x) by cross-entropy on the labeled data, with M2's defaults.

    Arguments:
        x_shape: Event shape of x.
        classes: K.
        l2: Weight of half the squared norm of the weights.
        networks: Network of q(y|x).
        classifier: Regularisation of q(y|x), and augmentation of its input.

    Raises:
        ValueError: `l2` is below 0.

    >>> classifier((4,), 3).model is None
    True
    """
    check_kind("l2", l2, float)
    if not l2 >= 0:
        raise ValueError(f"l2 should be 0 or above, got {l2}")
    q_y = Conditionals(x_shape, classes, networks, classifier).q_y()
    terms: list[Term] = [LabelLogProb()]
    if l2:
        terms.append(L2(q_y, l2))
    return Objective(None, guides.Classifier(q_y), terms)

"""Paper 003's models, whose latent code z is classified by p(y|z)."""

from __future__ import annotations

from torch import nn

from pyro_ssl import guides, models
from pyro_ssl.distributions.conditionals import Conditional
from pyro_ssl.distributions.priors import StandardNormal
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.zoo import presets
from pyro_ssl.zoo.conditional_factory import Conditionals
from pyro_ssl.zoo.options import (
    BoundOptions,
    ClassifierOptions,
    LatentOptions,
    LikelihoodOptions,
    LossOptions,
    NetworkOptions,
    RandomWeightOptions,
)


def latent_classifier(
    x_shape: tuple[int, ...],
    classes: int,
    *,
    z_dim: int = 50,
    draws: int = 100,
    networks: NetworkOptions = presets.NETWORKS,
    classifier: ClassifierOptions = presets.PLAIN_CLASSIFIER,
    likelihood: LikelihoodOptions = presets.UNIT_LIKELIHOOD,
    latent: LatentOptions = presets.LATENT,
    loss: LossOptions = presets.LATENT_CLASSIFIER_LOSS,
    bound: BoundOptions = presets.BOUND,
    weights: RandomWeightOptions = presets.POINT_WEIGHTS,
) -> Objective:
    """Paper 003's model: the code determines the class, and both generate x.

    `labeled_weight` is the paper's lambda.

    Arguments:
        x_shape: Event shape of x.
        classes: K.
        z_dim: Size of the code z.
        draws: Samples of the code that a prediction averages over.
        networks: Networks of all conditionals.
        classifier: Network of q(z|x), and hidden widths of p(y|z).
        likelihood: Family of p(x|y,z).
        latent: Families of q(z|x) and p(z).
        loss: Terms and weights.
        bound: Options of the bound.
        weights: Random weights of the model.

    References:
        Paper 003, propositions 1 and 2.

    >>> latent_classifier((4,), 3, z_dim=2).guide.factorisation
    'q(z|x) p(y|z)'
    """
    make = Conditionals(x_shape, classes, networks, classifier, likelihood, loss.class_probs)
    model, q_z, p_y = _model_and_code(make, latent, z_dim)
    guide = guides.LatentClassifier(q_z, p_y, draws)
    return loss.objective(*weights.with_random_weights(model, guide), bound.elbo(latent, weights))


def latent_classifier_exact(
    x_shape: tuple[int, ...],
    classes: int,
    *,
    z_dim: int = 50,
    draws: int = 100,
    networks: NetworkOptions = presets.NETWORKS,
    classifier: ClassifierOptions = presets.PLAIN_CLASSIFIER,
    likelihood: LikelihoodOptions = presets.UNIT_LIKELIHOOD,
    latent: LatentOptions = presets.LATENT,
    loss: LossOptions = presets.LATENT_CLASSIFIER_LOSS,
    bound: BoundOptions = presets.BOUND,
    weights: RandomWeightOptions = presets.POINT_WEIGHTS,
) -> Objective:
    """`latent_classifier` under its exact bound, which sums over y inside the logarithm.

    .. math:: \\log p(x|z) = \\log \\sum_y p(y|z)\\, p(x|y,z)

    Arguments:
        x_shape: Event shape of x.
        classes: K.
        z_dim: Size of the code z.
        draws: Samples of the code that a prediction averages over.
        networks: Networks of all conditionals.
        classifier: Network of q(z|x), and hidden widths of p(y|z).
        likelihood: Family of p(x|y,z).
        latent: Families of q(z|x) and p(z).
        loss: Terms and weights.
        bound: Samples of the bound.
        weights: Random weights of the model.

    >>> latent_classifier_exact((4,), 3, z_dim=2).guide.factorisation
    'q(z|x)'
    """
    make = Conditionals(x_shape, classes, networks, classifier, likelihood, loss.class_probs)
    model, q_z, p_y = _model_and_code(make, latent, z_dim)
    guide = guides.LatentEncoder(q_z, p_y, draws)
    return loss.objective(*weights.with_random_weights(model, guide), bound.elbo(latent, weights))


def _model_and_code(
    make: Conditionals, latent: LatentOptions, z_dim: int
) -> tuple[models.LatentClassifier, nn.Module, Conditional]:
    """The model, q(z|x) and p(y|z)."""
    p_y = make.p_y_of(z_dim)
    q_z = latent.q_z(make.q_z_classified(z_dim, make.classifier.dropout), z_dim)
    p_z = latent.p_z(z_dim, q_z, [make.x_shape])
    model = models.LatentClassifier(p_z, p_y, make.p_x(make.classes, z_dim))
    return model, q_z, p_y


def latent_classifier_simplified(
    x_shape: tuple[int, ...],
    classes: int,
    *,
    z_dim: int = 50,
    draws: int = 100,
    networks: NetworkOptions = presets.NETWORKS,
    classifier: ClassifierOptions = presets.PLAIN_CLASSIFIER,
    likelihood: LikelihoodOptions = presets.UNIT_LIKELIHOOD,
    latent: LatentOptions = presets.LATENT,
    loss: LossOptions = presets.SIMPLIFIED_LOSS,
    bound: BoundOptions = presets.BOUND,
    weights: RandomWeightOptions = presets.POINT_WEIGHTS,
) -> Objective:
    """Paper 003's simplification: given the code, class and x are independent.

    `labeled_weight` is the paper's lambda.

    Arguments:
        x_shape: Event shape of x.
        classes: K.
        z_dim: Size of the code z.
        draws: Samples of the code that a prediction averages over.
        networks: Networks of all conditionals.
        classifier: Network of q(z|x), and hidden widths of p(y|z).
        likelihood: Family of p(x|z).
        latent: Families of q(z|x) and p(z).
        loss: Terms and weights.
        bound: Samples of the bound.
        weights: Random weights of the model.

    References:
        Paper 003, Fig. 6b.

    >>> latent_classifier_simplified((4,), 3, z_dim=2).model.factorisation
    'p(z) p(y|z) p(x|z)'
    """
    make = Conditionals(x_shape, classes, networks, classifier, likelihood, loss.class_probs)
    p_y = make.p_y_of(z_dim)
    q_z = latent.q_z(make.q_z_classified(z_dim, classifier.dropout), z_dim)
    p_z = latent.p_z(z_dim, q_z, [x_shape])
    model = models.SimplifiedLatentClassifier(p_z, p_y, make.p_x(z_dim))
    guide = guides.LatentEncoder(q_z, p_y, draws)
    return loss.objective(*weights.with_random_weights(model, guide), bound.elbo(latent, weights))


def latent_classifier_split(
    x_shape: tuple[int, ...],
    classes: int,
    *,
    z_y_dim: int = 10,
    z_dim: int = 50,
    draws: int = 100,
    networks: NetworkOptions = presets.NETWORKS,
    classifier: ClassifierOptions = presets.PLAIN_CLASSIFIER,
    likelihood: LikelihoodOptions = presets.UNIT_LIKELIHOOD,
    latent: LatentOptions = presets.LATENT,
    loss: LossOptions = presets.LATENT_CLASSIFIER_LOSS,
    bound: BoundOptions = presets.BOUND,
    weights: RandomWeightOptions = presets.POINT_WEIGHTS,
) -> Objective:
    """Paper 003's special case: the first of two parts of the code determines the class.

    Arguments:
        x_shape: Event shape of x.
        classes: K.
        z_y_dim: Size of the part that determines the class; `flow` and `prior` apply to this part.
        z_dim: Size of the rest, N(0, I) with a Gaussian posterior.
        draws: Samples of the code that a prediction averages over.
        networks: Networks of all conditionals.
        classifier: Network of q(z_y|x), and hidden widths of p(y|z_y).
        likelihood: Family of p(x|z_y,z_u).
        latent: Families of q(z_y|x) and p(z_y).
        loss: Terms and weights.
        bound: Samples of the bound.
        weights: Random weights of the model.

    References:
        Paper 003, appendix C.

    >>> latent_classifier_split((4,), 3).model.factorisation
    'p(z_y) p(z_u) p(y|z_y) p(x|z_y,z_u)'
    """
    make = Conditionals(x_shape, classes, networks, classifier, likelihood, loss.class_probs)
    p_y = make.p_y_of(z_y_dim)
    q_z_y = latent.q_z(make.q_z_classified(z_y_dim, classifier.dropout), z_y_dim)
    p_z_y = latent.p_z(z_y_dim, q_z_y, [x_shape])
    p_z_u = StandardNormal(z_dim)
    model = models.SplitLatentClassifier(p_z_y, p_z_u, p_y, make.p_x(z_y_dim, z_dim))
    guide = guides.SplitLatentEncoder(q_z_y, make.q_z(z_dim, z_y_dim), p_y, draws)
    return loss.objective(*weights.with_random_weights(model, guide), bound.elbo(latent, weights))

"""Deep generative models whose guide classifies: VAE (M1), M2, ADGM, SDGM and LVAE."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from pyro_ssl import guides, models
from pyro_ssl.distributions.conditionals import Normal, OneHotCategorical
from pyro_ssl.nn.networks import MLP
from pyro_ssl.objectives.adversarial import Adversary
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.objectives.terms import LabelLogProb
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
    check_sizes,
)


def vae(
    x_shape: tuple[int, ...],
    classes: int,
    *,
    z_dim: int = 50,
    probe_hidden: Sequence[int] = (),
    num_particles: int = 1,
    importance_weighted: bool = False,
    networks: NetworkOptions = presets.VAE_NETWORKS,
    likelihood: LikelihoodOptions = presets.PIXELS,
    latent: LatentOptions = presets.LATENT,
    weights: RandomWeightOptions = presets.POINT_WEIGHTS,
) -> Objective:
    """M1: a VAE, and a classifier on its code that passes no gradient to the encoder.

    Arguments:
        x_shape: Event shape of x.
        classes: K.
        z_dim: Size of the code z.
        probe_hidden: Hidden widths of the classifier on the code; () is logistic regression.
        num_particles: Samples of z.
        importance_weighted: Use the importance-weighted bound over these samples (IWAE) instead of
            their mean.
        networks: Networks of all conditionals.
        likelihood: Family of p(x|z).
        latent: Families of q(z|x) and p(z).
        weights: Random weights of the model.

    >>> import torch
    >>> vae((4,), 3, z_dim=2).bound(torch.zeros(5, 4)).shape
    torch.Size([5])
    """
    check_sizes("probe_hidden", probe_hidden)
    make = Conditionals(x_shape, classes, networks, likelihood=likelihood)
    q_z = latent.q_z(make.q_z(z_dim), z_dim)
    model = models.VAE(latent.p_z(z_dim, q_z, [x_shape]), make.p_x(z_dim))
    guide = guides.VAE(q_z, OneHotCategorical(MLP(z_dim, classes, probe_hidden)))
    bound = BoundOptions(num_particles=num_particles, importance_weighted=importance_weighted)
    return Objective(
        *weights.with_random_weights(model, guide),
        [LabelLogProb()],
        labeled_weight=None,
        elbo=bound.elbo(latent, weights),
    )


def m2(
    x_shape: tuple[int, ...],
    classes: int,
    *,
    z_dim: int = 50,
    networks: NetworkOptions = presets.NETWORKS,
    classifier: ClassifierOptions = presets.CLASSIFIER,
    likelihood: LikelihoodOptions = presets.LIKELIHOOD,
    latent: LatentOptions = presets.LATENT,
    loss: LossOptions = presets.M2_LOSS,
    bound: BoundOptions = presets.BOUND,
    weights: RandomWeightOptions = presets.POINT_WEIGHTS,
) -> Objective:
    """M2: a class and a style generate x; the defaults suit images in [0, 1] and few labels.

    Arguments:
        x_shape: Event shape of x.
        classes: K.
        z_dim: Size of the style z.
        networks: Networks of all conditionals.
        classifier: Network of q(y|x).
        likelihood: Family of p(x|y,z).
        latent: Families of q(z|x,y) and p(z).
        loss: Terms and weights.
        bound: Options of the bound.
        weights: Random weights of the model.

    >>> import torch
    >>> m2((4,), 3, z_dim=2).classify(torch.zeros(5, 4)).mean.shape
    torch.Size([5, 3])
    """
    make = Conditionals(x_shape, classes, networks, classifier, likelihood, loss.class_probs)
    pair = weights.with_random_weights(*m2_pair(make, latent, z_dim))
    return loss.objective(*pair, bound.elbo(latent, weights))


def m2_pair(make: Conditionals, latent: LatentOptions, z_dim: int) -> tuple[models.M2, guides.M2]:
    """Model and guide of M2.

    >>> model, guide = m2_pair(Conditionals((4,), 3), LatentOptions(), z_dim=2)
    >>> model.factorisation, guide.factorisation
    ('p(y) p(z) p(x|y,z)', 'q(y|x) q(z|x,y)')
    """
    q_y = make.q_y()
    p_x = make.p_x(make.classes, z_dim)
    q_z = latent.q_z(make.q_z(z_dim, make.classes), z_dim)
    p_y = make.p_y()
    p_z = latent.p_z_of_class(z_dim, q_z, [make.x_shape], make.classes)
    return models.M2(p_y, p_z, p_x), guides.M2(q_y, q_z)


def m2_adversarial(
    x_shape: tuple[int, ...],
    classes: int,
    *,
    z_dim: int = 50,
    adversary: float = 1.0,
    adversary_lr: float = 1.0,
    networks: NetworkOptions = presets.NETWORKS,
    classifier: ClassifierOptions = presets.CLASSIFIER,
    likelihood: LikelihoodOptions = presets.LIKELIHOOD,
    latent: LatentOptions = presets.LATENT,
    loss: LossOptions = presets.M2_LOSS,
    bound: BoundOptions = presets.BOUND,
    weights: RandomWeightOptions = presets.POINT_WEIGHTS,
) -> Objective:
    """M2 with an adversary that predicts the class from the style; the style learns to hide it.

    Arguments:
        x_shape: Event shape of x.
        classes: K.
        z_dim: Size of the style z.
        adversary: Weight of the adversarial term.
        adversary_lr: Learning rate of the adversary, relative to that of model and guide.
        networks: Networks of all conditionals.
        classifier: Network of q(y|x).
        likelihood: Family of p(x|y,z).
        latent: Families of q(z|x,y) and p(z).
        loss: Terms and weights.
        bound: Options of the bound.
        weights: Random weights of the model.

    Raises:
        ValueError: adversary_lr is not above 0.

    References:
        Paper 003, appendix E.

    >>> [type(term).__name__ for term in m2_adversarial((4,), 3).terms]
    ['LabelLogProb', 'ClassBalance', 'Adversary']
    """
    if not adversary_lr > 0:
        raise ValueError(f"adversary_lr should be above 0, got {adversary_lr}")
    make = Conditionals(x_shape, classes, networks, classifier, likelihood, loss.class_probs)
    f = OneHotCategorical(make.mlp([z_dim], classes))
    game = Adversary(f, adversary, adversary_lr)
    pair = weights.with_random_weights(*m2_pair(make, latent, z_dim))
    return loss.objective(*pair, bound.elbo(latent, weights), [game])


def adgm(
    x_shape: tuple[int, ...],
    classes: int,
    *,
    z_dim: int = 100,
    a_dim: int = 100,
    draws: int = 100,
    networks: NetworkOptions = presets.DEEP_NETWORKS,
    classifier: ClassifierOptions = presets.CLASSIFIER,
    likelihood: LikelihoodOptions = presets.LIKELIHOOD,
    latent: LatentOptions = presets.LATENT,
    loss: LossOptions = presets.LOSS,
    bound: BoundOptions = presets.BOUND,
    weights: RandomWeightOptions = presets.POINT_WEIGHTS,
) -> Objective:
    """Auxiliary deep generative model: M2 with a richer guide, through an auxiliary variable.

    Arguments:
        x_shape: Event shape of x.
        classes: K.
        z_dim: Size of the style z.
        a_dim: Size of the auxiliary variable a.
        draws: Samples of a that a prediction averages over.
        networks: Networks of all conditionals.
        classifier: Networks of q(a|x) and q(y|x,a).
        likelihood: Family of p(x|y,z).
        latent: Families of q(z|x,a,y) and p(z).
        loss: Terms and weights.
        bound: Options of the bound.
        weights: Random weights of the model.

    References:
        Maaloe et al. 2016.

    >>> adgm((4,), 3, z_dim=2, a_dim=2).model.factorisation
    'p(y) p(z) p(x|y,z) p(a|x,y,z)'
    """
    make = Conditionals(x_shape, classes, networks, classifier, likelihood, loss.class_probs)
    q_y = make.q_y(a_dim)
    q_z = latent.q_z(make.q_z(z_dim, a_dim, classes), z_dim)
    p_z = latent.p_z_of_class(z_dim, q_z, [x_shape, a_dim], classes)
    p_a = Normal(make.encoder([classes, z_dim], 2 * a_dim))
    model = models.ADGM(make.p_y(), p_z, make.p_x(classes, z_dim), p_a)
    guide = guides.Auxiliary(make.q_z_classified(a_dim), q_y, q_z, draws)
    return loss.objective(*weights.with_random_weights(model, guide), bound.elbo(latent, weights))


def sdgm(
    x_shape: tuple[int, ...],
    classes: int,
    *,
    z_dim: int = 100,
    a_dim: int = 100,
    draws: int = 100,
    networks: NetworkOptions = presets.DEEP_NETWORKS,
    classifier: ClassifierOptions = presets.CLASSIFIER,
    likelihood: LikelihoodOptions = presets.LIKELIHOOD,
    latent: LatentOptions = presets.LATENT,
    loss: LossOptions = presets.LOSS,
    bound: BoundOptions = presets.BOUND,
    weights: RandomWeightOptions = presets.POINT_WEIGHTS,
) -> Objective:
    """Skip deep generative model: two layers of latents, with a skip connection past the second.

    Arguments:
        x_shape: Event shape of x.
        classes: K.
        z_dim: Size of the first layer z.
        a_dim: Size of the second layer a.
        draws: Samples of a that a prediction averages over.
        networks: Networks of all conditionals.
        classifier: Networks of q(a|x) and q(y|x,a).
        likelihood: Family of p(x|a,y,z).
        latent: Families of q(z|x,a,y) and p(z).
        loss: Terms and weights.
        bound: Options of the bound.
        weights: Random weights of the model.

    References:
        Maaloe et al. 2016.

    >>> sdgm((4,), 3, z_dim=2, a_dim=2).model.factorisation
    'p(y) p(z) p(a|y,z) p(x|a,y,z)'
    """
    make = Conditionals(x_shape, classes, networks, classifier, likelihood, loss.class_probs)
    q_y = make.q_y(a_dim)
    q_z = latent.q_z(make.q_z(z_dim, a_dim, classes), z_dim)
    p_z = latent.p_z_of_class(z_dim, q_z, [x_shape, a_dim], classes)
    p_a = Normal(make.mlp([classes, z_dim], 2 * a_dim))
    model = models.SDGM(make.p_y(), p_z, p_a, make.p_x(a_dim, classes, z_dim))
    guide = guides.Auxiliary(make.q_z_classified(a_dim), q_y, q_z, draws)
    return loss.objective(*weights.with_random_weights(model, guide), bound.elbo(latent, weights))


def lvae(
    x_shape: tuple[int, ...],
    classes: int,
    *,
    z_dims: Sequence[int] = (32, 16, 8),
    networks: NetworkOptions = presets.NETWORKS,
    classifier: ClassifierOptions = presets.CLASSIFIER,
    likelihood: LikelihoodOptions = presets.LIKELIHOOD,
    latent: LatentOptions = presets.LATENT,
    loss: LossOptions = presets.LOSS,
    bound: BoundOptions = presets.BOUND,
    weights: RandomWeightOptions = presets.POINT_WEIGHTS,
) -> Objective:
    """Semi-supervised ladder VAE: the guide merges its upward path with the model's downward path.

    Arguments:
        x_shape: Event shape of x.
        classes: K.
        z_dims: Sizes of the latents, lowest first; `flow`, `prior` and `class_prior` apply to the
            last.
        networks: Networks of all conditionals.
        classifier: Network of q(y|x).
        likelihood: Family of p(x|y,z_1).
        latent: Families of q(z_L|x,y) and p(z_L).
        loss: Terms and weights.
        bound: Options of the bound.
        weights: Random weights of the model.

    Raises:
        ValueError: z_dims or hidden is empty.

    References:
        Sonderby et al. 2016.

    >>> len(lvae((4,), 3, z_dims=(3, 2)).guide.up)
    2
    """
    check_sizes("z_dims", z_dims)
    hidden = networks.hidden
    if not z_dims or not hidden:
        raise ValueError(f"z_dims and hidden should not be empty, got {z_dims!r} and {hidden!r}")
    make = Conditionals(x_shape, classes, networks, classifier, likelihood, loss.class_probs)
    width = hidden[-1]
    q_y = make.q_y()
    p_below = [Normal(make.mlp([above], 2 * here)) for here, above in pairwise(z_dims)]
    p_x = make.p_x(classes, z_dims[0])
    up = [make.encoder([classes], width), *(make.mlp([width], width) for _ in z_dims[1:])]
    top_dim = z_dims[-1]
    *q_below, q_gaussian = [Normal(MLP(width, 2 * here, ())) for here in z_dims]
    q_top = latent.q_z(q_gaussian, top_dim)
    # the top of the ladder alone, q(z_L|x,y), from which a `vamp` prior is made
    ladder_top = guides.LadderTop(up, q_top)
    p_top = latent.p_z_of_class(top_dim, ladder_top, [x_shape], classes)
    model = models.LVAE(make.p_y(), p_top, p_below, p_x)
    guide = guides.LVAE(q_y, up, [*q_below, q_top], p_below)
    return loss.objective(*weights.with_random_weights(model, guide), bound.elbo(latent, weights))

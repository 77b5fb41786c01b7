"""Paper 000's variational classifiers, whose code has a Gaussian prior for each class."""

from __future__ import annotations

from pyro_ssl import guides, models
from pyro_ssl.distributions.conditionals import Delta, Normal
from pyro_ssl.distributions.priors import Bayes, ClassNormal, ClassPrior
from pyro_ssl.infer.elbo import TraceTopKEnum_ELBO
from pyro_ssl.objectives.adversarial import (
    Discrimination,
    DiscriminatorInputs,
    Discriminators,
    LogRatio,
)
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.objectives.terms import MutualInformation, Term
from pyro_ssl.zoo import presets
from pyro_ssl.zoo.conditional_factory import Conditionals
from pyro_ssl.zoo.options import ClassifierOptions, LossOptions, NetworkOptions


def ce(
    x_shape: tuple[int, ...],
    classes: int,
    *,
    z_dim: int = 16,
    stochastic: bool = False,
    shared_variance: bool = True,
    draws: int = 20,
    networks: NetworkOptions = presets.NETWORKS,
    classifier: ClassifierOptions = presets.PLAIN_CLASSIFIER,
    loss: LossOptions = presets.VARIATIONAL_LOSS,
) -> Objective:
    """Softmax classification, as a latent variable model whose code has no prior.

    Arguments:
        x_shape: Event shape of x.
        classes: K.
        z_dim: Size of the code z.
        stochastic: q(z|x) is a Gaussian, not a point mass at f(x).
        shared_variance: Use one variance for all classes, which makes p(y|z) a softmax layer.
        draws: Samples of a stochastic code that a prediction averages over.
        networks: Network of the code.
        classifier: Regularisation of that network, and augmentation of its input.
        loss: Terms and weights.

    Raises:
        ValueError: labeled_weight is not above 0.

    References:
        Paper 000, eq. 6 and section 5.

    >>> ce((4,), 3, z_dim=2).model.ratio
    0.0
    """
    make = Conditionals(x_shape, classes, networks, classifier, class_probs=loss.class_probs)
    p_y, p_z, guide = _priors_and_guide(make, z_dim, stochastic, shared_variance, draws)
    return _objective(loss, models.VC(p_y, p_z), guide)


def gm(
    x_shape: tuple[int, ...],
    classes: int,
    *,
    z_dim: int = 16,
    density: float = 0.1,
    stochastic: bool = False,
    shared_variance: bool = False,
    draws: int = 20,
    networks: NetworkOptions = presets.NETWORKS,
    classifier: ClassifierOptions = presets.PLAIN_CLASSIFIER,
    loss: LossOptions = presets.VARIATIONAL_LOSS,
) -> Objective:
    """Classification by a Gaussian mixture: each code should be likely under its class's prior.

    Arguments:
        x_shape: Event shape of x.
        classes: K.
        z_dim: Size of the code z.
        density: Weight of log p(z|y); the paper's is 1, which draws each class's codes to one
            point.
        stochastic: q(z|x) is a Gaussian, not a point mass at f(x).
        shared_variance: Use one variance for all classes.
        draws: Samples of a stochastic code that a prediction averages over.
        networks: Network of the code.
        classifier: Regularisation of that network, and augmentation of its input.
        loss: Terms and weights.

    Raises:
        ValueError: labeled_weight is not above 0; density is below 0.

    References:
        Paper 000, eq. 6 and section 5.

    >>> gm((4,), 3, z_dim=2).model.factorisation
    'p(y) p(z|y)'
    """
    make = Conditionals(x_shape, classes, networks, classifier, class_probs=loss.class_probs)
    p_y, p_z, guide = _priors_and_guide(make, z_dim, stochastic, shared_variance, draws)
    return _objective(loss, models.VC(p_y, p_z, density=density), guide)


def vc(
    x_shape: tuple[int, ...],
    classes: int,
    *,
    z_dim: int = 16,
    ratio: float = 0.1,
    density: float = 0.0,
    discriminator_hidden: int = 0,
    discriminator_inputs: DiscriminatorInputs = "squared",
    spectral_norm: bool = False,
    backpropagate: bool = True,
    discriminator_lr: float = 1.0,
    bounded: bool = True,
    stochastic: bool = False,
    shared_variance: bool = False,
    draws: int = 20,
    networks: NetworkOptions = presets.NETWORKS,
    classifier: ClassifierOptions = presets.PLAIN_CLASSIFIER,
    loss: LossOptions = presets.VARIATIONAL_LOSS,
) -> Objective:
    """Variational classifier: the codes of a class should follow the class's Gaussian prior.

    Arguments:
        x_shape: Event shape of x.
        classes: K.
        z_dim: Size of the code z.
        ratio: Weight of the log-ratio; the paper's is 1, its authors' later code has 0.01.
        density: Weight of log p(z|y), in addition to the log-ratio.
        discriminator_hidden: Width of the discriminators' hidden layer; 0 for none.
        discriminator_inputs: Inputs of the discriminators: z (`linear`), with its squares
            (`squared`), or with all products (`quadratic`).
        spectral_norm: Keep the discriminators' weights at singular values of 1.
        backpropagate: Pass the discriminators' gradient on to the code.
        discriminator_lr: Learning rate of the discriminators, relative to that of model and guide.
        bounded: Use 2 log(1 + exp T) less a constant instead of the paper's T, which stops codes
            that are far likelier under the prior from moving further, see `LogRatio`.
        stochastic: q(z|x) is a Gaussian, not a point mass at f(x).
        shared_variance: Use one variance for all classes.
        draws: Samples of a stochastic code that a prediction averages over.
        networks: Network of the code.
        classifier: Regularisation of that network, and augmentation of its input.
        loss: Terms and weights.

    Raises:
        ValueError: labeled_weight, ratio or discriminator_lr is not above 0; density or
            discriminator_hidden is below 0.

    References:
        Paper 000, eq. 6 and section 5.

    >>> import torch
    >>> vc((4,), 3, z_dim=2).classify(torch.zeros(5, 4)).mean.shape
    torch.Size([5, 3])
    """
    if discriminator_hidden < 0 or not discriminator_lr > 0:
        raise ValueError(
            "discriminator_hidden should be 0 or above and discriminator_lr above 0, "
            f"got {discriminator_hidden} and {discriminator_lr}"
        )
    make = Conditionals(x_shape, classes, networks, classifier, class_probs=loss.class_probs)
    p_y, p_z, guide = _priors_and_guide(make, z_dim, stochastic, shared_variance, draws)
    discriminators = Discriminators(
        z_dim,
        classes,
        hidden=discriminator_hidden,
        inputs=discriminator_inputs,
        spectral_norm=spectral_norm,
    )
    log_ratio = LogRatio(discriminators, p_z, backpropagate=backpropagate, bounded=bounded)
    model = models.VC(p_y, p_z, density=density, ratio=ratio, log_ratio=log_ratio)
    return _objective(loss, model, guide, Discrimination(log_ratio, discriminator_lr))


def _priors_and_guide(
    make: Conditionals, z_dim: int, stochastic: bool, shared_variance: bool, draws: int
) -> tuple[ClassPrior, ClassNormal, guides.VC]:
    p_y = make.p_y(learn=True)
    p_z = ClassNormal(make.classes, z_dim, shared=shared_variance)
    bayes = Bayes(p_y, p_z)
    size = 2 * z_dim if stochastic else z_dim
    network = make.code_network(size, make.classifier.dropout, make.classifier_hidden)
    if stochastic:
        return p_y, p_z, guides.VC(Normal(network), bayes, draws)
    return p_y, p_z, guides.VC(Delta(network), bayes, 1)


def _objective(
    loss: LossOptions, model: models.VC, guide: guides.VC, *discrimination: Term
) -> Objective:
    """The objective, in one joint pass: the code is evaluated once for all data and classes.

    Mutual information, with the unlabeled bound's own weight, turns the sum over y into the
    marginal objective of the code, see `models.VC`.

    Raises:
        ValueError: labeled_weight is not above 0.
    """
    if not loss.labeled_weight:
        raise ValueError(
            "labeled_weight should be a number above 0, because only labeled codes have a class; "
            f"got {loss.labeled_weight}"
        )
    terms: list[Term] = [*discrimination]
    if loss.unlabeled_weight:
        terms.insert(0, MutualInformation(loss.unlabeled_weight))
    return loss.objective(model, guide, TraceTopKEnum_ELBO(None), terms, joint_pass=True)

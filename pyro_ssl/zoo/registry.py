"""The zoo: every method as a row, the only module that knows models and guides.

A method is a function that puts conditionals into a model and a guide, and these with terms into an `Objective`. Options
that many methods share come in groups, see `options`; a method takes the groups it wants and adds its own.
All of them are keyword arguments of `build`, on the command line as in Python; a row adds the training that suits it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from numbers import Real
from typing import Any

import torch
from torch import nn

from pyro_ssl import guides, models
from pyro_ssl.distributions.conditionals import Conditional, Delta, Normal, OneHotCategorical
from pyro_ssl.distributions.priors import Bayes, ClassNormal, ClassPrior, StandardNormal
from pyro_ssl.infer.elbo import TraceTopKEnum_ELBO
from pyro_ssl.nn.layers import Shape, as_shape
from pyro_ssl.nn.networks import MLP
from pyro_ssl.nn.norm import BatchNorm
from pyro_ssl.nn.random_weights import RandomWeights
from pyro_ssl.objectives.adversarial import (
    Discrimination,
    DiscriminatorInputs,
    Discriminators,
    LogRatio,
)
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.objectives.pretrained import PretrainedEncoder
from pyro_ssl.objectives.terms import L2, Adversary, LabelLogProb, MutualInformation, Term
from pyro_ssl.utils.arguments import check_positive, check_seed
from pyro_ssl.utils.context import fixed_seed
from pyro_ssl.zoo.options import BoundOptions, LatentOptions, Loss, Networks, check_sizes, grouped


@dataclass(frozen=True)
class RandomWeightOptions:
    """Weights of the model's networks with a prior N(0, s^2) and a mean-field posterior, in place of point estimates.

    Arguments:
        bayesian: Names of the model's conditionals whose linear layers have random weights, such as (p_y,).
        prior_scale: Standard deviation s of the prior over a weight.
        log_variance: Start of the posterior's log-variance.
        local_reparameterisation: Local reparameterisation: draw what the weights make for each datum, not the weights.
        norm_from_mean_weights: Batch norm behind random weights takes its statistics from their means, not from a draw.
    """

    bayesian: Sequence[str] = ()
    prior_scale: float = 1.0
    log_variance: float = -10.0
    local_reparameterisation: bool = False
    norm_from_mean_weights: bool = True

    def __post_init__(self) -> None:
        if not self.prior_scale > 0:
            raise ValueError(f"prior_scale should be above 0, got {self.prior_scale}")
        if self.local_reparameterisation and not self.norm_from_mean_weights:
            raise ValueError(
                "norm_from_mean_weights=False needs local_reparameterisation=False: what is drawn for each datum has no other statistics"
            )

    def pair(self, model: nn.Module, guide: nn.Module) -> tuple[nn.Module, nn.Module]:
        """The pair, with random weights if there shall be any."""
        if not self.bayesian:
            return model, guide
        shared = {id(part) for part in guide.modules()}
        parts = [(name, part) for name, part in model.named_children() if isinstance(part, Conditional | nn.ModuleList)]
        known = [name for name, part in parts if any(isinstance(p, Conditional) for p in part.modules())]
        names = self.bayesian
        if not isinstance(names, Sequence) or isinstance(names, str) or not set(names) <= set(known):
            raise ValueError(
                f"bayesian should name conditionals of the model, of {', '.join(known)}; got {self.bayesian!r}"
            )
        drawn = [getattr(model, name) for name in dict.fromkeys(names)]
        normed = any(isinstance(layer, BatchNorm) for part in drawn for layer in part.modules())
        common = any(id(inner) in shared for part in drawn for inner in part.modules())
        slots = RandomWeights(*drawn)
        settings: dict[str, Any] = {
            "local_reparameterisation": self.local_reparameterisation,
            "norm_from_mean_weights": self.norm_from_mean_weights and normed,
        }
        return (
            models.Bayesian(model, slots, self.prior_scale),
            guides.MeanField(guide, slots.initial, self.log_variance, slots=slots if common else None, **settings),
        )


@dataclass(frozen=True)
class Shared:
    """The options that every generative method has, and what becomes of a pair under them."""

    nets: Networks
    loss: Loss
    sums: BoundOptions
    codes: LatentOptions
    weights: RandomWeightOptions

    def objective(self, model: nn.Module, guide: nn.Module, **others: Any) -> Objective:
        """The pair, with random weights if there shall be any, its bound, and the terms of the loss."""
        pair = self.weights.pair(model, guide)
        return self.loss.objective(*pair, self.sums.elbo(self.codes, self.weights), **others)


FEW_LABELS: dict[str, Any] = {"epochs": 32, "batch_size": 100, "labeled_batch_size": 30, "lr": 3e-3, "ema": 0.999}
"""Training with few labels and much unlabeled data: small steps, many of them, and the average of their weights."""

FEW_EPOCHS = FEW_LABELS | {"epochs": 10}
"""For what classifies by its code: trained for longer it classifies worse."""

MANY_LABELS: dict[str, Any] = {"epochs": 60, "batch_size": 100, "labeled_batch_size": 100, "lr": 3e-3, "ema": 0.999}
"""Training with as many labels as there are."""


@dataclass(frozen=True)
class Method:
    """A row of the table of methods.

    Arguments:
        build: `build(x_shape, classes, **options) -> Objective`.
        model: The model's factorisation, for the table.
        guide: The guide's.
        training: Arguments of `fit` that suit it, where they differ from `fit`'s own.
        unlabeled: Whether it learns from data without labels.
        columns: Whether it suits tables of columns; the estimator warns where it does not.
    """

    build: Callable[..., Objective]
    model: str
    guide: str
    training: dict[str, Any] = field(default_factory=dict)
    unlabeled: bool = True
    columns: bool = True


IMAGE_OPTIONS = ("classifier_network", "backbone", "warp", "crop", "flip")
"""Options of a classifier of images."""


@grouped(without=("likelihood", "sigma", "classifier_hidden", "classifier_network", "class_probs"))
def classifier(nets: Networks, *, l2: float = 0.0) -> Objective:
    r"""The supervised baseline, q(y|x) by cross-entropy on the labeled data; its defaults are those of M2's q(y|x).

    Arguments:
        l2: Weight of half the squared norm of the weights.
    """
    q_y = nets.q_y()
    return Objective(None, guides.Classifier(q_y), [LabelLogProb(), *([L2(q_y, l2)] if l2 else [])])


@grouped(
    without=(*IMAGE_OPTIONS, "noise", "dropout", "batch_norm", "class_prior", "classifier_hidden", "class_probs"),
    activation="softplus",
    likelihood="bernoulli",
    sigma=None,
)
def vae(
    nets: Networks,
    codes: LatentOptions,
    weights: RandomWeightOptions,
    *,
    z_dim: int = 50,
    probe_hidden: Sequence[int] = (),
    num_particles: int = 1,
    importance_weighted: bool = False,
) -> Objective:
    r"""M1: a variational autoencoder, and a classifier on its code, which the code does not feel.

    Arguments:
        z_dim: Z.
        probe_hidden: Hidden widths of the classifier on the code; none is logistic regression.
        num_particles: Samples of z.
        importance_weighted: The importance-weighted bound over these samples (IWAE), in place of their mean.
    """
    check_sizes("probe_hidden", probe_hidden)
    q_z = codes.q_z(nets.q_z(z_dim), z_dim)
    model = models.VAE(codes.p_z(z_dim, q_z, [nets.x_shape]), nets.p_x(z_dim))
    guide = guides.VAE(q_z, OneHotCategorical(MLP(z_dim, nets.classes, probe_hidden)))
    elbo = BoundOptions(num_particles=num_particles, importance_weighted=importance_weighted).elbo(codes, weights)
    return Objective(*weights.pair(model, guide), [LabelLogProb()], labeled_weight=None, elbo=elbo)


@grouped(labeled_weight=1.0)
def m2(shared: Shared, *, z_dim: int = 50) -> Objective:
    r"""M2, a class and a style make x; the defaults suit images in [0, 1] and few labels.

    Arguments:
        z_dim: Z.
    """
    return shared.objective(*_m2(shared.nets, shared.codes, z_dim))


def _m2(nets: Networks, codes: LatentOptions, z_dim: int) -> tuple[models.M2, guides.M2]:
    k = nets.classes
    q_y, p_x = nets.q_y(), nets.p_x(k, z_dim)
    q_z = codes.q_z(nets.q_z(z_dim, k), z_dim)
    return models.M2(nets.p_y(), codes.p_z(z_dim, q_z, [nets.x_shape, k]), p_x), guides.M2(q_y, q_z)


@grouped(labeled_weight=1.0)
def m2_adversarial(
    shared: Shared,
    *,
    z_dim: int = 50,
    adversary: float = 1.0,
    adversary_lr: float = 1.0,
) -> Objective:
    r"""M2 and a classifier of its code to play against, so that the style does not tell the class.

    Arguments:
        z_dim: Z.
        adversary: Weight of the game.
        adversary_lr: The adversary's learning rate over the pair's.
    """
    if not adversary_lr > 0:
        raise ValueError(f"adversary_lr should be above 0, got {adversary_lr}")
    nets = shared.nets
    f = OneHotCategorical(nets.mlp([z_dim], nets.classes))
    return shared.objective(*_m2(nets, shared.codes, z_dim), others=[Adversary(f, adversary, adversary_lr)])


@grouped(without=IMAGE_OPTIONS, likelihood="bernoulli", noise=0.0)
def m1_m2(
    shared: Shared,
    *,
    z_dim: int = 50,
    z1_dim: int = 50,
    m1_hidden: Sequence[int] = (500, 500),
    m1_epochs: int = 40,
    sigma1: float | None = 0.5,
) -> Objective:
    r"""M2 on fresh samples of M1's code, which `fit` trains first, on all data.

    Arguments:
        z_dim: Z, of M2.
        z1_dim: Size of M1's code, which is M2's data.
        m1_hidden: Widths of M1's hidden layers.
        m1_epochs: Epochs of M1's training.
        sigma1: Standard deviation of M2's p(z1|y,z); None learns it.
    """
    check_sizes("m1_hidden", m1_hidden)
    check_positive(m1_epochs=m1_epochs)
    if sigma1 is not None and not sigma1 > 0:
        raise ValueError(f"sigma1 should be above 0, got {sigma1}")
    nets = shared.nets
    first = vae(
        nets.x_shape, nets.classes, z_dim=z1_dim, network=nets.network, channels=nets.channels, hidden=m1_hidden,
        likelihood=nets.likelihood, sigma=nets.sigma,
    )  # fmt: skip
    features = PretrainedEncoder(first, z1_dim, {"epochs": m1_epochs, "batch_size": 200, "lr": 1e-3})
    inner = replace(nets, x_shape=(z1_dim,), network="mlp", likelihood="gaussian", sigma=sigma1)
    return shared.objective(*_m2(inner, shared.codes, z_dim), features=features)


@grouped(hidden=(500, 500))
def adgm(shared: Shared, *, z_dim: int = 100, a_dim: int = 100, draws: int = 100) -> Objective:
    r"""The auxiliary deep generative model: M2 with a richer guide, by an auxiliary variable that it draws first.

    Arguments:
        z_dim: Z.
        a_dim: A, of the auxiliary variable.
        draws: Samples of the auxiliary variable that a prediction averages over.
    """
    nets, codes = shared.nets, shared.codes
    k, q_y = nets.classes, nets.q_y(a_dim)
    q_z = codes.q_z(nets.q_z(z_dim, a_dim, k), z_dim)
    p_z, p_a = codes.p_z(z_dim, q_z, [nets.x_shape, a_dim, k]), Normal(nets.encoder([k, z_dim], 2 * a_dim))
    model = models.ADGM(nets.p_y(), p_z, nets.p_x(k, z_dim), p_a)
    return shared.objective(model, guides.Auxiliary(nets.q_z_classified(a_dim), q_y, q_z, draws))


@grouped(hidden=(500, 500))
def sdgm(shared: Shared, *, z_dim: int = 100, a_dim: int = 100, draws: int = 100) -> Objective:
    r"""The skip deep generative model: two layers of latents, with a skip past the second.

    Arguments:
        z_dim: Z.
        a_dim: A, of the second layer.
        draws: Samples of the second layer that a prediction averages over.
    """
    nets, codes = shared.nets, shared.codes
    k, q_y = nets.classes, nets.q_y(a_dim)
    q_z = codes.q_z(nets.q_z(z_dim, a_dim, k), z_dim)
    p_z, p_a = codes.p_z(z_dim, q_z, [nets.x_shape, a_dim, k]), Normal(nets.mlp([k, z_dim], 2 * a_dim))
    model = models.SDGM(nets.p_y(), p_z, p_a, nets.p_x(a_dim, k, z_dim))
    return shared.objective(model, guides.Auxiliary(nets.q_z_classified(a_dim), q_y, q_z, draws))


@grouped()
def lvae(shared: Shared, *, z_dims: Sequence[int] = (32, 16, 8)) -> Objective:
    r"""The ladder variational autoencoder with a class: a path up, merged on the way down with the model's conditionals.

    Arguments:
        z_dims: Sizes of the latents, lowest first; `flow`, `prior` and `class_prior` are of the last.
    """
    check_sizes("z_dims", z_dims)
    nets = shared.nets
    if not z_dims or not nets.hidden:
        raise ValueError(f"z_dims and hidden should not be empty, got {z_dims!r} and {nets.hidden!r}")
    width, q_y = nets.hidden[-1], nets.q_y()
    p_z = [Normal(nets.mlp([above], 2 * here)) for here, above in pairwise(z_dims)]
    p_x = nets.p_x(nets.classes, z_dims[0])
    up = [nets.encoder([nets.classes], width), *(nets.mlp([width], width) for _ in z_dims[1:])]
    *q_below, q_last = [Normal(MLP(width, 2 * here, ())) for here in z_dims]
    q_top = shared.codes.q_z(q_last, z_dims[-1])
    p_top = shared.codes.p_z(z_dims[-1], guides.LadderTop(up, q_top), [nets.x_shape, nets.classes])
    model = models.LVAE(nets.p_y(), p_top, p_z, p_x)
    return shared.objective(model, guides.LVAE(q_y, up, [*q_below, q_top], p_z))


LATENT: dict[str, Any] = {"balance": 0.0, "alpha": 0.0, "noise": 0.0, "dropout": 0.0, "sigma": 1.0}
"""The paper's, and sigma, which it leaves open: with noise and dropout these methods classify worse."""


@grouped(without=("class_prior", "common_random_numbers"), **LATENT, labeled_weight=0.5)
def latent_classifier(shared: Shared, *, z_dim: int = 50, draws: int = 100) -> Objective:
    r"""Paper 003's model: the code determines the class, and both make x; `labeled_weight` is the paper's lambda.

    Arguments:
        z_dim: Z.
        draws: Samples of the code that a prediction averages over.
    """
    model, q_z, p_y = _latent_classifier(shared.nets, shared.codes, z_dim)
    return shared.objective(model, guides.LatentClassifier(q_z, p_y, draws))


def _latent_classifier(
    nets: Networks, codes: LatentOptions, z_dim: int
) -> tuple[models.LatentClassifier, nn.Module, Conditional]:
    p_y = nets.p_y_of(z_dim)
    q_z = codes.q_z(nets.q_z_classified(z_dim, nets.dropout), z_dim)
    model = models.LatentClassifier(codes.p_z(z_dim, q_z, [nets.x_shape]), p_y, nets.p_x(nets.classes, z_dim))
    return model, q_z, p_y


@grouped(without=("class_prior", "top_k", "common_random_numbers"), **LATENT, labeled_weight=0.5)
def latent_classifier_exact(shared: Shared, *, z_dim: int = 50, draws: int = 100) -> Objective:
    r"""The same model under its exact bound: y is summed inside the logarithm, log p(x|z) = log sum_y p(y|z) p(x|y,z).

    Arguments:
        z_dim: Z.
        draws: Samples of the code that a prediction averages over.
    """
    model, q_z, p_y = _latent_classifier(shared.nets, shared.codes, z_dim)
    return shared.objective(model, guides.LatentEncoder(q_z, p_y, draws))


@grouped(without=("class_prior", "top_k", "common_random_numbers"), **LATENT, labeled_weight=1e-3)
def latent_classifier_simplified(shared: Shared, *, z_dim: int = 50, draws: int = 100) -> Objective:
    r"""Paper 003's simplification: given the code, class and x are independent; `labeled_weight` is the paper's lambda.

    Arguments:
        z_dim: Z.
        draws: Samples of the code that a prediction averages over.
    """
    nets, codes = shared.nets, shared.codes
    p_y = nets.p_y_of(z_dim)
    q_z = codes.q_z(nets.q_z_classified(z_dim, nets.dropout), z_dim)
    model = models.SimplifiedLatentClassifier(codes.p_z(z_dim, q_z, [nets.x_shape]), p_y, nets.p_x(z_dim))
    return shared.objective(model, guides.LatentEncoder(q_z, p_y, draws))


@grouped(without=("class_prior", "top_k", "common_random_numbers"), **LATENT, labeled_weight=0.5)
def latent_classifier_split(shared: Shared, *, z_y_dim: int = 10, z_dim: int = 50, draws: int = 100) -> Objective:
    r"""Paper 003's special case: the code has two parts, of which the first determines the class.

    Arguments:
        z_y_dim: Size of the part that determines the class; `flow` and `prior` are of this part.
        z_dim: Size of the rest, N(0, I) with a Gaussian posterior.
        draws: Samples of the code that a prediction averages over.
    """
    nets, codes = shared.nets, shared.codes
    p_y = nets.p_y_of(z_y_dim)
    q_z_y = codes.q_z(nets.q_z_classified(z_y_dim, nets.dropout), z_y_dim)
    p_z_y, p_z_u = codes.p_z(z_y_dim, q_z_y, [nets.x_shape]), StandardNormal(z_dim)
    model = models.SplitLatentClassifier(p_z_y, p_z_u, p_y, nets.p_x(z_y_dim, z_dim))
    guide = guides.SplitLatentEncoder(q_z_y, nets.q_z(z_dim, z_y_dim), p_y, draws)
    return shared.objective(model, guide)


def _sslpe(
    shared: Shared,
    *,
    z_dim: int = 50,
    gibbs_steps: int = 10,
    gibbs_chains: int = 1,
    mixture: bool = False,
    regression: bool = False,
) -> Objective:
    r"""Paper 002's model: z makes x, both make y, and the model itself predicts, by Gibbs sampling.

    With `bayesian=(p_y,)`, the default of `sslapd`, p(y|x,z) has random weights, drawn anew in each step of the sampler.

    Arguments:
        z_dim: Z.
        gibbs_steps: Steps of the Gibbs sampler that predicts.
        gibbs_chains: Chains of each datum that a prediction averages.
        mixture: Draw z from the mixture over classes, with its gradient, in place of summing over classes: p(x|z) is
            evaluated once, however many there are. KL warm-up then reaches y too; single gradients can be large, see
            `mixtures.MixtureOfNormals`.
        regression: y is a real vector, of size `classes`, and not a class; it has no balance.

    Raises:
        ValueError: The mixture is asked for with a flow, free bits, or for a real y; local weights with an
            importance-weighted bound; MIER or consistency of a real y.
    """
    nets, codes = shared.nets, shared.codes
    if regression:
        loss = shared.loss
        if not gibbs_steps:
            raise ValueError("gibbs_steps should be above 0 for a real y, which the model predicts; got 0")
        if loss.entropy or loss.mutual_information or loss.consistency or loss.class_probs is not None:
            said = "entropy, mutual_information, consistency and class_probs"
            raise ValueError(f"{said} are of classes: they go with no regression")
        shared = replace(shared, loss=replace(loss, balance=0.0))
    if mixture and (codes.flow or regression or shared.sums.free_bits):
        raise ValueError("mixture is of Gaussians over classes: it goes with no flow, no regression and no free_bits")
    k, q_y = nets.classes, nets.q_y(real=regression)
    q_z = codes.q_z(nets.q_z(z_dim, k), z_dim)
    p_x, p_y = nets.p_x(z_dim), nets.q_y(z_dim, real=regression)
    model = models.SSLPE(codes.p_z(z_dim, q_z, [nets.x_shape, k]), p_x, p_y)
    guide = (guides.Mixture if mixture else guides.M2)(q_y, q_z)
    return shared.objective(model, guide, gibbs_steps=gibbs_steps, gibbs_chains=gibbs_chains)


sslpe = grouped(without=("class_prior",))(_sslpe)
sslapd = grouped(without=("class_prior",), bayesian=("p_y",), local_reparameterisation=True)(_sslpe)


VARIATIONAL: dict[str, Any] = {
    "without": ("classifier_hidden", "classifier_network", "likelihood", "sigma"),
    "labeled_weight": 1.0, "balance": 0.0, "noise": 0.0, "dropout": 0.0,
}  # fmt: skip


@grouped(**VARIATIONAL)
def ce(
    nets: Networks,
    loss: Loss,
    *,
    z_dim: int = 16,
    stochastic: bool = False,
    shared_variance: bool = True,
    draws: int = 20,
) -> Objective:
    r"""Softmax classification, as a latent variable model whose code has no prior.

    Arguments:
        z_dim: Z.
        stochastic: q(z|x) is a Gaussian, and not all mass at f(x).
        shared_variance: One variance for all classes, which makes p(y|z) a softmax layer.
        draws: Samples of a stochastic code that a prediction averages over.

    Raises:
        ValueError: labeled_weight is not above 0.
    """
    p_y, p_z, guide = _variational(nets, z_dim, stochastic, shared_variance, draws)
    return _of_class(loss, models.VC(p_y, p_z), guide)


@grouped(**VARIATIONAL)
def gm(
    nets: Networks, loss: Loss, *, z_dim: int = 16, density: float = 0.1, stochastic: bool = False,
    shared_variance: bool = False, draws: int = 20,
) -> Objective:  # fmt: skip
    r"""A classifier whose code has a Gaussian prior for each class, and is put where that is likeliest.

    Arguments:
        z_dim: Z.
        density: Weight of log p(z|y); the paper's is 1, which draws each class's codes to one point.
        stochastic: q(z|x) is a Gaussian, and not all mass at f(x).
        shared_variance: One variance for all classes.
        draws: Samples of a stochastic code that a prediction averages over.

    Raises:
        ValueError: labeled_weight is not above 0; density is below 0.
    """
    p_y, p_z, guide = _variational(nets, z_dim, stochastic, shared_variance, draws)
    return _of_class(loss, models.VC(p_y, p_z, density=density), guide)


@grouped(**VARIATIONAL)
def vc(
    nets: Networks, loss: Loss, *, z_dim: int = 16, ratio: float = 0.1, density: float = 0.0, discriminator_hidden: int = 0,
    discriminator_inputs: DiscriminatorInputs = "squared", spectral_norm: bool = False, backpropagate: bool = True, discriminator_lr: float = 1.0, bounded: bool = True,
    stochastic: bool = False, shared_variance: bool = False, draws: int = 20,
) -> Objective:  # fmt: skip
    r"""The variational classifier: within each class, codes shall be distributed as the class's Gaussian prior.

    Arguments:
        z_dim: Z.
        ratio: Weight of the log-ratio; the paper's is 1, its authors' later code has 0.01.
        density: Weight of log p(z|y) beside it.
        discriminator_hidden: Width of the discriminators' hidden layer; 0 for none.
        discriminator_inputs: What the discriminators see of z: `linear`, `squared`, `quadratic`.
        spectral_norm: Keep the discriminators' weights at singular values of 1.
        backpropagate: Whether the discriminators' gradient reaches the code.
        discriminator_lr: The discriminators' learning rate over the pair's.
        bounded: In place of T, the paper's, 2 log(1 + exp T) less a constant, which drives no code further that is far
            likelier under the prior, see `LogRatio`.
        stochastic: q(z|x) is a Gaussian, and not all mass at f(x).
        shared_variance: One variance for all classes.
        draws: Samples of a stochastic code that a prediction averages over.

    Raises:
        ValueError: labeled_weight, ratio or discriminator_lr is not above 0; density or discriminator_hidden is below 0.
    """
    if discriminator_hidden < 0 or not discriminator_lr > 0:
        raise ValueError(
            "discriminator_hidden should be 0 or above and discriminator_lr above 0, "
            f"got {discriminator_hidden} and {discriminator_lr}"
        )
    p_y, p_z, guide = _variational(nets, z_dim, stochastic, shared_variance, draws)
    t = Discriminators(
        z_dim, nets.classes, hidden=discriminator_hidden, inputs=discriminator_inputs, spectral_norm=spectral_norm
    )
    log_ratio = LogRatio(t, p_z, backpropagate=backpropagate, bounded=bounded)
    model = models.VC(p_y, p_z, density=density, ratio=ratio, log_ratio=log_ratio)
    return _of_class(loss, model, guide, Discrimination(log_ratio, discriminator_lr))


def _variational(
    nets: Networks, z_dim: int, stochastic: bool, shared_variance: bool, draws: int
) -> tuple[ClassPrior, ClassNormal, guides.VC]:
    p_y, p_z = nets.p_y(learn=True), ClassNormal(nets.classes, z_dim, shared=shared_variance)
    code = nets.code_network(2 * z_dim if stochastic else z_dim, nets.dropout)
    q_z = Normal(code) if stochastic else Delta(code)
    return p_y, p_z, guides.VC(q_z, Bayes(p_y, p_z), draws if stochastic else 1)


def _of_class(loss: Loss, model: models.VC, guide: guides.VC, *parameter_groups: Term) -> Objective:
    """Its code is evaluated once for all data, of a step and for all classes: so y is enumerated, and labeled data with it.

    Mutual information, with the unlabeled bound's own weight, makes that the code's marginal objective, see `models.VC`.
    """
    if not loss.labeled_weight:
        raise ValueError(
            f"labeled_weight should be a number above 0, for codes of a class are labeled ones; got {loss.labeled_weight}"
        )
    marginal = [MutualInformation(loss.unlabeled_weight)] if loss.unlabeled_weight else []
    return loss.objective(
        model, guide, TraceTopKEnum_ELBO(None), others=[*marginal, *parameter_groups], joint_pass=True
    )


METHODS: dict[str, Method] = {
    "classifier": Method(
        classifier,
        "",
        "q(y|x)",
        training={"epochs": 1000, "batch_size": 100, "lr": 3e-3, "ema": 0.999},
        unlabeled=False,
    ),
    "vae": Method(vae, "p(z) p(x|z)", "q(z|x)", columns=False),
    "m2": Method(m2, "p(y) p(z) p(x|y,z)", "q(y|x) q(z|x,y)", FEW_LABELS),
    "m1_m2": Method(m1_m2, "p(y) p(z) p(z1|y,z), z1 ~ M1", "q(y|z1) q(z|z1,y)", FEW_LABELS),
    "m2_adversarial": Method(m2_adversarial, "p(y) p(z) p(x|y,z)", "q(y|x) q(z|x,y), against f(y|z)", FEW_LABELS),
    "adgm": Method(adgm, "p(y) p(z) p(x|y,z) p(a|x,y,z)", "q(a|x) q(y|x,a) q(z|x,a,y)", FEW_LABELS),
    "sdgm": Method(sdgm, "p(y) p(z) p(a|y,z) p(x|a,y,z)", "q(a|x) q(y|x,a) q(z|x,a,y)", FEW_LABELS),
    "lvae": Method(
        lvae, "p(y) p(z_L) prod p(z_l|z_l+1) p(x|y,z_1)", "q(y|x) q(z_L|x,y) prod q(z_l|z_l+1,x,y)", FEW_LABELS
    ),
    "sslpe": Method(sslpe, "p(z) p(x|z) p(y|x,z)", "q(y|x) q(z|x,y)", FEW_LABELS),
    "sslapd": Method(sslapd, "p(W) p(z) p(x|z) p(y|x,z,W)", "q(W) q(y|x) q(z|x,y)", FEW_LABELS),
    "latent_classifier": Method(latent_classifier, "p(z) p(y|z) p(x|y,z)", "q(z|x) p(y|z)", FEW_EPOCHS),
    "latent_classifier_exact": Method(latent_classifier_exact, "p(z) p(y|z) p(x|y,z)", "q(z|x)", FEW_EPOCHS),
    "latent_classifier_simplified": Method(latent_classifier_simplified, "p(z) p(y|z) p(x|z)", "q(z|x)", FEW_EPOCHS),
    "latent_classifier_split": Method(
        latent_classifier_split, "p(z_y) p(z_u) p(y|z_y) p(x|z_y,z_u)", "q(z_y|x) q(z_u|x,z_y)", FEW_EPOCHS
    ),
    "ce": Method(ce, "p(y)", "q(z|x), p(y|z) by Bayes' rule", MANY_LABELS),
    "gm": Method(gm, "p(y) p(z|y)", "the same", MANY_LABELS),
    "vc": Method(vc, "p(y) / exp T(y,z)", "the same", MANY_LABELS),
}


def method(name: str) -> Method:
    """The row of a method.

    Raises:
        ValueError: There is none of that name; the message lists those there are.
    """
    if name not in METHODS:
        raise ValueError(f"method should be one of {', '.join(METHODS)}; got {name!r}")
    return METHODS[name]


def options_of(name: str) -> dict[str, Any]:
    """A method's options and their defaults."""
    return dict(method(name).build.__kwdefaults__ or {})


INPUT_LIMIT = 10.0
"""Networks of the zoo start from weights for numbers of about 1; by Chebyshev, 1 % of a standardised column is beyond 10.

A sigma above 1 says that the data are in larger units, and the limit is in these.
"""


def build(name: str, x_shape: Shape, classes: int, *, seed: int = 0, **options: Any) -> Objective:
    """The objective of a method, its weights drawn by `seed`; the caller's random state is left as it was.

    Under `torch.no_grad` or `torch.inference_mode` too, weights are those of training.

    Raises:
        ValueError: The method is unknown, or an option is.
    """
    check_seed(seed)
    row, known = method(name), options_of(name)
    if unknown := sorted(options.keys() - known.keys()):
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    with torch.inference_mode(False), torch.enable_grad(), fixed_seed(seed):
        objective = row.build(as_shape(x_shape), classes, **options)
    sigma = options.get("sigma")
    unit = max(1.0, float(sigma)) if isinstance(sigma, Real) else 1.0
    objective.input_limit = INPUT_LIMIT * unit
    return objective

"""Paper 002's models, SSLPE and SSLAPD, which predict by Gibbs sampling."""

from __future__ import annotations

from dataclasses import replace

from pyro_ssl import guides, models
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.objectives.predictors import GibbsPredictor, GuidePredictor, LabelPredictor
from pyro_ssl.utils.arguments import check_positive
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


def sslpe(
    x_shape: tuple[int, ...],
    classes: int,
    *,
    z_dim: int = 50,
    gibbs_steps: int = 10,
    gibbs_chains: int = 1,
    gibbs_hard: bool = False,
    mixture: bool = False,
    regression: bool = False,
    networks: NetworkOptions = presets.NETWORKS,
    classifier: ClassifierOptions = presets.CLASSIFIER,
    likelihood: LikelihoodOptions = presets.LIKELIHOOD,
    latent: LatentOptions = presets.LATENT,
    loss: LossOptions = presets.LOSS,
    bound: BoundOptions = presets.BOUND,
    weights: RandomWeightOptions = presets.POINT_WEIGHTS,
) -> Objective:
    """Paper 002's model: z generates x, both generate y; predicts by Gibbs sampling.

    Arguments:
        x_shape: Event shape of x.
        classes: K, or the size of a real y.
        z_dim: Size of the code z.
        gibbs_steps: Steps of the Gibbs sampler in prediction; 0 predicts by q(y|x).
        gibbs_chains: Chains for each datum that a prediction averages over.
        gibbs_hard: Average the drawn labels of the chains, as in eq. 4.24, instead of their
            probabilities.
        mixture: Draw z from the mixture over classes, with its gradient, instead of summing over
            classes: p(x|z) is evaluated once, whatever the number of classes. KL warm-up then
            applies to y too; single gradients can be large, see `MixtureOfNormals`.
        regression: y is a real vector of size `classes`, not a class; there is no class balance.
        networks: Networks of all conditionals.
        classifier: Networks of q(y|x) and p(y|x,z).
        likelihood: Family of p(x|z).
        latent: Families of q(z|x,y) and p(z).
        loss: Terms and weights.
        bound: Options of the bound.
        weights: Random weights of the model.

    Raises:
        ValueError: A mixture with a flow, free bits or a real y; an importance-weighted bound with
            local reparameterisation; MIER, consistency or class_probs with a real y.

    References:
        Paper 002, chapter 4.

    >>> sslpe((4,), 3, z_dim=2).model.factorisation
    'p(z) p(x|z) p(y|x,z)'
    """
    if regression:
        _check_regression(loss, gibbs_steps)
        loss = replace(loss, balance=0.0)
    if mixture and (latent.flow or regression or bound.free_bits):
        raise ValueError(
            "mixture is of Gaussians over classes: it cannot be combined with flow, regression or "
            "free_bits"
        )
    make = Conditionals(x_shape, classes, networks, classifier, likelihood, loss.class_probs)
    q_y = make.q_y(real=regression)
    q_z = latent.q_z(make.q_z(z_dim, classes), z_dim)
    p_x = make.p_x(z_dim)
    p_y = make.q_y(z_dim, real=regression)
    # p(z) does not depend on y, but y is the last input of q(z|x,y), as pseudo-inputs need it
    model = models.SSLPE(latent.p_z(z_dim, q_z, [x_shape, classes]), p_x, p_y)
    guide = guides.Mixture(q_y, q_z) if mixture else guides.M2(q_y, q_z)
    return loss.objective(
        *weights.with_random_weights(model, guide),
        bound.elbo(latent, weights),
        predictor=_predictor(gibbs_steps, gibbs_chains, gibbs_hard),
    )


def sslapd(
    x_shape: tuple[int, ...],
    classes: int,
    *,
    z_dim: int = 50,
    gibbs_steps: int = 10,
    gibbs_chains: int = 1,
    gibbs_hard: bool = False,
    mixture: bool = False,
    regression: bool = False,
    networks: NetworkOptions = presets.NETWORKS,
    classifier: ClassifierOptions = presets.CLASSIFIER,
    likelihood: LikelihoodOptions = presets.LIKELIHOOD,
    latent: LatentOptions = presets.LATENT,
    loss: LossOptions = presets.LOSS,
    bound: BoundOptions = presets.BOUND,
    weights: RandomWeightOptions = presets.RANDOM_CLASSIFIER,
) -> Objective:
    """SSLPE with random weights in p(y|x,z), drawn anew in each step of the Gibbs sampler.

    Arguments:
        x_shape: Event shape of x.
        classes: K, or the size of a real y.
        z_dim: Size of the code z.
        gibbs_steps: Steps of the Gibbs sampler in prediction; 0 predicts by q(y|x).
        gibbs_chains: Chains for each datum that a prediction averages over.
        gibbs_hard: Average the drawn labels of the chains, as in eq. 4.24, instead of their
            probabilities.
        mixture: Draw z from the mixture over classes, see `sslpe`.
        regression: y is a real vector of size `classes`, not a class; there is no class balance.
        networks: Networks of all conditionals.
        classifier: Networks of q(y|x) and p(y|x,z).
        likelihood: Family of p(x|z).
        latent: Families of q(z|x,y) and p(z).
        loss: Terms and weights.
        bound: Options of the bound.
        weights: Random weights of the model.

    Raises:
        ValueError: See `sslpe`.

    References:
        Paper 002, section 4.3.

    >>> type(sslapd((4,), 3, z_dim=2).model).__name__
    'Bayesian'
    """
    return sslpe(
        x_shape,
        classes,
        z_dim=z_dim,
        gibbs_steps=gibbs_steps,
        gibbs_chains=gibbs_chains,
        gibbs_hard=gibbs_hard,
        mixture=mixture,
        regression=regression,
        networks=networks,
        classifier=classifier,
        likelihood=likelihood,
        latent=latent,
        loss=loss,
        bound=bound,
        weights=weights,
    )


def _predictor(gibbs_steps: int, gibbs_chains: int, gibbs_hard: bool) -> LabelPredictor:
    """Predict by Gibbs sampling in the model, or, with 0 steps, by q(y|x)."""
    if gibbs_steps == 0:
        return GuidePredictor()
    check_positive(gibbs_steps=gibbs_steps, gibbs_chains=gibbs_chains)
    return GibbsPredictor(gibbs_steps, gibbs_chains, gibbs_hard)


def _check_regression(loss: LossOptions, gibbs_steps: int) -> None:
    """Raise ValueError for options that need classes."""
    if not gibbs_steps:
        raise ValueError(
            "gibbs_steps should be above 0 for a real y, which the model predicts; got 0"
        )
    of_entropy = loss.entropy or loss.mutual_information or loss.consistency
    if of_entropy or loss.class_probs is not None:
        raise ValueError(
            "entropy, mutual_information, consistency and class_probs need classes: "
            "they cannot be combined with regression"
        )

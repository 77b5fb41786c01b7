"""M1+M2: a method on the code of a first model, which `fit` trains beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pyro_ssl.objectives.objective import Objective
from pyro_ssl.objectives.pretrained_encoder import PretrainedEncoder
from pyro_ssl.utils.arguments import check_positive
from pyro_ssl.zoo import presets
from pyro_ssl.zoo.conditional_factory import Conditionals
from pyro_ssl.zoo.generative import m2_pair, vae
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


def m1_m2(
    x_shape: tuple[int, ...],
    classes: int,
    *,
    z_dim: int = 50,
    z1_dim: int = 50,
    m1_hidden: Sequence[int] = (500, 500),
    m1_epochs: int = 40,
    sigma1: float | None = 0.5,
    networks: NetworkOptions = presets.NETWORKS,
    classifier: ClassifierOptions = presets.CLASSIFIER_OF_CODES,
    likelihood: LikelihoodOptions = presets.M1_M2_PIXELS,
    latent: LatentOptions = presets.LATENT,
    loss: LossOptions = presets.LOSS,
    bound: BoundOptions = presets.BOUND,
    weights: RandomWeightOptions = presets.POINT_WEIGHTS,
) -> Objective:
    """M2 on samples of the code of M1, which `fit` trains first, on all data.

    Arguments:
        x_shape: Event shape of x.
        classes: K.
        z_dim: Size of M2's style z.
        z1_dim: Size of M1's code z1, which is M2's data.
        m1_hidden: Widths of M1's hidden layers.
        m1_epochs: Epochs of M1's training.
        sigma1: Standard deviation of M2's p(z1|y,z); None learns it.
        networks: Networks of M2, which are MLPs; `network` and `channels` apply to M1.
        classifier: Network of q(y|z1).
        likelihood: Family of M1's p(x|z1).
        latent: Families of M2's q(z|z1,y) and p(z).
        loss: Terms and weights of M2.
        bound: Sum over classes and samples of M2.
        weights: Random weights of M2's model.

    Raises:
        ValueError: A size, m1_epochs or sigma1 is not above 0.

    References:
        Kingma et al. 2014.

    >>> m1_m2((4,), 3, z1_dim=2).model.p_x.network.out_shape
    (2,)
    """
    check_sizes("m1_hidden", m1_hidden)
    check_positive(m1_epochs=m1_epochs)
    if sigma1 is not None and not sigma1 > 0:
        raise ValueError(f"sigma1 should be above 0, got {sigma1}")
    m1 = vae(
        x_shape,
        classes,
        z_dim=z1_dim,
        networks=replace(
            presets.VAE_NETWORKS,
            network=networks.network,
            channels=networks.channels,
            hidden=m1_hidden,
        ),
        likelihood=likelihood,
    )
    encoder = PretrainedEncoder(m1, z1_dim, {"epochs": m1_epochs, **presets.M1_TRAINING})
    make = Conditionals(
        (z1_dim,),
        classes,
        replace(networks, network="mlp"),
        classifier,
        LikelihoodOptions("gaussian", sigma1),
        loss.class_probs,
    )
    pair = weights.with_random_weights(*m2_pair(make, latent, z_dim))
    return loss.objective(*pair, bound.elbo(latent, weights), features=encoder)

"""Modules that map tensors to a distribution: conditionals, priors, flows and mixtures."""

from pyro_ssl.distributions.conditionals import (
    Bernoulli,
    Delta,
    Gaussian,
    HeteroscedasticGaussian,
    Normal,
    OneHotCategorical,
)
from pyro_ssl.distributions.flows import Flow
from pyro_ssl.distributions.mixture import MixtureOfNormals
from pyro_ssl.distributions.priors import Bayes, ClassNormal, ClassPrior, StandardNormal, VampPrior

__all__ = [
    "Bayes",
    "Bernoulli",
    "ClassNormal",
    "ClassPrior",
    "Delta",
    "Flow",
    "Gaussian",
    "HeteroscedasticGaussian",
    "MixtureOfNormals",
    "Normal",
    "OneHotCategorical",
    "StandardNormal",
    "VampPrior",
]

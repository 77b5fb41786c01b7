"""Modules that map tensors to a distribution: conditionals, priors, flows and mixtures."""

from pyro_ssl.distributions.conditionals import (
    Bayes,
    Bernoulli,
    ClassNormal,
    ClassPrior,
    Delta,
    Gaussian,
    Normal,
    OneHotCategorical,
    StandardNormal,
)
from pyro_ssl.distributions.flows import Flow, VampPrior
from pyro_ssl.distributions.mixture import MixtureOfNormals

__all__ = [
    "Bayes",
    "Bernoulli",
    "ClassNormal",
    "ClassPrior",
    "Delta",
    "Flow",
    "Gaussian",
    "MixtureOfNormals",
    "Normal",
    "OneHotCategorical",
    "StandardNormal",
    "VampPrior",
]

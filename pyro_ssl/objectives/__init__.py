"""The loss: the ELBO of a pair, terms that are added to it, and encoders that are trained beforehand."""

from pyro_ssl.objectives.adversarial import Discrimination, Discriminators, LogRatio
from pyro_ssl.objectives.batch import Batch
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.objectives.pretrained import PretrainedEncoder
from pyro_ssl.objectives.terms import (
    L2,
    Adversary,
    ClassBalance,
    Consistency,
    Entropy,
    LabelLogProb,
    MutualInformation,
    Term,
)

__all__ = [
    "L2",
    "Adversary",
    "ClassBalance",
    "Batch",
    "Consistency",
    "Discrimination",
    "Discriminators",
    "Entropy",
    "PretrainedEncoder",
    "LabelLogProb",
    "LogRatio",
    "MutualInformation",
    "Objective",
    "Term",
]

"""The loss: the ELBO of a model/guide pair, further terms, and pretrained encoders."""

from pyro_ssl.objectives.adversarial import Adversary, Discrimination, Discriminators, LogRatio
from pyro_ssl.objectives.batch import Batch
from pyro_ssl.objectives.loss_context import LossContext
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.objectives.predictors import GibbsPredictor, GuidePredictor, LabelPredictor
from pyro_ssl.objectives.pretrained_encoder import PretrainedEncoder
from pyro_ssl.objectives.terms import (
    L2,
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
    "Batch",
    "ClassBalance",
    "Consistency",
    "Discrimination",
    "Discriminators",
    "Entropy",
    "GibbsPredictor",
    "GuidePredictor",
    "LabelLogProb",
    "LabelPredictor",
    "LogRatio",
    "LossContext",
    "MutualInformation",
    "Objective",
    "PretrainedEncoder",
    "Term",
]

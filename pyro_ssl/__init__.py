# ruff: noqa: F401
"""Semi-supervised deep generative models and variational classifiers as Pyro model/guide pairs.

`SemiSupervisedClassifier` is for scikit-learn users, `zoo.build` and `fit` for experiments, and
`Objective` with a model, a guide and terms of your own for research. The names below are the public
API; each is imported when it is first used.

>>> import pyro_ssl
>>> pyro_ssl.zoo.method("m2").guide
'q(y|x) q(z|x,y)'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_HOME = {
    "SemiSupervisedClassifier": "estimator",
    "SemiSupervisedRegressor": "estimator",
    "ActiveLearner": "active.learner",
    "compare": "comparison.compare",
    "Objective": "objectives.objective",
    "Batch": "objectives.batch",
    "Term": "objectives.terms",
    "LabelLogProb": "objectives.terms",
    "Entropy": "objectives.terms",
    "Consistency": "objectives.terms",
    "MutualInformation": "objectives.terms",
    "ClassBalance": "objectives.terms",
    "L2": "objectives.terms",
    "Adversary": "objectives.adversarial",
    "GuidePredictor": "objectives.predictors",
    "GibbsPredictor": "objectives.predictors",
    "PretrainedEncoder": "objectives.pretrained_encoder",
    "Flow": "distributions.flows",
    "VampPrior": "distributions.priors",
    "MixtureOfNormals": "distributions.mixture",
    "TraceTopKEnum_ELBO": "infer.elbo",
    "EarlyStopping": "training.callbacks",
    "Accuracy": "evaluation.held_out_accuracy",
    "fit": "training.fit",
    "predict_proba": "prediction.predict",
    "bounds": "prediction.bounds",
    "class_bounds": "prediction.bounds",
    "log_evidence": "prediction.bounds",
    "gibbs": "prediction.gibbs",
    "weight_kl": "prediction.bounds",
    "generate": "prediction.generate",
    "reconstruct": "prediction.generate",
    "SavedModel": "zoo.saved_model",
    "one_hot": "utils.arguments",
    "eval_mode": "utils.context",
    "fixed_seed": "utils.context",
    "draw_labels": "data.label_draws",
    "LabelDraw": "data.label_draws",
    "Dataset": "data.datasets",
    "MLP": "nn.networks",
    "ConvEncoder": "nn.networks",
    "ConvDecoder": "nn.networks",
    "SplitLinear": "nn.layers",
    "Flat": "nn.layers",
    "Normal": "distributions.conditionals",
    "Bernoulli": "distributions.conditionals",
    "Gaussian": "distributions.conditionals",
    "HeteroscedasticGaussian": "distributions.conditionals",
    "OneHotCategorical": "distributions.conditionals",
    "StandardNormal": "distributions.priors",
    "ClassPrior": "distributions.priors",
    "ClassNormal": "distributions.priors",
    "Delta": "distributions.conditionals",
    "Bayes": "distributions.priors",
    "Discriminators": "objectives.adversarial",
    "Discrimination": "objectives.adversarial",
    "LogRatio": "objectives.adversarial",
    "Backbone": "nn.backbones",
    "Noise": "nn.augmentation",
}
_MODULES = (
    "active",
    "comparison",
    "data",
    "distributions",
    "estimator",
    "evaluation",
    "guides",
    "infer",
    "model_selection",
    "models",
    "nn",
    "objectives",
    "prediction",
    "sweeps",
    "training",
    "types",
    "zoo",
)

_EVALUATION = ("attacks", "calibration", "corruptions", "metrics", "ood", "plots")
"""Files of `evaluation` that can also be imported from the top."""

__all__ = [*_HOME, *_MODULES, *_EVALUATION]

if TYPE_CHECKING:
    from pyro_ssl.active.learner import ActiveLearner
    from pyro_ssl.comparison.compare import compare
    from pyro_ssl.data.datasets import Dataset
    from pyro_ssl.data.label_draws import LabelDraw, draw_labels
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
    from pyro_ssl.distributions.priors import (
        Bayes,
        ClassNormal,
        ClassPrior,
        StandardNormal,
        VampPrior,
    )
    from pyro_ssl.estimator import SemiSupervisedClassifier, SemiSupervisedRegressor
    from pyro_ssl.evaluation.held_out_accuracy import Accuracy
    from pyro_ssl.infer.elbo import TraceTopKEnum_ELBO
    from pyro_ssl.nn.augmentation import Noise
    from pyro_ssl.nn.backbones import Backbone
    from pyro_ssl.nn.layers import Flat, SplitLinear
    from pyro_ssl.nn.networks import MLP, ConvDecoder, ConvEncoder
    from pyro_ssl.objectives.adversarial import Adversary, Discrimination, Discriminators, LogRatio
    from pyro_ssl.objectives.batch import Batch
    from pyro_ssl.objectives.objective import Objective
    from pyro_ssl.objectives.predictors import GibbsPredictor, GuidePredictor
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
    from pyro_ssl.prediction.bounds import bounds, class_bounds, log_evidence, weight_kl
    from pyro_ssl.prediction.generate import generate, reconstruct
    from pyro_ssl.prediction.gibbs import gibbs
    from pyro_ssl.prediction.predict import predict_proba
    from pyro_ssl.training import EarlyStopping, fit
    from pyro_ssl.utils.arguments import one_hot
    from pyro_ssl.utils.context import eval_mode, fixed_seed
    from pyro_ssl.zoo.saved_model import SavedModel


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"pyro_ssl.{name}")
    if name in _EVALUATION:
        return import_module(f"pyro_ssl.evaluation.{name}")
    if name in _HOME:
        return getattr(import_module(f"pyro_ssl.{_HOME[name]}"), name)
    raise AttributeError(f"module 'pyro_ssl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

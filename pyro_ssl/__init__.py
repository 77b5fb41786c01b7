# ruff: noqa: F401
"""Semi-supervised deep generative models and variational classifiers as Pyro model/guide pairs.

`SemiSupervisedClassifier` for scikit-learn users; `zoo.build` and `fit` for experiments; `Objective` with a model, a
guide and terms of one's own for research. The names below are the public API; they are imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "SemiSupervisedClassifier": "estimator",
    "SemiSupervisedRegressor": "estimator",
    "ActiveLearner": "active.learner",
    "Objective": "objectives.objective",
    "Batch": "objectives.batch",
    "Term": "objectives.terms",
    "LabelLogProb": "objectives.terms",
    "Entropy": "objectives.terms",
    "Consistency": "objectives.terms",
    "MutualInformation": "objectives.terms",
    "ClassBalance": "objectives.terms",
    "L2": "objectives.terms",
    "Adversary": "objectives.terms",
    "PretrainedEncoder": "objectives.pretrained",
    "Flow": "distributions.flows",
    "VampPrior": "distributions.flows",
    "MixtureOfNormals": "distributions.mixture",
    "TraceTopKEnum_ELBO": "infer.elbo",
    "EarlyStopping": "training.fit",
    "fit": "training.fit",
    "predict_proba": "prediction.predict",
    "bounds": "prediction.predict",
    "class_bounds": "prediction.predict",
    "log_evidence": "prediction.predict",
    "gibbs": "prediction.predict",
    "weight_kl": "prediction.predict",
    "generate": "prediction.generate",
    "reconstruct": "prediction.generate",
    "SavedModel": "zoo.saved_model",
    "one_hot": "utils.arguments",
    "eval_mode": "utils.context",
    "fixed_seed": "utils.context",
    "draw_labels": "data.datasets",
    "LabelDraw": "data.datasets",
    "Dataset": "data.datasets",
    "MLP": "nn.networks",
    "ConvEncoder": "nn.networks",
    "ConvDecoder": "nn.networks",
    "SplitLinear": "nn.layers",
    "Flat": "nn.layers",
    "Normal": "distributions.conditionals",
    "Bernoulli": "distributions.conditionals",
    "Gaussian": "distributions.conditionals",
    "OneHotCategorical": "distributions.conditionals",
    "StandardNormal": "distributions.conditionals",
    "ClassPrior": "distributions.conditionals",
    "ClassNormal": "distributions.conditionals",
    "Delta": "distributions.conditionals",
    "Bayes": "distributions.conditionals",
    "Discriminators": "objectives.adversarial",
    "Discrimination": "objectives.adversarial",
    "LogRatio": "objectives.adversarial",
    "Backbone": "nn.backbones",
    "Noise": "nn.augmentation",
}
_MODULES = (
    "active",
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
    "training",
    "zoo",
)

__all__ = [*_HOME, *_MODULES]

if TYPE_CHECKING:
    from pyro_ssl.active.learner import ActiveLearner
    from pyro_ssl.data.datasets import Dataset, LabelDraw, draw_labels
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
    from pyro_ssl.estimator import SemiSupervisedClassifier, SemiSupervisedRegressor
    from pyro_ssl.infer.elbo import TraceTopKEnum_ELBO
    from pyro_ssl.nn.augmentation import Noise
    from pyro_ssl.nn.backbones import Backbone
    from pyro_ssl.nn.layers import Flat, SplitLinear
    from pyro_ssl.nn.networks import MLP, ConvDecoder, ConvEncoder
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
    from pyro_ssl.prediction.generate import generate, reconstruct
    from pyro_ssl.prediction.predict import bounds, class_bounds, gibbs, log_evidence, predict_proba, weight_kl
    from pyro_ssl.training.fit import EarlyStopping, fit
    from pyro_ssl.utils.arguments import one_hot
    from pyro_ssl.utils.context import eval_mode, fixed_seed
    from pyro_ssl.zoo.saved_model import SavedModel


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"pyro_ssl.{name}")
    if name in _HOME:
        return getattr(import_module(f"pyro_ssl.{_HOME[name]}"), name)
    raise AttributeError(f"module 'pyro_ssl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

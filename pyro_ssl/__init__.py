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
    "ActiveLearner": "active",
    "Objective": "objective",
    "Batch": "terms",
    "Term": "terms",
    "LabelLogProb": "terms",
    "Entropy": "terms",
    "Consistency": "terms",
    "MutualInformation": "terms",
    "Balance": "terms",
    "L2": "terms",
    "Adversary": "terms",
    "Features": "features",
    "Flow": "flows",
    "VampPrior": "flows",
    "MixtureOfNormals": "mixtures",
    "TraceTopEnum_ELBO": "elbo",
    "EarlyStopping": "training",
    "fit": "training",
    "predict_proba": "prediction",
    "bounds": "prediction",
    "class_bounds": "prediction",
    "log_evidence": "prediction",
    "gibbs": "prediction",
    "weight_kl": "prediction",
    "generate": "generation",
    "reconstruct": "generation",
    "SavedModel": "saving",
    "one_hot": "checks",
    "draw_labels": "data",
    "LabelDraw": "data",
    "Dataset": "data",
    "MLP": "networks",
    "ConvEncoder": "networks",
    "ConvDecoder": "networks",
    "SplitLinear": "layers",
    "Flat": "layers",
    "Normal": "conditionals",
    "Bernoulli": "conditionals",
    "Gaussian": "conditionals",
    "OneHotCategorical": "conditionals",
    "StandardNormal": "conditionals",
    "ClassPrior": "conditionals",
    "ClassNormal": "conditionals",
    "Delta": "conditionals",
    "Bayes": "conditionals",
    "Discriminators": "ratios",
    "Discrimination": "ratios",
    "LogRatio": "ratios",
    "Backbone": "backbones",
    "Noise": "augment",
}
_MODULES = (
    "acquisition",
    "active",
    "attacks",
    "calibration",
    "checkpoints",
    "conditionals",
    "corruptions",
    "data",
    "elbo",
    "enumeration",
    "generation",
    "guides",
    "metrics",
    "model_selection",
    "models",
    "networks",
    "ood",
    "options",
    "plots",
    "prediction",
    "reports",
    "saving",
    "terms",
    "training",
    "zoo",
)

__all__ = [*_HOME, *_MODULES]

if TYPE_CHECKING:
    from pyro_ssl.active import ActiveLearner
    from pyro_ssl.augment import Noise
    from pyro_ssl.backbones import Backbone
    from pyro_ssl.checks import one_hot
    from pyro_ssl.conditionals import (
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
    from pyro_ssl.data import Dataset, LabelDraw, draw_labels
    from pyro_ssl.elbo import TraceTopEnum_ELBO
    from pyro_ssl.estimator import SemiSupervisedClassifier, SemiSupervisedRegressor
    from pyro_ssl.features import Features
    from pyro_ssl.flows import Flow, VampPrior
    from pyro_ssl.generation import generate, reconstruct
    from pyro_ssl.layers import Flat, SplitLinear
    from pyro_ssl.mixtures import MixtureOfNormals
    from pyro_ssl.networks import MLP, ConvDecoder, ConvEncoder
    from pyro_ssl.objective import Objective
    from pyro_ssl.prediction import bounds, class_bounds, gibbs, log_evidence, predict_proba, weight_kl
    from pyro_ssl.ratios import Discrimination, Discriminators, LogRatio
    from pyro_ssl.saving import SavedModel
    from pyro_ssl.terms import (
        L2,
        Adversary,
        Balance,
        Batch,
        Consistency,
        Entropy,
        LabelLogProb,
        MutualInformation,
        Term,
    )
    from pyro_ssl.training import EarlyStopping, fit


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"pyro_ssl.{name}")
    if name in _HOME:
        return getattr(import_module(f"pyro_ssl.{_HOME[name]}"), name)
    raise AttributeError(f"module 'pyro_ssl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""Prediction by a trained objective: class probabilities, bounds, Gibbs samples, generated data."""

from pyro_ssl.prediction.bounds import bounds, class_bounds, log_evidence, weight_kl
from pyro_ssl.prediction.generate import generate, reconstruct
from pyro_ssl.prediction.gibbs import gibbs
from pyro_ssl.prediction.gibbs_samples import GibbsSamples
from pyro_ssl.prediction.predict import predict_proba

__all__ = [
    "GibbsSamples",
    "bounds",
    "class_bounds",
    "generate",
    "gibbs",
    "log_evidence",
    "predict_proba",
    "reconstruct",
    "weight_kl",
]

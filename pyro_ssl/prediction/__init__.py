"""What a trained objective says of data: class probabilities, bounds, samples."""

from pyro_ssl.prediction.generate import generate, reconstruct
from pyro_ssl.prediction.predict import bounds, class_bounds, gibbs, log_evidence, predict_proba, weight_kl

__all__ = ["bounds", "class_bounds", "generate", "gibbs", "log_evidence", "predict_proba", "reconstruct", "weight_kl"]

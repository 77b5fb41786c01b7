"""Active learning: scores of data to label, the loop that asks, and a page for a person."""

from pyro_ssl.active.cold_start import pca_embedding, vae_embedding
from pyro_ssl.active.learner import ActiveLearner

__all__ = ["ActiveLearner", "pca_embedding", "vae_embedding"]

"""Guides, one file per factorisation, under the names of their models. Import from `pyro_ssl.guides`."""

from pyro_ssl.guides.classifier import Classifier
from pyro_ssl.guides.m2 import M2
from pyro_ssl.guides.vae import VAE

__all__ = ["M2", "VAE", "Classifier"]

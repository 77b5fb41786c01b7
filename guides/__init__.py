"""Guides, one file for each factorisation; the folder is imported as `pyro_ssl.guides`."""

from pyro_ssl.guides.auxiliary import Auxiliary
from pyro_ssl.guides.bayesian import MeanField
from pyro_ssl.guides.classifier import Classifier
from pyro_ssl.guides.latent_classifier import (
    LatentClassifier,
    LatentEncoder,
    SplitLatentEncoder,
)
from pyro_ssl.guides.lvae import LVAE, LadderTop
from pyro_ssl.guides.m2 import M2
from pyro_ssl.guides.mixture import Mixture
from pyro_ssl.guides.vae import VAE
from pyro_ssl.guides.vc import VC

__all__ = [
    "VC",
    "LVAE",
    "M2",
    "VAE",
    "Auxiliary",
    "Classifier",
    "LadderTop",
    "LatentClassifier",
    "LatentEncoder",
    "MeanField",
    "Mixture",
    "SplitLatentEncoder",
]

"""Models, one file for each factorisation; the folder is imported as `pyro_ssl.models`."""

from pyro_ssl.models.auxiliary import ADGM, SDGM
from pyro_ssl.models.bayesian import Bayesian
from pyro_ssl.models.latent_classifier import (
    LatentClassifier,
    SimplifiedLatentClassifier,
    SplitLatentClassifier,
)
from pyro_ssl.models.lvae import LVAE
from pyro_ssl.models.m2 import M2
from pyro_ssl.models.sslpe import SSLPE
from pyro_ssl.models.vae import VAE
from pyro_ssl.models.vc import VC

__all__ = [
    "VC",
    "ADGM",
    "Bayesian",
    "LVAE",
    "M2",
    "SDGM",
    "SSLPE",
    "VAE",
    "LatentClassifier",
    "SimplifiedLatentClassifier",
    "SplitLatentClassifier",
]

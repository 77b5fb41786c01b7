"""Models, one file per factorisation. Import by the public name: `from pyro_ssl.models.m2 import M2`."""

from pyro_ssl.models.m2 import M2
from pyro_ssl.models.vae import VAE

__all__ = ["M2", "VAE"]

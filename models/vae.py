"""The variational autoencoder's model."""

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.distributions.conditionals import Conditional, Prior


class VAE(PyroModule):
    r"""Latent z, observed x; labels are not part of the model (M1).

    .. math:: p(x, z) = p(z)\, p(x \mid z)

    Arguments:
        p_z: Prior over z, `(Z,)`.
        p_x: x given z.

    References:
        Kingma & Welling 2014; M1 of Kingma et al. 2014 (paper 002, section 3.1).
    """

    factorisation = "p(z) p(x|z)"

    def __init__(self, p_z: Prior, p_x: Conditional | nn.Module) -> None:
        super().__init__()
        self.p_z, self.p_x = p_z, p_x

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.p_z())
            pyro.sample("x", self.p_x(z), obs=x)

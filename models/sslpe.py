"""A deep generative model with a discriminative component."""

import pyro
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.distributions.conditionals import Conditional, Prior


class SSLPE(PyroModule):
    r"""A latent z makes x, and both make y: the model itself predicts.

    .. math:: p(x, y, z) = p(z)\, p(x \mid z)\, p(y \mid x, z)

    With point estimates of all weights it is SSLPE; with a prior over those of p(y|x,z), see `models.Bayesian`, SSLAPD.
    y may be of any kind that p_y gives: one-hot classes, or real numbers.

    Arguments:
        p_z: Prior over z, `(Z,)`.
        p_x: x given z.
        p_y: y given x and z.

    References:
        Paper 002, eq. 4.1 to 4.4.
    """

    factorisation = "p(z) p(x|z) p(y|x,z)"

    def __init__(self, p_z: Prior, p_x: Conditional | nn.Module, p_y: Conditional | nn.Module) -> None:
        super().__init__()
        self.p_z, self.p_x, self.p_y = p_z, p_x, p_y

    def predict(self, x: Tensor, z: Tensor) -> TorchDistribution:
        """p(y|x,z)."""
        return self.p_y(x, z)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.p_z())
            pyro.sample("x", self.p_x(z), obs=x)
            pyro.sample("y", self.p_y(x, z), obs=y)

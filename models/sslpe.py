"""SSLPE's model: a latent generates x, and x and the latent predict y."""

import pyro
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.distributions.conditionals import Conditional
from pyro_ssl.distributions.priors import Prior


class SSLPE(PyroModule):
    r"""z generates x, and both predict y, so the model itself is the classifier.

    .. math:: p(x, y, z) = p(z)\, p(x \mid z)\, p(y \mid x, z)

    With a prior over the weights of p(y|x,z), see `models.Bayesian`, it is SSLAPD. y is one-hot or
    real, depending on p_y.

    Arguments:
        p_z: Prior over z, `(Z,)`.
        p_x: x given z.
        p_y: y given x and z.

    References:
        Paper 002, eq. 4.1 to 4.4.

    >>> import torch
    >>> from pyro_ssl import MLP, Bernoulli, OneHotCategorical, StandardNormal
    >>> p_y = OneHotCategorical(MLP([4, 2], 3))
    >>> model = SSLPE(StandardNormal(2), Bernoulli(MLP(2, 4)), p_y)
    >>> model.predict(torch.rand(5, 4), torch.randn(5, 2)).mean.shape
    torch.Size([5, 3])
    """

    factorisation = "p(z) p(x|z) p(y|x,z)"

    def __init__(
        self, p_z: Prior, p_x: Conditional | nn.Module, p_y: Conditional | nn.Module
    ) -> None:
        super().__init__()
        self.p_z = p_z
        self.p_x = p_x
        self.p_y = p_y

    def predict(self, x: Tensor, z: Tensor) -> TorchDistribution:
        """p(y|x,z)."""
        p: TorchDistribution = self.p_y(x, z)
        return p

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.p_z())
            pyro.sample("x", self.p_x(z), obs=x)
            pyro.sample("y", self.p_y(x, z), obs=y)

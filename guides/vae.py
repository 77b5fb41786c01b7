"""The variational autoencoder's guide."""

import pyro
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.distributions.conditionals import Conditional


class VAE(PyroModule):
    r"""Encoder q(z|x), and a classifier q(y|z) of its mean.

    .. math:: q(z \mid x), \qquad q(y \mid x) = q(y \mid \mathrm{E}_{q(z|x)}[z])

    The classifier has no gradient to the encoder, which learns from x alone, as in M1.

    Arguments:
        q_z: z given x.
        q_y: One-hot y given the mean `(*, Z)`.

    >>> import torch
    >>> from pyro_ssl import MLP, Normal, OneHotCategorical
    >>> guide = VAE(Normal(MLP(4, 4)), OneHotCategorical(MLP(2, 3)))
    >>> guide.embed(torch.rand(5, 4)).shape
    torch.Size([5, 2])
    """

    factorisation = "q(z|x)"

    def __init__(self, q_z: Conditional | nn.Module, q_y: Conditional | nn.Module) -> None:
        super().__init__()
        self.q_z = q_z
        self.q_y = q_y

    def embed(self, x: Tensor) -> Tensor:
        """The mean of q(z|x), `(*, Z)`, without gradient."""
        mean: Tensor = self.q_z(x).mean
        return mean.detach()

    def classify(self, x: Tensor) -> TorchDistribution:
        """q(y|x), over one-hot `(*, K)`."""
        return self.q_y(self.embed(x))

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.q_z(x))

"""M2's guide: a classifier and an encoder."""

import pyro
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.distributions.conditionals import Conditional


class M2(PyroModule):
    r"""Classifier q(y|x), then encoder q(z|x,y).

    .. math:: q(y, z \mid x) = q(y \mid x)\, q(z \mid x, y)

    Arguments:
        q_y: One-hot y given x.
        q_z: z given x and y.

    >>> import torch
    >>> from pyro_ssl import MLP, Normal, OneHotCategorical
    >>> guide = M2(OneHotCategorical(MLP(4, 3)), Normal(MLP([4, 3], 4)))
    >>> guide.encode(torch.rand(5, 4), torch.eye(3)[[0, 1, 2, 0, 1]]).mean.shape
    torch.Size([5, 2])
    """

    factorisation = "q(y|x) q(z|x,y)"

    def __init__(self, q_y: Conditional | nn.Module, q_z: Conditional | nn.Module) -> None:
        super().__init__()
        self.q_y = q_y
        self.q_z = q_z

    def classify(self, x: Tensor) -> TorchDistribution:
        """q(y|x), over one-hot `(*, K)`."""
        return self.q_y(x)

    def encode(self, x: Tensor, y: Tensor) -> TorchDistribution:
        """q(z|x,y), over `(*, Z)`."""
        return self.q_z(x, y)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            if y is None:  # q(y|x) is enumerated, so the bound sums over classes
                y = pyro.sample("y", self.q_y(x), infer={"enumerate": "parallel"})
            pyro.sample("z", self.q_z(x, y))

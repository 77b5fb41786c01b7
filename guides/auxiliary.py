"""The guide of ADGM and of SDGM."""

import pyro
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.distributions.conditionals import Conditional, expected


class Auxiliary(PyroModule):
    r"""An auxiliary variable a, and a classifier and an encoder that depend on it.

    .. math:: q(a, y, z \mid x) = q(a \mid x)\, q(y \mid x, a)\, q(z \mid x, a, y), \qquad
              q(y \mid x) = \mathrm{E}_{q(a|x)}[q(y \mid x, a)]

    Arguments:
        q_a: a given x.
        q_y: One-hot y given x and a.
        q_z: z given x, a and y.
        draws: Samples of a that `classify` averages over in evaluation. In training it uses one
            sample, as the bound does.

    References:
        Maaloe et al. 2016, eq. 8.

    >>> import torch
    >>> from pyro_ssl import MLP, Normal, OneHotCategorical
    >>> q_y = OneHotCategorical(MLP([4, 1], 3))
    >>> guide = Auxiliary(Normal(MLP(4, 2)), q_y, Normal(MLP([4, 1, 3], 4)))
    >>> guide.classify(torch.rand(5, 4)).mean.shape
    torch.Size([5, 3])
    """

    factorisation = "q(a|x) q(y|x,a) q(z|x,a,y)"

    classifies_by_one_draw = True

    def __init__(
        self,
        q_a: Conditional | nn.Module,
        q_y: Conditional | nn.Module,
        q_z: Conditional | nn.Module,
        draws: int = 100,
    ) -> None:
        super().__init__()
        self.q_a = q_a
        self.q_y = q_y
        self.q_z = q_z
        self.draws = draws

    def classify(self, x: Tensor) -> TorchDistribution:
        """q(y|x), over one-hot `(*, K)`."""
        return expected(lambda a: self.q_y(x, a), self.q_a(x), 1 if self.training else self.draws)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", self.q_a(x))
            if y is None:  # q(y|x,a) is enumerated, so the bound sums over classes
                y = pyro.sample("y", self.q_y(x, a), infer={"enumerate": "parallel"})
            pyro.sample("z", self.q_z(x, a, y))

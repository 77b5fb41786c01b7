"""M2's model."""

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.distributions.conditionals import Conditional, Prior


class M2(PyroModule):
    r"""Class y and style z, independent a priori, make x.

    .. math:: p(x, y, z) = p(y)\, p(z)\, p(x \mid y, z)

    Arguments:
        p_y: Prior over one-hot y, `(K,)`.
        p_z: Prior over z, `(Z,)`; it is given y, for a p(z|y).
        p_x: x given y and z.

    References:
        Kingma et al. 2014; paper 004, eq. 1 and 3.
    """

    factorisation = "p(y) p(z) p(x|y,z)"

    def __init__(self, p_y: Prior, p_z: Prior | Conditional, p_x: Conditional | nn.Module) -> None:
        super().__init__()
        self.p_y, self.p_z, self.p_x = p_y, p_z, p_x

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", self.p_y(), obs=y)
            z = pyro.sample("z", self.p_z(y))
            pyro.sample("x", self.p_x(y, z), obs=x)

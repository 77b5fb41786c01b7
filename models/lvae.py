"""The semi-supervised ladder variational autoencoder's model."""

from collections.abc import Sequence

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.distributions.conditionals import Conditional, Prior


class LVAE(PyroModule):
    r"""A ladder of latents z_L to z_1; the lowest and the class make x.

    .. math:: p(x, y, z) = p(y)\, p(z_L) \prod_{l=1}^{L-1} p(z_l \mid z_{l+1})\; p(x \mid y, z_1)

    Arguments:
        p_y: Prior over one-hot y, `(K,)`.
        p_z_top: Prior over z_L; it is given y, for a p(z_L|y).
        p_z: z_l given z_{l+1}, for l = 1 .. L - 1, lowest first.
        p_x: x given y and z_1.

    References:
        Sonderby et al. 2016; paper 004, section 5.
    """

    factorisation = "p(y) p(z_L) prod p(z_l|z_l+1) p(x|y,z_1)"

    def __init__(
        self,
        p_y: Prior,
        p_z_top: Prior | Conditional,
        p_z: Sequence[Conditional | nn.Module],
        p_x: Conditional | nn.Module,
    ) -> None:
        super().__init__()
        self.p_y, self.p_z_top, self.p_z, self.p_x = p_y, p_z_top, nn.ModuleList(p_z), p_x

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", self.p_y(), obs=y)
            z = pyro.sample(f"z_{len(self.p_z) + 1}", self.p_z_top(y))
            for level in range(len(self.p_z), 0, -1):
                z = pyro.sample(f"z_{level}", self.p_z[level - 1](z))
            pyro.sample("x", self.p_x(y, z), obs=x)

"""Classifiers as latent variable models of the class: their code z follows a density of its own for each class."""

import pyro
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.conditionals import Prior


class VC(PyroModule):
    r"""Class y, and a code z whose distribution within the class shall be p(z|y): J_CE, J_GM and J_VC by their weights.

    .. math:: \log p(y) + v \log p(z \mid y) - w \log \frac{q(z \mid y)}{p(z \mid y)},
              \qquad q(z \mid y) = \int q(z \mid x)\, p(x \mid y)\, dx

    Arguments:
        p_y: Prior over one-hot y.
        p_z: z given y.
        density: v, of the class's density, which puts each code at its likeliest; 1 in J_GM, 0 in J_CE and J_VC.
        ratio: w, of the log-ratio, in which the code's entropy within the class stands too; 1 in J_VC.
        log_ratio: log q(z|y) / p(z|y) from (y, z), such as `LogRatio`; needed where w is not 0.

    References:
        Paper 000, eq. 6 and section 5. The authors' later code has v = w = 0.01.
    """

    def __init__(
        self, p_y: Prior, p_z: Prior, *, density: float = 0.0, ratio: float = 0.0, log_ratio: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.p_y, self.p_z, self.density, self.ratio, self.log_ratio = p_y, p_z, density, ratio, log_ratio

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", self.p_y(), obs=y)
            with poutine.mask(mask=self.density > 0), poutine.scale(scale=self.density or 1.0):
                z = pyro.sample("z", self.p_z(y))
            if self.log_ratio is not None:
                pyro.factor("log_ratio", -self.ratio * self.log_ratio(y, z))

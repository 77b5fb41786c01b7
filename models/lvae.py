"""The semi-supervised ladder variational autoencoder's model."""

from collections.abc import Sequence

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.distributions.conditionals import Conditional
from pyro_ssl.distributions.priors import Prior


class LVAE(PyroModule):
    r"""A chain of latents z_L to z_1, whose last generates x together with the class.

    .. math:: p(x, y, z) = p(y)\, p(z_L) \prod_{l=1}^{L-1} p(z_l \mid z_{l+1})\; p(x \mid y, z_1)

    Arguments:
        p_y: Prior over one-hot y, `(K,)`.
        p_z_top: Prior over z_L; it receives y, so a p(z_L|y) may take its place.
        p_z: z_l given z_{l+1}, for l = 1 .. L - 1, in this order.
        p_x: x given y and z_1.

    References:
        Sonderby et al. 2016; paper 004, section 5.

    >>> import torch
    >>> from pyro_ssl import MLP, Bernoulli, ClassPrior, Normal, StandardNormal
    >>> p_z = [Normal(MLP(1, 4))]
    >>> model = LVAE(ClassPrior(3), StandardNormal(1), p_z, Bernoulli(MLP([3, 2], 4)))
    >>> trace = pyro.poutine.trace(model).get_trace(torch.rand(5, 4))
    >>> [name for name, _ in trace.iter_stochastic_nodes()]
    ['data', 'y', 'z_2', 'z_1']
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
        self.p_y = p_y
        self.p_z_top = p_z_top
        self.p_z = nn.ModuleList(p_z)
        self.p_x = p_x

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", self.p_y(), obs=y)
            z = pyro.sample(f"z_{len(self.p_z) + 1}", self.p_z_top(y))
            for level in range(len(self.p_z), 0, -1):
                z = pyro.sample(f"z_{level}", self.p_z[level - 1](z))
            pyro.sample("x", self.p_x(y, z), obs=x)

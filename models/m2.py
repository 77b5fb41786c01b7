"""M2's model: class and style generate x."""

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.distributions.conditionals import Conditional
from pyro_ssl.distributions.priors import Prior


class M2(PyroModule):
    r"""Class y and style z, which are independent a priori, generate x.

    .. math:: p(x, y, z) = p(y)\, p(z)\, p(x \mid y, z)

    Arguments:
        p_y: Prior over one-hot y, `(K,)`.
        p_z: Prior over z, `(Z,)`; it receives y, so a p(z|y) may take its place.
        p_x: x given y and z.

    References:
        Kingma et al. 2014; paper 004, eq. 1 and 3.

    >>> import torch
    >>> from pyro_ssl import MLP, Bernoulli, ClassPrior, StandardNormal
    >>> model = M2(ClassPrior(3), StandardNormal(2), Bernoulli(MLP([3, 2], 4)))
    >>> trace = pyro.poutine.trace(model).get_trace(torch.rand(5, 4))
    >>> [name for name, _ in trace.iter_stochastic_nodes()]
    ['data', 'y', 'z']
    """

    factorisation = "p(y) p(z) p(x|y,z)"

    def __init__(self, p_y: Prior, p_z: Prior | Conditional, p_x: Conditional | nn.Module) -> None:
        super().__init__()
        self.p_y = p_y
        self.p_z = p_z
        self.p_x = p_x

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", self.p_y(), obs=y)
            z = pyro.sample("z", self.p_z(y))
            pyro.sample("x", self.p_x(y, z), obs=x)

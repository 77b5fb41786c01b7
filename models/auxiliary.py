"""Models with an auxiliary variable a: ADGM and SDGM."""

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.distributions.conditionals import Conditional
from pyro_ssl.distributions.priors import Prior


class ADGM(PyroModule):
    r"""The auxiliary deep generative model: M2 with a variable a that depends on all others.

    .. math:: p(x, y, z, a) = p(y)\, p(z)\, p(x \mid y, z)\, p(a \mid x, y, z)

    The marginal over x, y and z is M2's. The auxiliary variable makes only the guide more flexible:
    :math:`q(y|x) = \int q(a|x)\, q(y|a,x)\,da`.

    Arguments:
        p_y: Prior over one-hot y, `(K,)`.
        p_z: Prior over z, `(Z,)`; it receives y, so a p(z|y) may take its place.
        p_x: x given y and z.
        p_a: a, `(A,)`, given x, y and z.

    References:
        Maaloe et al. 2016, eq. 7; paper 002, section 3.1.1.

    >>> import torch
    >>> from pyro_ssl import MLP, Bernoulli, ClassPrior, Normal, StandardNormal
    >>> p_x = Bernoulli(MLP([3, 2], 4))
    >>> p_a = Normal(MLP([4, 3, 2], 2))
    >>> model = ADGM(ClassPrior(3), StandardNormal(2), p_x, p_a)
    >>> trace = pyro.poutine.trace(model).get_trace(torch.rand(5, 4))
    >>> [name for name, _ in trace.iter_stochastic_nodes()]
    ['data', 'y', 'z', 'a']
    """

    factorisation = "p(y) p(z) p(x|y,z) p(a|x,y,z)"

    def __init__(
        self,
        p_y: Prior,
        p_z: Prior | Conditional,
        p_x: Conditional | nn.Module,
        p_a: Conditional | nn.Module,
    ) -> None:
        super().__init__()
        self.p_y = p_y
        self.p_z = p_z
        self.p_x = p_x
        self.p_a = p_a

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", self.p_y(), obs=y)
            z = pyro.sample("z", self.p_z(y))
            pyro.sample("x", self.p_x(y, z), obs=x)
            pyro.sample("a", self.p_a(x, y, z))


class SDGM(PyroModule):
    r"""The skip deep generative model: y and z generate x directly and through a latent a.

    .. math:: p(x, y, z, a) = p(y)\, p(z)\, p(a \mid y, z)\, p(x \mid a, y, z)

    Arguments:
        p_y: Prior over one-hot y, `(K,)`.
        p_z: Prior over z, `(Z,)`; it receives y, so a p(z|y) may take its place.
        p_a: a, `(A,)`, given y and z.
        p_x: x given a, y and z.

    References:
        Maaloe et al. 2016, eq. 14.

    >>> import torch
    >>> from pyro_ssl import MLP, Bernoulli, ClassPrior, Normal, StandardNormal
    >>> p_a = Normal(MLP([3, 2], 2))
    >>> p_x = Bernoulli(MLP([1, 3, 2], 4))
    >>> model = SDGM(ClassPrior(3), StandardNormal(2), p_a, p_x)
    >>> trace = pyro.poutine.trace(model).get_trace(torch.rand(5, 4))
    >>> [name for name, _ in trace.iter_stochastic_nodes()]
    ['data', 'y', 'z', 'a']
    """

    factorisation = "p(y) p(z) p(a|y,z) p(x|a,y,z)"

    def __init__(
        self,
        p_y: Prior,
        p_z: Prior | Conditional,
        p_a: Conditional | nn.Module,
        p_x: Conditional | nn.Module,
    ) -> None:
        super().__init__()
        self.p_y = p_y
        self.p_z = p_z
        self.p_a = p_a
        self.p_x = p_x

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", self.p_y(), obs=y)
            z = pyro.sample("z", self.p_z(y))
            a = pyro.sample("a", self.p_a(y, z))
            pyro.sample("x", self.p_x(a, y, z), obs=x)

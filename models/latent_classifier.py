"""Models that generate the class from a latent z."""

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.distributions.conditionals import Conditional
from pyro_ssl.distributions.priors import Prior


class LatentClassifier(PyroModule):
    r"""z generates the class, and both generate x.

    .. math:: p(x, y, z) = p(z)\, p(y \mid z)\, p(x \mid y, z)

    If y is missing and the guide does not sample it, the model sums over it:
    :math:`\log p(x|z) = \log \sum_y p(y|z)\, p(x|y,z)`.

    Arguments:
        p_z: Prior over z, `(Z,)`.
        p_y: One-hot y given z.
        p_x: x given y and z.

    References:
        Paper 003, section 4.1.

    >>> import torch
    >>> from pyro_ssl import MLP, Bernoulli, OneHotCategorical, StandardNormal
    >>> p_y = OneHotCategorical(MLP(2, 3))
    >>> model = LatentClassifier(StandardNormal(2), p_y, Bernoulli(MLP([3, 2], 4)))
    >>> trace = pyro.poutine.trace(model).get_trace(torch.rand(5, 4))
    >>> [name for name, _ in trace.iter_stochastic_nodes()]
    ['data', 'z', 'y']
    """

    factorisation = "p(z) p(y|z) p(x|y,z)"

    def __init__(
        self, p_z: Prior, p_y: Conditional | nn.Module, p_x: Conditional | nn.Module
    ) -> None:
        super().__init__()
        self.p_z = p_z
        self.p_y = p_y
        self.p_x = p_x

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.p_z())
            y = pyro.sample("y", self.p_y(z), obs=y, infer={"enumerate": "parallel"})
            pyro.sample("x", self.p_x(y, z), obs=x)


class SimplifiedLatentClassifier(PyroModule):
    r"""z generates the class and, independently of the class, x.

    .. math:: p(x, y, z) = p(z)\, p(y \mid z)\, p(x \mid z)

    If y is missing, p(y|z) sums to one and is left out.

    Arguments:
        p_z: Prior over z, `(Z,)`.
        p_y: One-hot y given z.
        p_x: x given z.

    References:
        Paper 003, section 4.1 and Fig. 6b.

    >>> import torch
    >>> from pyro_ssl import MLP, Bernoulli, OneHotCategorical, StandardNormal
    >>> p_y = OneHotCategorical(MLP(2, 3))
    >>> model = SimplifiedLatentClassifier(StandardNormal(2), p_y, Bernoulli(MLP(2, 4)))
    >>> trace = pyro.poutine.trace(model).get_trace(torch.rand(5, 4))
    >>> [name for name, _ in trace.iter_stochastic_nodes()]
    ['data', 'z']
    """

    factorisation = "p(z) p(y|z) p(x|z)"

    def __init__(
        self, p_z: Prior, p_y: Conditional | nn.Module, p_x: Conditional | nn.Module
    ) -> None:
        super().__init__()
        self.p_z = p_z
        self.p_y = p_y
        self.p_x = p_x

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.p_z())
            if y is not None:
                pyro.sample("y", self.p_y(z), obs=y)
            pyro.sample("x", self.p_x(z), obs=x)


class SplitLatentClassifier(PyroModule):
    r"""Two latents generate x, and one of them generates the class.

    .. math:: p(x, y, z_y, z_u) = p(z_y)\, p(z_u)\, p(y \mid z_y)\, p(x \mid z_y, z_u)

    Arguments:
        p_z_y: Prior over z_y, the latent of the class.
        p_z_u: Prior over z_u, the latent of all else.
        p_y: One-hot y given z_y.
        p_x: x given z_y and z_u.

    References:
        Paper 003, appendix C.

    >>> import torch
    >>> from pyro_ssl import MLP, Bernoulli, OneHotCategorical, StandardNormal
    >>> p_y = OneHotCategorical(MLP(2, 3))
    >>> p_x = Bernoulli(MLP([2, 1], 4))
    >>> model = SplitLatentClassifier(StandardNormal(2), StandardNormal(1), p_y, p_x)
    >>> trace = pyro.poutine.trace(model).get_trace(torch.rand(5, 4))
    >>> [name for name, _ in trace.iter_stochastic_nodes()]
    ['data', 'z_y', 'z_u']
    """

    factorisation = "p(z_y) p(z_u) p(y|z_y) p(x|z_y,z_u)"

    def __init__(
        self, p_z_y: Prior, p_z_u: Prior, p_y: Conditional | nn.Module, p_x: Conditional | nn.Module
    ) -> None:
        super().__init__()
        self.p_z_y = p_z_y
        self.p_z_u = p_z_u
        self.p_y = p_y
        self.p_x = p_x

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            z_y = pyro.sample("z_y", self.p_z_y())
            z_u = pyro.sample("z_u", self.p_z_u())
            if y is not None:
                pyro.sample("y", self.p_y(z_y), obs=y)
            pyro.sample("x", self.p_x(z_y, z_u), obs=x)

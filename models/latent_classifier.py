"""Models that classify their latent code."""

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.distributions.conditionals import Conditional, Prior


class LatentClassifier(PyroModule):
    r"""The code z determines the class, and both make x.

    .. math:: p(x, y, z) = p(z)\, p(y \mid z)\, p(x \mid y, z)

    y is marked for enumeration: under a guide that does not sample it, it is summed out,
    :math:`\log p(x|z) = \log \sum_y p(y|z)\, p(x|y,z)`.

    Arguments:
        p_z: Prior over z, `(Z,)`.
        p_y: One-hot y given z.
        p_x: x given y and z.

    References:
        Paper 003, section 4.1.
    """

    factorisation = "p(z) p(y|z) p(x|y,z)"

    def __init__(self, p_z: Prior, p_y: Conditional | nn.Module, p_x: Conditional | nn.Module) -> None:
        super().__init__()
        self.p_z, self.p_y, self.p_x = p_z, p_y, p_x

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.p_z())
            y = pyro.sample("y", self.p_y(z), obs=y, infer={"enumerate": "parallel"})
            pyro.sample("x", self.p_x(y, z), obs=x)


class SimplifiedLatentClassifier(PyroModule):
    r"""The code z determines the class and, apart from it, x.

    .. math:: p(x, y, z) = p(z)\, p(y \mid z)\, p(x \mid z)

    A missing y sums to one and leaves no trace.

    Arguments:
        p_z: Prior over z, `(Z,)`.
        p_y: One-hot y given z.
        p_x: x given z.

    References:
        Paper 003, section 4.1 and Fig. 6b.
    """

    factorisation = "p(z) p(y|z) p(x|z)"

    def __init__(self, p_z: Prior, p_y: Conditional | nn.Module, p_x: Conditional | nn.Module) -> None:
        super().__init__()
        self.p_z, self.p_y, self.p_x = p_z, p_y, p_x

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.p_z())
            if y is not None:
                pyro.sample("y", self.p_y(z), obs=y)
            pyro.sample("x", self.p_x(z), obs=x)


class SplitLatentClassifier(PyroModule):
    r"""A code in two parts, of which one determines the class.

    .. math:: p(x, y, z_y, z_u) = p(z_y)\, p(z_u)\, p(y \mid z_y)\, p(x \mid z_y, z_u)

    Arguments:
        p_z_y: Prior over the part that is classified.
        p_z_u: Prior over the rest.
        p_y: One-hot y given z_y.
        p_x: x given z_y and z_u.

    References:
        Paper 003, appendix C.
    """

    factorisation = "p(z_y) p(z_u) p(y|z_y) p(x|z_y,z_u)"

    def __init__(self, p_z_y: Prior, p_z_u: Prior, p_y: Conditional | nn.Module, p_x: Conditional | nn.Module) -> None:
        super().__init__()
        self.p_z_y, self.p_z_u, self.p_y, self.p_x = p_z_y, p_z_u, p_y, p_x

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            z_y = pyro.sample("z_y", self.p_z_y())
            z_u = pyro.sample("z_u", self.p_z_u())
            if y is not None:
                pyro.sample("y", self.p_y(z_y), obs=y)
            pyro.sample("x", self.p_x(z_y, z_u), obs=x)

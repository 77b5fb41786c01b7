"""The variational autoencoder's model."""

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.distributions.conditionals import Conditional
from pyro_ssl.distributions.priors import Prior


class VAE(PyroModule):
    r"""z generates x; the label is not part of the model.

    .. math:: p(x, z) = p(z)\, p(x \mid z)

    Arguments:
        p_z: Prior over z, `(Z,)`.
        p_x: x given z.

    References:
        Kingma & Welling 2014; as M1 in Kingma et al. 2014 and paper 002, section 3.1.

    >>> import torch
    >>> from pyro_ssl import MLP, Bernoulli, StandardNormal
    >>> model = VAE(StandardNormal(2), Bernoulli(MLP(2, 4)))
    >>> trace = pyro.poutine.trace(model).get_trace(torch.rand(5, 4))
    >>> [name for name, _ in trace.iter_stochastic_nodes()]
    ['data', 'z']
    """

    factorisation = "p(z) p(x|z)"

    def __init__(self, p_z: Prior, p_x: Conditional | nn.Module) -> None:
        super().__init__()
        self.p_z = p_z
        self.p_x = p_x

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.p_z())
            pyro.sample("x", self.p_x(z), obs=x)

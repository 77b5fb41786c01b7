"""Guides of the models that generate the class from z; each receives the model's p(y|z)."""

import pyro
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.distributions.conditionals import Conditional, expected


class LatentEncoder(PyroModule):
    r"""Encoder q(z|x). The model's p(y|z) predicts y, which is never sampled.

    .. math:: q(z \mid x), \qquad q(y \mid x) = \mathrm{E}_{q(z|x)}[p(y \mid z)]

    `models.LatentClassifier` sums over y, so with it the unlabeled bound is tighter than that of
    paper 003.

    Arguments:
        q_z: z given x.
        p_y: One-hot y given z, a part of the model.
        draws: Samples of z that `classify` averages over in evaluation. In training it uses one.

    >>> import torch
    >>> from pyro_ssl import MLP, Normal, OneHotCategorical
    >>> guide = LatentEncoder(Normal(MLP(4, 4)), OneHotCategorical(MLP(2, 3)))
    >>> guide.classify(torch.rand(5, 4)).mean.shape
    torch.Size([5, 3])
    """

    factorisation = "q(z|x)"

    def __init__(
        self, q_z: Conditional | nn.Module, p_y: Conditional | nn.Module, draws: int = 100
    ) -> None:
        super().__init__()
        self.q_z = q_z
        self.p_y = p_y
        self.draws = draws

    def classify(self, x: Tensor) -> TorchDistribution:
        """q(y|x), over one-hot `(*, K)`."""
        return expected(self.p_y, self.code(x), 1 if self.training else self.draws)

    def code(self, x: Tensor) -> TorchDistribution:
        """q(z|x), the distribution of the code that p(y|z) classifies."""
        return self.q_z(x)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.q_z(x))


class LatentClassifier(LatentEncoder):
    r"""Encoder q(z|x), then the model's p(y|z) for a missing y.

    .. math:: q(y, z \mid x) = q(z \mid x)\, p(y \mid z)

    p(y|z) cancels from the unlabeled bound, which becomes the paper's,

    .. math:: U_{\mathrm{our}}(x) = \mathrm{E}_{q(z|x)}\big[\mathrm{E}_{p(y|z)}[\log p(x|y,z)]\big]
              - \mathrm{KL}(q(z|x) \,\|\, p(z))

    Arguments:
        q_z: z given x.
        p_y: One-hot y given z, a part of the model.
        draws: Samples of z that `classify` averages over in evaluation. In training it uses one
            sample, as the bound does.

    References:
        Paper 003, propositions 1 and 2.

    >>> import torch
    >>> from pyro_ssl import MLP, Normal, OneHotCategorical
    >>> guide = LatentClassifier(Normal(MLP(4, 4)), OneHotCategorical(MLP(2, 3)))
    >>> trace = pyro.poutine.trace(guide).get_trace(torch.rand(5, 4))
    >>> [name for name, _ in trace.iter_stochastic_nodes()]
    ['data', 'z', 'y']
    """

    factorisation = "q(z|x) p(y|z)"

    classifies_by_one_draw = True

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.q_z(x))
            if y is None:  # p(y|z) is enumerated, so the bound sums over classes
                pyro.sample("y", self.p_y(z), infer={"enumerate": "parallel"})


class SplitLatentEncoder(PyroModule):
    r"""Encoders of two latents; the model's p(y|z_y) classifies the first.

    .. math:: q(z_y, z_u \mid x) = q(z_y \mid x)\, q(z_u \mid x, z_y), \qquad
              q(y \mid x) = \mathrm{E}_{q(z_y|x)}[p(y \mid z_y)]

    Arguments:
        q_z_y: z_y given x.
        q_z_u: z_u given x and z_y.
        p_y: One-hot y given z_y, a part of the model.
        draws: Samples of z_y that `classify` averages over in evaluation. In training it uses one.

    References:
        Paper 003, appendix C.

    >>> import torch
    >>> from pyro_ssl import MLP, Normal, OneHotCategorical
    >>> q_z_u = Normal(MLP([4, 2], 2))
    >>> guide = SplitLatentEncoder(Normal(MLP(4, 4)), q_z_u, OneHotCategorical(MLP(2, 3)))
    >>> guide.code(torch.rand(5, 4)).mean.shape
    torch.Size([5, 2])
    """

    factorisation = "q(z_y|x) q(z_u|x,z_y)"

    def __init__(
        self,
        q_z_y: Conditional | nn.Module,
        q_z_u: Conditional | nn.Module,
        p_y: Conditional | nn.Module,
        draws: int = 100,
    ) -> None:
        super().__init__()
        self.q_z_y = q_z_y
        self.q_z_u = q_z_u
        self.p_y = p_y
        self.draws = draws

    def classify(self, x: Tensor) -> TorchDistribution:
        """q(y|x), over one-hot `(*, K)`."""
        return expected(self.p_y, self.code(x), 1 if self.training else self.draws)

    def code(self, x: Tensor) -> TorchDistribution:
        """q(z_y|x), the distribution of the code that p(y|z_y) classifies."""
        return self.q_z_y(x)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            z_y = pyro.sample("z_y", self.q_z_y(x))
            pyro.sample("z_u", self.q_z_u(x, z_y))

"""M2's guide in the other order: z from a mixture over classes, then the class of z."""

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.distributions.conditionals import Conditional
from pyro_ssl.distributions.mixture import MixtureOfNormals
from pyro_ssl.nn.tensor_marks import weighted_classes


class Mixture(PyroModule):
    r"""The distribution q(y, z|x) of `guides.M2`, factorised as q(z|x) q(y|x,z).

    .. math:: q(z \mid x) = \sum_y q(y \mid x)\, q(z \mid x, y), \qquad
              q(y \mid x, z) \propto q(y \mid x)\, q(z \mid x, y)

    All classes share one z, so factors that depend on z and not on y, such as SSLPE's p(x|z), are
    evaluated once, not once per class. The gradient of q(y|x) passes through z.

    Arguments:
        q_y: One-hot y given x.
        q_z: z given x and y, a diagonal Gaussian.

    References:
        Paper 002, eq. 4.14, 4.15 and appendix B.

    >>> from pyro_ssl import MLP, Normal, OneHotCategorical
    >>> guide = Mixture(OneHotCategorical(MLP(4, 3)), Normal(MLP([4, 3], 4)))
    >>> guide.mixture(torch.rand(5, 4)).rsample().shape
    torch.Size([5, 2])
    """

    factorisation = "q(z|x) q(y|x,z)"

    def __init__(self, q_y: Conditional | nn.Module, q_z: Conditional | nn.Module) -> None:
        super().__init__()
        self.q_y = q_y
        self.q_z = q_z

    def classify(self, x: Tensor) -> TorchDistribution:
        """q(y|x), over one-hot `(*, K)`."""
        return self.q_y(x)

    def encode(self, x: Tensor, y: Tensor) -> TorchDistribution:
        """q(z|x,y), over `(*, Z)`."""
        return self.q_z(x, y)

    def mixture(self, x: Tensor) -> MixtureOfNormals:
        """q(z|x), over `(*, Z)`."""
        logits = self.q_y(x).logits
        eye = torch.eye(logits.shape[-1], dtype=logits.dtype, device=logits.device)
        with weighted_classes(logits.movedim(-1, 0)):  # batch norm in q_z weights classes by q(y|x)
            of_class = self.q_z(x, eye.unsqueeze(-2)).base_dist  # (K, B, Z)
        return MixtureOfNormals(logits, of_class.loc.movedim(0, -2), of_class.scale.movedim(0, -2))

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            if y is not None:
                pyro.sample("z", self.q_z(x, y))
                return
            q_z = self.mixture(x)
            z = pyro.sample("z", q_z)
            q_y = dist.OneHotCategorical(logits=q_z.component_logits(z))
            pyro.sample("y", q_y, infer={"enumerate": "parallel"})

"""M2's guide in the other order: first z, from a mixture over classes, then its class."""

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.distributions.conditionals import Conditional
from pyro_ssl.distributions.mixture import MixtureOfNormals
from pyro_ssl.nn.tensor_annotations import weighted_classes


class Mixture(PyroModule):
    r"""The q(y, z|x) of `guides.M2`, sampled as q(z|x) q(y|x,z).

    .. math:: q(z \mid x) = \sum_y q(y \mid x)\, q(z \mid x, y), \qquad
              q(y \mid x, z) \propto q(y \mid x)\, q(z \mid x, y)

    One z is shared by all classes, so factors that depend on z alone, such as SSLPE's p(x|z), are
    evaluated once and not once for each class; q(y|x) gets its gradient through z.

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
        eye = torch.eye(logits.shape[-1]).to(logits)
        with weighted_classes(logits.movedim(-1, 0)):  # for batch norm in q_z
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

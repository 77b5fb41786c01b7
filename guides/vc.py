"""The guide of variational classifiers."""

import pyro
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.conditionals import Bayes, Conditional, expected


class VC(PyroModule):
    r"""Encoder q(z|x), and the model's p(y|z) by Bayes' rule, for prediction and where y is missing.

    .. math:: q(y, z \mid x) = q(z \mid x)\, p(y \mid z)

    The density of q(z|x) stands in no term of the objective, and is left out; that of q(z|y) does, as a ratio.

    Arguments:
        q_z: z given x: a `Delta` at f(x), or a Gaussian.
        p_y: One-hot y given z.
        draws: Samples of z that `classify` averages over in evaluation; in training it is one.

    References:
        Paper 000, eq. 4 to 6.
    """

    classifies_by_one_draw = True

    def __init__(self, q_z: Conditional | nn.Module, p_y: Bayes, draws: int = 1) -> None:
        super().__init__()
        self.q_z, self.p_y, self.draws = q_z, p_y, draws

    def classify(self, x: Tensor) -> TorchDistribution:
        """q(y|x), over one-hot `(*, K)`."""
        return expected(self.p_y, self.code(x), 1 if self.training else self.draws)

    def code(self, x: Tensor) -> TorchDistribution:
        """What is classified: q(z|x)."""
        return self.q_z(x)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.q_z(x).mask(False))
            if y is None:
                pyro.sample("y", self.p_y(z), infer={"enumerate": "parallel"})

"""The supervised classifier: a guide without a model."""

from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.distributions.conditionals import Conditional


class Classifier(PyroModule):
    r"""q(y|x) alone, trained by `LabelLogProb`: the baseline of the semi-supervised methods.

    Arguments:
        q_y: One-hot y given x.

    >>> import torch
    >>> from pyro_ssl import MLP, OneHotCategorical
    >>> Classifier(OneHotCategorical(MLP(4, 3))).classify(torch.rand(5, 4)).mean.shape
    torch.Size([5, 3])
    """

    factorisation = "q(y|x)"

    def __init__(self, q_y: Conditional | nn.Module) -> None:
        super().__init__()
        self.q_y = q_y

    def classify(self, x: Tensor) -> TorchDistribution:
        """q(y|x), over one-hot `(*, K)`."""
        return self.q_y(x)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Sample nothing, since there is no model."""

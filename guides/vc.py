"""The guide of variational classification."""

import pyro
from pyro_ssl.guides.latent_classifier import LatentClassifier
from torch import Tensor


class VC(LatentClassifier):
    """`LatentClassifier` without the density of q(z|x) in the bound.

    q(z|x) is a `Delta` at f(x) or a Gaussian, and p(y|z) is given by Bayes' rule. The objectives
    contain q(z|y), through the log-ratio, but not q(z|x), so its site is masked.

    References:
        Paper 000, eq. 4 to 6.

    >>> import torch
    >>> from pyro_ssl import MLP, Bayes, ClassNormal, ClassPrior, Delta
    >>> guide = VC(Delta(MLP(4, 2)), Bayes(ClassPrior(3), ClassNormal(3, 2)))
    >>> guide.classify(torch.rand(5, 4)).mean.shape
    torch.Size([5, 3])
    """

    factorisation = "q(z|x), p(y|z) by Bayes' rule"

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.q_z(x).mask(False))
            if y is None:
                pyro.sample("y", self.p_y(z), infer={"enumerate": "parallel"})

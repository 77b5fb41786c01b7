"""The guide of variational classification."""

import pyro
from pyro_ssl.guides.latent_classifier import LatentClassifier
from torch import Tensor


class VC(LatentClassifier):
    """`LatentClassifier` with p(y|z) by Bayes' rule, and q(z|x) a `Delta` at f(x) or a Gaussian.

    q(z|x) has no density term in the objective, so it is masked; q(z|y) enters through the
    log-ratio.

    References:
        Paper 000, eq. 4 to 6.
    """

    factorisation = "q(z|x), p(y|z) by Bayes' rule"

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.q_z(x).mask(False))
            if y is None:
                pyro.sample("y", self.p_y(z), infer={"enumerate": "parallel"})

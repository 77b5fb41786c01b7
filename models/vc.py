"""Variational classification: classifiers whose latent z has one density for each class."""

import pyro
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.distributions.priors import Prior


class VC(PyroModule):
    r"""Class y and a latent z with density p(z|y), for the objectives J_CE, J_GM and J_VC.

    The objective is the classification term log p(y|z), plus

    .. math:: \log p(y) + v \log p(z \mid y) - w \log \frac{q(z \mid y)}{p(z \mid y)},
              \qquad q(z \mid y) = \int q(z \mid x)\, p(x \mid y)\, dx

    The weights v and w select the objective. If y is missing, the bound is its expectation under
    q(y|z) = p(y|z). For the marginals q(z) and p(z), the same derivation gives

    .. math:: -\mathrm{KL}[q(z) \,\|\, p(z)] =
              -\mathrm E\Big[\sum_y p(y \mid z) \log \frac{q(z \mid y)}{p(z \mid y)}\Big]
              - \mathrm{KL}[q(y) \,\|\, p(y)], \qquad q(y) = \mathrm E\, p(y \mid z),

    with the entropy of the marginal q(y). The bound has the mean entropy of q(y|z) instead,
    whose maximum is a uniform prediction everywhere. The term `MutualInformation` with weight 1
    adds the difference of the two, so that bound and term together are the expression above.

    Arguments:
        p_y: Prior over one-hot y.
        p_z: z given y.
        density: Weight v of log p(z|y), which pulls each z towards the mode of its class; 1 in
            J_GM, 0 in J_CE and J_VC.
        ratio: Weight w of the log-ratio, whose expectation is a KL divergence and so keeps the
            spread of z within a class; 1 in J_VC.
        log_ratio: Maps (y, z) to log q(z|y) / p(z|y), such as `LogRatio`.

    Raises:
        ValueError: A weight is below 0; ratio and log_ratio are not given together.

    References:
        Paper 000, eq. 6 and section 5.

    >>> import torch
    >>> from pyro_ssl import ClassNormal, ClassPrior
    >>> model = VC(ClassPrior(3), ClassNormal(3, 2), density=1.0)
    >>> trace = pyro.poutine.trace(model).get_trace(torch.rand(5, 4))
    >>> [name for name, _ in trace.iter_stochastic_nodes()]
    ['data', 'y', 'z']
    """

    factorisation = "p(y) p(z|y)"

    def __init__(
        self,
        p_y: Prior,
        p_z: Prior,
        *,
        density: float = 0.0,
        ratio: float = 0.0,
        log_ratio: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not density >= 0:
            raise ValueError(f"density should be 0 or above, got {density}")
        if not ratio >= 0 or (ratio > 0) != (log_ratio is not None):
            raise ValueError(
                f"ratio should be above 0 with a log_ratio, and 0 without one; got {ratio}"
            )
        self.p_y = p_y
        self.p_z = p_z
        self.ratio = ratio
        self.log_ratio = log_ratio
        # poutine.scale rejects 0
        self.density = poutine.scale(scale=density) if density else poutine.mask(mask=False)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", self.p_y(), obs=y)
            with self.density:
                z = pyro.sample("z", self.p_z(y))
            if self.log_ratio is not None:
                pyro.factor("log_ratio", -self.ratio * self.log_ratio(y, z))

"""M2 as a user writes it, and its data."""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule

from pyro_ssl import (
    MLP,
    Normal,
)

D, K, Z = 4, 2, 2
X = torch.randn(60, D, generator=torch.Generator().manual_seed(0))
INDICES = torch.tensor([0, 1] * 10 + [-1] * 40)


class Model(PyroModule):
    """M2, with a likelihood by argument."""

    def __init__(self, likelihood=lambda mean: dist.Normal(mean, 1.0).to_event(1)):
        super().__init__()
        self.network, self.likelihood = MLP([K, Z], D, (6,)), likelihood

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(logits=torch.zeros(K)), obs=y)
            z = pyro.sample("z", dist.Normal(torch.zeros(Z), 1.0).to_event(1))
            pyro.sample("x", self.likelihood(self.network(y, z)), obs=x)


class Guide(PyroModule):
    """M2's guide; what it classifies by can be replaced."""

    def __init__(self, classify=lambda logits: dist.OneHotCategorical(logits=logits)):
        super().__init__()
        self.network, self.q_z = MLP(D, K, (6,)), Normal(MLP([D, K], 2 * Z, (6,)))
        self.label = classify

    def classify(self, x):
        return self.label(self.network(x))

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            if y is None:
                q_y = dist.OneHotCategorical(logits=self.network(x))
                y = pyro.sample("y", q_y, infer={"enumerate": "parallel"})
            pyro.sample("z", self.q_z(x, y))


class WithWeight(PyroModule):
    """A model with a latent w that all data share."""

    def __init__(self):
        super().__init__()
        self.program = Model()

    def forward(self, x, y=None):
        w = pyro.sample("w", dist.Normal(0.0, 2.0))
        self.program(x + w, y)

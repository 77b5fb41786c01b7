"""The guide of the ladder variational autoencoder."""

from collections.abc import Iterable, Iterator, Sequence

import pyro
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_ssl.distributions.conditionals import Conditional, merge


def _climb(up: Iterable[nn.Module], x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Compute d_1 .. d_L, one after another."""
    inputs: tuple[Tensor, ...] = (x, y)
    for f in up:
        inputs = (f(*inputs),)
        yield inputs[0]


class LadderTop(nn.Module):
    """q(z_L|x,y), which depends on the deterministic path alone, for a `VampPrior` over z_L.

    Arguments:
        up: The networks f_1 .. f_L; the first takes x and y.
        q_z: z_L given d_L.

    >>> import torch
    >>> from pyro_ssl import MLP, Normal
    >>> q_z_top = LadderTop([MLP([4, 3], 8), MLP(8, 8)], Normal(MLP(8, 2)))
    >>> q_z_top(torch.rand(5, 4), torch.rand(5, 3)).event_shape
    torch.Size([1])
    """

    def __init__(self, up: Sequence[nn.Module], q_z: Conditional | nn.Module) -> None:
        super().__init__()
        self.up = nn.ModuleList(up)
        self.q_z = q_z

    def forward(self, x: Tensor, y: Tensor) -> TorchDistribution:
        *_, d = _climb(self.up, x, y)
        return self.q_z(d)


class LVAE(PyroModule):
    r"""A deterministic path from x and y to d_L, and latents sampled from z_L down to z_1.

    .. math:: d_0 = (x, y), \quad d_l = f_l(d_{l-1}), \qquad
              q(z_l \mid z_{l+1}, x, y) \propto \hat q_l(z_l \mid d_l)\, p(z_l \mid z_{l+1})

    The product of the two Gaussians is a Gaussian whose precision is the sum of theirs. For z_L,
    q is the evidence alone.

    Arguments:
        q_y: One-hot y given x.
        up: The networks f_1 .. f_L; the first takes x and y.
        q_z: The evidence about z_l given d_l, a Gaussian, for l = 1 .. L.
        p_z: z_l given z_{l+1}, for l = 1 .. L - 1, parts of the model.

    References:
        Sonderby et al. 2016, eq. 10 to 15.

    >>> import torch
    >>> from pyro_ssl import MLP, Normal, OneHotCategorical
    >>> up = [MLP([4, 3], 8), MLP(8, 8)]
    >>> q_z = [Normal(MLP(8, 4)), Normal(MLP(8, 2))]
    >>> guide = LVAE(OneHotCategorical(MLP(4, 3)), up, q_z, p_z=[Normal(MLP(1, 4))])
    >>> [q.event_shape[0] for q in guide.evidence(torch.rand(5, 4), torch.rand(5, 3))]
    [2, 1]
    """

    factorisation = "q(y|x) q(z_L|x,y) prod q(z_l|z_l+1,x,y)"

    def __init__(
        self,
        q_y: Conditional | nn.Module,
        up: Sequence[nn.Module],
        q_z: Sequence[Conditional | nn.Module],
        p_z: Sequence[Conditional | nn.Module],
    ) -> None:
        super().__init__()
        self.q_y = q_y
        self.up = nn.ModuleList(up)
        self.q_z = nn.ModuleList(q_z)
        self.p_z = nn.ModuleList(p_z)

    def classify(self, x: Tensor) -> TorchDistribution:
        """q(y|x), over one-hot `(*, K)`."""
        return self.q_y(x)

    def evidence(self, x: Tensor, y: Tensor) -> list[TorchDistribution]:
        """The evidence of x and y about z_1 .. z_L, in this order."""
        return [q_z(d) for q_z, d in zip(self.q_z, _climb(self.up, x, y), strict=True)]

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            if y is None:  # q(y|x) is enumerated, so the bound sums over classes
                y = pyro.sample("y", self.q_y(x), infer={"enumerate": "parallel"})
            *below, top = self.evidence(x, y)
            z = pyro.sample(f"z_{len(below) + 1}", top)
            for level in range(len(below), 0, -1):
                z = pyro.sample(f"z_{level}", merge(below[level - 1], self.p_z[level - 1](z)))

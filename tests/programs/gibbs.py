"""What Gibbs sampling runs over, by tables."""

from collections.abc import Callable

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_ssl import (
    Objective,
)


class Model(nn.Module):
    """Whatever predicts; it notes the z of every step."""

    def __init__(self, p_y: Callable[[Tensor, Tensor], dist.TorchDistribution]) -> None:
        super().__init__()
        self.p_y, self.z = p_y, []

    def predict(self, x: Tensor, z: Tensor) -> dist.TorchDistribution:
        self.z.append(z)
        return self.p_y(x, z)


class Guide(nn.Module):
    """Whatever encodes; it notes the y that every step begins with."""

    def __init__(self, q_y: Callable[[Tensor], dist.TorchDistribution], q_z: Callable) -> None:
        super().__init__()
        self.q_y, self.q_z, self.y = q_y, q_z, []
        self.unused = nn.Parameter(
            torch.zeros(())
        )  # of a dtype and on a device, which `gibbs` goes by

    def classify(self, x: Tensor) -> dist.TorchDistribution:
        return self.q_y(x)

    def encode(self, x: Tensor, y: Tensor) -> dist.TorchDistribution:
        self.y.append(y)
        return self.q_z(x, y)


V, K = 4, 3  # values of x and of y; z is 0 or 1
G = torch.Generator().manual_seed(0)
P_Z = torch.tensor([0.35, 0.65], dtype=torch.float64)
P_X = torch.rand(2, V, generator=G, dtype=torch.float64).softmax(-1)  # (z, x)
P_Y = (3 * torch.rand(V, 2, K, generator=G, dtype=torch.float64)).softmax(-1)  # (x, z, y)
Z_OF_X = (P_Z[:, None] * P_X / (P_Z @ P_X)).T  # (x, z)
Y_OF_X = torch.einsum("xz,xzy->xy", Z_OF_X, P_Y)
Z_OF_XY = torch.einsum("xz,xzy->xyz", Z_OF_X, P_Y) / Y_OF_X[..., None]


def tables(q_z: Tensor = Z_OF_XY, q_y: Tensor = Y_OF_X) -> Objective:
    """x one-hot, `(B, V)`."""
    model = Model(
        lambda x, z: dist.OneHotCategorical(probs=P_Y[x.argmax(-1), z.squeeze(-1).long()])
    )
    encode = lambda x, y: dist.Bernoulli(q_z[x.argmax(-1), y.argmax(-1)][..., 1:]).to_event(1)  # noqa: E731
    return Objective(
        model, Guide(lambda x: dist.OneHotCategorical(probs=q_y[x.argmax(-1)]), encode)
    )


def nearly_one(n: int) -> Tensor:
    """Different numbers `(n, 1)`."""
    return 1 + 1e-9 * torch.arange(n)[:, None]


S, A, B, T = 1.0, 0.5, 1.2, 0.8  # x ~ N(z, S^2), y ~ N(A x + B z, T^2), z ~ N(0, 1)
POSTERIOR = S**2 / (1 + S**2)  # variance of z given x


def gaussian(variance: float = 1.0, start: float | None = None) -> Objective:
    """Exact for `variance=1`, a factor of q(z|x,y)'s.

    By `start`, y begins as N(0, start^2) in place of p(y|x).
    """

    def q_y(x: Tensor) -> dist.TorchDistribution:
        exact = dist.Normal(A * x + B * x / (1 + S**2), (B**2 * POSTERIOR + T**2) ** 0.5)
        return (exact if start is None else dist.Normal(torch.zeros_like(x), start)).to_event(1)

    def q_z(x: Tensor, y: Tensor) -> dist.TorchDistribution:
        precision = 1 + 1 / S**2 + B**2 / T**2
        mean = (x / S**2 + B * (y - A * x) / T**2) / precision
        return dist.Normal(mean, (variance / precision) ** 0.5).to_event(1)

    return Objective(Model(lambda x, z: dist.Normal(A * x + B * z, T).to_event(1)), Guide(q_y, q_z))

r"""Adversarial terms: model and guide are trained against a classifier of their latents.

There are two games; each has one term per player. In paper 003, an `Adversary` predicts the class
from z, and model and guide hide it. In paper 000, `Discriminators` distinguish the latents of a
class from samples of its prior, trained by the term `Discrimination`, and model and guide are
trained with the `LogRatio` that they estimate.

No term has a gradient with respect to the other player's parameters, so one step on the sum of all
terms is one step of each player.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pyro_ssl.distributions.priors import Prior
from pyro_ssl.objectives.loss_context import LossContext
from pyro_ssl.objectives.terms import Term
from pyro_ssl.utils.arguments import check_positive
from pyro_ssl.utils.process_rows import Rows

DiscriminatorInputs = Literal["linear", "squared", "quadratic"]


class Adversary(Term):
    r"""A classifier f(y|z) of the latent that model and guide are trained to defeat.

    With J the rest of the loss,

    .. math:: \min_{\theta, \phi} \max_\psi\;
              J + w\, \mathrm E_{q(z|x,y)}[\log f_\psi(y \mid z)]

    on labeled data. The value of the term is w E[log f]. The adversary minimises -E[log f], which
    contributes a gradient but nothing to the value.

    Arguments:
        f: The conditional of one-hot y given z.
        weight: Weight w.
        lr_scale: Learning rate of the adversary relative to that of model and guide.

    Raises:
        ValueError: The weight is not finite, or lr_scale is not above 0.

    References:
        Paper 003, appendix E.

    >>> from pyro_ssl import MLP, OneHotCategorical
    >>> Adversary(OneHotCategorical(MLP(2, 3, hidden=(8,)))).lr_scale
    1.0
    """

    divisible = True

    def __init__(self, f: nn.Module, weight: float = 1.0, lr_scale: float = 1.0) -> None:
        super().__init__(weight)
        _check_lr_scale(lr_scale)
        self.f = f
        self.lr_scale = lr_scale

    def formula(self, context: LossContext) -> Tensor:
        x = context.batch.x
        y = context.batch.y
        assert x is not None and y is not None
        guide: Any = context.guide
        z = guide.encode(x, y).rsample()
        pair_loss: Tensor = _frozen_call(self.f, z).log_prob(y).mean()
        adversary_loss: Tensor = -self.f(z.detach()).log_prob(y).mean()
        # `forward` multiplies by the weight, which is to scale the pair's loss only
        return pair_loss + (adversary_loss - adversary_loss.detach()) / self.weight


class Discriminators(nn.Module):
    r"""One binary classifier T_y(z) for each class: `(*, Z)` -> `(*, K)`.

    The log-ratio of two Gaussians is quadratic in z. With a linear T, only differences of means can
    be detected; with squares of z, also those of variances; with products, also of covariances.

    Arguments:
        dim: Size Z of the latent.
        classes: Number of classes K.
        hidden: Width of the hidden layer of each class, with tanh; 0 for none.
        inputs: Inputs of T: z (`linear`), z and z_i^2 (`squared`), z and z_i z_j (`quadratic`).
        spectral_norm: Divide each class's weights of a layer by their largest singular value.

    Raises:
        ValueError: A size is out of range; `inputs` is unknown.

    References:
        Paper 000, eq. 9.

    >>> Discriminators(4, 3, hidden=8)(torch.zeros(5, 4)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        hidden: int = 0,
        inputs: DiscriminatorInputs = "squared",
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        check_positive(dim=dim, classes=classes)
        sizes = {"linear": dim, "squared": 2 * dim, "quadratic": dim + dim * (dim + 1) // 2}
        if inputs not in sizes:
            raise ValueError(f"inputs should be one of {', '.join(sizes)}, got {inputs!r}")
        if hidden < 0:
            raise ValueError(f"hidden should be 0 or above, got {hidden}")
        self.inputs = inputs
        self.classes = classes
        self.spectral_norm = spectral_norm
        self.first = nn.Linear(sizes[inputs], classes * (hidden or 1))
        # Row y is applied to the hidden layer of class y.
        self.last = nn.Linear(hidden, classes) if hidden else None

    def forward(self, z: Tensor) -> Tensor:
        # The layers are small and subtract squares, so they run in full precision.
        with torch.autocast(z.device.type, enabled=False):
            h = nn.functional.linear(self._features(z), self._weight(self.first), self.first.bias)
            if self.last is None:
                return h
            h = h.unflatten(-1, (self.classes, -1)).tanh()
            return (h * self._weight(self.last)).sum(-1) + self.last.bias

    def _features(self, z: Tensor) -> Tensor:
        if self.inputs == "linear":
            return z
        if self.inputs == "squared":
            return torch.cat([z, z.square()], -1)
        rows, columns = torch.triu_indices(z.shape[-1], z.shape[-1], device=z.device)
        return torch.cat([z, z[..., rows] * z[..., columns]], -1)

    def _weight(self, layer: nn.Linear) -> Tensor:
        if not self.spectral_norm:
            return layer.weight
        by_class = layer.weight.unflatten(0, (self.classes, -1))
        return (by_class / torch.linalg.matrix_norm(by_class, 2, keepdim=True)).flatten(0, 1)


class LogRatio(nn.Module):
    r"""Log-ratio of the densities of q(z|y) and p(z|y), estimated by discriminators.

    .. math:: T_y(z) \approx \log \frac{q(z \mid y)}{p(z \mid y)}

    This is model and guide's side of the game. Its gradient with respect to z is that of T. With
    respect to the parameters of p(z|y), on which T does not depend, it is the gradient of -log
    p(z|y). The discriminators get no gradient here; see `Discrimination`.

    Arguments:
        discriminators: T, from z to a number for each class.
        p_z: Prior of z given y.
        backpropagate: Let the gradient of T reach z, as in the authors' later code; section 3.2 of
            the paper says that no gradient of the discriminators is needed.
        bounded: Replace T by :math:`2 \log(1 + e^T) - 2 \log 2`, the loss of a GAN's generator,
            which is not in the paper. With respect to z, it has the gradient of
            :math:`2\,(\mathrm{KL}[q \| p] - 2\, \mathrm{JS}[q, p])`. That is the gradient of the KL
            divergence where q(z|y) is near p(z|y), and it vanishes far away, where the gradient of
            T would drive z further away.

    References:
        Arjovsky & Bottou 2017, theorem 2.5.

    >>> from pyro_ssl import ClassNormal
    >>> ratio = LogRatio(Discriminators(4, 3), ClassNormal(3, 4))
    >>> ratio(torch.eye(3), torch.zeros(3, 4)).shape
    torch.Size([3])
    """

    def __init__(
        self,
        discriminators: nn.Module,
        p_z: Prior,
        *,
        backpropagate: bool = True,
        bounded: bool = False,
    ) -> None:
        super().__init__()
        self.discriminators = discriminators
        self.p_z = p_z
        self.backpropagate = backpropagate
        self.bounded = bounded

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        """T_y(z) for one-hot classes `(B, K)` and their latents `(B, Z)`: `(B,)`."""
        inputs = z if self.backpropagate else z.detach()
        t: Tensor = (y * _frozen_call(self.discriminators, inputs)).sum(-1)
        log_p = self.p_z(y).log_prob(z.detach())
        if self.bounded:
            t = 2 * (nn.functional.softplus(t) - math.log(2))
        return t - (log_p - log_p.detach())


class Discrimination(Term):
    r"""The discriminators' part: distinguish latents of class y from samples of p(z|y).

    .. math:: \max_\psi\; \mathrm E_{q(z|y)}[\log \sigma(T_y(z))]
              + \mathrm E_{p(z|y)}[\log(1 - \sigma(T_y(z)))]

    The class of unlabeled data is sampled from q(y|x). The value of the term is 0, and it has no
    gradient with respect to the latents or the prior.

    Arguments:
        ratio: The log-ratio whose discriminators are trained.
        lr_scale: Learning rate of the discriminators relative to that of model and guide.

    Raises:
        ValueError: lr_scale is not above 0.

    References:
        Paper 000, eq. 9.

    >>> from pyro_ssl import ClassNormal
    >>> term = Discrimination(LogRatio(Discriminators(4, 3), ClassNormal(3, 4)))
    >>> term.loss(torch.eye(3), torch.zeros(3, 4)).shape
    torch.Size([])
    """

    needs = "nothing"
    divisible = True

    def __init__(self, ratio: LogRatio, lr_scale: float = 1.0) -> None:
        super().__init__()
        _check_lr_scale(lr_scale)
        self.discriminators = ratio.discriminators
        self.lr_scale = lr_scale
        self._p_z = (ratio.p_z,)  # in a tuple, so that its parameters are not those of this term

    def rows_of(self, context: LossContext) -> Rows | None:
        return context.trace_rows

    def formula(self, context: LossContext) -> Tensor:
        y, z = context.classes_and_latents()
        loss = self.loss(y, z)
        return loss - loss.detach()

    def loss(self, y: Tensor, z: Tensor) -> Tensor:
        """Minus the class's objective, for one-hot classes `(B, K)` and their latents `(B, Z)`."""
        (p_z,) = self._p_z
        prior = p_z(y).sample()
        t_q = (y * self.discriminators(z.detach())).sum(-1)
        t_p = (y * self.discriminators(prior)).sum(-1)
        return (nn.functional.softplus(-t_q) + nn.functional.softplus(t_p)).mean()


def _frozen_call(module: nn.Module, z: Tensor) -> Any:
    """Call a module without gradients in its parameters."""
    frozen = {name: p.detach() for name, p in module.named_parameters()}
    return torch.func.functional_call(module, frozen, z)


def _check_lr_scale(lr_scale: float) -> None:
    if not lr_scale > 0:
        raise ValueError(f"lr_scale should be above 0, got {lr_scale}")

"""The objective: the ELBO of a pair plus terms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_ssl.checks import check_pair, first_nonfinite
from pyro_ssl.elbo import Bound, TraceTopEnum_ELBO, scale_latents
from pyro_ssl.terms import Batch, Step, Term


class Objective(nn.Module):
    r"""The loss of a model/guide pair with terms, per datum, in nats; labeled and unlabeled data in the same step.

    .. math:: J = -\lambda_l \frac{1}{B_l} \sum_{i \in l} L(x_i, y_i) - \lambda_u \frac{1}{B_u} \sum_{i \in u} U(x_i)
                  + \sum_t \mathrm{term}_t

    Arguments:
        model: A program over `(x, y=None)`; None for a purely discriminative method.
        guide: Its guide, with `classify(x) -> Distribution`.
        terms: What is added to the loss.
        labeled: Weight lambda_l of the labeled bound, applied by `poutine.scale`; N_l / N_u gives the papers' sums over
            data sets; 0 leaves the bound out.
        unlabeled: Weight lambda_u of the unlabeled bound; 003's lambda.
        elbo: The bound; a `TraceTopEnum_ELBO`.

    Raises:
        ValueError: A weight is below 0.
    """

    def __init__(
        self,
        model: nn.Module | None,
        guide: nn.Module,
        terms: Iterable[Term] = (),
        *,
        labeled: float = 1.0,
        unlabeled: float = 1.0,
        elbo: TraceTopEnum_ELBO | None = None,
    ) -> None:
        super().__init__()
        for name, weight in (("labeled", labeled), ("unlabeled", unlabeled)):
            if not weight >= 0:
                raise ValueError(f"{name} should be 0 or above, got {weight}")
        self.model: Any = model
        self.guide: Any = guide
        self.terms = nn.ModuleList(terms)
        self.labeled, self.unlabeled = labeled, unlabeled
        self.elbo = elbo or TraceTopEnum_ELBO()

    def classify(self, x: Tensor) -> TorchDistribution:
        """What the method predicts: the guide's q(y|x), over one-hot `(*, K)`."""
        return self.guide.classify(x)

    @property
    def learns_unlabeled(self) -> bool:
        """Whether data without labels add to the loss; where they do not, training passes over them."""
        return (self.model is not None and self.unlabeled > 0) or any(t.needs == "unlabeled" for t in self.terms)

    def bound(self, x: Tensor, y: Tensor | None = None, *, kl_weight: float = 1.0) -> Tensor:
        """L(x, y), or U(x) without y, per datum: `(B,)` nats, for evaluation and for terms of one's own."""
        return self._bound(x, y, kl_weight).value

    def _bound(self, x: Tensor, y: Tensor | None, kl_weight: float = 1.0, weight: float = 1.0) -> Bound:
        with poutine.scale(scale=weight), scale_latents(kl_weight):
            return self.elbo.bound(self.model, self.guide, x, y)

    def parts(self, batch: Batch, *, kl_weight: float = 1.0) -> dict[str, Tensor]:
        """Every part of the loss as a scalar, by name; their sum is the loss.

        Arguments:
            batch: Labeled and unlabeled data; a part that is None adds nothing.
            kl_weight: Weight beta_t of the continuous latents' KL.
        """
        parts: dict[str, Tensor] = {}
        step = Step(batch, self.guide)
        if self.model is not None:
            for name, x, y, weight in (
                ("labeled", batch.x, batch.y, self.labeled),
                ("unlabeled", batch.x_unlabeled, None, self.unlabeled),
            ):
                if x is not None and weight:
                    bound = self._bound(x, y, kl_weight, weight)
                    parts[name] = -bound.value.mean()
                    sites: Any = bound.guide_trace.nodes
                    if name == "unlabeled" and "y" in sites:
                        step.known[name] = sites["y"]["fn"]
        for term in self.terms:
            if (value := term(step)) is not None:
                parts[_unused(type(term).__name__, parts)] = value
        return parts

    def forward(self, batch: Batch, *, kl_weight: float = 1.0) -> Tensor:
        """The loss, a scalar."""
        return total(self.parts(batch, kl_weight=kl_weight))

    def check(self, batch: Batch) -> None:
        """Run both programs once and raise ValueError, with the fix, if their sites, plates or shapes do not match."""
        if self.model is not None:
            for x, y in ((batch.x, batch.y), (batch.x_unlabeled, None)):
                if x is not None:
                    check_pair(self.model, self.guide, x, y)

    def culprit(self, batch: Batch) -> str:
        """The first site, or else the first part, whose value is not finite: for the message of a run that diverged."""
        with torch.no_grad():
            if self.model is not None:
                for x, y in ((batch.x, batch.y), (batch.x_unlabeled, None)):
                    if x is not None and (site := first_nonfinite(*self._bound(x, y)[1:])):
                        return f"site {site!r}"
            bad = [name for name, value in self.parts(batch).items() if not value.isfinite()]
        return f"part {bad[0]!r}" if bad else "the gradient"


def total(parts: dict[str, Tensor]) -> Tensor:
    """The sum of the parts, or an error that says why there is none."""
    if not parts:
        raise ValueError("batch: no part of the loss applies to it; a classifier needs labels, a model needs data")
    return torch.stack(list(parts.values())).sum()


def _unused(name: str, taken: dict[str, Tensor]) -> str:
    return name if name not in taken else _unused(name + "_", taken)

"""The loss by a stock ELBO (see `infer.stock_elbo`), which has no bound per datum."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pyro_ssl.infer.scales import scale_data, scale_latents, scale_shared, undo_subsampling
from pyro_ssl.infer.stock_elbo import differentiable_loss
from pyro_ssl.objectives.batch import Batch
from pyro_ssl.objectives.bound_weights import BoundWeights


def stock_losses(
    elbo: Any,
    model: nn.Module,
    guide: nn.Module,
    batch: Batch,
    kl_weight: float | Tensor,
    weights: BoundWeights,
    shared_plates: frozenset[str],
) -> dict[str, Tensor]:
    """The labeled and the unlabeled part of an ELBO's loss, each per datum.

    Sites that all data share are in both parts, scaled so that they count once in the data set.

    Arguments:
        elbo: Any `pyro.infer.ELBO`.
        model: The model.
        guide: Its guide.
        batch: Encoded data.
        kl_weight: Weight of the continuous latents' KL.
        weights: Weights of the two parts.
        shared_plates: Names of plates of the size of the batch that all data share.

    >>> import torch
    >>> from pyro.infer import TraceEnum_ELBO
    >>> from pyro_ssl import zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> elbo = TraceEnum_ELBO(max_plate_nesting=1)
    >>> batch = Batch(x_unlabeled=torch.randn(5, 4))
    >>> weights = BoundWeights.of(None, 1.0, sizes=(0, 5))
    >>> list(stock_losses(elbo, m2.model, m2.guide, batch, 1.0, weights, frozenset()))
    ['unlabeled']
    """
    calls: list[tuple[str, Tensor, Tensor | None, float]] = []
    if batch.x is not None and weights.labeled:
        calls.append(("labeled", batch.x, batch.y, weights.labeled))
    if batch.x_unlabeled is not None and weights.unlabeled:
        calls.append(("unlabeled", batch.x_unlabeled, None, weights.unlabeled))
    parts = {}
    for name, x, y, weight in calls:
        rows = len(x)
        share = rows / (len(calls) * weights.size)
        with (
            undo_subsampling(rows),
            scale_data(weight, rows, shared_plates),
            scale_shared(share, rows, shared_plates),
            scale_latents(kl_weight, rows, shared_plates),
        ):
            parts[name] = differentiable_loss(elbo, model, guide, x, y) / rows
    return parts

"""What a term of the loss may read: the batch, the guide, and q(y|x) on both parts of the batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from pyro.distributions import OneHotCategorical, TorchDistribution
from torch import Tensor, nn

from pyro_ssl.distributions.row_noise import draw
from pyro_ssl.infer.sites import data_plates, is_per_datum, latent_sites
from pyro_ssl.objectives.batch import Batch
from pyro_ssl.types import Guide, classifies_by_one_draw
from pyro_ssl.utils.context import parts_in_eval_mode
from pyro_ssl.utils.process_noise import sharded
from pyro_ssl.utils.process_rows import Rows


@dataclass
class LossContext:
    """The batch of a step, and q(y|x) on both parts of it, computed at most once.

    If the bound has already evaluated q(y|x), terms read that distribution.

    Arguments:
        batch: The data of the step, encoded.
        guide: The guide, which classifies.
        known: q(y|x) that the bound has evaluated, by part: `labeled` or `unlabeled`.
        trace: The guide's trace, set by `record_trace`.
        labeled: Number of labeled rows, the first ones in the trace; None if the trace is of
            unlabeled data alone.
        trace_rows: Which rows of all processes the trace has; None if there is one process.

    >>> from pyro_ssl import Batch, zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> LossContext(Batch(x_unlabeled=torch.randn(5, 4)), m2.guide).q_unlabeled.mean.shape
    torch.Size([5, 3])
    """

    batch: Batch
    guide: Guide
    known: dict[str, TorchDistribution] = field(default_factory=dict)
    trace: Any = None
    labeled: int | None = None
    trace_rows: Rows | None = None

    @cached_property
    def q_labeled(self) -> TorchDistribution:
        """q(y|x) on labeled data, over one-hot `(B_l, K)`."""
        assert self.batch.x is not None
        if "labeled" in self.known:
            return self.known["labeled"]
        with sharded(self.batch.rows):
            return self.guide.classify(self.batch.x)

    @cached_property
    def q_unlabeled(self) -> TorchDistribution:
        """q(y|x) on unlabeled data, over one-hot `(B_u, K)`."""
        assert self.batch.x_unlabeled is not None
        if "unlabeled" in self.known:
            return self.known["unlabeled"]
        with sharded(self.batch.rows_unlabeled):
            return self.guide.classify(self.batch.x_unlabeled)

    @cached_property
    def q_without_noise(self) -> Tensor:
        """q(y|x) on unlabeled data with all networks in eval mode, without gradient, `(B_u, K)`."""
        assert self.batch.x_unlabeled is not None
        assert isinstance(self.guide, nn.Module)
        networks = [part for part in self.guide.modules() if not isinstance(part, Guide)]
        rows = self.batch.rows_unlabeled
        with torch.no_grad(), parts_in_eval_mode(networks), sharded(rows):
            return self.guide.classify(self.batch.x_unlabeled).mean

    def record_trace(
        self, guide_trace: Any, labeled: int | None = None, rows: Rows | None = None
    ) -> None:
        """Store a guide's trace, and q(y|x) from its site `y` if this is its distribution.

        It is not if the guide samples a latent before y, such as the auxiliary variable of
        q(y|x,a), unless `classifies_by_one_draw` of the guide is True; see `types.OneDrawGuide`.

        Arguments:
            guide_trace: Trace of unlabeled data, or of labeled and then unlabeled data.
            labeled: Number of labeled rows in the trace; None if there are no labeled data.
            rows: Positions of its rows among those of all processes; None for one process.
        """
        self.trace = guide_trace
        self.labeled = labeled
        self.trace_rows = rows
        if not self._classifies(guide_trace):
            return
        q = guide_trace.nodes["y"]["fn"]
        if not isinstance(q, OneHotCategorical):
            return
        logits = _first_draw(q.logits)
        if labeled is None:
            self.known["unlabeled"] = q if logits is q.logits else OneHotCategorical(logits=logits)
            return
        for name, part in (("labeled", logits[:labeled]), ("unlabeled", logits[labeled:])):
            if len(part):
                self.known[name] = OneHotCategorical(logits=part)

    def _classifies(self, guide_trace: Any) -> bool:
        """True if the distribution of the site `y` of a trace is q(y|x)."""
        if "y" not in guide_trace.nodes:
            return False
        rows = next((plate.size for plate in data_plates(guide_trace.nodes["y"])), None)
        sampled = [
            name for name, site in latent_sites(guide_trace).items() if is_per_datum(site, rows)
        ]
        if sampled[:1] == ["y"]:
            return True
        guide: Any = self.guide
        return "y" in sampled and guide.training and classifies_by_one_draw(guide)

    def classes_and_latents(self) -> tuple[Tensor, Tensor]:
        """One-hot classes `(B, K)` and the latents z `(B, Z)` that the guide sampled.

        Labeled data are first. The classes of unlabeled data are sampled from q(y|x).

        Raises:
            ValueError: The bound did not evaluate labeled and unlabeled data in one pass.
        """
        labeled = 0 if self.batch.y is None else self.labeled
        if self.trace is None or labeled is None:
            raise ValueError(
                "objective: discriminators learn from labeled and unlabeled data in one call; "
                "give Objective(joint_pass=True) and a labeled_weight above 0"
            )
        z = _first_draw(self.trace.nodes["z"]["value"])
        classes = [] if self.batch.y is None else [self.batch.y]
        if len(z) > labeled:
            with sharded(self.batch.rows_unlabeled):
                classes.append(draw(self.q_unlabeled))
        return torch.cat(classes).detach(), z


def _first_draw(values: Tensor) -> Tensor:
    """The first of several draws, `(B, *)`; a single draw as it is."""
    return values.flatten(0, -3)[0] if values.dim() > 2 else values

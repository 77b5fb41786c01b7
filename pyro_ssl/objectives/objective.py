"""The loss: the ELBO of a model/guide pair plus terms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.infer import ELBO
from pyro.poutine import Trace
from torch import Tensor, nn

from pyro_ssl.data.extent import Extent
from pyro_ssl.infer.checks.data import check_input_units, first_nonfinite
from pyro_ssl.infer.checks.pair import (
    check_pair,
    check_programs,
    check_stock_pair,
    check_support,
    trial,
)
from pyro_ssl.infer.elbo import Bound, TraceTopKEnum_ELBO
from pyro_ssl.infer.joint_pass import joint_pass_is_exact
from pyro_ssl.infer.scales import scale_data, scale_latents
from pyro_ssl.objectives.batch import Batch, transformed
from pyro_ssl.objectives.bound_weights import BoundWeights
from pyro_ssl.objectives.loss_context import LossContext
from pyro_ssl.objectives.predictors import GuidePredictor, LabelPredictor
from pyro_ssl.objectives.stock_losses import stock_losses
from pyro_ssl.objectives.terms import Term
from pyro_ssl.types import ConditionedOnWeights
from pyro_ssl.utils.context import exclusive, preserve_random_state
from pyro_ssl.utils.private_names import BatchNormBase
from pyro_ssl.utils.process_noise import sharded
from pyro_ssl.utils.process_rows import mean_over_rows

JOINT_PASS_BUDGET = 3e7
"""Limit of multiplications (about 1 ms) above which a joint pass is slower than two passes."""


class Objective(nn.Module):
    r"""The loss of a model/guide pair with further terms, per datum, in nats.

    Each step has labeled and unlabeled data:

    .. math:: J = -\lambda_l \frac{1}{B_l} \sum_{i \in l} L(x_i, y_i)
                  - \lambda_u \frac{1}{B_u} \sum_{i \in u} U(x_i) + \sum_t \mathrm{term}_t

    Arguments:
        model: A model over `(x, y=None)`; None for a purely discriminative method.
        guide: Its guide, with `classify(x)` that returns a distribution.
        terms: Terms added to the loss.
        labeled_weight: Weight lambda_l of the labeled bound, lambda in paper 003. None means N_l /
            N_u (1 without unlabeled data), which makes J proportional to the papers' sum over all
            data. 0 leaves the labeled bound out.
        unlabeled_weight: Weight lambda_u of the unlabeled bound.
        elbo: The bound: by default a `TraceTopKEnum_ELBO`. A pair outside its scope needs one of
            Pyro's ELBOs, such as `TraceEnum_ELBO(max_plate_nesting=2)`. These have no bound per
            datum, so `bound` and a joint pass are refused.
        joint_pass: Evaluate labeled and unlabeled data in one pass of the programs. None lets `fit`
            decide, see `joint_pass_for`.
        predictor: The predictor of `classify`: by default the guide's q(y|x). A `GibbsPredictor`
            samples the model's p(y|x).
        features: A module that encodes x; its output is the data of model and guide. `fit` trains
            a `PretrainedEncoder` first.

    Attributes:
        extent: Shape and range of the training data, set by `fit` and saved with the model.
            Prediction refuses data in other units. None turns the check off.
        sizes: Sizes N_l and N_u of the data sets, set by `fit` and not saved. None uses the sizes
            of the batch.
        input_limit: Largest absolute value that `check` accepts; larger ones suggest data in other
            units. It is 10 for methods of the zoo, whose networks expect inputs of about 1. None
            turns the check off.

    Raises:
        ValueError: A weight is below 0; a program is not a module; elbo is not a `pyro.infer.ELBO`.

    >>> import torch
    >>> from pyro_ssl import Batch, LabelLogProb, zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> objective = Objective(m2.model, m2.guide, [LabelLogProb(weight=10.0)])
    >>> sorted(objective.parts(Batch(torch.randn(3, 4), torch.eye(3), torch.randn(5, 4))))
    ['LabelLogProb', 'labeled', 'unlabeled']
    """

    def __init__(
        self,
        model: nn.Module | None,
        guide: nn.Module,
        terms: Iterable[Term] = (),
        *,
        labeled_weight: float | None = 1.0,
        unlabeled_weight: float = 1.0,
        elbo: ELBO | None = None,
        joint_pass: bool | None = None,
        predictor: LabelPredictor | None = None,
        features: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_programs(model, guide)
        if labeled_weight is not None:
            _check_weight("labeled_weight", labeled_weight)
        _check_weight("unlabeled_weight", unlabeled_weight)
        self.model: Any = model
        self.guide: Any = guide
        self.terms = nn.ModuleList(terms)
        self.labeled_weight = labeled_weight
        self.unlabeled_weight = unlabeled_weight
        self.elbo: Any = TraceTopKEnum_ELBO() if elbo is None else elbo
        if not isinstance(self.elbo, ELBO):
            raise ValueError(f"elbo should be a pyro.infer.ELBO, got {elbo!r}")
        if joint_pass and not self.has_bound_per_datum:
            raise ValueError(
                f"joint_pass=True needs a bound per datum, and a {type(elbo).__name__} has none; "
                "leave it out"
            )
        self.joint_pass = joint_pass
        self.predictor: LabelPredictor = GuidePredictor() if predictor is None else predictor
        self.sizes: tuple[int, int] | None = None
        self.input_limit: float | None = None
        self.extent: Extent | None = None
        self._shared_plates: frozenset[str] = frozenset()
        self.features = features

    # --- the loss -----------------------------------------------------------------------------

    def forward(self, batch: Batch, *, kl_weight: float = 1.0, joint: bool = False) -> Tensor:
        """The loss, a scalar; see `parts`."""
        return total(self.parts(batch, kl_weight=kl_weight, joint=joint))

    @exclusive()
    def parts(
        self,
        batch: Batch,
        *,
        kl_weight: float | Tensor = 1.0,
        joint: bool = False,
    ) -> dict[str, Tensor]:
        """The parts of the loss as scalars, by name; their sum is the loss.

        Arguments:
            batch: Labeled and unlabeled data; a part that is None adds nothing.
            kl_weight: Weight beta_t of the KL of continuous latents.
            joint: Evaluate labeled and unlabeled data in one pass of the programs, if the batch has
                both; see `joint_pass_for`. The objective's `joint_pass` takes precedence if it is
                not None.
        """
        batch = self._encoded(batch)
        context = LossContext(batch, self.guide)
        parts = {}
        if self.model is not None:
            parts = self._bounds(batch, kl_weight, joint, context)
        for term in self.terms:
            value = term(context)
            if value is not None:
                parts[_unused(type(term).__name__, parts)] = value
        return parts

    def _bounds(
        self, batch: Batch, kl_weight: float | Tensor, joint: bool, context: LossContext
    ) -> dict[str, Tensor]:
        """The labeled and the unlabeled part; q(y|x) is recorded in the context."""
        weights = self._weights(batch)
        if not self.has_bound_per_datum:
            return stock_losses(
                self.elbo,
                self.model,
                self.guide,
                batch,
                kl_weight,
                weights,
                self._shared_plates,
            )
        if self._is_joint(batch, weights, joint):
            return self._joint_bounds(batch, kl_weight, weights, context)
        return self._separate_bounds(batch, kl_weight, weights, context)

    def _is_joint(self, batch: Batch, weights: BoundWeights, joint: bool) -> bool:
        """Whether the batch goes through the programs in one pass."""
        has_labeled = batch.x is not None and bool(weights.labeled)
        has_unlabeled = batch.x_unlabeled is not None and bool(weights.unlabeled)
        if self.joint_pass is None:
            return joint and has_labeled and has_unlabeled
        # With joint_pass=True, a batch without unlabeled data also goes through the joint code,
        # so that its labels are enumerated alike.
        return self.joint_pass and has_labeled

    def _separate_bounds(
        self, batch: Batch, kl_weight: float | Tensor, weights: BoundWeights, context: LossContext
    ) -> dict[str, Tensor]:
        """Each part from its own pass of the programs."""
        parts = {}
        if batch.x is not None and weights.labeled:
            with sharded(batch.rows):
                bound = self._bound(batch.x, batch.y, kl_weight, weights.labeled)
            parts["labeled"] = -mean_over_rows(bound.value, batch.rows)
            parts |= _shared_part(bound, weights, batch)
        if batch.x_unlabeled is not None and weights.unlabeled:
            with sharded(batch.rows_unlabeled):
                bound = self._bound(batch.x_unlabeled, None, kl_weight, weights.unlabeled)
            parts["unlabeled"] = -mean_over_rows(bound.value, batch.rows_unlabeled)
            parts |= _shared_part(bound, weights, batch)
            context.record_trace(bound.guide_trace, rows=batch.rows_unlabeled)
        return parts

    def _joint_bounds(
        self, batch: Batch, kl_weight: float | Tensor, weights: BoundWeights, context: LossContext
    ) -> dict[str, Tensor]:
        """Both parts from one pass of the programs over labeled and then unlabeled data."""
        x = batch.x
        assert x is not None
        others = x[:0]
        rows = batch.rows
        if batch.x_unlabeled is not None and weights.unlabeled:
            others = batch.x_unlabeled
            rows = batch.all_rows
        weight: float | Tensor = weights.labeled
        if len(others) and weights.labeled != weights.unlabeled:
            of_labeled = x.new_full((len(x),), weights.labeled)
            of_others = x.new_full((len(others),), weights.unlabeled)
            weight = torch.cat([of_labeled, of_others])
        with sharded(rows):
            bound = self._bound(torch.cat([x, others]), None, kl_weight, weight, labels=batch.y)
        context.record_trace(bound.guide_trace, len(x), rows)
        parts = {"labeled": -mean_over_rows(bound.value[: len(x)], batch.rows)}
        if len(others):
            parts["unlabeled"] = -mean_over_rows(bound.value[len(x) :], batch.rows_unlabeled)
        return parts | _shared_part(bound, weights, batch)

    def _weights(self, batch: Batch) -> BoundWeights:
        sizes = self.sizes or batch.sizes
        return BoundWeights.of(self.labeled_weight, self.unlabeled_weight, sizes)

    @exclusive()
    def _bound(
        self,
        x: Tensor,
        y: Tensor | None,
        kl_weight: float | Tensor = 1.0,
        weight: float | Tensor = 1.0,
        labels: Tensor | None = None,
    ) -> Bound:
        # A poutine.scale inside the logarithm of a mean would not scale an importance-weighted
        # bound, so the result is multiplied.
        scales_bound = self.elbo.importance_weighted
        is_weighted = isinstance(weight, Tensor) or weight != 1
        with ExitStack() as scales:
            if is_weighted and not scales_bound:
                scales.enter_context(scale_data(weight, len(x)))
            if isinstance(kl_weight, Tensor) or kl_weight != 1:
                scales.enter_context(scale_latents(kl_weight, len(x)))
            bound: Bound = self.elbo.bound(self.model, self.guide, x, y, labels=labels)
        if scales_bound:
            return bound._replace(value=weight * bound.value)
        return bound

    @property
    def learns_unlabeled(self) -> bool:
        """True if the loss depends on unlabeled data; otherwise training leaves them out."""
        if self.model is not None and self.unlabeled_weight > 0:
            return True
        return any(term.needs == "unlabeled" for term in self.terms)

    @property
    def has_bound_per_datum(self) -> bool:
        """True if the ELBO has a bound per datum; Pyro's have only a loss of the batch."""
        return isinstance(self.elbo, TraceTopKEnum_ELBO)

    # --- evaluation ---------------------------------------------------------------------------

    @exclusive()
    def classify(self, x: Tensor) -> TorchDistribution:
        """Predict p(y|x), over one-hot labels `(B, K)` or real labels `(B, D)`."""
        return self.predictor(self.model, self.guide, self.encode(x))

    @exclusive()
    def bound(self, x: Tensor, y: Tensor | None = None, *, kl_weight: float = 1.0) -> Tensor:
        """L(x, y), or U(x) without y, per datum: `(B,)` nats.

        Raises:
            ValueError: The ELBO has no bound per datum.
        """
        if not self.has_bound_per_datum:
            raise ValueError(
                f"elbo: a {type(self.elbo).__name__} has no bound per datum; "
                "a TraceTopKEnum_ELBO has one"
            )
        return self._bound(self.encode(x), y, kl_weight).value

    def encode(self, x: Tensor) -> Tensor:
        """Data for model and guide: the features of x, or x itself without `features`."""
        return x if self.features is None else self.features(x)

    def _encoded(self, batch: Batch) -> Batch:
        if self.features is None or batch.encoded:
            return batch
        return transformed(batch, self.features)

    @contextmanager
    def programs(self) -> Iterator[tuple[Any, Any]]:
        """Yield model and guide; inside the block, random weights are at their posterior mean."""
        model: Any = self.model
        if not isinstance(self.model, ConditionedOnWeights):
            yield self.model, self.guide
            return
        with model.given(self.guide.loc):
            yield model.program, self.guide.program

    # --- checks -------------------------------------------------------------------------------

    @exclusive()
    def check(self, batch: Batch, extremes: Batch | None = None) -> None:
        """Run model and guide once; check that they match, and the units of the data.

        Arguments:
            batch: Data as in training.
            extremes: Further data, which should be in the model's support.

        Raises:
            ValueError: Model and guide do not match, or the data do not fit; the message
                says how to fix it.
        """
        if self.model is not None:
            self._check_pair(self._encoded(batch))
            if extremes is not None:
                for x, y in _labeled_and_unlabeled(self._encoded(extremes)):
                    check_support(self.model, self.guide, x, y)
        if self.input_limit is None:
            return
        for x, _ in _labeled_and_unlabeled(batch):
            check_input_units(x, self.input_limit)

    def _check_pair(self, batch: Batch) -> None:
        for x, y in _labeled_and_unlabeled(batch):
            if self.has_bound_per_datum:
                check_pair(self.model, self.guide, x, y, weighted=True)
            else:
                self._shared_plates |= check_stock_pair(self.elbo, self.model, self.guide, x, y)

    @exclusive()
    def joint_pass_for(self, batch: Batch) -> bool:
        """True if the labeled and unlabeled data of batches like this one should share a pass.

        `joint_pass` decides if it is not None. Otherwise, they share a pass if that changes neither
        bound and is faster. With batch norm they share it even if it is slower, so that the
        statistics are those of all data.

        Arguments:
            batch: Labeled and unlabeled data as in training.
        """
        if self.joint_pass is not None:
            return self.joint_pass
        if self.model is None or not self.has_bound_per_datum:
            return False
        if batch.x is None or batch.y is None or batch.x_unlabeled is None:
            return False
        with preserve_random_state():
            batch = self._encoded(batch)
        has_batch_norm = any(isinstance(part, BatchNormBase) for part in self.modules())
        if not has_batch_norm and not self._joint_pass_saves_time(batch):
            return False
        return joint_pass_is_exact(self.model, self.guide, batch)

    def _joint_pass_saves_time(self, batch: Batch) -> bool:
        """True if evaluating labeled rows for several classes costs less than a second pass."""
        assert batch.x is not None and batch.y is not None
        classes = batch.y.shape[-1]
        evaluated = self.elbo.policy.at_most(classes)
        programs = (self.model, self.guide)
        weights = sum(p.numel() for program in programs for p in program.parameters())
        multiplications = (evaluated - 1) * len(batch.x) * weights
        return bool(multiplications <= JOINT_PASS_BUDGET)

    def culprit(self, batch: Batch, *, joint: bool = False) -> str:
        """Name the cause of a divergence: the first site or part of the loss that is not finite."""
        with torch.no_grad():
            site = self._nonfinite_site(self._encoded(batch))
            if site is not None:
                return f"site {site!r}"
            for name, value in self.parts(batch, joint=joint).items():
                if not value.isfinite():
                    return f"part {name!r}"
        return "the gradient"

    def _nonfinite_site(self, batch: Batch) -> str | None:
        if self.model is None:
            return None
        for x, y in _labeled_and_unlabeled(batch):
            site = first_nonfinite(*self._traces(x, y))
            if site:
                return site
        return None

    def _traces(self, x: Tensor, y: Tensor | None) -> tuple[Trace, Trace]:
        if self.has_bound_per_datum:
            bound = self._bound(x, y)
            return bound.guide_trace, bound.model_trace
        with trial():
            guide_trace = poutine.trace(self.guide).get_trace(x, y)
            replayed = poutine.replay(self.model, guide_trace)
            return guide_trace, poutine.trace(replayed).get_trace(x, y)


def total(parts: dict[str, Tensor]) -> Tensor:
    """The sum of the parts of a loss.

    Raises:
        ValueError: There is no part.

    >>> total({"labeled": torch.tensor(1.0), "unlabeled": torch.tensor(2.0)})
    tensor(3.)
    """
    if not parts:
        raise ValueError(
            "batch: no part of the loss applies to it; a classifier needs labels, a model data"
        )
    return torch.stack(list(parts.values())).sum()


def _shared_part(bound: Bound, weights: BoundWeights, batch: Batch) -> dict[str, Tensor]:
    """KL(W) / N, with N the number of data: N times the loss then contains KL(W) once.

    W are the networks' random weights; `weights` are those of the bounds.
    """
    if bound.shared is None:
        return {}
    rows = batch.all_rows
    share = 1.0 if rows is None else rows.share
    return {"weights": share * bound.shared / weights.size}


def _labeled_and_unlabeled(batch: Batch) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Iterate over the parts of a batch, as x and y."""
    if batch.x is not None:
        yield batch.x, batch.y
    if batch.x_unlabeled is not None:
        yield batch.x_unlabeled, None


def _check_weight(name: str, weight: float) -> None:
    if not weight >= 0:
        raise ValueError(f"{name} should be 0 or above, got {weight}")


def _unused(name: str, taken: dict[str, Tensor]) -> str:
    while name in taken:
        name += "_"
    return name

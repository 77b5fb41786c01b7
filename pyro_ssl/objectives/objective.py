"""The objective: the ELBO of a pair plus terms."""

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

from pyro_ssl.data.training_range import Extent
from pyro_ssl.infer.checks.data import check_input_units, first_nonfinite
from pyro_ssl.infer.checks.pair import (
    check_foreign_pair,
    check_pair,
    check_programs,
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

JOINT_PASS_BUDGET = 3e7
"""A joint pass pays if the extra classes cost fewer multiplications than this (about 1 ms)."""


class Objective(nn.Module):
    r"""The loss of a model/guide pair with terms, per datum, in nats.

    Labeled and unlabeled data are in the same step:

    .. math:: J = -\lambda_l \frac{1}{B_l} \sum_{i \in l} L(x_i, y_i)
                  - \lambda_u \frac{1}{B_u} \sum_{i \in u} U(x_i) + \sum_t \mathrm{term}_t

    Arguments:
        model: A program over `(x, y=None)`; None for a purely discriminative method.
        guide: Its guide, with `classify(x) -> Distribution`.
        terms: Terms added to the loss.
        labeled_weight: Weight lambda_l of the labeled bound, 003's lambda, applied by
            `poutine.scale`. None gives N_l / N_u, which makes J proportional to the papers' sum
            over all data, and 1 where nothing is unlabeled; 0 leaves the bound out.
        unlabeled_weight: Weight lambda_u of the unlabeled bound.
        elbo: The bound: a `TraceTopKEnum_ELBO`, or any other `pyro.infer.ELBO`, such as
            `TraceEnum_ELBO(max_plate_nesting=2)` for a pair outside the scope of ours. The loss is
            then that ELBO's; it has no bound per datum, so `bound` and a joint pass are refused.
        joint_pass: Evaluate labeled and unlabeled data in one call of the programs. By default
            `joint_pass_for`, and so `fit`, decides.
        predictor: The predictor of `classify`: by default the guide's q(y|x); a `GibbsPredictor`
            samples the model's own p(y|x).
        features: An encoder of x, whose output is the pair's data: a module. A `PretrainedEncoder`
            is trained first, by `fit`.

    Attributes:
        extent: Shape and range of the training data. `fit` sets it, saved models keep it, and
            prediction refuses data in other units. None checks nothing.
        sizes: Sizes N_l and N_u of the data sets. `fit` sets them, and they are not saved. None
            takes the batch for the data set.
        input_limit: The largest absolute value of ordinary data, 10 in the zoo's methods, whose
            networks take numbers of about 1: `check` refuses data in other units. None, for
            programs of your own, takes any.

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
        """Every part of the loss as a scalar, by name; their sum is the loss.

        Arguments:
            batch: Labeled and unlabeled data; a part that is None adds nothing.
            kl_weight: Weight beta_t of the continuous latents' KL.
            joint: Evaluate labeled and unlabeled data in one pass of the programs, where the batch
                has both; see `joint_pass_for`. The objective's own `joint_pass`, unless it is
                None, takes precedence.
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
        """The labeled and the unlabeled part; the context gets their q(y|x)."""
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
        labeled = batch.x is not None and bool(weights.labeled)
        unlabeled = batch.x_unlabeled is not None and bool(weights.unlabeled)
        if self.joint_pass is not None:
            joint = self.joint_pass
        # With joint_pass=True a batch without unlabeled data has its label enumerated, too.
        if joint and labeled and (unlabeled or self.joint_pass):
            return self._joint_bounds(batch, kl_weight, weights, context)
        parts = {}
        if labeled:
            assert batch.x is not None
            bound = self._bound(batch.x, batch.y, kl_weight, weights.labeled)
            parts["labeled"] = -bound.value.mean()
            parts |= _shared_part(bound, weights)
        if unlabeled:
            assert batch.x_unlabeled is not None
            bound = self._bound(batch.x_unlabeled, None, kl_weight, weights.unlabeled)
            parts["unlabeled"] = -bound.value.mean()
            parts |= _shared_part(bound, weights)
            context.record_trace(bound.guide_trace)
        return parts

    def _joint_bounds(
        self, batch: Batch, kl_weight: float | Tensor, weights: BoundWeights, context: LossContext
    ) -> dict[str, Tensor]:
        """Both parts by one pass of the programs over labeled and then unlabeled data."""
        x = batch.x
        assert x is not None
        others = x[:0]
        if batch.x_unlabeled is not None and weights.unlabeled:
            others = batch.x_unlabeled
        weight: float | Tensor = weights.labeled
        if len(others) and weights.labeled != weights.unlabeled:
            of_labeled = x.new_full((len(x),), weights.labeled)
            of_others = x.new_full((len(others),), weights.unlabeled)
            weight = torch.cat([of_labeled, of_others])
        bound = self._bound(torch.cat([x, others]), None, kl_weight, weight, labels=batch.y)
        context.record_trace(bound.guide_trace, len(x))
        parts = {"labeled": -bound.value[: len(x)].mean()}
        if len(others):
            parts["unlabeled"] = -bound.value[len(x) :].mean()
        return parts | _shared_part(bound, weights)

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
        # The logarithm of scaled densities is not a scaled logarithm: there the bound is scaled.
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
        """Whether unlabeled data add to the loss; where they do not, training leaves them out."""
        if self.model is not None and self.unlabeled_weight > 0:
            return True
        return any(term.needs == "unlabeled" for term in self.terms)

    @property
    def has_bound_per_datum(self) -> bool:
        """Whether the ELBO gives a bound per datum, and not only a loss of all data at hand."""
        return isinstance(self.elbo, TraceTopKEnum_ELBO)

    # --- evaluation ---------------------------------------------------------------------------

    @exclusive()
    def classify(self, x: Tensor) -> TorchDistribution:
        """Predict p(y|x), over one-hot or real labels `(B, K)`, by the predictor."""
        return self.predictor(self.model, self.guide, self.encode(x))

    @exclusive()
    def bound(self, x: Tensor, y: Tensor | None = None, *, kl_weight: float = 1.0) -> Tensor:
        """L(x, y), or U(x) without y, per datum: `(B,)` nats, for evaluation and your own terms.

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
        """The pair's data: x, or its features."""
        return x if self.features is None else self.features(x)

    def _encoded(self, batch: Batch) -> Batch:
        if self.features is None or batch.encoded:
            return batch
        return transformed(batch, self.features)

    @contextmanager
    def programs(self) -> Iterator[tuple[Any, Any]]:
        """Model and guide with their conditionals; random weights are at their posterior's mean."""
        model: Any = self.model
        if not isinstance(self.model, ConditionedOnWeights):
            yield self.model, self.guide
            return
        with model.given(self.guide.loc):
            yield model.program, self.guide.program

    # --- checks -------------------------------------------------------------------------------

    @exclusive()
    def check(self, batch: Batch, extremes: Batch | None = None) -> None:
        """Run both programs once, and check that they match and that the data are in their units.

        Arguments:
            batch: Data as in training.
            extremes: Further data that should be in the model's support.

        Raises:
            ValueError: The programs do not match, or the data do not fit; with the fix.
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
                check_pair(self.model, self.guide, x, y, weighed=True)
            else:
                self._shared_plates |= check_foreign_pair(self.elbo, self.model, self.guide, x, y)

    @exclusive()
    def joint_pass_for(self, batch: Batch) -> bool:
        """Whether labeled and unlabeled data of such batches should share one pass.

        `joint_pass` decides; if it is None, they share a pass if neither bound changes and it is
        faster. With batch norm they share a pass wherever it is exact, so that all data share its
        statistics.

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
        """Whether several classes of each labeled datum cost less than a second call."""
        assert batch.x is not None and batch.y is not None
        classes = batch.y.shape[-1]
        evaluated = self.elbo.policy.at_most(classes)
        programs = (self.model, self.guide)
        weights = sum(p.numel() for program in programs for p in program.parameters())
        multiplications = (evaluated - 1) * len(batch.x) * weights
        return bool(multiplications <= JOINT_PASS_BUDGET)

    def culprit(self, batch: Batch, *, joint: bool = False) -> str:
        """The first site, or else the first part, that is not finite, to explain a divergence."""
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
        ValueError: There is none.
    """
    if not parts:
        raise ValueError(
            "batch: no part of the loss applies to it; a classifier needs labels, a model data"
        )
    return torch.stack(list(parts.values())).sum()


def _shared_part(bound: Bound, weights: BoundWeights) -> dict[str, Tensor]:
    """KL(W), divided by the number of data that J averages over, so that N J has KL(W) once."""
    if bound.shared is None:
        return {}
    return {"weights": bound.shared / weights.size}


def _labeled_and_unlabeled(batch: Batch) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The parts that a batch has, as x and y."""
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

"""The objective: the ELBO of a pair plus terms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Normal, OneHotCategorical, TorchDistribution
from pyro.infer import ELBO
from pyro.poutine import Trace
from torch import Tensor, nn

from pyro_ssl.data.extent import Extent
from pyro_ssl.infer.elbo import Bound, TraceTopKEnum_ELBO
from pyro_ssl.infer.foreign import differentiable_loss
from pyro_ssl.infer.gibbs import gibbs
from pyro_ssl.infer.joint_pass import joint_pass_is_exact
from pyro_ssl.infer.observations import check_input_units, first_nonfinite
from pyro_ssl.infer.scales import scale_data, scale_latents, scale_shared, undo_subsampling
from pyro_ssl.infer.top_k import MOST
from pyro_ssl.infer.validation import (
    check_foreign_pair,
    check_pair,
    check_programs,
    check_support,
    classified,
    trial,
)
from pyro_ssl.objectives.batch import Batch, transformed
from pyro_ssl.objectives.terms import LossContext, Term
from pyro_ssl.utils.arguments import check_positive
from pyro_ssl.utils.compat import BatchNormBase
from pyro_ssl.utils.context import exclusive


class Objective(nn.Module):
    r"""The loss of a model/guide pair with terms, per datum, in nats; labeled and unlabeled data in the same step.

    .. math:: J = -\lambda_l \frac{1}{B_l} \sum_{i \in l} L(x_i, y_i) - \lambda_u \frac{1}{B_u} \sum_{i \in u} U(x_i)
                  + \sum_t \mathrm{term}_t

    Arguments:
        model: A program over `(x, y=None)`; None for a purely discriminative method.
        guide: Its guide, with `classify(x) -> Distribution`.
        terms: What is added to the loss.
        labeled_weight: Weight lambda_l of the labeled bound, 003's lambda, applied by `poutine.scale`; None gives N_l / N_u, with
            which J is the papers' sum over the data sets, and 1 where nothing is unlabeled; 0 leaves the bound out.
        unlabeled_weight: Weight lambda_u of the unlabeled bound.
        elbo: The bound: a `TraceTopKEnum_ELBO`, or any other `pyro.infer.ELBO`, such as `TraceEnum_ELBO(max_plate_nesting=2)`
            for a pair outside the scope of ours. The loss is then what it says; there is no bound per datum, so that
            `bound` and a joint pass are refused.
        joint_pass: Evaluate labeled and unlabeled data in one call of the programs. By default `check`, and so `fit`, finds out
            whether that is exact, and whether it saves time: an extra class for each labeled datum costs less than a call;
            with batch norm, wherever it is exact, so that all data share its statistics.
        features: What the pair sees of x, in its place: a module; a `PretrainedEncoder` is trained first, by `fit`.
        gibbs_steps: 0 predicts by the guide's q(y|x); more, by as many steps of `gibbs`, the model's own p(y|x).
        gibbs_chains: Chains of each datum that a prediction averages.

    Attributes:
        extent: Shape and range of the data of training; `fit` sets it, saved models keep it, and prediction refuses data in
            other units. None checks nothing.
        sizes: N_l and N_u of the data sets; `fit` sets them, and they are not saved. None takes the batch to be the data.
        input_limit: The largest absolute value of ordinary data, 10 in the zoo's methods, whose networks take numbers of about
            1: `check` refuses data in other units. None, for programs of your own, takes any.

    Raises:
        ValueError: A weight or gibbs_steps is below 0; a program is no module; elbo is no `pyro.infer.ELBO`.
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
        gibbs_steps: int = 0,
        gibbs_chains: int = 1,
        features: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_programs(model, guide)
        for name, weight in (("labeled_weight", labeled_weight), ("unlabeled_weight", unlabeled_weight)):
            if weight is not None and not weight >= 0:
                raise ValueError(f"{name} should be 0 or above, got {weight}")
        if gibbs_steps:
            check_positive(gibbs_steps=gibbs_steps, gibbs_chains=gibbs_chains)
        self.model: Any = model
        self.guide: Any = guide
        self.terms = nn.ModuleList(terms)
        self.labeled_weight, self.unlabeled_weight = labeled_weight, unlabeled_weight
        self.elbo: Any = TraceTopKEnum_ELBO() if elbo is None else elbo
        if not isinstance(self.elbo, ELBO):
            raise ValueError(f"elbo should be a pyro.infer.ELBO, got {elbo!r}")
        if joint_pass and not self.has_bound_per_datum:
            raise ValueError(
                f"joint_pass=True needs a bound per datum, and a {type(elbo).__name__} has none; leave it out"
            )
        self.joint_pass, self.gibbs_steps, self.gibbs_chains = joint_pass, gibbs_steps, gibbs_chains
        self._joint_pass_is_exact = False
        self._shared_plates: frozenset[str] = frozenset()
        self.sizes: tuple[int, int] | None = None
        self.input_limit: float | None = None
        self.extent: Extent | None = None
        self.features = features

    @exclusive()
    def classify(self, x: Tensor) -> TorchDistribution:
        """What the method predicts, by its guide or by Gibbs sampling: p(y|x) over one-hot, or real, `(B, K)`."""
        x = self.encode(x)
        if not self.gibbs_steps:
            return classified(self.guide, x)
        found = gibbs(self.model, self.guide, x, steps=self.gibbs_steps, chains=self.gibbs_chains)
        if classified(self.guide, x[:1]).has_enumerate_support:
            return OneHotCategorical(probs=found.mean)
        return Normal(found.mean, found.variance.sqrt()).to_event(1)  # of the predictive distribution's moments

    @contextmanager
    def programs(self) -> Iterator[tuple[Any, Any]]:
        """Inside the block, model and guide with their conditionals; with random weights these at their posterior's mean."""
        if not hasattr(self.model, "given"):
            yield self.model, self.guide
            return
        with self.model.given(self.guide.loc):
            yield self.model.program, self.guide.program

    def encode(self, x: Tensor) -> Tensor:
        """What the pair sees of x."""
        return x if self.features is None else self.features(x)

    def _encoded(self, batch: Batch) -> Batch:
        return batch if self.features is None or batch.encoded else transformed(batch, self.features)

    @property
    def learns_unlabeled(self) -> bool:
        """Whether data without labels add to the loss; where they do not, training passes over them."""
        return (self.model is not None and self.unlabeled_weight > 0) or any(t.needs == "unlabeled" for t in self.terms)

    @property
    def has_bound_per_datum(self) -> bool:
        """Whether the ELBO gives a bound per datum, as `TraceTopKEnum_ELBO` does, and not only a loss of all data at hand."""
        return isinstance(self.elbo, TraceTopKEnum_ELBO)

    @exclusive()
    def bound(self, x: Tensor, y: Tensor | None = None, *, kl_weight: float = 1.0) -> Tensor:
        """L(x, y), or U(x) without y, per datum: `(B,)` nats, for evaluation and for terms of one's own.

        Raises:
            ValueError: The ELBO has no bound per datum.
        """
        if not self.has_bound_per_datum:
            raise ValueError(f"elbo: a {type(self.elbo).__name__} has no bound per datum; a TraceTopKEnum_ELBO has one")
        return self._bound(self.encode(x), y, kl_weight).value

    @exclusive()
    def _bound(
        self,
        x: Tensor,
        y: Tensor | None,
        kl_weight: float = 1.0,
        weight: float | Tensor = 1.0,
        labels: Tensor | None = None,
    ) -> Bound:
        outside = self.elbo.importance_weighted  # a logarithm of scaled densities is not a scaled logarithm
        with ExitStack() as scales:
            if not outside and (isinstance(weight, Tensor) or weight != 1):
                scales.enter_context(scale_data(weight, len(x)))
            if kl_weight != 1:
                scales.enter_context(scale_latents(kl_weight, len(x)))
            bound = self.elbo.bound(self.model, self.guide, x, y, labels=labels)
        return bound._replace(value=weight * bound.value) if outside else bound

    @exclusive()
    def parts(self, batch: Batch, *, kl_weight: float = 1.0) -> dict[str, Tensor]:
        """Every part of the loss as a scalar, by name; their sum is the loss.

        Arguments:
            batch: Labeled and unlabeled data; a part that is None adds nothing.
            kl_weight: Weight beta_t of the continuous latents' KL.
        """
        batch = self._encoded(batch)
        step = LossContext(batch, self.guide)
        parts = {} if self.model is None else self._bounds(batch, kl_weight, step)
        for term in self.terms:
            if (value := term(step)) is not None:
                parts[_unused(type(term).__name__, parts)] = value
        return parts

    def _bounds(self, batch: Batch, kl_weight: float, step: LossContext) -> dict[str, Tensor]:
        """The labeled and the unlabeled part; the step is told what q(y|x) was on the way."""
        x, y, u = batch.x, batch.y, batch.x_unlabeled
        if not self.has_bound_per_datum:
            return self._losses(batch, kl_weight)
        parts = {}
        joint_pass = self._joint_pass_is_exact if self.joint_pass is None else self.joint_pass
        sizes = self.sizes or batch.sizes
        labeled = self._weight_of_labeled(*sizes)
        both = u is not None and self.unlabeled_weight
        if joint_pass and x is not None and y is not None and labeled and (both or self.joint_pass):
            others = x[:0] if u is None or not both else u
            weight: float | Tensor = labeled
            if len(others) and labeled != self.unlabeled_weight:
                weight = torch.cat([x.new_full((len(x),), labeled), x.new_full((len(others),), self.unlabeled_weight)])
            bound = self._bound(torch.cat([x, others]), None, kl_weight, weight, labels=y)
            step.record_trace(bound.guide_trace, len(x))
            parts = {"labeled": -bound.value[: len(x)].mean()}
            if len(others):
                parts["unlabeled"] = -bound.value[len(x) :].mean()
            return parts | self._shared(bound, sizes)
        if x is not None and labeled:
            bound = self._bound(x, y, kl_weight, labeled)
            parts = {"labeled": -bound.value.mean()} | self._shared(bound, sizes)
        if u is not None and self.unlabeled_weight:
            bound = self._bound(u, None, kl_weight, self.unlabeled_weight)
            parts |= {"unlabeled": -bound.value.mean()} | self._shared(bound, sizes)
            step.record_trace(bound.guide_trace)
        return parts

    def _losses(self, batch: Batch, kl_weight: float) -> dict[str, Tensor]:
        """The labeled and the unlabeled part of an ELBO that gives a loss of all data at hand, per datum.

        What all data share is in both, in shares that count it once in the data set.
        """
        sizes = self.sizes or batch.sizes
        calls = []
        if batch.x is not None and self._weight_of_labeled(*sizes):
            calls.append(("labeled", batch.x, batch.y, self._weight_of_labeled(*sizes)))
        if batch.x_unlabeled is not None and self.unlabeled_weight:
            calls.append(("unlabeled", batch.x_unlabeled, None, self.unlabeled_weight))
        parts = {}
        for name, x, y, weight in calls:
            rows = len(x)
            shared = rows / (len(calls) * self._weighed_size(*sizes))
            plates = self._shared_plates
            weights = (
                scale_data(weight, rows, plates),
                scale_shared(shared, rows, plates),
                scale_latents(kl_weight, rows, plates),
            )
            with ExitStack() as scales:
                for messenger in (undo_subsampling(rows), *weights):
                    scales.enter_context(messenger)
                parts[name] = differentiable_loss(self.elbo, self.model, self.guide, x, y) / rows
        return parts

    def _shared(self, bound: Bound, sizes: tuple[int, int]) -> dict[str, Tensor]:
        """KL(W) per datum: J times the data set's size has it once, whatever the batches."""
        return {} if bound.shared is None else {"weights": bound.shared / self._weighed_size(*sizes)}

    def _weight_of_labeled(self, n_labeled: int, n_unlabeled: int) -> float:
        return (
            self.labeled_weight
            if self.labeled_weight is not None
            else n_labeled / n_unlabeled
            if n_unlabeled and self.unlabeled_weight
            else 1.0
        )

    def _weighed_size(self, n_labeled: int, n_unlabeled: int) -> float:
        """How many data J is the mean of: it weighs a bound as that of one such datum, an unlabeled one if there are any."""
        if n_unlabeled and self.unlabeled_weight:
            return n_unlabeled / self.unlabeled_weight
        return n_labeled / (self._weight_of_labeled(n_labeled, n_unlabeled) or 1.0) if n_labeled else 1.0

    def forward(self, batch: Batch, *, kl_weight: float = 1.0) -> Tensor:
        """The loss, a scalar."""
        return total(self.parts(batch, kl_weight=kl_weight))

    @exclusive()
    def check(self, batch: Batch, extremes: Batch | None = None) -> None:
        """Run both programs once and raise ValueError, with the fix, if they do not match, or the data are in other units.

        Arguments:
            batch: As in training.
            extremes: Further data that shall be of the model's support.
        """
        self._check_pair(batch, extremes)
        if self.input_limit is not None:
            for x in (batch.x, batch.x_unlabeled):
                if x is not None:
                    check_input_units(x, self.input_limit)

    def _check_pair(self, batch: Batch, extremes: Batch | None) -> None:
        if self.model is None:
            return
        batch = self._encoded(batch)
        check: Any = partial(check_pair, weighed=True)
        if not self.has_bound_per_datum:
            check = partial(check_foreign_pair, self.elbo)
        for of, checked in ((batch, check), (extremes and self._encoded(extremes), check_support)):
            for x, y in ((of.x, of.y), (of.x_unlabeled, None)) if of else ():
                if x is not None and (found := checked(self.model, self.guide, x, y)):
                    self._shared_plates |= found
        if self.joint_pass is None and self.has_bound_per_datum:
            both = None not in (batch.x, batch.y, batch.x_unlabeled)
            pays = both and (any(isinstance(part, BatchNormBase) for part in self.modules()) or self._saves_time(batch))
            self._joint_pass_is_exact = pays and joint_pass_is_exact(self.model, self.guide, batch)

    def _saves_time(self, batch: Batch) -> bool:
        """Whether eval_mode each labeled datum for several classes costs less than a second call of the programs."""
        assert batch.x is not None and batch.y is not None
        top_k, classes = self.elbo.top_k, batch.y.shape[-1]
        extra = min(classes, MOST if top_k == "auto" else classes if top_k is None else top_k + 1) - 1
        weights = sum(p.numel() for program in (self.model, self.guide) for p in program.parameters())
        return extra * len(batch.x) * weights <= EXTRA

    def _traces(self, x: Tensor, y: Tensor | None) -> tuple[Trace, Trace]:
        if self.has_bound_per_datum:
            bound = self._bound(x, y)
            return bound.guide_trace, bound.model_trace
        with trial():
            guide_trace = poutine.trace(self.guide).get_trace(x, y)
            return guide_trace, poutine.trace(poutine.replay(self.model, guide_trace)).get_trace(x, y)

    def culprit(self, batch: Batch) -> str:
        """The first site, or else the first part, whose value is not finite: for the message of a run that diverged."""
        with torch.no_grad():
            seen = self._encoded(batch)
            if self.model is not None:
                for x, y in ((seen.x, seen.y), (seen.x_unlabeled, None)):
                    if x is not None and (site := first_nonfinite(*self._traces(x, y))):
                        return f"site {site!r}"
            bad = [name for name, value in self.parts(batch).items() if not value.isfinite()]
        return f"part {bad[0]!r}" if bad else "the gradient"


EXTRA = 3e7
"""Multiplications that may be spent on further classes of labeled data to save a call: a millisecond's, more or less."""


def total(parts: dict[str, Tensor]) -> Tensor:
    """The sum of the parts, or an error that says why there is none."""
    if not parts:
        raise ValueError("batch: no part of the loss applies to it; a classifier needs labels, a model needs data")
    return torch.stack(list(parts.values())).sum()


def _unused(name: str, taken: dict[str, Tensor]) -> str:
    return name if name not in taken else _unused(name + "_", taken)

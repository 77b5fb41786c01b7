"""An ELBO per datum that sums over an enumerated label, or over its likeliest values."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from pyro import poutine
from pyro.infer import ELBO
from pyro.infer.util import is_validation_enabled
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_ssl.infer.bound_terms import (
    expectation,
    label_terms,
    log_weight,
    shared_cost,
    sum_of_sites,
    sum_out,
)
from pyro_ssl.infer.checks.scope import check_scope, check_shapes
from pyro_ssl.infer.closed_form import closed_form_kl
from pyro_ssl.infer.enumeration import (
    EnumerateMessenger,
    ReplayMessenger,
    ScopeError,
    SharedLatent,
    log_mean_exp,
)
from pyro_ssl.infer.param_store import Program, isolated_param_store, without_param_store
from pyro_ssl.infer.scales import undo_subsampling
from pyro_ssl.infer.sites import is_enumerated
from pyro_ssl.infer.top_k import TopK, TopKPolicy, is_count
from pyro_ssl.infer.traces import TracePair
from pyro_ssl.nn.tensor_annotations import weighted_classes
from pyro_ssl.utils.context import exclusive


class Bound(NamedTuple):
    """A bound per datum, `(B,)` nats, its traces, and the part that belongs to no datum.

    `shared` is what all data share, outside the plate: KL(q(W) || p(W)) of latents such as random
    weights, and minus the logarithm of observations and factors. It is a scalar, to be subtracted
    once from the bound of the whole data set; None if there is nothing.
    """

    value: Tensor
    guide_trace: Trace
    model_trace: Trace
    shared: Tensor | None = None


class TraceTopKEnum_ELBO(ELBO):
    r"""The ELBO with at most one enumerated site, y, in guide and model together; per datum.

    .. math:: U(x) = \sum_y q(y|x)\, f(y) + \mathrm H(q(y|x)), \qquad
              f(y) = \log p(x, y, z_y) - \log q(z_y | x, y), \quad z_y \sim q(z | x, y)

    A site that the model marks for enumeration and the guide leaves out is summed out of the model,
    inside the logarithm: :math:`\log \sum_y p(x, y, z)` in place of :math:`\log p(x, z)`. With
    `top_k=k`, the guide's sum runs over the k likeliest classes and one drawn from the rest,
    weighted by one over its probability; value and gradient stay unbiased. For `top_k=None` and
    `closed_form=()` it equals `TraceEnum_ELBO` in value and gradient with Pyro's validation off;
    Pyro's validation rejects a z that depends on y but precedes it in the model.

    The scope is a pair over one plate of data, at dimension -1. Latents outside it, in plates of
    another size and in sequential plates are shared by all data and count once. All latents that
    the guide does not enumerate are reparameterised. Any other pair is refused; use
    `pyro.infer.TraceEnum_ELBO` for it.

    Arguments:
        top_k: Number k of likeliest classes; None, or K - 1 and above, sums over all K. "auto"
            takes 1, 2, 4, 8 or 16, the first that holds 95 % of q(y|x) in the mean over the batch,
            and 16 if none does: all of up to 17 classes while q(y|x) is spread, and two once it has
            concentrated. The choice depends on q(y|x) and not on the draw, so it costs no bias.
        common_random_numbers: Give the Gaussian sites of a datum the same noise for all classes:
            the expectation of each class does not change, and the differences between classes,
            which teach q(y|x), vary less.
        num_particles: Samples S of the guide's other sites, for each class. If all data share a
            latent, S runs of the programs, each with its own draw of it.
        importance_weighted: f(y) is the logarithm of the mean of S weights p(x, y, z) / q(z|x, y),
            a tighter bound than the mean of S logarithms. If the guide draws before y, q(y|x) is
            its mean over these samples. A `poutine.scale` acts on the densities, inside the
            logarithm. A latent that all data share is drawn once, and its KL stands outside the
            logarithm.
        closed_form: Sites whose log p - log q is replaced by minus their KL in closed form. "auto"
            takes all sites for which that is known and exact: all latents before it in the model
            stand before it in the guide too, so p(y|x,z) of SSLPE is sampled. Names take just those
            sites, at the caller's risk; `()` takes none.
        free_bits: Least KL of a continuous latent in closed form, in nats per datum: below it, the
            KL gets no gradient. The value is lower than the bound's, and so a bound too.
        max_plate_nesting: See `TraceEnum_ELBO`: 1, or `math.inf` for no limit; more plates are
            outside the scope.
        vectorize_particles: Draw the samples together; False runs the programs `num_particles`
            times.
        strict_enumeration_warning: See `TraceEnum_ELBO`: warn if no site is enumerated.

    Raises:
        ValueError: An argument is out of range; a site named in `closed_form` is not the model's,
            or has no KL in closed form; the shape of a site fits neither its plates nor the label
            (with Pyro's validation on).
        ScopeError: A ValueError: the pair is outside the scope.

    References:
        Burda et al. 2016 for the importance-weighted bound; Kingma et al. 2016 for free bits.

    >>> from pyro_ssl import zoo
    >>> m2 = zoo.build("m2", (4,), 3, seed=0)
    >>> TraceTopKEnum_ELBO(top_k=1).bound(m2.model, m2.guide, torch.randn(5, 4)).value.shape
    torch.Size([5])
    """

    def __init__(
        self,
        top_k: TopK = "auto",
        *,
        common_random_numbers: bool = False,
        num_particles: int = 1,
        importance_weighted: bool = False,
        closed_form: Literal["auto"] | Collection[str] = "auto",
        free_bits: float = 0.0,
        max_plate_nesting: float = 1,
        vectorize_particles: bool = True,
        strict_enumeration_warning: bool = False,
    ) -> None:
        has_no_kl = importance_weighted or (closed_form != "auto" and not closed_form)
        if not free_bits >= 0 or (free_bits and has_no_kl):
            raise ValueError(
                f"free_bits should be 0 or above, and needs closed-form KL terms; got {free_bits}"
            )
        self.policy = TopKPolicy(top_k)
        if not is_count(num_particles):
            raise ValueError(
                f"num_particles should be a whole number above 0, got {num_particles!r}"
            )
        _check_closed_form(closed_form, importance_weighted)
        if max_plate_nesting not in (1, math.inf):
            raise ScopeError(
                f"max_plate_nesting should be 1, got {max_plate_nesting!r}: the bound is of one "
                "plate of data"
            )
        super().__init__(
            num_particles=num_particles,
            max_plate_nesting=1,
            vectorize_particles=vectorize_particles,
            strict_enumeration_warning=strict_enumeration_warning,
        )
        self.top_k = top_k
        self.common_random_numbers = common_random_numbers
        self.importance_weighted = importance_weighted
        self.closed_form = () if importance_weighted else closed_form
        self.free_bits = free_bits

    def bound(
        self,
        model: Program,
        guide: Program,
        *args: Any,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Bound:
        """Bound per datum, `(B,)` nats. The caller's parameter store is neither read nor written.

        Arguments:
            model: A program over `(x, y=None)`, or over `args`.
            guide: Its guide.
            args: Arguments of both programs.
            labels: Labels of the first L rows, `(L, *event)`; their bound is L(x, y).
            kwargs: Further arguments of both.
        """
        run = _Run(model, guide, args, kwargs, labels=labels)
        pairs = self._pairs_apart(run)
        self._warn_if_nothing_is_enumerated(pairs, stacklevel=3)
        return _mean([self._bound(pair) for pair in pairs])

    def class_bounds(
        self,
        model: Program,
        guide: Program,
        *args: Any,
        only: Collection[str] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """f(y) of every class, `(B, K)` nats: with a guide over z given y, L(x, y) of each.

        Arguments:
            model: A program over `(x, y=None)`, called without y.
            guide: Its guide; one of the two has an enumerated site.
            args: Arguments of both programs.
            only: Names of sites of the model to sum, without the guide's: ("x",) is the
                reconstruction.
            kwargs: Further arguments of both.

        Raises:
            ValueError: Nothing is enumerated; a name in `only` is not the model's.
        """
        if only is not None and (isinstance(only, str) or self.importance_weighted):
            raise ValueError(
                "only should be a tuple of site names, of a bound that is not importance-weighted"
            )
        run = _Run(model, guide, args, kwargs, all_classes=True)
        bounds = [self._class_bounds(pair, only) for pair in self._pairs_apart(run)]
        return torch.stack(bounds).mean(0)

    def log_evidence(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Importance-sampling estimate of log p(x), or of log p(x, y) given y: `(B,)` nats.

        The mean of S weights, summed over all classes; its logarithm is a lower bound in the mean.
        """
        run = _Run(model, guide, args, kwargs, all_classes=True, shared_once=True, one_pair=True)
        pairs = self._pairs_apart(run)
        self._warn_if_nothing_is_enumerated(pairs, stacklevel=3)
        (pair,) = pairs
        f = log_weight(pair, {})
        if pair.label is not None and pair.label["mask"] is not None:
            raise ScopeError(
                f"site {pair.label['name']!r} is masked, and the evidence is a sum over its classes"
            )
        if f.dim() > 2:
            f = log_mean_exp(f)
        return f.logsumexp(-2) if f.dim() > 1 else f

    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Minus the bound, summed over data.

        Parameters may live in the parameter store, as for `pyro.infer.SVI`.
        """
        return self._loss(_Run(model, guide, args, kwargs))

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """`differentiable_loss` as a number, without gradients."""
        with torch.no_grad():
            return self._loss(_Run(model, guide, args, kwargs)).item()

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """`differentiable_loss` as a number; its gradients are added to the parameters'."""
        loss = self._loss(_Run(model, guide, args, kwargs))
        loss.backward()
        return loss.item()

    def _loss(self, run: _Run) -> Tensor:
        pairs = self._pairs(run)
        self._warn_if_nothing_is_enumerated(pairs, stacklevel=4)
        bound = _mean([self._bound(pair) for pair in pairs])
        if bound.shared is None:
            return -bound.value.sum()
        return bound.shared - bound.value.sum()

    def _get_trace(
        self, model: Program, guide: Program, args: Any, kwargs: Any
    ) -> tuple[Trace, Trace]:
        """Traces of model and guide for one run, as Pyro's own ELBOs give them."""
        pair = self._pairs(_Run(model, guide, args, kwargs, shared_once=True))[0]
        return pair.model, pair.guide

    # --- traces --------------------------------------------------------------------------------

    def _pairs_apart(self, run: _Run) -> list[TracePair]:
        """Traces with an empty parameter store and without the factor of subsampling."""
        with isolated_param_store(run.model, run.guide), undo_subsampling(run.rows):
            return self._pairs(run.without_param_store())

    def _pairs(self, run: _Run) -> list[TracePair]:
        """The traces of all samples at once, or S pairs of one sample each.

        Samples are drawn one by one if all data share a latent.
        """
        rows = run.rows
        if self.num_particles == 1:
            return [self._pair(run, 1, rows)]
        if rows is None:  # a run of one sample tells which plates are the data's
            with torch.no_grad():
                rows = self._pair(run, 1, None).rows
        if self.vectorize_particles or self.importance_weighted or run.one_pair:
            try:
                pair = self._pair(run, self.num_particles, rows)
                if pair.rows != rows:  # the first argument does not count the data
                    pair = self._pair(run, self.num_particles, pair.rows)
                return [pair]
            except SharedLatent:
                pass
        return [self._pair(run, 1, rows) for _ in range(self.num_particles)]

    @exclusive()
    def _pair(self, run: _Run, samples: int, rows: int | None) -> TracePair:
        if isinstance(poutine.unwrap(run.guide), Messenger):
            raise ScopeError(
                "guide: a GuideMessenger draws while the model runs, and has no trace of its own"
            )
        enumerate_ = EnumerateMessenger(
            None if run.all_classes else self.top_k,
            self.common_random_numbers,
            samples,
            marginal=self.importance_weighted,
            labels=run.labels,
            rows=rows,
            shared_once=run.shared_once or self.importance_weighted,
        )
        with weighted_classes():
            guide_trace = poutine.trace(enumerate_(run.guide)).get_trace(*run.args, **run.kwargs)
            if run.labels is not None and enumerate_.label is None:
                raise ValueError(
                    "labels: the guide enumerates nothing that they could be values of; leave them "
                    "out"
                )
            replayed = ReplayMessenger(guide_trace)(run.model)
            model_trace = poutine.trace(replayed).get_trace(*run.args, **run.kwargs)
        pair = TracePair.of(guide_trace, model_trace, rows)
        check_scope(pair)
        if is_validation_enabled():
            check_shapes(pair, samples)
        return pair

    def _warn_if_nothing_is_enumerated(self, pairs: list[TracePair], stacklevel: int) -> None:
        """Warn at the caller of a public method, which is `stacklevel` frames up."""
        if not self.strict_enumeration_warning or not is_validation_enabled():
            return
        if pairs[0].label is None and pairs[0].summed_out is None:
            warnings.warn(
                'no site is marked infer={"enumerate": "parallel"}, so nothing is summed over',
                stacklevel=stacklevel,
            )

    # --- bounds of a pair of traces ------------------------------------------------------------

    def _bound(self, pair: TracePair) -> Bound:
        closed = self._closed(pair)
        value = self._per_datum(pair, closed)
        return Bound(value, pair.guide, pair.model, shared_cost(pair, closed))

    def _per_datum(self, pair: TracePair, closed: dict[str, Tensor]) -> Tensor:
        f = log_weight(pair, closed)
        if pair.label is None:
            return self._over_particles(sum_out(f, pair.summed_out), dim=1)
        weights = pair.label["infer"]["log_weights"].exp()
        f, rest = label_terms(pair, f, closed.get(pair.label["name"]))
        if self.importance_weighted:
            f = self._over_particles(f, dim=2)
        return self._over_particles(expectation(f, weights) + rest, dim=1)

    def _class_bounds(self, pair: TracePair, only: Collection[str] | None) -> Tensor:
        label = pair.label or pair.summed_out
        if label is None:
            raise ValueError("guide: no site is enumerated, so there is no bound per class")
        if only is None:
            closed = self._closed(pair)
            closed.pop(label["name"], None)
            f = log_weight(pair, closed)
        else:
            f = sum_of_sites(pair, set(only))
        f = f.expand(torch.broadcast_shapes(f.shape, label["infer"]["log_weights"].shape[-2:]))
        return self._over_particles(f, dim=2).movedim(-1, -2)

    def _closed(self, pair: TracePair) -> dict[str, Tensor]:
        """KL by site, in closed form, with free bits."""
        closed = closed_form_kl(pair.guide, pair.model, self.closed_form)
        if not self.free_bits:
            return closed
        for name, kl in closed.items():
            site = pair.guide.nodes[name]
            if not is_enumerated(site) and not pair.is_shared(site):
                least = torch.as_tensor(self.free_bits * site["scale"]).to(kl)
                closed[name] = torch.maximum(kl, least)
        return closed

    def _over_particles(self, f: Tensor, dim: int) -> Tensor:
        """Average over the samples, dimension 0 if f has more than `dim` dimensions.

        The importance-weighted bound averages weights, the other one logarithms.
        """
        if f.dim() <= dim:
            return f
        return log_mean_exp(f) if self.importance_weighted else f.mean(0)


@dataclass(frozen=True)
class _Run:
    """A call of both programs.

    Arguments:
        model: The model.
        guide: Its guide.
        args: Arguments of both.
        kwargs: Further arguments of both.
        labels: Labels of the first rows.
        all_classes: Enumerate all classes, whatever `top_k` is.
        shared_once: Draw a latent that all data share once, for all samples.
        one_pair: Draw all samples in one pair of traces, whatever `vectorize_particles` is.
    """

    model: Program
    guide: Program
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    labels: Tensor | None = None
    all_classes: bool = False
    shared_once: bool = False
    one_pair: bool = False

    @property
    def rows(self) -> int | None:
        """Number of data, by the programs' first argument."""
        first = next(iter([*self.args, *self.kwargs.values()]), None)
        return len(first) if isinstance(first, Tensor) and first.dim() else None

    def without_param_store(self) -> _Run:
        return replace(
            self,
            model=without_param_store(self.model),
            guide=without_param_store(self.guide),
        )


def _mean(bounds: list[Bound]) -> Bound:
    """The mean over runs, with the traces of the last."""
    last = bounds[-1]
    if len(bounds) == 1:
        return last
    value = torch.stack([bound.value for bound in bounds]).mean(0)
    shared = [bound.shared for bound in bounds if bound.shared is not None]
    return last._replace(value=value, shared=torch.stack(shared).mean(0) if shared else None)


def _check_closed_form(closed_form: Any, importance_weighted: bool) -> None:
    if closed_form == "auto":
        return
    if isinstance(closed_form, str) or not isinstance(closed_form, Collection):
        raise ValueError(
            f'closed_form should be "auto" or a tuple of site names, got {closed_form!r}'
        )
    if importance_weighted and len(closed_form):
        raise ValueError(
            "closed_form: an importance-weighted bound has no KL; leave it out or give ()"
        )

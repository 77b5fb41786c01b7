"""The ELBO per datum, summed over all classes of a missing label or over the likeliest ones."""

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

from pyro_ssl.infer.checks.scope import check_scope, check_shapes
from pyro_ssl.infer.checks.scope_error import ScopeError
from pyro_ssl.infer.closed_form import closed_form_kl
from pyro_ssl.infer.enumeration import (
    EnumerateMessenger,
    ReplayMessenger,
    SharedLatent,
    log_mean_exp,
)
from pyro_ssl.infer.param_store import Program, isolated_param_store, without_param_store
from pyro_ssl.infer.scales import undo_subsampling
from pyro_ssl.infer.site_sums import (
    expectation,
    label_terms,
    log_weight,
    shared_cost,
    sum_of_sites,
    sum_out,
)
from pyro_ssl.infer.sites import is_enumerated
from pyro_ssl.infer.top_k import TopK, TopKPolicy, is_count
from pyro_ssl.infer.traces import TracePair
from pyro_ssl.nn.tensor_marks import weighted_classes
from pyro_ssl.utils.context import exclusive


class Bound(NamedTuple):
    """A bound with its traces.

    Arguments:
        value: The bound per datum, `(B,)` nats.
        guide_trace: Trace of the guide.
        model_trace: Trace of the model.
        shared: The part of the negative bound that all data share:
            KL(q(W) || p(W)) of shared latents, such as random weights, minus log-densities of
            observations and factors outside the plate. A scalar, to be subtracted once from the
            bound of the whole data set; None if nothing is shared.

    >>> from pyro_ssl import zoo
    >>> m2 = zoo.build("m2", (4,), 3, hidden=(8,), z_dim=2)
    >>> bound = TraceTopKEnum_ELBO().bound(m2.model, m2.guide, torch.randn(5, 4))
    >>> bound.value.shape, bound.shared
    (torch.Size([5]), None)
    """

    value: Tensor
    guide_trace: Trace
    model_trace: Trace
    shared: Tensor | None = None


class TraceTopKEnum_ELBO(ELBO):
    r"""The ELBO per datum, with a sum over the values of at most one discrete site y.

    .. math:: U(x) = \sum_y q(y|x)\, f(y) + \mathrm H(q(y|x)), \qquad
              f(y) = \log p(x, y, z_y) - \log q(z_y | x, y), \quad z_y \sim q(z | x, y)

    If only the model marks y for enumeration, and the guide has no site y, the model sums over y
    inside the logarithm: :math:`\log \sum_y p(x, y, z)` replaces :math:`\log p(x, z)`.

    With `top_k=k`, the guide's sum runs over the k likeliest classes and one drawn from the rest,
    weighted by the inverse of its probability. Value and gradient stay unbiased. With `top_k=None`
    and `closed_form=()`, value and gradient equal those of `TraceEnum_ELBO`. (Turn Pyro's
    validation off to compare: it rejects a z that depends on y but precedes it in the model.)

    The pair has one plate of data, at dimension -1. A latent outside the plate, in a plate of
    another size, or in a sequential plate is shared by all data and counts once. Latents that are
    not enumerated must be reparameterised. Any other pair is refused: use
    `pyro.infer.TraceEnum_ELBO`.

    Arguments:
        top_k: Number k of likeliest classes. None, or K - 1 and above, sums over all K classes.
            "auto" takes the smallest k of 1, 2, 4, 8 and 16 for which the k likeliest classes hold
            95 % of q(y|x) on average over the batch, or 16 if none does. This choice does not
            depend on the class drawn, so there is no bias.
        common_random_numbers: Use the same noise for all classes in the Gaussian sites of a datum.
            This lowers the variance of the differences between classes, which q(y|x) learns from.
        num_particles: Number S of samples ("particles" in Pyro) of the guide's other sites, for
            each class. If all data share a latent, the programs run S times, each time with
            another draw of it.
        importance_weighted: Use as f(y) the logarithm of the mean of S weights
            p(x, y, z) / q(z|x, y), a tighter bound than the mean of S logarithms. If the guide
            samples a latent before y, q(y|x) is averaged over these samples. `poutine.scale`
            multiplies log-densities inside the mean of weights. A latent that all data share is
            drawn once, and its KL is outside the logarithm.
        closed_form: Sites at which minus the KL in closed form replaces log p - log q. "auto" uses
            all sites whose KL is known and exact. It is exact if every latent that precedes the
            site in the model also precedes it in the guide; for y in SSLPE it is not. A tuple of
            names uses those sites unchecked; `()` uses none.
        free_bits: Smallest KL of a continuous latent in closed form, in nats per datum. A smaller
            KL is replaced by this number and has no gradient. The result is still a lower bound.
        max_plate_nesting: 1, or `math.inf`, as for `TraceEnum_ELBO`; more plates are refused.
        vectorize_particles: Draw all samples in one run; False runs the programs `num_particles`
            times.
        strict_enumeration_warning: Warn if no site is enumerated, with Pyro's validation on.

    Raises:
        ValueError: An argument is out of range; `closed_form` names a site that the model lacks or
            whose KL is not known; with Pyro's validation on, the shape of a site does not fit its
            plates and the label.
        ScopeError: The pair is outside the scope (a subclass of ValueError).

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
                f"max_plate_nesting should be 1, got {max_plate_nesting!r}, since the bound is for "
                "one plate of data"
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
        """Compute the bound per datum, `(B,)` nats, without use of the caller's parameter store.

        Arguments:
            model: The model.
            guide: Its guide.
            args: Positional arguments of both, such as x, or x and y.
            labels: Labels of the first L rows, `(L, *event)`. The bound of these rows is L(x, y),
                that of the others U(x).
            kwargs: Keyword arguments of both.
        """
        run = _Call(model, guide, args, kwargs, labels=labels)
        pairs = self._isolated_pairs(run)
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
        """Compute f(y) of every class, `(B, K)` nats; it is L(x, y) if the guide has q(z|x, y).

        Arguments:
            model: The model.
            guide: Its guide; one of the two enumerates y.
            args: Positional arguments of both, without y.
            only: Names of sites of the model whose log-densities are summed instead of f(y):
                ("x",) gives the reconstruction term log p(x|y, z).
            kwargs: Keyword arguments of both.

        Raises:
            ValueError: No site is enumerated; a name in `only` is no site of the model; `only` is
                given for an importance-weighted bound.
        """
        if only is not None and (isinstance(only, str) or self.importance_weighted):
            raise ValueError(
                "only should be a tuple of site names, for a bound that is not importance-weighted"
            )
        run = _Call(model, guide, args, kwargs, all_classes=True)
        bounds = [self._class_bounds(pair, only) for pair in self._isolated_pairs(run)]
        return torch.stack(bounds).mean(0)

    def log_evidence(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Estimate log p(x), or log p(x, y) if y is given, by importance sampling: `(B,)` nats.

        The estimate is the logarithm of the mean of S importance weights, each summed over the
        classes. Its expectation is a lower bound.
        """
        run = _Call(model, guide, args, kwargs, all_classes=True, shared_once=True, one_pair=True)
        pairs = self._isolated_pairs(run)
        self._warn_if_nothing_is_enumerated(pairs, stacklevel=3)
        (pair,) = pairs
        f = log_weight(pair, {})
        if pair.label is not None and pair.label["mask"] is not None:
            raise ScopeError(
                f"site {pair.label['name']!r} is masked, so the evidence cannot sum over it"
            )
        if f.dim() > 2:
            f = log_mean_exp(f)
        return f.logsumexp(-2) if f.dim() > 1 else f

    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Compute minus the bound, summed over data, as `pyro.infer.SVI` minimises it.

        Unlike `bound`, it uses the caller's parameter store.
        """
        return self._loss(_Call(model, guide, args, kwargs))

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Compute `differentiable_loss` as a number, without gradients."""
        with torch.no_grad():
            return self._loss(_Call(model, guide, args, kwargs)).item()

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Compute `differentiable_loss` as a number, and add its gradients to the parameters'."""
        loss = self._loss(_Call(model, guide, args, kwargs))
        loss.backward()
        return loss.item()

    def _loss(self, run: _Call) -> Tensor:
        pairs = self._pairs(run)
        self._warn_if_nothing_is_enumerated(pairs, stacklevel=4)
        bound = _mean([self._bound(pair) for pair in pairs])
        if bound.shared is None:
            return -bound.value.sum()
        return bound.shared - bound.value.sum()

    def _get_trace(
        self, model: Program, guide: Program, args: Any, kwargs: Any
    ) -> tuple[Trace, Trace]:
        """Return traces of model and guide for one run; overrides a method of `pyro.infer.ELBO`."""
        pair = self._pairs(_Call(model, guide, args, kwargs, shared_once=True))[0]
        return pair.model, pair.guide

    # --- traces --------------------------------------------------------------------------------

    def _isolated_pairs(self, run: _Call) -> list[TracePair]:
        """Make traces with an empty parameter store and without the scales of subsampling."""
        with isolated_param_store(run.model, run.guide), undo_subsampling(run.rows):
            return self._pairs(run.without_param_store())

    def _pairs(self, run: _Call) -> list[TracePair]:
        """Make one pair of traces with all S samples, or S pairs with one sample each.

        If all data share a latent, there are S pairs.
        """
        samples = self.num_particles
        if samples == 1:
            return [self._pair(run, 1, run.rows)]
        rows = self._rows_of(run)
        if self.vectorize_particles or self.importance_weighted or run.one_pair:
            try:
                return [self._vectorized_pair(run, rows)]
            except SharedLatent:
                pass  # it cannot be drawn S times in one run
        return [self._pair(run, 1, rows) for _ in range(samples)]

    def _rows_of(self, run: _Call) -> int | None:
        """Return the number of data in the first argument, or in the plates of a run."""
        if run.rows is not None:
            return run.rows
        with torch.no_grad():
            return self._pair(run, 1, None).rows

    def _vectorized_pair(self, run: _Call, rows: int | None) -> TracePair:
        """Make one pair of traces with all S samples."""
        pair = self._pair(run, self.num_particles, rows)
        if pair.rows == rows:
            return pair
        # the first argument is not the data, so the plates were taken for shared ones
        return self._pair(run, self.num_particles, pair.rows)

    @exclusive()
    def _pair(self, run: _Call, samples: int, rows: int | None) -> TracePair:
        if isinstance(poutine.unwrap(run.guide), Messenger):
            raise ScopeError(
                "guide: a GuideMessenger samples inside the model, so it has no trace of its own"
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
                    "labels: the guide has no enumerated site that could take them as values; "
                    "leave them out"
                )
            replayed = ReplayMessenger(guide_trace)(run.model)
            model_trace = poutine.trace(replayed).get_trace(*run.args, **run.kwargs)
        pair = TracePair.of(guide_trace, model_trace, rows)
        check_scope(pair)
        if is_validation_enabled():
            check_shapes(pair, samples)
        return pair

    def _warn_if_nothing_is_enumerated(self, pairs: list[TracePair], stacklevel: int) -> None:
        """Warn with the location of the caller, `stacklevel` frames up."""
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
            return self._over_particles(sum_out(f, pair.summed_out), ndim=1)
        weights = pair.label["infer"]["log_weights"].exp()
        f, rest = label_terms(pair, f, closed.get(pair.label["name"]))
        if self.importance_weighted:
            f = self._over_particles(f, ndim=2)
        return self._over_particles(expectation(f, weights) + rest, ndim=1)

    def _class_bounds(self, pair: TracePair, only: Collection[str] | None) -> Tensor:
        label = pair.label or pair.summed_out
        if label is None:
            raise ValueError("guide: no site is enumerated, so there is no bound for each class")
        if only is None:
            closed = self._closed(pair)
            closed.pop(label["name"], None)
            f = log_weight(pair, closed)
        else:
            f = sum_of_sites(pair, set(only))
        f = f.expand(torch.broadcast_shapes(f.shape, label["infer"]["log_weights"].shape[-2:]))
        return self._over_particles(f, ndim=2).movedim(-1, -2)

    def _closed(self, pair: TracePair) -> dict[str, Tensor]:
        """Return the KL in closed form by site, at least `free_bits` for continuous latents."""
        closed = closed_form_kl(pair.guide, pair.model, self.closed_form)
        if not self.free_bits:
            return closed
        for name, kl in closed.items():
            site = pair.guide.nodes[name]
            if not is_enumerated(site) and not pair.is_shared(site):
                least = self.free_bits * site["scale"]
                if not isinstance(least, Tensor):
                    least = torch.full((), least, device=kl.device)
                closed[name] = torch.maximum(kl, least.to(kl))
        return closed

    def _over_particles(self, f: Tensor, ndim: int) -> Tensor:
        """Average over samples, which are dimension 0 if f has more than `ndim` dimensions.

        The importance-weighted bound averages weights, the plain one their logarithms.
        """
        if f.dim() <= ndim:
            return f
        return log_mean_exp(f) if self.importance_weighted else f.mean(0)


@dataclass(frozen=True)
class _Call:
    """A call of both programs.

    Arguments:
        model: The model.
        guide: Its guide.
        args: Positional arguments of both.
        kwargs: Keyword arguments of both.
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
        """Number of data, from the first argument of the programs; None if it is no tensor."""
        first = next(iter([*self.args, *self.kwargs.values()]), None)
        return len(first) if isinstance(first, Tensor) and first.dim() else None

    def without_param_store(self) -> _Call:
        """Return the same call with programs that do not register parameters."""
        return replace(
            self,
            model=without_param_store(self.model),
            guide=without_param_store(self.guide),
        )


def _mean(bounds: list[Bound]) -> Bound:
    """Return the mean of bounds, with the traces of the last one."""
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

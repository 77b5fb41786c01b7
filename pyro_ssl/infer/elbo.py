"""An ELBO per datum that sums over an enumerated label, or over its likeliest values, without touching a program."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from numbers import Integral
from typing import Any, Literal, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO
from pyro.infer.util import is_validation_enabled
from pyro.nn import PyroModule
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.scale_messenger import ScaleMessenger
from torch import Tensor, nn

from pyro_ssl.infer.enumeration import (
    EnumerateMessenger,
    ReplayMessenger,
    ScopeError,
    SharedLatent,
    TopK,
    data_plates,
    is_enumerated,
    is_per_datum,
    log_mean_exp,
)
from pyro_ssl.infer.traces import (
    TracePair,
    closed_form_kl,
    entropy_of,
    log_prob,
    sample_sites,
    scaled,
)
from pyro_ssl.infer.validation import check_scope, check_shapes
from pyro_ssl.nn.tensor_notes import weighted_classes
from pyro_ssl.utils.compat import children_of, has_pyro_attributes
from pyro_ssl.utils.context import empty_param_store, exclusive

Program = Callable[..., Any]


def without_param_store(program: Program) -> Program:
    """The program without its bookkeeping in Pyro's parameter store, where it has only a module's own parameters.

    Each access to a conditional would register all its parameters: a quarter of a small step's time, to no effect here.
    """
    if not isinstance(program, PyroModule) or _has_own(program):
        return program
    return partial(nn.Module.__call__, program)


def _has_own(module: nn.Module) -> bool:
    """Whether it, or a part of it, has `PyroParam` or `PyroSample` attributes."""
    return has_pyro_attributes(module) or any(_has_own(part) for part in children_of(module))


class scale_latents(ScaleMessenger):
    r"""`poutine.scale` for the continuous latent sites alone: the weight beta_t of their KL during a warm-up.

    The label keeps its full weight: its entropy is what keeps q(y|x) soft while the decoder learns.

    Arguments:
        scale: beta_t.
        rows: Number of data: a latent that all data share keeps its full weight.
        shared_plates: Names of plates that all data share, whatever their size.
    """

    def __init__(self, scale: float, rows: int | None = None, shared_plates: Collection[str] = ()) -> None:
        super().__init__(scale)
        self.rows = rows
        self.shared_plates = shared_plates

    def _process_message(self, msg: Any) -> None:
        latent = msg["type"] == "sample" and not msg["is_observed"] and not msg["fn"].has_enumerate_support
        if latent and msg["name"] != "y" and is_per_datum(msg, self.rows, self.shared_plates):
            super()._process_message(msg)


class scale_data(ScaleMessenger):
    """`poutine.scale` for all sites but those that all data share: the weight of a part of the data.

    Arguments:
        scale: The weight, or one of each datum, `(B,)`.
        rows: Number of data.
        shared_plates: Names of plates that all data share, whatever their size.
    """

    def __init__(self, scale: float | Tensor, rows: int | None = None, shared_plates: Collection[str] = ()) -> None:
        super().__init__(scale)
        self.rows = rows
        self.shared_plates = shared_plates

    def _process_message(self, msg: Any) -> None:
        if msg["type"] != "sample" or is_per_datum(msg, self.rows, self.shared_plates):
            super()._process_message(msg)


class scale_shared(ScaleMessenger):
    """`poutine.scale` for the sites that all data share, and only those.

    Arguments:
        scale: The weight.
        rows: Number of data.
        shared_plates: Names of plates that all data share, whatever their size.
    """

    def __init__(self, scale: float, rows: int | None = None, shared_plates: Collection[str] = ()) -> None:
        super().__init__(scale)
        self.rows = rows
        self.shared_plates = shared_plates

    def _process_message(self, msg: Any) -> None:
        if msg["type"] == "sample" and not is_per_datum(msg, self.rows, self.shared_plates):
            super()._process_message(msg)


class undo_subsampling(Messenger):
    """Take the factor N / B of `pyro.plate(name, N, subsample=x)` off its sites, for a bound per datum.

    Arguments:
        rows: Number B of data at hand.
    """

    def __init__(self, rows: int | None = None) -> None:
        super().__init__()
        self.rows = rows

    def _pyro_sample(self, msg: Any) -> None:
        for plate in data_plates(msg):
            of_data = self.rows is None or plate.size == self.rows
            if of_data and plate.full_size not in (None, plate.size):
                msg["scale"] = msg["scale"] * (plate.size / plate.full_size)


class Bound(NamedTuple):
    """A bound per datum, `(B,)`, in nats, the traces that it was read from, and what belongs to no datum.

    `shared` is of what stands outside the plate and all data share: KL(q(W) || p(W)) of latents, such as random weights, and
    minus the logarithm of observations and factors. A scalar, to be taken off the data set's bound once; None where there is
    nothing.
    """

    value: Tensor
    guide_trace: Trace
    model_trace: Trace
    shared: Tensor | None = None


class TraceTopKEnum_ELBO(ELBO):
    r"""The ELBO with at most one enumerated site, y, in guide and model together; per datum.

    .. math:: U(x) = \sum_y q(y|x)\, f(y) + \mathrm H(q(y|x)), \qquad
              f(y) = \log p(x, y, z_y) - \log q(z_y | x, y), \quad z_y \sim q(z | x, y)

    A site that the model marks for enumeration and the guide leaves out is summed out of the model, inside the logarithm:
    :math:`\log \sum_y p(x, y, z)` in place of :math:`\log p(x, z)`. With `top_k=k`, the guide's sum runs over the k likeliest
    classes and one drawn from the rest, weighted by one over its probability; value and gradient stay unbiased. For `top_k=None`
    and `closed_form=()` it equals `TraceEnum_ELBO` in value and gradient (where that is run with Pyro's validation off: it
    mistakes a z that differs by class, before y in the model, for an error).

    Its scope is a pair over one plate of data, at dimension -1; latents outside it, in plates of another size and in sequential
    plates are shared by all data and count once. What the guide does not enumerate is reparameterised. Any other pair is
    refused, and for it there is `pyro.infer.TraceEnum_ELBO`.

    Arguments:
        top_k: Number k of likeliest classes; None, or K - 1 and above, sums over all K. "auto" takes 1, 2, 4, 8 or 16, the
            first that holds 95 % of q(y|x) in the batch's mean, and 16 where none does: all classes of up to 17 while
            q(y|x) is spread, and two once it has concentrated. It looks at q(y|x) and not at the draw, so it costs no bias.
        common_random_numbers: Give a datum's Gaussian sites one noise for all its classes: each class's expectation is as it was,
            and the differences between classes, which teach q(y|x), vary less.
        num_particles: Samples S of the guide's other sites, for each class. Where a latent is shared by all data, S runs of
            the programs, each with its own draw of it.
        importance_weighted: f(y) is the logarithm of the mean of S weights p(x, y, z) / q(z|x, y), a tighter bound; not the
            mean of S logarithms. Where the guide draws before y, q(y|x) is its mean over these samples. A `poutine.scale`
            acts on the densities, inside the logarithm. A latent that all data share is drawn once, and its KL stands
            outside the logarithm.
        closed_form: Sites whose log p - log q is replaced by minus their KL, in closed form. "auto" takes every site for
            which that is exact and known: all latents before it in the model stand before it in the guide too, so
            SSLPE's p(y|x,z) is sampled. Names take just those sites, at the caller's risk; `()` takes none.
        free_bits: The KL of a continuous latent, where in closed form, counts at least so many nats per datum: below that it
            is not made smaller. A lower value than the bound's, and so a bound too.
        max_plate_nesting: As in `TraceEnum_ELBO`: 1, or infinity to leave it open; more plates are outside the scope.
        vectorize_particles: Draw the samples together; False runs the programs `num_particles` times.
        strict_enumeration_warning: As in `TraceEnum_ELBO`: warn where no site is enumerated.

    Raises:
        ValueError: An argument is out of range; a site named in `closed_form` is not the model's, or has no KL in closed form;
            a shape of a site fits neither its plates nor the label (where Pyro's validation is on).
        ScopeError: A ValueError: the pair is outside the scope.

    References:
        Burda et al. 2016 for the importance-weighted bound; Kingma et al. 2016 for free bits.
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
        if not free_bits >= 0 or (free_bits and (importance_weighted or (closed_form != "auto" and not closed_form))):
            raise ValueError(f"free_bits should be 0 or above, and wants KLs in closed form; got {free_bits}")
        if top_k not in ("auto", None) and not _is_count(top_k):
            raise ValueError(f'top_k should be at least 1, None for all classes, or "auto"; got {top_k!r}')
        if not _is_count(num_particles):
            raise ValueError(f"num_particles should be a whole number above 0, got {num_particles!r}")
        if closed_form != "auto" and (isinstance(closed_form, str) or not isinstance(closed_form, Collection)):
            raise ValueError(f'closed_form should be "auto" or a tuple of site names, got {closed_form!r}')
        if importance_weighted and closed_form != "auto" and len(closed_form):
            raise ValueError("closed_form: an importance-weighted bound has no KL; leave it out or give ()")
        if max_plate_nesting not in (1, math.inf):
            raise ScopeError(
                f"max_plate_nesting should be 1, got {max_plate_nesting!r}: the bound is of one plate of data"
            )
        super().__init__(
            num_particles=num_particles,
            max_plate_nesting=1,
            vectorize_particles=vectorize_particles,
            strict_enumeration_warning=strict_enumeration_warning,
        )
        self.top_k, self.common_random_numbers, self.importance_weighted = (
            top_k,
            common_random_numbers,
            importance_weighted,
        )
        self.closed_form, self.free_bits = () if importance_weighted else closed_form, free_bits

    def bound(self, model: Program, guide: Program, *args: Any, labels: Tensor | None = None, **kwargs: Any) -> Bound:
        """Bound per datum, `(B,)` nats. The parameter store of the caller is neither read nor written.

        Arguments:
            model: A program over `(x, y=None)`, or over what `args` holds.
            guide: Its guide.
            args: Arguments of both programs.
            labels: Values of y for the first rows of data, `(L, *event)`, to evaluate them beside rows that have none:
                the bound of these rows is then L(x, y), as of programs that are given y.
            kwargs: Further arguments of both.
        """
        with _apart(model, guide), undo_subsampling(_rows(args, kwargs)):
            pairs = self._pairs(without_param_store(model), without_param_store(guide), args, kwargs, labels=labels)
        return self._mean([self._value(pair) for pair in pairs])

    def class_bounds(
        self, model: Program, guide: Program, *args: Any, only: Collection[str] | None = None, **kwargs: Any
    ) -> Tensor:
        """f(y) of every class, `(B, K)` nats: with a guide that knows y, the labeled bound L(x, y) of each.

        Arguments:
            model: A program over `(x, y=None)`, called without y.
            guide: Its guide; one of the two has an enumerated site.
            args: Arguments of both programs.
            only: Names of the model's sites to sum, without the guide's: ("x",) is the reconstruction.
            kwargs: Further arguments of both.

        Raises:
            ValueError: Nothing is enumerated; a name in `only` is not the model's.
        """
        if only is not None and (isinstance(only, str) or self.importance_weighted):
            raise ValueError("only should be a tuple of site names, of a bound that is not importance-weighted")
        with _apart(model, guide), undo_subsampling(_rows(args, kwargs)):
            pairs = self._pairs(without_param_store(model), without_param_store(guide), args, kwargs, all_classes=True)
        return torch.stack([self._class_bounds(pair, only) for pair in pairs]).mean(0)

    def _class_bounds(self, pair: TracePair, only: Collection[str] | None) -> Tensor:
        label = pair.label or pair.summed_out
        if label is None:
            raise ValueError("guide: no site is enumerated, so there is no bound per class")
        if only is None:
            f = _f(pair, self._closed(pair, without=label["name"]))
        else:
            if unknown := sorted(set(only) - {name for name, _ in sample_sites(pair.model)}):
                raise ValueError(f"only: the model has no site {', '.join(unknown)}")
            f = torch.zeros(())
            for name, site in sample_sites(pair.model):
                f = f + log_prob(site) if name in only else f
        f = f.expand(torch.broadcast_shapes(f.shape, label["infer"]["log_weights"].shape[-2:]))
        return self._over_particles(f, dim=2).movedim(-1, -2)

    def log_evidence(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Importance-sampling estimate of log p(x), or of log p(x, y) where the guide is given y: `(B,)` nats.

        The mean of S weights, summed over all classes; its logarithm is a lower bound in the mean.
        """
        with _apart(model, guide), undo_subsampling(_rows(args, kwargs)):
            (pair,) = self._pairs(
                without_param_store(model), without_param_store(guide), args, kwargs, all_classes=True, shared_once=True
            )
        f = _f(pair, {})
        if pair.label is not None and pair.label["mask"] is not None:
            raise ScopeError(f"site {pair.label['name']!r} is masked, and the evidence is a sum over its classes")
        f = log_mean_exp(f) if f.dim() > 2 else f
        return f.logsumexp(-2) if f.dim() > 1 else f

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the bound, summed over data; parameters may live in the parameter store, as `pyro.infer.SVI` wants."""
        bound = self._mean([self._value(pair) for pair in self._pairs(model, guide, args, kwargs)])
        return -bound.value.sum() if bound.shared is None else bound.shared - bound.value.sum()

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        return loss.item()

    def _get_trace(self, model: Program, guide: Program, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        """Traces of model and guide for one run, as Pyro's own ELBOs give them."""
        pair = self._pairs(model, guide, args, kwargs, shared_once=True)[0]
        return pair.model, pair.guide

    def _pairs(
        self,
        model: Program,
        guide: Program,
        args: Any,
        kwargs: Any,
        *,
        labels: Tensor | None = None,
        all_classes: bool = False,
        shared_once: bool = False,
    ) -> list[TracePair]:
        """The traces of all samples in one run or, where a latent is shared by all data, of one sample in each of S runs."""
        how: dict[str, Any] = {
            "labels": labels,
            "all_classes": all_classes,
            "shared_once": shared_once or self.importance_weighted,
        }
        rows = _rows(args, kwargs)
        if self.num_particles == 1:
            return [self._pair(model, guide, args, kwargs, 1, rows, **how)]
        if rows is None:  # a run of one sample tells which plates are the data's
            with torch.no_grad():
                rows = self._pair(model, guide, args, kwargs, 1, None, **how).rows
        if self.vectorize_particles or self.importance_weighted:
            try:
                pair = self._pair(model, guide, args, kwargs, self.num_particles, rows, **how)
                if pair.rows != rows:  # the first argument does not count the data
                    pair = self._pair(model, guide, args, kwargs, self.num_particles, pair.rows, **how)
                return [pair]
            except SharedLatent:
                pass
        return [self._pair(model, guide, args, kwargs, 1, rows, **how) for _ in range(self.num_particles)]

    @exclusive()
    def _pair(
        self,
        model: Program,
        guide: Program,
        args: Any,
        kwargs: Any,
        samples: int,
        rows: int | None,
        *,
        labels: Tensor | None,
        all_classes: bool,
        shared_once: bool,
    ) -> TracePair:
        if isinstance(poutine.unwrap(guide), Messenger):
            raise ScopeError("guide: a GuideMessenger draws while the model runs, and has no trace of its own")
        enumerate_ = EnumerateMessenger(
            None if all_classes else self.top_k,
            self.common_random_numbers,
            samples,
            marginal=self.importance_weighted,
            labels=labels,
            rows=rows,
            shared_once=shared_once,
        )
        with weighted_classes():
            guide_trace = poutine.trace(enumerate_(guide)).get_trace(*args, **kwargs)
            if labels is not None and enumerate_.label is None:
                raise ValueError("labels: the guide enumerates nothing that they could be values of")
            model_trace = poutine.trace(ReplayMessenger(guide_trace)(model)).get_trace(*args, **kwargs)
        pair = TracePair.of(guide_trace, model_trace, rows)
        check_scope(pair)
        if is_validation_enabled():
            check_shapes(pair, samples)
            self._warn_if_nothing_is_enumerated(pair)
        return pair

    def _warn_if_nothing_is_enumerated(self, pair: TracePair) -> None:
        if self.strict_enumeration_warning and pair.label is None and pair.summed_out is None:
            warnings.warn('no site is marked infer={"enumerate": "parallel"}, so nothing is summed over', stacklevel=5)

    def _closed(self, pair: TracePair, without: str | None = None) -> dict[str, Tensor]:
        closed = closed_form_kl(pair.guide, pair.model, self.closed_form)
        closed = {name: kl for name, kl in closed.items() if name != without}
        if self.free_bits:
            for name, kl in closed.items():
                site = pair.guide.nodes[name]
                if not is_enumerated(site) and not pair.is_shared(site):
                    closed[name] = torch.maximum(kl, torch.as_tensor(self.free_bits * site["scale"]).to(kl))
        return closed

    def _value(self, pair: TracePair) -> Bound:
        """The bound per datum from a guide's trace and the model's trace replayed on it."""
        closed = self._closed(pair)
        return Bound(self._per_datum(pair, closed), pair.guide, pair.model, _shared(pair, closed))

    @staticmethod
    def _mean(bounds: list[Bound]) -> Bound:
        """The mean over runs, with the traces of the last."""
        last = bounds[-1]
        if len(bounds) == 1:
            return last
        value = torch.stack([bound.value for bound in bounds]).mean(0)
        shared = [bound.shared for bound in bounds if bound.shared is not None]
        return last._replace(value=value, shared=torch.stack(shared).mean(0) if shared else None)

    def _per_datum(self, pair: TracePair, closed: dict[str, Tensor]) -> Tensor:
        label = pair.label
        f = _f(pair, closed)
        if label is None:
            return self._over_particles(_summed_out(f, pair.summed_out), dim=1)
        kl = closed.get(label["name"])
        known, weights = label["infer"]["known"], label["infer"]["log_weights"].exp()
        if kl is not None:
            rest = -kl
            if known:  # given labels have their log p(y), and no entropy
                log_p = log_prob(dict(sample_sites(pair.model))[label["name"]])
                f = f + torch.cat([log_p[..., :known], torch.zeros_like(log_p[..., known:])], -1)
        else:
            rest = scaled(label, entropy_of(label["infer"]["log_q"]))
        if self.importance_weighted:
            f = self._over_particles(f, dim=2)
        rest = rest.squeeze(-2) if rest.dim() > 1 else rest
        if known:
            rest = torch.cat([torch.zeros_like(rest[..., :known]), rest[..., known:]], -1)
        return self._over_particles(_expectation(f, weights) + rest, dim=1)

    def _over_particles(self, f: Tensor, dim: int) -> Tensor:
        """Mean, or logarithm of the mean, over the samples, which are dimension 0 of what has more than `dim` dimensions."""
        if f.dim() <= dim:
            return f
        return log_mean_exp(f) if self.importance_weighted else f.mean(0)


def differentiable_loss(elbo: Any, model: nn.Module, guide: nn.Module, *args: Any) -> Tensor:
    """The loss of any ELBO of Pyro's, summed over data, with its gradient; the caller's parameter store is left alone.

    An ELBO that gives its gradients only by `loss_and_grads` has them put into a scalar that is linear in the parameters.
    """
    every = dict.fromkeys([*model.parameters(), *guide.parameters()])  # each once, in order
    with empty_param_store():
        if not torch.is_grad_enabled():  # where `differentiable_loss` raises
            return next(iter(every)).new_tensor(elbo.loss(model, guide, *args))
        if hasattr(elbo, "differentiable_loss"):
            return torch.as_tensor(elbo.differentiable_loss(model, guide, *args))
        parameters = [p for p in every if p.requires_grad]
        kept = [p.grad for p in parameters]
        for p in parameters:
            p.grad = None
        try:
            loss = elbo.loss_and_grads(model, guide, *args)
            gradients = [p.grad for p in parameters]
        finally:
            for p, gradient in zip(parameters, kept, strict=True):
                p.grad = gradient
    surrogate = parameters[0].new_tensor(loss)
    for p, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            surrogate = surrogate + ((p - p.detach()) * gradient).sum()
    return surrogate


@contextmanager
def _apart(*programs: Program) -> Iterator[None]:
    """An empty parameter store inside the block; ValueError if `pyro.param` wanted what the caller's holds."""
    theirs = dict(pyro.get_param_store().named_parameters())
    with empty_param_store():
        yield
        own = {id(p) for program in programs if isinstance(program, nn.Module) for p in program.parameters()}
        for name, p in pyro.get_param_store().named_parameters() if theirs else ():
            if name in theirs and id(p) not in own and not torch.equal(p, theirs[name]):
                raise ValueError(
                    f"pyro.param({name!r}) has been trained in Pyro's parameter store, which a bound does not read; make it an "
                    "attribute of the program, nn.Parameter or pyro.nn.PyroParam"
                )


def _rows(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """Number of data, by the programs' first argument."""
    first = next(iter([*args, *kwargs.values()]), None)
    return len(first) if isinstance(first, Tensor) and first.dim() else None


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and int(value) >= 1


def _summed_out(f: Tensor, site: dict[str, Any] | None) -> Tensor:
    """`log sum_y exp f(y)` over dimension -2; the scale, one for y and all that depends on it, stays outside."""
    if site is None:
        return f.squeeze(-2) if f.dim() > 1 else f
    scale = site["scale"]
    return scale * (f / scale).logsumexp(-2)


def _f(pair: TracePair, closed: dict[str, Tensor]) -> Tensor:
    """log p(x, y, z) - log q(z|x, y), `([S,] V, B)`, with minus the KL for sites in closed form; the label's is left out.

    So are sites that all data share. A mask of the site that the model sums out is not applied: its probabilities sum to 1.
    """
    summed_out = None if pair.summed_out is None else pair.summed_out["name"]
    f = torch.zeros(())
    for name, site in sample_sites(pair.model):
        if pair.is_shared(site):
            continue
        if name == summed_out:
            f = f + log_prob(site | {"mask": None})
        elif name not in closed:
            f = f + log_prob(site)
        elif not is_enumerated(site):
            f = f - closed[name]
    for name, site in sample_sites(pair.guide):
        if not is_enumerated(site) and name not in closed and not pair.is_shared(site):
            f = f - log_prob(site)
    return f


def _shared(pair: TracePair, closed: dict[str, Tensor]) -> Tensor | None:
    """log q(W) - log p(W), or its mean in closed form, of what all data share; observed sites and factors among it."""
    terms = []
    for name, site in sample_sites(pair.guide):
        if pair.is_shared(site):
            terms.append(closed[name] if name in closed else log_prob(site))
    for name, site in sample_sites(pair.model):
        if pair.is_shared(site) and name not in closed:
            terms.append(-log_prob(site))
    return torch.stack([term.sum() for term in terms]).sum() if terms else None


def _expectation(f: Tensor, weights: Tensor) -> Tensor:
    """`sum_y w(y) f(y)` over dimension -2, `([S,] B)`, with a baseline in the gradient with respect to w.

    The weights sum to one whatever the parameters of q(y|x), or do so in expectation, so taking the first class's f off
    changes no gradient's mean. With `top_k`, the first is the likeliest: it must not depend on the class drawn, or the
    estimate is biased.
    """
    fixed = weights.detach()
    f = torch.where(fixed == 0, 0.0, f)  # 0 log 0 = 0: a class that both programs rule out adds nothing
    constant = f.detach()
    return torch.addcmul(fixed * f, weights - fixed, constant - constant[..., :1, :]).sum(-2)

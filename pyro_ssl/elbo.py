"""An ELBO per datum that sums over an enumerated label, or over its likeliest values, without touching a program."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from numbers import Integral
from typing import Any, Literal, NamedTuple

import torch
from pyro import poutine
from pyro.infer import ELBO
from pyro.infer.util import is_validation_enabled
from pyro.nn import PyroModule
from pyro.poutine import Trace
from pyro.poutine.scale_messenger import ScaleMessenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from pyro_ssl.compat import children_of, has_pyro_attributes
from pyro_ssl.enumeration import (
    EnumerateMessenger,
    ReplayMessenger,
    Top,
    is_enumerated,
    is_of_all,
    is_shared,
    log_mean_exp,
)
from pyro_ssl.layers import weighed
from pyro_ssl.modes import exclusive, own_param_store
from pyro_ssl.traces import (
    check_plates,
    closed_form_kl,
    entropy_of,
    enumerated_site,
    log_prob,
    sample_sites,
    scaled,
    summed_out,
)

Program = Callable[..., Any]


def local(program: Program) -> Program:
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
    """

    def _process_message(self, msg: Any) -> None:
        latent = msg["type"] == "sample" and not msg["is_observed"] and not msg["fn"].has_enumerate_support
        if latent and msg["name"] != "y" and not is_shared(msg):
            super()._process_message(msg)


class scale_data(ScaleMessenger):
    """`poutine.scale` for all sites but those that all data share: the weight of a part of the data."""

    def _process_message(self, msg: Any) -> None:
        if msg["type"] != "sample" or site_is_subsample(msg) or not is_of_all(msg):
            super()._process_message(msg)


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


class TraceTopEnum_ELBO(ELBO):
    r"""The ELBO with at most one enumerated site, y, in the guide or in the model; per datum.

    .. math:: U(x) = \sum_y q(y|x)\, f(y) + \mathrm H(q(y|x)), \qquad
              f(y) = \log p(x, y, z_y) - \log q(z_y | x, y), \quad z_y \sim q(z | x, y)

    A site that the model marks for enumeration and the guide leaves out is summed out of the model, inside the logarithm:
    :math:`\log \sum_y p(x, y, z)` in place of :math:`\log p(x, z)`. With `top=k`, the guide's sum runs over the k likeliest
    classes and one drawn from the rest, weighted by one over its probability; value and gradient stay unbiased. Any pair over
    one plate, at dimension -1, will do, what the guide draws before y included. For `top=None` and `closed_form=()` it equals
    `TraceEnum_ELBO` in value and gradient (where that is run with Pyro's validation off: it mistakes a z that differs by
    class, before y in the model, for an error).

    Arguments:
        top: Number k of likeliest classes; None, or K - 1 and above, sums over all K. "auto" takes 1, 2, 4, 8 or 16, the
            first that holds 95 % of q(y|x) in the batch's mean, and 16 where none does: all classes of up to 17 while
            q(y|x) is spread, and two once it has concentrated. It looks at q(y|x) and not at the draw, so it costs no bias.
        shared_noise: Give a datum's Gaussian sites one noise for all its classes: each class's expectation is as it was,
            and the differences between classes, which teach q(y|x), vary less.
        num_particles: Samples S of the guide's other sites, for each class.
        importance_weighted: f(y) is the logarithm of the mean of S weights p(x, y, z) / q(z|x, y), a tighter bound; not the
            mean of S logarithms. Where the guide draws before y, q(y|x) is its mean over these samples. A `poutine.scale`
            acts on the densities, inside the logarithm.
        closed_form: Sites whose log p - log q is replaced by minus their KL, in closed form. "auto" takes every site for
            which that is exact and known: all latents before it in the model stand before it in the guide too, so
            SSLPE's p(y|x,z) is sampled. Names take just those sites, at the caller's risk; `()` takes none.
        free_bits: The KL of a continuous latent, where in closed form, counts at least so many nats per datum: below that it
            is not made smaller. A lower value than the bound's, and so a bound too.

    Raises:
        ValueError: An argument is out of range; a guide site is neither reparameterised nor enumerated; several are
            enumerated; a site named in `closed_form` is not the model's, or has no KL in closed form.

    References:
        Burda et al. 2016 for the importance-weighted bound; Kingma et al. 2016 for free bits.
    """

    def __init__(
        self,
        top: Top = "auto",
        *,
        shared_noise: bool = False,
        num_particles: int = 1,
        importance_weighted: bool = False,
        closed_form: Literal["auto"] | Collection[str] = "auto",
        free_bits: float = 0.0,
    ) -> None:
        if not free_bits >= 0 or (free_bits and (importance_weighted or (closed_form != "auto" and not closed_form))):
            raise ValueError(f"free_bits should be 0 or above, and wants KLs in closed form; got {free_bits}")
        if top not in ("auto", None) and not _is_count(top):
            raise ValueError(f'top should be at least 1, None for all classes, or "auto"; got {top!r}')
        if not _is_count(num_particles):
            raise ValueError(f"num_particles should be a whole number above 0, got {num_particles!r}")
        if closed_form != "auto" and (isinstance(closed_form, str) or not isinstance(closed_form, Collection)):
            raise ValueError(f'closed_form should be "auto" or a tuple of site names, got {closed_form!r}')
        if importance_weighted and closed_form != "auto" and len(closed_form):
            raise ValueError("closed_form: an importance-weighted bound has no KL; leave it out or give ()")
        super().__init__(num_particles=num_particles, max_plate_nesting=1)
        self.top, self.shared_noise, self.importance_weighted = top, shared_noise, importance_weighted
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
        with own_param_store():
            model_trace, guide_trace = self._get_trace(local(model), local(guide), args, kwargs, labels=labels)
        return Bound(*self._value(guide_trace, model_trace))

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
        with own_param_store():
            model_trace, guide_trace = self._get_trace(local(model), local(guide), args, kwargs, all_classes=True)
        label = enumerated_site(guide_trace) or summed_out(guide_trace, model_trace)
        if label is None:
            raise ValueError("guide: no site is enumerated, so there is no bound per class")
        if only is not None and (isinstance(only, str) or self.importance_weighted):
            raise ValueError("only should be a tuple of site names, of a bound that is not importance-weighted")
        if only is None:
            f = _f(guide_trace, model_trace, self._closed(guide_trace, model_trace, without=label["name"]))
        else:
            if unknown := sorted(set(only) - {name for name, _ in sample_sites(model_trace)}):
                raise ValueError(f"only: the model has no site {', '.join(unknown)}")
            f = torch.zeros(())
            for name, site in sample_sites(model_trace):
                f = f + log_prob(site) if name in only else f
        f = f.expand(torch.broadcast_shapes(f.shape, label["infer"]["log_weights"].shape[-2:]))
        return self._over_particles(f, dim=2).movedim(-1, -2)

    def log_evidence(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Importance-sampling estimate of log p(x), or of log p(x, y) where the guide is given y: `(B,)` nats.

        The mean of S weights, summed over all classes; its logarithm is a lower bound in the mean.
        """
        with own_param_store():
            model_trace, guide_trace = self._get_trace(local(model), local(guide), args, kwargs, all_classes=True)
        f = _f(guide_trace, model_trace, {})
        f = log_mean_exp(f) if f.dim() > 2 else f
        return f.logsumexp(-2) if f.dim() > 1 else f

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the bound, summed over data; parameters may live in the parameter store, as `pyro.infer.SVI` wants."""
        model_trace, guide_trace = self._get_trace(model, guide, args, kwargs)
        bound = self._value(guide_trace, model_trace)
        return -bound.value.sum() if bound.shared is None else bound.shared - bound.value.sum()

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        return loss.item()

    @exclusive()
    def _get_trace(
        self,
        model: Program,
        guide: Program,
        args: Any,
        kwargs: Any,
        *,
        labels: Tensor | None = None,
        all_classes: bool = False,
    ) -> tuple[Trace, Trace]:
        enumerate_ = EnumerateMessenger(
            None if all_classes else self.top,
            self.shared_noise,
            self.num_particles,
            marginal=self.importance_weighted,
            labels=labels,
        )
        with weighed():
            guide_trace = poutine.trace(enumerate_(guide)).get_trace(*args, **kwargs)
            if labels is not None and enumerated_site(guide_trace) is None:
                raise ValueError("labels: the guide enumerates nothing that they could be values of")
            model_trace = poutine.trace(ReplayMessenger(guide_trace)(model)).get_trace(*args, **kwargs)
        if is_validation_enabled():
            check_plates(guide_trace, model_trace)
        return model_trace, guide_trace

    def _closed(self, guide_trace: Trace, model_trace: Trace, without: str | None = None) -> dict[str, Tensor]:
        closed = closed_form_kl(guide_trace, model_trace, self.closed_form)
        closed = {name: kl for name, kl in closed.items() if name != without}
        if self.free_bits:
            for name, kl in closed.items():
                site = guide_trace.nodes[name]
                if not is_enumerated(site) and not is_shared(site):
                    closed[name] = torch.maximum(kl, torch.as_tensor(self.free_bits * site["scale"]).to(kl))
        return closed

    def _value(self, guide_trace: Trace, model_trace: Trace) -> Bound:
        """The bound per datum from a guide's trace and the model's trace replayed on it."""
        closed = self._closed(guide_trace, model_trace)
        shared = _shared(guide_trace, model_trace, closed)
        return Bound(self._per_datum(guide_trace, model_trace, closed), guide_trace, model_trace, shared)

    def _per_datum(self, guide_trace: Trace, model_trace: Trace, closed: dict[str, Tensor]) -> Tensor:
        label = enumerated_site(guide_trace)
        kl = None if label is None else closed.get(label["name"])
        f = _f(guide_trace, model_trace, closed)
        if label is None:
            return self._over_particles(_summed_out(f, summed_out(guide_trace, model_trace)), dim=1)
        known, weights = label["infer"]["known"], label["infer"]["log_weights"].exp()
        if kl is not None:
            rest = -kl
            if known:  # given labels have their log p(y), and no entropy
                log_p = log_prob(dict(sample_sites(model_trace))[label["name"]])
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


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and int(value) >= 1


def _summed_out(f: Tensor, site: dict[str, Any] | None) -> Tensor:
    """`log sum_y exp f(y)` over dimension -2; the scale, one for y and all that depends on it, stays outside."""
    if site is None:
        return f.squeeze(-2) if f.dim() > 1 else f
    scale = site["scale"]
    return scale * (f / scale).logsumexp(-2)


def _f(guide_trace: Trace, model_trace: Trace, closed: dict[str, Tensor]) -> Tensor:
    """log p(x, y, z) - log q(z|x, y), `([S,] V, B)`, with minus the KL for sites in closed form; the label's is left out.

    So are sites of all data.
    """
    f = torch.zeros(())
    for name, site in sample_sites(model_trace):
        if is_of_all(site):
            continue
        if name not in closed:
            f = f + log_prob(site)
        elif not is_enumerated(site):
            f = f - closed[name]
    for name, site in sample_sites(guide_trace):
        if not is_enumerated(site) and name not in closed and not is_of_all(site):
            f = f - log_prob(site)
    return f


def _shared(guide_trace: Trace, model_trace: Trace, closed: dict[str, Tensor]) -> Tensor | None:
    """log q(W) - log p(W), or its mean in closed form, of what all data share; observed sites and factors among it."""
    terms = [closed[n] if n in closed else log_prob(s) for n, s in sample_sites(guide_trace) if is_of_all(s)]
    terms += [-log_prob(s) for n, s in sample_sites(model_trace) if is_of_all(s) and n not in closed]
    return torch.stack(terms).sum() if terms else None


def _expectation(f: Tensor, weights: Tensor) -> Tensor:
    """`sum_y w(y) f(y)` over dimension -2, `([S,] B)`, with a baseline in the gradient with respect to w.

    The weights sum to one whatever the parameters of q(y|x), or do so in expectation, so taking the first class's f off
    changes no gradient's mean. With `top`, the first is the likeliest: it must not depend on the class drawn, or the
    estimate is biased.
    """
    f = f.expand(torch.broadcast_shapes(f.shape, weights.shape))
    fixed, constant = weights.detach(), f.detach()
    return torch.addcmul(fixed * f, weights - fixed, constant - constant[..., :1, :]).sum(-2)

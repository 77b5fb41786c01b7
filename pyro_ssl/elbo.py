"""An ELBO per datum, which sums over an enumerated label or over its likeliest values, without touching a program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO
from pyro.nn import PyroModule
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.scale_messenger import ScaleMessenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

Program = Callable[..., Any]


def sample_sites(trace: Trace) -> Iterator[tuple[str, Any]]:
    """Name and site of every `pyro.sample` statement, plates left out."""
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and not site_is_subsample(site):
            yield name, site


def is_enumerated(site: dict[str, Any]) -> bool:
    return site["infer"].get("enumerate") == "parallel" and not site["is_observed"]


def local(program: Program) -> Program:
    """The program without its bookkeeping in Pyro's parameter store, where it has only a module's own parameters.

    Each access to a conditional would register all its parameters: a quarter of a small step's time, to no effect here.
    """
    if not isinstance(program, PyroModule):
        return program
    own = any(m._pyro_params or m._pyro_samples for m in program.modules() if isinstance(m, PyroModule))
    return program if own else program.forward


class scale_latents(ScaleMessenger):
    r"""`poutine.scale` for the continuous latent sites alone: the weight beta_t of their KL during a warm-up.

    The label keeps its full weight: its entropy is what keeps q(y|x) soft while the decoder learns.
    """

    def _process_message(self, msg: Any) -> None:
        if msg["type"] == "sample" and not msg["is_observed"] and not msg["fn"].has_enumerate_support:
            super()._process_message(msg)


class EnumerateMessenger(Messenger):
    """Gives a guide's enumerated site all its values `(K, 1)`, or the `top` likeliest and one drawn `(top + 1, B)`.

    The dimension of the values is -2, left of the one plate. Log-weights, `(values, B)`, stay in the site's
    `infer["log_weights"]`: log q, and for the drawn value log q minus the log-probability of drawing it, held constant.
    """

    def __init__(self, top: int | None = None, shared_noise: bool = False) -> None:
        super().__init__()
        self.top, self.shared_noise = top, shared_noise

    def __enter__(self) -> Any:
        self.values = 1
        return super().__enter__()

    def _pyro_sample(self, msg: Any) -> None:
        if msg["done"] or msg["is_observed"] or site_is_subsample(msg):
            return
        if is_enumerated(msg):
            self._enumerate(msg)
        elif self.values > 1 and self.shared_noise:
            self._share(msg)

    def _enumerate(self, msg: Any) -> None:
        fn = msg["fn"]
        support = fn.enumerate_support(expand=False)
        categorical = isinstance(fn, torch.distributions.Categorical | torch.distributions.OneHotCategorical)
        log_q = fn.logits if categorical else fn.log_prob(support).movedim(0, -1)
        if self.top is not None and self.top < support.shape[0] - 1:
            index, log_weights = _likeliest_and_one(log_q, self.top)
            support = support.flatten(0, support.dim() - 1 - fn.event_dim)[index]
        else:
            log_weights = log_q.movedim(-1, 0)
        msg["infer"] = {**msg["infer"], "log_weights": log_weights}
        msg["value"], msg["done"] = support, True
        self.values = len(support)

    def _share(self, msg: Any) -> None:
        """One noise for all values of the label, where the site is a Gaussian; others draw as ever."""
        fn = msg["fn"]
        base = fn.base_dist if isinstance(fn, torch.distributions.Independent) else fn
        if isinstance(base, torch.distributions.Normal) and fn.batch_shape[-2:-1] == (self.values,):
            noise = torch.randn_like(base.loc.select(-2 - fn.event_dim, 0)).unsqueeze(-2 - fn.event_dim)
            msg["value"], msg["done"] = base.loc + base.scale * noise, True


def _likeliest_and_one(log_q: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Indices and log-weights, each `(top + 1, B)`, of the likeliest classes and one drawn from the rest; log_q `(B, K)`."""
    with torch.no_grad():
        best = log_q.topk(top, dim=-1).indices
        # The likeliest at -inf and Gumbel's maximum, not probabilities: of a float32 q that is exactly one-hot, no rest is left.
        limits = torch.finfo(log_q.dtype)  # log q = -inf, or an exponential draw of 0, must not make NaN
        log_pi = log_q.clamp_min(limits.min).scatter(-1, best, -torch.inf).log_softmax(-1)
        noise = torch.empty_like(log_pi).exponential_().clamp_min_(limits.tiny)
        drawn = (log_pi - noise.log()).argmax(-1, keepdim=True)
    index = torch.cat([best, drawn], dim=-1)
    log_weights = log_q.gather(-1, index)
    correction = torch.cat([torch.zeros_like(log_weights[..., :top]), log_pi.gather(-1, drawn)], dim=-1)
    return index.movedim(-1, 0), (log_weights - correction).movedim(-1, 0)


class Bound(NamedTuple):
    """A bound per datum, `(B,)`, in nats, and the traces that it was read from."""

    value: Tensor
    guide_trace: Trace
    model_trace: Trace


class TraceTopEnum_ELBO(ELBO):
    r"""The ELBO with at most one enumerated site, y, in the guide; per datum.

    .. math:: U(x) = \sum_y q(y|x)\, f(y) + \mathrm H(q(y|x)), \qquad
              f(y) = \log p(x, y, z_y) - \log q(z_y | x, y), \quad z_y \sim q(z | x, y)

    With `top=k`, the sum runs over the k likeliest classes and one drawn from the rest, weighted by one over its
    probability; value and gradient stay unbiased. It equals `TraceEnum_ELBO` in value and gradient for `top=None`.

    Arguments:
        top: Number of likeliest classes; None, or K - 1 and above, sums over all K.
        shared_noise: Give a datum's Gaussian sites one noise for all its classes: each class's expectation is as it was,
            and the differences between classes, which teach q(y|x), vary less.

    Raises:
        ValueError: top is below 1; a guide site is neither reparameterised nor enumerated; several are enumerated.
    """

    def __init__(self, top: int | None = None, *, shared_noise: bool = False) -> None:
        if top is not None and top < 1:
            raise ValueError(f"top should be at least 1, or None for all classes; got {top}")
        super().__init__(max_plate_nesting=1)
        self.top, self.shared_noise = top, shared_noise

    def bound(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Bound:
        """Bound per datum, `(B,)` nats. The parameter store of the caller is neither read nor written."""
        with pyro.get_param_store().scope():
            model_trace, guide_trace = self._get_trace(local(model), local(guide), args, kwargs)
        return Bound(per_datum(guide_trace, model_trace), guide_trace, model_trace)

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the bound, summed over data; parameters may live in the parameter store, as `pyro.infer.SVI` wants."""
        model_trace, guide_trace = self._get_trace(model, guide, args, kwargs)
        return -per_datum(guide_trace, model_trace).sum()

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        return loss.item()

    def _get_trace(self, model: Program, guide: Program, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        guide_trace = poutine.trace(EnumerateMessenger(self.top, self.shared_noise)(guide)).get_trace(*args, **kwargs)
        return poutine.trace(poutine.replay(model, guide_trace)).get_trace(*args, **kwargs), guide_trace


def per_datum(guide_trace: Trace, model_trace: Trace) -> Tensor:
    """The bound per datum from a guide's trace and the model's trace replayed on it."""
    f = torch.zeros(())
    enumerated = None
    for _, site in sample_sites(model_trace):
        f = f + log_prob(site)
    for name, site in sample_sites(guide_trace):
        if is_enumerated(site):
            if enumerated is not None:
                raise ValueError(f"guide: at most one site may be enumerated, got another, {name!r}")
            enumerated = site
        elif site["is_observed"] or site["fn"].has_rsample:
            f = f - log_prob(site)
        else:
            raise ValueError(
                f"guide site {name!r} has no reparameterised sample, so its gradient would be wrong; "
                'mark it infer={"enumerate": "parallel"} or use a reparameterised distribution'
            )
    if enumerated is None:
        return f
    entropy = _weighted(enumerated, enumerated["fn"].entropy())
    return _expectation(f, enumerated["infer"]["log_weights"].exp()) + entropy


def log_prob(site: dict[str, Any]) -> Tensor:
    """log-density of a site, `(..., B)`, with its scale and mask."""
    return _weighted(site, site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"]))


def _weighted(site: dict[str, Any], value: Tensor) -> Tensor:
    if site["mask"] is not None:
        value = torch.where(torch.as_tensor(site["mask"]), value, torch.zeros_like(value))
    return value if isinstance(site["scale"], (int, float)) and site["scale"] == 1 else site["scale"] * value


def _expectation(f: Tensor, weights: Tensor) -> Tensor:
    """`sum_y w(y) f(y)` over dimension 0, `(B,)`, with a baseline in the gradient with respect to w.

    The weights sum to one whatever the parameters of q(y|x), or do so in expectation, so taking the first class's f off
    changes no gradient's mean. With `top`, the first is the likeliest: it must not depend on the class drawn, or the
    estimate is biased.
    """
    f = f.expand(weights.shape)
    constant = f.detach()
    return (weights.detach() * f).sum(0) + ((weights - weights.detach()) * (constant - constant[:1])).sum(0)

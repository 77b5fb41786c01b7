"""Values of an enumerated site: all of them, or the likeliest and one drawn, without touching the program."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, Literal

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, Normal, OneHotCategorical

from pyro_ssl.distributions.row_noise import draw
from pyro_ssl.nn.tensor_notes import class_weights, mark_one_hot
from pyro_ssl.utils.compat import ENUMERATE_DIM

TopK = int | None | Literal["auto"]

MASS, MOST = 0.95, 16
"""`top_k="auto"`: as few of the likeliest classes as hold this share of q(y|x), in the batch's mean; and never more than these."""


WAY_OUT = "; Objective(elbo=pyro.infer.TraceEnum_ELBO(max_plate_nesting=...)) takes any pair that Pyro can enumerate"
"""How every refusal of a pair outside the scope of `TraceTopKEnum_ELBO` ends."""


class ScopeError(ValueError):
    """A model/guide pair is outside the scope of `TraceTopKEnum_ELBO`; the message says how to mend it."""

    def __init__(self, message: str) -> None:
        sentence = message.partition("\n")[
            0
        ]  # Pyro's tracer appends the shapes of all sites to an error that passes it
        super().__init__(sentence if sentence.endswith(WAY_OUT) else sentence + WAY_OUT)


def data_plates(site: Any) -> list[Any]:
    """The vectorised plates that a site stands in."""
    return [frame for frame in site["cond_indep_stack"] if frame.vectorized]


def is_per_datum(site: Any, rows: int | None = None, shared_plates: Collection[str] = ()) -> bool:
    """Whether a site has a value for each datum, rather than one that all data share.

    Arguments:
        site: A site of a trace, or a message while its program runs.
        rows: Number of data; a plate of another size is shared by all data. None takes every plate for the data's.
        shared_plates: Names of plates that all data share, whatever their size.
    """
    plates = data_plates(site)
    if plates:
        return rows is None or any(plate.size == rows and plate.name not in shared_plates for plate in plates)
    if site_is_subsample(site):
        return False
    return math.prod(batch_shape(site)) != 1


def batch_shape(site: Any) -> torch.Size:
    """Shape of a site's log-density, by its distribution and its value, of which either may be the smaller."""
    fn = site["fn"]
    if site["value"] is None:
        return fn.batch_shape
    value_shape = torch.as_tensor(site["value"]).shape
    return torch.broadcast_shapes(fn.batch_shape, value_shape[: len(value_shape) - fn.event_dim])


def is_enumerated(site: Any) -> bool:
    """Whether it is latent, marked for enumeration, and of few values: a real y is sampled, under the same mark."""
    return site["infer"].get("enumerate") == "parallel" and not site["is_observed"] and site["fn"].has_enumerate_support


class SharedLatent(Exception):
    """Several samples are wanted at once, and the guide draws a latent that all data share."""


class EnumerateMessenger(Messenger):
    """Gives a guide's enumerated site V values, and its other latent sites S samples; both without touching the guide.

    The V values, `(V, B, *event)` or `(K, 1, *event)`, stand in dimension -2, left of the one plate, and the samples in
    dimension -3. With the site stay, in its `infer`: `log_weights`, `([S,] V, B)`, which is log q and for the drawn value
    log q minus the log-probability of drawing it, held constant; and `log_q`, `([S,] B, K)`.

    Arguments:
        top_k: As of `TraceTopKEnum_ELBO`.
        common_random_numbers: As of `TraceTopKEnum_ELBO`.
        samples: S.
        marginal: Weigh by q(y|x) averaged over the samples of what the guide draws before y.
        labels: Values of the first rows of data, `(L, *event)`, which are then not summed over but given.
        rows: Number of data, which tells their plate from one that all data share; None if it is not known.
        shared_once: Draw one sample of a latent that all data share, whatever S is.

    Raises:
        SharedLatent: There are several samples, a latent that all data share, and no `shared_once`.
        ScopeError: A site cannot be enumerated here, or there is a second one.
    """

    def __init__(
        self,
        top_k: TopK = None,
        common_random_numbers: bool = False,
        samples: int = 1,
        *,
        marginal: bool = False,
        labels: Tensor | None = None,
        rows: int | None = None,
        shared_once: bool = False,
    ) -> None:
        super().__init__()
        self.top_k, self.common_random_numbers, self.samples = top_k, common_random_numbers, samples
        self.marginal, self.labels = marginal, labels
        self.rows, self.shared_once = rows, shared_once

    def __enter__(self) -> Any:
        self.values = 1
        self.label: str | None = None
        return super().__enter__()

    def _pyro_sample(self, msg: Any) -> None:
        if msg["done"] or msg["is_observed"] or site_is_subsample(msg):
            return
        if is_enumerated(msg):
            check_enumerable(msg, self.label)
            self._enumerate(msg)
            return
        check_sampled(msg)
        if self.samples > 1 and not is_per_datum(msg, self.rows):
            if not self.shared_once:
                raise SharedLatent
            return
        several = self.samples > 1 or (self.values > 1 and self.common_random_numbers)
        if several and msg["fn"].has_rsample:
            self._sample(msg)

    def _enumerate(self, msg: Any) -> None:
        fn = msg["fn"]
        if isinstance(fn, dist.MaskedDistribution):
            raise ValueError(f"guide site {msg['name']!r} is enumerated, so its distribution cannot be masked")
        log_q = _log_probs(fn)
        if log_q.dim() > 2:  # q(y|x) depends on samples: (S, 1, B, K)
            log_q = log_q.squeeze(-3)
        marginal = log_q if log_q.dim() == 2 else log_mean_exp(log_q)
        if self.marginal:
            log_q = marginal
        support = fn.enumerate_support(expand=False).reshape(-1, *fn.event_shape)
        self.label = msg["name"]
        known = 0 if self.labels is None else len(self.labels)
        if self.labels is not None and (self.labels.shape[1:] != fn.event_shape or known > fn.batch_shape[-1]):
            wanted = f"at most {fn.batch_shape[-1]} values of shape {tuple(fn.event_shape)}"
            raise ValueError(f"labels: site {msg['name']!r} wants {wanted}, got {tuple(self.labels.shape)}")
        if known == fn.batch_shape[-1]:  # nothing is left to sum over
            assert self.labels is not None
            self._give(msg, self.labels.unsqueeze(0), log_q.new_zeros(*log_q.shape[:-2], 1, known), log_q, known)
            return
        top_k = likeliest(marginal[known:], self.top_k)
        index = torch.arange(len(support), device=log_q.device).unsqueeze(-1)
        log_weights = log_q.movedim(-1, -2)
        if top_k is not None:
            index, correction = _likeliest_and_one(marginal, top_k)
            log_weights = log_q.movedim(-1, -2).gather(-2, index.expand(*log_q.shape[:-2], *index.shape)) - correction
        value = support[index]
        if self.labels is not None:  # V copies of each given label, equally weighed
            shape = (len(index), log_q.shape[-2], *fn.event_shape)
            value = torch.cat([self.labels.expand(len(index), *self.labels.shape), value.expand(shape)[:, known:]], 1)
            log_weights = torch.cat(
                [torch.full_like(log_weights[..., :known], -math.log(len(index))), log_weights[..., known:]], -1
            )
        elif isinstance(fn, OneHotCategorical):
            mark_one_hot(value, index)
        self._give(msg, value, log_weights, log_q, known)

    def _give(self, msg: Any, value: Tensor, log_weights: Tensor, log_q: Tensor, known: int) -> None:
        notes = {"log_weights": log_weights, "log_q": log_q, "known": known, ENUMERATE_DIM: -2}
        msg["infer"] = {**msg["infer"], **notes}
        class_weights.set(log_weights)
        if msg["infer"].get("expand"):  # the user's program wants one value for each datum
            value = value.expand(len(value), log_q.shape[-2], *msg["fn"].event_shape)
        msg["value"], msg["done"] = value, True
        self.values = len(value)

    def _sample(self, msg: Any) -> None:
        """S samples; and with shared noise a Gaussian's are the same for all values of the label."""
        fn = msg["fn"]
        wide = fn.expand(torch.broadcast_shapes(fn.batch_shape, (self.samples, 1, 1))) if self.samples > 1 else fn
        msg["value"], msg["done"] = self._draw(wide, fn.batch_shape), True

    def _draw(self, wide: Any, batch_shape: torch.Size) -> Tensor:
        if hasattr(wide, "push"):  # a flow: noise is shared in its base
            return wide.push(self._draw(wide.base, batch_shape))
        base = wide.base_dist if isinstance(wide, Independent) else wide
        if self.common_random_numbers and isinstance(base, Normal) and batch_shape[-2:-1] == (self.values,):
            loc = base.loc.select(-2 - wide.event_dim, 0)
            noise = draw(dist.Normal(torch.zeros_like(loc), 1.0).to_event(wide.event_dim))
            return base.loc + base.scale * noise.unsqueeze(-2 - wide.event_dim)
        return draw(wide)


class ReplayMessenger(poutine.replay_messenger.ReplayMessenger):
    """Gives a model the guide's values, and all values to a site that it marks for enumeration and the guide leaves out.

    Raises:
        ScopeError: A site cannot be enumerated here, or there is a second one in the two programs.
    """

    def __enter__(self) -> Any:
        guide_trace: Any = self.trace
        self.label = next((name for name, site in guide_trace.nodes.items() if _has_values(site)), None)
        return super().__enter__()

    def _pyro_sample(self, msg: Any) -> None:
        super()._pyro_sample(msg)
        if msg["done"] or msg["is_observed"] or site_is_subsample(msg):
            return
        if is_enumerated(msg):
            check_enumerable(msg, self.label)
            EnumerateMessenger()._enumerate(msg)
            self.label = msg["name"]
            return
        check_sampled(msg)
        if msg["infer"].get("enumerate") == "parallel":
            raise ScopeError(
                f"model site {msg['name']!r} is marked for enumeration, but its distribution has no finite number of "
                "values; sample it in the guide"
            )


def _has_values(site: Any) -> bool:
    return site["type"] == "sample" and "log_weights" in site["infer"]


def check_enumerable(site: Any, other: str | None) -> None:
    """Raise ScopeError unless a site may be the one that is enumerated; `other` is one that is already."""
    name = site["name"]
    if other is not None:
        raise ScopeError(
            f"sites {other!r} and {name!r} are both enumerated, and one may be, of model and guide together"
        )
    if site["infer"].get("num_samples") is not None:
        raise ScopeError(f'site {name!r} has infer={{"num_samples": ...}}; give num_particles in its place')
    plates = data_plates(site)
    if not plates:
        raise ScopeError(f"site {name!r} is enumerated outside every plate; put it into pyro.plate('data', len(x))")
    if any(plate.dim != -1 for plate in plates):
        outer = next(plate.name for plate in plates if plate.dim != -1)
        raise ScopeError(f"site {name!r} stands in plate {outer!r}, not at dim -1; use .to_event() in its place")


def check_sampled(site: Any) -> None:
    """Raise ScopeError where a latent site is marked for something else than a sample, which it would get."""
    name, how = site["name"], site["infer"].get("enumerate")
    if how == "sequential":
        raise ScopeError(f'site {name!r} is marked "sequential"; mark it infer={{"enumerate": "parallel"}}')
    if site["infer"].get("num_samples") is not None:
        raise ScopeError(f'site {name!r} has infer={{"num_samples": ...}}; give num_particles in its place')
    if how == "parallel" and isinstance(site["fn"], Independent) and site["fn"].base_dist.has_enumerate_support:
        raise ScopeError(
            f"site {name!r} is marked for enumeration, but .to_event() makes one variable of several discrete ones, whose "
            "combinations Pyro does not enumerate; use a OneHotCategorical over the combinations"
        )


def _log_probs(fn: Any) -> Tensor:
    """log-probabilities of all values, `(*batch, K)`."""
    if isinstance(fn, Categorical | OneHotCategorical):
        return fn.logits
    return fn.log_prob(fn.enumerate_support(expand=False)).movedim(0, -1)


def likeliest(log_q: Tensor, top_k: TopK) -> int | None:
    """How many of the likeliest classes to sum over, from log q(y|x) `(B, K)`; None for all."""
    classes = log_q.shape[-1]
    if top_k == "auto":
        most = min(MOST, classes)
        held = log_q.detach().exp().topk(most, -1).values.mean(0).cumsum(-1).tolist()
        top_k = next((k for k in (1, 2, 4, 8) if k < most and held[k - 1] >= MASS), most)
    return None if top_k is None or int(top_k) >= classes - 1 else int(top_k)


def _likeliest_and_one(log_q: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The likeliest classes and one drawn from the rest: indices, and log-probability of being drawn, each `(top_k + 1, B)`."""
    with torch.no_grad():
        best = log_q.topk(top_k, dim=-1).indices
        # The likeliest at -inf, not at probability 0: of a float32 q that is exactly one-hot, no rest would be left.
        log_pi = log_q.clamp_min(torch.finfo(log_q.dtype).min).scatter(-1, best, -torch.inf).log_softmax(-1)
        cdf = log_pi.exp().cumsum(-1)
        u = torch.rand_like(cdf[:, :1]) * cdf[:, -1:]
        drawn = torch.searchsorted(cdf, u, right=True).clamp_max_(log_q.shape[-1] - 1)  # of NaN: the loss is NaN too
        log_drawn = log_pi.gather(-1, drawn)
        # Where a sum's rounding drew a likeliest class after all, its weight is 0.
        log_drawn = log_drawn.masked_fill(log_drawn == -torch.inf, torch.inf)
        correction = nn.functional.pad(log_drawn, (top_k, 0))
    return torch.cat([best, drawn], dim=-1).T, correction.T


def log_mean_exp(f: Tensor) -> Tensor:
    """Logarithm of the mean of exponentials over dimension 0."""
    return f.logsumexp(0) - math.log(len(f))

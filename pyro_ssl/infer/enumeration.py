"""Handlers that give an enumerated site its values, without changes to the program."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Categorical, Independent, Normal, OneHotCategorical

from pyro_ssl.distributions.flows import FlowDistribution
from pyro_ssl.distributions.row_noise import draw
from pyro_ssl.infer.checks.enumeration_marks import check_enumerable, check_sampled
from pyro_ssl.infer.checks.scope_error import ScopeError
from pyro_ssl.infer.sites import Site, is_enumerated, is_per_datum
from pyro_ssl.infer.top_k import TopK, TopKPolicy, likeliest_and_one
from pyro_ssl.nn.tensor_marks import class_weights, mark_one_hot
from pyro_ssl.utils.private_names import ENUMERATE_DIM
from pyro_ssl.utils.process_noise import drawing_what_all_share
from pyro_ssl.utils.process_rows import current_rows


class SharedLatent(Exception):
    """Several samples cannot be drawn at once, since the guide draws a latent that all data share.

    `TraceTopKEnum_ELBO` catches it and runs the programs once for each sample.

    >>> issubclass(SharedLatent, ScopeError)
    False
    """


class EnumerateMessenger(Messenger):
    """Give V values to a guide's enumerated site, and S samples to its other latent sites.

    The values, `(V, B, *event)` or `(K, 1, *event)`, are along batch dimension -2, left of the
    plate of data, and the samples along -3. The enumerated site's `infer` gets

    - `log_weights`, `([S,] V, B)`: log q(y|x), minus the log-probability of drawing the class if it
      was drawn;
    - `log_q`, `([S,] B, K)`: log q(y|x) of all classes;
    - `known`: the number of leading rows whose label is given.

    Arguments:
        top_k: See `TraceTopKEnum_ELBO`.
        common_random_numbers: See `TraceTopKEnum_ELBO`.
        samples: Number of samples S.
        marginal: Average q(y|x) over samples of latents that the guide draws before y.
        labels: Given labels of the first rows, `(L, *event)`, which are not summed over.
        rows: Number of data, to recognise their plate; None if unknown.
        shared_once: Draw a latent that all data share once, whatever S is.

    Raises:
        SharedLatent: S is above 1, all data share a latent, and `shared_once` is False.
        ScopeError: A site cannot be enumerated, or there is a second enumerated one.

    >>> import pyro
    >>> def guide():
    ...     with pyro.plate("data", 5):
    ...         q = dist.OneHotCategorical(logits=torch.zeros(5, 3))
    ...         return pyro.sample("y", q, infer={"enumerate": "parallel"})
    >>> EnumerateMessenger()(guide)().shape, EnumerateMessenger(top_k=1)(guide)().shape
    (torch.Size([3, 1, 3]), torch.Size([2, 5, 3]))
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
        self.policy = TopKPolicy(top_k)
        self.common_random_numbers = common_random_numbers
        self.samples = samples
        self.marginal = marginal
        self.labels = labels
        self.rows = rows
        self.shared_once = shared_once

    def __enter__(self) -> Any:
        self.num_values = 1
        self.label: str | None = None
        return super().__enter__()

    def _pyro_sample(self, msg: Any) -> None:
        if msg["done"] or msg["is_observed"] or site_is_subsample(msg):
            return
        if is_enumerated(msg):
            check_enumerable(msg, self.label)
            self.enumerate(msg)
            return
        check_sampled(msg)
        if not is_per_datum(msg, self.rows):
            self._sample_shared(msg)
            return
        shares_noise = self.num_values > 1 and self.common_random_numbers
        if (self.samples > 1 or shares_noise) and msg["fn"].has_rsample:
            self._sample(msg)

    def _sample_shared(self, msg: Site) -> None:
        """Draw a latent that all data share, the same in every process; Pyro draws it for one.

        Raises:
            SharedLatent: Several samples of it are wanted.
        """
        if self.samples > 1 and not self.shared_once:
            raise SharedLatent
        if current_rows.get() is None:
            return
        with drawing_what_all_share():
            msg["value"] = draw(msg["fn"])
        msg["done"] = True

    def enumerate(self, msg: Site) -> None:
        """Set the values of a site, and the weights that the bound needs."""
        fn = msg["fn"]
        self.label = msg["name"]
        if isinstance(fn, dist.MaskedDistribution):
            raise ValueError(
                f"guide site {msg['name']!r} is enumerated, so its distribution cannot be masked; "
                "mask the site, by poutine.mask"
            )
        log_q, log_mean_q = self._log_q(fn)
        support = fn.enumerate_support(expand=False).reshape(-1, *fn.event_shape)
        rows = fn.batch_shape[-1]
        known = self._number_of_labels(msg)
        if known == rows and self.labels is not None:  # nothing is left to sum over
            log_weights = log_q.new_zeros(*log_q.shape[:-2], 1, known)
            self._give(msg, self.labels.unsqueeze(0), log_weights, log_q, known)
            return
        index, log_weights = self._choose(log_q, log_mean_q, known)
        value = support[index]
        if self.labels is not None:
            value, log_weights = self._with_labels(value, log_weights, log_q.shape[-2], known)
        elif isinstance(fn, OneHotCategorical):
            mark_one_hot(value, index)
        self._give(msg, value, log_weights, log_q, known)

    def _log_q(self, fn: Any) -> tuple[Tensor, Tensor]:
        """log q(y|x, ...), `([S,] B, K)`, and the logarithm of its mean over samples, `(B, K)`.

        With `marginal`, the mean stands in both places.
        """
        log_q = _log_probs(fn)
        if log_q.dim() > 2:  # q(y|x) depends on samples: (S, 1, B, K)
            log_q = log_q.squeeze(-3)
        if log_q.dim() == 2:
            return log_q, log_q
        log_mean_q = log_mean_exp(log_q)
        if self.marginal:
            return log_mean_q, log_mean_q
        return log_q, log_mean_q

    def _number_of_labels(self, msg: Site) -> int:
        if self.labels is None:
            return 0
        fn = msg["fn"]
        rows = fn.batch_shape[-1]
        if self.labels.shape[1:] != fn.event_shape or len(self.labels) > rows:
            raise ValueError(
                f"labels: site {msg['name']!r} holds at most {rows} values of shape "
                f"{tuple(fn.event_shape)}, got {tuple(self.labels.shape)}"
            )
        return len(self.labels)

    def _choose(self, log_q: Tensor, log_mean_q: Tensor, known: int) -> tuple[Tensor, Tensor]:
        """Indices of the classes, `(V, B)` or `(K, 1)`, and their log-weights, `([S,] V, B)`."""
        by_class = log_q.movedim(-1, -2)
        k = self.policy.number(log_mean_q[known:])
        if k is None:
            return torch.arange(log_q.shape[-1], device=log_q.device).unsqueeze(-1), by_class
        index, correction = likeliest_and_one(log_mean_q, k)
        wide = index.expand(*log_q.shape[:-2], *index.shape)
        return index, by_class.gather(-2, wide) - correction

    def _with_labels(
        self, value: Tensor, log_weights: Tensor, rows: int, known: int
    ) -> tuple[Tensor, Tensor]:
        """Use V equally weighted copies of each given label.

        The rows whose label is given come first.
        """
        assert self.labels is not None
        copies = len(value)
        given = self.labels.expand(copies, *self.labels.shape)
        others = value.expand(copies, rows, *self.labels.shape[1:])[:, known:]
        equal = torch.full_like(log_weights[..., :known], -math.log(copies))
        values = torch.cat([given, others], 1)
        return values, torch.cat([equal, log_weights[..., known:]], -1)

    def _give(
        self, msg: Site, value: Tensor, log_weights: Tensor, log_q: Tensor, known: int
    ) -> None:
        msg["infer"] = {
            **msg["infer"],
            "log_weights": log_weights,
            "log_q": log_q,
            "known": known,
            ENUMERATE_DIM: -2,
        }
        class_weights.set(log_weights)
        if msg["infer"].get("expand"):  # the program needs one value for each datum
            value = value.expand(len(value), log_q.shape[-2], *msg["fn"].event_shape)
        msg["value"] = value
        msg["done"] = True
        self.num_values = len(value)

    def _sample(self, msg: Site) -> None:
        """Draw S samples, with common random numbers if the option is set."""
        fn = msg["fn"]
        wide = fn
        if self.samples > 1:
            wide = fn.expand(torch.broadcast_shapes(fn.batch_shape, (self.samples, 1, 1)))
        msg["value"] = self._draw(wide, fn.batch_shape)
        msg["done"] = True

    def _draw(self, wide: Any, batch_shape: torch.Size) -> Tensor:
        """Sample a distribution; with common random numbers, all classes share one noise.

        Only a Gaussian with its own parameters for each class, along dimension -2, shares it.
        """
        if isinstance(wide, FlowDistribution):  # the noise is that of its base
            return wide.transform_base(self._draw(wide.base, batch_shape))
        base = wide.base_dist if isinstance(wide, Independent) else wide
        differs_by_class = batch_shape[-2:-1] == (self.num_values,)
        if not (self.common_random_numbers and isinstance(base, Normal) and differs_by_class):
            return draw(wide)
        class_dim = -2 - wide.event_dim
        # noise of the shape of one class, which all classes use
        loc = base.loc.select(class_dim, 0)
        standard = dist.Normal(torch.zeros_like(loc), loc.new_ones(()))
        noise = draw(standard.to_event(wide.event_dim))
        return base.loc + base.scale * noise.unsqueeze(class_dim)


class ReplayMessenger(poutine.replay_messenger.ReplayMessenger):
    """Give a model the guide's values, and enumerate a marked site that the guide lacks.

    Raises:
        ScopeError: A site cannot be enumerated, or the two programs have two enumerated ones.

    >>> import pyro
    >>> def model():
    ...     with pyro.plate("data", 5):
    ...         p = dist.OneHotCategorical(logits=torch.zeros(5, 3))
    ...         return pyro.sample("y", p, infer={"enumerate": "parallel"})
    >>> ReplayMessenger(poutine.Trace())(model)().shape
    torch.Size([3, 1, 3])
    """

    def __enter__(self) -> Any:
        guide_trace: Any = self.trace
        self.label = next((n for n, site in guide_trace.nodes.items() if _has_values(site)), None)
        return super().__enter__()

    def _pyro_sample(self, msg: Any) -> None:
        super()._pyro_sample(msg)
        if msg["done"] or msg["is_observed"] or site_is_subsample(msg):
            return
        if is_enumerated(msg):
            check_enumerable(msg, self.label)
            EnumerateMessenger().enumerate(msg)
            self.label = msg["name"]
            return
        check_sampled(msg)
        if msg["infer"].get("enumerate") == "parallel":
            raise ScopeError(
                f"model site {msg['name']!r} is marked for enumeration, but its distribution has "
                "no finite number of values; sample it in the guide"
            )


def _has_values(site: Site) -> bool:
    return site["type"] == "sample" and "log_weights" in site["infer"]


def _log_probs(fn: Any) -> Tensor:
    """log-probabilities of all values, `(*batch, K)`."""
    if isinstance(fn, Categorical | OneHotCategorical):
        return fn.logits
    log_probs: Tensor = fn.log_prob(fn.enumerate_support(expand=False))
    return log_probs.movedim(0, -1)


def log_mean_exp(f: Tensor) -> Tensor:
    """Logarithm of the mean of exponentials over dimension 0.

    >>> log_mean_exp(torch.tensor([1.0, 3.0]).log()).exp()
    tensor(2.)
    """
    return f.logsumexp(0) - math.log(len(f))

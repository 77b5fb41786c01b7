"""BALD and BatchBALD: acquisition by mutual information between labels and draws of p(y|x)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.special import entr

from pyro_ssl.active.pool import check_count
from pyro_ssl.active.top_n import top_n
from pyro_ssl.evaluation.metrics import as_probabilities

BLOCK = 2**20
"""Labelings times classes times rows that are evaluated at once."""


def bald(p: Any) -> Tensor:
    r"""Mutual information between the label and the draw, `(N,)` nats, from 0 to log K.

    .. math:: \mathcal H[\bar p] - \frac1S \sum_s \mathcal H[p_s]

    >>> p = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]])
    >>> [round(score, 3) for score in bald(p).tolist()]
    [0.693, 0.0]

    Arguments:
        p: Draws of p(y|x), `(S, N, K)`: for draws of weights or a latent, or for members of an
            ensemble.

    Raises:
        ValueError: p does not hold probabilities of two or more classes.

    References:
        Paper 002, eq. 2.4 and 3.13; Houlsby et al. 2011.
    """
    p = as_probabilities(p, "p", "(S, N, K)").double()
    entropy_of_mean = entr(p.mean(0)).sum(-1)
    mean_entropy = entr(p).sum(-1).mean(0)
    information: Tensor = entropy_of_mean - mean_entropy
    return information.masked_fill(information <= 1e-12, 0)  # rounding errors


def batch_bald(
    p: Any, n: int, *, configurations: int = 10_000, seed: int = 0
) -> tuple[Tensor, Tensor]:
    r"""Choose n data greedily by the joint information of their labels.

    .. math:: i_m = \arg\max_i\; I(y_i; s \mid y_{i_1}, \dots, y_{i_{m-1}})
              = \sum_c \pi_c \Big( \mathcal H\Big[\sum_s w_{c,s}\, p_{s,i}\Big]
              - \sum_s w_{c,s} \mathcal H[p_{s,i}] \Big)

    c is a labeling of the data chosen so far, :math:`\pi_c` its probability and
    :math:`w_{c,s} = p(s \mid c)`. All labelings are summed while there are at most `configurations`
    of them; beyond that, labels of further data are sampled, one for each labeling. The gains add
    up to BatchBALD, I(y_{i_1}, .., y_{i_n}; s). Among equal gains, for example once the labels
    determine the draw, the datum with the highest BALD goes first; the seed decides between the
    rest.

    >>> p = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]])
    >>> indices, gains = batch_bald(p, 2)
    >>> indices.tolist()
    [0, 1]

    Arguments:
        p: Draws of p(y|x), `(S, N, K)`; a draw is one set of weights, or one member, for all data.
        n: Number of data.
        configurations: Largest number of labelings, the next label included, that are summed.
        seed: Seed of ties and of sampled labels.

    Returns:
        Indices in the order of choice, `(n,)`, and the gain of each, `(n,)` nats.

    Raises:
        ValueError: n is not in 1 .. N; configurations is below K; p does not hold probabilities.

    References:
        Kirsch et al. 2019.
    """
    p = as_probabilities(p, "p", "(S, N, K)").double()
    draws, size, classes = p.shape
    check_count(n, size)
    if configurations < classes:
        raise ValueError(
            f"configurations should be at least {classes}, the number of classes; "
            f"got {configurations}"
        )
    generator = torch.Generator(p.device).manual_seed(seed)
    entropies = entr(p).sum(-1)
    alone = bald(p)
    weight = p.new_ones(1)
    posterior = p.new_full((1, draws), 1 / draws)
    chosen: list[int] = []
    gains: list[Tensor] = []
    for _ in range(n):
        gain = _entropy_given_labels(p, weight, posterior) - (weight @ posterior) @ entropies
        gain[chosen] = -torch.inf
        is_best = gain > gain.max() - 1e-9
        best = int(top_n(alone.where(is_best, -torch.inf), 1, seed))
        chosen.append(best)
        gains.append(gain[best])
        weight, posterior = _condition_on_label(
            weight, posterior, p[:, best], configurations // classes, generator
        )
    return torch.tensor(chosen), torch.stack(gains).clamp_min(0)


def _entropy_given_labels(p: Tensor, weight: Tensor, posterior: Tensor) -> Tensor:
    """Expected entropy of each datum's prediction given the labels so far, `(N,)`."""
    classes = p.shape[-1]
    rows = max(1, BLOCK // (len(weight) * classes))
    blocks = []
    for block in torch.split(p, rows, 1):
        mixtures = torch.einsum("cs,snk->cnk", posterior, block)
        blocks.append(weight @ entr(mixtures).sum(-1))
    return torch.cat(blocks)


def _condition_on_label(
    weight: Tensor, posterior: Tensor, p: Tensor, limit: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Extend labelings by the label of one more datum.

    Arguments:
        weight: Probabilities of the labelings, `(C,)`.
        posterior: p(s|c), `(C, S)`.
        p: p(y|x) of the datum, `(S, K)`.
        limit: Largest number of labelings; with more, one label is sampled for each labeling.
        generator: Source of the samples.
    """
    joint = posterior[:, None] * p.T  # (C, K, S)
    label_probs = joint.sum(-1)
    if label_probs.numel() <= limit:
        weight = (weight[:, None] * label_probs).flatten()
        joint = joint.flatten(0, 1)
        possible = weight > 0
        return weight[possible], _normalised(joint[possible])
    is_sampled = len(weight) == limit and bool((weight == weight[0]).all())
    if not is_sampled:  # from now on all labelings have the same weight
        index = weight.multinomial(limit, True, generator=generator)
        weight = weight.new_full((limit,), 1 / limit)
        joint = joint[index]
        label_probs = label_probs[index]
    label = label_probs.multinomial(1, generator=generator)
    joint = joint.take_along_dim(label[..., None], 1).squeeze(1)
    return weight, _normalised(joint)


def _normalised(joint: Tensor) -> Tensor:
    return joint / joint.sum(-1, keepdim=True)

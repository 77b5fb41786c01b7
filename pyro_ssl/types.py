"""Protocols: the methods and attributes that a model or a guide may have, and what uses each.

Every model and guide is an `nn.Module` with `forward(x, y=None)`. A guide that predicts also has
`classify(x)`. Everything else is optional: write a method only if you need the feature in its row.
No class has to inherit from a Protocol, since `isinstance` only checks that the attributes exist:

>>> import torch
>>> from torch import nn
>>> from pyro_ssl import MLP, OneHotCategorical
>>> class MyGuide(nn.Module):
...     def __init__(self):
...         super().__init__()
...         self.q_y = OneHotCategorical(MLP(2, 3))
...     def forward(self, x, y=None): ...
...     def classify(self, x): ...
>>> guide = MyGuide()
>>> isinstance(guide, Guide), isinstance(guide, CodeClassifier), isinstance(guide, Encoder)
(True, False, False)

===========================  ======  =============================================================
Protocol                     of a    used for
===========================  ======  =============================================================
`Program`                    both    training
`Guide`                      guide   prediction, terms of the loss, evaluation, active learning
`Encoder`                    guide   Gibbs sampling, `Adversary`
`CodeGuide`                  guide   features of x in `evaluation.ood`
`EmbeddingGuide`             guide   the arrow from z to y in `graphical_model`
`CodeClassifier`             guide   log p(z) and the energy in `evaluation.ood`
`AveragingGuide`             guide   single draws of p(y|x) in active learning
`OneDrawGuide`               guide   faster terms of the loss
`Predictor`                  model   Gibbs sampling
`GenerativeModel`            model   log p(x) in `evaluation.ood`
`WrappedProgram`             both    access to the program inside a wrapper
`ConditionedOnWeights`       model   prediction with random weights
`RandomWeightsModel`         model   `weight_kl`
`WeightSampler`              guide   prediction with random weights
`RandomWeightsGuide`         guide   `weight_kl`
`WeightSlots`               both    active learning with random weights
===========================  ======  =============================================================

In shapes, B is the number of examples, K of classes, P of random weights and S of draws; Z is the
size of a latent.
"""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Protocol, runtime_checkable

from pyro.distributions import TorchDistribution
from torch import Tensor, nn


class _CheckedByHasattr(type(Protocol)):  # type: ignore[misc]
    """Metaclass of the Protocols below: an instance is any object that has all their attributes.

    `runtime_checkable` alone is not enough. From Python 3.12 on, it does not find submodules and
    parameters, which `nn.Module` keeps outside `__dict__`: a model with a submodule `p_x` would not
    be a `GenerativeModel`.
    """

    def __instancecheck__(cls, program: object) -> bool:
        return all(hasattr(program, name) for name in _members(cls))


@cache
def _members(protocol: type) -> set[str]:
    """Names of the methods and attributes that a Protocol and its bases declare."""
    names: set[str] = set()
    for base in protocol.__mro__:
        names |= vars(base).keys() | inspect.get_annotations(base).keys()
    return {name for name in names if not name.startswith("_")}


# --- every pair -----------------------------------------------------------------------------------


@runtime_checkable
class Program(Protocol, metaclass=_CheckedByHasattr):
    """A model or a guide: `pyro.sample` statements over data, inside one `pyro.plate`."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        """Sample every factor, given data `(B, *event)` and labels `(B, K)`, or None."""


@runtime_checkable
class Guide(Program, Protocol, metaclass=_CheckedByHasattr):
    """A guide that predicts.

    Prediction, the terms of the loss, evaluation and active learning call `classify`. Without it,
    `Objective.classify` raises ValueError.
    """

    def classify(self, x: Tensor) -> TorchDistribution:
        """q(y|x), over one-hot `(B, K)` or real `(B, D)`: the prediction of the method."""


# --- guides with a latent code --------------------------------------------------------------------


@runtime_checkable
class Encoder(Protocol, metaclass=_CheckedByHasattr):
    """A guide that encodes x given a label.

    `GibbsPredictor` and the term `Adversary` need it; without it, Gibbs sampling raises ValueError.
    """

    def encode(self, x: Tensor, y: Tensor) -> TorchDistribution:
        """q(z|x,y), over `(*, B, Z)`."""


@runtime_checkable
class CodeGuide(Protocol, metaclass=_CheckedByHasattr):
    """A guide that first encodes x and then classifies the code.

    `evaluation.ood.features` returns the mean of the code. Without it, the features are the input
    of the last layer of q(y|x), if there is one.
    """

    def code(self, x: Tensor) -> TorchDistribution:
        """q(z|x), over `(B, Z)`."""


@runtime_checkable
class EmbeddingGuide(Protocol, metaclass=_CheckedByHasattr):
    """A guide whose `classify` sees x only through the mean of its latent.

    `graphical_model` draws the arrow of its classifier from the latent. Without it, the arrow of a
    classifier that is no site of the programs comes from x.
    """

    def embed(self, x: Tensor) -> Tensor:
        """The mean of q(z|x), `(B, Z)`."""


@runtime_checkable
class CodeClassifier(Protocol, metaclass=_CheckedByHasattr):
    """A guide that classifies its code by a module `p_y`.

    If `p_y` is a `Bayes`, `evaluation.ood` scores log p(z). Without it, that score is left out, and
    the energy is computed from the output of the last layer.
    """

    p_y: nn.Module
    """p(y|z): maps `(*, B, Z)` to a distribution over one-hot `(*, B, K)`."""


@runtime_checkable
class AveragingGuide(Protocol, metaclass=_CheckedByHasattr):
    """A guide whose `classify` averages over `draws` samples of a latent.

    Acquisition functions compare predictions from single samples, so they temporarily set `draws`
    to 1. Without this attribute, the predictions of an averaging guide never differ, so acquisition
    by disagreement (BALD) cannot work.
    """

    draws: int
    """Number of samples in evaluation."""


@runtime_checkable
class OneDrawGuide(Protocol, metaclass=_CheckedByHasattr):
    """A guide that declares whether `classify` and the site `y` have the same distribution.

    If so, the terms of the loss take q(y|x) from the trace of the bound. Without the attribute they
    do so only if y is the first site; otherwise they call `classify` once more, which is slower but
    always correct.
    """

    classifies_by_one_draw: bool
    """True if, in training, `classify(x)` is the distribution of the site `y`."""


# --- models ---------------------------------------------------------------------------------------


@runtime_checkable
class Predictor(Protocol, metaclass=_CheckedByHasattr):
    """A model that predicts y from x and z.

    `GibbsPredictor` needs it and raises ValueError without it. All other predictions come from the
    guide's `classify`.
    """

    def predict(self, x: Tensor, z: Tensor) -> TorchDistribution:
        """p(y|x,z), over one-hot `(*, B, K)` or real `(*, B, D)`."""


@runtime_checkable
class GenerativeModel(Protocol, metaclass=_CheckedByHasattr):
    """A model that generates x by a conditional `p_x`.

    `evaluation.ood` scores the bound on log p(x), and leaves that score out for other models.
    """

    p_x: nn.Module
    """Maps latents and labels to a distribution over data."""


# --- wrappers and random weights ------------------------------------------------------------------


@runtime_checkable
class WrappedProgram(Protocol, metaclass=_CheckedByHasattr):
    """A program around another one, such as `models.Bayesian` and `guides.MeanField`.

    Gibbs sampling and acquisition functions check the inner program for the other protocols.
    """

    program: Any
    """The model or guide inside."""


@runtime_checkable
class ConditionedOnWeights(Protocol, metaclass=_CheckedByHasattr):
    """A model that runs with given weights.

    Gibbs sampling gives it draws of the weights, and `Objective.programs` their posterior mean.
    Needed by a model whose guide is a `WeightSampler`.
    """

    def given(self, w: Tensor) -> AbstractContextManager[None]:
        """Inside the block, the networks have the weights w, `(P,)`, or `(S, 1, P)` for S draws."""


@runtime_checkable
class RandomWeightsModel(Protocol, metaclass=_CheckedByHasattr):
    """A model with a prior over the weights of its networks.

    `weight_kl` requires it when the guide is a `RandomWeightsGuide`.
    """

    def p_w(self) -> TorchDistribution:
        """p(W), over `(P,)`."""


@runtime_checkable
class WeightSampler(Protocol, metaclass=_CheckedByHasattr):
    """A guide that draws random weights for its model.

    Gibbs sampling and acquisition functions use it to draw weights. Without it, the weights are
    treated as fixed.
    """

    def draw_weights(self, draws: int) -> Tensor:
        """Independent draws of W, `(S, 1, P)`."""


@runtime_checkable
class RandomWeightsGuide(Protocol, metaclass=_CheckedByHasattr):
    """A guide with a distribution over the model's random weights.

    `weight_kl` needs it, and returns 0 for other guides.
    """

    def q_w(self) -> TorchDistribution:
        """q(W), over `(P,)`."""


@runtime_checkable
class WeightSlots(Protocol, metaclass=_CheckedByHasattr):
    """A program that knows which parameters of its networks are random weights.

    Acquisition functions use it to tell whether predictions depend on random weights. Without it,
    they assume so only for prediction by Gibbs sampling.
    """

    slots: Any
    """A `RandomWeights`, or None for a guide that shares no network with its model."""


def unwrapped(program: Any) -> Any:
    """The program inside a `WrappedProgram`; any other program unchanged.

    >>> from pyro_ssl import zoo
    >>> sslapd = zoo.build("sslapd", (4,), 3, hidden=(8,), z_dim=2)
    >>> type(sslapd.model).__name__, type(unwrapped(sslapd.model)).__name__
    ('Bayesian', 'SSLPE')
    """
    return program.program if isinstance(program, WrappedProgram) else program


def classifies_by_one_draw(guide: object) -> bool:
    """True if a guide is a `OneDrawGuide` with `classifies_by_one_draw = True`.

    >>> from pyro_ssl import zoo
    >>> classifies_by_one_draw(zoo.build("adgm", (4,), 3, hidden=(8,), z_dim=2).guide)
    True
    """
    return isinstance(guide, OneDrawGuide) and guide.classifies_by_one_draw

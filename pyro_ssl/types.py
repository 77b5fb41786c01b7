"""What a model and a guide may offer: Protocols, which `isinstance` tests at run time.

Every model and guide is an `nn.Module` with `forward(x, y=None)`. What else it offers decides
what can be asked of it: prediction by Gibbs sampling, for example, needs a `Predictor` and an
`Encoder`.

>>> from torch import nn
>>> class Encoded(nn.Module):
...     def encode(self, x, y): ...
>>> isinstance(Encoded(), Encoder), isinstance(Encoded(), CodeGuide)
(True, False)

In shapes, B is the number of data, K of classes, Z of dimensions of a latent, P of random weights,
S of draws.
"""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Protocol, runtime_checkable

from pyro.distributions import TorchDistribution
from torch import Tensor, nn


class _Offer(type(Protocol)):  # type: ignore[misc]
    """The metaclass of Protocols, with `isinstance` by `hasattr`.

    From Python 3.12 on, `isinstance` would overlook submodules and parameters of a module.
    """

    def __instancecheck__(cls, program: object) -> bool:
        return all(hasattr(program, name) for name in _members(cls))


@cache
def _members(protocol: type) -> set[str]:
    names: set[str] = set()
    for base in protocol.__mro__:
        names |= vars(base).keys() | inspect.get_annotations(base).keys()
    return {name for name in names if not name.startswith("_")}


@runtime_checkable
class Program(Protocol, metaclass=_Offer):
    """A model or a guide: `pyro.sample` statements over data, inside one `pyro.plate`."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        """Sample every factor, given data `(B, *event)` and labels `(B, K)`, or None."""


@runtime_checkable
class Guide(Program, Protocol, metaclass=_Offer):
    """A guide that predicts: used by terms, prediction, evaluation and active learning."""

    def classify(self, x: Tensor) -> TorchDistribution:
        """q(y|x), over one-hot `(B, K)` or real `(B, D)`: what the method predicts with."""


@runtime_checkable
class Encoder(Protocol, metaclass=_Offer):
    """A guide with a code that depends on the label: used by Gibbs sampling and by `Adversary`."""

    def encode(self, x: Tensor, y: Tensor) -> TorchDistribution:
        """q(z|x,y), over `(*, B, Z)`."""


@runtime_checkable
class CodeGuide(Protocol, metaclass=_Offer):
    """A guide that classifies a code of x alone: used by `evaluation.ood.features`."""

    def code(self, x: Tensor) -> TorchDistribution:
        """q(z|x), over `(B, Z)`."""


@runtime_checkable
class CodeClassifier(Protocol, metaclass=_Offer):
    """A guide that classifies its code by `p_y`.

    If that is a `Bayes`, `evaluation.ood` scores log p(z) and the energy.
    """

    p_y: nn.Module
    """p(y|z): maps `(*, B, Z)` to a distribution over one-hot `(*, B, K)`."""


@runtime_checkable
class AveragingGuide(Protocol, metaclass=_Offer):
    """A guide whose `classify` averages over samples of a latent.

    Acquisition functions need single samples: `draws` is temporarily set to 1.
    """

    draws: int
    """Number of samples, in evaluation."""


@runtime_checkable
class OneDrawGuide(Protocol, metaclass=_Offer):
    """A guide that says whether, in training, `classify(x)` is the distribution of its site `y`.

    If so, the terms of the loss take q(y|x) from the guide's trace and do not evaluate it twice.
    """

    classifies_by_one_draw: bool


@runtime_checkable
class Predictor(Protocol, metaclass=_Offer):
    """A model that predicts: used by Gibbs sampling."""

    def predict(self, x: Tensor, z: Tensor) -> TorchDistribution:
        """p(y|x,z), over one-hot `(*, B, K)` or real `(*, B, D)`."""


@runtime_checkable
class GenerativeModel(Protocol, metaclass=_Offer):
    """A model that generates x; `evaluation.ood` scores its bound on log p(x)."""

    p_x: nn.Module
    """Maps latents and labels to a distribution over data."""


@runtime_checkable
class WrappedProgram(Protocol, metaclass=_Offer):
    """A program around another one, such as `models.Bayesian` and `guides.MeanField`."""

    program: Any
    """The model or guide inside."""


@runtime_checkable
class ConditionedOnWeights(Protocol, metaclass=_Offer):
    """A model that runs with given weights: used by Gibbs sampling and by `Objective.programs`."""

    def given(self, w: Tensor) -> AbstractContextManager[None]:
        """Inside the block, the networks have the weights w, `(P,)`, or `(S, 1, P)` for S draws."""


@runtime_checkable
class RandomWeightsModel(ConditionedOnWeights, Protocol, metaclass=_Offer):
    """A model with a prior over the weights of its networks: used by `weight_kl`."""

    def p_w(self) -> TorchDistribution:
        """p(W), over `(P,)`."""


@runtime_checkable
class WeightSampler(Protocol, metaclass=_Offer):
    """A guide that draws random weights for its model: used by Gibbs sampling and acquisition."""

    def draw_weights(self, draws: int) -> Tensor:
        """Independent draws of W, `(S, 1, P)`."""


@runtime_checkable
class RandomWeightsGuide(WeightSampler, Protocol, metaclass=_Offer):
    """A guide with a distribution over the model's random weights: used by `weight_kl`."""

    def q_w(self) -> TorchDistribution:
        """q(W), over `(P,)`."""


@runtime_checkable
class WeightPlaces(Protocol, metaclass=_Offer):
    """A program that knows where its random weights belong.

    Acquisition functions look there whether the random weights take part in prediction.
    """

    slots: Any
    """A `RandomWeights`, or None for a guide that shares no network with its model."""


def unwrapped(program: Any) -> Any:
    """The program inside a `WrappedProgram`; any other program as it is."""
    return program.program if isinstance(program, WrappedProgram) else program


def classifies_by_one_draw(guide: object) -> bool:
    """Whether a guide is a `OneDrawGuide` with `classifies_by_one_draw = True`."""
    return isinstance(guide, OneDrawGuide) and guide.classifies_by_one_draw

"""Consistency: the cross-entropy of what is certain without noise."""

import pytest
import torch
from programs.zoo_pairs import D, K, data

from pyro_ssl import (
    Batch,
    zoo,
)
from pyro_ssl.objectives.loss_context import LossContext
from pyro_ssl.objectives.terms import Consistency
from pyro_ssl.prediction.predict import predict_proba

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("method", ["m2", "adgm", "latent_classifier"])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 1.0])
def test_consistency_is_the_cross_entropy_of_what_is_certain_without_noise(method, threshold):
    o, x = zoo.build(method, (D,), K, noise=0.7, dropout=0.4, hidden=(5,)).double(), data()[0]
    step = LossContext(Batch(x_unlabeled=x), o.guide)
    modes = {name: part.training for name, part in o.named_modules()}
    torch.manual_seed(1)
    ours = Consistency(threshold=threshold).formula(step)
    assert modes == {name: part.training for name, part in o.named_modules()} and o.training
    sure, q = step.q_without_noise, step.q_unlabeled.mean
    assert not torch.allclose(sure, q) and not sure.requires_grad
    if method == "m2":
        assert torch.equal(sure, predict_proba(o, x))
    theirs = sum(-q[i, row.argmax()].log() for i, row in enumerate(sure) if row.max() >= threshold)
    assert torch.allclose(ours, torch.as_tensor(theirs, dtype=ours.dtype) / len(x), rtol=1e-12)
    if threshold < 1:
        mine, hand = (
            torch.autograd.grad(v, list(o.guide.parameters()), retain_graph=True, allow_unused=True)
            for v in (ours, theirs / len(x))
        )
        assert all(
            (a is None) == (b is None) and (a is None or torch.allclose(a, b, rtol=1e-10))
            for a, b in zip(mine, hand, strict=True)
        )


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.1, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold"):
        Consistency(threshold=threshold)

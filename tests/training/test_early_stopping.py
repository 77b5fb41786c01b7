"""Early stopping: the best weights are kept, and scores that are no numbers are refused."""

import math

import pytest
import torch
from programs.training_runs import run, same, weights

from pyro_ssl import (
    EarlyStopping,
    Objective,
)


def test_early_stopping_keeps_the_best():
    scores, kept = iter([1.0, 3.0, 2.0, 1.0, 9.0]), []

    def score(objective: Objective) -> float:
        assert not objective.training and not torch.is_grad_enabled()
        kept.append(weights(objective))
        return next(scores)

    o, history = run(epochs=10, early_stopping=EarlyStopping(score, patience=2))
    assert history["score"] == [1.0, 3.0, 2.0, 1.0]
    assert same(weights(o), kept[1])


@pytest.mark.parametrize("score", [math.nan, math.inf, "high", torch.ones(2), None])
def test_a_score_that_is_no_number_is_refused(score):
    """NaN could not be told from a score that does not rise."""
    scores = iter([1.0, 2.0, score])
    with pytest.raises(
        ValueError, match="early_stopping: score should give a number, got .* in epoch 3"
    ):
        run(epochs=10, early_stopping=EarlyStopping(lambda o: next(scores), patience=5))


def test_a_score_of_minus_infinity_is_the_worst():
    scores = iter([-math.inf, 1.0, -math.inf, -math.inf])
    _, history = run(epochs=10, early_stopping=EarlyStopping(lambda o: next(scores), patience=2))
    assert history["score"] == [-math.inf, 1.0, -math.inf, -math.inf]

"""Batches: each step has labeled and unlabeled data, and an epoch is one pass."""

import pytest
import torch
from programs.training_runs import X, Y

from pyro_ssl.training.batches import Batches
from pyro_ssl.utils.arguments import one_hot


def test_every_step_sees_labeled_and_unlabeled_and_a_pass_sees_each_datum_once():
    batches = Batches(
        X, one_hot(Y.clamp_min(0), 3), Y >= 0, batch_size=10, labeled_batch_size=8, seed=0
    )
    assert batches.steps_per_epoch == 7
    steps = [batches(i) for i in range(14)]
    assert {(len(b.x), len(b.x_unlabeled)) for b in steps} == {(8, 10)}
    first, second = (torch.cat([b.x_unlabeled for b in part]) for part in (steps[:7], steps[7:]))
    assert torch.equal(*(t.sort(0).values for t in (first, X[Y < 0])))
    assert not torch.equal(first, second)
    again = Batches(
        X, one_hot(Y.clamp_min(0), 3), Y >= 0, batch_size=10, labeled_batch_size=8, seed=0
    )(9)
    assert torch.equal(again.x, steps[9].x) and torch.equal(again.x_unlabeled, steps[9].x_unlabeled)
    rows = (X[:, None] == steps[3].x).all(-1).float().argmax(0)
    assert torch.equal(steps[3].y.argmax(-1), Y[rows])


@pytest.mark.parametrize(
    ("labeled", "unlabeled", "steps"),
    [(0, 90, 9), (20, 70, 7), (60, 30, 7), (89, 1, 11), (90, 0, 9), (3, 2, 1)],
)
def test_an_epoch_is_a_pass_over_what_takes_more_steps(labeled, unlabeled, steps):
    known = torch.arange(labeled + unlabeled) < labeled
    batches = Batches(
        X[: len(known)], torch.eye(3)[torch.zeros(len(known)).long()], known, 10, 8, seed=0
    )
    assert batches.steps_per_epoch == steps
    seen = torch.cat(
        [b.x if labeled > unlabeled else b.x_unlabeled for b in map(batches, range(steps))]
    )
    assert len(seen.unique(dim=0)) >= 0.9 * max(labeled, unlabeled)

"""Checkpoints with a right checksum and wrong content end as before, or are refused in words."""

import shutil
from pathlib import Path

import pytest
import torch
from programs.forged import DATA_CHANGES, OPTIONS, ROUND, VALUES, X, Y, changed, read, write

from pyro_ssl import (
    EarlyStopping,
    fit,
    zoo,
)
from pyro_ssl.utils.files import CheckpointError

ROUNDS = -(-len(VALUES) // DATA_CHANGES.count("replace"))
"""Rounds in which the replacements take every value."""


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a
    )


class Stopped(Exception):
    pass


def run(directory: Path, callbacks=()) -> tuple[dict, list]:
    """A run that is in the middle of its third epoch when a callback stops it."""
    objective = zoo.build("m2", 4, 2, seed=1, **OPTIONS)
    score = EarlyStopping(lambda o: -o.bound(X).mean().abs().item(), patience=50)
    history = fit(
        objective,
        X,
        Y,
        epochs=4,
        batch_size=10,
        ema=0.9,
        warmup=1,
        checkpoint_every=3,
        early_stopping=score,
        directory=directory,
        resume=True,
        callbacks=callbacks,
    )
    return {k: v.clone() for k, v in objective.state_dict().items()}, history["loss"]


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A run that was stopped, and how it ends."""

    def stop(epoch):
        if epoch.epoch == 3:
            raise Stopped

    directory = tmp_path_factory.mktemp("runs") / "r"
    with pytest.raises(Stopped):
        run(directory, (stop,))
    assert read(directory / "checkpoint")[1]["position"]["step"] == 9  # of 4 in an epoch
    return directory, run(Path(shutil.copytree(directory, directory.with_name("whole"))))


@pytest.mark.slow
def test_a_forged_checkpoint_ends_as_it_did_or_is_refused(broken, tmp_path):
    directory, (weights, losses) = broken
    refused = 0
    for case in range(ROUNDS * ROUND):
        shutil.rmtree(tmp_path / "r", ignore_errors=True)
        shutil.copytree(directory, tmp_path / "r")
        shutil.rmtree(tmp_path / "r" / "checkpoint.previous")
        said = changed(directory / "checkpoint", tmp_path / "r" / "checkpoint", case)
        try:
            found, history = run(tmp_path / "r")
        except CheckpointError as error:
            refused += 1
            assert str(tmp_path) in str(error), said
        except ValueError as error:
            refused += 1
            assert "the run to resume had" in str(error), said
        else:
            assert same(found, weights), said
            assert history == losses, said
    assert refused > ROUNDS * ROUND / 2


def test_a_refused_checkpoint_leaves_the_objective_as_it_was(broken, tmp_path):
    directory = Path(shutil.copytree(broken[0], tmp_path / "r"))
    tensors, data = read(directory / "checkpoint")
    data["position"]["step"] = 8
    write(directory / "checkpoint", tensors, data)
    objective = zoo.build("m2", 4, 2, seed=1, **OPTIONS).eval()
    objective.sizes = (1, 2)
    before, state = {k: v.clone() for k, v in objective.state_dict().items()}, torch.get_rng_state()
    score = EarlyStopping(lambda o: 0.0, patience=50)
    with pytest.raises(CheckpointError, match="the checkpoint was changed, or is not of this run"):
        fit(
            objective,
            X,
            Y,
            epochs=4,
            batch_size=10,
            ema=0.9,
            warmup=1,
            directory=directory,
            resume=True,
            early_stopping=score,
        )
    assert same(objective.state_dict(), before) and torch.equal(torch.get_rng_state(), state)
    assert objective.sizes == (1, 2) and not objective.training

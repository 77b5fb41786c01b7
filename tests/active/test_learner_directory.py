"""Killed loops continue with the same queries; damaged files cost no labels."""

import json
import math
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from programs.active import FEW, POOL, QUICK, Y, learner, rounds

from pyro_ssl.active import committee
from pyro_ssl.active.labelling import store as labels_module
from pyro_ssl.training import checkpoints
from pyro_ssl.training.checkpoints import CheckpointWarning
from pyro_ssl.utils.files import CheckpointError

pytestmark = pytest.mark.slow

# --- killed loops ---------------------------------------------------------------------------------


class Killed(BaseException):
    pass


def kill(patch, when, members):
    """The next round is killed at a moment."""

    def killed(*args, **kwargs):
        raise Killed

    real = {"save": committee.checkpoints.save, "fit": committee.fit}
    calls = []

    def in_last_member(*args, **kwargs):
        calls.append(1)
        return real["fit"](
            *args, **kwargs, **({"callbacks": (killed,)} if len(calls) == members else {})
        )

    def before_saving(path, *args, **kwargs):
        return killed() if path.name == "learner" else real["save"](path, *args, **kwargs)

    def after_saving(path, *args, **kwargs):
        real["save"](path, *args, **kwargs)
        return killed() if path.name == "learner" else None

    if when == "before labels":
        patch.setattr(labels_module.files, "write_text", killed)
    elif when in ("after labels", "in training"):
        patch.setattr(committee, "fit", killed if when == "after labels" else in_last_member)
    else:
        patch.setattr(
            committee.checkpoints,
            "save",
            before_saving if when == "before the model" else after_saving,
        )


MOMENTS = ["before labels", "after labels", "in training", "before the model", "after the model"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Unbroken loops by setting, with their queries, and predictions before the last round."""

    @cache
    def of(warm, members, first):
        directory = tmp_path_factory.mktemp("loops") / "whole"
        made = learner(
            update_training=dict(warm) or None,
            members=members,
            acquisition="entropy",
            directory=directory,
        )
        asked = rounds(made, first + 1, FEW)
        then = made.predict_proba(FEW)
        asked += rounds(made, 1, FEW)
        return made, asked, then

    return of


@pytest.mark.parametrize("when", MOMENTS)
@pytest.mark.parametrize(
    ("members", "first", "warm"),
    [(2, 2, None), (2, 1, {"epochs": 1}), (1, 2, {"epochs": 1}), (1, 0, None)],
)
def test_killed_loop_continues_with_the_same_queries(
    tmp_path, monkeypatch, whole, when, warm, members, first
):
    arguments = {"update_training": warm, "members": members, "acquisition": "entropy"}
    unbroken, wanted, then = whole(tuple((warm or {}).items()), members, first)

    made = learner(**arguments, directory=tmp_path / "killed")
    assert rounds(made, first, FEW) == wanted[:first]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill(patch, when, members)
        rounds(made, 1, FEW)

    again = learner(**arguments, directory=tmp_path / "killed")
    assert len(again.indices) == 4 * (first + (when != "before labels"))
    if when == "before labels":
        assert rounds(again, 1, FEW) == wanted[first : first + 1]
    elif when != "after the model":
        with pytest.raises(
            ValueError, match="has learned"
        ):  # the model of the round before is no answer
            again.predict_proba(FEW)
    again.learn(FEW)
    assert again.predict_proba(FEW).equal(then) and len(again.history) == first + 1
    assert rounds(again, 1, FEW) == wanted[first + 1 :]
    assert again.indices == unbroken.indices and again.labels == unbroken.labels
    assert (
        again.predict_proba(FEW).equal(unbroken.predict_proba(FEW))
        and not (tmp_path / "killed" / committee.IN_TRAINING).exists()
    )


def test_loop_continues_in_another_process(tmp_path):
    code = f"""
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from programs.active import FEW, learner, rounds
print(rounds(learner(directory={str(tmp_path)!r}, update_training={{"epochs": 1}}), 2, FEW))
"""
    here = rounds(learner(directory=tmp_path, update_training={"epochs": 1}), 2, FEW)
    there = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert here + json.loads(there) == rounds(learner(update_training={"epochs": 1}), 4, FEW)


def test_labels_are_kept_when_training_fails(tmp_path):
    made = learner(directory=tmp_path)
    rounds(made, 1)
    rows = made.query(POOL, 4)
    made.committee.training["lr"] = -1.0
    with pytest.raises(ValueError, match="lr should be above 0"):
        made.teach(rows, Y[rows])
    assert len(made.indices) == 8 and len(learner(directory=tmp_path).indices) == 8
    made.committee.training["lr"] = 1e-2
    made.learn(POOL)
    assert made.predict_proba(POOL).shape == (200, 2)
    with pytest.raises(ValueError, match="learned 0 of its 0 labels"):
        learner().predict_proba(POOL)


# --- the model ------------------------------------------------------------------------------------


def test_a_model_of_an_earlier_version_says_so(tmp_path):
    rounds(learner(directory=tmp_path), 1)
    tensors, data = checkpoints.load(tmp_path / "learner")
    earlier = {name: value for name, value in data.items() if name != "version"}
    checkpoints.save(tmp_path / "learner", tensors, earlier, keep_previous=False)
    assert learner(directory=tmp_path).members  # with the same settings it still loads
    with pytest.warns(CheckpointWarning, match="is of an earlier version and has other settings"):
        assert not learner(directory=tmp_path, seed=1).members


@pytest.mark.parametrize(
    "other",
    [
        {"identity": {"sigma": 0.1}},
        {"training": QUICK | {"lr": 3e-2}},
        {"restart_factor": 3.0},
        {"members": 2},
        {"seed": 1},
    ],
)
def test_model_with_other_settings_is_trained_from_scratch(tmp_path, other):
    made = learner(directory=tmp_path)
    rounds(made, 2)
    with pytest.warns(CheckpointWarning, match="other settings; the 8 labels are kept"):
        again = learner(directory=tmp_path, **other)
    assert again.indices == made.indices and not again.members
    again.learn(POOL)
    afresh = learner(**other)
    afresh.teach(made.indices, made.labels, pool=POOL)
    assert again.predict_proba(POOL).equal(afresh.predict_proba(POOL))


def test_edited_labels_are_learned(tmp_path):
    rounds(learner(directory=tmp_path), 2)
    path = tmp_path / "labels.json"
    found = json.loads(path.read_text())
    found["labels"] = [1 - label for label in found["labels"]]
    path.write_text(json.dumps(found))
    with pytest.raises(
        CheckpointError,
        match="labels.json is damaged: its checksum .*; if it was changed on purpose, delete",
    ):
        learner(directory=tmp_path)
    del found["checksum"]
    path.write_text(json.dumps(found))
    with pytest.warns(CheckpointWarning, match="other labels.*; the 8 labels are kept"):
        again = learner(directory=tmp_path)
    again.learn(POOL)
    afresh = learner()
    afresh.teach(found["indices"], found["labels"], pool=POOL)
    assert again.predict_proba(POOL).equal(afresh.predict_proba(POOL))
    path.unlink()  # and of another pool nothing is left
    with pytest.warns(CheckpointWarning, match="other labels"):
        assert not learner(directory=tmp_path).members


def test_damaged_model_costs_no_labels(tmp_path):
    made = learner(directory=tmp_path)
    rounds(made, 1)
    (tmp_path / "learner/state.safetensors").write_bytes(b"")
    with pytest.warns(CheckpointWarning, match="is damaged.*; the 4 labels are kept"):
        again = learner(directory=tmp_path)
    again.learn(POOL)
    assert again.predict_proba(POOL).equal(made.predict_proba(POOL))


@pytest.mark.parametrize(
    "change",
    [
        lambda t, d: d.pop("learned_at_restart"),
        lambda t, d: d.update(learned_at_restart="2"),
        lambda t, d: d.pop("labels"),
        lambda t, d: d.update(labels=7),
        lambda t, d: t.pop(min(t)),
        lambda t, d: t.update({min(t): torch.zeros(1)}),
    ],
)
def test_forged_model_costs_no_labels(tmp_path, change):
    rounds(learner(directory=tmp_path), 1)
    tensors, kept = checkpoints.load(tmp_path / "learner")
    change(tensors, kept)
    checkpoints.save(tmp_path / "learner", tensors, kept, keep_previous=False)
    with pytest.warns(CheckpointWarning, match="; the 4 labels are kept"):
        assert not learner(directory=tmp_path).members


def test_a_model_of_an_earlier_version_is_read(tmp_path):
    made = learner(directory=tmp_path)
    rounds(made, 1)
    tensors, kept = checkpoints.load(tmp_path / "learner")
    kept["of"] = kept.pop("labels")
    kept["fresh"] = kept.pop("learned_at_restart")
    checkpoints.save(tmp_path / "learner", tensors, kept, keep_previous=False)
    again = learner(directory=tmp_path)
    assert again.predict_proba(POOL).equal(made.predict_proba(POOL))
    assert again.committee.learned == made.committee.learned == 4


# --- the labels -----------------------------------------------------------------------------------


def test_folder_of_the_user_is_kept(tmp_path):
    (tmp_path / "training").mkdir()
    (tmp_path / "training/mine.txt").write_text("mine")
    rounds(learner(directory=tmp_path), 1)
    assert (tmp_path / "training/mine.txt").read_text() == "mine"


def test_second_learner_in_a_directory_is_refused(tmp_path):
    one, two = learner(directory=tmp_path), learner(directory=tmp_path)
    rounds(one, 1)
    with pytest.raises(CheckpointError, match="another learner"):
        two.teach([0], [0], pool=POOL)
    assert (
        len(json.loads((tmp_path / "labels.json").read_text())["indices"]) == 4 and not two.indices
    )


@pytest.mark.filterwarnings("ignore:y. no row of class")
def test_skipped_rows_are_kept(tmp_path):
    made = learner(directory=tmp_path)
    first = made.query(POOL, 4)
    made.teach(first[:2], Y[first[:2]], skipped=first[2:])
    again = learner(directory=tmp_path)
    assert again.skipped == first[2:].tolist() and not set(first.tolist()) & set(
        again.query(POOL, 196).tolist()
    )


def test_changed_byte_of_the_labels_is_found(tmp_path):
    """Each byte in turn: the labels are as they were, or refused by the file's name."""
    made = learner(directory=tmp_path)
    rows = made.query(POOL, 4)
    made.teach(rows, Y[rows])
    (path,) = tmp_path.glob("labels.json")
    whole = path.read_bytes()
    for folder in ("learner", committee.IN_TRAINING):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
    for place in range(len(whole)):
        for bit in (1, 128):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            try:
                assert learner(directory=tmp_path).labels == made.labels
            except CheckpointError as error:
                assert "labels.json is damaged" in str(error)


GOOD = {
    "format": labels_module.FORMAT,
    "pool": [[200, 2], 0],
    "indices": [1, 2],
    "labels": [0, 1],
    "skipped": [3],
}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        json.dumps(GOOD | {"format": "other"}),
        json.dumps(GOOD | {"labels": [0]}),
        json.dumps(GOOD | {"skipped": [2]}),
        json.dumps(GOOD | {"indices": [1, 200]}),
        json.dumps(GOOD | {"pool": None}),
        json.dumps(GOOD | {"labels": [0, "1"]}),
        json.dumps(GOOD | {"labels": [0, -1]}),
        json.dumps(GOOD | {"labels": [0, None]}),
        json.dumps(GOOD | {"labels": [[0.5], [math.nan]]}),
    ],
)
def test_damaged_labels_are_named(tmp_path, text):
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"labels\.json is damaged"):
        learner(directory=tmp_path)

"""The loop: what it asks, what it keeps, and that a killed one goes on to the same picks."""

import json
import math
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_ssl import ActiveLearner, data, predict_proba, zoo
from pyro_ssl.active import acquisition
from pyro_ssl.active import learner as active
from pyro_ssl.data.labels import LabelWarning
from pyro_ssl.training import checkpoints
from pyro_ssl.training.checkpoints import CheckpointWarning
from pyro_ssl.utils.files import CheckpointError

MOONS = data.two_moons(200, 200, noise=0.1, seed=0)
POOL, Y = MOONS.x, MOONS.y
QUICK = {"epochs": 3, "batch_size": 50, "lr": 1e-2}


def m2(seed, **options):
    return zoo.build("m2", (2,), 2, seed=seed, hidden=(16,), z_dim=2, **options)


def learner(**arguments):
    return ActiveLearner(**({"build": m2, "training": QUICK} | arguments))


FEW = POOL[:60]
"""Where only what is asked matters: one step an epoch, for most of the time goes into training."""


def rounds(made, n, pool=POOL, each=4):
    """The rows asked for in n rounds, all of them answered."""
    asked = []
    for _ in range(n):
        rows = made.query(pool, each)
        asked.append(rows.tolist())
        made.teach(rows, Y[rows])
    return asked


def test_a_loop_asks_new_rows_and_learns_from_all_of_the_pool():
    made = learner()
    asked = rounds(made, 3)
    rows = [row for some in asked for row in some]
    assert len(set(rows)) == 12 and made.indices == rows and made.labels == Y[rows].tolist() and made.left == 188
    assert len(made.history) == 3 and {"labeled", "unlabeled"} <= set(made.history[-1][0])
    torch.testing.assert_close(made.predict_proba(POOL), predict_proba(made.members[0], POOL))


def test_what_is_asked_is_what_the_acquisition_wants():
    made = learner(acquisition="margin")
    rounds(made, 1)
    wanted = acquisition.scores(made.members, POOL, "margin")
    wanted[made.indices] = -math.inf
    assert set(made.query(POOL, 5).tolist()) == set(wanted.topk(5).indices.tolist())


def test_settings_reach_the_acquisition_and_each_round_has_a_seed_of_its_own(monkeypatch):
    given, own = [], active.acquire
    monkeypatch.setattr(active, "acquire", lambda *args, **kwargs: given.append(kwargs) or own(*args, **kwargs))
    rounds(learner(acquisition="margin", power=2.0, draws=7, candidates=9), 3)
    assert [(g["power"], g["draws"], g["candidates"]) for g in given] == 2 * [(2.0, 7, 9)]
    assert given[0]["seed"] != given[1]["seed"]


def test_the_same_is_asked_until_it_is_taught_and_another_seed_asks_another():
    one, two = learner(), learner()
    assert rounds(one, 2) == rounds(two, 2)
    assert one.query(POOL, 4).equal(one.query(POOL, 4)) and one.query(POOL, 4).equal(two.query(POOL, 4))
    assert not learner(seed=1).query(POOL, 4).equal(learner().query(POOL, 4))


def test_the_callers_random_state_is_not_touched():
    torch.manual_seed(3)
    before, of_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    rounds(learner(start="diverse", code=lambda x: x), 2)
    assert torch.get_rng_state().equal(before) and (np.random.get_state()[1] == of_numpy).all()


def test_labels_may_come_first_and_of_any_rows():
    made = learner()
    rows = list(data.draw_labels(Y, per_class=1, seed=0).indices)
    made.teach(rows, Y[rows].numpy(), pool=POOL.numpy())
    assert made.indices == rows and not set(made.query(POOL, 10).tolist()) & set(rows)


@pytest.mark.filterwarnings("ignore:y. no row of class")
def test_rows_that_cannot_be_labeled_are_not_asked_again():
    made = learner()
    first = made.query(POOL, 4)
    made.teach(first[:2], Y[first[:2]], skipped=first[2:])
    assert made.left == 196 and not set(made.query(POOL, 196).tolist()) & set(first.tolist())
    made.teach(first[2:3], Y[first[2:3]])  # known after all
    assert made.skipped == [int(first[3])] and made.left == 196


def test_later_rounds_start_from_the_weights_of_the_round_before():
    frozen = {"training": QUICK | {"epochs": 1}, "warm": {"lr": 1e-30}, "fresh": math.inf}
    made, scratch = learner(**frozen), learner(training=QUICK | {"epochs": 1})
    rounds(made, 1)
    before = [p.clone() for p in made.members[0].parameters()]
    rounds(made, 1)
    assert all(a.equal(b) for a, b in zip(before, made.members[0].parameters(), strict=True))
    rounds(scratch, 2)
    assert not before[0].equal(next(scratch.members[0].parameters()))


def test_a_round_is_from_scratch_when_labels_have_doubled(tmp_path):
    arguments = {"warm": {"lr": 1e-30}, "directory": tmp_path}
    made, weights = learner(**arguments), []
    for _ in range(4):  # with 4, 8, 12 and 16 labels; each by another process
        rounds(made, 1)
        weights.append(next(made.members[0].parameters()).clone())
        made = learner(**arguments)
    assert [a.equal(b) for a, b in zip(weights, weights[1:], strict=False)] == [False, True, False]
    afresh = learner()
    afresh.teach(made.indices, made.labels, pool=POOL)
    torch.testing.assert_close(weights[3], next(afresh.members[0].parameters()))


def test_an_ensemble_and_its_information():
    made = learner(members=3, acquisition="batch_bald")
    rounds(made, 2)
    assert len(made.members) == 3 and len(made.history[1]) == 3
    p = [predict_proba(m, POOL) for m in made.members]
    assert not p[0].equal(p[1])
    torch.testing.assert_close(made.predict_proba(POOL), torch.stack(p).mean(0))


def test_what_is_asked_at_once_may_be_drawn_by_its_power():
    top_k, drawn, again = (learner(power=p) for p in (None, 1.0, 1.0))
    for made in (top_k, drawn, again):
        rounds(made, 2)
    assert drawn.indices == again.indices and drawn.indices[:4] == top_k.indices[:4]
    assert set(drawn.indices) != set(top_k.indices)


def test_real_labels_by_their_variance():
    build = lambda seed: zoo.build("sslpe", (2,), 1, seed=seed, regression=True, hidden=(8,), z_dim=2)  # noqa: E731
    made, target = learner(build=build, acquisition="variance"), torch.sin(POOL[:, 0])
    for _ in range(2):
        rows = made.query(POOL, 3)
        made.teach(rows, target[rows])
    assert np.asarray(made.labels).shape == (6, 1)
    with pytest.raises(ValueError, match="labels should be finite"):
        made.teach([int(made.query(POOL)[0])], [math.nan])


def test_diverse_starts_are_spread():
    torch.manual_seed(0)
    clusters = torch.cat([torch.randn(50, 2) * 0.1 + torch.tensor(c) for c in ([0.0, 0], [9, 0], [0, 9], [9, 9])])
    rows = learner(start="diverse").query(clusters, 4)
    assert sorted(r // 50 for r in rows.tolist()) == [0, 1, 2, 3]
    turned = learner(start="diverse", code=lambda x: x[:, :1]).query(clusters, 2)
    assert {float(clusters[r, 0] > 4) for r in turned} == {0.0, 1.0}


def test_codes_keep_what_the_data_differ_in():
    torch.manual_seed(0)
    images = torch.zeros(60, 1, 8, 8)
    images[:30, :, :4], images[30:, :, 4:] = 1.0, 1.0
    found = active.codes(images + 0.05 * torch.rand(60, 1, 8, 8), steps=60, z_dim=2)
    assert found.shape == (60, 2)
    apart = torch.cdist(found, found)
    assert apart[:30, :30].max() < apart[:30, 30:].min()
    assert active.codes(POOL, steps=2).shape == (200, 16)


# --- what is kept -----------------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


def kill(patch, when, members):
    """The next round is killed at a moment."""

    def killed(*args, **kwargs):
        raise Killed

    real = {"save": active.checkpoints.save, "fit": active.fit}
    calls = []

    def in_last_member(*args, **kwargs):
        calls.append(1)
        return real["fit"](*args, **kwargs, **({"callbacks": (killed,)} if len(calls) == members else {}))

    def before_saving(path, *args, **kwargs):
        return killed() if path.name == "learner" else real["save"](path, *args, **kwargs)

    def after_saving(path, *args, **kwargs):
        real["save"](path, *args, **kwargs)
        return killed() if path.name == "learner" else None

    if when == "before labels":
        patch.setattr(active.files, "write_text", killed)
    elif when in ("after labels", "in training"):
        patch.setattr(active, "fit", killed if when == "after labels" else in_last_member)
    else:
        patch.setattr(active.checkpoints, "save", before_saving if when == "before the model" else after_saving)


MOMENTS = ["before labels", "after labels", "in training", "before the model", "after the model"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Loops that nothing killed, one for each setting: what they asked, and predictions before and after the last."""

    @cache
    def of(warm, members, first):
        directory = tmp_path_factory.mktemp("loops") / "whole"
        made = learner(update_training=dict(warm) or None, members=members, acquisition="entropy", directory=directory)
        asked = rounds(made, first + 1, FEW)
        then = made.predict_proba(FEW)
        asked += rounds(made, 1, FEW)
        return made, asked, then

    return of


@pytest.mark.parametrize("when", MOMENTS)
@pytest.mark.parametrize(
    ("members", "first", "warm"), [(2, 2, None), (2, 1, {"epochs": 1}), (1, 2, {"epochs": 1}), (1, 0, None)]
)
def test_a_killed_loop_goes_on_to_the_same_picks(tmp_path, monkeypatch, whole, when, warm, members, first):
    arguments = {"warm": warm, "members": members, "acquisition": "entropy"}
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
        with pytest.raises(ValueError, match="has learned"):  # the model of the round before is no answer
            again.predict_proba(FEW)
    again.learn(FEW)
    assert again.predict_proba(FEW).equal(then) and len(again.history) == first + 1
    assert rounds(again, 1, FEW) == wanted[first + 1 :]
    assert again.indices == unbroken.indices and again.labels == unbroken.labels
    assert (
        again.predict_proba(FEW).equal(unbroken.predict_proba(FEW))
        and not (tmp_path / "killed" / active.IN_TRAINING).exists()
    )


def test_another_process_goes_on(tmp_path):
    code = f"""
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_active import FEW, learner, rounds
print(rounds(learner(directory={str(tmp_path)!r}, update_training={{"epochs": 1}}), 2, FEW))
"""
    here = rounds(learner(directory=tmp_path, update_training={"epochs": 1}), 2, FEW)
    there = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert here + json.loads(there) == rounds(learner(update_training={"epochs": 1}), 4, FEW)


def test_labels_stay_where_training_fails(tmp_path):
    made = learner(directory=tmp_path)
    rounds(made, 1)
    rows = made.query(POOL, 4)
    made.training["lr"] = -1.0
    with pytest.raises(ValueError, match="lr should be above 0"):
        made.teach(rows, Y[rows])
    assert len(made.indices) == 8 and len(learner(directory=tmp_path).indices) == 8
    made.training["lr"] = 1e-2
    made.learn(POOL)
    assert made.predict_proba(POOL).shape == (200, 2)
    with pytest.raises(ValueError, match="learned 0 of its 0 labels"):
        learner().predict_proba(POOL)


@pytest.mark.parametrize(
    "other",
    [{"identity": {"sigma": 0.1}}, {"training": QUICK | {"lr": 3e-2}}, {"fresh": 3.0}, {"members": 2}, {"seed": 1}],
)
def test_a_model_of_other_settings_is_trained_afresh_and_labels_stay(tmp_path, other):
    made = learner(directory=tmp_path)
    rounds(made, 2)
    with pytest.warns(CheckpointWarning, match="other settings; the 8 labels stay"):
        again = learner(directory=tmp_path, **other)
    assert again.indices == made.indices and not again.members
    again.learn(POOL)
    afresh = learner(**other)
    afresh.teach(made.indices, made.labels, pool=POOL)
    assert again.predict_proba(POOL).equal(afresh.predict_proba(POOL))


def test_labels_that_were_mended_are_learned(tmp_path):
    rounds(learner(directory=tmp_path), 2)
    path = tmp_path / "labels.json"
    found = json.loads(path.read_text())
    found["labels"] = [1 - label for label in found["labels"]]
    path.write_text(json.dumps(found))
    with pytest.raises(
        CheckpointError, match="labels.json is damaged: its checksum .*; if it was changed on purpose, delete"
    ):
        learner(directory=tmp_path)
    del found["checksum"]
    path.write_text(json.dumps(found))
    with pytest.warns(CheckpointWarning, match="other labels.*; the 8 labels stay"):
        again = learner(directory=tmp_path)
    again.learn(POOL)
    afresh = learner()
    afresh.teach(found["indices"], found["labels"], pool=POOL)
    assert again.predict_proba(POOL).equal(afresh.predict_proba(POOL))
    path.unlink()  # and of another pool nothing is left
    with pytest.warns(CheckpointWarning, match="other labels"):
        assert not learner(directory=tmp_path).members


def test_a_folder_of_the_users_stays(tmp_path):
    (tmp_path / "training").mkdir()
    (tmp_path / "training/mine.txt").write_text("mine")
    rounds(learner(directory=tmp_path), 1)
    assert (tmp_path / "training/mine.txt").read_text() == "mine"


def test_a_damaged_model_costs_no_labels(tmp_path):
    made = learner(directory=tmp_path)
    rounds(made, 1)
    (tmp_path / "learner/state.safetensors").write_bytes(b"")
    with pytest.warns(CheckpointWarning, match="is damaged.*; the 4 labels stay"):
        again = learner(directory=tmp_path)
    again.learn(POOL)
    assert again.predict_proba(POOL).equal(made.predict_proba(POOL))


@pytest.mark.parametrize(
    "change",
    [
        lambda t, d: d.pop("fresh"),
        lambda t, d: d.update(restart_factor="2"),
        lambda t, d: d.pop("of"),
        lambda t, d: d.update(of=7),
        lambda t, d: t.pop(min(t)),
        lambda t, d: t.update({min(t): torch.zeros(1)}),
    ],
)
def test_a_forged_model_costs_no_labels(tmp_path, change):
    rounds(learner(directory=tmp_path), 1)
    tensors, kept = checkpoints.load(tmp_path / "learner")
    change(tensors, kept)
    checkpoints.save(tmp_path / "learner", tensors, kept, keep_previous=False)
    with pytest.warns(CheckpointWarning, match="; the 4 labels stay"):
        assert not learner(directory=tmp_path).members


def test_two_learners_in_one_folder_do_not_lose_labels(tmp_path):
    one, two = learner(directory=tmp_path), learner(directory=tmp_path)
    rounds(one, 1)
    with pytest.raises(CheckpointError, match="another learner"):
        two.teach([0], [0], pool=POOL)
    assert len(json.loads((tmp_path / "labels.json").read_text())["indices"]) == 4 and not two.indices


@pytest.mark.filterwarnings("ignore:y. no row of class")
def test_what_was_left_out_stays_so_after_a_restart(tmp_path):
    made = learner(directory=tmp_path)
    first = made.query(POOL, 4)
    made.teach(first[:2], Y[first[:2]], skipped=first[2:])
    again = learner(directory=tmp_path)
    assert again.skipped == first[2:].tolist() and not set(first.tolist()) & set(again.query(POOL, 196).tolist())


def test_a_changed_byte_of_the_labels_is_found(tmp_path):
    """Each byte in turn: the labels are as they were, or refused by the file's name."""
    made = learner(directory=tmp_path)
    rows = made.query(POOL, 4)
    made.teach(rows, Y[rows])
    (path,) = tmp_path.glob("labels.json")
    whole = path.read_bytes()
    for folder in ("learner", active.IN_TRAINING):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
    for place in range(len(whole)):
        for bit in (1, 128):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            try:
                assert learner(directory=tmp_path).labels == made.labels
            except CheckpointError as error:
                assert "labels.json is damaged" in str(error)


def test_masked_labels_are_not_taught():
    made = learner()
    rows = made.query(POOL, 4)
    with pytest.raises(ValueError, match="labels has 2 masked entries, first in row 1"):
        made.teach(rows, np.ma.array(Y[rows].numpy(), mask=[False, True, True, False]))
    with pytest.raises(ValueError, match="skipped has 1 masked entries"):
        made.teach(rows, Y[rows], skipped=np.ma.array([150, 151], mask=[False, True]))
    assert not made.indices


def test_a_class_without_a_label_is_named():
    made = learner()
    rows = (Y == 1).nonzero().flatten()[:3]
    with pytest.warns(LabelWarning, match="no row of class 0 has a label"):
        made.teach(rows, Y[rows], pool=POOL)


def test_a_pool_of_whole_numbers_is_the_same_as_with_a_point():
    made, pool = learner(), (4 * POOL).round() + 0.0  # without -0.0
    rows = list(data.draw_labels(Y, per_class=2, seed=0).indices)
    made.teach(rows, Y[rows], pool=pool)
    assert made.query(pool.to(torch.int64), 4).equal(made.query(pool, 4))


GOOD = {"format": active.FORMAT, "pool": [[200, 2], 0], "indices": [1, 2], "labels": [0, 1], "skipped": [3]}


@pytest.mark.parametrize(
    "text",
    ["{", "[]", json.dumps(GOOD | {"format": "other"}), json.dumps(GOOD | {"labels": [0]}), json.dumps(GOOD | {"skipped": [2]}),
     json.dumps(GOOD | {"indices": [1, 200]}), json.dumps(GOOD | {"pool": None}), json.dumps(GOOD | {"labels": [0, "1"]}),
     json.dumps(GOOD | {"labels": [0, -1]}), json.dumps(GOOD | {"labels": [0, None]}), json.dumps(GOOD | {"labels": [[0.5], [math.nan]]})],
)  # fmt: skip
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"labels\.json is damaged"):
        learner(directory=tmp_path)


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_a_pool_that_cannot_be_learned_is_said_before_anyone_is_asked():
    grey = lambda seed: zoo.build("m2", (2,), 2, seed=seed, hidden=(8,), z_dim=2, likelihood="bernoulli")  # noqa: E731
    with pytest.raises(ValueError, match="outside the support"):
        learner(build=grey).query(255 * POOL.abs(), 4)
    with pytest.raises(ValueError, match="for pixels 0 .. 255 divide"):
        learner().query(1000 * POOL, 4)
    outlier = POOL.clone()
    outlier[150] = 400.0  # of a sum that `fit` takes too
    assert len(learner().query(outlier, 4)) == 4


def test_a_pool_that_was_changed_is_not_learned_from():
    pool = POOL.clone()
    made = learner()
    rows = made.query(pool, 4)
    pool += 1
    with pytest.raises(ValueError, match="its values were changed"):
        made.teach(rows, Y[rows])
    assert not made.indices
    pool.copy_(POOL)
    made.teach(rows, Y[rows])
    assert made.indices == rows.tolist() and len(made.history) == 1


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (lambda m: m.query(POOL[:0]), ValueError, "pool is empty"),
        (lambda m: m.query(POOL, 197), ValueError, "n should be at most 196"),
        (lambda m: m.query(POOL, 0), ValueError, "n should be a whole number above 0"),
        (lambda m: m.query(POOL[:100], 1), ValueError, "pool: it is not the one"),
        (lambda m: m.query(POOL + 1, 1), ValueError, "pool: it is not the one"),
        (lambda m: m.teach([m.free, m.free], [0, 1]), ValueError, "there twice"),
        (lambda m: m.teach([m.indices[0]], [0]), ValueError, "has a label already"),
        (lambda m: m.teach([200], [0]), ValueError, r"0 \.\. 199"),
        (lambda m: m.teach([-1], [0]), ValueError, r"0 \.\. 199"),
        (lambda m: m.teach([m.free], [2]), ValueError, r"labels should be in 0 \.\. 1.*got 2"),
        (lambda m: m.teach([m.free], [-1]), ValueError, r"labels should be in 0 \.\. 1"),
        (lambda m: m.teach([m.free], [0.5]), TypeError, "labels should be codes"),
        (lambda m: m.teach([m.free], ["cat"]), TypeError, "labels should be codes"),
        (lambda m: m.teach([m.free], [0, 1]), ValueError, r"labels should have shape \(1,\)"),
        (lambda m: m.teach([0.5], [0]), TypeError, "indices should be whole numbers"),
        (lambda m: m.teach([m.free], [0], skipped=[m.free]), ValueError, "among the labeled"),
    ],
)
def test_mistakes_are_named_and_nothing_is_lost(tmp_path, call, kind, said):
    made = learner(directory=tmp_path)
    rounds(made, 1)
    made.free = next(i for i in range(200) if i not in made.indices)
    before, text = (list(made.indices), list(made.labels)), (tmp_path / "labels.json").read_text()
    with pytest.raises(kind, match=said):
        call(made)
    assert (made.indices, made.labels) == before and (tmp_path / "labels.json").read_text() == text
    rounds(made, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"acquisition": "bald"}, "deterministic"),
        ({"acquisition": "surprise"}, "acquisition should be one of"),
        ({"start": "best"}, "start should be random or diverse"),
        ({"members": 0}, "members"),
        ({"power": 0}, "power should be above 0"),
        ({"power": 1.0, "acquisition": "batch_bald"}, "power: batch_bald has no use"),
        ({"seed": -1}, "seed should be"),
        ({"training": {"epoch": 3}}, "training has epoch"),
        ({"warm": {"seed": 1}}, "warm has seed"),
        ({"fresh": 1}, "fresh should be above 1"),
        ({"start": "diverse", "code": lambda x: x[:5]}, "code should give 200 rows"),
    ],
)
def test_a_learner_that_cannot_ask_says_so_before_the_first_label(arguments, said):
    with pytest.raises(ValueError, match=said):
        learner(**arguments).query(POOL, 1)


def test_a_refused_query_binds_to_nothing_and_any_whole_seed_will_do():
    made = learner(seed=np.int64(3), start="diverse", code=lambda x: x.clone().requires_grad_())
    with pytest.raises(ValueError, match="n should be at most 50"):
        made.query(POOL[:50], 51)
    rounds(made, 1)
    assert made.left == 196


def test_the_pool_has_to_be_known():
    with pytest.raises(ValueError, match="pool: not known"):
        learner().teach([0], [0])
    with pytest.raises(ValueError, match="pool: not known"):
        _ = learner().left

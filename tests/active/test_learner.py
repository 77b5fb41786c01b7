"""The loop: what it asks, how it trains, and the errors of its arguments."""

import math

import numpy as np
import pytest
import torch
from programs.active import FEW, POOL, QUICK, Y, learner, m2, rounds

from pyro_ssl import data, predict_proba, zoo
from pyro_ssl.active import acquisition
from pyro_ssl.active import learner as learner_module
from pyro_ssl.active.committee import Committee, Trained
from pyro_ssl.active.labelling.store import Labels
from pyro_ssl.data.missing_labels import LabelWarning

# --- queries --------------------------------------------------------------------------------------


def test_loop_asks_new_rows_and_learns_from_the_whole_pool():
    made = learner()
    asked = rounds(made, 3)
    rows = [row for some in asked for row in some]
    assert (
        len(set(rows)) == 12
        and made.indices == rows
        and made.labels == Y[rows].tolist()
        and made.num_unasked == 188
    )
    assert len(made.history) == 3 and {"labeled", "unlabeled"} <= set(made.history[-1][0])
    torch.testing.assert_close(made.predict_proba(POOL), predict_proba(made.members[0], POOL))


def test_query_takes_the_highest_scores():
    made = learner(acquisition="margin")
    rounds(made, 1)
    wanted = acquisition.scores(made.members, POOL, "margin")
    wanted[made.indices] = -math.inf
    assert set(made.query(POOL, 5).tolist()) == set(wanted.topk(5).indices.tolist())


def test_query_passes_its_settings_and_a_new_seed_each_round(monkeypatch):
    given, own = [], learner_module.acquire
    monkeypatch.setattr(
        learner_module,
        "acquire",
        lambda *args, **kwargs: given.append(kwargs) or own(*args, **kwargs),
    )
    rounds(learner(acquisition="margin", power=2.0, draws=7, candidates=9), 3)
    assert [(g["power"], g["draws"], g["candidates"]) for g in given] == 2 * [(2.0, 7, 9)]
    assert given[0]["seed"] != given[1]["seed"]


def test_query_repeats_until_labels_are_taught():
    one, two = learner(), learner()
    assert rounds(one, 2) == rounds(two, 2)
    assert one.query(POOL, 4).equal(one.query(POOL, 4)) and one.query(POOL, 4).equal(
        two.query(POOL, 4)
    )
    assert not learner(seed=1).query(POOL, 4).equal(learner().query(POOL, 4))


def test_query_with_a_power():
    top_k, drawn, again = (learner(power=p) for p in (None, 1.0, 1.0))
    for made in (top_k, drawn, again):
        rounds(made, 2)
    assert drawn.indices == again.indices and drawn.indices[:4] == top_k.indices[:4]
    assert set(drawn.indices) != set(top_k.indices)


def test_loop_with_real_labels():
    def build(seed):
        return zoo.build("sslpe", (2,), 1, seed=seed, regression=True, hidden=(8,), z_dim=2)

    made, target = learner(build=build, acquisition="variance"), torch.sin(POOL[:, 0])
    for _ in range(2):
        rows = made.query(POOL, 3)
        made.teach(rows, target[rows])
    assert np.asarray(made.labels).shape == (6, 1)
    with pytest.raises(ValueError, match="labels should be finite"):
        made.teach([int(made.query(POOL)[0])], [math.nan])


def test_loop_leaves_the_random_state_alone():
    torch.manual_seed(3)
    before, of_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    rounds(learner(start="diverse", embedding=lambda x: x), 2)
    assert torch.get_rng_state().equal(before) and (np.random.get_state()[1] == of_numpy).all()


# --- labels ---------------------------------------------------------------------------------------


def test_teach_before_the_first_query():
    made = learner()
    rows = list(data.draw_labels(Y, per_class=1, seed=0).indices)
    made.teach(rows, Y[rows].numpy(), pool=POOL.numpy())
    assert made.indices == rows and not set(made.query(POOL, 10).tolist()) & set(rows)


@pytest.mark.filterwarnings("ignore:y. no row of class")
def test_skipped_rows_are_not_asked_again():
    made = learner()
    first = made.query(POOL, 4)
    made.teach(first[:2], Y[first[:2]], skipped=first[2:])
    assert made.num_unasked == 196 and not set(made.query(POOL, 196).tolist()) & set(first.tolist())
    made.teach(first[2:3], Y[first[2:3]])  # known after all
    assert made.skipped == [int(first[3])] and made.num_unasked == 196


def test_teach_refuses_masked_labels():
    made = learner()
    rows = made.query(POOL, 4)
    with pytest.raises(ValueError, match="labels has 2 masked entries, first in row 1"):
        made.teach(rows, np.ma.array(Y[rows].numpy(), mask=[False, True, True, False]))
    with pytest.raises(ValueError, match="skipped has 1 masked entries"):
        made.teach(rows, Y[rows], skipped=np.ma.array([150, 151], mask=[False, True]))
    assert not made.indices


def test_class_without_a_label_is_named():
    made = learner()
    rows = (Y == 1).nonzero().flatten()[:3]
    with pytest.warns(LabelWarning, match="no row of class 0 has a label"):
        made.teach(rows, Y[rows], pool=POOL)


# --- training -------------------------------------------------------------------------------------


def test_update_training_starts_from_the_last_weights():
    frozen = {
        "training": QUICK | {"epochs": 1},
        "update_training": {"lr": 1e-30},
        "restart_factor": math.inf,
    }
    made, scratch = learner(**frozen), learner(training=QUICK | {"epochs": 1})
    rounds(made, 1)
    before = [p.clone() for p in made.members[0].parameters()]
    rounds(made, 1)
    assert all(a.equal(b) for a, b in zip(before, made.members[0].parameters(), strict=True))
    rounds(scratch, 2)
    assert not before[0].equal(next(scratch.members[0].parameters()))


def test_restart_factor_trains_from_scratch(tmp_path):
    arguments = {"update_training": {"lr": 1e-30}, "directory": tmp_path}
    made, weights = learner(**arguments), []
    for _ in range(4):  # with 4, 8, 12 and 16 labels; each by another process
        rounds(made, 1)
        weights.append(next(made.members[0].parameters()).clone())
        made = learner(**arguments)
    assert [a.equal(b) for a, b in zip(weights, weights[1:], strict=False)] == [False, True, False]
    afresh = learner()
    afresh.teach(made.indices, made.labels, pool=POOL)
    torch.testing.assert_close(weights[3], next(afresh.members[0].parameters()))


def test_ensemble_with_batch_bald():
    made = learner(members=3, acquisition="batch_bald")
    rounds(made, 2)
    assert len(made.members) == 3 and len(made.history[1]) == 3
    p = [predict_proba(m, POOL) for m in made.members]
    assert not p[0].equal(p[1])
    torch.testing.assert_close(made.predict_proba(POOL), torch.stack(p).mean(0))


# --- the pool -------------------------------------------------------------------------------------


def test_pool_of_integers_equals_pool_of_floats():
    made, pool = learner(), (4 * POOL).round() + 0.0  # without -0.0
    rows = list(data.draw_labels(Y, per_class=2, seed=0).indices)
    made.teach(rows, Y[rows], pool=pool)
    assert made.query(pool.to(torch.int64), 4).equal(made.query(pool, 4))


def test_query_refuses_a_pool_that_cannot_be_learned():
    def grey(seed):
        return m2(seed, likelihood="bernoulli")

    with pytest.raises(ValueError, match="outside the support"):
        learner(build=grey).query(255 * POOL.abs(), 4)
    with pytest.raises(ValueError, match="for pixels 0 .. 255 divide"):
        learner().query(1000 * POOL, 4)
    outlier = POOL.clone()
    outlier[150] = 400.0  # of a sum that `fit` takes too
    assert len(learner().query(outlier, 4)) == 4


def test_teach_refuses_a_changed_pool():
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


def test_pool_has_to_be_known():
    with pytest.raises(ValueError, match="pool: not known"):
        learner().teach([0], [0])
    with pytest.raises(ValueError, match="pool: not known"):
        _ = learner().num_unasked


def test_refused_query_does_not_register_the_pool():
    made = learner(
        seed=np.int64(3), start="diverse", embedding=lambda x: x.clone().requires_grad_()
    )
    with pytest.raises(ValueError, match="n should be at most 50"):
        made.query(POOL[:50], 51)
    rounds(made, 1)
    assert made.num_unasked == 196


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (lambda m: m.query(POOL[:0]), ValueError, "pool is empty"),
        (lambda m: m.query(POOL, 197), ValueError, "n should be at most 196"),
        (lambda m: m.query(POOL, 0), ValueError, "n should be a whole number above 0"),
        (lambda m: m.query(POOL[:100], 1), ValueError, "pool: it should be the pool"),
        (lambda m: m.query(POOL + 1, 1), ValueError, "pool: it should be the pool"),
        (lambda m: m.teach([m.free, m.free], [0, 1]), ValueError, "is repeated"),
        (lambda m: m.teach([m.indices[0]], [0]), ValueError, "already has a label"),
        (lambda m: m.teach([200], [0]), ValueError, r"0 \.\. 199"),
        (lambda m: m.teach([-1], [0]), ValueError, r"0 \.\. 199"),
        (lambda m: m.teach([m.free], [2]), ValueError, r"class indices in 0 \.\. 1, got 2"),
        (lambda m: m.teach([m.free], [-1]), ValueError, r"class indices in 0 \.\. 1"),
        (lambda m: m.teach([m.free], [0.5]), TypeError, "labels should be class indices"),
        (lambda m: m.teach([m.free], ["cat"]), TypeError, "labels should be class indices"),
        (lambda m: m.teach([m.free], [0, 1]), ValueError, r"labels should have shape \(1,\)"),
        (lambda m: m.teach([0.5], [0]), TypeError, "indices should be integers"),
        (lambda m: m.teach([m.free], [0], skipped=[m.free]), ValueError, "also among the labeled"),
    ],
)
def test_user_errors_are_named_and_no_label_is_lost(tmp_path, call, kind, said):
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
        ({"power": 1.0, "acquisition": "batch_bald"}, "power: batch_bald cannot use it"),
        ({"seed": -1}, "seed should be"),
        ({"training": {"epoch": 3}}, "training has epoch"),
        ({"update_training": {"seed": 1}}, "update_training has seed"),
        ({"restart_factor": 1}, "restart_factor should be above 1"),
        ({"start": "diverse", "embedding": lambda x: x[:5]}, "embedding should give 200 rows"),
    ],
)
def test_learner_refuses_invalid_arguments(arguments, said):
    with pytest.raises(ValueError, match=said):
        learner(**arguments).query(POOL, 1)


# --- another thread -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:y. no row of class")
def test_no_thread_sees_new_members_with_an_old_count(monkeypatch):
    """What another thread could read is read after each assignment."""
    seen = []

    def assign(committee, name, value):
        object.__setattr__(committee, name, value)
        if hasattr(committee, "learned") and hasattr(committee, "history"):
            seen.append((bool(committee.members), committee.learned, len(committee.history)))

    monkeypatch.setattr(Committee, "__setattr__", assign, raising=False)
    rounds(learner(), 2, FEW)
    assert set(seen) == {(False, 0, 0), (True, 4, 1), (True, 8, 2)}


def test_no_thread_sees_rows_without_their_labels(monkeypatch):
    seen = []

    def assign(labels, name, value):
        object.__setattr__(labels, name, value)
        if hasattr(labels, "skipped"):
            seen.append((len(labels.indices), len(labels.values), len(labels.skipped)))

    monkeypatch.setattr(Labels, "__setattr__", assign, raising=False)
    labels = Labels()
    labels.register(POOL)
    labels.add([3, 1], [0, 1], skipped=[4])
    assert set(seen) == {(0, 0, 0), (2, 2, 1)}


@pytest.mark.filterwarnings("ignore:y. no row of class")
def test_query_by_uses_the_members_that_it_is_given():
    made = learner(acquisition="entropy")
    rounds(made, 1, FEW)
    trained = made.trained
    expected = made.query_by(trained, FEW, 3).tolist()
    assert expected == made.query(FEW, 3, learn=False).tolist()
    made.committee.trained = Trained()  # what another thread may do meanwhile
    assert made.query_by(trained, FEW, 3).tolist() == expected

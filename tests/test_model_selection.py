"""Cross-validation with few labels: rows that are split and scored, and scikit-learn's searches."""

import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import make_scorer, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score

from pyro_ssl import SemiSupervisedClassifier, SemiSupervisedRegressor
from pyro_ssl.data.missing_labels import LabelWarning
from pyro_ssl.model_selection import (
    LabeledScorer,
    PartialLabelKFold,
    PartialLabelSplit,
    has_label,
    labeled_rows,
)

CLASS = np.arange(60) % 3
KNOWN = np.arange(60) < 18  # six labels of each class
X = np.random.default_rng(0).normal(size=(60, 2)) * 0.3 + np.array([[0, 0], [3, 0], [0, 3]])[CLASS]


def objects(values: np.ndarray, missing: object) -> np.ndarray:
    y = values.astype(object)
    y[~KNOWN] = missing
    return y


PARTIAL = {
    "-1": np.where(KNOWN, CLASS, -1),
    "NaN": np.where(KNOWN, CLASS, np.nan),
    "None": objects(CLASS, None),
    "names, None": objects(np.array(["ant", "bee", "cow"])[CLASS], None),
    "names, NaN": objects(np.array(["ant", "bee", "cow"])[CLASS], np.nan),
    "masked": np.ma.masked_array(CLASS, ~KNOWN),
    "list": objects(CLASS, None).tolist(),
}
BY_MISSING = pytest.mark.parametrize("y", PARTIAL.values(), ids=PARTIAL)


def tiny(**arguments) -> SemiSupervisedClassifier:
    usual = {"method": "classifier", "options": {"hidden": (8,)}, "lr": 0.03, "random_state": 0}
    return SemiSupervisedClassifier(epochs=1, min_steps=40, **usual | arguments)


# --- splitters ------------------------------------------------------------------------------------


@BY_MISSING
@pytest.mark.parametrize(
    "splitter", [PartialLabelKFold(3), PartialLabelSplit(4, test_size=6, random_state=0)]
)
def test_rows_without_a_label_are_always_for_training(y, splitter):
    splits = list(splitter.split(X, y))
    assert len(splits) == splitter.get_n_splits()
    for train, test in splits:
        assert sorted([*train, *test]) == list(range(60))
        assert KNOWN[test].all() and set(np.flatnonzero(~KNOWN)) <= set(train)
        assert np.bincount(CLASS[test]).tolist() == [2, 2, 2]  # stratified


@BY_MISSING
def test_each_label_is_tested_once_in_k_folds(y):
    tests = np.concatenate([test for _, test in PartialLabelKFold(4).split(X, y)])
    assert sorted(tests) == np.flatnonzero(KNOWN).tolist()


def test_shuffles_by_seed():
    y = PARTIAL["-1"]
    one, again, other = (
        [t.tolist() for _, t in PartialLabelKFold(3, shuffle=True, random_state=s).split(X, y)]
        for s in (1, 1, 2)
    )
    assert one == again != other
    assert "n_splits=3" in repr(PartialLabelKFold(3))


def test_a_class_with_one_label_stays_in_training():
    y = np.where(np.arange(60) < 7, CLASS, -1)
    y[y == 2] = [2, -1]
    with pytest.warns(UserWarning, match="one label only of 2: it is for training in every split"):
        splits = list(PartialLabelKFold(2).split(X, y))
    assert all(2 in train and 2 not in test for train, test in splits)


def test_classes_may_have_fewer_labels_than_folds():
    y = np.where(np.arange(60) < 14, CLASS, -1)  # five, five, four
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits = list(PartialLabelKFold(5).split(X, y))
    assert all(set(CLASS[train[y[train] >= 0]]) == {0, 1, 2} for train, _ in splits)


def test_real_labels_are_split_where_minus_one_is_one_of_them():
    y = np.where(KNOWN, np.linspace(-1, 1, 60), np.nan)
    y[5] = -1.0
    tests = [test for _, test in PartialLabelKFold(6, regression=True).split(X, y)]
    assert sorted(np.concatenate(tests)) == np.flatnonzero(KNOWN).tolist()
    both = np.stack([y, -y], 1)
    assert [t.tolist() for _, t in PartialLabelKFold(6, regression=True).split(X, both)] == [
        t.tolist() for t in tests
    ]
    assert len(list(PartialLabelSplit(2, regression=True).split(X, y))) == 2


REFUSED = {
    "no y": (PartialLabelKFold(2), None, "y should hold labels.*got None"),
    "no label": (
        PartialLabelKFold(2),
        np.full(60, -1),
        "at least two labels of one class to split, got 0",
    ),
    "too many folds": (
        PartialLabelKFold(7),
        PARTIAL["-1"],
        "n_splits should be at most 6, the labels of the largest",
    ),
    "-1 without a sign": (
        PartialLabelKFold(2),
        PARTIAL["-1"].astype(np.uint8),
        "y is uint8 and holds 255",
    ),
    "rows": (PartialLabelKFold(2), PARTIAL["-1"][:-1], "inconsistent numbers of samples"),
    "too many folds, real": (
        PartialLabelKFold(99, regression=True),
        np.ones(60),
        "n_splits should be at most 60",
    ),
    "continuous": (
        PartialLabelSplit(),
        np.linspace(0, 1, 60),
        "continuous values.*regression=True",
    ),
    "columns": (
        PartialLabelKFold(2),
        np.zeros((60, 2), int),
        r"y should have shape \(N,\).*regression=True",
    ),
}


@pytest.mark.parametrize(("splitter", "y", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_split_is_refused(splitter, y, message):
    with pytest.raises(ValueError, match=message):
        list(splitter.split(X, y))


@pytest.mark.parametrize(
    ("n_splits", "message"),
    [(1, "2 or above, got 1"), (2.5, "n_splits should be a whole number above 0, got 2.5")],
)
def test_folds_are_a_whole_number_from_two(n_splits, message):
    with pytest.raises(ValueError, match=message):
        PartialLabelKFold(n_splits)


def test_groups_are_not_ignored_in_silence():
    with pytest.warns(UserWarning, match="groups are ignored by PartialLabelKFold"):
        next(PartialLabelKFold(2).split(X, PARTIAL["-1"], groups=CLASS))


# --- scores ---------------------------------------------------------------------------------------


@BY_MISSING
def test_rows_with_a_label_are_found(y):
    assert has_label(y).tolist() == KNOWN.tolist()
    rows, labels, weights = labeled_rows(X, y, np.arange(60))
    np.testing.assert_array_equal(rows, X[KNOWN])
    assert len(np.unique(labels)) == 3 and weights.tolist() == list(range(18))


def test_real_rows_with_a_label_are_found():
    y = np.array([-1.0, np.nan, 2.0])
    assert has_label(y, regression=True).tolist() == [True, False, True]
    assert has_label(np.stack([y, [0, 0, np.nan]], 1), regression=True).tolist() == [
        True,
        False,
        False,
    ]
    assert has_label(np.array([1.5, None, -1], object), regression=True).tolist() == [
        True,
        False,
        True,
    ]
    assert has_label(np.ma.masked_array([1.0, 2.0], [True, False]), regression=True).tolist() == [
        False,
        True,
    ]


def test_marks_for_no_label_are_told_in_scores_and_splits():
    y = objects(np.array(["ant", "bee", "cow"])[CLASS], "unknown")
    model = tiny().fit(X, PARTIAL["names, None"])
    with pytest.warns(LabelWarning, match="class 'unknown' has"):
        model.score(X, y)
    with pytest.warns(LabelWarning, match="class 'unknown' has"):
        list(PartialLabelKFold(2).split(X, y))
    with pytest.raises(ValueError, match="y is uint8 and holds 255"):
        model.score(X, PARTIAL["-1"].astype(np.uint8))
    with pytest.raises(ValueError, match=r"sample_weight should have shape \(60,\), .* got \(3,\)"):
        model.score(X, PARTIAL["names, None"], sample_weight=np.ones(3))


def test_a_mistyped_score_is_refused_at_once():
    with pytest.raises(ValueError, match="'accurracy' is not a valid scoring value"):
        LabeledScorer("accurracy")


def test_the_scorer_leaves_rows_without_a_label_out():
    y = PARTIAL["-1"]
    always = DummyClassifier(strategy="constant", constant=0).fit(X, CLASS)
    assert LabeledScorer()(always, X, y) == pytest.approx(1 / 3)  # of 18 labels; .1 of 60 rows
    assert LabeledScorer("balanced_accuracy")(always, X, y) == pytest.approx(1 / 3)
    assert LabeledScorer()(always, X, y, sample_weight=np.where(CLASS == 0, 1, 0)) == 1
    assert pickle.loads(pickle.dumps(LabeledScorer())) == LabeledScorer()
    with pytest.raises(ValueError, match="y has no label, so there is nothing to score"):
        LabeledScorer()(always, X, np.full(60, -1))
    with pytest.raises(ValueError, match="one label per row of X, 60; got 5"):
        LabeledScorer()(always, X, y[:5])
    real = np.where(KNOWN, X[:, 0], np.nan)
    mean = DummyRegressor().fit(X[KNOWN], real[KNOWN])
    assert LabeledScorer("r2")(mean, X, real) == pytest.approx(0)
    assert LabeledScorer(make_scorer(r2_score))(mean, X, real) == pytest.approx(0)


@BY_MISSING
def test_score_is_of_the_labeled_rows(y):
    model = tiny().fit(X, y)
    assert model.score(X, y) == 1
    wrong = [
        None if not known else model.classes_[(c + (c == 0)) % 3]
        for known, c in zip(KNOWN, CLASS, strict=True)
    ]
    assert model.score(X, wrong) == pytest.approx(2 / 3)
    assert model.score(X, wrong, sample_weight=np.where(CLASS == 0, 1, 0)) == 0
    with pytest.raises(ValueError, match="y has no label, so there is nothing to score"):
        model.score(X, [None] * 60)


def test_regressors_score_is_of_the_labeled_rows():
    y = np.where(KNOWN, X[:, 0], np.nan)
    options = {"hidden": (8,), "z_dim": 2, "gibbs_steps": 2}
    model = SemiSupervisedRegressor(
        options=options, epochs=1, min_steps=60, lr=0.03, random_state=0
    ).fit(X, y)
    assert model.score(X, y) == pytest.approx(r2_score(y[KNOWN], model.predict(X[KNOWN])))
    with pytest.raises(ValueError, match="y has no label"):
        model.score(X, np.full(60, np.nan))


# --- cross-validation and searches ----------------------------------------------------------------


@BY_MISSING
def test_cross_validation_counts_the_labels_alone(y):
    scores = cross_val_score(tiny(), X, y, cv=PartialLabelKFold(2))
    assert scores.tolist() == [1, 1]
    of_scorer = cross_val_score(
        tiny(), X, y, cv=PartialLabelKFold(2), scoring=LabeledScorer(), error_score="raise"
    )
    assert of_scorer.tolist() == [1, 1]


def test_scikit_learns_own_folds_do_not_count_rows_without_a_label():
    assert cross_val_score(tiny(), X, PARTIAL["-1"], cv=3).mean() == 1


@pytest.mark.parametrize("missing", ["-1", "NaN", "names, None"])
def test_a_grid_search_over_options(missing):
    grid = {"options__z_dim": [1, 2], "training__lr": [1e-7, 0.03]}
    model = tiny(method="m2", options={"hidden": (8,), "z_dim": 3})
    search = GridSearchCV(
        model, grid, cv=PartialLabelSplit(1, random_state=0), scoring=LabeledScorer("accuracy")
    )
    search.fit(X, PARTIAL[missing])
    assert search.best_params_["training__lr"] == 0.03 and search.best_score_ == 1
    best = search.best_estimator_
    assert best.options_["z_dim"] == best.options["z_dim"] == search.best_params_["options__z_dim"]
    assert (
        best.options_["hidden"] == (8,)
        and model.options == {"hidden": (8,), "z_dim": 3}
        and model.training is None
    )


def test_options_are_parameters_of_their_own():
    options = {"hidden": (8,)}
    model = tiny(options=options)
    assert model.get_params()["options__hidden"] == (
        8,
    ) and "options__hidden" not in model.get_params(deep=False)
    model.set_params(options__z_dim=2, training__lr=0.1, epochs=3)
    assert (
        model.options == {"hidden": (8,), "z_dim": 2}
        and model.training == {"lr": 0.1}
        and model.epochs == 3
    )
    assert options == {"hidden": (8,)}  # the caller's
    assert clone(model).get_params() == model.get_params()
    model.set_params(options={"hidden": (4,)}, options__z_dim=1)
    assert model.options == {"hidden": (4,), "z_dim": 1}
    with pytest.raises(
        ValueError, match="Invalid parameter 'option__z_dim'|Invalid parameter 'option'"
    ):
        model.set_params(option__z_dim=2)
    with pytest.raises(ValueError, match="options should be a dictionary"):
        model.set_params(options=[1], options__z_dim=2)

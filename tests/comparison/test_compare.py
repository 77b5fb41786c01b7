"""`compare`: what is trained on which labels, what is concluded, what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.semi_supervised import LabelSpreading

from pyro_ssl import SemiSupervisedClassifier, compare
from pyro_ssl.comparison import Comparison, Competitor, draw_comparison
from pyro_ssl.comparison.baselines import label_spreading, logistic_regression
from pyro_ssl.comparison.progress import Progress
from pyro_ssl.evaluation import plots

TINY = {"epochs": 1, "min_steps": 2}


def blobs(rows=40, labels=12, seed=0):
    y = np.arange(rows) % 2
    X = np.random.default_rng(seed).normal(size=(rows, 2)) + 4 * y[:, None]
    return X, np.where(np.arange(rows) < labels, y, -1)


def test_each_label_is_hidden_once_and_its_row_stays(monkeypatch):
    X, y = blobs()
    seen = []

    def fit(self, rows, labels):
        seen.append((self.method, self.options, rows.copy(), labels.copy()))
        self.classes_ = np.arange(2)
        return self

    def predict_proba(self, rows):
        return np.tile([0.75, 0.25], (len(rows), 1))

    monkeypatch.setattr(SemiSupervisedClassifier, "fit", fit)
    monkeypatch.setattr(SemiSupervisedClassifier, "predict_proba", predict_proba)
    comparison = compare(X, y, ["m2", "sslpe"], folds=3, options={"z_dim": 2, "hidden": (7,)})
    for method in ("m2", "sslpe", "classifier"):
        folds = [(rows, labels) for name, _, rows, labels in seen if name == method]
        assert len(folds) == 3
        hidden = np.stack([(labels < 0) & (y >= 0) for _, labels in folds])
        assert (hidden.sum(0) == (y >= 0)).all()
        for rows, labels in folds:
            assert np.array_equal(rows, X)
            assert np.array_equal(labels[labels >= 0], y[labels >= 0])
    options = {name: options for name, options, _, _ in seen}
    assert options["m2"] == {"z_dim": 2, "hidden": (7,)}
    assert options["classifier"] == {"hidden": (7,)}  # the same network as the methods'
    assert comparison.rows.tolist() == list(range(12)) and comparison.unlabeled == 28
    assert comparison["m2"].correct.sum() == 6


@pytest.mark.slow
def test_it_runs_and_is_repeatable():
    X, y = blobs()
    lines = []
    first = compare(X, y, folds=2, parameters=TINY, options={"z_dim": 1}, progress=lines.append)
    again = compare(X, y, folds=2, parameters=TINY, options={"z_dim": 1})
    names = ["m2", "labels alone", "logistic regression", "label spreading"]
    assert [competitor.name for competitor in first.competitors] == names
    assert lines[0] == "12 labels, each held out once: 2 folds of " + ", ".join(names)
    assert len(lines) == 1 + 2 * 2 + 2 and lines[1].startswith("m2: fold 1 of 2")
    for name in names:
        assert np.array_equal(first[name].probs, again[name].probs)
        assert np.allclose(first[name].probs.sum(1), 1)
    assert first["logistic regression"].correct.all() and first["label spreading"].correct.all()


def test_label_spreading_is_scikit_learns_and_reaches_all_rows():
    X, y = blobs(rows=60)
    rows = np.arange(12, 60)
    scaled = (X - X.mean(0)) / X.std(0)
    theirs = LabelSpreading(kernel="knn", n_neighbors=7, max_iter=1000).fit(scaled, y)
    assert np.allclose(label_spreading(X, y, rows), theirs.label_distributions_[rows])
    apart = np.concatenate([X, 1e3 + X[:20]])  # no label in the second part
    probs = label_spreading(apart, np.concatenate([y, np.full(20, -1)]), np.arange(60, 80))
    assert np.array_equal(probs, np.full((20, 2), 0.5))


def test_logistic_regression_takes_images():
    X, y = blobs()
    rows = np.arange(5)
    images = X.reshape(40, 1, 2, 1)
    assert np.allclose(logistic_regression(images, y, rows), logistic_regression(X, y, rows))


def made_up(n=100, **right):
    """A comparison in which each competitor is right in these rows."""
    y = np.zeros(n, dtype=int)
    competitors = []
    for name, rows in right.items():
        probs = np.tile([0.1, 0.9], (n, 1))
        probs[list(rows)] = [0.9, 0.1]
        competitors.append(Competitor(name.replace("_", " "), probs, y, 1.0))
    methods = tuple(name for name in right if name in ("m2", "sslpe"))
    return Comparison(tuple(competitors), methods, ("a", "b"), np.arange(n), 900, 5)


@pytest.mark.parametrize(
    ("right", "sentence"),
    [
        (
            {"m2": range(80), "labels_alone": range(60)},
            "With 100 labels, m2 is more accurate than the labels alone, by 20.0 points "
            "(95 % interval 11.7 to 27.5): use m2.",
        ),
        (
            {"m2": range(61), "labels_alone": range(60)},
            "With 100 labels, m2 and the labels alone cannot be told apart: the difference is "
            "1.0 points (95 % interval -1.7 to 3.7).",
        ),
        (
            {"m2": range(40), "labels_alone": range(60)},
            "With 100 labels, m2 is less accurate than the labels alone, by 20.0 points "
            "(95 % interval 11.7 to 27.5): use the labels alone.",
        ),
        (
            {"m2": range(80), "labels_alone": range(60), "label_spreading": range(95)},
            "With 100 labels, m2 is more accurate than the labels alone, by 20.0 points "
            "(95 % interval 11.7 to 27.5); use label spreading, which is more accurate than m2 by "
            "15.0 points (95 % interval 7.6 to 21.8).",
        ),
        (  # better than the method, but not than the labels alone
            {"m2": range(40), "labels_alone": range(90), "label_spreading": range(70)},
            "With 100 labels, m2 is less accurate than the labels alone, by 50.0 points "
            "(95 % interval 39.1 to 58.9): use the labels alone.",
        ),
        (
            {"m2": range(40), "labels_alone": range(60), "label_spreading": range(80)},
            "With 100 labels, m2 is less accurate than the labels alone, by 20.0 points "
            "(95 % interval 11.7 to 27.5); use label spreading, which is more accurate than the "
            "labels alone by 20.0 points (95 % interval 11.7 to 27.5).",
        ),
    ],
)
def test_the_recommendation_is_as_strong_as_the_interval(right, sentence):
    assert made_up(**right).recommendation == sentence


def test_the_best_of_several_methods_needs_a_wider_interval():
    right = {"m2": range(66), "labels_alone": range(60)}
    assert "more accurate" in made_up(**right).recommendation
    both = made_up(sslpe=range(50), **right)
    assert both.best_method == "m2"
    assert "97.5 % interval" in both.recommendation
    baselines = {"label_spreading": range(70), "logistic_regression": range(20)}
    assert "leads by 4.0 points (97.5 % interval" in made_up(**right, **baselines).recommendation


@pytest.mark.parametrize(
    ("right", "line"),
    [
        ({"m2": range(80)}, ""),
        ({"m2": range(80), "sslpe": range(60)}, ""),
        (
            {"m2": range(80), "sslpe": range(80)},
            "m2 and sslpe cannot be told apart: the difference is 0.0 points "
            "(95 % interval -1.9 to 1.9)",
        ),
        (
            {"m2": range(80), "sslpe": range(81)},
            "sslpe and m2 cannot be told apart: the difference is 1.0 points "
            "(95 % interval -1.7 to 3.7)",
        ),
    ],
)
def test_a_second_method_that_is_as_good_is_named(right, line):
    comparison = made_up(**right, labels_alone=range(40))
    assert "is more accurate than the labels alone" in comparison.recommendation
    assert comparison.tie == line


@pytest.mark.parametrize(
    ("right", "use"),
    [
        ({"m2": range(80), "labels_alone": range(60)}, "m2"),
        ({"m2": range(40), "labels_alone": range(90)}, "labels alone"),
        ({"m2": range(60), "labels_alone": range(62)}, "labels alone"),  # it cannot tell
        ({"m2": range(62), "labels_alone": range(60), "label_spreading": range(63)}, "label spre"),
    ],
)
def test_what_is_recommended_has_a_name(right, use):
    assert made_up(**right).recommended.startswith(use)


def test_a_next_step_where_the_labels_cannot_tell():
    assert made_up(m2=range(80), labels_alone=range(60)).next_step == ""
    few = made_up(m2=range(62), labels_alone=range(60)).next_step
    assert few.startswith("if the difference stays at 2.0 points, about ")
    none = made_up(m2=range(60), labels_alone=range(60)).next_step
    assert "right equally often; with about 400 labels, four times as many" in none
    tiny = made_up(m2=range(61), labels_alone=[*range(59), *range(90, 91)])
    assert "more than the 1000 rows at hand" in tiny.next_step and not tiny.can_be_labeled


def test_four_times_as_many_labels_can_be_more_than_the_rows():
    equal = replace(made_up(m2=range(60), labels_alone=range(60)), unlabeled=299)
    assert "more than the 399 rows at hand" in equal.next_step and not equal.can_be_labeled
    enough = replace(equal, unlabeled=300)
    assert "rows at hand" not in enough.next_step and enough.can_be_labeled


@pytest.mark.parametrize("right", [range(62), range(61), range(60), range(59)])
def test_what_more_labels_would_tell_is_said_once(right):
    comparison = made_up(m2=right, labels_alone=range(60))
    assert "labels" in comparison.next_step and "sure" not in comparison.next_step
    finding = comparison.recommendation.removeprefix("With 100 labels, ")
    assert "cannot be told apart" in finding and "more labels" not in finding


def test_the_time_left_is_that_of_the_folds_that_are_left():
    lines = []
    progress = Progress(
        lines.append, ["m2", "labels alone", "simple"], {"m2", "labels alone"}, 2, 9
    )
    progress.begin_fold("m2", 1)
    progress.fold_started -= 100
    progress.end_fold()
    assert progress.seconds_left() == pytest.approx(300, abs=5)  # as long as m2
    assert lines[0].startswith("m2: fold 1 of 2, ") and lines[0].endswith(
        " so far, about 5 min left"
    )
    progress.within("epoch 3 of 9")
    assert lines[1] == "m2, fold 1 of 2: epoch 3 of 9"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"X": 5}, "X should have shape"),
        ({"level": "a"}, "level should be a finite number, got 'a'"),
        ({"folds": "a"}, "folds should be a whole number"),
        ({"methods": 3}, "methods should be a name, or a list of names, .* got 3"),
        ({"methods": [3]}, "methods should be a name, or a list of names"),
        ({"options": 3}, "options should be a dictionary"),
        ({"parameters": "epochs"}, "parameters should be a dictionary"),
        ({"random_state": "a"}, "random_state should be a whole number"),
    ],
)
def test_arguments_of_the_wrong_kind_are_named(arguments, message):
    X, y = blobs()
    with pytest.raises((ValueError, TypeError), match=message):
        compare(**{"X": X, "y": y, **arguments})


def test_files_and_picture_hold_what_was_measured(tmp_path):
    comparison = made_up(m2=range(80), labels_alone=range(60), label_spreading=range(70))
    header, m2, alone, _ = comparison.csv().splitlines()
    record = dict(zip(header.split(","), m2.split(","), strict=True))
    assert record["accuracy"] == "0.8" and float(record["accuracy_difference"]) == 0.2
    assert alone.endswith(",,,,,,")
    plain = comparison.plain()
    assert plain["held_out"]["m2"]["prediction"].count("a") == 80
    figure = draw_comparison(comparison)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()][:2] == [
        "m2",
        "labels alone",
    ]
    assert plots.save(figure, tmp_path / "picture.png").exists()


@pytest.mark.parametrize(
    ("labels", "arguments", "message"),
    [
        (np.arange(40) % 2, {}, "label in each of its 40 rows, so there are no unlabeled rows"),
        (np.where(np.arange(40) < 5, 0, -1), {}, "class"),
        (np.array([0, 0, 0, 1] + [-1] * 36), {}, "two labels or more of each class.* got one of"),
        (blobs()[1], {"folds": 7}, r"folds should be in 2 \.\. 6"),
        (blobs()[1], {"methods": "classifier"}, "classifier is the labels alone"),
        (blobs()[1], {"methods": []}, "methods should name one"),
        (blobs()[1], {"options": {"z_dims": 3}}, "m2 have no option z_dims"),
        (blobs()[1], {"level": 95}, "level should be between 0 and 1, got 95"),
        (
            blobs()[1],
            {"parameters": {"epoch": 3}},
            "parameters should be of batch_size.* got epoch",
        ),
        (blobs()[1], {"parameters": {"options": {}}}, "parameters should be of .* got options"),
    ],
)
def test_what_cannot_be_compared_is_refused(labels, arguments, message):
    with pytest.raises(ValueError, match=message):
        compare(blobs()[0], labels, **arguments)


def test_masked_entries_are_refused_as_in_the_estimator():
    X, y = blobs()
    masked = np.ma.masked_array(X, mask=np.zeros(X.shape, dtype=bool))
    masked[0, 0] = np.ma.masked
    with pytest.raises(ValueError, match="X .*mask"):
        compare(masked, y)


def test_a_preset_without_the_labels_alone_is_refused_before_training():
    lines = []
    with pytest.raises(ValueError, match="preset paper-004 is of m2.*, not of classifier"):
        compare(*blobs(), "m2", parameters={"preset": "paper-004"}, progress=lines.append)
    assert not lines

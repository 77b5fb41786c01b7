"""The classifier for scikit-learn users."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin

from pyro_ssl.data.classes import encode
from pyro_ssl.data.missing_labels import describe_labels
from pyro_ssl.estimator.base import FitLabels, SemiSupervised
from pyro_ssl.estimator.defaults import class_frequencies
from pyro_ssl.model_selection import labeled_rows
from pyro_ssl.prediction.predict import predict_proba


class SemiSupervisedClassifier(ClassifierMixin, SemiSupervised):
    """A method of the zoo as a scikit-learn classifier that also learns from unlabeled rows.

    The class probabilities, for p(y) and `balance`, are the frequencies of the labels, with three
    pseudo-counts per class; `options={"class_probs": None}` makes them uniform.

    Arguments:
        method: Name in the zoo; `pyro-ssl list` prints all names.
        preset: Settings of a paper instead of the defaults, such as `paper-004`; `pyro-ssl list
            --presets` prints all. Parameters, options and arguments of `training` that are given
            win over it. Class probabilities are the preset's, too.
        epochs: Passes over the unlabeled or the labeled rows, see `pyro_ssl.fit`; by default 100,
            or the preset's.
        min_steps: Smallest number of steps; small tables, with few steps per epoch, get more
            epochs. By default 1000, or 0 with a preset.
        batch_size: Unlabeled rows per step; labeled rows are added. By default 200, or the
            preset's.
        lr: Largest learning rate; by default 3e-3, or the preset's.
        scale: Standardise each column (each pixel of an image) by its mean and standard deviation.
            None standardises columns and leaves images, which should be in [0, 1], as they are.
        options: Other options of the method, such as `{"z_dim": 2, "alpha": 10.0}`; see
            `zoo.options_of`. `column_defaults` gives the defaults for columns; for images they are
            the method's own.
        training: Other arguments of `pyro_ssl.fit`, such as `{"schedule": "cosine", "ema": 0.999}`.
        random_state: Seed of the weights, the order of the data and the noise.
        verbose: Show a progress bar, and the number of rows of each class and without a label.

    Attributes:
        classes_: Values of the labels, sorted; the order of the columns of `predict_proba`.
        class_count_: Number of labels of each class in `fit`, `(K,)`.
        n_unlabeled_: Number of rows without a label in `fit`.
        n_iter_: Number of epochs.
        history_: Lists of one number per epoch, by part of the loss.
        objective_: The trained objective.

    >>> X = np.random.default_rng(0).normal(size=(20, 2))
    >>> y = np.where(np.arange(20) < 6, np.arange(20) % 2, -1)
    >>> m2 = SemiSupervisedClassifier("m2", epochs=1, min_steps=1).fit(X, y)
    >>> m2.predict_proba(X).shape
    (20, 2)
    """

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict p(y|x), `(N, K)`, with columns in the order of `classes_`.

        Arguments:
            X: Data `(N, *event)`.
        """
        rows = self._rows(X)
        return predict_proba(self.objective_, rows).double().numpy()

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Predict log p(y|x), `(N, K)` nats; -inf where a probability is 0 in float32.

        Arguments:
            X: Data `(N, *event)`.

        >>> X = np.random.default_rng(0).normal(size=(20, 2))
        >>> y = np.where(np.arange(20) < 6, np.arange(20) % 2, -1)
        >>> m2 = SemiSupervisedClassifier("m2", epochs=1, min_steps=1).fit(X, y)
        >>> np.allclose(np.exp(m2.predict_log_proba(X)), m2.predict_proba(X))
        True
        """
        with np.errstate(divide="ignore"):
            logs: np.ndarray = np.log(self.predict_proba(X))
        return logs

    def predict(self, X: Any) -> np.ndarray:
        """Predict the likeliest class of each row, `(N,)`.

        Arguments:
            X: Data `(N, *event)`.
        """
        best = self.predict_proba(X).argmax(-1)  # before `classes_`: it reports a missing fit
        classes: np.ndarray = self.classes_[best]
        return classes

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy on the rows that have a label.

        Arguments:
            X: Data `(N, *event)`.
            y: Labels `(N,)`, missing as in `fit`.
            sample_weight: Weights `(N,)`.

        Raises:
            ValueError: No row has a label.
        """
        accuracy: float = super().score(*labeled_rows(X, y, sample_weight))
        return accuracy

    def _labels(self, y: Any, n: int) -> FitLabels:
        classes, indices = encode(y, n)
        known = indices >= 0
        counts = np.bincount(indices[known], minlength=len(classes))
        options = class_frequencies(self.method, counts)
        if self.verbose:
            print(describe_labels(indices, classes.tolist()))
        attributes = {
            "classes_": classes,
            "class_count_": counts,
            "n_unlabeled_": n - int(counts.sum()),
        }
        return FitLabels(indices, known, len(classes), options, attributes)

    def _saved_labels(self) -> tuple[list[Any], dict[str, Any]]:
        extra = {
            "dtype": self.classes_.dtype.str,
            "class_count": self.class_count_.tolist(),
            "n_unlabeled": self.n_unlabeled_,
        }
        return self.classes_.tolist(), extra

    def _load_labels(self, classes: list[Any], extra: dict[str, Any]) -> None:
        dtype = object if extra["dtype"] == "|O" else extra["dtype"]
        self.classes_ = np.array(classes, dtype=dtype)
        if "class_count" in extra:  # earlier versions did not save it
            self.class_count_ = np.array(extra["class_count"])
            self.n_unlabeled_ = extra["n_unlabeled"]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = False
        tags.classifier_tags.poor_score = False
        return tags

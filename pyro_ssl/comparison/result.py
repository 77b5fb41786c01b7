"""The result of a comparison: measures with intervals, and a recommendation."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pyro_ssl.comparison.intervals import (
    Interval,
    accuracy_interval,
    in_points,
    mean_interval,
    paired_accuracy_interval,
    paired_mean_interval,
    rows_to_tell,
)
from pyro_ssl.evaluation.reports import table

Array = np.ndarray[Any, Any]
LABELS_ALONE = "labels alone"
"""Name of the baseline: the classifier network, trained on the labels."""
LEAST_PROBABILITY = 1e-12
"""Smaller probabilities count as this one in log-likelihoods, as in `metrics.log_likelihood`."""


@dataclass(frozen=True)
class Competitor:
    """Held-out predictions of one competitor.

    Arguments:
        name: Its name.
        probs: Its class probabilities for the labeled rows, each held out once, `(n, K)`.
        y: The class indices of these rows, `(n,)`.
        seconds: Time of its training and prediction in all folds.
        python: The line of Python that trains it on all labels, with the X and y of `compare`.

    >>> Competitor("m2", np.array([[0.9, 0.1]]), np.array([0]), 1.0).correct.tolist()
    [True]
    """

    name: str
    probs: Array
    y: Array
    seconds: float
    python: str = ""

    @property
    def correct(self) -> Array:
        """Whether each row is predicted correctly, `(n,)`."""
        is_correct: Array = self.probs.argmax(1) == self.y
        return is_correct

    @property
    def log_probs(self) -> Array:
        """Log-probability of each row's class, `(n,)` nats."""
        own = self.probs[np.arange(len(self.y)), self.y]
        logs: Array = np.log(np.maximum(own, LEAST_PROBABILITY))
        return logs


class _Verdict(NamedTuple):
    """A sentence, and the competitor that it recommends."""

    text: str
    use: str


@dataclass(frozen=True)
class Comparison:
    """Methods and baselines on the same held-out labels.

    Arguments:
        competitors: Their predictions: the methods, then the baselines, with `labels alone` first.
        methods: Names of the methods.
        classes: Names of the classes.
        rows: Rows of the labels in the data, `(n,)`.
        unlabeled: Number of rows without a label.
        folds: Number of folds.
        level: Confidence level of the intervals.

    >>> probs = np.array([[0.9, 0.1], [0.2, 0.8]] * 10)
    >>> y = np.array([0, 1] * 10)
    >>> both = [Competitor("m2", probs, y, 1.0), Competitor("labels alone", probs, y, 1.0)]
    >>> Comparison(tuple(both), ("m2",), ("a", "b"), np.arange(20), 80, 5).recommendation
    'With 20 labels, m2 and the labels alone cannot be told apart: ...'
    """

    competitors: tuple[Competitor, ...]
    methods: tuple[str, ...]
    classes: tuple[str, ...]
    rows: Array
    unlabeled: int
    folds: int
    level: float = 0.95

    def __getitem__(self, name: str) -> Competitor:
        """The competitor of a name."""
        found = {competitor.name: competitor for competitor in self.competitors}
        if name not in found:
            raise KeyError(f"{name!r}; there are {', '.join(found)}")
        return found[name]

    def accuracy(self, name: str) -> Interval:
        """Accuracy on held-out labels."""
        return accuracy_interval(self[name].correct, self.level)

    def log_likelihood(self, name: str) -> Interval:
        """Mean log-probability of held-out labels, in nats; its interval ends at 0."""
        interval = mean_interval(self[name].log_probs, self.level)
        return interval._replace(high=min(0.0, interval.high))

    def accuracy_difference(self, name: str, other: str = LABELS_ALONE) -> Interval:
        """Accuracy minus that of another competitor, on the same labels."""
        return paired_accuracy_interval(self[name].correct, self[other].correct, self.level)

    def log_likelihood_difference(self, name: str, other: str = LABELS_ALONE) -> Interval:
        """Log-likelihood minus that of another competitor, on the same labels."""
        return paired_mean_interval(self[name].log_probs, self[other].log_probs, self.level)

    @property
    def best_method(self) -> str:
        """The method with the most correct predictions; the likelier ones decide a tie."""
        return max(self.methods, key=self._rank)

    def _rank(self, name: str) -> tuple[int, float]:
        return int(self[name].correct.sum()), float(self[name].log_probs.mean())

    @property
    def recommendation(self) -> str:
        """What the labels at hand say about the best method, in one sentence.

        With M methods, the interval has the level 1 - (1 - level) / M, since the best of several
        looks better than it is; and likewise for the best of the simple baselines. That one is
        compared with the more accurate of the best method and the labels alone.
        """
        return self._verdict.text

    @property
    def recommended(self) -> str:
        """The competitor to use; if the labels cannot tell, the one with more right predictions."""
        return self._verdict.use

    @property
    def next_step(self) -> str:
        """What would tell more, if the best method and the labels alone cannot be told apart.

        Empty if they can. The number of labels is rough: it assumes that the difference stays.
        """
        if self._difference.excludes_zero:
            return ""
        wanted = self._labels_wanted
        points = abs(100 * self._difference.estimate)
        text = f"if the difference stays at {points:.1f} points, about {wanted} labels would tell"
        if not self._difference.estimate:
            text = (
                f"{self.best_method} and the labels alone are right equally often; with about "
                f"{wanted} labels, four times as many, the interval would be about half as wide"
            )
        if not self.can_be_labeled:
            text += (
                f"; that is more than the {self._total} rows at hand, so for these data it may "
                "not matter"
            )
        return text

    @property
    def tie(self) -> str:
        """That the best two methods cannot be told apart; empty if they can, or with one method.

        With M methods, the interval has the level 1 - (1 - level) / (M - 1).
        """
        best = self.best_method
        others = [name for name in self.methods if name != best]
        if not others:
            return ""
        second = max(others, key=self._rank)
        level = 1 - (1 - self.level) / len(others)
        ahead = paired_accuracy_interval(self[best].correct, self[second].correct, level)
        if ahead.excludes_zero:
            return ""
        return (
            f"{best} and {second} cannot be told apart: the difference is {in_points(ahead, level)}"
        )

    @property
    def can_be_labeled(self) -> bool:
        """True if the data have as many rows as `next_step` asks labels for."""
        return self._labels_wanted <= self._total

    @property
    def _labels_wanted(self) -> int:
        """Number of labels that would tell; of equally good ones, that halves the interval."""
        needed = rows_to_tell(*self._pair, self._adjusted)
        if needed is None:
            return 4 * len(self.rows)
        return needed

    @property
    def _total(self) -> int:
        return len(self.rows) + self.unlabeled

    @property
    def _pair(self) -> tuple[Array, Array]:
        """Which rows are right: by the best method, and by the labels alone."""
        return self[self.best_method].correct, self[LABELS_ALONE].correct

    @property
    def _adjusted(self) -> float:
        """Level of the best method's interval: the best of several looks better than it is."""
        return 1 - (1 - self.level) / len(self.methods)

    @property
    def _difference(self) -> Interval:
        return paired_accuracy_interval(*self._pair, self._adjusted)

    @property
    def _leader(self) -> str:
        """The more accurate of the best method and the labels alone."""
        if self._difference.estimate < 0:
            return LABELS_ALONE
        return self.best_method

    @property
    def _verdict(self) -> _Verdict:
        start = f"With {len(self.rows)} labels, {self._finding}"
        simple = self._better_baseline(self._leader)
        if simple is not None:
            return _Verdict(f"{start}{simple.text}.", simple.use)
        if self._difference.excludes_zero:
            return _Verdict(f"{start}: use {_in_a_sentence(self._leader)}.", self._leader)
        return _Verdict(f"{start}.", self._leader)  # what may tell is in `next_step`

    @property
    def _finding(self) -> str:
        """Whether the best method is more accurate than the labels alone, as a clause."""
        best = self.best_method
        difference = self._difference
        numbers = in_points(difference, self._adjusted)
        if difference.low > 0:
            return f"{best} is more accurate than the labels alone, by {numbers}"
        if difference.high < 0:
            lead = Interval(-difference.estimate, -difference.high, -difference.low)
            numbers = in_points(lead, self._adjusted)
            return f"{best} is less accurate than the labels alone, by {numbers}"
        return f"{best} and the labels alone cannot be told apart: the difference is {numbers}"

    def _better_baseline(self, leader: str) -> _Verdict | None:
        """The simple baseline with more correct predictions than a competitor, if any."""
        simple = [c for c in self.competitors if c.name not in (*self.methods, LABELS_ALONE)]
        if not simple:
            return None
        strongest = max(simple, key=lambda competitor: int(competitor.correct.sum()))
        adjusted = 1 - (1 - self.level) / len(simple)  # the strongest of several looks stronger
        ahead = paired_accuracy_interval(strongest.correct, self[leader].correct, adjusted)
        if ahead.estimate <= 0:
            return None
        name = strongest.name
        numbers = in_points(ahead, adjusted)
        behind = _in_a_sentence(leader)
        text = f"; {name}, which is simpler, is not behind {behind}: it leads by {numbers}"
        if ahead.low > 0:
            text = f"; use {name}, which is more accurate than {behind} by {numbers}"
        return _Verdict(text, name)

    def table(self) -> str:
        """The measures as a Markdown table: accuracies in percent, log-likelihoods in nats."""
        rows = []
        for competitor in self.competitors:
            name = competitor.name
            cells = [_cell(self.accuracy(name), 100, 1), _cell(self.log_likelihood(name), 1, 3)]
            differences = ["", ""]
            if name != LABELS_ALONE:
                differences = [
                    _cell(self.accuracy_difference(name), 100, 1),
                    _cell(self.log_likelihood_difference(name), 1, 3),
                ]
            rows.append((name, *cells, *differences, f"{competitor.seconds:.0f}"))
        header = (
            f"{100 * self.level:g} % intervals",
            "accuracy, %",
            "log-likelihood",
            "accuracy - labels alone",
            "log-likelihood - labels alone",
            "seconds",
        )
        return table(header, rows)

    def records(self) -> list[dict[str, Any]]:
        """One dictionary per competitor, with the ends of each interval."""
        records = []
        for competitor in self.competitors:
            name = competitor.name
            record: dict[str, Any] = {
                "method": name,
                "labels": len(self.rows),
                "unlabeled": self.unlabeled,
                "folds": self.folds,
                "level": self.level,
                "seconds": round(competitor.seconds, 3),
            }
            measures = {
                "accuracy": self.accuracy(name),
                "log_likelihood": self.log_likelihood(name),
                "accuracy_difference": self.accuracy_difference(name),
                "log_likelihood_difference": self.log_likelihood_difference(name),
            }
            for measure, interval in measures.items():
                is_itself = name == LABELS_ALONE and measure.endswith("difference")
                ends = (None, None, None) if is_itself else interval
                record |= dict(zip(_names_of_ends(measure), ends, strict=True))
            records.append(record)
        return records

    def plain(self) -> dict[str, Any]:
        """Everything as plain data that JSON can hold, with each held-out prediction."""
        predictions = {
            competitor.name: {
                "prediction": [self.classes[k] for k in competitor.probs.argmax(1)],
                "log_probability": competitor.log_probs.tolist(),
            }
            for competitor in self.competitors
        }
        return {
            "recommendation": self.recommendation,
            "recommended": self.recommended,
            "tie": self.tie,
            "next_step": self.next_step,
            "classes": list(self.classes),
            "results": self.records(),
            "rows": self.rows.tolist(),
            "labels": [self.classes[k] for k in self.competitors[0].y],
            "held_out": predictions,
        }

    def csv(self) -> str:
        """The records as CSV."""
        records = self.records()
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return buffer.getvalue()


def _in_a_sentence(name: str) -> str:
    return f"the {name}" if name == LABELS_ALONE else name


def _names_of_ends(measure: str) -> tuple[str, str, str]:
    return measure, f"{measure}_low", f"{measure}_high"


def _cell(interval: Interval, unit: float, digits: int) -> str:
    estimate, low, high = (f"{unit * value:.{digits}f}" for value in interval)
    return f"{estimate} ({low} to {high})"

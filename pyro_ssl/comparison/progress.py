"""How far a comparison is, in lines of text."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from pyro_ssl.utils.durations import duration


class Progress:
    """Say what will be run, and after each fold how long the rest may take.

    Arguments:
        say: Called with each line; None says nothing.
        names: The competitors, in the order in which they are run.
        trained: Those of them that are trained by `fit`; the others take next to no time.
        folds: Number of folds.
        labels: Number of labels.

    >>> progress = Progress(print, ["m2", "logistic regression"], {"m2"}, folds=5, labels=20)
    >>> progress.begin()
    20 labels, each held out once: 5 folds of m2, logistic regression
    >>> progress.begin_fold("m2", 1)
    >>> progress.within("epoch 3 of 10")
    m2, fold 1 of 5: epoch 3 of 10
    """

    def __init__(
        self,
        say: Callable[[str], None] | None,
        names: Sequence[str],
        trained: Collection[str],
        folds: int,
        labels: int,
    ) -> None:
        self.say = say
        self.names = names
        self.trained = trained
        self.folds = folds
        self.labels = labels
        self.started = self.fold_started = time.perf_counter()
        self.name = ""
        self.number = 0
        self.seconds: dict[str, list[float]] = {name: [] for name in names}

    def begin(self) -> None:
        """Say what will be run."""
        names = ", ".join(self.names)
        self._say(f"{self.labels} labels, each held out once: {self.folds} folds of {names}")

    def begin_fold(self, name: str, number: int) -> None:
        """Note that a fold begins."""
        self.name = name
        self.number = number
        self.fold_started = time.perf_counter()

    def within(self, text: str) -> None:
        """Say a line about the training in the current fold."""
        self._say(f"{self.name}, fold {self.number} of {self.folds}: {text}")

    def end_fold(self) -> None:
        """Say how long the comparison has taken, and may take; one line for a quick baseline."""
        now = time.perf_counter()
        self.seconds[self.name].append(now - self.fold_started)
        if self.name not in self.trained and self.number < self.folds:
            return
        left = self.seconds_left()
        text = f"{self.name}: fold {self.number} of {self.folds}, {duration(now - self.started)}"
        if left >= 1:
            text += f" so far, about {duration(left)} left"
        self._say(text)

    def seconds_left(self) -> float:
        """Estimate of the time left: a method that has not begun takes as long as the last one."""
        left = 0.0
        per_fold = 0.0
        for name in self.names:
            seconds = self.seconds[name]
            if seconds:
                per_fold = sum(seconds) / len(seconds)
            if name in self.trained or seconds:
                left += (self.folds - len(seconds)) * per_fold
        return left

    def _say(self, text: str) -> None:
        if self.say is not None:
            self.say(text)

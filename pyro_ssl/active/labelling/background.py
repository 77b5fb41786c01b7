"""A model that learns in the background, while a person answers."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from pyro_ssl.training.threads import half_of_the_threads
from pyro_ssl.training.watch import StoppedError, Watch, watched
from pyro_ssl.utils.durations import duration
from pyro_ssl.utils.left_behind import leave_behind

PATIENCE = 10.0
"""Seconds that the end of a program waits for the current step of a training."""
QUIET = 1.0
"""Seconds of this wait before the terminal says why."""


class Background:
    """Run one training at a time in a thread; at the end of the block it is stopped.

    >>> with Background() as background:
    ...     background.start(lambda: None, labels=10)
    ...     background.wait()
    ...     background.is_running, background.status()["text"]
    (False, 'The model has learned from 10 labels. Questions after these come from it.')

    Arguments:
        patience: Seconds that the end of the block waits for the current step of a training.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self.patience = patience
        self._training: _Training | None = None  # the last one

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        """True while a training runs."""
        training = self._training
        return training is not None and training.is_running

    @property
    def labels(self) -> int:
        """Number of labels that the last training learns from, or has learned from."""
        training = self._training
        return 0 if training is None else training.labels

    def start(self, learn: Callable[[], Any], labels: int) -> None:
        """Start a training; the earlier one must have ended.

        Arguments:
            learn: Function that trains by `fit`.
            labels: Number of labels that it learns from, for the person.
        """
        self.wait()
        training = _Training(learn, labels)
        self._training = training
        try:
            training.thread.start()
        except RuntimeError:  # the system has no thread left
            self._training = None
            raise

    def wait(self) -> None:
        """Wait for the training.

        Raises:
            Exception: The error that ended it.
        """
        training = self._training
        if training is None:
            return
        training.wait()
        if training.error is not None:
            error = training.error
            training.error = None
            raise error

    def cancel(self) -> None:
        """End the training, if one runs, after its current step; do not wait for it."""
        if self._training is not None:
            self._training.watch.stop()

    def stop(self) -> None:
        """End the training, if one runs, after its current step, and wait for it.

        A step that takes longer than `patience` is left behind, and so is each step at Ctrl-C: the
        program ends without it.
        """
        self.cancel()
        training = self._training
        if training is None:
            return
        try:
            self._wait_for_step(training)
        finally:  # also at Ctrl-C
            if training.is_running:
                leave_behind(training.has_ended)

    def _wait_for_step(self, training: _Training) -> None:
        training.wait(min(QUIET, self.patience))
        if not training.is_running:
            return
        _say(
            f"waiting up to {duration(self.patience)} for the current step of the training; "
            "Ctrl-C ends at once"
        )
        training.wait(max(0.0, self.patience - QUIET))
        if training.is_running:
            _say("the step has not ended; the program ends without it")

    def join(self, seconds: float) -> None:
        """Wait for the training, but no longer than this."""
        if self._training is not None:
            self._training.wait(seconds)

    def check(self) -> None:
        """Raise the error that ended the training, if there is one."""
        if not self.is_running:
            self.wait()

    def acknowledge(self) -> None:
        """Stop to say that the last training has ended: its model chooses the questions."""
        if self._training is not None:
            self._training.is_told = True

    def status(self) -> dict[str, Any]:
        """What a page shows: a `text`, and the `share` of the training that is done, or None."""
        training = self._training  # once: another thread may start the next
        if training is None:
            return {"text": "", "share": None}
        if training.is_running:
            return {"text": _running_text(training), "share": training.watch.share}
        if training.error is not None:
            return {"text": "The training failed; see the terminal.", "share": None}
        text = ""
        if training.has_learned and not training.is_told:
            text = (
                f"The model has learned from {count_of_labels(training.labels)}. "
                "Questions after these come from it."
            )
        return {"text": text, "share": None}


class _Training:
    """One training: its thread, how far it is, and how it has ended.

    An event says that it has ended. The thread itself cannot: in Python 3.11, a thread counts as
    ended after a `join` that Ctrl-C has interrupted.

    Arguments:
        learn: Function that trains by `fit`.
        labels: Number of labels that it learns from.

    Attributes:
        has_ended: Set at its end, and not before it starts.
        error: The error that ended it.
        has_learned: It has ended, neither stopped nor by an error.
        is_told: The person knows that it has ended.
    """

    def __init__(self, learn: Callable[[], Any], labels: int) -> None:
        self.learn = learn
        self.labels = labels
        self.watch = Watch()
        self.has_ended = threading.Event()
        self.error: BaseException | None = None
        self.has_learned = False
        self.is_told = False
        # a daemon: the program must be able to end without it
        self.thread = threading.Thread(target=self._run, name="learning", daemon=True)

    @property
    def is_running(self) -> bool:
        """True until the thread has ended; also just before it starts."""
        return not self.has_ended.is_set()

    def wait(self, seconds: float | None = None) -> None:
        """Wait for its end; no longer than this, if seconds are given."""
        if self.has_ended.wait(seconds):
            self.thread.join()  # it has nothing left to do

    def _run(self) -> None:
        try:
            with half_of_the_threads(), watched(self.watch):
                self.learn()
            self.has_learned = True
        except StoppedError:
            pass
        except BaseException as error:
            self.error = error
            _say(f"the training failed: {error}")
        finally:
            self.has_ended.set()


def _running_text(training: _Training) -> str:
    labels = count_of_labels(training.labels)
    if training.watch.is_stopped:
        return f"The training on {labels} ends after its current step."
    left = training.watch.seconds_left
    if left is None:
        return f"The model learns from {labels}."
    return f"The model learns from {labels}: about {duration(max(1, left))} left."


def _say(text: str) -> None:
    print(f"\n{text}", file=sys.stderr, flush=True)


def count_of_labels(labels: int) -> str:
    """A number of labels as text.

    >>> count_of_labels(1), count_of_labels(10)
    ('1 label', '10 labels')
    """
    return "1 label" if labels == 1 else f"{labels} labels"

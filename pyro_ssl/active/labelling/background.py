"""A model that learns in the background, while a person answers."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from pyro_ssl.training.threads import half_of_the_threads
from pyro_ssl.training.watch import StoppedError, Watch, watched
from pyro_ssl.utils.durations import duration


class Background:
    """Run one training at a time in a thread; at the end of the block it is stopped.

    >>> with Background() as background:
    ...     background.start(lambda: None, labels=10)
    ...     background.wait()
    ...     background.is_running, background.status()["text"]
    (False, 'The model has learned from 10 labels. Questions after these come from it.')

    Attributes:
        labels: Number of labels that the last training learns from, or has learned from.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._watch = Watch()
        self.labels = 0
        self._error: BaseException | None = None
        self._is_told = True  # that the last training has ended

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        """True while a training runs."""
        thread = self._thread  # another thread may set it to None
        return thread is not None and thread.is_alive()

    def start(self, learn: Callable[[], Any], labels: int) -> None:
        """Start a training; the earlier one must have ended.

        Arguments:
            learn: Function that trains by `fit`.
            labels: Number of labels that it learns from, for the person.
        """
        self.wait()
        self._watch = Watch()
        self.labels = labels
        self._is_told = False
        self._thread = threading.Thread(target=self._run, args=(learn,), name="learning")
        self._thread.start()

    def wait(self) -> None:
        """Wait for the training.

        Raises:
            Exception: The error that ended it.
        """
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        if self._error is not None:
            error = self._error
            self._error = None
            raise error

    def stop(self) -> None:
        """End the training, if one runs, after its current step."""
        self._watch.stop()
        if self._thread is not None:
            self._thread.join()

    def join(self, seconds: float) -> None:
        """Wait for the training, but no longer than this."""
        if self._thread is not None:
            self._thread.join(seconds)

    def check(self) -> None:
        """Raise the error that ended the training, if there is one."""
        if not self.is_running:
            self.wait()

    def acknowledge(self) -> None:
        """Stop to say that the last training has ended: its model chooses the questions."""
        self._is_told = True

    def status(self) -> dict[str, Any]:
        """What a page shows: a `text`, and the `share` of the training that is done, or None."""
        if self.is_running:
            return {"text": self._running_text(), "share": self._watch.share}
        if self._error is not None:
            return {"text": "The training failed; see the terminal.", "share": None}
        text = ""
        if not self._is_told:
            text = (
                f"The model has learned from {count_of_labels(self.labels)}. "
                "Questions after these come from it."
            )
        return {"text": text, "share": None}

    def _running_text(self) -> str:
        text = f"The model learns from {count_of_labels(self.labels)}"
        left = self._watch.seconds_left
        return f"{text}." if left is None else f"{text}: about {duration(max(1, left))} left."

    def _run(self, learn: Callable[[], Any]) -> None:
        try:
            with half_of_the_threads(), watched(self._watch):
                learn()
        except StoppedError:
            pass
        except BaseException as error:
            self._error = error
            print(f"\nthe training failed: {error}", file=sys.stderr, flush=True)


def count_of_labels(labels: int) -> str:
    """A number of labels as text.

    >>> count_of_labels(1), count_of_labels(10)
    ('1 label', '10 labels')
    """
    return "1 label" if labels == 1 else f"{labels} labels"

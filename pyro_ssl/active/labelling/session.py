"""Rounds of questions to a person, and of learning from the answers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from pyro_ssl.active.labelling.background import Background, count_of_labels
from pyro_ssl.active.labelling.guesses import GuessRecord
from pyro_ssl.active.labelling.label_file import write_labels
from pyro_ssl.active.labelling.page import Description, Page
from pyro_ssl.active.labelling.question import Question
from pyro_ssl.active.learner import ActiveLearner

REFRESH = 0.5
"""Seconds between two updates of the time left, in the terminal."""
SECONDS_BETWEEN_LINES = 10.0
"""Seconds between two lines with the time left, in a file."""


@dataclass(frozen=True)
class Pool:
    """What the questions are about.

    Arguments:
        x: Images `(N, C, H, W)`, or rows of a table `(N, D)`.
        classes: Names of the classes.
        names: Names of the images, relative to `folder`; empty if they have none.
        folder: Folder of the images.
        cells: The cells of a table, by column; empty for images.
    """

    x: Tensor
    classes: list[str]
    names: tuple[str, ...] = ()
    folder: Path = Path()
    cells: dict[str, list[object]] | None = None

    def describe(self, row: int, *, path: bool) -> Description:
        """Name and values of a row, for the person.

        Arguments:
            row: The row.
            path: Give the whole path of an image, not its name.
        """
        name = f"row {row}"
        if self.names:
            name = str(self.folder / self.names[row]) if path else self.names[row]
        cells = self.cells or {}
        return {"name": name, "values": [[column, str(v[row])] for column, v in cells.items()]}


class Session:
    """Ask a person about a pool, and learn from the answers, in rounds.

    Each answer is on disk before the next question: in `asked.json`, and in `labels.csv` for other
    programs. The models learn in a thread. Unless `waits`, questions go on meanwhile: a model that
    has learned new labels chooses the questions of one round; until the next model is ready, they
    come from clusters without a label.

    Arguments:
        learner: The learner, with a directory.
        pool: What is asked about.
        page: Page to ask on; None asks in the terminal.
        background: Where the models learn.
        save: Called when a model has learned, in its thread.
        waits: Wait for each model before the next question.
    """

    def __init__(
        self,
        learner: ActiveLearner,
        pool: Pool,
        page: Page | None,
        background: Background,
        save: Callable[[], object],
        *,
        waits: bool = False,
    ) -> None:
        assert learner.directory is not None
        self.learner = learner
        self.pool = pool
        self.page = page
        self.background = background
        self.save = save
        self.waits = waits
        self.labels_file = learner.directory / "labels.csv"
        self.question = Question(
            learner.directory / "asked.json", pool.x, pool.classes, self.write_labels
        )
        self.record = GuessRecord(learner.directory / "guesses.json")
        self._chosen_by = 0  # labels that the model of the last model's round had learned
        if page is not None:
            page.learning = background.status
            page.tell("Looking for the first questions.")
            self._show_record()

    @property
    def labels(self) -> dict[int, int]:
        """The class of each labeled row, those of the open question included."""
        return self.learner.labels_by_row | self.question.labels

    def write_labels(self) -> None:
        """Write all labels for other programs."""
        write_labels(self.labels_file, self.labels, self.pool.classes, self.pool.names)

    def run(self, n: int, rounds: int) -> None:
        """Ask, n at a time, and learn until all labels are learned."""
        if self.learner.members:
            self.save()  # an earlier command may have been killed before it
        self.write_labels()
        print(f"labels: {len(self.labels)} so far, in {self.labels_file}", flush=True)
        for number in range(1, rounds + 1):
            print(f"round {number} of {rounds}", flush=True)
            if not self._ask(n):
                break
            if self.waits:
                self._learn_now()
        self._learn_now()

    # --- learning ---------------------------------------------------------------------------------

    def _learn(self) -> None:
        self.learner.learn(self.pool.x)
        self.save()

    def _start_learning(self) -> None:
        """Learn new labels in the background, unless the last ones are still being learned."""
        if self.background.is_running:
            return
        count = len(self.learner.indices)
        if count == self.learner.learned:
            return
        self.background.start(self._learn, count)

    def _learn_now(self) -> None:
        """Wait until all labels are learned; a training on only a part of them is ended."""
        if self.page is not None:
            self.page.tell("Learning from the labels so far.")
        if self.background.labels < len(self.learner.indices):
            self.background.cancel()
        self._wait()
        self._start_learning()
        self._wait()

    def _wait(self) -> None:
        is_terminal = sys.stdout.isatty()
        while self.background.is_running:
            text = self.background.status()["text"]
            if is_terminal:
                print(f"\r{text:<70}", end="", flush=True)
            else:
                print(text, flush=True)
            self.background.join(REFRESH if is_terminal else SECONDS_BETWEEN_LINES)
        if is_terminal:
            print("\r" + " " * 70 + "\r", end="")
        self.background.wait()

    # --- asking -----------------------------------------------------------------------------------

    def _ask(self, n: int) -> bool:
        """Ask for n labels, or continue an open question; return False without rows."""
        learner = self.learner
        question = self.question
        question.forget(learner.indices + learner.skipped)
        why = "These questions were open when the last command ended."
        if not question.rows:
            has_started = bool(learner.indices or learner.skipped)
            if has_started and not learner.num_unasked:
                print("all rows have been asked", flush=True)
                return False
            count = min(n, learner.num_unasked) if has_started else n
            why = self._choose(count)
        guesses = self._guesses()
        if not self.waits:
            self._start_learning()
        self._introduce(why)
        rows, labels = question.answered(
            self.page,
            guesses=guesses,
            counts=np.bincount(learner.labels, minlength=len(self.pool.classes)).tolist(),
            descriptions=self._descriptions(),
            why=why,
        )
        if self.page is not None:
            self.page.tell("Looking for the next questions.")
        answers = dict(zip(rows, labels, strict=True))
        self._compare(dict(zip(question.rows, guesses, strict=False)), answers)
        learner.teach(rows, labels, pool=self.pool.x, skipped=question.left_out, learn=False)
        self.write_labels()
        return True

    def _choose(self, n: int) -> str:
        """Choose n rows to ask about, and say where they come from."""
        learner = self.learner
        if self.waits:
            self._learn_now()
        self.background.check()
        trained = learner.trained  # once: the thread that learns may replace it at any time
        is_newest = trained.learned == len(learner.indices)
        by_model = bool(trained.members) and (is_newest or trained.learned > self._chosen_by)
        if by_model:
            self._chosen_by = trained.learned
            self.background.acknowledge()
            rows = learner.query_by(trained, self.pool.x, n)
            self.question.ask(rows.tolist(), by_model=True)
            labels = count_of_labels(trained.learned)
            return f"The model that learned from {labels} chose these: it is least sure."
        place = "clusters without a label" if learner.start == "diverse" else "the pool, at random"
        if learner.start == "diverse":
            print(f"looking for clusters among {len(self.pool.x)}", flush=True)
        if learner.indices:
            rows = learner.query_without_model(self.pool.x, n)
        else:  # nothing is learned yet; this also checks that the method suits the pool
            rows = learner.query(self.pool.x, n, learn=False)
        self.question.ask(rows.tolist())
        reason = "The model is still learning" if learner.indices else "There is no model yet"
        return f"{reason}: these come from {place}."

    def _guesses(self) -> list[tuple[int, float]]:
        """The likeliest class of each row of the question, and its probability."""
        if not self.learner.members:
            return []
        p = self.learner.committee.predict_proba(self.pool.x[self.question.rows])
        confidence, classes = p.max(-1)
        return list(zip(classes.tolist(), confidence.tolist(), strict=True))

    def _descriptions(self) -> list[Description]:
        is_terminal = self.page is None
        return [self.pool.describe(row, path=is_terminal) for row in self.question.rows]

    def _introduce(self, why: str) -> None:
        """Say in the terminal what is asked, and where to look."""
        kind = "images" if self.pool.x.dim() == 4 else "rows"
        count = len(self.question.rows)
        if self.page is not None:
            place = f": {self.page.address}"
        elif kind == "images":
            place = f"; all of them, numbered: {self.question.sheet}"
        else:
            place = ""
        print(f"{count} {kind}{place}\n{why}", flush=True)
        if self.page is None and not self.learner.members:
            print("There is no guess yet, since no model has learned.", flush=True)

    def _compare(self, guesses: dict[int, tuple[int, float]], answers: dict[int, int]) -> None:
        """Compare the model's guesses with the answers, which it has not learned from yet."""
        before = len(self.record.rounds)
        self.record.add(
            guesses,
            answers,
            labels=len(self.learner.indices) + len(answers),
            by_model=self.question.by_model,
        )
        self._show_record()
        if len(self.record.rounds) > before:
            last = self.record.rounds[-1]
            print(f"the model had guessed {last.right} of these {last.answers} labels", flush=True)

    def _show_record(self) -> None:
        if self.page is not None:
            self.page.guessed = [found.plain() for found in self.record.rounds]

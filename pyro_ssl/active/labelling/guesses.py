"""How many labels the model had guessed before it learned them, round by round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pyro_ssl.utils.files import CheckpointError, read_sealed, write_sealed


@dataclass(frozen=True)
class Guessed:
    """One round of answers, and how many of them the model had guessed.

    >>> Guessed(labels=20, answers=10, right=7, by_model=False).share
    0.7

    Arguments:
        labels: Labels in all after the round.
        answers: Answers in the round that are a class.
        right: Answers that the model had guessed. It had not learned them.
        by_model: A model had chosen the questions, so they are those of which it was least sure.
    """

    labels: int
    answers: int
    right: int
    by_model: bool

    @property
    def share(self) -> float:
        """Share of the answers that the model had guessed."""
        return self.right / self.answers

    def plain(self) -> dict[str, Any]:
        """The round as plain data."""
        return asdict(self)


class GuessRecord:
    """The rounds so far, in a JSON file; only those for which there was a model.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     record = GuessRecord(Path(folder) / "guesses.json")
    ...     record.add({5: (1, 0.9), 8: (0, 0.6)}, {5: 1, 8: 1}, labels=12, by_model=True)
    ...     GuessRecord(Path(folder) / "guesses.json").rounds
    [Guessed(labels=12, answers=2, right=1, by_model=True)]

    Arguments:
        path: The file.

    Raises:
        CheckpointError: The file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rounds: list[Guessed] = []
        if path.exists():
            self._read()

    def add(
        self,
        guesses: Mapping[int, tuple[int, float]],
        answers: Mapping[int, int],
        *,
        labels: int,
        by_model: bool,
    ) -> None:
        """Compare guesses with answers, and keep the counts; nothing happens without a guess.

        Arguments:
            guesses: The guessed class of each row that was asked, and its probability.
            answers: The class of each row that has one.
            labels: Labels in all, with these answers.
            by_model: A model had chosen the questions.
        """
        both = [row for row in answers if row in guesses]
        is_known = bool(self.rounds) and self.rounds[-1].labels >= labels
        if not both or is_known:  # known: a command was killed after it had counted
            return
        right = sum(guesses[row][0] == answers[row] for row in both)
        self.rounds.append(Guessed(labels, len(both), right, by_model))
        write_sealed(self.path, {"rounds": [found.plain() for found in self.rounds]})

    def _read(self) -> None:
        try:
            rounds = [Guessed(**found) for found in read_sealed(self.path)["rounds"]]
            if not all(0 <= r.right <= r.answers and r.answers > 0 for r in rounds):
                raise ValueError("its counts do not match")
        except CheckpointError:
            raise
        except (ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{self.path} is damaged: {error}") from None
        self.rounds = rounds

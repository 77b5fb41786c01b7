"""Questions to a person about images or rows, on a page or in the terminal.

Each answer is written to disk as soon as it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from pyro_ssl.active.labelling.page import Answers, Page
from pyro_ssl.active.labelling.terminal import ask_in_terminal
from pyro_ssl.active.pool import fingerprint
from pyro_ssl.evaluation import plots
from pyro_ssl.utils.files import CheckpointError, read_sealed, write_sealed


class Question:
    """Images of a pool that a person is asked about, and the answers so far, in a JSON file.

    For the terminal, a contact sheet of images, PNG, is written next to the file. The answers in an
    existing file are kept.

    >>> import torch
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     question = Question(Path(folder) / "asked.json", torch.rand(5, 1, 4, 4), ["cat", "dog"])
    ...     question.ask([3, 1])
    >>> question.rows
    [3, 1]

    Arguments:
        path: The file.
        pool: Images `(N, C, H, W)`, or rows of a table `(N, D)`.
        classes: Names of the classes.
        changed: Called after each answer, when it has been written.

    Attributes:
        rows: Rows of the pool that are asked for; empty if there is no open question.
        by_model: A model has chosen the rows.

    Raises:
        ValueError: The file belongs to another pool or to other classes.
        CheckpointError: The file is damaged.
    """

    def __init__(
        self,
        path: Path,
        pool: Tensor,
        classes: Sequence[str],
        changed: Callable[[], object] = lambda: None,
    ) -> None:
        self.path = path
        self.changed = changed
        self.pool = pool
        self.classes = list(classes)
        self.rows: list[int] = []
        self.by_model = False
        self._answers: Answers = {}  # by row
        if path.exists():
            self._read()

    @property
    def left_out(self) -> list[int]:
        """Rows that were answered with no class."""
        return [row for row in self.rows if self._answers.get(row, 0) is None]

    def ask(self, rows: Sequence[int], *, by_model: bool = False) -> None:
        """Start a question about other rows.

        Arguments:
            rows: The rows.
            by_model: A model has chosen them.
        """
        self.rows = list(rows)
        self.by_model = by_model
        self._answers = {}
        self._write({})

    def forget(self, known: Iterable[int]) -> None:
        """Drop rows whose answers are stored elsewhere."""
        stored = set(known)
        self.rows = [row for row in self.rows if row not in stored]

    def answered(self, page: Page | None, **beside: Any) -> tuple[list[int], list[int]]:
        """Wait for all answers and return the rows that have a class, and their classes.

        Arguments:
            page: Page to ask on; None asks in the terminal.
            beside: What is shown beside the images; see `Page.ask`.
        """
        images = self._display()
        before = {i: self._answers[row] for i, row in enumerate(self.rows) if row in self._answers}
        if page is None:
            if images is not None:
                plots.save(plots.contact_sheet(images), self.sheet)
            shown = {k: v for k, v in beside.items() if k in ("guesses", "descriptions")}
            kind = "row" if images is None else "image"
            answers = ask_in_terminal(
                self.classes, len(self.rows), before, self._keep, kind=kind, **shown
            )
        else:
            answers = page.ask(images, before, self._keep, **beside)
        self._answers = {self.rows[i]: label for i, label in answers.items()}
        labels = self.labels
        return list(labels), list(labels.values())

    @property
    def labels(self) -> dict[int, int]:
        """The class of each row that has been given one."""
        return {
            row: label
            for row, label in self._answers.items()
            if label is not None and row in self.rows
        }

    @property
    def sheet(self) -> Path:
        """The contact sheet of the images."""
        return self.path.with_suffix(".png")

    def _display(self) -> Tensor | None:
        """Images in [0, 1], with one scale for the whole pool; None for rows of a table."""
        if self.pool.dim() != 4:
            return None
        low = float(self.pool.min())
        high = float(self.pool.max())
        images = self.pool[self.rows]
        if 0 <= low and high <= 1:
            return images
        scale = (high - low) or 1.0
        return (images - low) / scale

    def _identity(self) -> dict[str, Any]:
        return {"pool": list(fingerprint(self.pool)), "classes": self.classes}

    def _keep(self, answers: Answers) -> None:
        self._write(answers)
        self._answers = {self.rows[i]: label for i, label in answers.items()}
        self.changed()

    def _write(self, answers: Answers) -> None:
        by_row = {str(self.rows[i]): label for i, label in answers.items()}
        content = {"rows": self.rows, "by_model": self.by_model, "answers": by_row}
        write_sealed(self.path, self._identity() | content)

    def _read(self) -> None:
        try:
            data = read_sealed(self.path)
            self.rows = [int(row) for row in data["rows"]]
            self.by_model = data.get("by_model") is True
            self._answers = {int(row): label for row, label in data["answers"].items()}
            pool = data["pool"]
            classes = data["classes"]
        except CheckpointError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{self.path} is damaged: {error}") from None
        identity = self._identity()
        folder = self.path.parent
        if pool != identity["pool"]:
            raise ValueError(f"--data: the labels in {folder} belong to other images")
        if classes != identity["classes"]:
            raise ValueError(
                f"--classes: the labels in {folder} belong to the classes {', '.join(classes)}, "
                f"got {', '.join(self.classes)}"
            )
        self._check_values()

    def _check_values(self) -> None:
        for label in self._answers.values():
            if label is not None and not _is_class(label, self.classes):
                last = len(self.classes) - 1
                raise CheckpointError(
                    f"{self.path} is damaged: there is no class {label!r}, only 0 .. {last}"
                )
        for row in self.rows:
            if not 0 <= row < len(self.pool):
                last = len(self.pool) - 1
                raise CheckpointError(f"{self.path} is damaged: row {row} is not in 0 .. {last}")


def _is_class(label: Any, classes: Sequence[str]) -> bool:
    return type(label) is int and 0 <= label < len(classes)

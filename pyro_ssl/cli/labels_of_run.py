"""The labels of a run: those that are drawn, and those of them that are set aside."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_ssl import data
from pyro_ssl.model_selection import PartialLabelSplit

DEFAULT_LABELS = 100
"""Labels of a run whose data have a label in each row."""


class RowsOfRun(NamedTuple):
    """The labeled rows of a run.

    Arguments:
        draw: The labeled rows, including those for validation.
        labels: Class indices to train on, `(N,)`; -1 for rows without a label, or set aside.
        set_aside: Indices of the labeled rows for validation; empty without them.
    """

    draw: data.LabelDraw
    labels: Tensor
    set_aside: Tensor


def rows_of_run(dataset: data.Dataset, config: dict[str, Any]) -> RowsOfRun:
    """Choose the labeled rows of a run, and those of them for validation.

    Raises:
        ValueError: The labels are too few to draw, or to set a share of them aside.

    >>> config = {"label_file": None, "labels": 20, "how": "balanced", "seed": 0}
    >>> rows = rows_of_run(data.load("digits"), config | {"validation": 0.5})
    >>> len(rows.draw.indices), int((rows.labels >= 0).sum()), len(rows.set_aside)
    (20, 10, 10)
    """
    draw = labeled_rows_of_run(dataset, config)
    labels = draw.masked_labels(dataset.y)
    if not config["validation"]:
        return RowsOfRun(draw, labels, torch.empty(0, dtype=torch.int64))
    part = PartialLabelSplit(1, test_size=config["validation"], random_state=config["seed"])
    try:
        _, rows = next(iter(part.split(labels, labels)))
    except ValueError as error:
        raise ValueError(
            f"--validation: {config['validation']} of the labels cannot be set aside: {error}; "
            "give another share, or more labels"
        ) from None
    set_aside = torch.as_tensor(rows)
    kept = labels.clone()
    kept[set_aside] = -1
    return RowsOfRun(draw, kept, set_aside)


def labeled_rows_of_run(dataset: data.Dataset, config: dict[str, Any]) -> data.LabelDraw:
    """Choose the labeled rows of a run.

    >>> config = {"label_file": None, "labels": 20, "how": "balanced", "seed": 0}
    >>> len(labeled_rows_of_run(data.load("digits"), config).indices)
    20
    """
    label_file = config["label_file"]
    if label_file and not is_label_table(label_file):
        return data.LabelDraw.load(label_file)
    labels = config["labels"]
    if label_file and labels is None:
        labels = "all"
    is_labeled = dataset.y >= 0
    if labels is None:
        labels = min(DEFAULT_LABELS, len(is_labeled)) if is_labeled.all() else "all"
    if labels == "all":
        rows = is_labeled.nonzero().flatten().tolist()
        return data.LabelDraw(tuple(rows), len(is_labeled), "all")
    return data.draw_labels(dataset.y, labels, how=config["how"], seed=config["seed"])


def is_label_table(label_file: str | None) -> bool:
    """Whether a file of `--label-file` has labels, as CSV, and not only the labeled rows.

    >>> is_label_table("asked/labels.csv"), is_label_table("draw.json"), is_label_table(None)
    (True, False, False)
    """
    return label_file is not None and label_file.lower().endswith(".csv")

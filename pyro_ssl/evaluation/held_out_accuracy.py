"""Accuracy after every epoch on labels that are set aside from training."""

from __future__ import annotations

from typing import Any

from pyro_ssl.evaluation import metrics
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.training.callbacks import Epoch
from pyro_ssl.utils.arguments import as_class_indices


class Accuracy:
    """Accuracy on labels that were set aside, as a callback of `fit`.

    The history, the progress bar, `metrics.jsonl` and the logs show it as `val_accuracy`. Its
    `score` can also be the score of `EarlyStopping`. Set aside labels of the training set, never of
    the test set, and give `fit` -1 in their place.

    >>> import torch
    >>> from pyro_ssl import fit, zoo
    >>> x = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
    >>> y = torch.arange(60) % 2
    >>> labels = y.where(torch.arange(60) < 20, -1)
    >>> accuracy = Accuracy(x[20:30], y[20:30])
    >>> objective = zoo.build("m2", 4, 2, hidden=(8,))
    >>> history = fit(objective, x, labels, epochs=2, callbacks=[accuracy])
    >>> len(history["val_accuracy"]), history["val_accuracy"][-1] == accuracy.score(objective)
    (2, True)

    Arguments:
        x: Data `(N, *event)`.
        y: Their class indices `(N,)`.
        name: Name of the measurement.

    Raises:
        ValueError: y is empty, has another length than x, or a row has no label.
    """

    def __init__(self, x: Any, y: Any, name: str = "val_accuracy") -> None:
        self.x = x
        self.y = as_class_indices(y, len(x))
        self.name = name
        if not len(self.y) or int(self.y.min()) < 0:
            raise ValueError("y should hold a class index for each row, got none, or -1 for some")

    def score(self, objective: Objective) -> float:
        """Return the share of correct predictions."""
        return metrics.accuracy(predict_proba(objective, self.x), self.y.cpu())

    def __call__(self, epoch: Epoch) -> dict[str, float]:
        """Measure an epoch."""
        return {self.name: self.score(epoch.objective)}

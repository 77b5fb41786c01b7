"""Data sets of torch Datasets."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from pyro_ssl import data


def test_torch_datasets():
    x = torch.rand(6, 1, 4, 4)
    train = TensorDataset(x, torch.tensor([3, 5, 3, 5, 3, 5]))
    d = data.from_torch(train, TensorDataset(x[:2], torch.tensor([5, 3])))
    assert torch.equal(d.x, x)
    assert (d.classes, d.y.tolist(), d.y_test.tolist()) == (("3", "5"), [0, 1] * 3, [1, 0])
    with pytest.raises(ValueError, match="dataset is empty"):
        data.from_torch(TensorDataset(x[:0], x[:0]), train)


@pytest.mark.parametrize(
    "make", [float, int, str, np.int32, np.float32, torch.tensor, lambda v: torch.tensor(float(v))]
)
def test_labels_of_torch_datasets_are_taken_as_they_are(make):
    rows = lambda labels: [(torch.full((1, 2, 2), float(v)), make(v)) for v in labels]  # noqa: E731
    d = data.from_torch(rows([3, 5, 3]), rows([5, 3]))
    assert d.y.tolist() == [0, 1, 0] and d.y_test.tolist() == [1, 0]
    assert d.classes == (("3", "5"))


@pytest.mark.parametrize("missing", [None, -1, float("nan"), torch.tensor(-1)])
def test_rows_of_torch_datasets_without_a_label(missing):
    rows = [(torch.ones(2), label) for label in (0, 1, missing)]
    assert data.from_torch(rows, rows[:2]).y.tolist() == [0, 1, -1]


BAD_ROWS = {
    "continuous": ([(torch.ones(2), 0.2), (torch.ones(2), 1.7)], ValueError, "continuous values"),
    "strings and numbers": (
        [(torch.ones(2), "0"), (torch.ones(2), 1)],
        ValueError,
        "strings or numbers; got both",
    ),
    "pictures": (
        [(Image.new("L", (2, 2)), k) for k in (0, 1)],
        TypeError,
        "train: x should be .* got PIL images",
    ),
    "shapes": (
        [(torch.ones(2), 0), (torch.ones(3), 1)],
        ValueError,
        "train should return x of one shape",
    ),
    "no pairs": ([torch.ones(3)], TypeError, r"train should return pairs \(x, y\)"),
    "no length": (iter([]), TypeError, "train should be a torch Dataset .* with a length"),
}


@pytest.mark.parametrize(("rows", "error", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_torch_datasets_are_refused(rows, error, message):
    with pytest.raises(error, match=message):
        data.from_torch(rows, [(torch.ones(2), 0)])

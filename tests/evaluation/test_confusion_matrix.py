"""The confusion matrix: rows are the true classes; many classes do not make a huge picture."""

import numpy as np
import torch

from pyro_ssl.evaluation import plots


def test_rows_are_the_classes_of_the_data():
    y = torch.tensor([0, 0, 0, 1])
    ax = plots.confusion_matrix(torch.tensor([0, 1, 1, 1]), y, ["a", "b", "c"]).axes[0]
    assert np.array_equal(ax.images[0].get_array(), [[1, 2, 0], [0, 1, 0], [0, 0, 0]])
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b", "c"]


def test_many_classes_are_colours_with_some_names():
    y = torch.arange(100)
    figure = plots.confusion_matrix(y, y, [str(k) for k in range(100)])
    (ax,) = figure.axes
    assert max(figure.get_size_inches()) < 20 and not ax.texts
    assert [tick.get_text() for tick in ax.get_xticklabels()] == [str(k) for k in range(0, 100, 3)]
    assert list(ax.get_xticks()) == list(range(0, 100, 3))

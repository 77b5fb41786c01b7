"""Sections of a run's report: settings, measures, mistakes, least certain data, samples, maps."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_ssl.data.datasets import Dataset
from pyro_ssl.evaluation import metrics, ood, plots
from pyro_ssl.evaluation.calibration import reliability
from pyro_ssl.evaluation.html_report import Cell, Picture, Section, Table
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.prediction.bounds import bounds
from pyro_ssl.prediction.generate import NoDataError
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.types import GenerativeModel
from pyro_ssl.utils.arguments import as_numbers

SHOWN = 10
"""Rows in a list of data."""
MAP_ROWS = 2000
"""Most rows of a map."""
SAMPLES = 8
"""Samples of each class."""


def sections(objective: Objective, dataset: Dataset, labels: Tensor | None) -> list[Section]:
    """Show how a method does on its data: all the sections below but the settings.

    Arguments:
        objective: The method.
        dataset: Its data set, with a test part.
        labels: Class indices of the training rows `(N,)`, -1 for those without a label; None if
            the training rows are not at hand.
    """
    return [
        *test_sections(objective, dataset),
        *surprising_data(objective, dataset),
        *sample_sections(objective, dataset),
        *map_sections(objective, dataset, labels),
    ]


def settings_section(settings: Mapping[str, Any], title: str = "What was run") -> Section:
    """List settings by name.

    Arguments:
        settings: Values by name.
        title: Title of the section.

    >>> settings_section({"z_dim": 50, "top_k": None}).tables[0].rows
    [('z_dim', '50'), ('top_k', 'None')]
    """
    rows = [(name, str(value)) for name, value in settings.items()]
    return Section(title, tables=[Table(("setting", "value"), rows)])


def test_sections(objective: Objective, dataset: Dataset) -> list[Section]:
    """Show how a method does on the test set.

    Measures and calibration, the confusion matrix, the rows that it is least certain of, and those
    whose own class it thinks least likely.

    Arguments:
        objective: The method.
        dataset: Its data set, with a test part.

    >>> from pyro_ssl import data, zoo
    >>> digits = data.digits(n_test=20)
    >>> classifier = zoo.build("classifier", digits.x_shape, 10, hidden=(8,))
    >>> [section.title for section in test_sections(classifier, digits)]
    ['Test set', 'Confusion matrix', 'Least certain', 'Most surprising labels']
    """
    probs = predict_proba(objective, dataset.x_test)
    y = dataset.y_test
    curve = plots.reliability({dataset.name: reliability(probs, y)})
    measures = [(name, f"{value:.4f}") for name, value in metrics.evaluate(probs, y).items()]
    confusion = plots.confusion_matrix(probs.argmax(-1), y, dataset.classes)
    own = probs.gather(1, y.unsqueeze(1)).squeeze(1)
    return [
        Section(
            "Test set",
            f"{len(y)} rows. Where the method is calibrated, the bars reach the diagonal.",
            [Table(("measure", "value"), measures)],
            [Picture.of_figure(curve, "accuracy against confidence")],
        ),
        Section(
            "Confusion matrix",
            "Rows are the classes of the data, columns the classes that were predicted.",
            pictures=[Picture.of_figure(confusion, "counts of predicted classes by class")],
        ),
        Section(
            "Least certain",
            "The test rows whose likeliest class has the lowest probability.",
            [_rows_table(dataset, probs, probs.max(-1).values)],
        ),
        Section(
            "Most surprising labels",
            "The test rows whose own class has the lowest probability.",
            [_rows_table(dataset, probs, own)],
        ),
    ]


def surprising_data(objective: Objective, dataset: Dataset, seed: int = 0) -> list[Section]:
    """Show the test rows with the lowest bound on log p(x); none without a model of x.

    With a pretrained encoder, it is that of the density of the mean code; see `bounds`.

    Arguments:
        objective: The method.
        dataset: Its data set, with a test part.
        seed: Seed of the draws.
    """
    with objective.programs() as (model, _):
        generates = isinstance(model, GenerativeModel)
    if not generates:
        return []
    bound = bounds(objective, dataset.x_test, seed=seed)
    table = _rows_table(dataset, predict_proba(objective, dataset.x_test), bound, "bound, nats")
    density = "log p(x)" if objective.features is None else "the log-density of their mean code"
    text = f"The test rows with the lowest bound on {density}."
    return [Section("Most surprising data", text, [table])]


def sample_sections(objective: Objective, dataset: Dataset, seed: int = 0) -> list[Section]:
    """Show samples of each class; none without images, or without a model that draws them.

    Arguments:
        objective: The method.
        dataset: Its data set.
        seed: Seed of the draws.
    """
    generates_codes = objective.features is not None
    if len(dataset.x_shape) != 3 or generates_codes:
        return []
    try:
        figure = plots.class_samples(objective, dataset.classes, SAMPLES, seed=seed)
    except NoDataError:  # the method has no p(x|y)
        return []
    picture = Picture.of_figure(figure, "samples, a column for each class")
    return [
        Section("Samples", "Images that the model draws, a column for each class.", (), [picture])
    ]


def map_sections(objective: Objective, dataset: Dataset, labels: Tensor | None) -> list[Section]:
    """Show p(y|x) over the plane of data with two columns, or else the features in a plane.

    Arguments:
        objective: The method.
        dataset: Its data set.
        labels: See `sections`.
    """
    if dataset.x_shape == (2,) and labels is not None:
        x = as_numbers(dataset.x)
        axes = plots.decision_regions(objective, x, labels, classes=dataset.classes)
        picture = Picture.of_figure(axes, "decision regions over the plane")
        return [
            Section("Decision regions", "p(y|x) as colour, labeled rows as marks.", (), [picture])
        ]
    size = len(dataset.x_test)
    # rows at equal distances, since those of a file may be sorted by class
    rows = torch.arange(0, size, max(1, -(-size // MAP_ROWS)))
    x = dataset.x_test[rows]
    y = dataset.y_test[rows]
    features = ood.features(objective, x)
    if features is None or features.shape[1] < 2 or len(x) < 3:
        return []
    figure = plots.feature_map(features, y, dataset.classes)
    text = (
        "The first two principal components of the features that the method classifies, for "
        f"{len(x)} test rows."
    )
    return [Section("Map", text, (), [Picture.of_figure(figure, "features in a plane")])]


def _rows_table(dataset: Dataset, probs: Tensor, scores: Tensor, score: str | None = None) -> Table:
    """The test rows with the lowest scores; the score is a column if it has a name."""
    rows = []
    for i in scores.argsort(stable=True)[:SHOWN].tolist():
        cells: list[Cell] = [i, *_image_cell(dataset, i)]
        confidence, guess = probs[i].max(-1)
        cells += [dataset.classes[int(guess)], f"{float(confidence):.3f}"]
        own = int(dataset.y_test[i])
        cells += [dataset.classes[own], f"{float(probs[i, own]):.3f}"]
        if score is not None:
            cells.append(f"{float(scores[i]):.1f}")
        rows.append(cells)
    image = ["image"] if _has_images(dataset) else []
    header = ["row", *image, "predicted", "its probability", "class", "its probability"]
    return Table([*header, *([score] if score else [])], rows)


def _has_images(dataset: Dataset) -> bool:
    return len(dataset.x_shape) == 3 and dataset.x_shape[0] in (1, 3)


def _image_cell(dataset: Dataset, i: int) -> Iterable[Cell]:
    if not _has_images(dataset):
        return []
    return [Picture(_png(as_numbers(dataset.x_test[i : i + 1])[0]), f"test row {i}", enlarged=True)]


def _png(image: Tensor) -> bytes:
    """An image `(C, H, W)` in [0, 1] as PNG, pixel by pixel."""
    from PIL import Image

    levels = (image.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    pixels = levels[0] if len(levels) == 1 else levels.permute(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, format="png")
    return file.getvalue()

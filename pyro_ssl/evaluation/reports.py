"""Tables and pictures that `pyro-ssl evaluate` writes about a trained method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from pyro_ssl.data.datasets import Dataset
from pyro_ssl.evaluation import metrics, ood, plots, style
from pyro_ssl.evaluation.attacks import Attack, under_attack
from pyro_ssl.evaluation.calibration import calibration_test, reliability
from pyro_ssl.evaluation.corruptions import SEVERITIES, under_corruption
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.utils.arguments import is_pixels

ATTACK_TITLES = {"fgsm": "fast gradient sign method", "pgd": "projected gradient ascent"}
AIM_TITLES = {
    "loss": "raises the loss",
    "logits": "raises a wrong logit",
    "either": "worse of both",
}


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    r"""Format a Markdown table with aligned columns; bars in cells are escaped.

    >>> print(table(["score", "AUROC"], [["log p(x|z)", 0.9]]))
    | score       | AUROC |
    |-------------|-------|
    | log p(x\|z) | 0.9   |
    """
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = []
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("| " + " | ".join(padded) + " |")
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def test_report(objective: Objective, dataset: Dataset, out: Path) -> dict[str, float]:
    """Measure accuracy, log-likelihood, Brier score and calibration; draw `reliability.png`.

    Arguments:
        objective: The method.
        dataset: Its data set.
        out: Folder of the picture.

    >>> from tempfile import TemporaryDirectory
    >>> from pyro_ssl import data, zoo
    >>> digits = data.digits(n_test=20)
    >>> classifier = zoo.build("classifier", digits.x_shape, 10, hidden=(8,))
    >>> with TemporaryDirectory() as folder:
    ...     sorted(test_report(classifier, digits, Path(folder)))[0]
    'accuracy'
    """
    probs = predict_proba(objective, dataset.x_test)
    y = dataset.y_test
    figure = plots.reliability({dataset.name: reliability(probs, y)})
    plots.save(figure, out / "reliability.png")
    return metrics.evaluate(probs, y) | {"calibration_p_value": calibration_test(probs, y)}


def class_report(objective: Objective, dataset: Dataset) -> str:
    """Rows of each class, the share that is found, and the class most often taken for it.

    Arguments:
        objective: The method.
        dataset: Its data set.

    >>> from pyro_ssl import data, zoo
    >>> digits = data.digits(n_test=20)
    >>> classifier = zoo.build("classifier", digits.x_shape, 10, hidden=(8,))
    >>> len(class_report(classifier, digits).splitlines())
    12
    """
    predicted = predict_proba(objective, dataset.x_test).argmax(-1)
    rows = []
    for k, name in enumerate(dataset.classes):
        of_class = predicted[dataset.y_test == k]
        if not len(of_class):
            rows.append((name, 0, "", ""))
            continue
        counts = of_class.bincount(minlength=len(dataset.classes))
        found = 100 * int(counts[k]) / len(of_class)
        counts[k] = 0
        mistaken = dataset.classes[int(counts.argmax())] if counts.any() else ""
        rows.append((name, len(of_class), f"{found:.1f}", mistaken))
    return table(("class", "rows", "found, %", "most often taken for"), rows)


def ood_report(
    objective: Objective,
    dataset: Dataset,
    others: dict[str, Tensor],
    labeled: tuple[Tensor, Tensor] | None,
    out: Path,
) -> str:
    """Measure how well each score separates other data from the test data; draw `ood.png`.

    Arguments:
        objective: The method.
        dataset: Its own data set.
        others: Data of other data sets, by name.
        labeled: Data and their classes, for densities of features; None leaves out the score
            `log p(z), refitted`.
        out: Folder of the picture.

    >>> from tempfile import TemporaryDirectory
    >>> from pyro_ssl import data, zoo
    >>> digits = data.digits(n_test=20)
    >>> classifier = zoo.build("classifier", digits.x_shape, 10, hidden=(8,))
    >>> with TemporaryDirectory() as folder:
    ...     others = {"negatives": 1 - digits.x_test}
    ...     text = ood_report(classifier, digits, others, None, Path(folder))
    >>> text.splitlines()[2].split("|")[1].strip()
    'negatives'
    """
    densities = None if labeled is None else ood.fit_densities(objective, *labeled)
    scored = ood.score_sets(objective, {dataset.name: dataset.x_test, **others}, densities)
    plots.save(plots.histograms(scored, dataset.name), out / "ood.png")
    rows = []
    for name, by_score in ood.ood_metrics(scored).items():
        for score, values in by_score.items():
            numbers = [f"{values[key]:.4f}" for key in ("auroc", "aupr", "fpr95")]
            rows.append((name, score, *numbers))
    return table(("other data", "score", "AUROC", "AUPR", "FPR95"), rows)


@style.context()
def corruption_report(objective: Objective, dataset: Dataset, out: Path) -> str:
    """Measure accuracy and calibration under each corruption; draw `corruptions.png`.

    Arguments:
        objective: The method.
        dataset: Its data set of images.
        out: Folder of the picture.

    >>> from tempfile import TemporaryDirectory
    >>> from pyro_ssl import data, zoo
    >>> digits = data.digits(n_test=20)
    >>> classifier = zoo.build("classifier", digits.x_shape, 10, hidden=(8,))
    >>> with TemporaryDirectory() as folder:
    ...     text = corruption_report(classifier, digits, Path(folder))
    >>> text.splitlines()[2].split("|")[1].strip()
    'gaussian_noise'
    """
    import matplotlib.pyplot as plt

    measured = under_corruption(objective, dataset.x_test, dataset.y_test)
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.2))
    for ax, key, ylabel in zip(axes, ("accuracy", "ece_20"), ("accuracy %", "ECE %"), strict=True):
        curves = {}
        for name, rows in measured.items():
            curves[name.replace("_", " ")] = [[100 * row[key] for row in rows]]
        plots.bands(curves, SEVERITIES, xlabel="severity", ylabel=ylabel, legend=False, ax=ax)
        ax.set_xticks(SEVERITIES)
    style.figure_legend(figure)
    plots.save(figure, out / "corruptions.png")
    lines = []
    for name, rows in measured.items():
        cells = [f"{100 * row['accuracy']:.2f} ({100 * row['ece_20']:.2f})" for row in rows]
        lines.append((name, *cells))
    return table(("accuracy % (ECE %)", *map(str, SEVERITIES)), lines)


def attack_report(
    objective: Objective,
    dataset: Dataset,
    attack: Attack,
    epsilons: Sequence[float],
    out: Path,
    *,
    restarts: int = 1,
) -> str:
    """Measure accuracy under attacks of several sizes, by each aim; draw `attack_NAME.png`.

    Arguments:
        objective: The method.
        dataset: Its data set; data within [0, 1] stay there.
        attack: `fgsm` or `pgd`.
        epsilons: Sizes of the attack.
        out: Folder of the picture.
        restarts: Random starts of `pgd`.

    >>> from tempfile import TemporaryDirectory
    >>> from pyro_ssl import data, zoo
    >>> digits = data.digits(n_test=20)
    >>> classifier = zoo.build("classifier", digits.x_shape, 10, hidden=(8,))
    >>> with TemporaryDirectory() as folder:
    ...     text = attack_report(classifier, digits, "fgsm", [0.0, 0.1], Path(folder))
    >>> text.splitlines()[3].split("|")[1].strip()
    '0.1'
    """
    x = dataset.x_test
    is_in_unit = is_pixels(x) or 0 <= float(x.min()) <= float(x.max()) <= 1
    bounds = (0.0, 1.0) if is_in_unit else None
    options = {"restarts": restarts} if attack == "pgd" else {}
    measured = under_attack(
        objective, x, dataset.y_test, epsilons, attack, bounds=bounds, **options
    )
    curves = {}
    for aim, title in AIM_TITLES.items():
        curves[title] = [[100 * row[aim] for row in measured]]
    ax = plots.bands(
        curves, epsilons, xlabel="epsilon", ylabel="accuracy %", title=ATTACK_TITLES[attack]
    )
    plots.save(ax, out / f"attack_{attack}.png")
    rows = []
    for row in measured:
        cells = [f"{100 * row[aim]:.2f}" for aim in AIM_TITLES]
        rows.append((f"{row['epsilon']:g}", *cells))
    header = (f"{attack}, epsilon", "raises the loss", "raises a wrong logit", "worse of both")
    return table(header, rows)

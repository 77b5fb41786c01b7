"""What `pyro-ssl evaluate` writes: tables and pictures of a trained method beyond its accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from pyro_ssl.data.datasets import Dataset
from pyro_ssl.evaluation import metrics, ood, plots
from pyro_ssl.evaluation.attacks import Attack, under_attack
from pyro_ssl.evaluation.calibration import calibration_test, reliability
from pyro_ssl.evaluation.corruptions import SEVERITIES, under_corruption
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.prediction.predict import predict_proba


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table, its columns aligned for the terminal too; a bar in a cell is no border of it."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def test_report(objective: Objective, dataset: Dataset, out: Path) -> dict[str, float]:
    """Accuracy, log-likelihood, Brier, calibration; `reliability.png`."""
    probs, y = predict_proba(objective, dataset.x_test), dataset.y_test
    plots.save(plots.reliability({dataset.name: reliability(probs, y)}), out / "reliability.png")
    return metrics.evaluate(probs, y) | {"calibration_p_value": calibration_test(probs, y)}


def ood_report(
    objective: Objective, dataset: Dataset, foreign: dict[str, Tensor], labeled: tuple[Tensor, Tensor] | None, out: Path
) -> str:
    """How well each score tells other sets from the test data; `ood.png`.

    Arguments:
        objective: The method.
        dataset: Its own.
        foreign: Other sets' images, by name.
        labeled: Data and codes that densities of features are fitted to; None: without `log p(z), refitted`.
        out: The folder of the picture.
    """
    densities = None if labeled is None else ood.fitted(objective, *labeled)
    scored = ood.score_sets(objective, {dataset.name: dataset.x_test, **foreign}, densities)
    plots.save(plots.histograms(scored, dataset.name), out / "ood.png")
    rows = [
        (name, score, *(f"{value[k]:.4f}" for k in ("auroc", "aupr", "fpr95")))
        for name, by_score in ood.ood_metrics(scored).items()
        for score, value in by_score.items()
    ]
    return table(("foreign data", "score", "AUROC", "AUPR", "FPR95"), rows)


def of_corruptions(objective: Objective, dataset: Dataset, out: Path) -> str:
    """Accuracy and calibration under each corruption at each severity; `corruptions.png`."""
    import matplotlib.pyplot as plt

    found = under_corruption(objective, dataset.x_test, dataset.y_test)
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.2), layout="constrained")
    for ax, (measure, said) in zip(axes, (("accuracy", "accuracy"), ("ece_20", "ECE")), strict=True):
        curves = {name: [[100 * row[measure] for row in rows]] for name, rows in found.items()}
        plots.bands(curves, SEVERITIES, xlabel="severity", ylabel=f"{said} %", ax=ax)
    plots.save(figure, out / "corruptions.png")
    return table(
        ("accuracy % (ECE %)", *map(str, SEVERITIES)),
        [
            (name, *(f"{100 * r['accuracy']:.2f} ({100 * r['ece_20']:.2f})" for r in rows))
            for name, rows in found.items()
        ],
    )


def of_attack(
    objective: Objective, dataset: Dataset, attack: Attack, epsilons: Sequence[float], out: Path, *, restarts: int = 1
) -> str:
    """Accuracy under attacks of several sizes, by each aim; `attack_NAME.png`. What is within [0, 1] stays there."""
    x = dataset.x_test
    bounds = (0.0, 1.0) if 0 <= float(x.min()) <= float(x.max()) <= 1 else None
    found = under_attack(
        objective,
        x,
        dataset.y_test,
        epsilons,
        attack,
        bounds=bounds,
        **({"restarts": restarts} if attack == "pgd" else {}),
    )
    curves = {aim: [[100 * row[aim] for row in found]] for aim in ("loss", "logits", "either")}
    ax = plots.bands(curves, epsilons, xlabel="epsilon", ylabel="accuracy %", title=attack)
    plots.save(ax, out / f"attack_{attack}.png")
    rows = [
        (f"{row['epsilon']:g}", *(f"{100 * row[aim]:.2f}" for aim in ("loss", "logits", "either"))) for row in found
    ]
    return table((f"{attack}, epsilon", "up the loss", "up the difference of logits", "the worse of both"), rows)

"""Tables of `variational_classification.py`: paper 000's Tables 1 to 4, and Figure 5 in numbers."""

from __future__ import annotations

import statistics
from typing import Any

from pages import mean_sd, table
from results_table import Result
from variational_measures import FIRST, TITLES
from variational_presets import METHODS

Rows = dict[str, list[Result]]
"""Results by name of the row."""


def named(method: str, options: dict[str, Any]) -> str:
    """Name a method with its weights and the kind of its latent."""
    parts = [method]
    parts += [f"{k} {options[k]:g}" for k in ("ratio", "density") if options.get(k)]
    if options.get("shared_variance") and method != "ce":
        parts.append("one variance")
    if options.get("stochastic"):
        parts.append("Gaussian latent")
    return ", ".join(parts)


def by_method(results: list[Result]) -> Rows:
    """Group runs by method and weights; CE with a fitted temperature is a row of its own."""
    rows: Rows = {}
    for r in results:
        method, options = r["config"]["method"], r["config"]["options"]
        rows.setdefault(
            "ce, temperature" if "temperature" in r else named(method, options), []
        ).append(r)

    def place(row: str) -> tuple[int, bool]:
        return METHODS.index(row.split(",")[0]), "temperature" in row

    return {row: rows[row] for row in sorted(rows, key=place)}


def accuracies(title: str, rows: Rows, paper: dict[str, str]) -> str:
    """Tables 1 and 2."""
    header = (
        title,
        "accuracy %, mean (sd)",
        "worst",
        "draws",
        "log-likelihood",
        "ECE %, 20 bins",
        "worst",
        "adaptive ECE %",
        "p if calibrated, median (lowest)",
        "latents from p(z|y), nats per dimension",
        "s per run",
        "paper 000: accuracy, ECE",
    )
    cells = []
    for row, mine in rows.items():
        accuracy = [100 * r["accuracy"] for r in mine]
        ece = [100 * r["ece_20"] for r in mine]
        p = [r["calibration_p_value"] for r in mine]
        cells.append(
            (
                row,
                mean_sd(accuracy),
                f"{min(accuracy):.2f}",
                len(mine),
                mean_sd((r["log_likelihood"] for r in mine), 3),
                mean_sd(ece),
                f"{max(ece):.2f}",
                mean_sd(100 * r["ece_adaptive"] for r in mine),
                f"{statistics.median(p):.3f} ({min(p):.3f})",
                mean_sd((r["from_prior"] for r in mine), 3),
                f"{statistics.fmean(r['seconds'] for r in mine):.0f}",
                paper.get(row.split(",")[0], ""),
            )
        )
    return table(header, cells)


OOD_MEASURES = {"auroc": "AUROC", "aupr": "AUPR", "fpr95": "FPR95"}


def out_of_distribution(title: str, rows: Rows) -> str:
    """Table 3, by every score."""
    sets = list(next(iter(rows.values()))[0]["ood"])
    cells = []
    for row, mine in rows.items():
        for score in mine[0]["ood"][sets[0]] if sets else ():
            cells.append((row, score, *(_ood_cell(mine, name, score) for name in sets)))
    measures = ", ".join(OOD_MEASURES.values())
    return table(
        (f"{title}: {measures}, mean (sd), worst, against", "score", *(TITLES[s] for s in sets)),
        cells,
    )


def _ood_cell(mine: list[Result], name: str, score: str) -> str:
    parts = []
    for measure in OOD_MEASURES:
        values = [r["ood"][name][score][measure] for r in mine]
        worst = max(values) if measure == "fpr95" else min(values)
        parts.append(f"{mean_sd(values, 3)}, {worst:.3f}")
    return "; ".join(parts)


KINDS = {
    "FGSM up the loss": ("fgsm", "loss"),
    "FGSM, the worse of both aims": ("fgsm", "either"),
    f"FGSM, the worse of both aims, first {FIRST}": ("fgsm_first", "either"),
    f"PGD, the worse of both aims, first {FIRST}": ("pgd_first", "either"),
}
"""Attacks by name: the key of the result, and its aim."""


def under_attacks(title: str, rows: Rows) -> str:
    """Figure 5 in numbers."""
    sizes = [at["epsilon"] for at in next(iter(rows.values()))[0]["fgsm"]]
    cells = []
    for row, mine in rows.items():
        for kind, (attack, aim) in KINDS.items():
            by_size = [[100 * r[attack][i][aim] for r in mine] for i in range(len(sizes))]
            cells.append(
                (row, kind, *(f"{mean_sd(values)}, worst {min(values):.1f}" for values in by_size))
            )
    return table(
        (f"{title}: accuracy % under attack", "epsilon:", *(f"{e:g}" for e in sizes)), cells
    )


def few_labels(results: list[Result], paper: dict[str, str]) -> str:
    """Table 4, and VC in other forms."""
    by_row: Rows = {}
    for r in results:
        by_row.setdefault(r["config"]["row"], []).append(r)
    header = (
        "MNIST",
        "accuracy %, mean (s.e.)",
        "worst",
        "draws",
        "log-likelihood",
        "ECE %, 20 bins",
        "latents from p(z|y), nats per dimension",
        "s per run",
        "paper 000",
    )
    return table(header, [(row, *_few(mine), paper.get(row, "")) for row, mine in by_row.items()])


def _few(mine: list[Result]) -> tuple[str, ...]:
    accuracy = [100 * r["accuracy"] for r in mine]
    error = f" ({statistics.stdev(accuracy) / len(mine) ** 0.5:.2f})" if len(mine) > 1 else ""
    return (
        f"{statistics.fmean(accuracy):.2f}{error}",
        f"{min(accuracy):.2f}",
        str(len(mine)),
        mean_sd((r["log_likelihood"] for r in mine), 3),
        mean_sd(100 * r["ece_20"] for r in mine),
        mean_sd((r["from_prior"] for r in mine), 3),
        f"{statistics.fmean(r['seconds'] for r in mine):.0f}",
    )

"""Numbers of the methods, read from the tables in `experiments/results`; nothing is typed here."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "experiments" / "results"
DEVELOPMENT = 100
"""Draws from this one on are for development and in no table."""
DATA = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
}
"""Data sets by their names in configurations; other names are shown as they are."""
EAGER, COMPILED = "ours, top_k=1, eager", "ours, top_k=1, compiled"
"""Two rows of the benchmark."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """A table of runs, and which of its runs are measurements of a method.

    Arguments:
        name: Name of the table and of its page.
        title: Title for readers.
        setting: What distinguishes runs of one method on the same data and labels; None for a run
            that is no measurement of a method.
    """

    name: str
    title: str
    setting: Callable[[str, Row], str | None]


def _moons(name: str, config: Row) -> str | None:
    kind = name.partition(f"{config['method']}_")[0]
    settings = {"": "", "random_": "", "paper_": ", the paper's settings"}
    if kind not in settings:
        return None
    return f"noise {config['noise']}{settings[kind]}"


def _row(name: str, config: Row) -> str | None:
    row = str(config.get("row", ""))
    return "" if row == config["method"] else row


def _latent(name: str, config: Row) -> str | None:
    if config["part"] != "table":
        return None
    symbol = "alpha" if config["method"] == "m2" else "lambda"
    return "" if config["method"] == "classifier" else f"{symbol} = {config['weight']:g}"


def _variational(name: str, config: Row) -> str | None:
    part = config["part"]
    if part == "full":
        return None if "held_out" in config or "gaussian_latent" in name else ""
    if part in ("low", "semi"):
        return str(config["row"]).partition(", ")[2]
    return None


STUDIES = (
    Study("moons", "two moons", _moons),
    Study("m2_mnist", "M2 on MNIST", lambda name, config: ""),
    Study("mnist_labels", "MNIST by labels", _row),
    Study("latent_classifier", "latent classifiers", _latent),
    Study("mier", "MIER", _row),
    Study("variational_classification", "variational classification", _variational),
    Study("vae_downstream", "latents as features", _row),
)


@dataclass(frozen=True)
class Measurement:
    """Draws of one method in one setting.

    Arguments:
        study: The study.
        method: Name of the method.
        data: The data set, for readers.
        labels: Number of labels, for readers.
        setting: What else distinguishes the runs.
        runs: The measured values of each draw.
    """

    study: Study
    method: str
    data: str
    labels: str
    setting: str
    runs: Sequence[Row]

    def mean(self, column: str, factor: float = 1.0, digits: int = 1) -> str:
        """Mean and standard deviation over the draws."""
        values = [factor * run[column] for run in self.runs if column in run]
        return mean_sd(values, digits) if values else ""


def mean_sd(values: Sequence[float], digits: int) -> str:
    """Mean, and the standard deviation in brackets if there are several values."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({statistics.stdev(values):.{digits}f})"


@cache
def measurements() -> list[Measurement]:
    """All measurements of accuracy, in the order of the studies."""
    found: list[Measurement] = []
    for study in STUDIES:
        groups: dict[tuple[str, str, str, str], list[Row]] = {}
        for key, run in _runs(study):
            groups.setdefault(key, []).append(run)
        found += [Measurement(study, *key, runs) for key, runs in groups.items()]
    return found


def find(method: str, study: str, **wanted: str) -> Measurement | None:
    """The measurement of a method in a study with these values of `data`, `labels`, `setting`."""
    for m in measurements():
        same = all(getattr(m, name) == value for name, value in wanted.items())
        if m.method == method and m.study.name == study and same:
            return m
    return None


def _runs(study: Study) -> Iterator[tuple[tuple[str, str, str, str], Row]]:
    for row in rows_of(study.name):
        config = row["config"]
        if "accuracy" not in row or row.get("diverged") or config.get("draw", 0) >= DEVELOPMENT:
            continue
        setting = study.setting(row["name"], config)
        if setting is not None:
            data = DATA.get(config.get("data", ""), config.get("data", study.title))
            yield (config["method"], data, _labels(config), setting), row


def _labels(config: Row) -> str:
    if "per_class" in config:
        return str(10 * config["per_class"])  # all these data have ten classes
    if config["labels"] in ("placed", "random"):
        return f"6, {config['labels']}"
    return str(config["labels"])


@cache
def rows_of(study: str) -> list[Row]:
    """The runs of a table: numbers, lists and dictionaries, with the configuration."""
    csv.field_size_limit(2**27)
    texts = ("name", "command", "commit", "date", "diverged")
    with (RESULTS / f"{study}.csv").open(newline="") as file:
        return [
            {k: v if k in texts else json.loads(v) for k, v in row.items() if v}
            for row in csv.DictReader(file)
        ]


@dataclass(frozen=True)
class Cost:
    """Milliseconds of CPU time of a training step on one thread."""

    eager: float
    compiled: float


def cost(method: str, data: str) -> Cost | None:
    """The cost of a step of a method on `moons` or `images`; None if it was not measured."""
    for row in rows_of("benchmark"):
        config = row["config"]
        if config.get("method") == method and config.get("data") == data:
            return Cost(row["ms"][EAGER], row["ms"][COMPILED])
    return None


def tables() -> dict[tuple[str, int], dict[str, list[float]]]:
    """Scores on scikit-learn's tables by (data, labels per class) and method, one for each draw."""
    scores: dict[tuple[str, int], dict[str, list[float]]] = {}
    for row in rows_of("tables"):
        config = row["config"]
        if config.get("draw", 0) >= DEVELOPMENT:
            continue
        cell = scores.setdefault((config["data"], config["labels"]), {})
        for method, score in row["score"].items():
            cell.setdefault(method, []).append(score)
    return scores


def probes(labels: int) -> dict[tuple[str, str], list[float]]:
    """Accuracy of classifiers on the mean latents of VAEs, by (VAE, classifier), of each draw."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows_of("vae_downstream"):
        if row["config"].get("method") != "vae":
            continue
        for probe in row.get("probes", ()):
            if probe["labels"] == labels and probe["latents"] == "mean":
                key = (row["config"]["row"], probe["probe"])
                found.setdefault(key, []).append(probe["accuracy"])
    return found

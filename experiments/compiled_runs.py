"""Whole runs of M2, eager and compiled: accuracy and CPU time, in pairs with the same seeds.

One data set is scikit-learn's digits with 50 labels, trained to the end. The other is MNIST with
100 labels and the defaults of `pyro-ssl train m2`, but with few epochs: its accuracy is not that of
a whole run.

`python experiments/compiled_runs.py --help` explains every option.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from image_runs import images, measured, trained, training_of
from pages import mean_sd, table, where
from results_table import Result, Results
from study import Config, Selection, Study, main, resolved

NAMES = {"digits": "digits, 50 labels", "mnist": "MNIST, 100 labels"}
LABELS = {"digits": 50, "mnist": 100}
EPOCHS = {"digits": 150, "mnist": 4}
OPTIONS: dict[str, dict[str, Any]] = {"digits": {"hidden": (128,), "top_k": 1}, "mnist": {}}
DRAWS = {"smoke": [0], "cpu": [0, 1, 2, 3, 4]}


def configs(scale: str, draws: Sequence[int]) -> dict[str, Config]:
    """Eager and compiled runs of a draw follow each other."""
    made = {}
    for name in NAMES:
        for draw in draws:
            for compile in (False, True):
                made[f"{name}_{_kind(compile)}_{draw}"] = configure(name, draw, compile, scale)
    return made


def _kind(compile: bool) -> str:
    return "compiled" if compile else "eager"


def configure(name: str, draw: int, compile: bool, scale: str) -> Config:
    is_smoke = scale == "smoke"
    epochs = 1 if is_smoke else EPOCHS[name]
    options = OPTIONS[name] | ({"hidden": (8,)} if is_smoke else {})
    config: Config = {
        "data": name,
        "method": "m2",
        "labels": LABELS[name],
        "draw": draw,
        "compile": compile,
        "options": resolved("m2", options),
        "training": training_of("m2", epochs, compile=compile),
    }
    return config | ({"rows": 300} if is_smoke else {})


def run(name: str, config: Config, directory: Path, pictures: Path) -> Result:
    """Train without checkpoints, so that the time is that of training alone."""
    loaded = images(config)
    before = cpu_seconds()
    objective, dataset, _, history = trained(config, None, loaded)
    seconds = cpu_seconds() - before
    return measured(objective, dataset, history) | {"cpu_seconds": seconds}


def cpu_seconds() -> float:
    """CPU time of this process and of the compilers that it has waited for, in seconds."""
    user, system, children_user, children_system, _ = os.times()
    return user + system + children_user + children_system


def report(results: Results, pictures: Path) -> dict[str, str]:
    rows = []
    for name, shown in NAMES.items():
        for compile in (False, True):
            mine = where(results, data=name, compile=compile)
            if mine:
                rows.append((shown, _kind(compile), *_row(mine)))
    header = ("data", "steps", "accuracy %", "by draw", "log-likelihood", "CPU s", "by draw")
    return {"runs": table(header, rows)}


def _row(mine: Sequence[Result]) -> tuple[str, ...]:
    accuracies = [100 * r["accuracy"] for r in mine]
    seconds = [r["cpu_seconds"] for r in mine]
    return (
        mean_sd(accuracies, 2),
        ", ".join(f"{accuracy:.1f}" for accuracy in accuracies),
        mean_sd([r["log_likelihood"] for r in mine], 3),
        f"{fmean(seconds):.0f}",
        ", ".join(f"{s:.0f}" for s in seconds),
    )


STUDY = Study(
    "compiled_runs",
    configs,
    run,
    report,
    draws=DRAWS,
    selections={"data": Selection("data", tuple(NAMES), "data sets")},
    workers=1,
)

if __name__ == "__main__":
    main(STUDY, __doc__)

"""A training step of every method, eager and compiled, on small data and on images.

`benchmark.py --comparison compiled` takes the times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from pages import table
from results_table import Result
from study import resolved
from torch import Tensor

from pyro_ssl import Objective, PretrainedEncoder, zoo
from pyro_ssl.training import pretrain
from pyro_ssl.training.new_run import new_run
from pyro_ssl.training.run import train_step
from pyro_ssl.training.settings import Settings

Step = Callable[[], Any]
EAGER = "ours, top_k=1, eager"
COMPILED = "ours, top_k=1, compiled"
METHODS = tuple(zoo.METHODS)
METHOD_CLASSES = {"moons": 2, "images": 10}
"""Number of classes by data: two columns with small networks, or 784 pixels with the defaults."""
ROWS = {"moons": (100, 6), "images": (200, 30)}
"""Unlabeled and labeled rows of a batch."""
COLUMNS = {"moons": 2, "images": 784}
SMALL: dict[str, Any] = {
    "hidden": (128, 128),
    "m1_hidden": (128, 128),
    "z_dim": 2,
    "a_dim": 2,
    "z_dims": (3, 2),
    "z_y_dim": 2,
    "z1_dim": 2,
}
"""Options for two columns, as far as a method has them."""
MANY_EPOCHS = 10**6
LR = 1e-6
"""Learning rate: the weights hardly move, and with them the number of classes of `top_k="auto"`."""


def training_step(objective: Objective, x: Tensor, y: Tensor | None, compile: bool) -> Step:
    """The whole step of `fit`, on one batch of all data."""
    settings = Settings(
        epochs=MANY_EPOCHS,
        batch_size=len(x),
        labeled_batch_size=len(x),
        lr=LR,
        schedule="constant",
        compile=compile,
    )
    run = new_run(objective, x, y, settings)
    batch = run.batches(0)
    objective.train()
    return lambda: train_step(run, batch)


def method_step(method: str, data: str, compile: bool) -> Step:
    """A step of `fit` on random data of a shape, with the method's defaults for the rest."""
    options = resolved(method, SMALL if data == "moons" else {})
    objective = zoo.build(method, COLUMNS[data], METHOD_CLASSES[data], seed=0, **options)
    x, y = _random_data(data)
    if isinstance(objective.features, PretrainedEncoder):
        pretrain(objective.features, x, epochs=1)
    return training_step(objective, x, y, compile)


def _random_data(data: str) -> tuple[Tensor, Tensor]:
    """Values in [0, 1], and labels of the first rows."""
    unlabeled, labeled = ROWS[data]
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(unlabeled + labeled, COLUMNS[data], generator=generator)
    y = torch.full((len(x),), -1)
    y[:labeled] = torch.arange(labeled) % METHOD_CLASSES[data]
    return x, y


def methods_table(results: Sequence[Result], ratio: Callable[[Result, str, str], float]) -> str:
    """One row for each method: milliseconds, and how many times faster a compiled step is."""
    threads = sorted({r["config"]["threads"] for r in results})
    header = ["method"]
    for number in threads:
        header += [f"eager, ms, {_on_threads(number)}", "compiled", "times faster"]
    rows = []
    for method in METHODS:
        cells = [_cells(results, method, number, ratio) for number in threads]
        if any(any(three) for three in cells):
            rows.append((method, *(cell for three in cells for cell in three)))
    gains = [ratio(r, EAGER, COMPILED) for r in results]
    rows.append(("median", *([""] * (3 * len(threads) - 1)), f"{median(gains):.2f}"))
    return table(tuple(header), rows)


def _on_threads(number: int) -> str:
    return "1 thread" if number == 1 else f"{number} threads"


def _cells(
    results: Sequence[Result],
    method: str,
    threads: int,
    ratio: Callable[[Result, str, str], float],
) -> tuple[str, str, str]:
    for result in results:
        config = result["config"]
        if (config["method"], config["threads"]) == (method, threads):
            ms = result["ms"]
            times = ratio(result, EAGER, COMPILED)
            return f"{ms[EAGER]:.1f}", f"{ms[COMPILED]:.1f}", f"{times:.2f}"
    return "", "", ""

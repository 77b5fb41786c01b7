"""One thing changed in the thesis's settings on two moons: paper 002, section 5.1 and 5.3.1.

The runs are those of `moons.py --settings ablations`; the preset itself is `--settings paper`.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pages import mean_sd, table, where
from results_table import Result, Results
from study import Config

METHODS = ("sslpe", "sslapd")
NOISE = 0.2
DRAWS = (10, 11, 12)
SETTINGS = "ablations"
"""Value of `settings` in the configs of these runs."""
TOO_FEW = "too few"


@dataclass(frozen=True)
class Change:
    """What differs from the preset.

    Arguments:
        title: Name in the table.
        options: Options of the method that differ.
        training: Arguments of `fit` that differ.
        methods: Methods that the change applies to.
    """

    title: str
    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    methods: Sequence[str] = METHODS

    def applied(self, config: Config) -> Config:
        """The config of a run of the preset, with this change."""
        return config | {
            "settings": SETTINGS,
            "change": self.title,
            "options": config["options"] | self.options,
            "training": config["training"] | self.training,
        }


CHANGES = {
    "batch_norm": Change("no batch norm", {"batch_norm": False}),
    "warmup": Change("no warm-up of the KL divergence", training={"warmup": 0.0}),
    "decay": Change("constant learning rate", training={"schedule": "constant"}),
    "l2": Change("no l2", {"l2": 0.0}),
    "variance_-5": Change(
        "log-variance of the weights from -5", {"log_variance": -5.0}, methods=("sslapd",)
    ),
    "variance_0": Change(
        "log-variance of the weights from 0", {"log_variance": 0.0}, methods=("sslapd",)
    ),
}
"""In the preset, the log-variance of q(W) starts at -10; that of the prior is 0."""


def block(results: Results) -> str:
    """A table of all changes beside the preset, and what holds in every draw."""
    changed = any(r["config"].get("settings") == SETTINGS for r in results.values())
    if not changed:
        return "No runs yet."
    methods = dict.fromkeys(method for change in CHANGES.values() for method in change.methods)
    rows = [row for method in methods for row in _rows(results, method)]
    header = (
        f"noise {NOISE}, 6 labels",
        "change",
        "accuracy %, mean (sd)",
        "worst",
        "draws",
        "log-likelihood",
        "accuracy minus the preset's by draw, points",
        "s per run",
    )
    return table(header, rows) + "\n\n" + finding(results)


def _rows(results: Results, method: str) -> Iterator[tuple[Any, ...]]:
    preset = _of_preset(results, method)
    if preset:
        yield (method, "none", *_measures(list(preset.values()), 0), "", _seconds(preset))
    for change in CHANGES.values():
        mine = _of_change(results, method, change)
        diverged = _diverged(results, method, change)
        if not mine and diverged:
            yield (method, change.title, "", "", f"0 ({diverged} diverged)", "", "", "")
        if mine:
            shown = _measures(list(mine.values()), diverged)
            points = ", ".join(f"{d:+.2f}" for d in differences(results, method, change))
            yield (method, change.title, *shown, points, _seconds(mine))


def _measures(mine: list[Result], diverged: int) -> tuple[str, str, str, str]:
    accuracy = [100 * r["accuracy"] for r in mine]
    draws = str(len(mine)) + (f" ({diverged} diverged)" if diverged else "")
    likelihood = mean_sd((r["log_likelihood"] for r in mine), 3)
    return mean_sd(accuracy), f"{min(accuracy):.2f}", draws, likelihood


def _seconds(mine: dict[int, Result]) -> str:
    return f"{statistics.fmean(r['seconds'] for r in mine.values()):.0f}"


def _of_preset(results: Results, method: str) -> dict[int, Result]:
    """Runs of the preset by draw, on the draws of the changes."""
    own = where(results, settings="paper", method=method, noise=NOISE)
    draws = {
        r["config"]["draw"] for r in results.values() if r["config"].get("settings") == SETTINGS
    }
    return {r["config"]["draw"]: r for r in own if r["config"]["draw"] in draws}


def _of_change(results: Results, method: str, change: Change) -> dict[int, Result]:
    """Runs of a change by draw."""
    own = where(results, settings=SETTINGS, method=method, change=change.title)
    return {r["config"]["draw"]: r for r in own}


def _diverged(results: Results, method: str, change: Change) -> int:
    return sum(
        "diverged" in r
        and r["config"].get("change") == change.title
        and r["config"]["method"] == method
        for r in results.values()
    )


def differences(results: Results, method: str, change: Change) -> list[float]:
    """Accuracy of a change minus that of the preset, in points, for each draw that both have."""
    preset = _of_preset(results, method)
    mine = _of_change(results, method, change)
    return [
        100 * (mine[draw]["accuracy"] - preset[draw]["accuracy"])
        for draw in sorted(mine.keys() & preset.keys())
    ]


def finding(results: Results) -> str:
    """A sentence about the changes that lower, or raise, the accuracy of all draws."""
    changes: dict[str, list[str]] = {}
    for change in CHANGES.values():
        for method in change.methods:
            name = f"{change.title} ({method.upper()})"
            changes.setdefault(_effect(results, method, change), []).append(name)
    if changes.keys() == {TOO_FEW}:
        return "No change has two draws yet, so nothing can be said of every draw."
    lower, higher, neither, diverged = (
        ", ".join(changes.get(effect, ["none"]))
        for effect in ("lower", "higher", "neither", "diverged")
    )
    return (
        f"In every draw, accuracy is lower than the preset's with: {lower}; higher with: {higher}; "
        f"neither with: {neither}. Training diverges in at least one draw with: {diverged}."
    )


def _effect(results: Results, method: str, change: Change) -> str:
    """What a change does to all draws; `TOO_FEW` with fewer than two of them."""
    if _diverged(results, method, change):
        return "diverged"
    points = differences(results, method, change)
    if len(points) < 2:
        return TOO_FEW
    if max(points) < 0:
        return "lower"
    return "higher" if min(points) > 0 else "neither"

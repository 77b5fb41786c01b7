"""Tables of a sweep: one row per run, and the statistics of each configuration over its seeds."""

from __future__ import annotations

import csv
import io
import json
import statistics as python_statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pyro_ssl.sweeps.runs import Config, Outcome
from pyro_ssl.utils import files


class Statistics(NamedTuple):
    """Mean, sample standard deviation and worst value of a measure, and the number of runs.

    The standard deviation of a single run is NaN.
    """

    mean: float
    sd: float
    worst: float
    runs: int


def statistics(values: Sequence[float]) -> Statistics:
    """Compute the statistics of a measure for which larger is better.

    >>> statistics([0.5, 1.0])
    Statistics(mean=0.75, sd=0.3535..., worst=0.5, runs=2)
    """
    sd = python_statistics.stdev(values) if len(values) > 1 else float("nan")
    return Statistics(python_statistics.fmean(values), sd, min(values), len(values))


def group_by(outcomes: Iterable[Outcome], without: str = "seed") -> list[list[Outcome]]:
    """Group runs whose configurations differ only in one entry, such as the seed.

    >>> outcomes = [Outcome("a", {"x": 1, "seed": 0}), Outcome("b", {"x": 1, "seed": 1})]
    >>> [[outcome.name for outcome in group] for group in group_by(outcomes)]
    [['a', 'b']]
    """
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        rest = {key: value for key, value in outcome.config.items() if key != without}
        groups.setdefault(json.dumps(rest, sort_keys=True), []).append(outcome)
    return list(groups.values())


def write_table(
    path: str | Path, outcomes: Sequence[Outcome], flat: Callable[[Config], Config] = dict
) -> None:
    """Write a CSV file with one row per run: its name, configuration, results and error.

    Arguments:
        path: The file.
        outcomes: The runs.
        flat: Function that returns a configuration without nested dictionaries.

    Raises:
        ValueError: Two columns would have the same name.
    """
    configs = [flat(outcome.config) for outcome in outcomes]
    results = [outcome.result or {} for outcome in outcomes]
    columns = ["run", *_keys(configs), *_keys(results), "error"]
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise ValueError(
            f"the table should have different columns, got {', '.join(twice)} twice: in the "
            "configurations, the results, or the table's own run and error; rename one, as with "
            "`flat`"
        )
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    for outcome, config, result in zip(outcomes, configs, results, strict=True):
        row = {"run": outcome.name} | config | result | {"error": outcome.error}
        writer.writerow({column: _cell(row.get(column)) for column in columns})
    files.write_text(path, buffer.getvalue())


def _keys(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return all keys, each once, in the order of their first occurrence."""
    return list(dict.fromkeys(key for row in rows for key in row))


def _cell(value: Any) -> Any:
    """Convert lists and dictionaries to JSON; return other values unchanged."""
    return json.dumps(value) if isinstance(value, list | dict | tuple) else value

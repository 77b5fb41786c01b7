"""Pages of results: Markdown tables, means over draws, published numbers, and where numbers come
from.
"""

from __future__ import annotations

import csv
import re
import statistics
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from results_table import Result, Results

from pyro_ssl.evaluation.reports import table as table

PLACES = set("--workers --threads --data-root --out".split())
"""Options that say where and by how many processes runs are made; they change no result."""
SLICES = set(
    "--draws --data --parts --rows --methods --models --noise --per-class --sizes --labels "
    "--classes --comparison --method --on-threads --peers".split()
)
"""Options that say which runs are made; they do not change what a run does."""
MEASURES = ("accuracy %, mean (sd)", "worst", "draws", "log-likelihood", "ECE %", "s per run")
SMOKE = "**Smoke run: these numbers are not results.**"


def write_page(path: Path, name: str, blocks: dict[str, str], smoke: bool = False) -> str:
    """Put generated tables into a page, and give its generated text.

    A table called `grid` stands between the comments `<!-- grid -->` and `<!-- /grid -->`; the rest
    of the page is written by hand and stays. Tables without a place in the page are added at its
    end.
    """
    page = path.read_text() if path.exists() else f"# {name}\n"
    if smoke and SMOKE not in page:
        page = page.replace("\n", f"\n\n{SMOKE}\n", 1)
    for block, text in blocks.items():
        generated = f"<!-- {block} -->\n{text}\n<!-- /{block} -->"
        place = re.compile(
            rf"<!-- {re.escape(block)} -->\n.*?<!-- /{re.escape(block)} -->", re.DOTALL
        )
        if place.search(page):
            page = place.sub(lambda _, generated=generated: generated, page)
        else:
            page = f"{page.rstrip()}\n\n{generated}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page)
    shown = "\n\n".join(text for text in blocks.values() if text)
    return f"{SMOKE}\n\n{shown}" if smoke else shown


def where(results: Results, **wanted: Any) -> list[Result]:
    """Select results whose config has these values, without those that diverged, which `sources`
    names.
    """
    return [
        result
        for result in results.values()
        if "diverged" not in result and all(result["config"].get(k) == v for k, v in wanted.items())
    ]


def measures(results: Sequence[Result]) -> tuple[Any, ...]:
    """Give the columns `MEASURES` of the draws of one row."""
    accuracy = [100 * r["accuracy"] for r in results]
    ece = statistics.fmean(r["ece"] for r in results)
    seconds = statistics.fmean(r["seconds"] for r in results)
    likelihood = mean_sd((r["log_likelihood"] for r in results), 3)
    worst = f"{min(accuracy):.2f}"
    return (
        mean_sd(accuracy),
        worst,
        len(results),
        likelihood,
        f"{100 * ece:.1f}",
        f"{seconds:.0f}",
    )


def mean_sd(values: Iterable[float], digits: int = 2) -> str:
    """Mean, and standard deviation in brackets if there is more than one value."""
    values = list(values)
    mean = f"{statistics.fmean(values):.{digits}f}"
    if len(values) < 2:
        return mean
    return f"{mean} ({statistics.stdev(values):.{digits}f})"


def published(study: str, setting: str = "", measure: str = "accuracy %") -> dict[str, str]:
    """Published numbers by row, as printed, from `published.csv`."""
    key = (study, setting, measure)
    return {
        row["row"]: row["value"]
        for row in published_rows()
        if (row["study"], row["setting"], row["measure"]) == key
    }


@lru_cache(maxsize=1)
def published_rows() -> list[dict[str, str]]:
    """All rows of `published.csv`: study, setting, row, measure, value, source, page."""
    with (Path(__file__).parent / "published.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def sources(results: Results) -> str:
    """Say where numbers come from: commands with dates and commits, versions, and the runs that
    diverged.
    """
    parts = [
        "; ".join(f"`{command}` ({_days(days)})" for command, days in sorted(commands.items()))
        + f"; {versions}"
        for versions, commands in sorted(_commits(results).items())
    ]
    for count in sorted({r.get("threads", 1) for r in results.values()} - {1}):
        names = [name for name, r in results.items() if r.get("threads") == count]
        parts.append(f"run on {count} threads: {', '.join(names)}")
    diverged = [name for name, r in results.items() if "diverged" in r]
    if diverged:
        parts.append(f"diverged, and in no mean: {', '.join(diverged)}")
    return "; ".join(parts) + "."


def _commits(results: Results) -> dict[str, dict[str, dict[str, set[str]]]]:
    """Commits of the runs, by versions, command and date."""
    shared = _shared_slices([result["command"] for result in results.values()])
    commits: dict[str, dict[str, dict[str, set[str]]]] = {}
    for result in results.values():
        versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items())
        command = _whole(result["command"], shared)
        days = commits.setdefault(versions, {}).setdefault(command, {})
        days.setdefault(result["date"], set()).add(result.get("commit") or "")
    return commits


def _shared_slices(commands: Sequence[str]) -> set[str]:
    """The slices, such as `--noise 0.1`, that all commands of a table have."""
    slices = [{part for part in _parts(command) if _option(part) in SLICES} for command in commands]
    return set.intersection(*slices) if slices else set()


def _days(days: dict[str, set[str]]) -> str:
    return "; ".join(
        f"{day} {', '.join(sorted(commits))}".strip() for day, commits in sorted(days.items())
    )


def _whole(command: str, shared: set[str]) -> str:
    """A command without the options that made it a slice of the table, or a place of its own."""
    dropped = PLACES | SLICES
    return " ".join(
        part for part in _parts(command) if part in shared or _option(part) not in dropped
    )


def _parts(command: str) -> list[str]:
    """A command and its options, each with its values."""
    return re.split(r" (?=--)", command)


def _option(part: str) -> str:
    return part.split()[0]

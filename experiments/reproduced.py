"""Every table and figure of the five papers on one page: reproduced, partly, or not.

`python experiments/reproduced.py` writes `REPRODUCED.md` from `reproduced.csv` (one row per table
or figure), `published.csv` (the papers' numbers) and the tables of results. It runs no experiment.

A row of `reproduced.csv` names the runs that count for it, as `STUDY key=value ...`, several
separated by semicolons. A key is one of the run's config (`options.sigma` for an option) or its
`name`, a value may have wildcards, and `!=` excludes. In a table's row, `-> SETTING / ROW` says
which published number a run is compared with; keys of the config stand in braces:

    moons noise=0.1 labels=placed -> noise {noise} / {method}

A selector that begins with `awaited` may have no runs yet.
"""

from __future__ import annotations

import argparse
import csv
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from pages import mean_sd, published_rows
from results_table import Result, Results, read_results, write_text

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
PAGE = FOLDER / "REPRODUCED.md"
TITLES = {
    "000": "Paper 000: variational classification",
    "001": "Paper 001: VAE for downstream classification",
    "002": "Paper 002: SSLPE, SSLAPD and active learning",
    "003": "Paper 003: the latent classifier",
    "004": "Paper 004: MIER",
}
VERDICTS = ("reproduced", "partly", "not")
SETTINGS = ("paper", "ours")
"""Whose settings the runs have: the paper's, but for fewer epochs, or ours."""
AWAITED = "awaited "
"""Beginning of a selector whose runs may be missing."""


@dataclass(frozen=True)
class Measure:
    """How a published measure is read off a result, and whether a higher value is better."""

    read: Callable[[Result], float | None]
    higher: bool = True


def _percent(column: str) -> Callable[[Result], float | None]:
    return lambda result: 100 * result[column] if column in result else None


MEASURES = {
    "accuracy %": Measure(_percent("accuracy")),
    "log-likelihood": Measure(lambda result: result.get("log_likelihood")),
    "ECE %": Measure(_percent("ece_20"), higher=False),
    "AUROC of max p": Measure(lambda result: result.get("auroc")),
    "entropy, nats": Measure(lambda result: result.get("entropy"), higher=False),
    "bound, nats": Measure(lambda result: result.get("bound")),
}


@dataclass(frozen=True)
class Selector:
    """Runs of a study, and for a table the published number that each is compared with."""

    study: str
    wanted: Sequence[tuple[str, str, bool]]
    """Key, pattern, and whether the value must match it."""
    cell: tuple[str, str] | None = None
    """Templates of `setting` and `row` in `published.csv`."""
    awaited: bool = False
    """Whether there may be no runs yet."""


@dataclass(frozen=True)
class Run:
    """One run, or one of the numbers that a run measured, with what tells it from the others."""

    study: str
    name: str
    keys: Mapping[str, Any]
    result: Result

    @property
    def draw(self) -> Any:
        return self.keys.get("draw")

    @property
    def epochs(self) -> Any:
        return self.keys.get("training", {}).get("epochs")


@dataclass(frozen=True)
class Cell:
    """A number of a paper's table, and ours."""

    setting: str
    row: str
    measure: str
    paper: str
    runs: Sequence[Run] = ()

    @property
    def values(self) -> list[float]:
        read = (MEASURES[self.measure].read(run.result) for run in self.runs)
        return [value for value in read if value is not None]

    @property
    def reached(self) -> bool:
        """Whether our mean is as good as the paper's, to the digits that the paper prints."""
        if not self.values:
            return False
        number = _number(self.paper)
        ours = round(statistics.fmean(self.values), _digits(number))
        if MEASURES[self.measure].higher:
            return ours >= float(number)
        return ours <= float(number)

    @property
    def here(self) -> str:
        digits = max(2, _digits(_number(self.paper)))
        return mean_sd(self.values, digits) if self.values else ""


@dataclass(frozen=True)
class Item:
    """A table or a figure of a paper: a row of `reproduced.csv`.

    A table may have two rows, one with the paper's settings and one with ours. Its verdict is
    computed, so the column is empty; a figure's is written there.

    Arguments:
        paper: `000` to `004`.
        item: As the paper names it, such as `Table 5.1` or `Supplement, Figure 8`.
        settings: `paper` or `ours`; empty if there is no script.
        shows: What it shows, in a few words.
        script: Script that makes it, without `.py`; empty if there is none.
        options: Options of the script that select its runs.
        published: For a table, `study` of its numbers in `published.csv`; `page` there names it.
        runs: Runs that count for it, see above.
        pictures: Paths below `results`, separated by spaces.
        headline: For a table, one number to show: `SETTING / ROW / MEASURE`.
        paper_draws: Draws of the paper, or `not stated`.
        paper_epochs: Epochs of the paper, or `not stated`.
        conclusion: For a table, `yes` or `no`: is the paper's conclusion from it seen here?
        verdict: For a figure, one of `VERDICTS`.
        reason: Why, in plain words.
        cells: Numbers of a table, computed.
    """

    paper: str
    item: str
    settings: str
    shows: str
    script: str
    options: str
    published: str
    runs: str
    pictures: str
    headline: str
    paper_draws: str
    paper_epochs: str
    conclusion: str
    verdict: str
    reason: str
    cells: Sequence[Cell] = field(default=(), compare=False)

    @property
    def is_table(self) -> bool:
        return self.item.startswith("Table")


def main() -> None:
    """Write the page."""
    assert __doc__
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__.split("\n\n")[0])
    out = "path of the page (default: %(default)s)"
    parser.add_argument("--out", type=Path, default=PAGE, metavar="FILE", help=out)
    path = parser.parse_args().out
    write_text(path, page())
    print(f"Page: {path}")


def page() -> str:
    """The text of the page."""
    items = read_items()
    parts = ["# The papers' tables and figures", INTRODUCTION, _summary(items)]
    for paper, title in TITLES.items():
        mine = [item for item in items if item.paper == paper]
        parts += [f"## {title}", _overview(mine)]
    parts += ["## Cells of the tables", CELLS, _all_cells(items)]
    return "\n\n".join(parts) + "\n"


INTRODUCTION = """\
Generated by `python experiments/reproduced.py` from [reproduced.csv](reproduced.csv),
[published.csv](published.csv) and the tables in [results](results); do not edit.

- A number is **reached** if our mean is at least as good as the paper's mean, rounded to the digits
  that the paper prints: higher, or lower for ECE and entropy. Standard deviations are not used.
- A table is **reproduced** if every number in it is reached with the paper's settings, and the
  paper's conclusion from it is seen here too. It is **not** reproduced if no number is reached, and
  **partly** reproduced otherwise. With settings of ours it is partly reproduced at best. Numbers
  that were not run count as not reached.
- A figure's verdict is a judgement: **reproduced** if our picture shows what the paper's shows, on
  the same kind of data and model; **partly** if the data, the model or the settings are others, or
  if only a part of the effect is seen; **not** if the effect is not seen or if there is no picture.
- Settings are the paper's or ours. Fewer epochs than the paper's are given beside them.
- Draws and epochs are ours / the paper's. Commands are run as `python experiments/COMMAND`."""

CELLS = """\
Ours / the paper's; means, with standard deviations in parentheses where there are several draws.
Bold: reached. A dash: not run."""


def read_items() -> list[Item]:
    """All rows of `reproduced.csv`, tables with their cells and verdicts."""
    with (FOLDER / "reproduced.csv").open(newline="") as file:
        return [_completed(Item(**row)) for row in csv.DictReader(file)]


def _completed(item: Item) -> Item:
    if not item.is_table:
        return item
    cells = table_cells(item)
    verdict = table_verdict(cells, item.settings == "paper", item.conclusion == "yes")
    return Item(**(vars(item) | {"cells": cells, "verdict": verdict}))


def table_verdict(cells: Sequence[Cell], settings_of_paper: bool, conclusion_seen: bool) -> str:
    """Give a table's verdict by the rule on the page."""
    reached = [cell.reached for cell in cells]
    if not any(reached):
        return "not"
    if all(reached) and settings_of_paper and conclusion_seen:
        return "reproduced"
    return "partly"


def table_cells(item: Item) -> list[Cell]:
    """The numbers of a paper's table, and the runs that are compared with each.

    Raises:
        ValueError: Two runs of a cell have the same draw, so that their mean would mix settings.
    """
    runs: dict[tuple[str, str], list[Run]] = {}
    for selector in selectors(item.runs):
        assert selector.cell is not None, item
        for run in selected(selector):
            setting, row = (template.format(**run.keys) for template in selector.cell)
            runs.setdefault((setting, row), []).append(run)
    cells = [
        Cell(
            row["setting"],
            row["row"],
            row["measure"],
            row["value"],
            runs.get((row["setting"], row["row"]), ()),
        )
        for row in _published_in(item)
    ]
    for cell in cells:
        draws = [run.draw for run in cell.runs]
        if len(set(draws)) < len(draws):
            names = ", ".join(run.name for run in cell.runs)
            raise ValueError(
                f"{item.paper} {item.item}: the runs of a cell should differ in draw, got {names}"
            )
    return cells


def _published_in(item: Item) -> Iterator[dict[str, str]]:
    """The paper's numbers of a table, by `page` in `published.csv`."""
    place = re.compile(rf"\b{re.escape(item.item)}(?![\d.])")
    for row in published_rows():
        own = row["study"] == item.published and row["source"] == f"paper {item.paper}"
        if own and place.search(row["page"]):
            yield row


def selectors(text: str) -> list[Selector]:
    """Read the `runs` of a row.

    >>> selectors("moons noise=0.1 name!=curves_* -> noise {noise} / {method}")[0].cell
    ('noise {noise}', '{method}')
    """
    found = []
    for part in filter(None, text.split("; ")):
        runs, _, cell = part.partition(" -> ")
        awaited = runs.startswith(AWAITED)
        study, *conditions = runs.removeprefix(AWAITED).split()
        setting, _, row = cell.partition(" / ")
        wanted = tuple(map(_condition, conditions))
        found.append(Selector(study, wanted, (setting, row) if cell else None, awaited))
    return found


def _condition(text: str) -> tuple[str, str, bool]:
    key, _, pattern = text.partition("=")
    return key.removesuffix("!"), pattern, not key.endswith("!")


def selected(selector: Selector) -> list[Run]:
    """Select runs.

    Raises:
        ValueError: There are none, and they are not awaited.
    """
    runs = [run for run in _all_runs(selector.study) if _chosen(run, selector)]
    if not runs and not selector.awaited:
        raise ValueError(f"no runs in {selector.study}.csv for {selector.wanted}")
    return runs


def _chosen(run: Run, selector: Selector) -> bool:
    values = {key: _value(run, key) for key, _, _ in selector.wanted}
    return all(
        values[key] is not None and fnmatchcase(values[key], pattern) == wanted
        for key, pattern, wanted in selector.wanted
    )


def _value(run: Run, key: str) -> str | None:
    """A value of the run's config as text, with a dot between the keys of nested ones."""
    if key == "name":
        return run.name
    value: Any = run.keys
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return None if value is None else str(value)


@cache
def _all_runs(study: str) -> tuple[Run, ...]:
    """Runs of a study's table, without those that diverged."""
    results: Results = read_results(RESULTS / f"{study}.csv")
    return tuple(
        run
        for name, result in results.items()
        if "diverged" not in result
        for run in _numbers(study, name, result)
    )


def _numbers(study: str, name: str, result: Result) -> Iterator[Run]:
    """A run, and one for each of its probes and of its out-of-distribution scores."""
    config = result["config"]
    yield Run(study, name, config, result)
    for probe in result.get("probes", ()):
        keys = {key: probe[key] for key in ("labels", "probe", "latents")}
        yield Run(study, name, config | keys, {"accuracy": probe["accuracy"]})
    for other, scores in result.get("ood", {}).items():
        for score, measured in scores.items():
            keys = {"ood": other, "score": score}
            yield Run(study, name, config | keys, {"auroc": measured["auroc"]})


# --- the page -----------------------------------------------------------------------------------


def _summary(items: Sequence[Item]) -> str:
    """How many tables and figures are reproduced; an item with several rows counts by its best."""
    rows = []
    for kind, of_kind in (("tables", True), ("figures", False)):
        best = best_verdicts(item for item in items if item.is_table == of_kind)
        counts = [sum(verdict == v for verdict in best.values()) for v in VERDICTS]
        rows.append((kind, len(best), *counts))
    return table(("", "all", *VERDICTS), rows) + "\n\n" + _numbers_reached(items)


def _numbers_reached(items: Sequence[Item]) -> str:
    """How many numbers of the tables are measured and reached, and how many figures are left.

    A number in two rows of a table counts once, as reached if it is in either.
    """
    without = len({_key(item) for item in items if not item.script})
    cells: dict[tuple[str, ...], list[Cell]] = {}
    for item in items:
        for cell in item.cells:
            number = (*_key(item), cell.setting, cell.row, cell.measure)
            cells.setdefault(number, []).append(cell)
    measured = sum(any(cell.values for cell in same) for same in cells.values())
    reached = sum(any(cell.reached for cell in same) for same in cells.values())
    return (
        f"Of {len(cells)} numbers in the tables, {measured} were measured and {reached} are "
        f"reached. Figures without a script: {without}."
    )


def best_verdicts(items: Iterable[Item]) -> dict[tuple[str, str], str]:
    """The best verdict of each table or figure."""
    best: dict[tuple[str, str], str] = {}
    for item in items:
        earlier = best.get(_key(item), "not")
        best[_key(item)] = min(earlier, item.verdict, key=VERDICTS.index)
    return best


def _key(item: Item) -> tuple[str, str]:
    return item.paper, item.item


def _overview(items: Sequence[Item]) -> str:
    header = (
        "",
        "shows",
        "verdict",
        "numbers: reached, measured, all",
        "for example",
        "paper",
        "here",
        "settings",
        "draws",
        "epochs",
        "command",
        "reason",
    )
    return table(header, map(_row, items))


def _row(item: Item) -> tuple[str, ...]:
    runs = _runs_of(item)
    example = _headline(item)
    return (
        item.item,
        _pictures(item),
        item.verdict,
        _counts(item.cells),
        item.headline,
        example.paper if example else "",
        example.here or "–" if example else "",
        {"paper": "the paper's", "ours": "ours", "": ""}[item.settings],
        _beside(_draws(item, runs), item.paper_draws),
        _beside(_span(run.epochs for run in runs), item.paper_epochs),
        _command(item),
        _reason(item, runs),
    )


def _reason(item: Item, runs: Sequence[Run]) -> str:
    """The reason of a verdict; first that there are no runs yet, if they are awaited."""
    if runs or not item.runs:
        return item.reason
    return f"no runs yet: {item.reason}"


def _runs_of(item: Item) -> list[Run]:
    """Runs behind a row: those of a table's cells, or all that a figure's row selects."""
    if item.is_table:
        compared = [run for cell in item.cells for run in cell.runs]
        if compared:
            return compared
    return [run for selector in selectors(item.runs) for run in selected(selector)]


def _headline(item: Item) -> Cell | None:
    cells = {f"{c.setting} / {c.row} / {c.measure}": c for c in item.cells}
    return cells[item.headline] if item.headline else None


def _pictures(item: Item) -> str:
    """What an item shows, with links to its pictures."""
    paths = item.pictures.split()
    if not paths:
        return item.shows
    links = [f"[{_link_name(paths, i)}](results/{path})" for i, path in enumerate(paths)]
    return f"{item.shows} ({', '.join(links)})"


def _link_name(paths: Sequence[str], i: int) -> str:
    return "picture" if len(paths) == 1 else str(i + 1)


def _counts(cells: Sequence[Cell]) -> str:
    if not cells:
        return ""
    measured = sum(bool(cell.values) for cell in cells)
    return f"{sum(cell.reached for cell in cells)}, {measured}, {len(cells)}"


def _draws(item: Item, runs: Sequence[Run]) -> str:
    """Draws of a measured cell, or of a figure's runs."""
    counts = [len(cell.values) for cell in item.cells if cell.values]
    if counts:
        return _span(counts)
    draws = {run.draw for run in runs}
    return str(len(draws)) if draws else ""


def _span(values: Iterable[Any]) -> str:
    """The lowest and the highest of some numbers."""
    present = sorted({value for value in values if value is not None})
    if not present:
        return ""
    if len(present) == 1:
        return str(present[0])
    return f"{present[0]} to {present[-1]}"


def _beside(ours: str, theirs: str) -> str:
    return f"{ours or '–'} / {theirs}" if theirs or ours else ""


def _command(item: Item) -> str:
    if not item.script:
        return ""
    return f"`{f'{item.script}.py {item.options}'.strip()}`"


def _all_cells(items: Sequence[Item]) -> str:
    """One line for each setting and measure of each table."""
    lines = []
    for item in items:
        groups: dict[tuple[str, str], list[Cell]] = {}
        for cell in item.cells:
            groups.setdefault((cell.setting, cell.measure), []).append(cell)
        for (setting, measure), cells in groups.items():
            shown = "; ".join(map(_cell_text, cells))
            name = f"{item.paper}, {item.item}" + (
                ", the paper's settings" if item.settings == "paper" else ""
            )
            lines.append((name, setting, measure, shown))
    return table(("table", "setting", "measure", "numbers"), lines)


def _cell_text(cell: Cell) -> str:
    here = cell.here or "–"
    if cell.reached:
        here = f"**{here}**"
    return f"{cell.row}: {here} / {cell.paper}"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table without padding, which would make lines of a thousand characters."""
    lines = [[str(cell).replace("|", "\\|") for cell in row] for row in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(text: str) -> str:
    """The mean in a published number, `94.4` in `94.4 (s.e. 0.3)`."""
    found = re.match(r"-?\d+(?:\.\d+)?", text)
    assert found, text
    return found.group()


def _digits(number: str) -> int:
    return len(number.partition(".")[2])


if __name__ == "__main__":
    main()

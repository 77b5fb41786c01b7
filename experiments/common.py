"""What the experiment scripts share: runs in parallel processes, tables, and results that say where they come from."""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from pyro_ssl.checkpoints import write_text
from pyro_ssl.cli import versions

RESULTS = Path(__file__).parent / "results"


def parallel(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], workers: int = 2) -> Iterator[Any]:
    """Results as they come, each from a process of its own with one thread: Pyro's handlers are not for threads."""
    if workers <= 1:
        yield from (function(*call) for call in calls)
        return
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        futures = [pool.submit(function, *call) for call in calls]
        for future in as_completed(futures):
            yield future.result()


def study(
    configs: dict[str, dict[str, Any]],
    function: Callable[[str, dict[str, Any], Path], dict[str, Any]],
    out: Path,
    workers: int = 2,
) -> dict[str, dict[str, Any]]:
    """Run what is missing, write each result as it comes to `out/NAME.json`, and give those of all these names.

    A result is there if its file says the same `config`. A run that was killed goes on from its checkpoint, if `function`
    trains with `directory=` and `resume=True` under the folder that it is given.

    Arguments:
        configs: By name of the run, plain data from which it follows.
        function: `function(name, config, directory)`, of a module, gives plain data.
        out: Where results go; checkpoints go to `runs/` and `out`'s name.
        workers: Processes, of one thread each.
    """
    command = provenance()["command"]
    missing = [name for name, config in configs.items() if _read(out / f"{name}.json").get("config") != _plain(config)]
    calls = [(function, name, configs[name], Path("runs") / out.name / name, out, command) for name in missing]
    for name, result in parallel(_one, calls, workers):
        shown = {k: v for k, v in result.items() if isinstance(v, (int, float))}
        print(f"{name}: " + ", ".join(f"{k} {v:.4g}" for k, v in shown.items()), flush=True)
    return {name: result for name in configs if (result := _read(out / f"{name}.json"))}


def _one(
    function: Callable[..., dict[str, Any]], name: str, config: dict[str, Any], directory: Path, out: Path, command: str
) -> tuple[str, dict[str, Any]]:
    result = function(name, config, directory)
    write(out / f"{name}.json", provenance() | {"command": command, "config": _plain(config)} | result)
    shutil.rmtree(directory, ignore_errors=True)  # its result is kept; its checkpoints are not needed any more
    return name, result


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(config))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def sources(results: Iterable[dict[str, Any]]) -> str:
    """Where the numbers of a table come from: commands, dates, versions."""
    lines = {
        f"`{r['command']}`, {r['date']}, {', '.join(f'{k} {v}' for k, v in r['versions'].items())}" for r in results
    }
    return "; ".join(sorted(lines))


def mean_sd(values: Iterable[float], digits: int = 2) -> str:
    """Mean and standard deviation."""
    v = list(values)
    return f"{statistics.fmean(v):.{digits}f} ({statistics.stdev(v) if len(v) > 1 else 0.0:.{digits}f})"


def arguments(doc: str, **defaults: Any) -> argparse.ArgumentParser:
    """The options that every study has: scale, draws, data, workers, out."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--scale", choices=("smoke", "cpu", "paper"), default="cpu")
    parser.add_argument("--draws", type=int, nargs="+", default=None, help="seeds of data, labels, weights and noise")
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None)
    parser.set_defaults(**defaults)
    return parser


def summary(values: Iterable[float]) -> str:
    """Mean, standard deviation and worst, of numbers that are better when higher."""
    v = list(values)
    sd = statistics.stdev(v) if len(v) > 1 else 0.0
    return f"{statistics.fmean(v):.2f} ({sd:.2f}), worst {min(v):.2f}"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table, its columns aligned for the terminal too."""
    cells = [list(map(str, row)) for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def provenance() -> dict[str, Any]:
    """Command, date and versions, to stand beside every number; the folder of the data is DATA, wherever it was."""
    given = ["DATA" if before == "--data-root" else a for before, a in pairwise(sys.argv)]
    command = " ".join(["python", f"experiments/{Path(sys.argv[0]).name}", *given])
    return {"command": command, "date": time.strftime("%Y-%m-%d"), "versions": versions()}


def write(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(result, indent=1))

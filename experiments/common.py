"""What the experiment scripts share: runs in parallel processes, tables, and results that say where they come from."""

from __future__ import annotations

import json
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

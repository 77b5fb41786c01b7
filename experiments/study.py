"""The frame of every study: its command line, its runs in parallel processes, its table and its
page.

A script says what its runs are, what one run measures, and how results become tables and pictures:

    STUDY = Study("moons", configs, run, report, draws=DRAWS)

    if __name__ == "__main__":
        main(STUDY, __doc__)
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from joblib import Parallel, delayed
from pages import sources, write_page
from panels import reduce_colours
from results_table import Result, Results, add_result, read_results, write_text

from pyro_ssl import sweeps, zoo
from pyro_ssl.evaluation import style
from pyro_ssl.sweeps.lost_workers import begin_attempt
from pyro_ssl.training import DivergedError
from pyro_ssl.utils.durations import duration

RESULTS = Path(__file__).parent / "results"
DEVELOPMENT = 100
"""The first draw for development. Settings are chosen there, with held-out training images as the
test set.
"""

PATHS = {"--data-root": "DATA", "--scvi-python": "PYTHON", "--pyro-examples": "FOLDER"}
"""What a stored command has instead of a path of the machine, by option."""
PACKAGES = ("pyro-ssl", "pyro-ppl", "torch", "numpy", "scikit-learn")
Config = dict[str, Any]
"""Plain data from which a run follows, with all `options` of its method, see `resolved`."""
Scale = str
"""A key of `SCALES`."""
SCALES = {
    "smoke": "a test run of under a minute",
    "cpu": "the results on the pages",
    "paper": "the paper's epochs and draws",
}
Run = Callable[[str, Config, Path, Path], Result]
"""`run(name, config, directory, pictures)` gives plain data, and saves pictures.

A run that was killed continues from its checkpoint if it trains with `directory=directory` and
`resume=True`.
"""


@dataclass(frozen=True)
class Selection:
    """An option that chooses runs by a value of their config: `--data mnist` runs those whose
    `data` is mnist.

    A run whose value is none of `values` is always selected. A config without the key has the value
    `absent`.
    """

    key: str
    values: Sequence[Any]
    help: str
    default: Sequence[Any] | None = None
    absent: Any = None

    def chooses(self, config: Config, wanted: Collection[Any]) -> bool:
        value = config.get(self.key, self.absent)
        return value in wanted or value not in self.values


def _always_available(config: Config) -> str:
    return ""


@dataclass(frozen=True)
class Study:
    """A table of runs.

    Arguments:
        name: Name of its table, its page and its folder of pictures.
        configs: `configs(scale, draws)` gives all runs of the table, by name.
        run: Function of a module, so that it can be sent to other processes.
        report: `report(results, pictures)` gives Markdown tables by name, and saves pictures.
        draws: Draws by scale; a draw seeds labels, weights and noise.
        selections: Options that choose runs, by name of the option.
        paths: Options that give a path which some runs need, with their help, by name of the
            option; `path_of` gives their values.
        unavailable: `unavailable(config)` says what a run lacks on this machine; such a run is
            skipped. Empty if it lacks nothing.
        arrays: Names of measured arrays that only pictures need; they are kept with the
            checkpoints, not in the table.
        workers: Default number of processes.
        threads: Default number of threads of each process.
    """

    name: str
    configs: Callable[[Scale, Sequence[int]], dict[str, Config]]
    run: Run
    report: Callable[[Results, Path], dict[str, str]]
    draws: Mapping[Scale, Sequence[int]]
    selections: Mapping[str, Selection] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    unavailable: Callable[[Config], str] = _always_available
    arrays: Collection[str] = ()
    workers: int = 2
    threads: int = 1


@dataclass(frozen=True)
class Files:
    """Paths of a study's results (table, page, pictures) and of its checkpoints and arrays."""

    out: Path
    name: str

    @property
    def table(self) -> Path:
        return self.out / f"{self.name}.csv"

    @property
    def page(self) -> Path:
        return self.out / f"{self.name}.md"

    @property
    def pictures(self) -> Path:
        return self.out / self.name

    @property
    def work(self) -> Path:
        return self.out / "runs" / self.name

    def arrays(self, run: str) -> Path:
        return self.work / f"{run}.json"


def main(study: Study, doc: str) -> None:
    """Run what is missing, then write the page and the pictures from all results."""
    given = parse_arguments(study, doc)
    files = Files(given.out.resolve() if given.backend else given.out, study.name)
    asked = list(given.draws or study.draws[given.scale])
    configs = study.configs(given.scale, table_draws(files.table, study.draws[given.scale], asked))
    wanted = [name for name, config in configs.items() if _selected(study, config, given, asked)]
    if given.runs:
        wanted = matching(wanted, given.runs)
    there = stored(files.table, configs)
    missing = [] if given.report else [name for name in wanted if name not in there]
    missing = available(study, configs, missing)
    run_missing(study, configs, missing, files, given)
    results = _with_arrays(stored(files.table, configs), files)
    with style.context():
        blocks = study.report(results, files.pictures)
    reduce_colours(files.pictures)
    blocks["sources"] = sources(results)
    text = write_page(files.page, study.name, blocks, smoke=given.scale == "smoke")
    print(text)
    print(f"Table: {files.table}; page: {files.page}")


def matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """List the names that match the patterns, in the order of the patterns.

    Raises:
        SystemExit: If a pattern matches no name.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            examples = f"Runs are {', '.join(names[:3])}, ..." if names else "No run is selected."
            raise SystemExit(f"--runs {pattern}: no run has this name. {examples}")
        found |= dict.fromkeys(matches)
    return list(found)


def available(study: Study, configs: Mapping[str, Config], missing: Sequence[str]) -> list[str]:
    """Leave out the runs that lack something on this machine, and say what."""
    lacking = {name: study.unavailable(configs[name]) for name in missing}
    for lack in dict.fromkeys(filter(None, lacking.values())):
        names = [name for name in missing if lacking[name] == lack]
        print(f"Skipped, since {lack}: {', '.join(names)}", flush=True)
    return [name for name in missing if not lacking[name]]


def path_of(option: str) -> Path | None:
    """The path that an option of `Study.paths` gives; None without it."""
    given = os.environ.get(_variable(option))
    return Path(given) if given else None


def _variable(option: str) -> str:
    """The environment variable that takes an option to other processes."""
    return f"PYRO_SSL_{option.upper().replace('-', '_')}"


def parse_arguments(study: Study, doc: str) -> argparse.Namespace:
    """Read the command line; paths go to the environment, where other processes find them."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=doc.split("\n\n")[0], formatter_class=HelpFormatter
    )
    scales = "; ".join(f"{name}: {SCALES[name]}" for name in study.draws)
    parser.add_argument("--scale", choices=tuple(study.draws), default="cpu", help=scales)
    draws = (
        "seeds of labels, weights and noise; default: those of the scale; "
        "draws from 100 on are for development"
    )
    parser.add_argument("--draws", type=int, nargs="+", default=None, metavar="N", help=draws)
    for option, selection in study.selections.items():
        parser.add_argument(
            f"--{option}",
            nargs="+",
            type=type(selection.values[0]),
            choices=selection.values,
            default=list(selection.default or selection.values),
            metavar=option.upper().replace("-", "_"),
            help=_selection_help(selection),
        )
    runs = "names of runs, as in the table, with wildcards, run in this order (default: all)"
    parser.add_argument("--runs", nargs="+", default=None, metavar="NAME", help=runs)
    root = "folder of the data sets; default: the environment variable PYRO_SSL_DATA"
    parser.add_argument("--data-root", default=None, metavar="FOLDER", help=root)
    for option, about in study.paths.items():
        parser.add_argument(f"--{option}", default=None, metavar="PATH", help=about)
    parser.add_argument(
        "--workers",
        type=int,
        default=study.workers,
        metavar="N",
        help="number of parallel processes",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=study.threads,
        metavar="N",
        help="number of threads per process",
    )
    backend_help = (
        "run on a dask or ray cluster instead of processes of this machine; its scheduler and "
        "workers need the same folders, and PYTHONPATH=experiments"
    )
    parser.add_argument("--backend", choices=("dask", "ray"), default=None, help=backend_help)
    scheduler = "address of the Dask or Ray scheduler"
    parser.add_argument("--scheduler", default=None, metavar="ADDRESS", help=scheduler)
    out = "folder for the results; default: experiments/results at scale cpu, else runs/SCALE"
    parser.add_argument("--out", type=Path, default=None, metavar="FOLDER", help=out)
    report = "do not run anything; redraw the page and the pictures from the existing results"
    parser.add_argument("--report", action="store_true", help=report)
    given = parser.parse_args()
    if given.data_root:
        os.environ["PYRO_SSL_DATA"] = str(Path(given.data_root).resolve())
    for option in study.paths:
        path = vars(given)[option.replace("-", "_")]
        if path:
            os.environ[_variable(option)] = os.path.abspath(path)
    given.out = given.out or (RESULTS if given.scale == "cpu" else Path("runs") / given.scale)
    return given


class HelpFormatter(argparse.HelpFormatter):
    """Add defaults to the help of options, except where the help explains the default itself."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        explained = "default: " in text
        if explained or action.default is None or isinstance(action.default, bool):
            return text
        if isinstance(action.default, str) and action.default == argparse.SUPPRESS:
            return text
        return f"{text} (default: %(default)s)"


def _selection_help(selection: Selection) -> str:
    """Name the values of a selection, and its default where that is not all of them."""
    values = ", ".join(map(str, selection.values))
    default = "all"
    if selection.default is not None:
        default = ", ".join(map(str, selection.default))
    return f"{selection.help}: {values} (default: {default})"


def table_draws(table: Path, default: Sequence[int], asked: Sequence[int]) -> list[int]:
    """List the draws of a table: the scale's, those asked for, and those of earlier runs.

    A table holds draws for development or draws for publication, never both.
    """
    earlier = {result["config"].get("draw") for result in read_results(table).values()} - {None}
    developing = max(asked) >= DEVELOPMENT
    return sorted(
        draw for draw in {*default, *asked, *earlier} if (draw >= DEVELOPMENT) == developing
    )


def stored(table: Path, configs: Mapping[str, Config]) -> Results:
    """Give the results whose config is the one that the script makes now."""
    rows = read_results(table)
    return {
        name: rows[name]
        for name, config in configs.items()
        if name in rows and same(rows[name]["config"], config)
    }


def same(stored: Config | None, config: Config) -> bool:
    """Tell whether two configs are of one run; options that came later have their defaults in an
    older config.
    """
    if stored is None:
        return False
    if "options" in stored and "method" in config:
        stored = stored | {"options": zoo.options_of(config["method"]) | stored["options"]}
    return plain(stored) == plain(config)


def resolved(method: str, options: dict[str, Any]) -> dict[str, Any]:
    """Complete options by the method's defaults; drop options that it does not have."""
    known = zoo.options_of(method)
    return known | {k: v for k, v in options.items() if k in known}


SETTINGS = Selection(
    "settings",
    ("ours", "paper"),
    "settings of the methods: ours, or the paper's preset",
    absent="ours",
)
"""For studies whose runs have `of_preset` in their configs, or settings of ours."""


def of_preset(method: str, preset: str, **training: Any) -> Config:
    """Give the settings of a run that a preset has: `options` and `training`.

    With another number of epochs, the warm-up of the KL keeps its share of them.

    Arguments:
        method: Name of the method.
        preset: Name of the preset.
        training: Arguments of `fit` that differ, such as fewer epochs.
    """
    settings = zoo.training_of(method, preset, training.get("epochs"))
    return {
        "settings": "paper",
        "preset": preset,
        "options": resolved(method, zoo.preset_of(method, preset).option_values),
        "training": settings | training,
    }


def plain(config: Config) -> Config:
    """A config as JSON gives it back: lists for tuples."""
    return json.loads(json.dumps(config))


def run_missing(
    study: Study,
    configs: Mapping[str, Config],
    missing: Sequence[str],
    files: Files,
    given: argparse.Namespace,
) -> None:
    """Run in parallel processes; each adds its row to the table when it ends."""
    command = provenance()["command"]
    calls = [(name, configs[name]) for name in missing]
    session = uuid4().hex
    one = partial(_run_one, study.run, frozenset(study.arrays), files, command, session)
    started = time.perf_counter()
    if given.backend:
        ended = on_backend(one, calls, given.threads, given.backend, given.scheduler)
    else:
        ended = parallel(one, calls, given.workers, given.threads)
    for done, (name, result) in enumerate(ended, 1):
        numbers = ", ".join(
            f"{k} {v:.4g}" for k, v in result.items() if isinstance(v, (int, float))
        )
        left = (time.perf_counter() - started) / done * (len(calls) - done)
        print(
            f"{name}: {numbers or 'diverged'} ({done} of {len(calls)}{_time_left(left)})",
            flush=True,
        )


def _time_left(seconds: float) -> str:
    if seconds <= 0:
        return ""
    return f", about {duration(seconds)} left"


def parallel(
    function: Callable[..., Any],
    calls: Sequence[tuple[Any, ...]],
    workers: int = 2,
    threads: int = 1,
) -> Iterator[Any]:
    """Yield results as they come, each from a process of its own: Pyro's handlers do not bear
    threads.
    """
    if workers <= 1:
        torch.set_num_threads(threads)
        yield from (function(*call) for call in calls)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, torch.set_num_threads, (threads,)) as pool:
        futures = [pool.submit(function, *call) for call in calls]
        for future in as_completed(futures):
            yield future.result()


def on_backend(
    function: Callable[..., Any],
    calls: Sequence[tuple[Any, ...]],
    threads: int,
    name: str,
    scheduler: str | None,
) -> Iterator[Any]:
    """Yield results from a Dask or Ray cluster; Dask repeats a call whose worker is killed."""
    as_they_come = "generator_unordered" if name == "dask" else "list"  # Ray has no generator
    run = delayed(partial(_with_threads, threads, function))
    with sweeps.backend(name, scheduler):
        jobs = Parallel(return_as=as_they_come, batch_size=1, pre_dispatch="all")
        yield from jobs(run(*call) for call in calls)


def _with_threads(threads: int, function: Callable[..., Any], *call: Any) -> Any:
    torch.set_num_threads(threads)
    return function(*call)


def _run_one(
    run: Run,
    arrays: frozenset[str],
    files: Files,
    command: str,
    session: str,
    name: str,
    config: Config,
) -> tuple[str, Result]:
    """Run, and add the result to the table; a run whose loss is not finite has `diverged` for a
    result. If a worker of the session was lost in it, a line says that it is done again.
    """
    started = time.perf_counter()
    directory = files.work / name
    _clear_other_config(directory, config)
    begin_attempt(directory, session)
    try:
        with style.context():
            measured = run(name, config, directory, files.pictures)
        seconds = time.perf_counter() - started
        measured["seconds"] = max(measured.get("seconds", 0.0), seconds)  # more, if it was resumed
    except DivergedError as error:
        measured = {"diverged": str(error)}
    large = {key: value for key, value in measured.items() if key in arrays}
    if large:
        write_json(files.arrays(name), large)
    numbers = {key: value for key, value in measured.items() if key not in arrays}
    source = provenance() | {"command": command, "threads": torch.get_num_threads()}
    add_result(files.table, name, {"config": plain(config)} | source | numbers, files.work / "lock")
    shutil.rmtree(
        directory, ignore_errors=True
    )  # the result is stored, so its checkpoints have served
    return name, numbers


def _clear_other_config(directory: Path, config: Config) -> None:
    """Remove checkpoints of a run with another config."""
    path = directory / "config.json"
    if directory.exists() and not (path.exists() and same(json.loads(path.read_text()), config)):
        shutil.rmtree(directory)
    write_json(path, config)


def _selected(
    study: Study, config: Config, given: argparse.Namespace, asked: Sequence[int]
) -> bool:
    if config.get("draw", asked[0]) not in asked:
        return False
    wanted = vars(given)
    return all(
        selection.chooses(config, wanted[option.replace("-", "_")])
        for option, selection in study.selections.items()
    )


def _with_arrays(results: Results, files: Files) -> Results:
    """Add the arrays of runs that were made on this machine."""
    paths = {name: files.arrays(name) for name in results}
    return {
        name: r | (json.loads(paths[name].read_text()) if paths[name].exists() else {})
        for name, r in results.items()
    }


def provenance() -> dict[str, Any]:
    """Command, date, versions and commit of a number, without paths of the machine."""
    given = [PATHS.get(before, a) for before, a in pairwise(sys.argv)]
    command = shlex.join(["python", f"experiments/{Path(sys.argv[0]).name}", *given])
    date = time.strftime("%Y-%m-%d")
    return {"command": command, "commit": _commit(), "date": date, "versions": versions()}


def versions() -> dict[str, str]:
    """Versions that a number depends on."""
    return {"python": platform.python_version()} | {
        package: version(package) for package in PACKAGES
    }


def _commit() -> str:
    """Commit of the scripts' checkout, if there is one; with a + if code has changed since."""

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        root = str(Path(__file__).parents[1])
        return subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True)

    if not shutil.which("git"):
        return ""
    head = git("rev-parse", "--short", "HEAD")
    if head.returncode:
        return ""
    changed = git("diff", "--quiet", "HEAD", "--", "*.py").returncode
    return head.stdout.strip() + ("+" if changed else "")


def write_json(path: Path, value: Any) -> None:
    """Write a file of JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=1))

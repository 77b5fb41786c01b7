"""`pyro-ssl sweep`: train a method with many seeds and options, in parallel."""

from __future__ import annotations

import csv
import itertools
import json
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import ArgumentParser, Namespace

from pyro_ssl import data, zoo
from pyro_ssl.cli.commands import COMMANDS
from pyro_ssl.cli.data_options import reading_of
from pyro_ssl.cli.data_settings import completed, load_data, settings_lines
from pyro_ssl.cli.method_options import parsed_with_preset
from pyro_ssl.cli.sweep_ties import tie
from pyro_ssl.cli.train import config_of, method_parser
from pyro_ssl.cli.train_run import test_measures, train_model
from pyro_ssl.data.missing_labels import label_warnings_silenced
from pyro_ssl.data.suspicious_columns import ColumnWarning
from pyro_ssl.evaluation import reports
from pyro_ssl.sweeps import (
    BACKENDS,
    Outcome,
    Range,
    Search,
    backend,
    search,
    statistics,
    sweep,
    write_table,
)
from pyro_ssl.sweeps.search import STATE, Space
from pyro_ssl.sweeps.sweep import RUNS
from pyro_ssl.sweeps.tables import Statistics
from pyro_ssl.training.callbacks import Epoch
from pyro_ssl.training.loggers import LOGGERS
from pyro_ssl.utils import files
from pyro_ssl.utils.private_names import options_of
from pyro_ssl.zoo.saved_model import SavedModel

TABLE = "table.csv"
TEST_FILE = "test.json"
MEASURE = "val_accuracy"
DEFAULT_VALIDATION = 0.2
"""Share of the labels that is set aside if there are several configurations to choose from."""
WARMUP_PART = 5
"""A search ends no run before a fifth of its epochs: their number divided by this one."""
NOT_SWEPT = ("resume", "out", "config", "seed", "progress")
"""Options of `train` that the sweep sets itself."""


def parser() -> ArgumentParser:
    """Make the parser of the command's own options; all others belong to `train METHOD`."""
    parser = ArgumentParser(
        allow_abbrev=False,
        description=COMMANDS["sweep"],
    )
    parser.add_argument("method", type=str, help="one of " + ", ".join(zoo.METHODS))
    parser.add_argument(
        "--seeds", type=str, default="0", help="seeds, such as 0:10 (0 to 9) or 0,3,7"
    )
    parser.add_argument(
        "--grid",
        type=str,
        nargs="+",
        default=[],
        help="values of options: z_dim=10,50 lr=1e-3,3e-4 makes four configurations",
    )
    parser.add_argument(
        "--search", type=int, default=0, help="number of trials of a search with Optuna"
    )
    parser.add_argument(
        "--search-space",
        type=str,
        nargs="+",
        default=[],
        help="values that --search tries: lr=1e-4..1e-2:log z_dim=5..50 hidden=[500],[500,500]",
    )
    parser.add_argument(
        "--out",
        type=str | None,
        default=None,
        help="directory of the sweep; by default sweeps/METHOD-DATA",
    )
    parser.add_argument(
        "--backend",
        type=str,
        default="loky",
        help="where to run: loky (processes of this machine), dask or ray",
    )
    parser.add_argument(
        "--scheduler", type=str | None, default=None, help="address of the Dask or Ray scheduler"
    )
    parser.add_argument("--jobs", type=int, default=1, help="number of parallel processes of loky")
    parser.add_argument("--threads", type=int, default=1, help="number of threads in each run")
    parser.add_argument(
        "--log",
        type=str | None,
        default=None,
        help="also write a log of each run to RUN/LOG: " + ", ".join(LOGGERS),
    )
    return parser


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments into the command's own and those of `train METHOD`.

    >>> split(["sweep", "m2", "--labels", "100", "--seeds", "0:3", "--epochs", "2"])
    (['sweep', 'm2', '--seeds', '0:3'], ['--labels', '100', '--epochs', '2'])
    """
    own_options = options_of(parser())
    own: list[str] = []
    others: list[str] = []
    target = own
    for text in argv:
        if text == "-h":
            target = own
        if text.startswith("--"):
            name = text[2:].partition("=")[0].replace("-", "_")
            target = own if name in own_options else others
        target.append(text)
    return own, others


def run(arguments: Namespace) -> None:
    """Check the options, run the configurations without a result, and write the table."""
    _check(arguments)
    parser = _training_parser(arguments.method)
    datasets = _Datasets()
    configs = [] if arguments.search else _configs(arguments, parser, datasets)
    space = _space(arguments, parser)
    name = Path(_draft(parser, arguments.method, arguments.training, {}).config["data"]).stem
    out = Path(arguments.out or f"sweeps/{arguments.method}-{name}")
    train = partial(train_one, log=arguments.log)
    with files.locked(out), backend(arguments.backend, arguments.scheduler, arguments.jobs):
        trials: list[Outcome] = []
        varied = list(_grid(arguments.grid))
        if arguments.search:
            configs, trials = _search(arguments, space, out, train, datasets)
            varied = list(space)
        else:
            _print_settings(configs[0], varied)
        print(f"{len(configs)} runs in {out}", flush=True)
        outcomes = sweep(train, configs, out, threads=arguments.threads, report=_print_progress)
        report(outcomes, out, varied, trials)


def _search(
    arguments: Namespace,
    space: Space,
    out: Path,
    train: Callable[..., dict[str, Any]],
    datasets: _Datasets,
) -> tuple[list[dict[str, Any]], list[Outcome]]:
    """Search with the first seed; return the best configuration with each seed, and the trials."""
    seeds = _seeds(arguments.seeds)
    training = _with_validation(arguments.training)
    make_config = partial(_config_of_trial, arguments.method, training, datasets)
    config = make_config(seeds[0], {})
    _check_can_choose(config)
    _print_settings(config, list(space))
    what = Search(
        run=train,
        make_config=partial(make_config, seeds[0]),
        space=space,
        directory=out,
        measure=MEASURE,
        warmup=max(1, config["training"]["epochs"] // WARMUP_PART),
        threads=arguments.threads,
    )
    print(f"{arguments.search} trials in {out}", flush=True)
    best, trials = search(what, arguments.search, report=_print_progress)
    if best is None:
        print("\n".join(trial.error for trial in trials if trial.error), file=sys.stderr)
        raise ValueError(f"--search: no run is complete; see error.txt in {out / RUNS}/RUN")
    pruned = sum((trial.result or {}).get(STATE) == "pruned" for trial in trials)
    print(f"best: {_label(best, list(space))}; {pruned} of {len(trials)} runs were ended early")
    _print_equal_trials(trials)
    values = {name: flat(best)[name] for name in space}
    return [make_config(seed, values) for seed in seeds], trials


def _print_equal_trials(trials: Sequence[Outcome]) -> None:
    """Say how many other values of the options are as good as the best ones."""
    accuracy_of = {
        trial.name: trial.result[MEASURE]
        for trial in trials
        if trial.result is not None and trial.result.get(STATE) == "complete"
    }
    best = max(accuracy_of.values())
    others = sum(accuracy == best for accuracy in accuracy_of.values()) - 1
    if others:
        trials_are = "1 other trial is" if others == 1 else f"{others} other trials are"
        print(f"{trials_are} as accurate as the best one; the first of them is taken")


def _config_of_trial(
    method: str,
    training: list[str],
    datasets: _Datasets,
    seed: int,
    values: Mapping[str, Any],
) -> dict[str, Any]:
    given = {name: _as_text(value) for name, value in values.items()}
    draft = _draft(_training_parser(method), method, training, given)
    return datasets.completed(draft, seed)


def _as_text(value: Any) -> str:
    """A value as the command line takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def _print_settings(config: dict[str, Any], varied: Sequence[str]) -> None:
    for line in settings_lines(config):
        print(line, flush=True)
    if varied:
        print(f"varied: {', '.join(varied)}", flush=True)


def _print_progress(text: str) -> None:
    print(text, flush=True)


def train_one(
    config: dict[str, Any],
    directory: Path,
    log: str | None = None,
    callbacks: Sequence[Callable[[Epoch], Any]] = (),
) -> dict[str, Any]:
    """Train a configuration, or continue its run; the result has no measures of the test set."""
    logged = config | {"log": log}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColumnWarning)  # the sweep itself has warned
        trained = train_model(
            directory, logged, resume=True, callbacks=callbacks, announce=_be_silent
        )
    seconds = trained.history["seconds"][-1]
    return {**trained.validation, "loss": trained.history["loss"][-1], "seconds": seconds}


def _be_silent(text: str) -> None:
    return


# --- configurations -------------------------------------------------------------------------------


def _check(arguments: Namespace) -> None:
    """Raise ValueError for options that do not exist, or do not go together."""
    zoo.method(arguments.method)  # raises for an unknown one
    for name, known in (("backend", BACKENDS), ("log", (None, *LOGGERS))):
        value = arguments[name]
        if value not in known:
            names = ", ".join(filter(None, known))
            raise ValueError(f"--{name} should be one of {names}, got {value!r}")
    if arguments.search and arguments.grid:
        raise ValueError("--search goes with --search-space, not with --grid")
    if bool(arguments.search) != bool(arguments.search_space):
        raise ValueError("--search and --search-space go together; give both")


def _training_parser(method: str) -> ArgumentParser:
    parser = method_parser(method)
    parser.exit_on_error = False
    return parser


class _Draft(NamedTuple):
    """A configuration that has not seen the data, and the names of the options that were given."""

    config: dict[str, Any]
    given: Collection[str]


class _Datasets:
    """Completes configurations by the settings that suit their data, which are read once."""

    def __init__(self) -> None:
        self.datasets: dict[Any, data.Dataset] = {}

    def completed(self, draft: _Draft, seed: int) -> dict[str, Any]:
        """The configuration of a run with a seed, as plain data."""
        config = draft.config | {"seed": seed}
        key = (config["data"], config["data_root"], config["label_file"], reading_of(config))
        if key not in self.datasets:
            self.datasets[key] = load_data(config).dataset
        with label_warnings_silenced():
            config = completed(config, draft.given, self.datasets[key])
        plain: dict[str, Any] = json.loads(json.dumps(config))
        return plain


def _configs(
    arguments: Namespace, parser: ArgumentParser, datasets: _Datasets
) -> list[dict[str, Any]]:
    """Make the configuration of every run, as in `config.json`."""
    grid = _grid(arguments.grid)
    _check_names(grid, parser, arguments.method, "--grid")
    seeds = _seeds(arguments.seeds)
    points = list(itertools.product(*grid.values()))
    training = arguments.training
    if len(points) > 1:
        training = _with_validation(training)
    configs = []
    for values in points:
        given = dict(zip(grid, values, strict=True))
        draft = _draft(parser, arguments.method, training, given)
        if len(points) > 1:
            _check_can_choose(draft.config)
        configs += [datasets.completed(draft, seed) for seed in seeds]
    return configs


def _check_can_choose(config: dict[str, Any]) -> None:
    if not config["validation"]:
        raise ValueError(
            f"--validation should be above 0, such as {DEFAULT_VALIDATION}: one of several "
            "configurations is chosen by the accuracy on these labels"
        )


def _with_validation(training: Sequence[str]) -> list[str]:
    """Add the default of `--validation`, unless it is given."""
    if "--validation" in {text.partition("=")[0] for text in training}:
        return list(training)
    return [*training, "--validation", str(DEFAULT_VALIDATION)]


def _draft(
    parser: ArgumentParser, method: str, training: Sequence[str], given: Mapping[str, str]
) -> _Draft:
    options = [text for name, value in given.items() for text in (f"--{name}", value)]
    try:
        parsed = parser.parse_args([*training, *options])
        names = vars(parser.parse_args([*training, *options], defaults=False))
        parsed = parsed_with_preset(method, parsed, names)
    except ArgumentError as error:
        own = [text[2:].partition("=")[0] for text in training if text.startswith("--")]
        _check_names([name for name in own if name not in NOT_SWEPT], parser, method)
        raise ValueError(str(error)) from None
    for name in ("resume", "out"):
        if parsed[name] is not None:
            raise ValueError(f"--{name} is not an option of the runs of a sweep")
    config = config_of(method, parsed)
    config["training"]["progress"] = False
    return _Draft(config, names)


def _seeds(text: str) -> list[int]:
    """Parse seeds such as `0:10` or `0,3,7`."""
    first, colon, last = text.partition(":")
    try:
        if colon:
            seeds = list(range(int(first), int(last)))
        else:
            seeds = [int(number) for number in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0:
        raise ValueError(f"--seeds should be like 0:10 or 0,3,7, got {text!r}")
    return seeds


def _grid(texts: Sequence[str], option: str = "--grid") -> dict[str, list[str]]:
    """Parse values by option, such as `z_dim=10,50`."""
    grid: dict[str, list[str]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip().removeprefix("--")
        if not equals or not values or not name:
            raise ValueError(f"{option} should be like z_dim=10,50, got {text!r}")
        if name in NOT_SWEPT:
            hint = "; give --seeds" if name == "seed" else ""
            raise ValueError(f"{option}: {name} is not an option to vary{hint}")
        if name in grid:
            raise ValueError(f"{option}: {name} is given twice; give all its values at once")
        grid[name] = split_values(values)
    return grid


def _check_names(
    names: Iterable[str], parser: ArgumentParser, method: str, option: str = ""
) -> None:
    """Raise ValueError for a name of no option, with the nearest one."""
    known = options_of(parser) - {"help", *NOT_SWEPT}
    for name in names:
        if name.replace("-", "_") in known:
            continue
        nearest = get_close_matches(name, sorted(known), 1)
        hint = f"the nearest is {nearest[0]}" if nearest else f"see pyro-ssl train {method} --help"
        where = option or f"--{name}"
        raise ValueError(f"{where}: {method} has no option {name}; {hint}")


def _space(arguments: Namespace, parser: ArgumentParser) -> Space:
    """Parse ranges and values by option, such as `lr=1e-4..1e-2:log` and `z_dim=10,50`."""
    space: dict[str, Range | list[Any]] = {}
    grid = _grid(arguments.search_space, "--search-space")
    _check_names(grid, parser, arguments.method, "--search-space")
    for name, values in grid.items():
        space[name] = list(values)
        if ".." in values[0]:
            space[name] = _range(arguments, parser, name, ",".join(values))
        else:
            for value in values:  # raises if the option does not take it
                _draft(parser, arguments.method, arguments.training, {name: value})
    return space


def _range(arguments: Namespace, parser: ArgumentParser, name: str, text: str) -> Range:
    numbers, colon, scale = text.partition(":")
    low, _, high = numbers.partition("..")
    try:
        if colon and scale != "log":
            raise ValueError(f"the scale should be log, got {scale!r}")
        ends = Range(float(low), float(high), log=bool(colon))
    except ValueError as error:
        raise ValueError(
            f"--search-space: {name} should be like 1e-4..1e-2:log, got {text!r}: {error}"
        ) from None
    for end in (low, high):
        _draft(parser, arguments.method, arguments.training, {name: end})
    try:
        inside = str(ends.low + (ends.high - ends.low) * 0.123456789)
        _draft(parser, arguments.method, arguments.training, {name: inside})
    except ValueError:
        return Range(ends.low, ends.high, log=ends.log, whole=True)
    return ends


def split_values(text: str) -> list[str]:
    """Split at commas outside brackets.

    >>> split_values("[8,8],[16]")
    ['[8,8]', '[16]']
    """
    values = [""]
    depth = 0
    for letter in text:
        depth += (letter in "[({") - (letter in "])}")
        if letter == "," and depth == 0:
            values.append("")
        else:
            values[-1] += letter
    return values


# --- results --------------------------------------------------------------------------------------


def report(
    outcomes: Sequence[Outcome],
    out: Path,
    varied: Sequence[str],
    trials: Sequence[Outcome] = (),
) -> None:
    """Choose a configuration, test it, write the table, and print the statistics.

    Arguments:
        outcomes: The runs; one of their configurations is chosen.
        out: Directory of the sweep.
        varied: Options in which the configurations differ.
        trials: Runs of a search, which are added to the table.

    Raises:
        ValueError: Some runs have failed; the table is written before.
    """
    groups = _by_point(outcomes, varied)
    chosen = _chosen(groups)
    tested = {} if chosen is None else _test(chosen, out)
    rows = [_with_test(outcome, tested) for outcome in outcomes]
    names = {outcome.name for outcome in outcomes}
    rows += [trial for trial in trials if trial.name not in names]
    _print_dropped_runs(out / TABLE, rows)
    write_table(out / TABLE, rows, flat)
    _print_statistics(groups, chosen, varied)
    _print_tie(groups, chosen, varied)
    if chosen is not None and tested:
        _print_test(chosen, tested, varied)
    elif chosen is not None:
        print(f"\nchosen: {_label(chosen[0].config, varied)}; the data have no test part")
    print(f"table: {out / TABLE}")
    _raise_failures(rows, out, varied)


def _by_point(outcomes: Sequence[Outcome], varied: Sequence[str]) -> list[list[Outcome]]:
    """Group runs with the same values of the varied options.

    Their seeds differ, and with them the labels and what follows from these: class frequencies.
    """
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(_label(outcome.config, varied), []).append(outcome)
    return list(groups.values())


def _raise_failures(rows: Sequence[Outcome], out: Path, varied: Sequence[str]) -> None:
    """Print the error of each failed run, and raise ValueError if there is one."""
    failed = [outcome for outcome in rows if outcome.error]
    for outcome in failed:
        print(f"{_label(outcome.config, varied, seed=True)}: {outcome.error}", file=sys.stderr)
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(rows)} runs have failed, see above and error.txt in "
            f"{out / RUNS}/RUN; the same command tries them again"
        )


def _print_dropped_runs(table: Path, rows: Sequence[Outcome]) -> None:
    """Print how many runs of the earlier table are not in the new one."""
    if not table.exists():
        return
    with table.open(newline="") as file:
        before = {row["run"] for row in csv.DictReader(file)}
    left_out = before - {outcome.name for outcome in rows}
    if left_out:
        print(
            f"{table}: the table now has the runs of this command only; {len(left_out)} runs of "
            f"earlier commands stay in {table.parent / RUNS}"
        )


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """Flatten a configuration to one level, with the seed first."""
    rest = {key: value for key, value in config.items() if key not in ("options", "training")}
    return {"seed": config["seed"]} | rest | config["options"] | config["training"]


def _chosen(groups: Sequence[list[Outcome]]) -> list[Outcome] | None:
    """Choose the complete configuration with the best mean accuracy; take a single one as it is."""
    complete = _complete(groups)
    if not complete:
        return None
    if len(groups) == 1:
        return complete[0]
    return max(complete, key=lambda group: statistics(_values(group, MEASURE)).mean)


def _complete(groups: Sequence[list[Outcome]]) -> list[list[Outcome]]:
    return [group for group in groups if all(o.result is not None for o in group)]


def _values(group: Sequence[Outcome], measure: str) -> list[float]:
    return [o.result[measure] for o in group if o.result is not None]


def _test(chosen: Sequence[Outcome], out: Path) -> dict[str, dict[str, float]]:
    """Return the test measures of each run; a run is measured once, and its file is kept.

    Nothing is measured if the data have no test part.
    """
    config = chosen[0].config
    dataset: data.Dataset | None = None
    tested = {}
    for outcome in chosen:
        directory = out / RUNS / outcome.name
        path = directory / TEST_FILE
        if not path.exists():
            if dataset is None:
                dataset = load_data(config).dataset
            if not len(dataset.x_test):
                return {}
            saved = SavedModel.load(directory / "model")
            measures = test_measures(saved.objective, dataset)
            named = {f"test_{name}": value for name, value in measures.items()}
            files.write_sealed(path, named)
        tested[outcome.name] = files.read_sealed(path)
    return tested


def _with_test(outcome: Outcome, tested: Mapping[str, dict[str, float]]) -> Outcome:
    if outcome.name not in tested or outcome.result is None:
        return outcome
    result = outcome.result | tested[outcome.name]
    return Outcome(outcome.name, outcome.config, result, outcome.error)


def _print_statistics(
    groups: Sequence[list[Outcome]], chosen: list[Outcome] | None, varied: Sequence[str]
) -> None:
    rows = []
    for group in groups:
        values = [o.result[MEASURE] for o in group if o.result and MEASURE in o.result]
        if not values:
            continue
        mark = "chosen" if group is chosen else ""
        cells = _percentages(statistics(values))
        rows.append((_label(group[0].config, varied), *cells, mark))
    if rows:
        header = ("validation accuracy", "mean %", "sd", "worst", "runs", "")
        print("\n" + reports.table(header, rows))


def _print_tie(
    groups: Sequence[list[Outcome]], chosen: list[Outcome] | None, varied: Sequence[str]
) -> None:
    """Say so if the chosen configuration cannot be told from the second best."""
    if chosen is None or len(groups) == 1:  # nothing is chosen by its accuracy
        return
    values = {
        _label(group[0].config, varied): _values(group, MEASURE) for group in _complete(groups)
    }
    text = tie(values, _label(chosen[0].config, varied))
    if text:
        print(f"\n{text}")


def _percentages(result: Statistics) -> tuple[str, ...]:
    numbers = [f"{100 * value:.2f}" for value in (result.mean, result.sd, result.worst)]
    return (*numbers, str(result.runs))


def _print_test(
    chosen: Sequence[Outcome], tested: Mapping[str, dict[str, float]], varied: Sequence[str]
) -> None:
    values = [measures["test_accuracy"] for measures in tested.values()]
    mean, sd, worst, runs = _percentages(statistics(values))
    print(
        f"\ntest accuracy of {_label(chosen[0].config, varied)}: "
        f"mean {mean} %, sd {sd}, worst {worst}, runs {runs}"
    )


def _label(config: dict[str, Any], varied: Sequence[str], *, seed: bool = False) -> str:
    """Describe a configuration by the options in which it differs from the others."""
    values = flat(config)
    names = [*varied, "seed"] if seed else list(varied)
    if not names:
        return str(config["method"])
    return " ".join(f"{name}={json.dumps(values[name])}" for name in names)

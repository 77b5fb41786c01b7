"""The command line: `pyro-ssl list | train | evaluate | predict | label`."""

from __future__ import annotations

import io
import json
import os
import platform
import signal
import sys
import time
import warnings
from argparse import ArgumentError
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from types import NoneType
from typing import Any, Literal

import numpy as np
import torch
import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from pyro_ssl import data, zoo
from pyro_ssl.active.acquisition import Acquisition
from pyro_ssl.active.labelling import Page, Question
from pyro_ssl.active.learner import ActiveLearner, codes
from pyro_ssl.data.labels import LabelWarning, labels_found, warn_of_missing_classes
from pyro_ssl.evaluation import metrics, plots, reports
from pyro_ssl.evaluation.attacks import ATTACKS
from pyro_ssl.evaluation.corruptions import corrupted
from pyro_ssl.prediction.predict import as_known, predict_proba
from pyro_ssl.training import SCHEDULES, DivergedError, as_device, fit
from pyro_ssl.utils import files
from pyro_ssl.utils.arguments import as_data, check_event_shape, check_positive
from pyro_ssl.utils.compat import options_of
from pyro_ssl.zoo.saved_model import SavedModel

USER_ERRORS = (ValueError, TypeError, OSError, MemoryError, torch.cuda.OutOfMemoryError, DivergedError)
FIT_OPTIONS = (
    "epochs",
    "batch_size",
    "labeled_batch_size",
    "lr",
    "warmup",
    "clip_norm",
    "ema",
    "precision",
    "device",
    "checkpoint_every",
    "progress",
)
DEEPEST = 50
"""Levels of nesting in an argument or a configuration file."""
EPSILONS = [0.02, 0.05, 0.1, 0.15, 0.2, 0.3]
RUN_OPTIONS = ("data", "data_root", "labels", "how", "label_file", "seed", "binarise")
_KINDS: dict[str, tuple[type, ...]] = {
    "method": (str,), "options": (dict,), "training": (dict,), "data": (str,), "data_root": (str, NoneType),
    "labels": (int, str, NoneType), "how": (str,), "label_file": (str, NoneType), "seed": (int,), "binarise": (bool,),
}  # fmt: skip
"""What `config.json` holds."""
_LEFT_OVER = {"lock", "fit.lock", "config.json.writing"}
"""What a command that was killed before `config.json` was in place may have left: no run."""


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 when it succeeded, 2 for a user's mistake, which is said in one line, 130 when it was stopped."""
    arguments: Namespace | None = None
    try:
        with _stopped_at_once_if_asked_twice(), _plain_warnings():
            given = sys.argv[1:] if argv is None else argv
            if deep := [text for text in given if _is_deep(text)]:
                raise ValueError(f"the argument {deep[0]:.40} ... is nested too deeply to be read")
            arguments = make_parser().parse_args(given)
            commands = {"list": _list, "train": _train, "evaluate": _evaluate, "predict": _predict, "label": _label}
            commands[arguments.command](arguments[arguments.command])
            with files.naming("standard output"):
                sys.stdout.flush()
    except (KeyboardInterrupt, EOFError):
        print(f"\npyro-ssl: stopped{_resume_hint(arguments)}", file=sys.stderr)
        return 130
    except USER_ERRORS as error:
        if os.environ.get("PYRO_SSL_DEBUG"):
            raise
        print(f"pyro-ssl: error: {_said(error)}", file=sys.stderr)
        return 2
    return 0


def _said(error: BaseException) -> str:
    """An error as a user is told it."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is None:
        return f"{error}: the terminal, or where standard output goes"
    if isinstance(error, MemoryError):
        return f"there is not enough memory; {error}".removesuffix("; ")
    return str(error)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings are said in a line, as errors are, without the place in the code that gave them."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"pyro-ssl: warning: {message}\n"  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.formatwarning = before


@contextmanager
def _stopped_at_once_if_asked_twice() -> Iterator[None]:
    """The first Ctrl-C raises KeyboardInterrupt; the second ends the process, for files are whole at any moment."""

    def first(*_: Any) -> None:
        signal.signal(signal.SIGINT, second)
        raise KeyboardInterrupt

    def second(*_: Any) -> None:
        os.write(2, b"\npyro-ssl: stopped\n")
        os._exit(130)

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    try:
        signal.signal(signal.SIGINT, first)
    except ValueError:  # not in the main thread, which alone is interrupted
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _resume_hint(arguments: Namespace | None) -> str:
    """How a command that was stopped is gone on with, if it can be."""
    if arguments is None:
        return ""
    given = arguments[arguments.command]
    if arguments.command == "label":
        return "; what was kept is kept, and the same command goes on"
    if arguments.command == "train":
        out = given.resume or given[given.method].resume or given[given.method].out
        return f"; pyro-ssl train --resume {out} goes on" if (Path(out) / "config.json").exists() else ""
    return ""


def _is_deep(text: str) -> bool:
    """Whether YAML, or JSON, is nested so deeply that its parser may exhaust the stack, which ends the process."""
    if len(text) < DEEPEST:
        return False
    depth = 0
    try:
        for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                return True
    except yaml.YAMLError as error:  # a newer libyaml has its own limit; the parser reports other errors
        return "nesting depth" in str(error)
    return False


class _Config(ActionConfigFile):
    """A configuration file whose unknown keys are named: jsonargparse loses the name two subcommands deep."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        try:
            if Path(values).is_file() and _is_deep(Path(values).read_text(encoding="utf-8")):
                raise ArgumentError(self, f"{values} is nested too deeply to be read")
            super().__call__(parser, cfg, values, option_string)
        except UnicodeDecodeError as error:
            raise ArgumentError(self, f"{values} should be text in UTF-8: {error}") from None
        if unknown := sorted(vars(cfg).keys() - options_of(parser)):
            raise ArgumentError(self, f"{values}: there is no option {', '.join(unknown)}")


def make_parser() -> ArgumentParser:
    """The parser of all commands, one subcommand of `train` per method."""
    parser = ArgumentParser(
        prog="pyro-ssl", description="Semi-supervised deep generative models.", version=version("pyro-ssl")
    )
    commands = parser.add_subcommands(dest="command")
    commands.add_subcommand("list", ArgumentParser(description="List methods and data sets."))
    train = ArgumentParser(description="Train a method on a data set with few labels, or go on with --resume DIR.")
    train.add_argument(
        "--resume", type=str | None, default=None, help="directory of a run to go on with, as it was started"
    )
    commands.add_subcommand("train", train)  # jsonargparse wants the outer level first
    methods = train.add_subcommands(dest="method", required=False)
    for name, row in zoo.METHODS.items():
        methods.add_subcommand(name, _train_parser(name, row))
    evaluate = ArgumentParser(
        description="Measure a trained model on its data set's test part; tables and pictures go to DIR/evaluation."
    )
    evaluate.add_argument("directory", type=str)
    evaluate.add_argument("--data", type=str | None, default=None, help="another data set with the same classes")
    evaluate.add_argument("--data-root", type=str | None, default=None, help="folder of the image sets")
    evaluate.add_argument(
        "--ood", type=str, nargs="+", default=[], help="data sets, or .npy or .csv files of rows, to tell from its own"
    )
    evaluate.add_argument("--corruptions", action="store_true", help="measure under corruptions of images too")
    evaluate.add_argument("--attack", type=str | None, default=None, help="and under an attack: " + ", ".join(ATTACKS))
    evaluate.add_argument("--epsilons", type=float, nargs="+", default=EPSILONS, help="sizes of the attack")
    evaluate.add_argument("--restarts", type=int, default=1, help="random starts of pgd")
    evaluate.add_argument("--device", type=str | None, default=None, help="where it is measured, such as cuda")
    commands.add_subcommand("evaluate", evaluate)
    predict = ArgumentParser(description="Write p(y|x) for the rows of an array.")
    predict.add_argument("directory", type=str)
    predict.add_argument("--input", type=str, required=True, help="X.npy or X.csv, rows of x")
    predict.add_argument("--output", type=str, required=True, help="P.npy or P.csv, to be written: (N, K)")
    commands.add_subcommand("predict", predict)
    commands.add_subcommand("label", _label_parser())
    return parser


def _label_parser() -> ArgumentParser:
    parser = ArgumentParser(
        description="Ask a person for the labels that a method wants most, and train it; run again, it goes on."
    )
    parser.add_argument("directory", type=str, help="where labels, contact sheets and the model are kept")
    parser.add_argument("--data", type=str, required=True, help="an .npz file with images x, (N, C, H, W) or (N, H, W)")
    parser.add_argument(
        "--classes", type=str, nargs="+", default=None, help="their names; by default those of the file"
    )
    parser.add_argument("--source", type=Literal["browser", "terminal"], default="browser", help="where they are asked")
    parser.add_argument("--port", type=int, default=0, help="of the page, on this machine alone; 0: any that is free")
    parser.add_argument("--n", type=int, default=10, help="labels a round")
    parser.add_argument("--rounds", type=int, default=1, help="how many; the model is trained after each")
    parser.add_argument("--method", type=Literal[tuple(zoo.METHODS)], default="m2", help="name in the zoo")
    parser.add_argument("--options", type=dict[str, Any], default={}, help="options of the method, as JSON")
    parser.add_argument("--training", type=dict[str, Any], default={"epochs": 8}, help="arguments of fit, as JSON")
    parser.add_argument(
        "--warm", type=dict[str, Any] | None, default={"epochs": 2}, help="those that are others in later rounds"
    )
    parser.add_argument("--acquisition", type=Acquisition, default="entropy", help="which labels are wanted")
    parser.add_argument(
        "--power", type=float | None, default=None, help="draw them by it, see acquisition.power_scores"
    )
    parser.add_argument("--start", type=Literal["random", "diverse"], default="diverse", help="the first round's")
    parser.add_argument("--seed", type=int, default=0, help="of weights, training and picks")
    return parser


def _train_parser(name: str, row: zoo.Method) -> ArgumentParser:
    parser = ArgumentParser(description=(row.build.__doc__ or "").splitlines()[0])
    parser.add_argument("--config", action=_Config, help="YAML file with any of these options")
    parser.add_argument(
        "--resume", type=str | None, default=None, help="directory of a run to go on with, as it was started"
    )
    parser.add_argument("--data", type=str, default="digits", help="data set, or path of an .npz file")
    parser.add_argument("--data-root", type=str | None, default=None, help="folder of the image sets")
    parser.add_argument(
        "--labels", type=int | Literal["all"] | None, default=None,
        help="labeled rows in total, or all; if not given 100, or all of data that leave some out",
    )  # fmt: skip
    parser.add_argument(
        "--how", type=str, default="balanced", help="how a number of labels is drawn: balanced, stratified, random"
    )
    parser.add_argument(
        "--label-file", type=str | None, default=None, help="rows to label, as LabelDraw.save wrote them"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the label draw, the weights, the order and the noise")
    parser.add_argument("--binarise", type=bool, default=False, help="draw binary pixels afresh in each batch")
    parser.add_argument("--out", type=str | None, default=None, help="directory of the run")
    parser.add_argument(
        "--schedule", type=str, default="one_cycle", help="of the learning rate: " + ", ".join(SCHEDULES)
    )
    of_fit = set(fit.__kwdefaults__ or {}) | {"objective", "x", "y"}
    skip: set[str | int] = {*(of_fit - set(FIT_OPTIONS))}
    parser.add_function_arguments(fit, skip=skip)
    parser.add_function_arguments(row.build, skip={"x_shape", "classes", "regression"})
    parser.set_defaults(row.training)
    return parser


def _list(arguments: Namespace) -> None:
    widths = [
        max(map(len, column)) for column in zip(*((n, r.model, r.guide) for n, r in zoo.METHODS.items()), strict=True)
    ]
    for name, row in zoo.METHODS.items():
        cells = [cell.ljust(width) for cell, width in zip((name, row.model or "-", row.guide), widths, strict=True)]
        print("  ".join([*cells, (row.build.__doc__ or "").splitlines()[0]]))
    print(f"\ndata: {', '.join(data.DATASETS)}, or a path to an .npz file with x, y, x_test, y_test")


def _train(arguments: Namespace) -> None:
    name = arguments.method
    given = arguments[name] if name else Namespace()
    resume = arguments.resume or given.get("resume")
    if resume:
        config = _read_config(Path(resume))
        if name not in (None, config["method"]):
            raise ValueError(f"--resume: {resume} is a run of {config['method']}, not of {name}")
        return train(Path(resume), config, resume=True)
    if name is None:
        raise ValueError(f"train needs a method, one of {', '.join(zoo.METHODS)}, or --resume DIR")
    if not given.out:
        raise ValueError("--out DIR is needed: where the run is written")
    if given.schedule not in SCHEDULES:
        raise ValueError(f"--schedule should be one of {', '.join(SCHEDULES)}, got {given.schedule!r}")
    options = {k: given.get(k, default) for k, default in zoo.options_of(name).items()}
    config = {"method": name, "options": options, "training": {k: given[k] for k in (*FIT_OPTIONS, "schedule")}}
    run = {k: given[k] for k in RUN_OPTIONS}
    for k in ("data", "data_root", "label_file"):  # paths, so that a run can be resumed from another folder
        if run[k] and (k != "data" or run[k].endswith(".npz")):
            run[k] = str(Path(run[k]).resolve())
    return train(Path(given.out), config | run)


def train(out: Path, config: dict[str, Any], *, resume: bool = False) -> None:
    """Train as `config` says and write the run to `out`: checkpoints, model, `result.json`, learning curves."""
    if out.is_file():
        raise FileExistsError(f"--out: {out} is a file; give a directory")
    if out.exists() and not resume and (others := {path.name for path in out.iterdir()} - _LEFT_OVER):
        how = f"--resume {out} goes on with it, as it was started; " if "config.json" in others else ""
        raise FileExistsError(
            f"--out: {out} is not empty and may hold another run; {how}for other settings give another directory"
        )
    with _owned(out):
        _train_in(out, config, resume)


def _train_in(out: Path, config: dict[str, Any], resume: bool) -> None:
    dataset = data.load(config["data"], config["data_root"])
    draw = _draw(dataset, config)
    if config["binarise"] and not 0 <= dataset.x.min() <= dataset.x.max() <= 1:
        raise ValueError(f"--binarise: x should be in [0, 1], got {dataset.x.min():.4g} .. {dataset.x.max():.4g}")
    name, options, seed = config["method"], config["options"], config["seed"]
    objective = zoo.build(name, dataset.x_shape, len(dataset.classes), seed=seed, **options)
    labels = draw.codes(dataset.y)
    print(labels_found(labels, dataset.classes), flush=True)
    warn_of_missing_classes(labels, dataset.classes)
    with _new_run(out, config), _by_name():
        history = fit(
            objective, dataset.x, labels, seed=seed, directory=out, resume=resume,
            identity={"method": name, "options": options, "binarise": config["binarise"]},
            transform=torch.bernoulli if config["binarise"] else None, **config["training"],
        )  # fmt: skip
    SavedModel(name, dataset.x_shape, list(dataset.classes), options, objective).save(out / "model")
    draw.save(out / "labels.json")
    plots.save(plots.learning_curves({name: history}), out / "curves.png")
    measured = metrics.evaluate(predict_proba(objective, dataset.x_test), dataset.y_test)
    result = _result(config, draw, history["seconds"][-1], measured)
    files.write_text(out / "result.json", json.dumps(result, indent=1))
    print(_row(result))


def _draw(dataset: data.Dataset, config: dict[str, Any]) -> data.LabelDraw:
    if config["label_file"]:
        return data.LabelDraw.load(config["label_file"])
    known, labels = dataset.y >= 0, config["labels"]
    if labels == "all" or (labels is None and not known.all()):
        return data.LabelDraw(tuple(known.nonzero().flatten().tolist()), len(known), "all")
    return data.draw_labels(dataset.y, 100 if labels is None else labels, how=config["how"], seed=config["seed"])


def _result(config: dict[str, Any], draw: data.LabelDraw, seconds: float, measured: dict[str, float]) -> dict[str, Any]:
    """What `result.json` holds."""
    average = ", averaged" if config["training"]["ema"] else ""
    return {
        "method": config["method"],
        "data": config["data"],
        "labels": len(draw.indices),
        "draw": draw.name,
        "seed": config["seed"],
        "epochs": config["training"]["epochs"],
        "seconds": seconds,
        **{f"test_{k}": v for k, v in measured.items()},
        "selection": f"none: the last epoch's weights{average}; no validation labels",
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions(),
    }


@contextmanager
def _by_name() -> Iterator[None]:
    """Silence `fit`'s warnings of classes by number: the command warns of them by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LabelWarning)
        yield


@contextmanager
def _owned(out: Path) -> Iterator[None]:
    """No other process trains in the directory meanwhile; it is made, and removed again if nothing is written to it."""
    made = not out.exists()
    try:
        with files.locked(out):
            yield
    except BaseException:
        left = {path.name for path in out.iterdir()} if made and out.is_dir() else set()
        if left and left <= _LEFT_OVER:
            for name in left:
                (out / name).unlink()
            out.rmdir()
        raise


@contextmanager
def _new_run(out: Path, config: dict[str, Any]) -> Iterator[None]:
    """Write `config.json`, and take it back if training is refused before it starts: the same `--out` can be given again."""
    begun = (out / "config.json").exists()
    files.write_text(out / "config.json", json.dumps(config, indent=1))
    try:
        yield
    except BaseException:
        if not begun and {path.name for path in out.iterdir()} - _LEFT_OVER == {"config.json"}:
            (out / "config.json").unlink()
        raise


def _evaluate(arguments: Namespace) -> None:
    directory = Path(arguments.directory)
    device = None if arguments.device is None else as_device(arguments.device)
    config = _read_config(directory)
    saved = SavedModel.load(directory / "model")
    dataset = data.load(arguments.data or config["data"], arguments.data_root or config["data_root"])
    try:
        dataset = data.recoded(dataset, saved.classes)
    except ValueError as error:
        raise ValueError(f"--data: {error}") from None
    foreign = _checked(arguments, config, saved, dataset)
    if device is not None:
        saved.objective.to(device)
    out = directory / "evaluation"
    found = reports.test_report(saved.objective, dataset, out)
    lines = [(f"test_{name}", f"{value:.6f}") for name, value in found.items()]
    print(*(f"{name:24} {value}" for name, value in lines), sep="\n")
    files.write_text(out / "test.md", reports.table(("measure", "value"), lines) + "\n")

    def write(name: str, text: str) -> None:
        print("\n" + text, flush=True)
        files.write_text(out / f"{name}.md", text + "\n")

    if foreign:
        codes = None
        if arguments.data in (None, config["data"]):
            kept = directory / "labels.json"
            draw = data.LabelDraw.load(kept) if kept.exists() else _draw(dataset, config)
            codes = draw.codes(dataset.y)
        labeled = None if codes is None else (dataset.x[codes >= 0], codes[codes >= 0])
        if labeled is not None and int(labeled[1].bincount(minlength=len(saved.classes)).min()) < 2:
            print("\nlog p(z), refitted, is left out: a class has fewer than two labels")
            labeled = None
        write("ood", reports.ood_report(saved.objective, dataset, foreign, labeled, out))
    if arguments.corruptions:
        write("corruptions", reports.corruption_report(saved.objective, dataset, out))
    if name := arguments.attack:
        write(
            name,
            reports.attack_report(saved.objective, dataset, name, arguments.epsilons, out, restarts=arguments.restarts),
        )


def _checked(
    arguments: Namespace, config: dict[str, Any], saved: SavedModel, dataset: data.Dataset
) -> dict[str, torch.Tensor]:
    """What `evaluate` is asked for, before anything is done; the foreign data by name."""
    if arguments.attack not in (None, *ATTACKS):
        raise ValueError(f"--attack should be one of {', '.join(ATTACKS)}, got {arguments.attack!r}")
    if arguments.restarts < 1 or (arguments.restarts > 1 and arguments.attack != "pgd"):
        raise ValueError(f"--restarts should be 1 or above, and 1 but for --attack pgd; got {arguments.restarts}")
    if arguments.attack and not min(arguments.epsilons) >= 0:
        raise ValueError(f"--epsilons should be 0 or above, got {min(arguments.epsilons)}")
    foreign = {Path(name).stem: _foreign(name, arguments.data_root or config["data_root"]) for name in arguments.ood}
    if len(foreign) < len(arguments.ood) or dataset.name in foreign:
        raise ValueError(f"--ood: names should differ from each other and from {dataset.name}, got {arguments.ood}")
    for name, x in foreign.items():
        check_event_shape(x, saved.x_shape, f"--ood: {name}: x")
    if arguments.corruptions:
        corrupted(dataset.x_test[:1], "contrast", 1)
    return foreign


def _foreign(name: str, root: str | None) -> torch.Tensor:
    """The test part of a data set, or the rows of an .npy or .csv file."""
    if not name.endswith((".npy", ".csv")):
        return data.load(name, root).x_test
    return as_data(_array("--ood", name), "--ood", torch.get_default_dtype())


def _array(option: str, name: str) -> np.ndarray:
    """The array of an .npy file, or the rows of numbers of a .csv file."""
    path = Path(name)
    if not path.exists():
        raise FileNotFoundError(f"{option}: {path}: no such file")
    if path.suffix.lower() == ".csv":
        return _table(option, path)
    try:
        with path.open("rb") as file:
            x = np.load(file, allow_pickle=False)
    except Exception as error:  # numpy raises several kinds for a damaged file
        other = "it has another format, or holds Python objects; write numbers with numpy.save, or as a .csv file"
        reason = other if "pickle" in str(error) else str(error)
        raise ValueError(f"{option}: {path} is not a readable .npy file: {reason}") from None
    if not isinstance(x, np.ndarray):
        raise ValueError(f"{option}: {path} should be a .npy file with one array, got an .npz")
    return x


def _table(option: str, path: Path) -> np.ndarray:
    """Rows of numbers, separated by commas; a first line of names is left out."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        if lines and not any(map(_is_number, lines[0].split(","))):
            lines = lines[1:]
        if not lines:
            raise ValueError("it has none")
        _check_first(lines)
        return _numbers(lines)
    except ValueError as error:  # of a byte that is no text, too
        raise ValueError(f"{option}: {path} should hold rows of numbers, separated by commas: {error}") from None


def _numbers(lines: list[str]) -> np.ndarray:
    """Lines of numbers as an array, or a ValueError that names the first line that is none."""
    try:
        return np.loadtxt(lines, delimiter=",", ndmin=2, comments=None)
    except ValueError:
        width = lines[0].count(",") + 1
        for number, line in enumerate(lines, 1):
            cells = line.split(",")
            if len(cells) != width:
                raise ValueError(f"row {number} has {len(cells)} of them, the first {width}") from None
            if wrong := [cell for cell in cells if not _is_number(cell)]:
                raise ValueError(f"row {number} holds {wrong[0].strip()!r:.80}") from None
        raise


def _check_first(lines: list[str]) -> None:
    """Raise ValueError if the first line is 0,1,2 and the second is not of whole numbers: it is no row of data."""
    first = [cell.strip() for cell in lines[0].split(",")]
    counted = first == [str(k) for k in range(len(first))]
    if counted and len(lines) > 1 and not lines[1].replace(",", "").replace(" ", "").isdigit():
        raise ValueError(
            f"the first line, {lines[0]:.40}, seems to number the columns, as pandas does; "
            "leave it out, as in to_csv(index=False, header=False)"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _predict(arguments: Namespace) -> None:
    output = Path(arguments.output)
    if output.suffix.lower() not in (".npy", ".csv"):
        raise ValueError(f"--output: the file should end in .npy or .csv, which says how it is written; got {output}")
    saved = SavedModel.load(Path(arguments.directory) / "model")
    x = _array("--input", arguments.input)
    check_event_shape(x, saved.x_shape, "--input: x")
    if x.dtype.kind in "iu":
        x = x / saved.extra.get("unit", 1.0)
    rows = as_known(saved.objective, x, "--input")
    if not output.resolve().parent.is_dir():
        raise FileNotFoundError(f"--output: {output.parent} is not a directory")
    buffer = io.BytesIO()
    probs = predict_proba(saved.objective, rows).numpy()
    if output.suffix.lower() == ".csv":
        np.savetxt(buffer, probs, delimiter=",", fmt="%.9g")
    else:
        np.save(buffer, probs)
    files.write_file(arguments.output, buffer.getvalue())


def _label(arguments: Namespace) -> None:
    check_positive(n=arguments.n, rounds=arguments.rounds)
    if not 0 <= arguments.port < 2**16:
        raise ValueError(f"--port should be in 0 .. {2**16 - 1}, got {arguments.port}")
    pool, classes, unit = _images(arguments.data, arguments.classes)
    out, row = Path(arguments.directory), zoo.method(arguments.method)
    options = zoo.options_of(arguments.method) | arguments.options
    if "network" in options and "network" not in arguments.options and min(pool.shape[2:]) >= 8:
        options["network"] = "conv"

    def save(learner: ActiveLearner) -> None:
        for objective in learner.members:  # one, or none yet
            extra = {"unit": unit}
            saved = SavedModel(arguments.method, tuple(pool.shape[1:]), classes, options, objective, extra)
            saved.save(out / "model")

    with files.locked(out):
        learner = ActiveLearner(
            lambda seed: zoo.build(arguments.method, tuple(pool.shape[1:]), len(classes), seed=seed, **options),
            acquisition=arguments.acquisition, power=arguments.power, start=arguments.start, code=codes,
            training={"progress": None} | row.training | arguments.training, update_training=arguments.warm,
            directory=out, identity={"method": arguments.method, "options": options, "classes": classes}, seed=arguments.seed,
        )  # fmt: skip
        question = Question(out / "asked.json", pool, classes)
        with nullcontext() if arguments.source == "terminal" else Page(classes, arguments.port) as page:
            for _ in range(arguments.rounds):
                if not learner.indices and arguments.start == "diverse" and not question.rows:
                    print(
                        "finding images that stand for the others, by a code that is learned: some minutes", flush=True
                    )
                with _by_name():
                    learner.learn(pool)  # what an earlier call was told, should it have been killed
                    save(learner)
                    if not _ask(learner, question, page, arguments.n):
                        break
                    save(learner)
                if learner.members:
                    warn_of_missing_classes(learner.labels, classes)
                    sure = (learner.predict_proba(pool).amax(-1) > 0.95).float().mean()
                    print(
                        f"{len(learner.indices)} labels; sure of {100 * sure:.1f} % of {len(pool)} images", flush=True
                    )


def _ask(learner: ActiveLearner, question: Question, page: Page | None, n: int) -> bool:
    """Ask for n labels, or for those that were asked for already, and teach them; False if there is nothing left to ask."""
    question.forget(learner.indices + learner.skipped)
    if not question.rows:
        begun = learner.indices or learner.skipped
        if begun and not learner.left:
            return False
        question.ask(learner.query(question.pool, min(n, learner.left) if begun else n).tolist())
    learner.teach(*question.answered(page), pool=question.pool, skipped=question.left_out)
    return True


def _images(name: str, classes: list[str] | None) -> tuple[torch.Tensor, list[str], float]:
    """The images of an .npz file, `(N, C, H, W)`, the names of the classes, and what the file's numbers were divided by."""
    arrays = data.arrays_of(name)
    if "x" not in arrays:
        raise ValueError(f"--data: {name} should hold an array x; it has {', '.join(arrays) or 'none'}")
    x, whole = as_data(arrays["x"], "--data: x", torch.float32), arrays["x"].dtype.kind in "iu"
    low, high = float(x.min()), float(x.max())
    if whole and not 0 <= low <= high <= 255:
        raise ValueError(f"--data: x, of whole numbers, should be in 0 .. 255, got {low:g} .. {high:g}")
    unit = 255.0 if whole and high > 1 else 1.0
    x = x / unit
    x = x[:, None] if x.dim() == 3 else x
    if x.dim() != 4 or x.shape[1] not in (1, 3):
        raise ValueError(
            f"--data: x should be images (N, C, H, W), one channel or three, or (N, H, W); got {tuple(x.shape)}"
        )
    found = classes or [str(c) for c in arrays.get("classes", np.array([])).tolist()]
    if len(found) < 2 or len(set(found)) < len(found):
        raise ValueError(f"--classes: two or more different names are needed, got {found}")
    return x, found, unit


def _row(result: dict[str, Any]) -> str:
    return (
        f"{result['method']} on {result['data']}, {result['labels']} labels: accuracy {100 * result['test_accuracy']:.2f} %, "
        f"log-likelihood {result['test_log_likelihood']:.3f}, ECE {100 * result['test_ece']:.2f} %, {result['seconds']:.0f} s"
    )


def versions() -> dict[str, str]:
    """Versions that a number depends on."""
    packages = ("pyro-ssl", "pyro-ppl", "torch", "numpy", "scikit-learn")
    return {"python": platform.python_version()} | {p: version(p) for p in packages}


def _read_config(directory: Path) -> dict[str, Any]:
    """The configuration of a run, checked for what it should hold."""
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        hint = "; none has begun there: give --out again" if directory.is_dir() else ""
        raise FileNotFoundError(f"{path}: no such file; {path.parent} is not the directory of a run{hint}") from None
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(config, dict) or not _KINDS.keys() <= config.keys():
        raise ValueError(f"{path} is damaged, or was not written by pyro-ssl train")
    for name, kinds in _KINDS.items():
        if type(config[name]) not in kinds:
            wanted = " or ".join("null" if kind is NoneType else kind.__name__ for kind in kinds)
            raise ValueError(f"{path} is damaged: {name} should be {wanted}, got {config[name]!r:.80}")
    if not {"epochs", "ema"} <= config["training"].keys() <= {*FIT_OPTIONS, "schedule"}:
        raise ValueError(f"{path} is damaged: training should hold arguments of fit, got {config['training']!r:.200}")
    return config


if __name__ == "__main__":
    sys.exit(main())

"""`pyro-ssl label`: ask a person for the most useful labels, and train a method on them."""

from __future__ import annotations

import json
import shlex
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jsonargparse import ArgumentParser, Namespace

from pyro_ssl import zoo
from pyro_ssl.active.acquisition import ACQUISITIONS
from pyro_ssl.active.cold_start import Embedding, Start, pca_embedding, vae_embedding
from pyro_ssl.active.labelling.background import Background
from pyro_ssl.active.labelling.page import Page
from pyro_ssl.active.labelling.question import Question
from pyro_ssl.active.labelling.session import Pool, Session
from pyro_ssl.active.learner import ActiveLearner
from pyro_ssl.cli.commands import COMMANDS
from pyro_ssl.cli.data_options import add_reading_options, reading_of, reading_words
from pyro_ssl.cli.label_data import LabelData, read_label_data
from pyro_ssl.cli.method_options import chosen_options
from pyro_ssl.cli.termination import terminable
from pyro_ssl.data.missing_labels import label_warnings_silenced, warn_of_missing_classes
from pyro_ssl.estimator import SemiSupervisedClassifier
from pyro_ssl.estimator.settings import Shape, settings_for
from pyro_ssl.utils import files
from pyro_ssl.utils.arguments import check_positive
from pyro_ssl.zoo.saved_model import SavedModel

EMBEDDINGS: dict[str, Embedding] = {"pca": pca_embedding, "vae": vae_embedding}
"""Embeddings for the first round, by name."""
CONFIDENT = 0.95
"""Probability above which a prediction counts as confident in the summary of a round."""
TRAINING = {"epochs": 8}
"""Arguments of `fit` for images, unless others are given."""
UPDATE_TRAINING = {"epochs": 2}
"""Arguments of `fit` that replace those of `TRAINING` after the first round."""
MIN_CONV_SIZE = 8
"""Height and width from which images get a convolutional network by default."""


def parser() -> ArgumentParser:
    """Make the parser of the command.

    >>> parser().parse_args(["mine", "--data", "images.npz"]).n
    10
    """
    parser = ArgumentParser(
        allow_abbrev=False,
        description=COMMANDS["label"],
    )
    parser.add_argument(
        "directory", type=str, help="directory for labels.csv, contact sheets and the model"
    )
    parser.add_argument(
        "--data",
        type=str,
        required=True,
        help="folder of images, with class folders or without, a .csv or .parquet "
        "table, or .npz file with images x, (N, C, H, W) or (N, H, W); labels in the data are "
        "learned first",
    )
    add_reading_options(parser)
    parser.add_argument(
        "--classes",
        type=str,
        nargs="+",
        default=None,
        help="names of the classes; by default those of the data: the folders, or the array "
        "classes",
    )
    parser.add_argument(
        "--labels",
        type=str | None,
        default=None,
        help="CSV file of labels to start from, with columns file (or row, for rows without a "
        "name) and label, such as the labels.csv of an earlier command",
    )
    parser.add_argument(
        "--source",
        type=Literal["browser", "terminal"],
        default="browser",
        help="where to ask: a page in the browser, or the terminal",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=0,
        help="port of the page, which only this machine can open; 0 uses any free one",
    )
    parser.add_argument("--n", type=int, default=10, help="questions per round")
    parser.add_argument(
        "--rounds", type=int, default=1, help="number of rounds; the model learns after each"
    )
    parser.add_argument(
        "--method", type=Literal[tuple(zoo.METHODS)], default="m2", help="method, see pyro-ssl list"
    )
    parser.add_argument(
        "--options", type=dict[str, Any], default={}, help="options of the method, as JSON"
    )
    parser.add_argument(
        "--training",
        type=dict[str, Any] | None,
        default=None,
        help="training options, arguments of fit, as JSON; by default 8 epochs for images, and for "
        "a table those of SemiSupervisedClassifier",
    )
    parser.add_argument(
        "--update-training",
        type=dict[str, Any] | Literal["auto"] | None,
        default="auto",
        help="training options that differ in later rounds, which continue from the last weights; "
        "null trains from scratch in each round; auto is 2 epochs for images, and null for a table",
    )
    parser.add_argument(
        "--acquisition",
        type=Literal[tuple(ACQUISITIONS)],
        default="entropy",
        help="score by which images are chosen",
    )
    parser.add_argument(
        "--power",
        type=float | None,
        default=None,
        help="draw images in proportion to this power of their scores; "
        "by default the highest scores are taken",
    )
    parser.add_argument(
        "--start",
        type=Start,
        default="diverse",
        help="images of the first round: at random, or the centres of clusters",
    )
    parser.add_argument(
        "--embedding",
        type=Literal[tuple(EMBEDDINGS)],
        default="pca",
        help="what the first images are clustered by: principal components, in seconds, or the "
        "latents of an autoencoder that is trained first, in minutes",
    )
    parser.add_argument(
        "--while-learning",
        type=Literal["ask", "wait"],
        default="ask",
        help="what happens between rounds, while the model learns: ask goes on with questions from "
        "clusters without a label; wait asks again when the model has learned, so that the "
        "questions do not depend on how fast answers come",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, training and queries")
    return parser


def run(arguments: Namespace) -> None:
    """Ask and train, round by round, until all rounds are done or nothing is left to ask."""
    check_positive(n=arguments.n, rounds=arguments.rounds)
    if not 0 <= arguments.port < 2**16:
        raise ValueError(f"--port should be in 0 .. {2**16 - 1}, got {arguments.port}")
    given = read_label_data(
        arguments.data, arguments.classes, reading_of(vars(arguments)), arguments.labels
    )
    if arguments.labels is not None and arguments.classes is None:
        arguments.classes = given.pool.classes  # the next command does not read the file again
    options, training = _settings(arguments, given.pool)
    with files.locked(arguments.directory), terminable():
        learner = _learner(arguments, given, options, training)
        _teach_known(learner, given, arguments.labels)
        try:
            _ask(arguments, learner, given, options)
        except (KeyboardInterrupt, EOFError, SystemExit):
            print(f"\n{_saved(arguments)}", flush=True)
            raise
        _print_progress(learner, given.pool)
    _print_what_next(arguments, given)


def _ask(
    arguments: Namespace, learner: ActiveLearner, given: LabelData, options: dict[str, Any]
) -> None:
    waits = arguments.while_learning == "wait"

    def save() -> None:
        _save(learner, arguments.method, options, given)

    with (
        _page(arguments, given.pool.classes) as page,
        label_warnings_silenced(),
        Background() as background,
    ):
        session = Session(learner, given.pool, page, background, save, waits=waits)
        session.run(arguments.n, arguments.rounds)


# --- what is said ---------------------------------------------------------------------------------


def _saved(arguments: Namespace) -> str:
    path = Path(arguments.directory) / "labels.csv"
    if not path.exists():
        return "no label is saved yet"
    count = path.read_text().count("\n") - 1
    return f"{path}: {count} label{'' if count == 1 else 's'}, as CSV"


def _print_what_next(arguments: Namespace, given: LabelData) -> None:
    print(_saved(arguments), flush=True)
    out = Path(arguments.directory)
    if (out / "model").exists():
        use = shlex.join(["pyro-ssl", "predict", str(out), "--unlabeled", "--output", "p.csv"])
        print(f"model: {out / 'model'}; to predict the rows without a label: {use}", flush=True)
    words = ["--data", str(arguments.data), *reading_words(vars(arguments))]
    words += ["--label-file", str(out / "labels.csv"), "--out", f"{out}-{arguments.method}"]
    command = shlex.join(["pyro-ssl", "train", arguments.method, *words])
    print(f"to train {arguments.method}, or another method, anew: {command}", flush=True)
    count = arguments.n * arguments.rounds
    print(f"to answer the next {count}: {next_command(arguments)}", flush=True)


def next_command(arguments: Namespace) -> str:
    """The command that asks for more labels: this one, without the labels that it was given.

    >>> arguments = parser().parse_args(["my run", "--data", "images.npz", "--n", "5"])
    >>> next_command(arguments)
    "pyro-ssl label 'my run' --data images.npz --n 5"
    """
    defaults = vars(parser().get_defaults())
    words = ["pyro-ssl", "label", str(arguments.directory)]
    for name, value in vars(arguments).items():
        if name in ("directory", "labels") or value == defaults.get(name):
            continue
        values = value if isinstance(value, list) else [value]
        words.append("--" + name.replace("_", "-"))
        words += [v if isinstance(v, str) else json.dumps(v) for v in values]
    return shlex.join(words)


def resume_hint() -> str:
    """Hint on how to continue an interrupted command.

    >>> resume_hint()
    '; progress is saved; run the same command to continue'
    """
    return "; progress is saved; run the same command to continue"


def _settings(arguments: Namespace, pool: Pool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return all options of the method, and the arguments of `fit`.

    Rows of a table get those of `SemiSupervisedClassifier`, as in `pyro-ssl train`, for as many
    labels as one round gives; large enough images get a convolutional network.
    """
    method = arguments.method
    if pool.x.dim() == 2:
        estimator = SemiSupervisedClassifier(
            method,
            options=arguments.options,
            training=arguments.training or {},
            random_state=arguments.seed,
        )
        shape = Shape(tuple(pool.x.shape[1:]), len(pool.x), arguments.n, len(pool.classes))
        settings = settings_for(estimator.get_params(deep=False), shape, {})
        return chosen_options(method, {}) | settings.options, settings.training
    given: dict[str, Any] = arguments.options
    options = chosen_options(method, {}) | given
    is_free = "network" in options and "network" not in given
    if is_free and pool.x.dim() == 4 and min(pool.x.shape[2:]) >= MIN_CONV_SIZE:
        options["network"] = "conv"
    training = TRAINING if arguments.training is None else arguments.training
    return options, zoo.method(method).training | training


def _update_training(arguments: Namespace, pool: Pool) -> dict[str, Any] | None:
    """Return the arguments of `fit` that differ in later rounds; None trains from scratch."""
    if arguments.update_training != "auto":
        given: dict[str, Any] | None = arguments.update_training
        return given
    return None if pool.x.dim() == 2 else UPDATE_TRAINING


def _learner(
    arguments: Namespace, given: LabelData, options: dict[str, Any], training: dict[str, Any]
) -> ActiveLearner:
    method = arguments.method
    classes = given.pool.classes
    x_shape = tuple(given.pool.x.shape[1:])
    return ActiveLearner(
        lambda seed: zoo.build(method, x_shape, len(classes), seed=seed, **options),
        acquisition=arguments.acquisition,
        power=arguments.power,
        start=arguments.start,
        embedding=EMBEDDINGS[arguments.embedding],
        training={"progress": False} | training,  # the thread must not write over a prompt
        update_training=_update_training(arguments, given.pool),
        directory=arguments.directory,
        identity={"method": method, "options": options, "classes": classes},
        seed=arguments.seed,
    )


def _teach_known(learner: ActiveLearner, given: LabelData, labels_file: str | None) -> None:
    """Teach known labels once; labels that the person has given take precedence."""
    known = learner.labels_by_row | _open_answers(learner, given)
    labeled = np.flatnonzero(given.labels >= 0).tolist()
    rows = [row for row in labeled if row not in known and row not in learner.skipped]
    if rows:
        labels = given.labels[rows].tolist()
        learner.teach(rows, labels, pool=given.pool.x, learn=False)
    if labels_file is not None:
        _print_not_learned(learner, given, labels_file, known)


def _print_not_learned(
    learner: ActiveLearner, given: LabelData, labels_file: str, known: dict[int, int]
) -> None:
    """Say which labels of a file the person has decided otherwise."""
    labeled = np.flatnonzero(given.labels >= 0).tolist()
    others = [row for row in labeled if known.get(row, given.labels[row]) != given.labels[row]]
    if others:
        print(
            f"{labels_file} has another label for {len(others)} rows than {learner.directory}; "
            "those of the directory are kept",
            flush=True,
        )
    skipped = [row for row in labeled if row in learner.skipped]
    if skipped:
        print(
            f"{labels_file} has a label for {len(skipped)} rows that were left out in "
            f"{learner.directory}; they stay left out",
            flush=True,
        )


def _open_answers(learner: ActiveLearner, given: LabelData) -> dict[int, int]:
    """The answers to a question that was open when the last command ended."""
    assert learner.directory is not None
    pool = given.pool
    return Question(learner.directory / "asked.json", pool.x, pool.classes).labels


def _page(arguments: Namespace, classes: list[str]) -> AbstractContextManager[Page | None]:
    if arguments.source == "terminal":
        return nullcontext()
    labels_file = str(Path(arguments.directory) / "labels.csv")
    command = next_command(arguments)
    return Page(classes, arguments.port, labels_file=labels_file, next_command=command)


def _save(learner: ActiveLearner, method: str, options: dict[str, Any], given: LabelData) -> None:
    """Save the trained model, if there is one, for `pyro-ssl predict`."""
    members = learner.members
    if not members or learner.directory is None:
        return
    (objective,) = members
    x_shape = tuple(given.pool.x.shape[1:])
    extra = {"reading": given.reading.plain(), "data": str(given.pool.folder.resolve())}
    saved = SavedModel(method, x_shape, given.pool.classes, options, objective, extra)
    saved.save(learner.directory / "model")


def _print_progress(learner: ActiveLearner, pool: Pool) -> None:
    if not learner.members:
        print("no model yet: it needs at least one label", flush=True)
        return
    warn_of_missing_classes(learner.labels, pool.classes)
    confidence = learner.predict_proba(pool.x).amax(-1)
    share = 100 * (confidence > CONFIDENT).float().mean()
    kind = "images" if pool.x.dim() == 4 else "rows"
    print(
        f"{len(learner.indices)} labels; the model gives one class more than "
        f"{100 * CONFIDENT:.0f} % in {share:.1f} % of {len(pool.x)} {kind}",
        flush=True,
    )

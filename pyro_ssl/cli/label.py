"""`pyro-ssl label`: ask a person for the most useful labels, and train a method on them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jsonargparse import ArgumentParser, Namespace
from torch import Tensor

from pyro_ssl import zoo
from pyro_ssl.active.acquisition import ACQUISITIONS
from pyro_ssl.active.cold_start import Embedding, Start, pca_embedding, vae_embedding
from pyro_ssl.active.labelling.page import Page
from pyro_ssl.active.labelling.question import Question
from pyro_ssl.active.learner import ActiveLearner
from pyro_ssl.cli.commands import COMMANDS
from pyro_ssl.cli.data_options import add_reading_options, reading_of
from pyro_ssl.cli.method_options import chosen_options
from pyro_ssl.cli.train import label_warnings_silenced
from pyro_ssl.data.classes import names_of, rows_of_labels, values_of_classes
from pyro_ssl.data.missing_labels import warn_of_missing_classes
from pyro_ssl.data.readers import Content, Reading, label_indices, read
from pyro_ssl.utils import files
from pyro_ssl.utils.arguments import as_data, check_positive
from pyro_ssl.zoo.saved_model import SavedModel

EMBEDDINGS: dict[str, Embedding] = {"pca": pca_embedding, "vae": vae_embedding}
"""Embeddings for the first round, by name."""
CONFIDENT = 0.95
"""Probability above which a prediction counts as confident in the summary of a round."""
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
        "directory", type=str, help="directory for the labels, contact sheets and the model"
    )
    parser.add_argument(
        "--data",
        type=str,
        required=True,
        help="folder of images, with class folders and a folder unlabeled, or .npz file with "
        "images x, (N, C, H, W) or (N, H, W); labels in the data are learned first",
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
    parser.add_argument("--n", type=int, default=10, help="labels per round")
    parser.add_argument(
        "--rounds", type=int, default=1, help="number of rounds; the model is trained after each"
    )
    parser.add_argument(
        "--method", type=Literal[tuple(zoo.METHODS)], default="m2", help="method, see pyro-ssl list"
    )
    parser.add_argument(
        "--options", type=dict[str, Any], default={}, help="options of the method, as JSON"
    )
    parser.add_argument(
        "--training",
        type=dict[str, Any],
        default={"epochs": 8},
        help="training options, arguments of fit, as JSON",
    )
    parser.add_argument(
        "--update-training",
        type=dict[str, Any] | None,
        default={"epochs": 2},
        help="training options that differ in later rounds, which continue from the last weights; "
        "null trains from scratch in each round",
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
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, training and queries")
    return parser


def run(arguments: Namespace) -> None:
    """Ask and train, round by round, until all rounds are done or nothing is left to ask."""
    check_positive(n=arguments.n, rounds=arguments.rounds)
    if not 0 <= arguments.port < 2**16:
        raise ValueError(f"--port should be in 0 .. {2**16 - 1}, got {arguments.port}")
    images = read_images(arguments.data, arguments.classes, reading_of(vars(arguments)))
    out = Path(arguments.directory)
    options = _options(arguments, images.pool)
    with files.locked(out):
        learner = _learner(arguments, images, options)
        question = Question(out / "asked.json", images.pool, images.classes)
        _teach_known(learner, images)
        with _page(arguments, images.classes) as page:
            for number in range(1, arguments.rounds + 1):
                with label_warnings_silenced():
                    _learn(learner, images, page)  # labels from an earlier command that was killed
                    _save(learner, arguments.method, options, images)
                    print(f"round {number} of {arguments.rounds}", flush=True)
                    if not _ask(learner, question, page, arguments.n):
                        break
                    _learn(learner, images, page)
                    _save(learner, arguments.method, options, images)
                _print_progress(learner, images)
    _print_what_next(out)


def _learn(learner: ActiveLearner, images: Images, page: Page | None) -> None:
    """Learn the labels, if there are new ones; the page says so."""
    if page is not None and learner.indices:
        page.tell(f"The method learns from {len(learner.indices)} labels.")
    learner.learn(images.pool)


def _print_what_next(out: Path) -> None:
    if (out / "model").exists():
        print(
            f"model: {out / 'model'}; to use it: pyro-ssl predict {out} --data PATH --output p.csv",
            flush=True,
        )


def resume_hint() -> str:
    """Hint on how to continue an interrupted command.

    >>> resume_hint()
    '; progress is saved; run the same command to continue'
    """
    return "; progress is saved; run the same command to continue"


def _options(arguments: Namespace, pool: Tensor) -> dict[str, Any]:
    """Return all options of the method; large enough images get a convolutional network."""
    given: dict[str, Any] = arguments.options
    options = chosen_options(arguments.method, {}) | given
    is_free = "network" in options and "network" not in given
    if is_free and min(pool.shape[2:]) >= MIN_CONV_SIZE:
        options["network"] = "conv"
    return options


def _learner(arguments: Namespace, images: Images, options: dict[str, Any]) -> ActiveLearner:
    method = arguments.method
    classes = images.classes
    x_shape = tuple(images.pool.shape[1:])
    defaults = {"progress": None, **zoo.method(method).training}
    return ActiveLearner(
        lambda seed: zoo.build(method, x_shape, len(classes), seed=seed, **options),
        acquisition=arguments.acquisition,
        power=arguments.power,
        start=arguments.start,
        embedding=EMBEDDINGS[arguments.embedding],
        training=defaults | arguments.training,
        update_training=arguments.update_training,
        directory=arguments.directory,
        identity={"method": method, "options": options, "classes": classes},
        seed=arguments.seed,
    )


def _teach_known(learner: ActiveLearner, images: Images) -> None:
    """Teach the labels in the data once; labels that the person has given take precedence."""
    decided = {*learner.indices, *learner.skipped}
    rows = [row for row in np.flatnonzero(images.labels >= 0).tolist() if row not in decided]
    if rows:
        labels = images.labels[rows].tolist()
        learner.teach(rows, labels, pool=images.pool)


def _page(arguments: Namespace, classes: list[str]) -> AbstractContextManager[Page | None]:
    if arguments.source == "terminal":
        return nullcontext()
    return Page(classes, arguments.port)


def _ask(learner: ActiveLearner, question: Question, page: Page | None, n: int) -> bool:
    """Ask for n labels, or continue an open question, and teach them; return False without rows."""
    question.forget(learner.indices + learner.skipped)
    if not question.rows:
        has_started = bool(learner.indices or learner.skipped)
        if has_started and not learner.num_unasked:
            return False
        if learner.start == "diverse" and not learner.indices:
            print(f"looking for diverse images among {len(question.pool)}", flush=True)
        count = min(n, learner.num_unasked) if has_started else n
        question.ask(learner.query(question.pool, count).tolist())
    guesses = _guesses(learner, question)
    counts = np.bincount(learner.labels, minlength=len(question.classes)).tolist()
    asked = list(question.rows)
    rows, labels = question.answered(page, guesses, counts)
    _print_agreement(dict(zip(asked, guesses, strict=False)), dict(zip(rows, labels, strict=True)))
    learner.teach(rows, labels, pool=question.pool, skipped=question.left_out)
    return True


def _guesses(learner: ActiveLearner, question: Question) -> list[tuple[int, float]]:
    """The likeliest class of each row of the question, and its probability."""
    if not learner.members:
        return []
    confidence, classes = learner.predict_proba(question.pool[question.rows]).max(-1)
    return list(zip(classes.tolist(), confidence.tolist(), strict=True))


def _print_agreement(guesses: dict[int, tuple[int, float]], labels: dict[int, int]) -> None:
    """Compare the model's guesses with the answers, which it has not learned from yet."""
    if not guesses or not labels:
        return
    right = sum(guesses[row][0] == label for row, label in labels.items())
    print(f"the model had guessed {right} of these {len(labels)} labels", flush=True)


def _save(learner: ActiveLearner, method: str, options: dict[str, Any], images: Images) -> None:
    """Save the trained model, if there is one, for `pyro-ssl predict`."""
    if not learner.members or learner.directory is None:
        return
    (objective,) = learner.members
    x_shape = tuple(images.pool.shape[1:])
    extra = {"reading": images.reading.plain()}
    saved = SavedModel(method, x_shape, images.classes, options, objective, extra)
    saved.save(learner.directory / "model")


def _print_progress(learner: ActiveLearner, images: Images) -> None:
    if not learner.members:
        return
    warn_of_missing_classes(learner.labels, images.classes)
    confidence = learner.predict_proba(images.pool).amax(-1)
    share = 100 * (confidence > CONFIDENT).float().mean()
    counts = f"{len(learner.indices)} labels; confident of {share:.1f} % of {len(images.pool)}"
    print(f"{counts} images", flush=True)


# --- the images -----------------------------------------------------------------------------------


class Images(NamedTuple):
    """Images to label.

    Arguments:
        pool: The images, `(N, C, H, W)`.
        classes: Names of the classes.
        labels: Class indices in the data, `(N,)`, -1 for unlabeled images.
        reading: How the images were read.

    >>> Images(torch.zeros(1, 1, 8, 8), ["cat", "dog"], np.array([-1]), Reading()).classes
    ['cat', 'dog']
    """

    pool: Tensor
    classes: list[str]
    labels: np.ndarray
    reading: Reading


def read_images(name: str, classes: list[str] | None, reading: Reading | None = None) -> Images:
    """Read the images of the training part, their labels, and the names of the classes.

    Arguments:
        name: Path of a folder of images, or of an .npz file.
        classes: Names of the classes; None uses those of the data.
        reading: How to read them.

    Raises:
        ValueError: The data are not images, there are not two different names of classes, or a
            label is of another class.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/images.npz", x=np.zeros((3, 8, 8)))
    ...     read_images(f"{folder}/images.npz", ["cat", "dog"]).pool.shape
    torch.Size([3, 1, 8, 8])
    """
    try:
        content = read(name, reading)
        x = _as_images(content)
        names = classes or list(content.classes) or _classes_of(content.train.labels)
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"two or more different names are needed, got {names}; give --classes")
        labels = np.full(len(x), -1)
        if content.train.labels is not None:
            labels = label_indices(content.train.labels, len(x), names)
    except ValueError as error:
        raise ValueError(f"--data: {error}") from None
    return Images(x, names, labels, content.reading)


def _as_images(content: Content) -> Tensor:
    """Return the training part as images `(N, C, H, W)`."""
    if content.reading.columns:
        raise ValueError(
            "a table has no images to show; fill its column "
            f"{content.reading.label_column!r} by hand, and train on it"
        )
    x = as_data(content.train.x, "x", torch.float32)
    if x.dim() == 3:
        x = x[:, None]
    if x.dim() != 4 or x.shape[1] not in (1, 3):
        raise ValueError(
            "x should be images (N, C, H, W), one channel or three, or (N, H, W); "
            f"got {tuple(x.shape)}"
        )
    return x


def _classes_of(labels: Any) -> list[str]:
    """Return the sorted names of the classes in labels; an empty list without labels."""
    if labels is None:
        return []
    values, missing = rows_of_labels(labels, len(labels))
    if missing.all():
        return []
    return list(names_of(np.unique(values_of_classes(values[~missing]))))

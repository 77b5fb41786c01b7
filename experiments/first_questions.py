"""First questions to a person about MNIST: from clusters of what?

Forty questions without a model, ten at a time: random images, or the centres of clusters without a
label, of principal components or of an autoencoder's latents. It counts the classes that the labels
cover, and classifies the images that were not asked for.

`python experiments/first_questions.py --help` explains every option.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from image_runs import images
from pages import mean_sd, table
from results_table import Result, Results
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from study import Config, Study, main
from torch import Tensor

from pyro_ssl.active import pca_embedding, vae_embedding
from pyro_ssl.active.cold_start import diverse

EMBEDDINGS = {"pca": "principal components", "vae": "autoencoder"}
QUESTIONS = {"random": "random images"} | {
    name: f"clusters, {title}" for name, title in EMBEDDINGS.items()
}
CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "nearest": lambda: KNeighborsClassifier(1),
    "logistic": lambda: LogisticRegression(max_iter=1000),
}
CLASSIFIER_TITLES = {"nearest": "nearest label", "logistic": "logistic regression"}
COUNTS = (10, 20, 40)
"""Numbers of labels after which is measured."""
EACH = 10
"""Questions at a time, as in `pyro-ssl label`."""
DRAWS = {"smoke": [0], "cpu": [0, 1, 2, 3, 4]}
SIZES: dict[str, dict[str, int]] = {
    "smoke": {"rows": 60, "dim": 4, "z_dim": 2, "steps": 2},
    "cpu": {"rows": 10_000, "dim": 32, "z_dim": 16, "steps": 500},
}
"""By scale: images, components, latents, and steps of the autoencoder's training."""


def configs(scale: str, draws: Sequence[int]) -> dict[str, Config]:
    return {f"mnist_{draw}": {"data": "mnist", "draw": draw, **SIZES[scale]} for draw in draws}


def run(name: str, config: Config, directory: Path, pictures: Path) -> Result:
    """Embed the images, ask by each way, and classify in each embedding."""
    x, y = pool(config)
    vectors = {}
    result: Result = {}
    for embedding in EMBEDDINGS:
        started = time.perf_counter()
        vectors[embedding] = embed(embedding, x, config)
        diverse(vectors[embedding], EACH, seed=config["draw"])
        result[f"first_question_{embedding}"] = time.perf_counter() - started
    spaces = {k: StandardScaler().fit_transform(v.numpy()) for k, v in vectors.items()}
    measured = []
    for questions in QUESTIONS:
        asked = ask(questions, vectors, len(x), config["draw"])
        for count in COUNTS:
            rows = asked[:count]
            found = {"questions": questions, "labels": count}
            found["classes"] = len(y[rows].unique())
            for space, points in spaces.items():
                found |= accuracies(space, points, y, rows)
            measured.append(found)
    return result | {"measured": measured}


def pool(config: Config) -> tuple[Tensor, Tensor]:
    """Draw the images of a run from MNIST's training images."""
    whole, _ = images({"data": config["data"], "labels": "all"})
    generator = torch.Generator().manual_seed(config["draw"])
    rows = torch.randperm(len(whole.x), generator=generator)[: config["rows"]]
    return whole.x[rows], whole.y[rows]


def embed(name: str, x: Tensor, config: Config) -> Tensor:
    if name == "pca":
        return pca_embedding(x, dim=config["dim"], seed=config["draw"])
    return vae_embedding(x, z_dim=config["z_dim"], steps=config["steps"], seed=config["draw"])


def ask(questions: str, vectors: dict[str, Tensor], size: int, draw: int) -> list[int]:
    """Ask for the largest of `COUNTS` images, `EACH` at a time."""
    most = max(COUNTS)
    if questions == "random":
        generator = torch.Generator().manual_seed(draw)
        return torch.randperm(size, generator=generator)[:most].tolist()
    asked: list[int] = []
    while len(asked) < most:
        asked += diverse(vectors[questions], EACH, seed=draw, known=asked).tolist()
    return asked


def accuracies(space: str, points: Any, y: Tensor, rows: list[int]) -> dict[str, float]:
    """Accuracy on the images that were not asked for, by classifier."""
    others = torch.ones(len(y), dtype=torch.bool)
    others[rows] = False
    found = {}
    for name, make in CLASSIFIERS.items():
        classifier = make().fit(points[rows], y[rows].numpy())
        right = classifier.predict(points[others.numpy()]) == y[others].numpy()
        found[f"{name}_{space}"] = float(right.mean())
    return found


# --- the page -------------------------------------------------------------------------------------


def report(results: Results, pictures: Path) -> dict[str, str]:
    blocks = {"classes": _classes(results)}
    for name, title in CLASSIFIER_TITLES.items():
        blocks[title] = _accuracy(results, name)
    blocks["seconds"] = _seconds(results)
    return blocks


def _values(results: Results, questions: str, labels: int, key: str) -> list[float]:
    return [
        found[key]
        for result in results.values()
        for found in result["measured"]
        if (found["questions"], found["labels"]) == (questions, labels)
    ]


def _classes(results: Results) -> str:
    rows = []
    for questions, title in QUESTIONS.items():
        cells = []
        for count in COUNTS:
            covered = _values(results, questions, count, "classes")
            cells.append(f"{mean_sd(covered, 1)}, at least {min(covered)}")
        rows.append([title, *cells])
    heads = [f"{count} labels" for count in COUNTS]
    return table(["questions", *heads], rows)


def _accuracy(results: Results, classifier: str) -> str:
    rows = []
    for space, space_title in EMBEDDINGS.items():
        for questions, title in QUESTIONS.items():
            cells = []
            for count in COUNTS:
                values = _values(results, questions, count, f"{classifier}_{space}")
                cells.append(mean_sd((100 * value for value in values), 1))
            rows.append([space_title, title, *cells])
    heads = [f"{count} labels" for count in COUNTS]
    return table(["classified by", "questions", *heads], rows)


def _seconds(results: Results) -> str:
    rows = []
    for embedding, title in EMBEDDINGS.items():
        seconds = [result[f"first_question_{embedding}"] for result in results.values()]
        rows.append([title, mean_sd(seconds, 1), len(seconds)])
    return table(["clusters of", "seconds until the first question, mean (sd)", "draws"], rows)


STUDY = Study("first_questions", configs, run, report, draws=DRAWS, workers=1)

if __name__ == "__main__":
    main(STUDY, __doc__)

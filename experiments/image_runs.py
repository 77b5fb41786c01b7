"""Runs on image sets: data with few labels, training that resumes, what is measured, t-SNE."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results_table import Result
from study import Config, plain
from torch import Tensor

from pyro_ssl import (
    Dataset,
    Objective,
    bounds,
    data,
    draw_labels,
    fit,
    predict_proba,
    weight_kl,
    zoo,
)
from pyro_ssl.evaluation import metrics, style

CIFAR10_ROWS = 30_000
CLASSES = 10
ROWS = {"cifar10": CIFAR10_ROWS, "svhn": 73_257}
"""Training images of a run, where they are not 60,000."""
"""Default number of training images of CIFAR-10, the first ones; at scale `paper` all."""
IDX_FOLDERS = {"kmnist": "KMNIST", "notmnist": "notMNIST"}
"""Folders of sets that only their test images are read from."""
GREY = (0.299, 0.587, 0.114)


def images(config: Config) -> tuple[Dataset, Tensor]:
    """Load the image set of a run and its labels, with -1 for a missing one.

    `per_class` labels of each class are given, or `labels` in total, or all. `rows` cuts both parts
    of the data and `test_rows` the test images alone; of CIFAR-10 the default is `CIFAR10_ROWS`.
    `grey` makes colour images grey.
    """
    whole = _load(config["data"])
    is_cifar10 = config["data"] == "cifar10"
    rows = config.get("rows", CIFAR10_ROWS if is_cifar10 else None)
    if is_cifar10 and rows > len(whole.x):
        raise ValueError(
            f"cifar10: the run needs {rows} training images, got {len(whole.x)}; "
            "set rows in its config"
        )
    test_rows = config.get("test_rows", rows)
    x, x_test = whole.x[:rows], whole.x_test[:test_rows]
    if config.get("grey") and whole.x.shape[1] == 3:
        grey = torch.tensor(GREY).view(1, 3, 1, 1)
        x, x_test = (x * grey).sum(1, keepdim=True), (x_test * grey).sum(1, keepdim=True)
    dataset = Dataset(
        whole.name, x, whole.y[:rows], x_test, whole.y_test[:test_rows], whole.classes
    )
    if config.get("labels") == "all":
        return dataset, dataset.y
    draw = draw_labels(
        dataset.y, config.get("labels"), per_class=config.get("per_class"), seed=config["draw"]
    )
    return dataset, draw.masked_labels(dataset.y)


def _load(name: str) -> Dataset:
    return _loaded(name, data.data_root())


@lru_cache(maxsize=1)  # reading the files takes longer than a smoke run
def _loaded(name: str, root: Path) -> Dataset:
    packed = packed_cifar10(root) if name == "cifar10" else None
    return packed or data.load(name, root)


def hold_out(dataset: Dataset, labels: Tensor) -> tuple[Dataset, Tensor]:
    """Use a tenth of the training images, at most 5000, as the test set, for development."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    count = min(5000, len(order) // 10)
    held_out, rest = order[:count], order[count:].sort().values
    parts = (dataset.x[rest], dataset.y[rest], dataset.x[held_out], dataset.y[held_out])
    return Dataset(dataset.name, *parts, dataset.classes), labels[rest]


def packed_cifar10(root: Path) -> Dataset | None:
    """CIFAR-10 from .npz files that hold differences of planes; None if there are no such files."""
    files = sorted((root / "cifar10").glob("train_*.npz"))
    test = root / "cifar10" / "test.npz"
    if not files or not test.exists():
        return None
    return data.from_arrays(*_unpacked(files), *_unpacked([test]), "cifar10")


def _unpacked(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    images, labels = [], []
    for path in paths:
        with np.load(path, allow_pickle=False) as part:
            planes = np.cumsum(np.cumsum(part["delta"], 2, dtype=np.uint8), 3, dtype=np.uint8)
            labels.append(part["labels"])
        planes[:, 0] += planes[:, 1]
        planes[:, 2] += planes[:, 1]
        images.append(planes)
    return np.concatenate(images).astype(np.float32) / 255.0, np.concatenate(labels).astype(
        np.int64
    )


def other_sets(names: Iterable[str], rows: int | None = None) -> dict[str, Tensor]:
    """Load the test images of other data sets, by name, where the files exist."""
    root = data.data_root()
    loaded = {name: _test_images(name, root) for name in names}
    return {name: x[:rows] for name, x in loaded.items() if x is not None}


@lru_cache(maxsize=4)
def _test_images(name: str, root: Path) -> Tensor | None:
    if name in IDX_FOLDERS:  # read from the test images alone
        path = root / IDX_FOLDERS[name] / "raw" / "t10k-images-idx3-ubyte"
        if not path.exists():
            return None
        raw = np.frombuffer(path.read_bytes(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
        return torch.from_numpy(raw / np.float32(255.0))
    path = root / "cifar100_ood" / "images.npz"
    if name == "cifar100" and path.exists():
        return torch.from_numpy(_unpacked([path])[0])
    return data.load(name, root).x_test


def trained(
    config: Config,
    directory: Path | None,
    loaded: tuple[Dataset, Tensor] | None = None,
    objective: Objective | None = None,
    **arguments: Any,
) -> tuple[Objective, Dataset, Tensor, Any]:
    """Train the method of a run; continue from its checkpoint if it was killed.

    Arguments:
        config: Config of the run.
        directory: Folder of its checkpoints; None keeps none.
        loaded: Its data and labels, if they have been loaded.
        objective: Objective to train, if not a new one.
        arguments: Further arguments of `fit`.

    Returns:
        The objective, its data, its labels, and the history of training.
    """
    dataset, labels = loaded or images(config)
    if objective is None:
        classes = len(dataset.classes)
        objective = zoo.build(
            config["method"], dataset.x_shape, classes, seed=config["draw"], **config["options"]
        )
    history = fit(
        objective,
        dataset.x,
        labels,
        seed=config["draw"],
        directory=directory,
        resume=directory is not None,
        identity=plain(config),
        **config["training"],
        **arguments,
    )
    return objective, dataset, labels, history


def measured(objective: Objective, dataset: Dataset, history: Any) -> Result:
    """Measure accuracy, log-likelihood, Brier score, calibration, entropy and bound on the test
    set.

    With random weights W the bound is that given W, and `weight_kl` is KL(q(W) || p(W)) per
    training datum, in nats.
    """
    probs = predict_proba(objective, dataset.x_test)
    result: Result = metrics.evaluate(probs, dataset.y_test)
    result["entropy"] = float(torch.special.entr(probs).sum(-1).mean())
    if objective.model is not None:
        result["bound"] = float(bounds(objective, dataset.x_test).mean())
        result["weight_kl"] = weight_kl(objective) / len(dataset.x)
    result["seconds"] = history["seconds"][-1]
    return result


def tsne_steps(count: int) -> int:
    """scikit-learn's 1000 steps, or as few as it takes for the few points of a smoke run."""
    return 1000 if count > 500 else 250


def tsne(z: Tensor, y: Tensor, classes: Iterable[str]) -> Any:
    """Draw latents `(N, Z)` in the plane by t-SNE, one colour per class."""
    import matplotlib.pyplot as plt
    from sklearn.manifold import TSNE

    start = "pca" if z.std(0).any() else "random"  # after a smoke run all latents may be equal
    perplexity = min(30, len(z) // 4)
    embedding = TSNE(random_state=0, init=start, perplexity=perplexity, max_iter=tsne_steps(len(z)))
    flat = embedding.fit_transform(z.numpy())
    figure, ax = plt.subplots(figsize=(5.4, 4), layout="constrained")
    for k, name in enumerate(classes):
        own = (y == k).numpy()
        ax.scatter(*flat[own].T, s=4, color=style.class_colour(k), label=name, linewidths=0)
    ax.set(xticks=[], yticks=[])
    ax.legend(frameon=False, fontsize=8, markerscale=3, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def kingmas_alpha(data: str, per_class: int, rows: int | None = None) -> float:
    """Alpha of the code of Kingma et al. 2014: 0.1 N / N_l beside means, for ten classes.

    >>> kingmas_alpha("mnist", 100)
    6.0
    """
    count = rows or ROWS.get(data, 60_000)
    return 0.1 * count / (CLASSES * per_class)


def smoke_rows(per_class: int) -> dict[str, int]:
    """Rows of a smoke run: enough that `per_class` of each class are among the first, even of rare
    ones.
    """
    return {"rows": max(300, 20 * per_class), "test_rows": 300}


def training_of(method: str, epochs: int, **changes: Any) -> dict[str, Any]:
    """The method's own training settings, with this many epochs."""
    return {**zoo.method(method).training, "epochs": epochs, **changes}

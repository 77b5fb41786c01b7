"""MIER: paper 004's Tables 1 to 3 and Figures 2 to 4, and the row that it leaves out, supervised networks.

    python experiments/mier.py --data-root DATA [--scale smoke|cpu|paper] [--data fashion_mnist cifar10] [--per-class 100]
        [--models m2 adgm lvae] [--draws 0 1 2] [--workers 2]

Each model with and without mutual information and entropy regularisation on the same label draws, so that the gain is a
paired difference, given with its 95 % interval; beside them an MLP and a CNN trained on the labels alone. Colour images are
made grey. No validation labels, where the paper keeps the best of 1000 epochs: the last epoch's averaged weights. `cpu` is
20 epochs and 3 draws, `paper` 1000 and 5. Only what is missing is run. Writes to `experiments/results/mier`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, arguments, mean_sd, measured, parsed, sources, study, table, trained, training_of, tsne
from scipy import stats

from pyro_ssl import plots
from pyro_ssl.training import evaluating, reproducibly

MODELS = ("m2", "adgm", "lvae")
PAPER = {  # accuracy %, without and with MIER, by labels per class
    ("fashion_mnist", 100): {"m2": (78.84, 80.23), "adgm": (79.36, 80.19), "lvae": (80.48, 80.97), "cnn": (83.3, None)},
    ("fashion_mnist", 250): {"m2": (81.97, 82.61)},
    ("fashion_mnist", 500): {"m2": (83.54, 84.29)},
    ("cifar10", 100): {"m2": (25.87, 27.11), "adgm": (26.98, 27.82), "lvae": (28.14, 29.18)},
    ("cifar10", 250): {"m2": (31.08, 31.92)},
    ("cifar10", 500): {"m2": (32.97, 33.52)},
    ("svhn", 100): {"m2": (28.46, 31.40), "adgm": (26.49, 30.98), "lvae": (32.04, 33.25)},
    ("kmnist", 100): {"m2": (65.77, 70.30), "adgm": (67.05, 68.97), "lvae": (80.48, 81.44)},
}
PLAIN: dict[str, Any] = {"noise": 0.0, "dropout": 0.0, "balance": 0.0}
WITH: dict[str, Any] = {"entropy": 5.0, "mutual_information": 1.0}
OPTIONS: dict[str, dict[str, Any]] = {
    "m2": PLAIN | {"hidden": (600, 600), "classifier_hidden": (600,), "z_dim": 50},
    "adgm": PLAIN | {"hidden": (500, 500), "classifier_hidden": (500,), "z_dim": 100, "a_dim": 100},
    "lvae": PLAIN | {"hidden": (128, 128, 128), "classifier_hidden": (128,), "z_dims": (32, 16, 8)},
    "mlp": {"hidden": (600,)},
    "cnn": {"network": "conv", "hidden": (256,)},
}
SCALES = {"smoke": (1, [0]), "cpu": (20, [0, 1, 2]), "paper": (1000, [0, 1, 2, 3, 4])}


def main() -> None:
    parser = arguments(__doc__, out=RESULTS / "mier")
    parser.add_argument(
        "--data",
        nargs="+",
        default=["fashion_mnist", "cifar10"],
        choices=["fashion_mnist", "cifar10", "kmnist", "svhn"],
    )
    parser.add_argument("--per-class", type=int, nargs="+", default=[100])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    given = parsed(parser)
    epochs, draws = SCALES[given.scale]
    small = {"rows": 300} if given.scale == "smoke" else {}
    configs: dict[str, dict[str, Any]] = {}
    for draw in given.draws or draws:
        for name in given.data:
            for n in given.per_class:
                for model in ("mlp", "cnn", *given.models):
                    for mier in (False, True) if model in MODELS else (False,):
                        method = model if model in MODELS else "classifier"
                        options = OPTIONS[model] | (WITH if mier else {})
                        if small:
                            options |= {k: (8,) for k in ("hidden", "classifier_hidden") if k in options}
                        configs[f"{model}{'+mier' if mier else ''}_{name}_{n}_{draw}"] = {
                            "data": name, "grey": True, "method": method, "per_class": n, "draw": draw, "options": options,
                            "training": training_of(method, epochs, labeled_batch_size=min(100, n)),
                        } | small  # fmt: skip
    results = study(configs, run, given.out, given.workers, given.report)
    report(results, given, given.out)


def run(name: str, config: dict[str, Any], directory: Path, out: Path) -> dict[str, Any]:
    """One model on one draw; of the first draw the pictures too."""
    objective, dataset, _, history = trained(config, directory)
    if config["draw"] == 0:
        x, y = dataset.x_test[:2000], dataset.y_test[:2000]
        plots.save(embedding(objective, x, y), out / f"tsne_{name}.png")  # Figure 4
        if config["method"] == "m2":
            plots.save(plots.class_samples(objective, len(dataset.classes), 3), out / f"samples_{name}.png")  # Figure 3
            plots.save(reconstructions(objective, dataset.x_test[:10]), out / f"reconstructions_{name}.png")  # Figure 2
    return measured(objective, dataset, history)


def reconstructions(objective: Any, x: torch.Tensor) -> Any:
    """Images above, the mean of p(x|y,z) at the likeliest y and the mean z below."""
    with evaluating(objective), reproducibly(0):
        q = objective.classify(x).mean
        y = torch.eye(q.shape[-1])[q.argmax(-1)]
        again = objective.model.p_x(y, objective.guide.q_z(x, y).mean).mean
    return plots.image_grid(torch.stack([x, again]))


def embedding(objective: Any, x: torch.Tensor, y: torch.Tensor) -> Any:
    """t-SNE of the classifier's last hidden layer."""
    network = objective.guide.q_y.network
    head = getattr(network, "head", network)
    seen: list[torch.Tensor] = []
    handle = head.rest[-1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    objective.guide.draws = 1  # of the auxiliary variable, where there is one
    with evaluating(objective), reproducibly(0):
        objective.guide.classify(x)
    handle.remove()
    hidden = seen[-1].flatten(0, -2)[-len(x) :]
    return tsne(hidden, y)


def interval(differences: list[float]) -> str:
    """Mean and 95 % interval (Student's) of paired differences."""
    if len(differences) < 2:
        return f"{differences[0]:+.2f}"
    half = stats.t.ppf(0.975, len(differences) - 1) * np.std(differences, ddof=1) / math.sqrt(len(differences))
    return f"{np.mean(differences):+.2f} ({np.mean(differences) - half:+.2f} .. {np.mean(differences) + half:+.2f})"


def report(results: dict[str, dict[str, Any]], given: Any, out: Path) -> None:
    """One table per data set and number of labels, from the results that are there."""

    def mine(name: str) -> dict[int, dict[str, Any]]:
        return {r["config"]["draw"]: r for key, r in results.items() if key.startswith(name + "_")}

    texts = []
    for data in given.data:
        for n in given.per_class:
            rows = []
            for model in ("mlp", "cnn", *given.models):
                for mier in (False, True) if model in MODELS else (False,):
                    found = mine(f"{model}{'+mier' if mier else ''}_{data}_{n}")
                    if not found:
                        continue
                    accuracy = [100 * r["accuracy"] for r in found.values()]
                    plain = mine(f"{model}_{data}_{n}")
                    pairs = (
                        [100 * (found[d]["accuracy"] - plain[d]["accuracy"]) for d in found if d in plain]
                        if mier
                        else []
                    )
                    bounds = [r["bound"] for r in found.values() if "bound" in r]
                    published = PAPER.get((data, n), {}).get(model, (None, None))[mier]
                    rows.append((f"{model}{' + MIER' if mier else ''}", mean_sd(accuracy), f"{min(accuracy):.2f}", len(found), interval(pairs) if pairs else "",
                                 f"{np.mean([r['entropy'] for r in found.values()]):.4f}", f"{np.mean(bounds):.1f}" if bounds else "",
                                 f"{np.mean([r['seconds'] for r in found.values()]):.0f}", published or ""))  # fmt: skip
            header = (
                f"{data}, {n} labels per class",
                "accuracy %, mean (sd)",
                "worst",
                "draws",
                "gain (95 %)",
                "entropy of q(y|x)",
                "bound",
                "s a run",
                "published",
            )
            texts.append(table(header, rows))
    text = (
        "\n\n".join(texts)
        + "\n\nPublished: paper 004, and for the CNN paper 001; single runs, the best epoch. "
        + (
            f"Ours: one thread a run; no validation labels; bounds of Gaussian likelihoods with sigma 0.7. {sources(results.values())}\n"
        )
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

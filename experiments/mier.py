"""MIER: paper 004's Tables 1 to 3 and Figures 2 to 4, and the rows that it leaves out, supervised networks.

    python experiments/mier.py --data-root DATA [--scale smoke|cpu|paper] [--data fashion_mnist cifar10] [--per-class 100]
        [--models m2 adgm lvae] [--draws 0 1 2 3 4] [--workers 2]

Each model with and without mutual information and entropy regularisation on the same label draws, so that the gain is a paired
difference, given with its 95 % interval; beside them an MLP and a CNN trained on the labels alone, 300 epochs, of which the
first is M2's own classifier. Colour images are made grey. No validation labels, where the paper keeps the best of its 1000
epochs: the last epoch's averaged weights, the test set once. The paper says neither its likelihood nor its alpha: the bounds
that it prints are a Bernoulli's, and alpha is 20 here; noise and dropout of the classifier are ours (all sought on draw 100,
scored on training images). `paper` is its optimiser, 3e-4 halved every 150 of 1000 epochs, with warm-up, and 5 draws; `cpu` is
one cycle up to 3e-3 in 8 epochs, a sum over the likeliest class and one drawn, and 5 draws, of ADGM 3. SVHN and KMNIST run
where their files are. Only what is missing is run, and the table has all that is there. Writes to `experiments/results/mier`.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import torch
from common import (
    MEASURES,
    Results,
    arguments,
    draws_of,
    measured,
    measures,
    parsed,
    resolved,
    side_by_side,
    smoke_rows,
    sources,
    study,
    table,
    trained,
    training_of,
    tsne,
    where,
)
from scipy import stats

from pyro_ssl import reconstruct
from pyro_ssl.evaluation import plots
from pyro_ssl.utils.context import eval_mode, fixed_seed

DATA = ("fashion_mnist", "cifar10", "kmnist", "svhn")
PAPER = {  # accuracy %, without and with MIER, by labels per class
    ("fashion_mnist", 100): {"m2": (78.84, 80.23), "adgm": (79.36, 80.19), "lvae": (80.48, 80.97)},
    ("fashion_mnist", 250): {"m2": (81.97, 82.61)},
    ("fashion_mnist", 500): {"m2": (83.54, 84.29)},
    ("cifar10", 100): {"m2": (25.87, 27.11), "adgm": (26.98, 27.82), "lvae": (28.14, 29.18)},
    ("cifar10", 250): {"m2": (31.08, 31.92)},
    ("cifar10", 500): {"m2": (32.97, 33.52)},
    ("svhn", 100): {"m2": (28.46, 31.40), "adgm": (26.49, 30.98), "lvae": (32.04, 33.25)},
    ("svhn", 250): {"m2": (36.84, 37.58)},
    ("svhn", 500): {"m2": (41.50, 44.06)},
    ("kmnist", 100): {"m2": (65.77, 70.30), "adgm": (67.05, 68.97), "lvae": (80.48, 81.44)},
    ("kmnist", 250): {"m2": (79.11, 80.75)},
    ("kmnist", 500): {"m2": (83.27, 83.41)},
}
SUPERVISED = {
    ("fashion_mnist", 100): 83.3,
    ("fashion_mnist", 200): 85.4,
    ("fashion_mnist", 500): 87.4,
}  # paper 001's CNN
ENTROPY = {  # of q(y|x) and the bound on log p(x), without and with MIER, 100 labels per class
    "cifar10": {"m2": (0.3742, -636.20, 0.1551, -638.31), "adgm": (0.2920, -643.66, 0.1435, -643.42),
                "lvae": (0.4075, -652.58, 0.2247, -652.88)},
    "fashion_mnist": {"m2": (0.0439, -248.18, 0.0211, -247.95), "adgm": (0.0435, -248.41, 0.0106, -247.88),
                      "lvae": (0.0770, -251.35, 0.0452, -251.51)},
}  # fmt: skip
COMMON: dict[str, Any] = {"likelihood": "bernoulli", "alpha": 20.0, "balance": 0.0, "labeled_weight": None}
MIER: dict[str, Any] = {"entropy": 5.0, "mutual_information": 1.0}
MODELS: dict[str, dict[str, Any]] = {
    "m2": {"hidden": (600, 600), "classifier_hidden": (600,), "z_dim": 50},
    "adgm": {"hidden": (500, 500), "classifier_hidden": (500,), "z_dim": 100, "a_dim": 100},
    "lvae": {"hidden": (128,), "z_dims": (32, 16, 8)},  # one layer before each of the three codes
}
SUPERVISED_ROWS: dict[str, dict[str, Any]] = {"mlp": {"hidden": (600,)}, "cnn": {"network": "conv", "hidden": (256,)}}
ROWS = (*SUPERVISED_ROWS, *(name + suffix for name in MODELS for suffix in ("", "+mier")))
SCALES = {"smoke": [0], "cpu": [0, 1, 2, 3, 4], "paper": [0, 1, 2, 3, 4]}  # draws
EPOCHS = {"smoke": 1, "cpu": 8, "paper": 1000}
PROTOCOL: dict[str, Any] = {"lr": 3e-4, "schedule": "halving", "warmup": 200, "ema": 0.0}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", nargs="+", default=["fashion_mnist", "cifar10"], choices=DATA)
    parser.add_argument("--per-class", type=int, nargs="+", default=[100])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    given = parsed(parser)
    draws, asked = draws_of(given, SCALES[given.scale])
    configs = {
        f"{row}_{data}_{n}_{draw}": configure(row, data, n, draw, given.scale)
        for draw in draws
        for data in DATA
        for n in sorted({100, 250, 500, *given.per_class})
        for row in ROWS
        if not (given.scale == "cpu" and row.startswith("adgm") and draw in (3, 4) and draw not in (given.draws or []))
    }
    models = {*SUPERVISED_ROWS, *given.models}

    def chosen(c: dict[str, Any]) -> bool:
        wanted = c["data"] in given.data and c["per_class"] in given.per_class and c["draw"] in asked
        return wanted and c["row"].removesuffix("+mier") in models

    results = study(configs, run, given, chosen)
    report(results, given.out)


def configure(row: str, data: str, per_class: int, draw: int, scale: str) -> dict[str, Any]:
    model = row.removesuffix("+mier")
    method, mier = (model if model in MODELS else "classifier"), (MIER if row.endswith("+mier") else {})
    options = COMMON | (MODELS | SUPERVISED_ROWS)[model] | mier | ({"top_k": 1} if scale == "cpu" else {})
    training = training_of(method, EPOCHS[scale] if model in MODELS else 300, labeled_batch_size=min(100, per_class))
    if model in MODELS:
        training |= {"batch_size": 200} | (PROTOCOL if scale == "paper" else {})
    rows = {"rows": 50_000} if (scale, data) == ("paper", "cifar10") else {}
    if scale == "smoke":
        options |= {k: (8,) for k in ("hidden", "classifier_hidden")}
        rows = smoke_rows(per_class)
        training |= {"epochs": 1, "batch_size": rows["rows"] // 2, "labeled_batch_size": 5 * per_class}  # two steps
    return {
        "row": row, "data": data, "grey": True, "method": method, "per_class": per_class, "draw": draw,
        "options": resolved(method, options), "training": training, **rows,
    }  # fmt: skip


def run(name: str, config: dict[str, Any], directory: Path, out: Path) -> dict[str, Any]:
    """One model on one draw; of the first draw the pictures too."""
    objective, dataset, codes, history = trained(config, directory)
    result = measured(objective, dataset, history) | {"unlabeled": int((codes < 0).sum())}
    if config["draw"] == 0:
        x, y = dataset.x_test[:2000], dataset.y_test[:2000]
        plots.save(embedding(objective, x, y), out / f"tsne_{name}.png")  # Figure 4
        if config["method"] == "m2":
            plots.save(plots.class_samples(objective, len(dataset.classes), 3), out / f"samples_{name}.png")  # Figure 3
            x = dataset.x_test[:10]
            plots.save(
                plots.image_grid(torch.stack([x, reconstruct(objective, x)])), out / f"reconstructions_{name}.png"
            )  # Figure 2
    return result


def embedding(objective: Any, x: torch.Tensor, y: torch.Tensor) -> Any:
    """t-SNE of the classifier's last hidden layer, at the mean of an auxiliary variable if there is one."""
    guide, seen = objective.guide, []
    network = getattr(guide.q_y.network, "head", guide.q_y.network)
    handle = network.rest[-1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with eval_mode(objective), fixed_seed(0):
        guide.q_y(x, guide.q_a(x).mean) if hasattr(guide, "q_a") else guide.q_y(x)
    handle.remove()
    return tsne(seen[-1], y)


def interval(differences: list[float]) -> str:
    """Mean and 95 % interval (Student's) of paired differences."""
    if len(differences) < 2:
        return "".join(f"{d:+.2f}" for d in differences)
    mean, sd, n = statistics.fmean(differences), statistics.stdev(differences), len(differences)
    half = stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n)
    return f"{mean:+.2f} ({mean - half:+.2f} .. {mean + half:+.2f})"


def gains(results: Results, model: str, **wanted: Any) -> dict[int, float]:
    """By draw, points of accuracy that MIER adds."""
    plain, mier = (
        {r["config"]["draw"]: r["accuracy"] for r in where(results, row=row, **wanted)}
        for row in (model, f"{model}+mier")
    )
    return {draw: 100 * (mier[draw] - plain[draw]) for draw in plain if draw in mier}


def report(results: Results, out: Path) -> None:
    """One table per data set and number of labels, from the results that are there."""
    texts = []
    for data, n in sorted({(r["config"]["data"], r["config"]["per_class"]) for r in results.values()}):
        wanted, rows = {"data": data, "per_class": n}, []
        for row in ROWS:
            if mine := where(results, row=row, **wanted):
                rows.append((row, *measures(mine), *_of_mier(results, row, mine, data, n)))
        of_models = {model: found for model in MODELS if (found := gains(results, model, **wanted))}
        draws = set.intersection(*map(set, of_models.values())) if len(of_models) > 1 else set()
        if len(draws) > 1:  # those that every model has
            each = [statistics.fmean(found[draw] for found in of_models.values()) for draw in sorted(draws)]
            name = f"mean of {', '.join(of_models)}, draws {', '.join(map(str, sorted(draws)))}"
            rows.append((name, *[""] * len(MEASURES), interval(each), *[""] * 5))
        unlabeled = max(r.get("unlabeled", 0) for r in where(results, **wanted))
        header = ("gain (95 %)", "entropy", "bound", "paper: accuracy", "gain", "entropy, bound")
        texts.append(table((f"{data}, {n} labels per class, {unlabeled} images without", *MEASURES, *header), rows))
    text = "\n\n".join(texts) + (
        "\n\nThe paper's: single runs, the best epoch; of the CNN paper 001's, the best peer that we found. Ours: one thread a run, the last epoch, no "
        "validation labels of the draw, settings sought on training labels of draw 100; entropy of q(y|x) and bound on log p(x), in nats, on the test set. "
        f"{sources(results)}\n"
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text)
    print(text)
    for data in {r["config"]["data"] for r in results.values()}:
        for kind, title in (("reconstructions", "Figure 2"), ("samples", "Figure 3"), ("tsne", "Figure 4")):
            pictures = {row: out / f"{kind}_{row}_{data}_100_0.png" for row in ("m2", "m2+mier")}
            side_by_side(pictures, out / f"{kind}_{data}.png", f"{title}, {data}")


def _of_mier(results: Results, row: str, mine: list[dict[str, Any]], data: str, n: int) -> tuple[str, ...]:
    """Gain, entropy and bound, and the paper's accuracy, gain, entropy and bound."""
    model, with_mier = row.removesuffix("+mier"), row.endswith("+mier")
    gain = interval(list(gains(results, model, data=data, per_class=n).values())) if with_mier else ""
    bounds = [r["bound"] for r in mine if "bound" in r]
    ours = (
        gain,
        f"{statistics.fmean(r['entropy'] for r in mine):.4f}",
        f"{statistics.fmean(bounds):.1f}" if bounds else "",
    )
    published = PAPER.get((data, n), {}).get(model)
    if published is None:
        return (*ours, str(SUPERVISED.get((data, n), "")) if row == "cnn" else "", "", "")
    entropy = ENTROPY.get(data, {}).get(model, ())[2 * with_mier :][:2] if n == 100 else ()
    theirs = f"{published[1] - published[0]:+.2f}" if with_mier else ""
    return (*ours, f"{published[with_mier]:.2f}", theirs, ", ".join(map(str, entropy)))


if __name__ == "__main__":
    main()

"""Paper 000: CE, GM and VC by accuracy, calibration, foreign data, corruptions, attacks and few labels; Tables 1 to 4, Figures 1 to 8.

    python experiments/variational_classification.py --data-root DATA [--scale smoke|cpu|paper] [--draws 0 1 2 3 4]
        [--parts full low plane cifar] [--workers 2]

- full: all labels of MNIST and of Fashion-MNIST, a CNN of six convolutions. Accuracy, calibration with 20 bins, its test by the
  parametric bootstrap, foreign data by every score, ten corruptions at five severities (made here, not the official files), FGSM
  up the loss and up the difference of logits, and PGD on the first 1000 test images. `ce_ts` is the baseline that has what the
  others have not, 5000 training images kept aside for a temperature.
- low: 500 labels of MNIST, alone (Table 4) and with the other images unlabeled; 100 labels with the others unlabeled.
- plane: a code of two dimensions on MNIST (Figure 1), and ambiguous digits, interpolated between codes of a VAE of ours (Figure 8).
- cifar: CIFAR-10 with a small wide ResNet at `cpu`, with WRN-28-10 and ResNet-50 at `paper`.

Images are warped in training (`warp`; on CIFAR-10 cropped and mirrored), the same for all methods. No validation labels: the last
epoch's averaged weights, the test set once; settings were sought on draws 100 and above, scored on training images that were kept
aside. Only what is missing is run, and the tables have all that is there. Writes to `experiments/results/variational_classification`.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    Results,
    arguments,
    draws_of,
    foreign_sets,
    images,
    mean_sd,
    parsed,
    resolved,
    sources,
    study,
    trained,
    where,
)
from torch import Tensor

from pyro_ssl import calibration, data, metrics, ood, plots, zoo
from pyro_ssl.attacks import under_attack
from pyro_ssl.corruptions import SEVERITIES, under_corruption
from pyro_ssl.modes import evaluating
from pyro_ssl.prediction import chunked, predict_proba
from pyro_ssl.reports import table
from pyro_ssl.training import fit

EPSILONS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
FOREIGN = {
    "mnist": ("fashion_mnist", "kmnist", "notmnist"),
    "fashion_mnist": ("mnist", "kmnist", "notmnist"),
    "cifar10": ("cifar100",),
}
KEPT_ASIDE = 5000
PAPER = {  # accuracy %, ECE %, of WideResNet-28-10 and ResNet-50 on CIFAR-10
    "wrn-28-10": {"ce": (96.11, 3.10), "gm": (95.02, 3.51), "vc": (96.27, 2.06)},
    "resnet50": {"ce": (93.76, 3.72), "gm": (92.97, 4.13), "vc": (93.28, 3.17)},
}
LOW = {"ce": "93.1 (s.e. 0.5)", "gm": "94.4 (s.e. 0.3)", "vc": "94.2 (s.e. 0.4)"}
OPTIONS: dict[str, dict[str, Any]] = {"ce": {}, "gm": {"density": 0.1}, "vc": {"ratio": 0.1}}
METHODS = tuple(OPTIONS)
IMAGES: dict[str, Any] = {"backbone": "cnn-16", "z_dim": 16, "warp": 0.2}
SEMI: dict[str, Any] = {"consistency": 1.0, "balance": 5.0, "warp": 0.25}


@dataclass(frozen=True)
class Scale:
    epochs: dict[str, int]
    draws: list[int]
    cifar: tuple[str, ...]


SCALES = {
    "smoke": Scale({"full": 1, "low": 1, "semi": 1, "plane": 1, "cifar": 1}, [0], ("wrn-10-1",)),
    "cpu": Scale({"full": 10, "low": 60, "semi": 16, "plane": 6, "cifar": 15}, [0, 1, 2, 3, 4], ("wrn-10-1",)),
    "paper": Scale(
        {"full": 60, "low": 200, "semi": 60, "plane": 30, "cifar": 200}, [0, 1, 2, 3, 4], ("wrn-28-10", "resnet50")
    ),
}
PARTS = ("full", "low", "plane", "cifar")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    given = parsed(parser)
    draws, asked = draws_of(given, SCALES[given.scale].draws)
    configs: dict[str, dict[str, Any]] = {}
    for draw in draws:
        configs |= dict(of_draw(draw, given.scale))
    results = study(configs, run, given, lambda c: c["part"] in given.parts and c["draw"] in asked)
    report(results, given.out)


def of_draw(draw: int, scale: str) -> Any:
    """Names and configs of the runs of a draw."""
    for method in METHODS:
        yield f"low_{method}_{draw}", configure("low", "mnist", method, draw, scale, per_class=50)
    for per_class in (50, 10):
        yield (
            f"semi_vc_{10 * per_class}_{draw}",
            configure("low", "mnist", "vc", draw, scale, SEMI, per_class=per_class),
        )
    for name in ("mnist", "fashion_mnist"):
        for method in METHODS:
            yield f"full_{name}_{method}_{draw}", configure("full", name, method, draw, scale)
        yield f"full_{name}_ce_ts_{draw}", configure("full", name, "ce", draw, scale, kept_aside=KEPT_ASIDE)
    for method in METHODS if draw == 0 else ():
        yield f"plane_{method}", configure("plane", "mnist", method, draw, scale, {"z_dim": 2})
    for backbone in SCALES[scale].cifar:
        for method in METHODS:
            colour = {"backbone": backbone, "crop": 4, "flip": True, "warp": 0.0, "z_dim": 64}
            yield f"cifar_{backbone}_{method}_{draw}", configure("cifar", "cifar10", method, draw, scale, colour)


def configure(
    part: str, name: str, method: str, draw: int, scale: str, options: dict[str, Any] | None = None, **others: Any
) -> dict[str, Any]:
    semi = options is SEMI
    chosen = IMAGES | OPTIONS[method] | {"unlabeled": float(semi)} | (options or {})
    training: dict[str, Any] = {"batch_size": 100, "labeled_batch_size": 100, "lr": 3e-3, "ema": 0.999}
    if scale == "smoke":
        chosen |= {"backbone": "cnn-2" if part != "cifar" else "wrn-10-1", "z_dim": min(4, chosen["z_dim"])}
        others |= {"rows": 800 if part == "low" else 100}
        others |= {"kept_aside": 50} if "kept_aside" in others else {}
    if part == "cifar" and scale == "paper":
        training |= {"batch_size": 128, "lr": 0.1, "precision": "bfloat16"}
    if part == "low" and not semi:
        training |= {"batch_size": 50}
    labels = {} if "per_class" in others else {"labels": "all"}
    return {
        "part": part, "data": name, "method": method, "draw": draw, **labels, **others, "options": resolved(method, chosen),
        "training": training | {"epochs": SCALES[scale].epochs["semi" if semi else part]},
    }  # fmt: skip


def run(name: str, config: dict[str, Any], directory: Path, out: Path) -> dict[str, Any]:
    """One run, and what is measured on it; of the first draw the pictures too."""
    dataset, codes = images(config)
    if kept := config.get("kept_aside"):
        order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(config["draw"]))
        codes = codes.index_fill(0, order[:kept], -1)
    loaded = dataset, codes
    settings = config["training"]
    optimizer: dict[str, Any] = {}
    if settings.get("precision") == "bfloat16":  # the paper's, of the repository that it names
        sgd = partial(torch.optim.SGD, momentum=0.9, nesterov=True, weight_decay=5e-4)
        optimizer = {"optimizer": sgd, "schedule": wide_resnets}
    objective, _, _, history = trained(config, directory, loaded, **optimizer)
    x, y = dataset.x_test, dataset.y_test
    probs = predict_proba(objective, x)
    result: dict[str, Any] = {"seconds": history["seconds"][-1]}
    if kept:
        held = order[:kept]
        log_p = chunked(objective, lambda x: objective.classify(x).logits, 1024, 0, dataset.x[held])
        result["temperature"] = calibration.temperature(log_p, dataset.y[held])
        probs = (
            chunked(objective, lambda x: objective.classify(x).logits, 1024, 0, x) / result["temperature"]
        ).softmax(-1)
    result |= metrics.evaluate(probs, y) | {"calibration_p_value": calibration.calibration_test(probs, y)}
    if config["part"] in ("full", "cifar") and not kept:
        bins = calibration.reliability(probs, y, 20)
        result["reliability"] = {k: v.tolist() for k, v in bins._asdict().items()}
        densities = ood.ClassDensities(ood.features(objective, dataset.x[codes >= 0]), codes[codes >= 0])
        foreign = foreign_sets(FOREIGN[config["data"]], config.get("rows"))
        result["ood"] = ood.separations(objective, x, foreign, densities)
        result["corruptions"] = under_corruption(objective, x, y)
        result["fgsm"] = under_attack(objective, x, y, EPSILONS)
        result["pgd"] = under_attack(objective, x[:1000], y[:1000], (0.1, 0.2), "pgd", steps=20)
        if config["draw"] == 0 and foreign:  # Figure 6
            sets = {config["data"]: x[:1000], **{k: v[:1000] for k, v in foreign.items()}}
            plots.save(embedded({k: ood.features(objective, v) for k, v in sets.items()}), out / f"tsne_{name}.png")
    if config["part"] == "plane":
        result["codes"] = [[round(v, 3) for v in row] for row in ood.features(objective, x[:5000]).tolist()]
        result["classes"] = y[:5000].tolist()
        blends, pairs = ambiguous(dataset, directory / "vae", epochs=settings["epochs"])
        result["ambiguous"] = [ood.features(objective, b).tolist() for b in blends]
        result["ambiguous_pairs"] = pairs
        result["means"] = objective.model.p_z.loc.tolist()
        result["scales"] = objective.model.p_z.scale.expand(len(dataset.classes), -1).tolist()
        if config["method"] == "vc":
            plots.save(plots.image_grid(torch.stack(blends)), out / "ambiguous.png")
    return result


def wide_resnets(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """A fifth of the rate after 30, 60 and 80 % of the steps."""
    at = [int(share * steps) for share in (0.3, 0.6, 0.8)]
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, at, gamma=0.2)


def ambiguous(dataset: data.Dataset, directory: Path, epochs: int) -> tuple[list[Tensor], list[list[int]]]:
    """Pictures on the way from a 7 to a 1, from a 7 to a 2 and from a 4 to a 9: decoded from between two codes of a VAE."""
    first = zoo.build("vae", dataset.x_shape, 10, seed=0, z_dim=16)
    fit(
        first,
        dataset.x,
        seed=0,
        epochs=epochs,
        batch_size=200,
        lr=1e-3,
        directory=directory,
        resume=True,
        progress=False,
    )
    ways, pairs = [], [[7, 1], [7, 2], [4, 9]]
    with evaluating(first):
        for a, b in pairs:
            ends = [first.guide.q_z(dataset.x_test[dataset.y_test == k][:1]).mean for k in (a, b)]
            z = torch.lerp(*ends, torch.linspace(0, 1, 9)[:, None])
            ways.append(first.model.p_x(z).mean)
    return ways, pairs


# --- tables and figures -----------------------------------------------------------------------------------------------


def report(results: Results, out: Path) -> None:
    """Tables and figures of what is there."""
    texts = []
    for name, title in (("mnist", "MNIST"), ("fashion_mnist", "Fashion-MNIST")):
        if runs := {m: mine for m in METHODS if (mine := full(results, name, m))}:
            scaled = [r for r in where(results, part="full", data=name) if "temperature" in r]
            texts += [accuracies(f"{title}, all labels", runs | ({"ce, temperature": scaled} if scaled else {}), {})]
            texts += [foreigners(title, runs), attacks(title, runs)]
            pictures(name, title, runs, out)
    if any(where(results, part="low", method=m) for m in METHODS):
        texts.append(few(results))
    for backbone in sorted({r["config"]["options"]["backbone"] for r in where(results, part="cifar")}):
        runs = {
            m: mine
            for m in METHODS
            if (
                mine := [
                    r for r in where(results, part="cifar", method=m) if r["config"]["options"]["backbone"] == backbone
                ]
            )
        }
        texts += [
            accuracies(f"CIFAR-10, {backbone}", runs, PAPER.get(backbone, {})),
            foreigners(f"CIFAR-10, {backbone}", runs),
        ]
        pictures(f"cifar10_{backbone}", f"CIFAR-10, {backbone}", runs, out)
    if planes := {m: mine[0] for m in METHODS if (mine := where(results, part="plane", method=m))}:
        codes(planes, out)
    text = "\n\n".join(texts) + f"\n\nOne thread a run; no validation labels of the draw. {sources(results)}\n"
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text)
    print(text)


def full(results: Results, name: str, method: str) -> list[dict[str, Any]]:
    return [r for r in where(results, part="full", data=name, method=method) if "temperature" not in r]


def accuracies(title: str, runs: dict[str, list[dict[str, Any]]], paper: dict[str, tuple[float, float]]) -> str:
    """Tables 1 and 2."""
    header = (title, "accuracy %, mean (sd)", "worst", "draws", "log-likelihood", "ECE %, 20 bins", "worst", "adaptive ECE %",
              "calibrated? p", "s a run", "paper 000: accuracy, ECE")  # fmt: skip
    rows = []
    for name, mine in runs.items():
        accuracy, ece = ([100 * r[k] for r in mine] for k in ("accuracy", "ece_20"))
        rows.append((
            name, mean_sd(accuracy), f"{min(accuracy):.2f}", len(mine), mean_sd((r["log_likelihood"] for r in mine), 3),
            mean_sd(ece), f"{max(ece):.2f}", mean_sd(100 * r["ece_adaptive"] for r in mine),
            f"{statistics.median(r['calibration_p_value'] for r in mine):.3f}", f"{statistics.fmean(r['seconds'] for r in mine):.0f}",
            ", ".join(map(str, paper.get(name, ()))),
        ))  # fmt: skip
    return table(header, rows)


def foreigners(title: str, runs: dict[str, list[dict[str, Any]]]) -> str:
    """Table 3, by every score: AUROC, mean and worst."""
    sets = list(next(iter(runs.values()))[0]["ood"])
    rows = []
    for name, mine in runs.items():
        for score in mine[0]["ood"][sets[0]] if sets else ():
            cells = []
            for which in sets:
                values = [r["ood"][which][score]["auroc"] for r in mine]
                cells.append(f"{mean_sd(values, 3)}, worst {min(values):.3f}")
            rows.append((name, score, *cells))
    return table((f"{title}: AUROC against", "score", *sets), rows)


def attacks(title: str, runs: dict[str, list[dict[str, Any]]]) -> str:
    """Figure 5 in numbers: the worse of the two aims."""
    rows = []
    for name, mine in runs.items():
        for attack in ("fgsm", "pgd"):
            by = {row["epsilon"]: [100 * r[attack][i]["either"] for r in mine] for i, row in enumerate(mine[0][attack])}
            rows.append(
                (name, attack, *(f"{mean_sd(by[e])}, worst {min(by[e]):.1f}" if e in by else "" for e in EPSILONS))
            )
    return table((f"{title}: accuracy % under attack", "epsilon:", *(f"{e:g}" for e in EPSILONS)), rows)


def few(results: Results) -> str:
    """Table 4."""
    rows = []
    for method in METHODS:
        if mine := [
            r
            for r in where(results, part="low", method=method, per_class=50)
            if not r["config"]["options"]["unlabeled"]
        ]:
            rows.append((f"{method}, 500 labels alone", *_few(mine), LOW[method]))
    for per_class in (50, 10):
        mine = [
            r
            for r in where(results, part="low", method="vc", per_class=per_class)
            if r["config"]["options"]["unlabeled"]
        ]
        if mine:
            rows.append((f"vc, {10 * per_class} labels, the others unlabeled", *_few(mine), "named as future work"))
    return table(("MNIST", "accuracy %, mean (s.e.)", "worst", "draws", "ECE %, 20 bins", "s a run", "paper 000"), rows)


def _few(mine: list[dict[str, Any]]) -> tuple[str, ...]:
    accuracy = [100 * r["accuracy"] for r in mine]
    error = f" ({statistics.stdev(accuracy) / len(mine) ** 0.5:.2f})" if len(mine) > 1 else ""
    return (
        f"{statistics.fmean(accuracy):.2f}{error}", f"{min(accuracy):.2f}", str(len(mine)),
        mean_sd(100 * r["ece_20"] for r in mine), f"{statistics.fmean(r['seconds'] for r in mine):.0f}",
    )  # fmt: skip


def pictures(name: str, title: str, runs: dict[str, list[dict[str, Any]]], out: Path) -> None:
    """Figures 3, 4, 5 and 7."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(runs), figsize=(3.2 * len(runs), 3.2), squeeze=False, sharey=True, layout="constrained"
    )
    for ax, (method, mine) in zip(axes[0], runs.items(), strict=True):
        found = mine[0]["reliability"]
        ax.bar(
            (np.arange(20) + 0.5) / 20,
            np.nan_to_num(np.array(found["accuracy"], dtype=float)),
            0.045,
            color=plots.COLOURS[0],
        )
        ax.plot([0, 1], [0, 1], "k--", linewidth=0.8)
        ax.set(title=f"{method}: ECE {100 * mine[0]['ece_20']:.2f} %", xlabel="confidence")
    axes[0][0].set(ylabel="accuracy")
    figure.suptitle(title)
    plots.save(figure, out / f"reliability_{name}.png")

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    for ax, (measure, label) in zip(axes, (("accuracy", "accuracy %"), ("ece_20", "ECE %")), strict=False):
        curves = {
            m: [
                [100 * np.mean([rows[s][measure] for rows in r["corruptions"].values()]) for s in range(5)]
                for r in mine
            ]
            for m, mine in runs.items()
        }
        plots.bands(curves, SEVERITIES, xlabel="severity of ten corruptions", ylabel=label, ax=ax)
    attacked = {m: [[100 * row["either"] for row in r["fgsm"]] for r in mine] for m, mine in runs.items()}
    plots.bands(attacked, EPSILONS, xlabel="epsilon of FGSM", ylabel="accuracy %", ax=axes[2])
    figure.suptitle(title)
    plots.save(figure, out / f"shift_{name}.png")


def codes(planes: dict[str, dict[str, Any]], out: Path) -> None:
    """Figures 1 and 8."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(planes), figsize=(4 * len(planes), 8), squeeze=False, layout="constrained")
    for column, (method, r) in enumerate(planes.items()):
        z, y = np.array(r["codes"]), np.array(r["classes"])
        colours = np.array(plots.COLOURS)
        for ax, alpha in ((axes[0][column], 1.0), (axes[1][column], 0.15)):
            ax.scatter(*z.T, s=3, c=colours[y], alpha=alpha, linewidths=0)
            ax.set(title=method, xticks=[], yticks=[])
        for way, (a, b) in zip(r["ambiguous"], r["ambiguous_pairs"], strict=True):
            axes[1][column].plot(*np.array(way).T, "k.-", linewidth=1)
            for at, label in ((way[0], a), (way[-1], b)):
                axes[1][column].annotate(str(label), at, fontsize=11)
    plots.save(figure, out / "plane.png")


def embedded(features: dict[str, Tensor]) -> Any:
    """t-SNE of several sets' features, one colour each."""
    import matplotlib.pyplot as plt
    from sklearn.manifold import TSNE

    flat = TSNE(random_state=0, init="pca").fit_transform(torch.cat(list(features.values())).numpy())
    figure, ax = plt.subplots(figsize=(4, 4), layout="constrained")
    for i, part in enumerate(np.split(flat, np.cumsum([len(f) for f in features.values()])[:-1])):
        ax.scatter(*part.T, s=3, color=plots.COLOURS[i], label=list(features)[i], linewidths=0)
    ax.set(xticks=[], yticks=[])
    ax.legend(frameon=False, fontsize=8, markerscale=3)
    return figure


if __name__ == "__main__":
    main()

"""MIER: paper 004's Tables 1 to 3 and Figures 2 to 4, compared with supervised networks.

It shows what MIER adds to M2, ADGM and LVAE on Fashion-MNIST and on CIFAR-10 in grey with 1000
labels, as paired gains with intervals.

`python experiments/mier.py --help` explains every option.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from image_runs import kingmas_alpha, measured, smoke_rows, trained, training_of, tsne
from pages import MEASURES, measures, published, table, where
from panels import side_by_side
from results_table import Result, Results
from scipy import stats
from study import SETTINGS, Config, Selection, Study, main, of_preset, resolved

from pyro_ssl import Objective, eval_mode, fixed_seed, reconstruct
from pyro_ssl.evaluation import plots

DATA = ("fashion_mnist", "cifar10", "kmnist", "svhn")
TITLES = {
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10 in grey",
    "kmnist": "KMNIST",
    "svhn": "SVHN in grey",
}
PER_CLASS = (100, 250, 500)
COMMON: dict[str, Any] = {
    "likelihood": "bernoulli",
    "alpha": 20.0,
    "balance": 0.0,
    "labeled_weight": None,
}
MIER: dict[str, Any] = {"entropy": 5.0, "mutual_information": 1.0}
MODELS: dict[str, dict[str, Any]] = {
    "m2": {"hidden": (600, 600), "classifier_hidden": (600,), "z_dim": 50},
    "adgm": {"hidden": (500, 500), "classifier_hidden": (500,), "z_dim": 100, "a_dim": 100},
    "lvae": {"hidden": (128,), "z_dims": (32, 16, 8)},  # one layer before each of the three codes
}
SUPERVISED: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": (600,)},
    "cnn": {"network": "conv", "hidden": (256,)},
}
PRESETS = {"_paper": "paper-004", "+mier_paper": "paper-004-mier"}
"""By ending of the row's name: the paper's settings without and with MIER."""
ENDINGS = ("", "+mier", *PRESETS)
ROWS = (*SUPERVISED, *(name + ending for name in MODELS for ending in ENDINGS))
DRAWS = {"smoke": [0], "cpu": [0, 1, 2, 3, 4], "paper": [0, 1, 2, 3, 4]}
ADGM_DRAWS_AT_CPU = (0, 1, 2)
EPOCHS = {"smoke": 1, "cpu": 8, "paper": 1000}
SUPERVISED_EPOCHS = 300
PROTOCOL: dict[str, Any] = {"lr": 3e-4, "schedule": "halving", "warmup": 200, "ema": 0.0}
"""Training settings of the paper."""


def configs(scale: str, draws: Sequence[int]) -> dict[str, Config]:
    made = {}
    for draw in draws:
        for data in DATA:
            for n in PER_CLASS:
                for row in ROWS:
                    left_out = (
                        scale == "cpu" and draw in (3, 4) and row.startswith("adgm")
                    )  # for its time
                    if not left_out:
                        made[f"{row}_{data}_{n}_{draw}"] = configure(row, data, n, draw, scale)
    return made


def _model(row: str) -> str:
    """The name of a row without its ending."""
    return row.removesuffix("_paper").removesuffix("+mier")


def configure(row: str, data: str, per_class: int, draw: int, scale: str) -> Config:
    model = _model(row)
    generative = model in MODELS
    method = model if generative else "classifier"
    options = _options(row, scale)
    epochs = EPOCHS[scale] if generative else SUPERVISED_EPOCHS
    training = training_of(method, epochs, labeled_batch_size=min(100, per_class))
    if generative:
        training |= {"batch_size": 200} | (PROTOCOL if scale == "paper" else {})
    rows = {"rows": 50_000} if (scale, data) == ("paper", "cifar10") else {}
    if scale == "smoke":
        options |= {k: (8,) for k in ("hidden", "classifier_hidden")}
        rows = smoke_rows(per_class)
        training |= {
            "epochs": 1,
            "batch_size": rows["rows"] // 2,
            "labeled_batch_size": 5 * per_class,
        }  # two steps
    config: Config = {
        "row": row,
        "data": data,
        "grey": True,
        "method": method,
        "per_class": per_class,
        "draw": draw,
        "options": resolved(method, options),
        "training": training,
        **rows,
    }
    if row.endswith("_paper"):
        config |= _settings_of_paper(model, PRESETS[row.removeprefix(model)], scale)
        config["options"] |= {"alpha": kingmas_alpha(data, per_class, rows.get("rows"))}
    return config


def _options(row: str, scale: str) -> dict[str, Any]:
    options = COMMON | (MODELS | SUPERVISED)[_model(row)]
    if row.endswith("+mier"):
        options |= MIER
    if scale == "cpu":
        options |= {"top_k": 1}
    return options


def _settings_of_paper(model: str, preset: str, scale: str) -> Config:
    """The preset, with fewer epochs except at scale paper; a smoke run has small networks."""
    settings = of_preset(model, preset, epochs=EPOCHS[scale])
    if scale == "smoke":
        settings["options"] |= {"hidden": (8,)}
    return settings


def run(name: str, config: Config, directory: Path, pictures: Path) -> Result:
    """Train one model on one draw; save pictures of the first draw."""
    objective, dataset, labels, history = trained(config, directory)
    result = measured(objective, dataset, history) | {"unlabeled": int((labels < 0).sum())}
    if config["draw"] != 0:
        return result
    x, y = dataset.x_test[:2000], dataset.y_test[:2000]
    embedding = tsne(last_hidden_layer(objective, x), y, dataset.classes)
    plots.save(embedding, pictures / f"tsne_{name}.png")  # Figure 4
    if config["method"] == "m2":
        samples = plots.class_samples(objective, len(dataset.classes), 3)
        plots.save(samples, pictures / f"samples_{name}.png")  # Figure 3
        x = dataset.x_test[:10]
        again = plots.image_grid(torch.stack([x, reconstruct(objective, x)]))
        plots.save(again, pictures / f"reconstructions_{name}.png")  # Figure 2
    return result


def last_hidden_layer(objective: Objective, x: torch.Tensor) -> torch.Tensor:
    """Activations of the classifier's last hidden layer, at the mean of an auxiliary variable if
    there is one.
    """
    guide: Any = objective.guide
    inputs: list[torch.Tensor] = []
    network = getattr(guide.q_y.network, "head", guide.q_y.network)
    handle = network.rest[-1].register_forward_pre_hook(
        lambda module, given: inputs.append(given[0])
    )
    with eval_mode(objective), fixed_seed(0):
        if hasattr(guide, "q_a"):
            guide.q_y(x, guide.q_a(x).mean)
        else:
            guide.q_y(x)
    handle.remove()
    return inputs[-1]


def report(results: Results, pictures: Path) -> dict[str, str]:
    """One table for each data set and number of labels."""
    present = sorted({(r["config"]["data"], r["config"]["per_class"]) for r in results.values()})
    for data in sorted({data for data, _ in present}):
        for kind, title in (
            ("reconstructions", "reconstructions"),
            ("samples", "samples by class"),
            ("tsne", "t-SNE"),
        ):
            both = {
                title: pictures / f"{kind}_{row}_{data}_100_0.png"
                for row, title in (("m2", "M2"), ("m2+mier", "M2 with MIER"))
            }
            side_by_side(both, pictures / f"{kind}_{data}.png", f"{TITLES[data]}: {title}")
    return {f"{data}, {n} per class": _table(results, data, n) for data, n in present}


def _table(results: Results, data: str, n: int) -> str:
    wanted = {"data": data, "per_class": n}
    rows = []
    for row in ROWS:
        mine = where(results, row=row, **wanted)
        if mine:
            rows.append((row, *measures(mine), *_gain_and_published(results, row, mine, data, n)))
    mean = _mean_gain(results, wanted)
    if mean:
        rows.append(mean)
    unlabeled = max(r.get("unlabeled", 0) for r in where(results, **wanted))
    title = f"{TITLES[data]}, {n} labels per class, {unlabeled} images without"
    theirs = ("paper: accuracy", "paper: gain", "paper: entropy, bound")
    return table((title, *MEASURES, "gain (95 %)", "entropy, nats", "bound, nats", *theirs), rows)


def _gain_and_published(
    results: Results, row: str, mine: list[Result], data: str, n: int
) -> tuple[str, ...]:
    model = _model(row)
    plain = row.replace("+mier", "")
    with_mier = row != plain
    gain = ""
    if with_mier:
        gain = interval(list(gains(results, plain, data=data, per_class=n).values()))
    bounds = [r["bound"] for r in mine if "bound" in r]
    entropy = f"{statistics.fmean(r['entropy'] for r in mine):.4f}"
    bound = f"{statistics.fmean(bounds):.1f}" if bounds else ""
    setting = f"{data}, {n} a class"
    accuracy = published("mier", setting)
    paper_gain = ""
    of_paper = row.removesuffix("_paper")
    if with_mier and of_paper in accuracy:
        paper_gain = f"{float(accuracy[of_paper]) - float(accuracy[model]):+.2f}"
    detail = [
        published("mier", setting, measure).get(of_paper, "")
        for measure in ("entropy, nats", "bound, nats")
    ]
    return (
        gain,
        entropy,
        bound,
        accuracy.get(of_paper, ""),
        paper_gain,
        ", ".join(filter(None, detail)),
    )


def _mean_gain(results: Results, wanted: dict[str, Any]) -> tuple[str, ...] | None:
    """The gain in the mean of all models, on the draws that every model has."""
    by_model = {model: gains(results, model, **wanted) for model in MODELS}
    by_model = {model: by_draw for model, by_draw in by_model.items() if by_draw}
    if len(by_model) < 2:
        return None
    draws = sorted(set.intersection(*map(set, by_model.values())))
    if len(draws) < 2:
        return None
    means = [statistics.fmean(by_draw[draw] for by_draw in by_model.values()) for draw in draws]
    name = f"mean of {', '.join(by_model)}, draws {', '.join(map(str, draws))}"
    return (name, *[""] * len(MEASURES), interval(means), *[""] * 5)


def gains(results: Results, plain: str, **wanted: Any) -> dict[int, float]:
    """By draw, points of accuracy that MIER adds to a row without it."""
    with_mier = _model(plain) + "+mier" + plain.removeprefix(_model(plain))
    before = _accuracies(results, row=plain, **wanted)
    after = _accuracies(results, row=with_mier, **wanted)
    return {draw: 100 * (after[draw] - before[draw]) for draw in before if draw in after}


def _accuracies(results: Results, **wanted: Any) -> dict[int, float]:
    return {r["config"]["draw"]: r["accuracy"] for r in where(results, **wanted)}


def interval(differences: list[float]) -> str:
    """Mean of paired differences, and its 95 % interval by Student's distribution."""
    if len(differences) < 2:
        return "".join(f"{d:+.2f}" for d in differences)
    n = len(differences)
    mean = statistics.fmean(differences)
    half = stats.t.ppf(0.975, n - 1) * statistics.stdev(differences) / math.sqrt(n)
    return f"{mean:+.2f} ({mean - half:+.2f} .. {mean + half:+.2f})"


STUDY = Study(
    "mier",
    configs,
    run,
    report,
    draws=DRAWS,
    selections={
        "data": Selection("data", DATA, "data sets", default=["fashion_mnist", "cifar10"]),
        "per-class": Selection("per_class", PER_CLASS, "labels per class", default=[100]),
        "models": Selection(
            "method",
            tuple(MODELS),
            "generative models; supervised rows always run with settings of ours",
        ),
        "settings": SETTINGS,
    },
)

if __name__ == "__main__":
    main(STUDY, __doc__)

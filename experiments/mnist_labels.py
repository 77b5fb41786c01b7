"""MNIST with 10 to 300 labels per class: paper 002's Tables 5.3 and 5.4.

It also shows samples and t-SNE (Figures 5.13 and 5.14), the same methods with a convolutional
classifier, and other methods with 10 labels per class.

`python experiments/mnist_labels.py --help` explains every option.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from image_runs import images, kingmas_alpha, measured, smoke_rows, trained, training_of, tsne
from pages import MEASURES, measures, published, table, where
from results_table import Result, Results
from study import Config, Selection, Study, main, of_preset, resolved

from pyro_ssl import (
    Dataset,
    GibbsPredictor,
    Objective,
    PretrainedEncoder,
    eval_mode,
    fixed_seed,
    generate,
    gibbs,
    predict_proba,
    zoo,
)
from pyro_ssl.evaluation import plots
from pyro_ssl.zoo import presets

PER_CLASS = (10, 20, 60, 100, 300)
OF_THE_THESIS = ("classifier", "m2", "sslpe", "sslapd")
"""Methods that paper 002 compares, above 10 labels per class."""


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Arguments:
        method: Name of the method.
        epochs: Epochs at scale cpu.
        options: Options of the method, beside its defaults.
        batch_size: Unlabeled images per step.
        preset: Preset with the settings of the row, in place of options and batch sizes.
        m1: Options of a VAE and its epochs; the method learns on its latents, as in M1+M2.
    """

    method: str
    epochs: int
    options: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 100
    preset: str | None = None
    m1: dict[str, Any] | None = None


THESIS: dict[str, Any] = {"hidden": (500, 500), "z_dim": 100, "labeled_weight": None, "top_k": 1}
CONV: dict[str, Any] = {
    "classifier_network": "conv",
    "channels": (16, 32, 64),
    "warp": 0.25,
    "consistency": 1.0,
    "labeled_weight": None,
}
CONV_TOP_1: dict[str, Any] = CONV | {"top_k": 1}
ROWS = {
    "classifier": Row("classifier", 1000, {"hidden": (500, 500)}),
    "m2": Row("m2", 8, THESIS, batch_size=200),
    "sslpe": Row("sslpe", 8, THESIS, batch_size=200),
    "sslapd": Row("sslapd", 8, THESIS, batch_size=200),
    "classifier_paper": Row("classifier", 1000, preset="paper-002"),
    "m2_paper": Row("m2", 8, preset="paper-002"),
    "sslpe_paper": Row("sslpe", 8, preset="paper-002"),
    "sslapd_paper": Row("sslapd", 8, preset="paper-002"),
    "m1_m2": Row("m1_m2", 60, {"m1_epochs": 20, "noise": 0.3, "consistency": 1.0, "sigma1": 0.7}),
    "m1_sslpe": Row(
        "sslpe",
        20,
        {"noise": 0.3, "consistency": 1.0, "sigma": 0.7},
        m1={"z_dim": 50, "hidden": (500, 500), "epochs": 20},
    ),
    "m2_flow": Row("m2", 8, THESIS | {"flow": 2}, batch_size=200),
    "m2_vamp": Row("m2", 8, THESIS | {"prior": "vamp"}, batch_size=200),
    "m2_adversarial": Row("m2_adversarial", 8, THESIS, batch_size=200),
    "sdgm": Row("sdgm", 8, THESIS, batch_size=200),
    "latent_classifier": Row("latent_classifier", 10),
    "latent_classifier_split": Row("latent_classifier_split", 10),
    "classifier_conv": Row(
        "classifier", 1000, {"network": "conv", "channels": (16, 32, 64), "warp": 0.25}
    ),
    "control_conv": Row("m2", 16, CONV | {"labeled_weight": 0.0, "unlabeled_weight": 0.0}),
    "m2_conv": Row("m2", 16, CONV),
    "adgm_conv": Row("adgm", 20, CONV | {"hidden": (300,)}),
    "sdgm_conv": Row("sdgm", 20, CONV | {"hidden": (300,)}),
    "sslpe_conv": Row("sslpe", 8, CONV_TOP_1, batch_size=200),
    "sslapd_conv": Row("sslapd", 8, CONV_TOP_1, batch_size=200),
    "latent_classifier_conv": Row(
        "latent_classifier",
        12,
        CONV | {"alpha": 20.0, "balance": 5.0, "noise": 0.3, "dropout": 0.3},
    ),
}
EPOCHS = {"smoke": 1, "cpu": None, "paper": 200}
"""Epochs by scale, if not those of the row."""
DRAWS = {"smoke": [0], "cpu": [0, 1, 2], "paper": [0, 1, 2, 3, 4]}


def configs(scale: str, draws: Sequence[int]) -> dict[str, Config]:
    made = {}
    for draw in draws:
        for n in PER_CLASS:
            for name in ROWS:
                if n == 10 or _model(name) in OF_THE_THESIS:
                    made[f"{name}_{n}_{draw}"] = configure(name, n, draw, scale)
    return made


def _model(row: str) -> str:
    """The name of a row without its kind."""
    return row.removesuffix("_conv").removesuffix("_paper")


def configure(name: str, per_class: int, draw: int, scale: str) -> Config:
    row = ROWS[name]
    options = row.options
    batches = {"batch_size": row.batch_size, "labeled_batch_size": min(100, 3 * per_class)}
    rows: dict[str, int] = {}
    if scale == "smoke":
        options = options | {
            "hidden": (8,),
            "channels": (2, 4, 4),
            "m1_epochs": 1,
            "gibbs_steps": 2,
        }
        rows = smoke_rows(per_class)
        batches = {
            "batch_size": rows["rows"] // 2,
            "labeled_batch_size": 5 * per_class,
        }  # two steps
    config: Config = {
        "row": name,
        "data": "mnist",
        "method": row.method,
        "per_class": per_class,
        "draw": draw,
        "options": resolved(row.method, options),
        "training": training_of(row.method, EPOCHS[scale] or row.epochs, **batches),
        **rows,
    }
    if row.m1 is not None:
        config["m1"] = row.m1 | ({"hidden": (8,), "epochs": 1} if scale == "smoke" else {})
    if row.preset is not None:
        config |= _settings_of_paper(row, row.preset, scale)
        if "alpha" in config["options"]:
            config["options"] |= {"alpha": kingmas_alpha("mnist", per_class)}
    return config


def _settings_of_paper(row: Row, preset: str, scale: str) -> Config:
    """The preset, with fewer epochs at scale cpu; a smoke run has small networks."""
    if scale == "paper":
        return of_preset(row.method, preset)
    if scale == "cpu":
        return of_preset(row.method, preset, epochs=row.epochs)
    settings = of_preset(row.method, preset, epochs=1)
    small = resolved(row.method, {"hidden": (8,), "gibbs_steps": 2})
    changed = {name: small[name] for name in ("hidden", "gibbs_steps") if name in small}
    return settings | {"options": settings["options"] | changed}


def run(name: str, config: Config, directory: Path, pictures: Path) -> Result:
    """Train one method on one draw; save pictures of the first draw."""
    loaded = images(config)
    stacked = on_m1(config, loaded[0]) if "m1" in config else None
    objective, dataset, _, history = trained(config, directory, loaded, objective=stacked)
    makes_images = hasattr(objective.model, "predict") and stacked is None
    if config["draw"] == 0 and makes_images:
        count = 20 if "test_rows" in config else 100  # fewer in a smoke run
        plots.save(samples(objective, count), pictures / f"samples_{name}.png")
    if config["draw"] == 0 and hasattr(objective.guide, "encode") and config["per_class"] >= 100:
        x, y = dataset.x_test[:2000], dataset.y_test[:2000]
        plots.save(tsne(_codes(objective, x), y, dataset.classes), pictures / f"tsne_{name}.png")
    return measured(objective, dataset, history)


def on_m1(config: Config, dataset: Dataset) -> Objective:
    """The method of a run on the latents of a VAE, which `fit` trains first; see `zoo.m1_m2`."""
    options = dict(config["m1"])
    epochs = options.pop("epochs")
    size = options["z_dim"]
    seed = config["draw"]
    m1 = zoo.build("vae", dataset.x_shape, 10, seed=seed, likelihood="bernoulli", **options)
    objective = zoo.build(config["method"], (size,), 10, seed=seed, **config["options"])
    objective.features = PretrainedEncoder(m1, size, {"epochs": epochs, **presets.M1_TRAINING})
    return objective


def samples(objective: Objective, n: int) -> Any:
    """Figure 5.13: the mean of p(x|z) at z ~ p(z), sorted by the class that the model predicts."""
    x = generate(objective, n)
    order = predict_proba(objective, x).argmax(-1).argsort(stable=True)
    return plots.image_grid(x[order].unflatten(0, (10, n // 10)))


def _codes(objective: Any, x: torch.Tensor) -> torch.Tensor:
    """Figure 5.14: the code, averaged over a Gibbs chain where the model predicts."""
    if isinstance(objective.predictor, GibbsPredictor):
        return gibbs(objective, x, steps=objective.predictor.steps).z
    with eval_mode(objective), fixed_seed(0):
        q = objective.classify(x).mean
        y = torch.eye(q.shape[-1])[q.argmax(-1)]
        return objective.guide.encode(objective.encode(x), y).mean


def report(results: Results, pictures: Path) -> dict[str, str]:
    """One table for each number of labels."""
    present = sorted({r["config"]["per_class"] for r in results.values()})
    return {f"{n} labels per class": _table(results, n) for n in present}


def _table(results: Results, n: int) -> str:
    theirs = _published(n)
    rows = []
    for name in ROWS:
        mine = where(results, row=name, per_class=n)
        if mine:
            epochs = mine[0]["config"]["training"]["epochs"]
            rows.append((name, *measures(mine), epochs, theirs.get(name, "")))
    return table((f"MNIST, {n} labels per class", *MEASURES, "epochs", "published"), rows)


def _published(n: int) -> dict[str, str]:
    accuracy = published("mnist_labels", f"{n} a class")
    likelihood = published("mnist_labels", f"{n} a class", "log-likelihood")
    both = {
        row: ", ".join(filter(None, (value, likelihood.get(row))))
        for row, value in accuracy.items()
    }
    if n == 10:
        return both
    conv = {f"{row}_conv": f"its MLP: {value}" for row, value in both.items()}
    return both | conv | {f"{row}_paper": value for row, value in both.items()}


STUDY = Study(
    "mnist_labels",
    configs,
    run,
    report,
    draws=DRAWS,
    selections={
        "per-class": Selection("per_class", PER_CLASS, "labels per class"),
        "rows": Selection("row", tuple(ROWS), "rows of the table"),
    },
)

if __name__ == "__main__":
    main(STUDY, __doc__)

"""MNIST with 10 to 300 labels per class: paper 002's Tables 5.3 and 5.4, Figures 5.13 and 5.14.

    python experiments/mnist_labels.py --data-root DATA [--scale smoke|cpu|paper] [--per-class 10 20 60 100 300]
        [--methods classifier m2 sslpe sslapd m1_m2 m2_conv adgm_conv ...] [--draws 0 1 2] [--workers 2]

The thesis's methods with its networks, and others on the same label draws; with 10 per class, where the thesis says that SSLPE
and SSLAPD fail, the table has the published figures of the others too. Rows that end in `_conv` classify by a small convolutional
network that sees warped images in training, with `Consistency`; what is generated is the image itself. No validation labels:
the last epoch's averaged weights, the test set once; settings were sought on draws 100 and above, scored on training images.
`cpu` is 12 to 24 epochs and 3 draws, `paper` 200 and 5. Only what is missing is run. Writes to `experiments/results/mnist_labels`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, arguments, mean_sd, measured, parsed, sources, study, table, trained, training_of, tsne

from pyro_ssl import gibbs, plots
from pyro_ssl.training import evaluating, reproducibly

METHODS = ("classifier", "m2", "sslpe", "sslapd")
PAPER = {  # accuracy %, log-likelihood (printed without sign and point; read as here)
    20: {"classifier": "79.6 (0.26), -.990", "m2": "92.4 (0.71), -.415", "sslpe": "92.0 (0.47), -.524", "sslapd": "92.3 (0.73), -.305"},
    60: {"classifier": "87.2 (0.21), -.708", "m2": "95.7 (0.25), -.219", "sslpe": "95.6 (0.34), -.332", "sslapd": "95.0 (0.17), -.190"},
    100: {"classifier": "89.9 (0.23), -.539", "m2": "96.4 (0.32), -.164", "sslpe": "96.4 (0.23), -.198", "sslapd": "95.9 (0.18), -.152"},
    300: {"classifier": "94.1 (0.12), -.357", "m2": "97.5 (0.18), -.112", "sslpe": "97.3 (0.20), -.126", "sslapd": "97.0 (0.17), -.110"},
}  # fmt: skip
BEST = {  # of peers, with 10 labels per class
    "classifier": "77.1, Pyro's tutorial",
    "m2": "93.19 (0.60), Pyro's tutorial; 93.7 (2.5), paper 003",
    "m1_m2": "96.67 (0.14), Kingma; 97.20, a re-implementation",
    "adgm": "99.04 (0.02), Maaloe, 1000 epochs",
    "sdgm": "98.68 (0.07), Maaloe, 1000 epochs",
    "latent_classifier": "92.3 (2.8), paper 003",
    "sslpe": "fails, paper 002",
    "sslapd": "fails, paper 002",
}
THESIS: dict[str, Any] = {"hidden": (500, 500), "z_dim": 100}
CONV: dict[str, Any] = {
    "classifier_network": "conv",
    "channels": (16, 32, 64),
    "warp": 0.25,
    "consistency": 1.0,
}
ROWS: dict[
    str, tuple[str, int, dict[str, Any], dict[str, Any]]
] = {  # method, epochs at cpu scale, options, its run's own
    "classifier": ("classifier", 16, {"hidden": (500, 500)}, {}),
    "m2": ("m2", 16, THESIS, {}),
    "sslpe": ("sslpe", 16, THESIS, {}),
    "sslapd": ("sslapd", 16, THESIS, {}),
    "m1_m2": ("m1_m2", 24, {"m1_epochs": 20, "noise": 0.3, "consistency": 1.0, "sigma1": 0.7}, {"warp": 0.1}),
    "classifier_conv": ("classifier", 16, {"network": "conv", "channels": (16, 32, 64), "warp": 0.25}, {}),
    "m2_conv": ("m2", 16, CONV, {}),
    "adgm_conv": ("adgm", 20, CONV | {"hidden": (300,)}, {}),
    "sdgm_conv": ("sdgm", 20, CONV | {"hidden": (300,)}, {}),
    "latent_classifier_conv": ("latent_classifier", 12, CONV | {"alpha": 20.0, "labeled": None, "balance": 5.0}, {}),
}
SCALES = {
    "smoke": (1, [0]),
    "cpu": (None, [0, 1, 2]),
    "paper": (200, [0, 1, 2, 3, 4]),
}  # epochs, if not the row's; draws


def main() -> None:
    parser = arguments(__doc__, out=RESULTS / "mnist_labels")
    parser.add_argument("--per-class", type=int, nargs="+", default=[10, 20, 60, 100, 300])
    parser.add_argument(
        "--methods", nargs="+", default=None, choices=list(ROWS), help="by default all, or the thesis's"
    )
    given = parsed(parser)
    epochs, draws = SCALES[given.scale]
    configs: dict[str, dict[str, Any]] = {}
    for draw in given.draws or draws:
        for per_class in given.per_class:
            for row in given.methods or (ROWS if per_class == 10 else METHODS):
                method, own, options, more = ROWS[row]
                training = training_of(method, epochs or own, labeled_batch_size=min(100, 3 * per_class))
                configs[f"{row}_{per_class}_{draw}"] = {
                    "data": "mnist", "method": method, "per_class": per_class, "draw": draw, "options": options,
                    "training": training, **more,
                }  # fmt: skip
    if given.scale == "smoke":
        for config in configs.values():
            config |= {"rows": 300, "options": config["options"] | {"hidden": (8,)}}
    results = study(configs, run, given.out, given.workers, given.report)
    report(results, given.per_class, given.out)


def run(name: str, config: dict[str, Any], directory: Path, out: Path) -> dict[str, Any]:
    """One method on one draw; of the first draw the pictures too."""
    objective, dataset, _, history = trained(config, directory)
    if config["draw"] == 0 and hasattr(objective.model, "predict"):
        plots.save(samples(objective), out / f"samples_{name}.png")
    if config["draw"] == 0 and hasattr(objective.guide, "encode") and config["per_class"] >= 100:
        plots.save(embedding(objective, dataset.x_test[:2000], dataset.y_test[:2000]), out / f"tsne_{name}.png")
    return measured(objective, dataset, history)


def samples(objective: Any, n: int = 100) -> Any:
    """x from the model, the mean of p(x|z) at z ~ p(z), sorted by the class that the model gives it (Figure 5.13)."""
    model = getattr(objective.model, "program", objective.model)
    with evaluating(objective), reproducibly(0):
        x = model.p_x(model.p_z().sample(torch.Size([n]))).mean
        order = objective.classify(x).mean.argmax(-1).argsort(stable=True)
    return plots.image_grid(x[order].unflatten(0, (10, n // 10)))


def embedding(objective: Any, x: torch.Tensor, y: torch.Tensor) -> Any:
    """t-SNE of the code, averaged over a Gibbs chain where the model predicts (Figure 5.14)."""
    if objective.gibbs_steps:
        z = gibbs(objective, x, steps=objective.gibbs_steps).z
    else:
        with evaluating(objective), reproducibly(0):
            q = objective.classify(x).mean
            z = objective.guide.encode(x, torch.eye(q.shape[-1])[q.argmax(-1)]).mean
    return tsne(z, y)


def report(results: dict[str, dict[str, Any]], per_class: list[int], out: Path) -> None:
    """One table per number of labels, from the results that are there."""
    texts = []
    for n in per_class:
        rows = []
        for method in ROWS:
            mine = [r for name, r in results.items() if name.startswith(f"{method}_{n}_")]
            if mine:
                accuracy = [100 * r["accuracy"] for r in mine]
                published = PAPER.get(n, {}).get(method, "") or (
                    BEST.get(method.removesuffix("_conv"), "") if n == 10 else ""
                )
                rows.append((method, mean_sd(accuracy), f"{min(accuracy):.2f}", len(mine), mine[0]["config"]["training"]["epochs"], mean_sd([r["log_likelihood"] for r in mine], 3),
                             f"{100 * np.mean([r['ece'] for r in mine]):.1f}", f"{np.mean([r['seconds'] for r in mine]):.0f}", published))  # fmt: skip
        header = (
            f"{n} labels per class",
            "accuracy %, mean (sd)",
            "worst",
            "draws",
            "epochs",
            "log-likelihood",
            "ECE %",
            "s a run",
            "published",
        )
        texts.append(table(header, rows))
    text = "\n\n".join(texts) + f"\n\nOne thread a run; no validation labels. {sources(results.values())}\n"
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

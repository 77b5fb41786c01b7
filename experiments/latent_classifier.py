"""Paper 003: Table 1 with its grids of alpha and lambda, and the analyses that it makes.

    python experiments/latent_classifier.py --data-root DATA [--scale smoke|cpu|paper] [--draws 0 1 2] [--workers 2]
        [--parts table circles sigma pretraining batches probe moons selection]

- table: MNIST, 100 labels: M2 by alpha; the latent classifier, its exact bound and its simplified form by lambda.
- circles (Figure 3), sigma (Figure 4): reconstruction and classification by the likelihood's sigma^2.
- pretraining (Figure 5): M2 and the latent classifiers from the weights of a trained VAE.
- batches (Figure 8): M2 with 100 labeled and 100 unlabeled data a step, and with 1 and 499.
- probe (section 3.3): a classifier on M2's z, which should be at chance were the class not in it.
- moons (supplement 8 to 11): reconstructions, q(y|x) and the softmax of the reconstruction loss, vector fields, with and
  without annealed KL.
- selection (supplement 12): the epoch of best validation accuracy, that of lowest loss, and the last.

The networks are the paper's, one hidden layer of 500 softplus units, z = 50, without noise, dropout or balance; the paper trains
500 epochs and picks the epoch on 10,000 validation labels, here there are none and the last epoch's averaged weights are
tested. `cpu` is 12 epochs and 3 draws. Only what is missing is run. Writes to `experiments/results/latent_classifier`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, arguments, images, mean_sd, measured, parsed, sources, study, table, trained, training_of

from pyro_ssl import class_bounds, data, metrics, plots, predict_proba, zoo
from pyro_ssl.training import Epoch, evaluating, fit, reproducibly

PARTS = ("table", "circles", "sigma", "pretraining", "batches", "probe", "moons", "selection")
WEIGHTS = (0.0, 0.001, 0.1, 0.5, 1.0, 10.0, 100.0, 10000.0)
PAPER = {
    "m2": "88.6 (5.0), 90.3 (3.5), 91.4 (2.2), 91.7 (2.5), 92.0 (2.6), 92.6 (2.5), 93.3 (2.0), 93.7 (2.5)",
    "latent_classifier": ", 72.2 (3.7), 91.7 (3.6), 92.3 (2.8), 88.2 (3.6), 78.1 (1.3), 80.2 (0.9), 70.9 (0.4)",
    "latent_classifier_exact": ", , , , , , , ",
    "latent_classifier_simplified": ", 82.1 (1.9), 80.4 (0.7), 79.5 (1.1), 78.7 (0.7), 76.7 (0.3), 75.9 (0.8), 72.4 (0.9)",
}
NETWORK: dict[str, Any] = {"hidden": (500,), "activation": "softplus", "noise": 0.0, "dropout": 0.0, "balance": 0.0}
PLANE: dict[str, Any] = NETWORK | {"hidden": (50, 50, 50), "classifier_hidden": (50,), "z_dim": 1, "activation": "relu"}
SIGMAS = (0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0)  # standard deviations
SCALES = {"smoke": (1, 1, [0]), "cpu": (12, 60, [0, 1, 2]), "paper": (500, 500, [0, 1, 2, 3, 4])}  # MNIST, plane; draws
WINDOW = {"circles": (-1.5, 1.5, -1.5, 1.5), "moons": (-1.6, 2.6, -1.1, 1.6)}


def main() -> None:
    parser = arguments(__doc__, out=RESULTS / "latent_classifier")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    given = parsed(parser)
    epochs, plane_epochs, draws = SCALES[given.scale]
    draws = given.draws or draws
    smoke = given.scale == "smoke"
    configs: dict[str, dict[str, Any]] = {}

    def mnist(part: str, method: str, draw: int, label: str, options: dict[str, Any], **more: Any) -> None:
        known = zoo.options_of(method)
        chosen = {k: v for k, v in (NETWORK | options | ({"hidden": (8,)} if smoke else {})).items() if k in known}
        sizes = {"batch_size": 100, "labeled_batch_size": 100} | more.pop("sizes", {})
        configs[f"{part}_{method}_{label}_{draw}"] = {
            "part": part, "data": "mnist", "method": method, "per_class": 10, "draw": draw, "label": label, "options": chosen,
            "training": training_of(method, epochs, **(sizes if zoo.method(method).unlabeled else {})),
            **({"rows": 300} if smoke else {}), **more,
        }  # fmt: skip

    def plane(part: str, method: str, label: str, options: dict[str, Any], **more: Any) -> None:
        known = zoo.options_of(method)
        configs[f"{part}_{method}_{label}"] = {
            "part": part, "data": more.pop("data", "circles"), "method": method, "draw": 0, "label": label,
            "points": 200 if smoke else 10_000, "options": {k: v for k, v in (PLANE | options).items() if k in known},
            "training": training_of(method, plane_epochs, batch_size=100, labeled_batch_size=50, **more),
        }  # fmt: skip

    for draw in draws:
        if "table" in given.parts:
            mnist("table", "classifier", draw, "0", {})
            for weight in WEIGHTS[:2] if smoke else WEIGHTS:
                mnist("table", "m2", draw, f"{weight:g}", {"alpha": weight})
                for method in ("latent_classifier", "latent_classifier_exact", "latent_classifier_simplified"):
                    if weight:
                        mnist("table", method, draw, f"{weight:g}", {"labeled": weight})
        if "pretraining" in given.parts:
            for method in ("m2", "latent_classifier", "latent_classifier_simplified"):
                for pretrained in (False, True):
                    mnist(
                        "pretraining",
                        method,
                        draw,
                        "trained" if pretrained else "fresh",
                        {"alpha": 0.1} if method == "m2" else {},
                        pretrained=pretrained,
                    )
        if "batches" in given.parts:
            for labeled, unlabeled in ((100, 100), (1, 499)):
                mnist(
                    "batches",
                    "m2",
                    draw,
                    f"{labeled}-{unlabeled}",
                    {},
                    sizes={"batch_size": unlabeled, "labeled_batch_size": labeled},
                    watch=True,
                )
        if "probe" in given.parts:
            for weight in (0.1, 1.0, 100.0):
                mnist("probe", "m2", draw, f"{weight:g}", {"alpha": weight}, probe=True)
        if "selection" in given.parts:
            for weight in (0.1, 1.0, 100.0):
                mnist("selection", "m2", draw, f"{weight:g}", {"alpha": weight}, watch=True)
    if "circles" in given.parts:
        plane("circles", "classifier", "labels", {})
        plane("circles", "m2", "sigma 1", {"sigma": 1.0, "alpha": 0.1})
        plane("circles", "m2", "sigma tuned", {"sigma": 0.1, "alpha": 0.1})
    if "sigma" in given.parts:
        for sigma in SIGMAS[:2] if smoke else SIGMAS:
            plane("sigma", "m2", f"{sigma:g}", {"sigma": sigma, "alpha": 0.1})
    if "moons" in given.parts:
        for label, warmup in (("full", 0.0), ("annealed", plane_epochs / 2)):
            plane("moons", "m2", label, {"sigma": 0.2}, data="moons", warmup=warmup)
    results = study(configs, run, given.out, given.workers, given.report)
    report(results, given.out)


def run(name: str, config: dict[str, Any], directory: Path, out: Path) -> dict[str, Any]:
    return (on_plane if config["data"] in WINDOW else on_mnist)(name, config, directory, out)


# --- MNIST ------------------------------------------------------------------------------------------------------------


def on_mnist(name: str, config: dict[str, Any], directory: Path, out: Path) -> dict[str, Any]:
    """A run of a table, with what its part asks for beside the test set's measures."""
    if config.get("pretrained"):
        return pretrained(name, config, directory, out)
    dataset, codes = images(config)
    held = (codes < 0).nonzero().squeeze(1)[-10_000:]  # their labels are looked at in `selection` and in curves alone
    path: dict[str, list[float]] = {"validation": [], "test": [], "loss": []}

    def watch(epoch: Epoch) -> None:
        path["validation"].append(metrics.accuracy(predict_proba(epoch.objective, dataset.x[held]), dataset.y[held]))
        path["test"].append(metrics.accuracy(predict_proba(epoch.objective, dataset.x_test), dataset.y_test))
        path["loss"].append(epoch.metrics["loss"])

    watching = {"callbacks": (watch,)} if config.get("watch") else {}
    objective, dataset, codes, history = trained(config, directory, **watching)
    result: dict[str, Any] = measured(objective, dataset, history)
    if path["loss"]:
        result["path"] = path
    if config.get("probe"):
        result["probe"] = probe(objective, dataset)
    if config["part"] == "table" and config["draw"] == 0 and config["method"] == "m2" and config["label"] == "1":
        plots.save(plots.analogies(objective, dataset.x_test[:10], 10), out / "analogies.png")  # Figure 2
    if config["method"] != "classifier" and config["part"] == "table":
        by_model = config["method"] in ("m2", "latent_classifier")
        if by_model:
            scores = class_bounds(objective, dataset.x_test, only=("x",))
            result["by_reconstruction"] = float((scores.argmax(-1) == dataset.y_test).float().mean())
    return result


def probe(objective: Any, dataset: data.Dataset) -> float:
    """Test accuracy of an MLP that is trained to tell the class from the mean of q(z|x,y), y the likeliest, with all labels."""

    def code(x: torch.Tensor) -> torch.Tensor:
        with evaluating(objective), reproducibly(0):
            parts = []
            for part in x.split(4096):
                q = objective.classify(part).mean
                parts.append(objective.guide.encode(part, torch.eye(q.shape[-1])[q.argmax(-1)]).mean)
        return torch.cat(parts)

    z, z_test = code(dataset.x), code(dataset.x_test)
    reader = zoo.build("classifier", z.shape[1:], 10, seed=0, hidden=(500,), noise=0.0, dropout=0.0)
    fit(reader, z, dataset.y, epochs=3 if len(z) > 1000 else 1, batch_size=200, lr=1e-3, seed=0)
    return metrics.accuracy(predict_proba(reader, z_test), dataset.y_test)


def pretrained(name: str, config: dict[str, Any], directory: Path, out: Path) -> dict[str, Any]:
    """The pair's encoder and decoder start as those of a VAE that has seen all images, with no use for y."""
    dataset, codes = images(config)
    options = config["options"]
    shared = {k: options[k] for k in ("hidden", "activation")} | {"likelihood": "gaussian", "sigma": 0.7}
    first = zoo.build("vae", dataset.x_shape, 10, seed=config["draw"], z_dim=50, **shared)
    fit(
        first,
        dataset.x,
        epochs=config["training"]["epochs"],
        batch_size=200,
        lr=1e-3,
        seed=config["draw"],
        directory=directory / "vae",
        resume=True,
    )
    objective = zoo.build(config["method"], dataset.x_shape, 10, seed=config["draw"], **options)
    with torch.no_grad():
        for ours, theirs in ((objective.model.p_x, first.model.p_x), (objective.guide.q_z, first.guide.q_z)):
            mine, others = ours.network.first.weights, theirs.network.first.weights
            for w in mine:
                w.zero_()
            (mine[-1] if ours is objective.model.p_x else mine[0]).copy_(others[0])
            ours.network.first.bias.copy_(theirs.network.first.bias)
            ours.network.rest.load_state_dict(theirs.network.rest.state_dict())
    history = fit(
        objective,
        dataset.x,
        codes,
        seed=config["draw"],
        directory=directory / "pair",
        resume=True,
        **config["training"],
    )
    if config["draw"] == 0 and config["method"] == "m2":
        plots.save(plots.analogies(objective, dataset.x_test[:10], 10), out / "pretraining.png")  # Figure 5
    return measured(objective, dataset, history)


# --- the plane --------------------------------------------------------------------------------------------------------


def on_plane(name: str, config: dict[str, Any], directory: Path, out: Path) -> dict[str, Any]:
    """Circles with 50 labels or moons with 6: accuracy, reconstruction, and what the figures draw."""
    make = data.circles if config["data"] == "circles" else data.two_moons
    dataset = make(config["points"], config["points"], seed=config["draw"])
    codes = data.draw_labels(dataset.y, per_class=25 if config["data"] == "circles" else 3, seed=config["draw"]).codes(
        dataset.y
    )
    objective = zoo.build(config["method"], (2,), 2, seed=config["draw"], **config["options"])
    history = fit(
        objective, dataset.x, codes, seed=config["draw"], directory=directory, resume=True, **config["training"]
    )
    grid = plane_grid(config["data"])
    result: dict[str, Any] = {
        **metrics.evaluate(predict_proba(objective, dataset.x_test), dataset.y_test),
        "seconds": history["seconds"][-1],
        "plane": [round(100 * p) for p in predict_proba(objective, grid)[:, 1].tolist()],
    }
    if objective.model is None:
        return result
    with evaluating(objective), reproducibly(0):
        x = dataset.x_test[:500]
        y = torch.eye(2)[objective.classify(x).mean.argmax(-1)]
        again = objective.model.p_x(y, objective.guide.encode(x, y).mean).mean
        result["squared_error"] = float((again - x).square().sum(-1).mean())
        result["reconstructions"] = torch.cat([again, y[:, 1:]], 1).round(decimals=3).tolist()
        coarse = plane_grid(config["data"], 16)
        moved = [
            objective.model.p_x(e, objective.guide.encode(coarse, e).mean).mean - coarse
            for e in torch.eye(2)[:, None].expand(2, len(coarse), 2)
        ]
        weights = objective.classify(coarse).mean
        moved.append(sum(w[:, None] * m for w, m in zip(weights.T, moved, strict=True)))
        result["fields"] = [m.round(decimals=3).tolist() for m in moved]
    by_loss = class_bounds(objective, grid, only=("x",), num_particles=8).softmax(-1)
    result["plane_by_reconstruction"] = [round(100 * p) for p in by_loss[:, 1].tolist()]
    return result


def plane_grid(name: str, resolution: int = 50) -> torch.Tensor:
    a, b, c, d = WINDOW[name]
    return torch.cartesian_prod(torch.linspace(a, b, resolution), torch.linspace(c, d, resolution))


# --- tables and figures -----------------------------------------------------------------------------------------------


def report(results: dict[str, dict[str, Any]], out: Path) -> None:
    """Tables and figures of the parts that are there."""
    of = lambda part: {k: r for k, r in results.items() if r["config"]["part"] == part}  # noqa: E731
    texts = []
    if grid := of("table"):
        texts.append(grid_table(grid))
    if found := of("pretraining"):
        texts.append(by_label(found, "from a VAE's weights"))
    if found := of("batches"):
        texts.append(by_label(found, "labeled and unlabeled data a step"))
    if found := of("probe"):
        rows = [
            (label, mean_sd(100 * r["accuracy"] for r in mine), mean_sd(100 * r["probe"] for r in mine))
            for _, label, mine in groups(found)
        ]
        texts.append(table(("alpha", "M2, accuracy %", "of a classifier on its z (paper: > 85)"), rows))
    if found := of("selection"):
        rows = []
        for _, label, mine in groups(found):
            picks = [
                [r["path"]["test"][i] for r in mine for i in [pick(r["path"])]]
                for pick in (
                    lambda p: int(np.argmax(p["validation"])),
                    lambda p: int(np.argmin(p["loss"])),
                    lambda p: -1,
                )
            ]
            rows.append((label, *(mean_sd(100 * a for a in accuracies) for accuracies in picks)))
        texts.append(table(("alpha", "best validation accuracy", "lowest loss", "last epoch"), rows))
    text = (
        "\n\n".join(texts)
        + f"\n\nOne thread a run; no validation labels, but for the selection named. {sources(results.values())}\n"
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text)
    print(text)
    figures(of, out)


def groups(found: dict[str, dict[str, Any]]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Runs by method and label, over draws."""
    keys = dict.fromkeys((r["config"]["method"], r["config"]["label"]) for r in found.values())
    return [
        (m, label, [r for r in found.values() if (r["config"]["method"], r["config"]["label"]) == (m, label)])
        for m, label in keys
    ]


def by_label(found: dict[str, dict[str, Any]], title: str) -> str:
    rows = [
        (
            m,
            label,
            mean_sd(100 * r["accuracy"] for r in mine),
            f"{100 * min(r['accuracy'] for r in mine):.2f}",
            len(mine),
        )
        for m, label, mine in groups(found)
    ]
    return table(("method", title, "accuracy %, mean (sd)", "worst", "draws"), rows)


def grid_table(grid: dict[str, dict[str, Any]]) -> str:
    cells = {(m, label): mine for m, label, mine in groups(grid)}
    rows = []
    for method in ("m2", "latent_classifier", "latent_classifier_exact", "latent_classifier_simplified"):
        ours = [cells.get((method, f"{w:g}"), []) for w in WEIGHTS]
        rows.append(
            (f"{method}, ours", *(mean_sd([100 * r["accuracy"] for r in mine], 1) if mine else "" for mine in ours))
        )
        if method in ("m2", "latent_classifier"):
            rows.append(
                (
                    "- by reconstruction",
                    *(mean_sd([100 * r["by_reconstruction"] for r in mine], 1) if mine else "" for mine in ours),
                )
            )
        if method != "latent_classifier_exact":
            rows.append((f"{method}, paper", *PAPER[method].split(", ")))
    baseline = [100 * r["accuracy"] for m, _, mine in groups(grid) if m == "classifier" for r in mine]
    if baseline:
        rows.append((f"classifier: {mean_sd(baseline, 1)}; paper 74.74 (1.16)", *[""] * len(WEIGHTS)))
    return table(("MNIST, 100 labels; alpha of M2, lambda of the others", *(f"{w:g}" for w in WEIGHTS)), rows)


def figures(of: Any, out: Path) -> None:
    import matplotlib.pyplot as plt

    if circles := of("circles"):  # Figure 3
        figure, axes = plt.subplots(2, 3, figsize=(8.4, 5.6), layout="constrained")
        dataset = data.circles(2000, 10, seed=0)
        axes[0][0].scatter(*dataset.x.T, s=2, c=np.array(plots.COLOURS)[dataset.y.numpy()], linewidths=0)
        axes[0][0].set(title="data")
        order = [("circles_m2_sigma 1", "sigma = 1"), ("circles_m2_sigma tuned", "sigma = 0.1")]
        for j, (key, title) in enumerate(order, start=1):
            if key in circles:
                points = np.array(circles[key]["reconstructions"])
                axes[0][j].scatter(
                    points[:, 0], points[:, 1], s=4, c=np.array(plots.COLOURS)[points[:, 2].astype(int)], linewidths=0
                )
                axes[0][j].set(title=f"reconstructions, {title}")
        for j, (key, title) in enumerate([("circles_classifier_labels", "supervised"), *order]):
            if key in circles:
                _region(
                    axes[1][j], circles[key]["plane"], "circles", f"{title}: {100 * circles[key]['accuracy']:.1f} %"
                )
        for ax in axes.flat:
            ax.set(xticks=[], yticks=[], xlim=WINDOW["circles"][:2], ylim=WINDOW["circles"][2:])
        plots.save(figure, out / "circles.png")
    if sweep := of("sigma"):  # Figure 4
        figure, ax = plt.subplots(figsize=(4.5, 3), layout="constrained")
        points = sorted(
            (float(r["config"]["label"]) ** 2, r["squared_error"], 100 * r["accuracy"]) for r in sweep.values()
        )
        ax.plot([p[0] for p in points], [p[1] for p in points], "o-", color=plots.COLOURS[0])
        ax.set(xscale="log", xlabel="sigma^2", ylabel="squared error of reconstructions")
        other = ax.twinx()
        other.plot([p[0] for p in points], [p[2] for p in points], "s-", color=plots.COLOURS[1])
        other.set_ylabel("accuracy %")
        plots.save(figure, out / "sigma.png")
    if batches := of("batches"):  # Figure 8
        figure, ax = plt.subplots(figsize=(4.5, 3), layout="constrained")
        for r in batches.values():
            colour = plots.COLOURS[r["config"]["label"] != "100-100"]
            ax.plot(
                range(1, 1 + len(r["path"]["test"])),
                [100 * a for a in r["path"]["test"]],
                color=colour,
                label=r["config"]["label"] if r["config"]["draw"] == 0 else None,
            )
        ax.set(xlabel="epoch", ylabel="test accuracy %")
        ax.legend(frameon=False, title="labeled-unlabeled")
        plots.save(figure, out / "batches.png")
    if moons := of("moons"):  # supplement 8 to 11
        figure, axes = plt.subplots(len(moons), 6, figsize=(15, 2.6 * len(moons)), squeeze=False, layout="constrained")
        coarse = plane_grid("moons", 16)
        for row, (_, r) in zip(axes, moons.items(), strict=True):
            label, points = r["config"]["label"], np.array(r["reconstructions"])
            row[0].scatter(
                points[:, 0], points[:, 1], s=4, c=np.array(plots.COLOURS)[points[:, 2].astype(int)], linewidths=0
            )
            row[0].set(title=f"reconstructions, {label} KL")
            _region(row[1], r["plane"], "moons", f"q(y|x): {100 * r['accuracy']:.1f} %")
            _region(row[2], r["plane_by_reconstruction"], "moons", "softmax of -reconstruction loss")
            for ax, field, title in zip(row[3:], r["fields"], ("as class 0", "as class 1", "by q(y|x)"), strict=True):
                ax.quiver(*coarse.T, *np.array(field).T, angles="xy", scale_units="xy", scale=1, width=0.004)
                ax.set(title=title)
            for ax in row:
                ax.set(xticks=[], yticks=[], xlim=WINDOW["moons"][:2], ylim=WINDOW["moons"][2:])
        plots.save(figure, out / "moons.png")


def _region(ax: Any, values: list[int], name: str, title: str) -> None:
    n = round(len(values) ** 0.5)
    picture = np.array(values).reshape(n, n).T / 100
    ax.imshow(picture, origin="lower", extent=WINDOW[name], aspect="auto", cmap="coolwarm_r", vmin=0, vmax=1, alpha=0.8)
    ax.set(title=title)


if __name__ == "__main__":
    main()

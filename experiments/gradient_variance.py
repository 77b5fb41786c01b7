"""Variance and cost of the estimators of the classifier's gradient: a mixture over classes, `top=k`, the whole sum; of W too.

    python experiments/gradient_variance.py [--scale smoke|cpu] [--workers 1]

SSLPE on 100 data of 20 numbers, one hidden layer of 100, z = 5, at its first weights and where q(y|x) is nearly certain (its
logits times 10). The variance is of the gradient of the bound's mean in the weights of q(y|x), summed over them, of 300
draws, over the squared norm of the mean gradient by the whole sum; rows are evaluations of p(x|z) per datum. Of SSLAPD, the
gradient in the means of q(W), with one draw of W for all data or local reparameterisation, over the squared norm of its mean
with the latter; with the log-variance of q(W) that it starts from, -10, and with -4. Writes a table to
`experiments/results/gradient_variance`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from common import Results, arguments, parsed, sources, study, table, where

from pyro_ssl import zoo
from pyro_ssl.utils.context import fixed_seed

ESTIMATORS: dict[str, dict[str, Any]] = {
    "mixture": {"mixture": True},
    "top=1": {"top_k": 1},
    "top=3": {"top_k": 3},
    "all": {"top_k": None},
}
CLASSES = (3, 10, 100)
LOG_VARIANCES = (-10.0, -4.0)
NETWORK: dict[str, Any] = {
    "hidden": (100,),
    "z_dim": 5,
    "noise": 0.0,
    "dropout": 0.0,
    "balance": 0.0,
}


def main() -> None:
    given = parsed(arguments(__doc__, workers=1))
    draws = 3 if given.scale == "smoke" else 300
    configs: dict[str, dict[str, Any]] = {
        f"{name}_{classes}_{sharp}": {"of": "y", "estimator": name, "classes": classes, "sharp": sharp, "draws": draws}
        for classes in CLASSES
        for sharp in (1, 10)
        for name in ESTIMATORS
        if name != "top=3" or classes > 3
    }
    for local in (False, True):
        name = "local" if local else "one W for all data"
        for log_variance in LOG_VARIANCES:
            configs[f"weights_{local}_{log_variance:g}"] = {
                "of": "W", "estimator": name, "classes": 10, "local_reparameterisation": local, "draws": draws, "log_variance": log_variance,
            }  # fmt: skip
    report(study(configs, run, given), given.out)


def run(name: str, config: dict[str, Any], directory: Path, out: Path) -> dict[str, Any]:
    """Gradients of one estimator, on the same weights and data for all."""
    of_y = config["of"] == "y"
    options = (
        ESTIMATORS[config["estimator"]]
        if of_y
        else {k: config[k] for k in ("local_reparameterisation", "log_variance")}
    )
    objective = zoo.build("sslpe" if of_y else "sslapd", (20,), config["classes"], **NETWORK | options)
    with fixed_seed(1):
        x = torch.randn(100, 20)
    of = list(objective.guide.q_y.parameters()) if of_y else [objective.guide.loc]
    if of_y:
        with torch.no_grad():
            for parameter in objective.guide.q_y.network.rest[-1].parameters():
                parameter.mul_(config["sharp"])
    started, found = time.perf_counter(), []
    with fixed_seed(2):
        for _ in range(config["draws"]):
            gradient = torch.autograd.grad(objective.elbo.bound(objective.model, objective.guide, x).value.mean(), of)
            found.append(torch.cat([g.flatten() for g in gradient]))
    each = torch.stack(found)
    milliseconds = (time.perf_counter() - started) / len(each) * 1e3
    return {"variance": float(each.var(0).sum()), "norm": float(each.mean(0).square().sum()), "ms": milliseconds}


def report(results: Results, out: Path) -> None:
    rows = []
    for classes in CLASSES:
        for name in ESTIMATORS:
            cells = []
            for sharp in (1, 10):
                mine = where(results, of="y", classes=classes, sharp=sharp, estimator=name)
                whole = where(results, of="y", classes=classes, sharp=sharp, estimator="all")
                cells += [f"{mine[0]['variance'] / whole[0]['norm']:.3g}" if mine and whole else ""]
                cells += [f"{mine[0]['ms']:.1f}"] if mine and sharp == 1 else []
            evaluated = {"mixture": 1, "top=1": 2, "top=3": 4, "all": classes}[name]
            if cells[0]:
                rows.append((classes, name, evaluated, *cells))
    text = table(
        ("classes", "estimator of q(y|x)'s gradient", "rows", "variance", "ms", "variance, q nearly certain"), rows
    )
    of_w = []
    for log_variance in LOG_VARIANCES:
        mine = where(results, of="W", log_variance=log_variance)
        norm = [r["norm"] for r in mine if r["config"]["local"]]
        of_w += [
            (f"{log_variance:g}", r["config"]["estimator"], f"{r['variance'] / norm[0]:.3g}", f"{r['ms']:.1f}")
            for r in mine
            if norm
        ]
    header = ("log-variance of q(W)", "gradient in its means", "variance", "ms")
    text += "\n\n" + table(header, of_w) + f"\n\n{sources(results)}\n"
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

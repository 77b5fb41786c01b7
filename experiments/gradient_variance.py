"""Variance and cost of gradient estimators for q(y|x) and for random weights q(W).

It compares the mixture-density gradient of paper 002 (appendix B) with sums over classes, and
random weights with and without local reparameterisation.

`python experiments/gradient_variance.py --help` explains every option.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pages import table, where
from results_table import Result, Results
from study import Config, Study, main

from pyro_ssl import Objective, fixed_seed, zoo

ESTIMATORS: dict[str, dict[str, Any]] = {
    "mixture": {"mixture": True},
    "top_k=1": {"top_k": 1},
    "top_k=3": {"top_k": 3},
    "all": {"top_k": None},
}
CLASSES = (3, 10, 100)
SHARPNESS = (1, 10)
"""Factors of the classifier's logits; at 10, q(y|x) is nearly certain."""
LOG_VARIANCES = (-10.0, -4.0)
NETWORK: dict[str, Any] = {
    "hidden": (100,),
    "z_dim": 5,
    "noise": 0.0,
    "dropout": 0.0,
    "balance": 0.0,
}
GRADIENTS = {"smoke": 3, "cpu": 300}
"""Number of gradients, by scale."""
DRAWS = {"smoke": [0], "cpu": [0]}


def configs(scale: str, draws: Sequence[int]) -> dict[str, Config]:
    count = GRADIENTS[scale]
    made: dict[str, Config] = {}
    for classes in CLASSES:
        for sharp in SHARPNESS:
            for name in ESTIMATORS:
                if name == "top_k=3" and classes == 3:  # the whole sum
                    continue
                config = {
                    "of": "y",
                    "estimator": name,
                    "classes": classes,
                    "sharp": sharp,
                    "draws": count,
                }
                made[f"{name}_{classes}_{sharp}"] = config
    for local in (False, True):
        for log_variance in LOG_VARIANCES:
            made[f"weights_{local}_{log_variance:g}"] = {
                "of": "W",
                "estimator": "local reparameterisation" if local else "one W for all data",
                "classes": 10,
                "local_reparameterisation": local,
                "draws": count,
                "log_variance": log_variance,
            }
    return made


def run(name: str, config: Config, directory: Path, pictures: Path) -> Result:
    """Draw gradients by one estimator; all estimators have the same weights and data."""
    objective = _objective(config)
    with fixed_seed(1):
        x = torch.randn(100, 20)
    parameters = _parameters(objective, config)
    gradients = []
    started = time.perf_counter()
    with fixed_seed(2):
        for _ in range(config["draws"]):
            bound = objective.elbo.bound(objective.model, objective.guide, x).value.mean()
            gradient = torch.autograd.grad(bound, parameters)
            gradients.append(torch.cat([g.flatten() for g in gradient]))
    milliseconds = (time.perf_counter() - started) / len(gradients) * 1e3
    each = torch.stack(gradients)
    return {
        "variance": float(each.var(0).sum()),
        "norm": float(each.mean(0).square().sum()),
        "ms": milliseconds,
    }


def _objective(config: Config) -> Objective:
    if config["of"] == "y":
        return zoo.build(
            "sslpe", (20,), config["classes"], **NETWORK, **ESTIMATORS[config["estimator"]]
        )
    options = {k: config[k] for k in ("local_reparameterisation", "log_variance")}
    return zoo.build("sslapd", (20,), config["classes"], **NETWORK, **options)


def _parameters(objective: Objective, config: Config) -> list[torch.Tensor]:
    """Parameters of q(y|x), its logits sharpened; or the means of q(W)."""
    guide: Any = objective.guide
    if config["of"] == "W":
        return [guide.loc]
    with torch.no_grad():
        for parameter in guide.q_y.network.rest[-1].parameters():
            parameter.mul_(config["sharp"])
    return list(guide.q_y.parameters())


def report(results: Results, pictures: Path) -> dict[str, str]:
    return {"classifier": _of_classifier(results), "weights": _of_weights(results)}


def _of_classifier(results: Results) -> str:
    rows = []
    for classes in CLASSES:
        for name in ESTIMATORS:
            by_sharpness = [
                where(results, of="y", classes=classes, sharp=s, estimator=name) for s in SHARPNESS
            ]
            whole = [
                where(results, of="y", classes=classes, sharp=s, estimator="all") for s in SHARPNESS
            ]
            if not all(by_sharpness) or not all(whole):
                continue
            uncertain, certain = (
                f"{mine[0]['variance'] / exact[0]['norm']:.3g}"
                for mine, exact in zip(by_sharpness, whole, strict=True)
            )
            evaluations = {"mixture": 1, "top_k=1": 2, "top_k=3": 4, "all": classes}[name]
            rows.append(
                (classes, name, evaluations, uncertain, f"{by_sharpness[0][0]['ms']:.1f}", certain)
            )
    header = (
        "classes",
        "estimator",
        "evaluations of p(x|z)",
        "variance",
        "ms",
        "variance, q(y|x) nearly certain",
    )
    return table(header, rows)


def _of_weights(results: Results) -> str:
    rows = []
    for log_variance in LOG_VARIANCES:
        mine = where(results, of="W", log_variance=log_variance)
        norm = [r["norm"] for r in mine if r["config"]["local_reparameterisation"]]
        for r in mine if norm else []:
            variance = f"{r['variance'] / norm[0]:.3g}"
            rows.append((f"{log_variance:g}", r["config"]["estimator"], variance, f"{r['ms']:.1f}"))
    return table(("log-variance of q(W)", "gradient in its means", "variance", "ms"), rows)


STUDY = Study("gradient_variance", configs, run, report, draws=DRAWS, workers=1)

if __name__ == "__main__":
    main(STUDY, __doc__)

"""The estimators with their defaults on scikit-learn's data sets, compared with its own methods.

It shows accuracy and R squared with few labels. No paper has these numbers.

`python experiments/tables.py --help` explains every option.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pages import mean_sd, table, where
from results_table import Result, Results
from sklearn import datasets
from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier
from sklearn.svm import SVC
from study import Config, Study, main

from pyro_ssl import (
    SemiSupervisedClassifier,
    SemiSupervisedRegressor,
    draw_labels,
)
from pyro_ssl.zoo import presets

TABLES = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
    "diabetes": datasets.load_diabetes,
}
REGRESSION = "diabetes"
LABELS = (3, 10)
"""Labels per class."""
REAL_LABELS = (30, 100)
"""Labels in total, for regression."""
SUPERVISED = ("logistic regression", "SVM", "ridge regression", "Gaussian process", "random forest")
DRAWS = {"smoke": [0], "cpu": [0, 1, 2, 3, 4]}


def configs(scale: str, draws: Sequence[int]) -> dict[str, Config]:
    smoke = scale == "smoke"
    made = {}
    for name in ("iris", REGRESSION) if smoke else TABLES:
        for n in REAL_LABELS if name == REGRESSION else LABELS:
            for draw in draws:
                config = {
                    "data": name,
                    "labels": n,
                    "draw": draw,
                    "options": presets.TABULAR_DEFAULTS,
                }
                made[f"{name.replace(' ', '_')}_{n}_{draw}"] = config | (
                    {"epochs": 1} if smoke else {}
                )
    return made


def methods(config: Config) -> dict[str, BaseEstimator]:
    """The estimators of one table; scikit-learn's with defaults, but for kernels and iterations."""
    short = {"epochs": config["epochs"], "min_steps": 1} if "epochs" in config else {}
    ours = {"random_state": config["draw"], **short}
    if config["data"] == REGRESSION:
        kernel = ConstantKernel() * RBF(3.0) + WhiteKernel()
        return {
            "ridge regression": Ridge(),
            "Gaussian process": GaussianProcessRegressor(kernel, normalize_y=True),
            "random forest": RandomForestRegressor(random_state=config["draw"]),
            "sslpe": SemiSupervisedRegressor(**ours),
        }
    return {
        "logistic regression": LogisticRegression(max_iter=1000),
        "SVM": SVC(),
        "self-training": SelfTrainingClassifier(LogisticRegression(max_iter=1000)),
        "label spreading": LabelSpreading(kernel="knn", max_iter=300),
        "classifier": SemiSupervisedClassifier("classifier", **ours),
        "m2": SemiSupervisedClassifier("m2", **ours),
    }


def run(name: str, config: Config, directory: Path, pictures: Path) -> Result:
    """Fit all methods to one table, with the labels of one draw."""
    real = config["data"] == REGRESSION
    x, y = TABLES[config["data"]](return_X_y=True)
    stratify = None if real else y
    x, x_test, y, y_test = train_test_split(
        x, y, test_size=0.3, random_state=config["draw"], stratify=stratify
    )
    scaler = StandardScaler().fit(x)
    x, x_test = scaler.transform(x), scaler.transform(x_test)
    given, known = _labels(y, config)
    score, seconds = {}, {}
    for method, model in methods(config).items():
        rows = known if method in SUPERVISED else slice(None)
        started = time.perf_counter()
        predicted = model.fit(x[rows], given[rows]).predict(x_test)
        seconds[method] = time.perf_counter() - started
        score[method] = float(
            r2_score(y_test, predicted) if real else 100 * (predicted == y_test).mean()
        )
    return {"rows": len(y), "score": score, "seconds_of": seconds}


def _labels(y: np.ndarray, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Labels with NaN or -1 for missing ones, and which are known."""
    n, seed = config["labels"], config["draw"]
    if config["data"] == REGRESSION:
        drawn = np.random.default_rng(seed).permutation(len(y))[:n]
        known = np.isin(np.arange(len(y)), drawn)
        return np.where(known, y, np.nan), known
    given = draw_labels(y, per_class=n, seed=seed).masked_labels(torch.from_numpy(y)).numpy()
    return given, given >= 0


def report(results: Results, pictures: Path) -> dict[str, str]:
    classifiers = [(name, n) for name in TABLES if name != REGRESSION for n in LABELS]
    regressors = [(REGRESSION, n) for n in REAL_LABELS]
    return {
        "classification": scores(
            results, "accuracy %, mean (sd), worst", classifiers, " per class", 1
        ),
        "regression": scores(results, "R squared, mean (sd), worst", regressors, "", 3),
    }


def scores(
    results: Results, title: str, columns: list[tuple[str, int]], unit: str, digits: int
) -> str:
    """One row per method, one column for each data set and number of labels."""
    runs = {f"{name}, {n}{unit}": where(results, data=name, labels=n) for name, n in columns}
    runs = {column: mine for column, mine in runs.items() if mine}
    if not runs:
        return ""
    columns_of_runs = list(runs.values())
    tested = columns_of_runs[0][0]["score"]
    rows = [_row(method, columns_of_runs, digits) for method in tested]
    rows.append(("draws", *(str(len(mine)) for mine in runs.values()), ""))
    return table((title, *runs, "s per fit"), rows)


def _row(method: str, columns: list[list[Result]], digits: int) -> tuple[str, ...]:
    """A method's scores in each column, and its seconds per fit over all columns."""
    by_column = [[r["score"][method] for r in mine] for mine in columns]
    cells = [f"{mean_sd(s, digits)}, {min(s):.{digits}f}" for s in by_column]
    seconds = np.mean([r["seconds_of"][method] for mine in columns for r in mine])
    return (method, *cells, f"{seconds:.1f}")


STUDY = Study("tables", configs, run, report, draws=DRAWS)

if __name__ == "__main__":
    main(STUDY, __doc__)

"""M2 beside its peers: scikit-learn's methods, scANVI of scvi-tools, and Pyro's own example.

All methods have the same rows, labels and test rows. It shows accuracy, log-likelihood, CPU time
and lines of code. No paper has these numbers. The code of a method is a file in `peer_code`: that
file is run, and its lines are counted.

`python experiments/peers.py --help` explains every option.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from pages import mean_sd, table, where
from peer_process import lines_of_code, timed
from results_table import Result, Results
from sklearn import datasets
from sklearn.model_selection import train_test_split
from study import Config, Selection, Study, main, path_of

from pyro_ssl import data, draw_labels
from pyro_ssl.evaluation import metrics

CODE = Path(__file__).parent / "peer_code"
ROWS = 1000
"""Rows of a data set in all, of which 70 % are for training."""
TEST_SHARE = 0.3
CELL_TYPES, GENES = 5, 300
DISPERSION = 2.0
PASSES = 1
"""Passes over MNIST, for M2 and for Pyro's example."""
MNIST_LABELS = 100
HELD_BACK = 10_000
"""The last training images of MNIST, which Pyro's example sets aside as validation data."""
EXAMPLE = "pyro_example"
SCVI, PYRO = "scvi-python", "pyro-examples"
DRAWS = {"smoke": [0], "cpu": [0, 1, 2, 3, 4]}
Rows = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Data:
    """A data set.

    Arguments:
        title: Title for readers.
        per_class: Labeled rows of each class.
        load: `load(draw)` gives x and the classes of all rows; none for MNIST.
        counts: Whether x are counts of genes, which only scANVI sees as they are, see
            `log_normalised`.
    """

    title: str
    per_class: int
    load: Callable[[int], Rows] | None = None
    counts: bool = False


def moons(draw: int) -> Rows:
    return datasets.make_moons(ROWS, noise=0.2, random_state=draw)


def digits(draw: int) -> Rows:
    x, y = datasets.load_digits(return_X_y=True)
    return x[:ROWS], y[:ROWS]


def breast_cancer(draw: int) -> Rows:
    return datasets.load_breast_cancer(return_X_y=True)


def cell_counts(draw: int) -> Rows:
    """Draw negative binomial counts of genes in cells of five types.

    The mean of a count is depth(cell) * level(gene) * change(type, gene). Depth is log-normal
    (0, 0.5), level log-normal (-1, 1); a tenth of the changes is log-normal (0, 1) and the others
    are 1. The variance is mean + mean^2 / 2.
    """
    rng = np.random.default_rng(draw)
    level = rng.lognormal(-1.0, 1.0, GENES)
    changed = rng.random((CELL_TYPES, GENES)) < 0.1
    change = np.where(changed, rng.lognormal(0.0, 1.0, changed.shape), 1.0)
    y = rng.integers(CELL_TYPES, size=ROWS)
    depth = rng.lognormal(0.0, 0.5, ROWS)
    mean = depth[:, None] * level * change[y]
    return rng.poisson(rng.gamma(DISPERSION, mean / DISPERSION)).astype(float), y


def log_normalised(x: np.ndarray) -> np.ndarray:
    """Divide counts by the cell's depth, to `GENES` counts in all, and take log(1 + x)."""
    return np.log1p(GENES * x / x.sum(1, keepdims=True))


DATA = {
    "moons": Data("two moons, noise 0.2", 3, moons),
    "breast_cancer": Data("breast cancer", 5, breast_cancer),
    "digits": Data("digits", 5, digits),
    "counts": Data("simulated counts", 5, cell_counts, counts=True),
    "mnist": Data("MNIST", MNIST_LABELS // 10),
}
TABLES = tuple(name for name in DATA if name != "mnist")
COUNTS = ("digits", "counts")
"""Data sets of counts: pixels of the digits are whole numbers from 0 to 16."""


@dataclass(frozen=True)
class Peer:
    """A method.

    Arguments:
        title: Title for readers.
        data: Data sets on which it is run.
        ours: Whether it is a method of this library.
        sees_counts: Whether it expects counts as they are.
        smoke: Arguments that make it short.
    """

    title: str
    data: Sequence[str] = TABLES
    ours: bool = False
    sees_counts: bool = False
    smoke: tuple[tuple[str, int], ...] = ()


SHORT = (("epochs", 1), ("min_steps", 1))
PEERS = {
    "logistic_regression": Peer("logistic regression, labels alone"),
    "self_training": Peer("self-training of logistic regression"),
    "label_spreading": Peer("label spreading"),
    "label_spreading_knn": Peer("label spreading, nearest neighbours"),
    "scanvi": Peer("scANVI", COUNTS, sees_counts=True, smoke=(("max_epochs", 1),)),
    EXAMPLE: Peer("Pyro's `ss_vae_M2.py`", ("mnist",)),
    "m2": Peer("M2, ours", (*TABLES, "mnist"), ours=True, smoke=SHORT),
    "sslpe": Peer("SSLPE, ours", ("moons",), ours=True, smoke=SHORT),
    "m2_images": Peer("M2 on images, with warps, ours", ("digits",), ours=True, smoke=SHORT),
}
"""The second method of ours for a data set was chosen before these runs: SSLPE for two moons and
warps for images have the best numbers in the other studies.
"""


def configs(scale: str, draws: Sequence[int]) -> dict[str, Config]:
    smoke = scale == "smoke"
    made = {}
    for peer, about in PEERS.items():
        for name in about.data:
            for draw in draws[:1] if name == "mnist" else draws:
                config = {"data": name, "peer": peer, "labels": DATA[name].per_class, "draw": draw}
                made[f"{name}_{peer}_{draw}"] = config | {
                    "arguments": _arguments(peer, name, smoke)
                }
    return made


def _arguments(peer: str, name: str, smoke: bool) -> dict[str, int]:
    """Further arguments of a peer's code; none, so its defaults, but for MNIST."""
    if smoke:
        return dict(PEERS[peer].smoke)
    return {"epochs": PASSES} if name == "mnist" else {}


def unavailable(config: Config) -> str:
    """Say what a run lacks on this machine."""
    if config["peer"] == "scanvi" and path_of(SCVI) is None:
        return f"--{SCVI} does not name a Python with scvi-tools"
    if config["peer"] == EXAMPLE and path_of(PYRO) is None:
        return f"--{PYRO} does not name the folder examples/vae of a clone of Pyro"
    if config["data"] == "mnist" and not (data.data_root() / "MNIST").is_dir():
        return "--data-root does not name a folder with MNIST"
    return ""


def run(name: str, config: Config, directory: Path, pictures: Path) -> Result:
    """Fit one method to the labels of one draw, and measure its predictions of the test rows.

    A row without a prediction, such as one that label spreading does not reach, gets equal
    probabilities.
    """
    arrays, y_test = arrays_of(config)
    arguments = config["arguments"] | {"seed": config["draw"]}
    file = CODE / f"{config['peer']}.py"
    used: dict[str, str] = {}
    if config["peer"] == "scanvi":
        command = [str(path_of(SCVI)), _script("peer_process"), str(file)]
        p, seconds, used = _in_process(command, arrays, arguments)
    elif config["peer"] == EXAMPLE:
        file = _example_file()
        command = [sys.executable, _script(EXAMPLE), str(file.parent)]
        p, seconds, used = _in_process(command, arrays, arguments)
        used = {"pyro examples": _commit_of(file.parent)}
    else:
        p, seconds = timed(file, arrays, arguments)
    undecided = ~np.isfinite(p).all(1)
    p[undecided] = 1 / p.shape[1]
    return {
        "accuracy": metrics.accuracy(p, y_test),
        "log_likelihood": metrics.log_likelihood(p, y_test),
        "cpu_seconds": seconds,
        "lines": lines_of_code(file),
        "rows": len(arrays["labels"]),
        "test_rows": len(y_test),
        "undecided": int(undecided.sum()),
        "used": used,
    }


def arrays_of(config: Config) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The arrays `x`, `labels` (-1: none) and `x_test` of a run, and the classes of the test rows.

    Every method of a data set and a draw has the same rows.
    """
    x, y, x_test, y_test = _mnist() if config["data"] == "mnist" else _split(config)
    if DATA[config["data"]].counts and not PEERS[config["peer"]].sees_counts:
        x, x_test = log_normalised(x), log_normalised(x_test)
    drawn = draw_labels(y, per_class=config["labels"], seed=config["draw"])
    labels = drawn.masked_labels(torch.from_numpy(y)).numpy()
    return {"x": x, "labels": labels, "x_test": x_test}, y_test


def _split(config: Config) -> tuple[np.ndarray, ...]:
    load, draw = DATA[config["data"]].load, config["draw"]
    assert load is not None
    x, y = load(draw)
    x, x_test, y, y_test = train_test_split(
        x, y, test_size=TEST_SHARE, random_state=draw, stratify=y
    )
    return x, y, x_test, y_test


def _mnist() -> tuple[np.ndarray, ...]:
    """MNIST without the images that Pyro's example sets aside; pixels in columns."""
    mnist = data.load("mnist", data.data_root())
    x, y = mnist.x.flatten(1)[:-HELD_BACK], mnist.y[:-HELD_BACK]
    return x.numpy(), y.numpy(), mnist.x_test.flatten(1).numpy(), mnist.y_test.numpy()


def _in_process(
    command: list[str], arrays: dict[str, np.ndarray], arguments: dict[str, Any]
) -> tuple[np.ndarray, float, dict[str, str]]:
    """Run a peer in a process of its own: probabilities, CPU seconds, versions."""
    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "input.npz", Path(folder) / "output.npz"
        np.savez(source, **arrays)
        call = [*command, str(source), str(target), json.dumps(arguments)]
        environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        done = subprocess.run(call, env=environment, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        with np.load(target) as stored:
            versions = json.loads(str(stored["versions"])) if "versions" in stored else {}
            return stored["p"], float(stored["seconds"]), versions


def _script(name: str) -> str:
    return str(Path(__file__).parent / f"{name}.py")


def _example_file() -> Path:
    folder = path_of(PYRO)
    assert folder is not None  # see `unavailable`
    return folder / "ss_vae_M2.py"


def _commit_of(folder: Path) -> str:
    """Commit of a clone; empty if the folder is none."""
    head = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
    return subprocess.run(head, capture_output=True, text=True).stdout.strip()


def report(results: Results, pictures: Path) -> dict[str, str]:
    return {
        "better": better(results),
        "accuracy": measure_table(results, "accuracy", "accuracy %, mean (sd)", 100, 1),
        "log-likelihood": measure_table(
            results, "log_likelihood", "log-likelihood, nats, mean (sd)", 1, 3
        ),
        "cost": cost_table(results),
        "mnist": mnist_table(results),
        "software": software(results),
    }


def better(results: Results) -> str:
    """List the peers that are ahead of M2 with its defaults, by their means."""
    lines = [
        line
        for name in TABLES
        for peer, about in PEERS.items()
        if not about.ours and (line := _ahead(results, name, peer))
    ]
    if not lines:
        return "No peer has a mean above that of M2."
    return "\n".join(lines)


def _ahead(results: Results, name: str, peer: str) -> str:
    """The measures by which a peer is ahead of M2 on a data set; empty if there are none."""
    parts = []
    for measure, factor, unit, digits in (
        ("accuracy", 100, "points of accuracy", 1),
        ("log_likelihood", 1, "nats of log-likelihood", 3),
    ):
        gains = [factor * gain for gain in _gains(results, name, peer, measure)]
        if len(gains) > 1 and statistics.fmean(gains) > 0:
            error = statistics.stdev(gains) / len(gains) ** 0.5
            mean = statistics.fmean(gains)
            parts.append(f"{mean:.{digits}f} {unit} (standard error {error:.{digits}f})")
    if not parts:
        return ""
    return f"- {DATA[name].title}: {PEERS[peer].title}, by {' and '.join(parts)}."


def _gains(results: Results, name: str, peer: str, measure: str) -> list[float]:
    """Differences between a peer and M2 on the same draws."""
    theirs = {r["config"]["draw"]: r for r in where(results, data=name, peer=peer)}
    ours = {r["config"]["draw"]: r for r in where(results, data=name, peer="m2")}
    return [theirs[d][measure] - ours[d][measure] for d in sorted(theirs.keys() & ours.keys())]


def measure_table(results: Results, measure: str, title: str, factor: float, digits: int) -> str:
    """One row per method, one column per data set."""
    header = (title, *(f"{DATA[name].title}, {DATA[name].per_class} per class" for name in TABLES))
    draws = {name: _draws(results, name) for name in TABLES}
    rows = []
    for peer, about in PEERS.items():
        values = {name: _values(results, name, peer, measure, factor) for name in TABLES}
        if any(values.values()):
            cells = [_cell(values[name], digits, draws[name]) for name in TABLES]
            rows.append((about.title, *cells))
    return table(header, [*rows, ("draws", *map(str, draws.values()))])


def _values(results: Results, name: str, peer: str, measure: str, factor: float = 1) -> list[float]:
    return [factor * r[measure] for r in where(results, data=name, peer=peer)]


def _draws(results: Results, name: str) -> int:
    """The draws of a data set on which any method was run."""
    return len({result["config"]["draw"] for result in where(results, data=name)})


def _cell(values: Sequence[float], digits: int, draws: int) -> str:
    """Mean and standard deviation, with the number of draws where it is not the table's."""
    if not values:
        return ""
    if len(values) == draws:
        return mean_sd(values, digits)
    count = "1 draw" if len(values) == 1 else f"{len(values)} draws"
    return f"{mean_sd(values, digits)}, {count}"


def cost_table(results: Results) -> str:
    """CPU seconds of fit and prediction by data set, and lines of code."""
    rows = []
    for peer, about in PEERS.items():
        seconds = {name: _values(results, name, peer, "cpu_seconds") for name in TABLES}
        if any(seconds.values()):
            lines = _lines(where(results, peer=peer))
            cells = [f"{statistics.fmean(s):.1f}" if s else "" for s in seconds.values()]
            rows.append((about.title, *cells, lines))
    header = ("CPU seconds", *(DATA[name].title for name in TABLES), "lines of code")
    return table(header, rows)


def _lines(results: Sequence[Result]) -> str:
    return str(results[-1]["lines"])


def mnist_table(results: Results) -> str:
    """M2 and Pyro's example on MNIST, after the same number of passes."""
    rows = []
    for result in where(results, data="mnist"):
        rows.append(
            (
                PEERS[result["config"]["peer"]].title,
                f"{100 * result['accuracy']:.1f}",
                f"{result['log_likelihood']:.3f}",
                f"{result['cpu_seconds']:.0f}",
                str(result["lines"]),
            )
        )
    title = f"MNIST, {MNIST_LABELS} labels, passes over the data: {PASSES}, one draw"
    header = (title, "accuracy %", "log-likelihood", "CPU seconds", "lines of code")
    return table(header, rows)


def software(results: Results) -> str:
    """Versions of the peers that are not among the library's own dependencies."""
    texts = {
        ", ".join(f"{package} {found}" for package, found in result["used"].items())
        for result in where(results)
        if result.get("used")
    }
    return "; ".join(sorted(texts)) + "." if texts else ""


STUDY = Study(
    "peers",
    configs,
    run,
    report,
    draws=DRAWS,
    selections={
        "data": Selection("data", tuple(DATA), "data sets"),
        "peers": Selection("peer", tuple(PEERS), "methods to run"),
    },
    paths={
        SCVI: "a Python that has scvi-tools; without it scANVI is not run",
        PYRO: "the folder examples/vae of a clone of Pyro; without it its example is not run",
    },
    unavailable=unavailable,
    workers=1,
)

if __name__ == "__main__":
    main(STUDY, __doc__)

"""What the experiment scripts share: runs in parallel processes, tables, and results that say where they come from."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_ssl import data, zoo
from pyro_ssl.cli.train import versions
from pyro_ssl.evaluation import metrics, plots
from pyro_ssl.evaluation.reports import table as table  # for the scripts
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.prediction.bounds import bounds, weight_kl
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.training.fit import fit
from pyro_ssl.training.run import DivergedError, History
from pyro_ssl.utils.files import write_text

RESULTS = Path(__file__).parent / "results"
OF_CIFAR10 = 30_000
"""Training images of CIFAR-10 that a run is of, the first ones; at the `paper` scale all."""
DEVELOPMENT = 100
"""The first draw of those on which settings are sought: training images stand for the test set there, see `developing`."""


def parallel(
    function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], workers: int = 2, threads: int = 1
) -> Iterator[Any]:
    """Results as they come, each from a process of its own with as many threads: Pyro's handlers are not for threads."""
    if workers <= 1:
        torch.set_num_threads(threads)
        yield from (function(*call) for call in calls)
        return
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(threads,)
    ) as pool:
        futures = [pool.submit(function, *call) for call in calls]
        for future in as_completed(futures):
            yield future.result()


Run = Callable[[str, dict[str, Any], Path, Path], dict[str, Any]]
Results = dict[str, dict[str, Any]]


def study(
    configs: dict[str, dict[str, Any]],
    function: Run,
    given: argparse.Namespace,
    chosen: Callable[[dict[str, Any]], bool] = lambda config: True,
) -> Results:
    """Run what is missing, write each result as it comes to `out/NAME.json`, and give those that are there.

    A result is there if its file says the same `config`; options of the method that came later are at their defaults. A run
    that was killed goes on from its checkpoint, if `function` trains with `directory=` and `resume=True` under the folder that
    it is given. One whose loss is not finite has the result `diverged`, and is not tried again.

    Arguments:
        configs: By name of the run, plain data from which it follows, with all `options` of its method, see `resolved`.
        function: `function(name, config, directory, out)`, of a module, gives plain data; pictures it writes to `out`.
        given: Of the command line: out, workers, threads, report (run nothing).
        chosen: Which of the configs shall be run; the results of others are given too.
    """
    command = provenance()["command"]
    there = {name for name, config in configs.items() if _same(_read(given.out / f"{name}.json").get("config"), config)}
    missing = [n for n, config in configs.items() if n not in there and chosen(config) and not given.report]
    calls = [(function, name, configs[name], given.out / "runs" / name, given.out, command) for name in missing]
    for name, result in parallel(_one, calls, given.workers, given.threads):
        shown = {k: v for k, v in result.items() if isinstance(v, (int, float))}
        print(f"{name}: " + (", ".join(f"{k} {v:.4g}" for k, v in shown.items()) or "diverged"), flush=True)
    return {name: _read(given.out / f"{name}.json") for name in configs if name in there or name in missing}


def resolved(method: str, options: dict[str, Any]) -> dict[str, Any]:
    """All options of a method: those given, and today's defaults of the others; options that it has not are left out."""
    known = zoo.options_of(method)
    return known | {k: v for k, v in options.items() if k in known}


def _same(there: dict[str, Any] | None, config: dict[str, Any]) -> bool:
    if there and "options" in there and "method" in config:
        there = there | {"options": zoo.options_of(config["method"]) | there["options"]}
    return there is not None and _plain(there) == _plain(config)


def _one(
    function: Run, name: str, config: dict[str, Any], directory: Path, out: Path, command: str
) -> tuple[str, dict[str, Any]]:
    started, of_run = time.perf_counter(), directory / "config.json"
    if directory.exists() and not _same(_read(of_run), config):
        shutil.rmtree(directory)  # checkpoints of a run with another config
    write(of_run, config)
    try:
        result = function(name, config, directory, out)
        result["seconds"] = max(result.get("seconds", 0.0), time.perf_counter() - started)  # more, if it was resumed
    except DivergedError as error:
        result = {"diverged": str(error)}
    source = provenance() | {"command": command, "threads": torch.get_num_threads(), "config": _plain(config)}
    write(out / f"{name}.json", source | result)
    shutil.rmtree(directory, ignore_errors=True)  # its result is kept; its checkpoints are not needed any more
    return name, result


def images(config: dict[str, Any]) -> tuple[data.Dataset, Tensor]:
    """The image set of a run and codes, of which `per_class` of each class are known, or `labels` in total, as many of each, or all.

    `rows`, where it is there, cuts both parts, and `test_rows` the test images alone; without it the first 30,000 training
    images of CIFAR-10 are taken. `grey` makes colour images grey. Where the data's folder comes from, `PYRO_SSL_DATA`, is no
    part of a config.
    """
    colour = config["data"] == "cifar10"
    whole = (packed_cifar10(data.data_root()) if colour else None) or data.load(config["data"])
    rows = config.get("rows", OF_CIFAR10 if colour else None)
    if colour and rows > len(whole.x):
        raise ValueError(f"cifar10: the run is of {rows} training images, and there are {len(whole.x)}")
    test_rows = config.get("test_rows", rows)
    parts = [whole.x[:rows], whole.y[:rows], whole.x_test[:test_rows], whole.y_test[:test_rows]]
    if config.get("grey") and whole.x.shape[1] == 3:
        grey = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        parts[0], parts[2] = ((x * grey).sum(1, keepdim=True) for x in (parts[0], parts[2]))
    dataset = data.Dataset(whole.name, *parts, whole.classes)
    labels, per_class = config.get("labels"), config.get("per_class")
    if labels == "all":
        return dataset, dataset.y
    draw = data.draw_labels(dataset.y, labels, per_class=per_class, seed=config["draw"])
    return dataset, draw.codes(dataset.y)


def developing(dataset: data.Dataset, codes: Tensor) -> tuple[data.Dataset, Tensor]:
    """The training images without some, which stand for the test set; of few labels, those of the images that remain."""
    order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(0))
    kept = min(5000, len(order) // 10)
    aside, rest = order[:kept], order[kept:].sort().values
    parts = (dataset.x[rest], dataset.y[rest], dataset.x[aside], dataset.y[aside])
    return data.Dataset(dataset.name, *parts, dataset.classes), codes[rest]


@lru_cache(maxsize=1)  # to unpack it takes longer than a smoke run
def packed_cifar10(root: Path) -> data.Dataset | None:
    """CIFAR-10 where it is kept as differences of planes in .npz files, as many as there are; None where it is not."""
    files = sorted((root / "cifar10").glob("train_*.npz"))
    if not files or not (root / "cifar10" / "test.npz").exists():
        return None

    return data.from_arrays(*_unpacked(files), *_unpacked([root / "cifar10" / "test.npz"]), "cifar10")


def _unpacked(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    images, labels = [], []
    for path in paths:
        with np.load(path, allow_pickle=False) as part:
            planes = np.cumsum(np.cumsum(part["delta"], 2, dtype=np.uint8), 3, dtype=np.uint8)
            labels.append(part["labels"])
        planes[:, 0] += planes[:, 1]
        planes[:, 2] += planes[:, 1]
        images.append(planes)
    return np.concatenate(images).astype(np.float32) / 255.0, np.concatenate(labels).astype(np.int64)


def foreign_sets(names: Iterable[str], rows: int | None = None) -> dict[str, Tensor]:
    """Test images of the sets that are there, by name; `kmnist` and `notmnist` are read from their test files alone."""
    found = {}
    for name in names:
        folder = {"kmnist": "KMNIST", "notmnist": "notMNIST"}.get(name)
        if folder:
            path = data.data_root() / folder / "raw" / "t10k-images-idx3-ubyte"
            if path.exists():
                raw = np.frombuffer(path.read_bytes(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
                found[name] = torch.from_numpy(raw / np.float32(255.0))
        elif name == "cifar100" and (path := data.data_root() / "cifar100_ood" / "images.npz").exists():
            found[name] = torch.from_numpy(_unpacked([path])[0])
        else:
            found[name] = data.load(name).x_test
    return {name: x[:rows] for name, x in found.items()}


def trained(
    config: dict[str, Any],
    directory: Path | None,
    loaded: tuple[data.Dataset, Tensor] | None = None,
    objective: Objective | None = None,
    **arguments: Any,
) -> tuple[Objective, data.Dataset, Tensor, History]:
    """An image run's objective after training, which resumes what was killed; its data, codes and history.

    Arguments:
        config: Of the run.
        directory: Of its checkpoints.
        loaded: Its data and codes, if they have been loaded.
        objective: What is trained, if it is not a fresh one.
        arguments: Of `fit`.
    """
    dataset, codes = loaded or images(config)
    objective = objective or zoo.build(
        config["method"], dataset.x_shape, len(dataset.classes), seed=config["draw"], **config["options"]
    )
    history = fit(
        objective, dataset.x, codes, seed=config["draw"], directory=directory, resume=directory is not None,
        identity=_plain(config), **config["training"], **arguments,
    )  # fmt: skip
    return objective, dataset, codes, history


def measured(objective: Objective, dataset: data.Dataset, history: History) -> dict[str, float]:
    """Accuracy, log-likelihood, Brier and calibration on the test set; the entropy of predictions, and the bound.

    With random weights the bound is given W, and `weight_kl` is a datum's part of KL(W).
    """
    kl = {"weight_kl": weight_kl(objective) / len(dataset.x)} if objective.model is not None else {}
    probs = predict_proba(objective, dataset.x_test)
    bound = {} if objective.model is None else {"bound": float(bounds(objective, dataset.x_test).mean())}
    return {
        **metrics.evaluate(probs, dataset.y_test),
        "entropy": float(torch.special.entr(probs).sum(-1).mean()),
        **bound,
        **kl,
        "seconds": history["seconds"][-1],
    }


def tsne_steps(codes: int) -> int:
    """scikit-learn's 1000; of as few codes as a smoke run has the fewest that it takes."""
    return 1000 if codes > 500 else 250


def tsne(codes: Tensor, y: Tensor) -> Any:
    """Codes `(N, Z)` in the plane, one colour per class."""
    import matplotlib.pyplot as plt
    from sklearn.manifold import TSNE

    start = "pca" if codes.std(0).any() else "random"  # of codes that are all the same, as after a smoke test
    perplexity, steps = min(30, len(codes) // 4), tsne_steps(len(codes))
    embedding = TSNE(random_state=0, init=start, perplexity=perplexity, max_iter=steps)
    flat = embedding.fit_transform(codes.numpy())
    figure, ax = plt.subplots(figsize=(4, 4), layout="constrained")
    for k in y.unique().tolist():
        ax.scatter(*flat[(y == k).numpy()].T, s=4, color=plots.COLOURS[k % len(plots.COLOURS)], label=str(k))
    ax.set(xticks=[], yticks=[])
    ax.legend(frameon=False, fontsize=7, markerscale=2, ncols=2)
    return figure


def smoke_rows(per_class: int) -> dict[str, int]:
    """Of a smoke run the first images, enough that as many of each class are among them, rare ones too; and of the test set."""
    return {"rows": max(300, 20 * per_class), "test_rows": 300}


def training_of(method: str, epochs: int, **changes: Any) -> dict[str, Any]:
    """A method's own training with as many epochs."""
    return {**zoo.method(method).training, "epochs": epochs, **changes}


def side_by_side(pictures: dict[str, Path], out: Path, title: str) -> None:
    """Pictures that are there, beside each other under their names."""
    import matplotlib.pyplot as plt

    if not all(path.exists() for path in pictures.values()):
        return
    images = [plt.imread(path) for path in pictures.values()]
    height = 4.2 * max(image.shape[0] / image.shape[1] for image in images) + 0.8
    figure, axes = plt.subplots(
        1, len(pictures), figsize=(4.2 * len(pictures), height), squeeze=False, layout="constrained"
    )
    for ax, name, image in zip(axes[0], pictures, images, strict=True):
        ax.imshow(image)
        ax.set(title=name)
        ax.axis("off")
    figure.suptitle(title)
    plots.save(figure, out)


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(config))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


SLICES = set(
    "--workers --threads --draws --data --data-root --parts --rows --methods --models --noise --per-class --sizes".split()
)
"""Options that say which runs there shall be, where and by how many processes; and not what a run does."""


def sources(results: Results) -> str:
    """Where the numbers of a table come from: commands, with dates and commits, and versions; and the runs that gave none."""
    diverged = [name for name, r in results.items() if "diverged" in r]
    runs: dict[str, dict[str, dict[str, set[str]]]] = {}  # by versions, command and date, the commits
    for r in results.values():
        of = ", ".join(f"{k} {v}" for k, v in r["versions"].items())
        days = runs.setdefault(of, {}).setdefault(_whole(r["command"]), {})
        days.setdefault(r["date"], set()).add(r.get("commit") or "")
    lines = [
        "; ".join(f"`{command}` ({_days(days)})" for command, days in sorted(commands.items())) + f"; {of}"
        for of, commands in sorted(runs.items())
    ]
    for count in sorted({r.get("threads", 1) for r in results.values()} - {1}):
        lines.append(f"{count} threads had {', '.join(n for n, r in results.items() if r.get('threads') == count)}")
    said = "; ".join([*lines, f"diverged, and in no mean: {', '.join(diverged)}"] if diverged else lines)
    return said + ". Beside each run's result: its own draw, settings, command and seconds."


def _days(days: dict[str, set[str]]) -> str:
    return "; ".join(f"{day} {', '.join(sorted(commits))}".strip() for day, commits in sorted(days.items()))


def _whole(command: str) -> str:
    """A command without what made it a slice of the study."""
    parts = re.split(r" (?=--)", command)
    return " ".join(part for part in parts if part.split()[0] not in SLICES)


def where(results: Results, **wanted: Any) -> list[dict[str, Any]]:
    """The results whose config has these values, but for those that diverged, which `sources` names."""
    return [
        r for r in results.values() if "diverged" not in r and all(r["config"].get(k) == v for k, v in wanted.items())
    ]


MEASURES = ("accuracy %, mean (sd)", "worst", "draws", "log-likelihood", "ECE %", "s a run")


def measures(results: Sequence[dict[str, Any]]) -> tuple[Any, ...]:
    """The columns `MEASURES` of some runs."""
    accuracy = [100 * r["accuracy"] for r in results]
    ece, seconds = (statistics.fmean(r[k] for r in results) for k in ("ece", "seconds"))
    likelihood = mean_sd((r["log_likelihood"] for r in results), 3)
    return (
        mean_sd(accuracy), f"{min(accuracy):.2f}", len(results), likelihood, f"{100 * ece:.1f}", f"{seconds:.0f}"
    )  # fmt: skip


def mean_sd(values: Iterable[float], digits: int = 2) -> str:
    """Mean and standard deviation, if there is more than one."""
    v = list(values)
    return f"{statistics.fmean(v):.{digits}f}" + (f" ({statistics.stdev(v):.{digits}f})" if len(v) > 1 else "")


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments; the data's folder goes to the environment, where the runs' processes find it.

    Results of the scale `cpu` go to `experiments/results`, of others to the current folder's `runs`, if not told otherwise.
    """
    given = parser.parse_args()
    if given.data_root:
        os.environ["PYRO_SSL_DATA"] = str(Path(given.data_root).resolve())
    name = Path(sys.argv[0]).stem
    given.out = given.out or (RESULTS / name if given.scale == "cpu" else Path("runs") / f"{name}_{given.scale}")
    return given


def arguments(doc: str, **defaults: Any) -> argparse.ArgumentParser:
    """The options that every study has: scale, draws, data, workers, threads, out."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--scale", choices=("smoke", "cpu", "paper"), default="cpu")
    parser.add_argument("--draws", type=int, nargs="+", default=None, help="seeds of data, labels, weights and noise")
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of a worker")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--report", action="store_true", help="write table and figures of what is there; run nothing")
    parser.set_defaults(**defaults)
    return parser


def draws_of(given: argparse.Namespace, default: list[int]) -> tuple[list[int], list[int]]:
    """The draws of a table, those of earlier runs among them; and the ones to run: the scale's, or those asked for.

    A table is of draws for development, or of others, and never of both.
    """
    asked = given.draws or default
    there = (_read(path).get("config", {}).get("draw") for path in given.out.glob("*.json"))
    draws = {*default, *asked, *(draw for draw in there if draw is not None)}
    return sorted(draw for draw in draws if (draw >= DEVELOPMENT) == (max(asked) >= DEVELOPMENT)), asked


def summary(values: Iterable[float]) -> str:
    """Mean, standard deviation and worst, of numbers that are better when higher."""
    v = list(values)
    return f"{mean_sd(v)}, worst {min(v):.2f}"


def provenance() -> dict[str, Any]:
    """Command, date and versions, to stand beside every number; the folder of the data is DATA, wherever it was."""
    given = ["DATA" if before == "--data-root" else a for before, a in pairwise(sys.argv)]
    command = " ".join(["python", f"experiments/{Path(sys.argv[0]).name}", *given])
    return {"command": command, "date": time.strftime("%Y-%m-%d"), "versions": versions(), "commit": _commit()}


def _commit() -> str:
    """Of the scripts' checkout, if it is one; with a + if its code has been changed since."""

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(Path(__file__).parents[1]), *arguments], capture_output=True, text=True)

    if not shutil.which("git") or (head := git("rev-parse", "--short", "HEAD")).returncode:
        return ""
    return head.stdout.strip() + ("+" if git("diff", "--quiet", "HEAD", "--", "*.py").returncode else "")


def write(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(result, indent=1))

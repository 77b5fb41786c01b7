"""Runs of paper 000's presets, and of the earlier losses that it names, for
`variational_classification.py`: their configs and their tables.

The presets `paper-000` and `paper-000-cifar` have eq. 6 to the letter: weight 1, T linear, no
bound, no warps. Beside them stand rows with the same networks and training and a loss of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import margins
from pages import mean_sd, table
from results_table import Result, Results
from study import DEVELOPMENT, Config, of_preset, resolved

METHODS = ("ce", "gm", "vc")
PARTS = ("paper_full", "paper_low", "margins_full", "margins_low", "attacks")
DRAWS_WITH_ALL_LABELS = 3
"""Draws of a part with all labels; parts with 500 labels have those of the study."""
SMALL_EPSILONS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
"""Sizes of FGSM on CIFAR-10, where 0.02 leaves a few per cent right."""
OUR_LOSS: dict[str, dict[str, Any]] = {
    "gm": {"density": 0.1},
    "vc": {"ratio": 0.1, "density": 0.03, "bounded": True, "discriminator_inputs": "squared"},
}
OUR_LOSS_TITLES = {
    "gm": "gm, density 0.1",
    "vc": "vc, ratio 0.1, density 0.03, bounded, T of squares",
}
PAPER_TITLES = {"ce": "ce, paper", "gm": "gm, paper", "vc": "vc, paper: eq. 6"}
CIFAR_OUR_TITLES = {method: f"{method}, our settings" for method in METHODS}


@dataclass(frozen=True)
class Cut:
    """What a run has less of than the preset: options, arguments of `fit`, and rows of data."""

    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)


_TINY = {"backbone": "cnn-2", "z_dim": 4}
CUTS: dict[str, dict[str, Cut]] = {
    "smoke": {
        "full": Cut(_TINY, {"epochs": 1}, {"rows": 100, "test_rows": 60}),
        "low": Cut(
            _TINY,
            {"epochs": 1, "batch_size": 250, "labeled_batch_size": 250},
            {"rows": 800, "test_rows": 100},
        ),
        "attacks": Cut(
            {"backbone": "wrn-10-1", "z_dim": 4},
            {"epochs": 1, "batch_size": 20, "labeled_batch_size": 20, "lr": 1e-3},
            {"rows": 40, "test_rows": 20},
        ),
    },
    "cpu": {
        "full": Cut({"backbone": "cnn-16"}, {"epochs": 8}),
        "low": Cut(),
        "attacks": Cut({"backbone": "wrn-10-2", "z_dim": 128}, {"epochs": 3}),
    },
    "paper": {"full": Cut(), "low": Cut(), "attacks": Cut(data={"rows": 50_000})},
}


def configs_of_draw(draw: int, scale: str, cifar: Iterable[Config]) -> Iterator[tuple[str, Config]]:
    """Runs of one draw, by name.

    Arguments:
        draw: The draw.
        scale: Key of `CUTS`.
        cifar: Our own runs on CIFAR-10, whose settings `attacks` has beside the paper's.
    """
    few = {"part": "paper_low", "data": "mnist", "per_class": 50}
    yield from _by_preset(few, draw, CUTS[scale]["low"])
    yield from _of_comparators(few | {"part": "margins_low"}, draw, CUTS[scale]["low"])
    if draw % DEVELOPMENT >= DRAWS_WITH_ALL_LABELS:
        return
    for data in ("mnist", "fashion_mnist"):
        every = {"part": "paper_full", "data": data, "labels": "all"}
        yield from _by_preset(every, draw, CUTS[scale]["full"])
    every = {"part": "margins_full", "data": "mnist", "labels": "all"}
    yield from _of_comparators(every, draw, CUTS[scale]["full"])
    attacked = {"part": "attacks", "data": "cifar10", "labels": "all"}
    for method in METHODS:
        name = f"attacks_{method}_paper_{draw}"
        row = {"row": PAPER_TITLES[method]}
        cut = CUTS[scale]["attacks"]
        yield name, _config(attacked | row, method, draw, cut, preset="paper-000-cifar")
    for config in cifar:
        yield _attacks_of_ours(config, draw, scale)


def _attacks_of_ours(config: Config, draw: int, scale: str) -> tuple[str, Config]:
    """Name and config of a run of `attacks` with settings of ours, from that of part `cifar`."""
    method = config["method"]
    cut = CUTS[scale]["attacks"]
    changed = {"part": "attacks", "row": CIFAR_OUR_TITLES[method], "settings": "ours"}
    epochs = cut.training.get("epochs", config["training"]["epochs"])
    training = config["training"] | {"epochs": epochs}
    name = f"attacks_{method}_ours_{draw}"
    return name, config | changed | {"training": training} | cut.data


def _by_preset(config: Config, draw: int, cut: Cut) -> Iterator[tuple[str, Config]]:
    """CE, GM and VC by the preset, and GM and VC with a loss of ours."""
    name = _prefix(config)
    for method in METHODS:
        row = {"row": PAPER_TITLES[method]}
        yield f"{name}_{method}_{draw}", _config(config | row, method, draw, cut)
    for method, loss in OUR_LOSS.items():
        own = _config(config | {"row": OUR_LOSS_TITLES[method]}, method, draw, cut)
        own["settings"] = "ours"
        own["options"] = own["options"] | loss
        yield f"{name}_{method}_our_loss_{draw}", own


def _of_comparators(config: Config, draw: int, cut: Cut) -> Iterator[tuple[str, Config]]:
    """The earlier losses, with the networks and the training of the preset."""
    for name, comparator in margins.COMPARATORS.items():
        own = _config(config | {"row": comparator.title}, comparator.method, draw, cut)
        own |= {
            "settings": "ours",
            "comparator": name,
            "arguments": comparator.arguments,
            "options": resolved(comparator.method, own["options"] | comparator.options),
        }
        yield f"{_prefix(config)}_{name}_{draw}", own


def _prefix(config: Config) -> str:
    return config["part"] if "per_class" in config else f"{config['part']}_{config['data']}"


def _config(config: Config, method: str, draw: int, cut: Cut, preset: str = "paper-000") -> Config:
    settings = of_preset(method, preset, **cut.training)
    settings["options"] = settings["options"] | cut.options
    return {**config, **cut.data, "method": method, "draw": draw, **settings}


# --- tables -----------------------------------------------------------------------------------

Rows = Mapping[str, list[Result]]
"""Results by name of the row, with those that diverged."""
NOT_RUN = "Not run yet."


def rows_of(results: Results, *parts: str, **wanted: Any) -> dict[str, list[Result]]:
    """Results of some parts by row, in the order of the configs, with those that diverged."""
    rows: dict[str, list[Result]] = {}
    for result in results.values():
        config = result["config"]
        has_all = all(config.get(key) == value for key, value in wanted.items())
        if config["part"] in parts and has_all:
            rows.setdefault(config["row"], []).append(result)
    return rows


def in_order(rows: Rows, others: Rows) -> dict[str, list[Result]]:
    """Rows by method: those by the preset, then `others` of the same method."""
    together = {**rows, **others}
    return {
        name: mine
        for method in METHODS
        for name, mine in together.items()
        if mine[0]["config"]["method"] == method
    }


SHOWN_EPSILONS = (0.1, 0.2, 0.3)


def with_all_labels(title: str, rows: Rows, sets: Mapping[str, str]) -> str:
    """Accuracy, calibration, out-of-distribution detection and FGSM of a data set.

    Arguments:
        title: Title of the first column.
        rows: Runs.
        sets: Titles of out-of-distribution sets by name.
    """
    if not rows:
        return NOT_RUN
    names = ", ".join(sets.values())
    header = (
        title,
        *HEADER,
        f"AUROC of max p: {names}",
        f"AUROC of log p(z): {names}",
        f"accuracy % under FGSM up the loss, epsilon {', '.join(map(str, SHOWN_EPSILONS))}",
        *ENDS,
    )
    return table(header, [_with_all_labels(name, mine, sets) for name, mine in rows.items()])


HEADER = (
    "accuracy %, mean (sd)",
    "worst",
    "draws",
    "diverged",
    "log-likelihood",
    "ECE %, 20 bins",
    "latents from p(z|y), nats per dimension",
)
ENDS = ("epochs", "s per run")


def _with_all_labels(name: str, mine: Sequence[Result], sets: Mapping[str, str]) -> Sequence[Any]:
    ended = [r for r in mine if "diverged" not in r]
    detected = [_detected(ended, score, sets) for score in ("max p", "log p(z)")]
    return (name, *measures(mine), *detected, _attacked(ended), *_ends(mine))


def _detected(ended: Sequence[Result], score: str, sets: Iterable[str]) -> str:
    """AUROC of a score for each out-of-distribution set."""
    return ", ".join(
        _of_each((r["ood"].get(name, {}).get(score) for r in ended), "auroc") for name in sets
    )


def _attacked(ended: Sequence[Result]) -> str:
    """Accuracy under FGSM of each shown epsilon that was measured."""
    accuracies: dict[float, list[float]] = {}
    for result in ended:
        for at in result["fgsm"]:
            accuracies.setdefault(at["epsilon"], []).append(100 * at["loss"])
    shown = [mean_sd(accuracies[e]) for e in SHOWN_EPSILONS if e in accuracies]
    return ", ".join(shown) or "–"


def _of_each(scores: Iterable[Mapping[str, float] | None], measure: str) -> str:
    values = [score[measure] for score in scores if score is not None]
    return mean_sd(values, 3) if values else "–"


def with_few_labels(title: str, rows: Rows, paper: Mapping[str, str]) -> str:
    """Table 4 without warps.

    Arguments:
        title: Title of the first column.
        rows: Runs.
        paper: Published accuracies by method.
    """
    if not rows:
        return NOT_RUN
    header = (title, *HEADER, *ENDS, "paper 000: mean, s.e.")
    return table(
        header,
        [(name, *measures(mine), *_ends(mine), _paper(mine, paper)) for name, mine in rows.items()],
    )


def _paper(mine: Sequence[Result], paper: Mapping[str, str]) -> str:
    config = mine[0]["config"]
    return paper[config["method"]] if config["settings"] == "paper" else ""


def under_small_attacks(title: str, rows: Rows) -> str:
    """Figure 5 (right) in numbers: the accuracy under FGSM up the loss, as the paper has it."""
    if not rows:
        return NOT_RUN
    header = (title, "draws", "diverged", "attack", *map(str, SMALL_EPSILONS), *ENDS)
    cells: list[Sequence[Any]] = []
    for name, mine in rows.items():
        ended = [r for r in mine if "diverged" not in r]
        for attack, aim in (("up the loss", "loss"), ("the worse of both aims", "either")):
            accuracies = [
                _mean([100 * r["small_fgsm"][i][aim] for r in ended])
                for i in range(len(SMALL_EPSILONS))
            ]
            counts = (len(ended), _diverged(mine))
            cells.append((name, *counts, attack, *accuracies, *_ends(mine)))
    return table(header, cells)


def measures(mine: Sequence[Result]) -> tuple[Any, ...]:
    """The columns `HEADER`; runs that diverged count in their own column alone."""
    ended = [r for r in mine if "diverged" not in r]
    accuracy = [100 * r["accuracy"] for r in ended]
    return (
        _mean(accuracy),
        f"{min(accuracy):.2f}" if accuracy else "–",
        len(ended),
        _diverged(mine),
        _mean([r["log_likelihood"] for r in ended], 3),
        _mean([100 * r["ece_20"] for r in ended]),
        _mean([r["from_prior"] for r in ended], 3),
    )


def _diverged(mine: Sequence[Result]) -> int | str:
    """How many runs diverged; empty for rows of our settings, which hold no such runs."""
    if mine[0]["config"].get("settings", "ours") == "ours":
        return ""
    return sum("diverged" in r for r in mine)


def _mean(values: Sequence[float], digits: int = 2) -> str:
    return mean_sd(values, digits) if values else "–"


def _ends(mine: Sequence[Result]) -> tuple[Any, ...]:
    """The columns `ENDS`."""
    epochs = mine[0]["config"]["training"]["epochs"]
    return epochs, _mean([r["seconds"] for r in mine if "diverged" not in r], 0)

"""Cost of an unlabeled step of M2: this library, Pyro's own example, and bare torch.

It shows milliseconds and peak memory by number of classes, and the time of the matrix products
alone. A row of the table is one shape of network on which the variants of one comparison take turns
in one process. To time another variant, add a row to `VARIANTS` and its name to a comparison.

The comparison `compiled` is of `fit(compile=True)`; its rows for all methods are of
`compiled_methods.py`.

`python experiments/benchmark.py --help` explains every option.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from compiled_methods import (
    COMPILED,
    EAGER,
    METHOD_CLASSES,
    METHODS,
    Step,
    method_step,
    methods_table,
    training_step,
)
from pages import table, where
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from results_table import Result, Results
from study import Config, Selection, Study, main
from torch import Tensor, nn
from torch.nn import functional as F

from pyro_ssl import Batch, zoo
from pyro_ssl.evaluation import plots, style

ROWS, PIXELS, Z = 200, 784, 50
PYRO = "pyro example"
BARE = "bare torch, top_k=1"
FLOOR = "floor, top_k=1"
COMPARISONS: dict[str, tuple[str, ...]] = {
    "steps": (
        PYRO,
        "ours, all classes",
        "ours, top_k=1",
        "ours, auto",
        "ours, top_k=1, bf16",
        BARE,
    ),
    "compiled": (PYRO, EAGER, COMPILED, BARE),
}
"""Variants that take turns in one process, by name of the comparison."""
TITLES = {"steps": "", "compiled": ", compiled"}
"""What a comparison adds to the names of its tables."""
ROUNDS = {"steps": 11, "compiled": 9}
CLASSES = (10, 100, 1000)
HIDDEN = ([500], [500, 500])
WARM_UP = 2
"""Turns before those that count."""
THREADS = (1, 2)
"""Numbers of threads of the comparison `compiled`."""
COMPILED_CLASSES = (10, 1000)
FEW_REPEATS = 3
"""Steps of one turn in the comparison `compiled`."""
Clock = Callable[[], float]
MEMORY_STEPS = 3
DRAWS = {"smoke": [0], "cpu": [0]}


def configs(scale: str, draws: Sequence[int]) -> dict[str, Config]:
    if scale == "smoke":
        name, config = _row("steps", CLASSES[0], [50], 1)
        return {name: config | {"memory": False}}
    shapes = [(classes, hidden) for hidden in HIDDEN for classes in CLASSES]
    made = [_row("steps", classes, hidden, ROUNDS["steps"]) for classes, hidden in shapes]
    return dict(made) | _compiled_rows()


def _compiled_rows() -> dict[str, Config]:
    """Rows of the comparison `compiled`: M2's unlabeled step, and the step of every method."""
    rows = {}
    for threads in THREADS:
        for classes in COMPILED_CLASSES:
            name, config = _row("compiled", classes, HIDDEN[0], ROUNDS["compiled"])
            if classes >= 1000:
                config["variants"].remove(PYRO)  # a step of it takes a minute
            rows[f"{name}_{threads}"] = config | {"threads": threads}
        for data, classes in METHOD_CLASSES.items():
            for method in METHODS:
                rows[f"compiled_{data}_{method}_{threads}"] = {
                    "comparison": "compiled",
                    "method": method,
                    "data": data,
                    "method_classes": classes,
                    "rounds": ROUNDS["compiled"],
                    "threads": threads,
                }
    return rows


def _row(comparison: str, classes: int, hidden: Sequence[int], rounds: int) -> tuple[str, Config]:
    """Name and config of a row of the table."""
    config = {
        "comparison": comparison,
        "variants": list(COMPARISONS[comparison]),
        "classes": classes,
        "hidden": list(hidden),
        "rounds": rounds,
        "memory": comparison == "steps",
    }
    widths = "_".join(map(str, hidden))
    return f"{comparison}_{classes}_{widths}", config


def images(rows: int = ROWS) -> Tensor:
    return torch.rand(rows, PIXELS, generator=torch.Generator().manual_seed(0)).bernoulli(
        generator=torch.Generator().manual_seed(1)
    )


class Concatenated(nn.Module):
    """A softplus network over the concatenation of its inputs, each repeated for every class."""

    def __init__(
        self, widths: Sequence[int], outputs: Sequence[tuple[int, Callable[[Tensor], Tensor]]]
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, o in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Linear(i, o), nn.Softplus()]
        self.hidden = nn.Sequential(*layers)
        self.heads = nn.ModuleList(nn.Linear(widths[-1], width) for width, _ in outputs)
        self.links = [link for _, link in outputs]

    def forward(self, *inputs: Tensor) -> Any:
        shape = torch.broadcast_shapes(*(x.shape[:-1] for x in inputs))
        h = self.hidden(
            torch.cat([x.expand(*shape, -1) for x in inputs], -1) if len(inputs) > 1 else inputs[0]
        )
        out = [link(head(h)) for head, link in zip(self.heads, self.links, strict=True)]
        return out[0] if len(out) == 1 else out


class PyroExample(nn.Module):
    """The algorithm of Pyro's `ss_vae_M2.py`, written from its description: every class a copy of
    every datum.
    """

    def __init__(self, classes: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.classes = classes
        self.encoder_y = Concatenated([PIXELS, *hidden], [(classes, lambda a: a.softmax(-1))])
        self.encoder_z = Concatenated(
            [PIXELS + classes, *hidden], [(Z, lambda a: a), (Z, torch.exp)]
        )
        self.decoder = Concatenated([Z + classes, *hidden], [(PIXELS, torch.sigmoid)])

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        pyro.module("ss_vae", self)
        with pyro.plate("data"):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), Z), 1.0).to_event(1))
            y = pyro.sample(
                "y", dist.OneHotCategorical(x.new_ones(len(x), self.classes) / self.classes), obs=y
            )
            pyro.sample(
                "x", dist.Bernoulli(self.decoder(z, y), validate_args=False).to_event(1), obs=x
            )

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data"):
            if y is None:
                y = pyro.sample("y", dist.OneHotCategorical(self.encoder_y(x)))
            loc, scale = self.encoder_z(x, y)
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    def model_classify(self, x: Tensor, y: Tensor | None = None) -> None:
        pyro.module("ss_vae", self)
        with pyro.plate("data"):
            if y is not None:
                with pyro.poutine.scale(scale=46.0):
                    pyro.sample("y_aux", dist.OneHotCategorical(self.encoder_y(x)), obs=y)

    def guide_classify(self, x: Tensor, y: Tensor | None = None) -> None:
        """Nothing is latent."""


def pyro_example(classes: int, hidden: Sequence[int]) -> Callable[[], Any]:
    pyro.clear_param_store()
    example, adam, x = (
        PyroExample(classes, hidden),
        pyro.optim.Adam({"lr": 1e-3, "betas": (0.9, 0.999)}),
        images(),
    )
    guide = config_enumerate(example.guide, "parallel", expand=True)
    svi = SVI(example.model, guide, adam, TraceEnum_ELBO(max_plate_nesting=1))
    auxiliary = SVI(example.model_classify, example.guide_classify, adam, Trace_ELBO())

    def step() -> None:
        with pyro.validation_enabled(False):
            svi.step(x)
            auxiliary.step(
                x
            )  # its loss is 0 without labels, but the example steps it on every batch

    return step


def ours(
    classes: int,
    hidden: Sequence[int],
    top: Any = 1,
    bf16: bool = False,
    concentrated: bool = False,
    fit: bool = False,
    compile: bool = False,
) -> Callable[[], Any]:
    """The library's objective and Adam as `fit` makes it; without the norm of the gradient and the
    schedule of `fit`, unless `fit` asks for its whole step.
    """
    plain = {
        "activation": "softplus",
        "likelihood": "bernoulli",
        "noise": 0.0,
        "dropout": 0.0,
        "balance": 0.0,
    }
    objective = zoo.build("m2", PIXELS, classes, hidden=tuple(hidden), z_dim=Z, top_k=top, **plain)
    if concentrated:
        _concentrate(objective.guide.q_y.network.rest[-1])
    if fit:
        return training_step(objective, images(), None, compile)
    lr = 0.0 if concentrated else 1e-3  # on noise q(y|x) would not stay so
    adam, batch = (
        torch.optim.Adam(objective.parameters(), lr=lr, fused=True),
        Batch(x_unlabeled=images()),
    )

    def step() -> None:
        with pyro.validation_enabled(False), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = objective(batch)
        adam.zero_grad()
        loss.backward()
        adam.step()

    return step


def _concentrate(head: nn.Module) -> None:
    """Make q(y|x) nearly one-hot, as it is after an epoch or two."""
    with torch.no_grad():
        head.bias.zero_()
        head.bias[0] = 8.0 + torch.tensor(float(len(head.bias))).log()


class Bare(nn.Module):
    """The same algorithm in torch alone: first layers split, the likeliest class and one drawn, one
    noise, KL in closed form.
    """

    def __init__(self, classes: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.q_y = self._stack([PIXELS, *hidden, classes])
        self.x_to_h, self.y_to_h = (
            nn.Linear(PIXELS, hidden[0]),
            nn.Parameter(0.05 * torch.randn(classes, hidden[0])),
        )
        self.q_z = self._stack([*hidden, 2 * Z])
        self.z_to_h, self.y_to_g = (
            nn.Linear(Z, hidden[0]),
            nn.Parameter(0.05 * torch.randn(classes, hidden[0])),
        )
        self.p_x = self._stack([*hidden, PIXELS])

    @staticmethod
    def _stack(widths: Sequence[int]) -> nn.Sequential:
        layers: list[nn.Module] = [nn.Linear(widths[0], widths[1])]
        for i, o in zip(widths[1:-1], widths[2:], strict=True):
            layers += [nn.Softplus(), nn.Linear(i, o)]
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        log_q = self.q_y(x).log_softmax(-1)
        with torch.no_grad():
            best = log_q.argmax(-1, keepdim=True)
            log_pi = log_q.scatter(-1, best, -torch.inf).log_softmax(-1)
            cdf = log_pi.exp().cumsum(-1)
            drawn = torch.searchsorted(cdf, torch.rand_like(cdf[:, :1]) * cdf[:, -1:], right=True)
            correction = torch.cat(
                [torch.zeros_like(best, dtype=x.dtype), log_pi.gather(-1, drawn)], -1
            )
        index = torch.cat([best, drawn], -1)
        w = (log_q.gather(-1, index) - correction).exp().T
        loc, raw = self.q_z(F.softplus(self.x_to_h(x) + F.embedding(index.T, self.y_to_h))).chunk(
            2, -1
        )
        scale = F.softplus(raw) + 1e-3
        z = loc + scale * torch.randn_like(loc[:1])
        logits = self.p_x(F.softplus(self.z_to_h(z) + F.embedding(index.T, self.y_to_g)))
        f = -F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(
            -1
        )
        f = f - 0.5 * (loc.square() + scale.square() - 1 - 2 * scale.log()).sum(-1)
        constant = f.detach()
        value = (w.detach() * f).sum(0) + ((w - w.detach()) * (constant - constant[:1])).sum(0)
        entropy = -(log_q.exp() * log_q).sum(-1)
        return -(value + entropy).mean()


def bare(classes: int, hidden: Sequence[int]) -> Callable[[], Any]:
    network, x = Bare(classes, hidden), images()
    adam = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        loss = network(x)
        adam.zero_grad()
        loss.backward()
        adam.step()

    return step


@dataclass(frozen=True)
class Variant:
    """A way to take the step.

    Arguments:
        build: `build(classes, hidden)` gives a function that takes one step.
        sums_classes: Whether every class is evaluated, so that a step of many classes takes seconds
            and is repeated less often.
    """

    build: Callable[[int, Sequence[int]], Step]
    sums_classes: bool = False


VARIANTS: dict[str, Variant] = {
    PYRO: Variant(pyro_example, sums_classes=True),
    "ours, all classes": Variant(partial(ours, top=None), sums_classes=True),
    "ours, top_k=1": Variant(ours),
    "ours, auto": Variant(partial(ours, top="auto", concentrated=True)),
    "ours, top_k=1, bf16": Variant(partial(ours, bf16=True)),
    EAGER: Variant(partial(ours, fit=True)),
    COMPILED: Variant(partial(ours, fit=True, compile=True)),
    BARE: Variant(bare),
}
"""All variants that can be timed, one per row; `COMPARISONS` says which of them take turns."""


def run(name: str, config: Config, directory: Path, pictures: Path) -> Result:
    """Time the variants of one row, then measure the memory of each in its own process."""
    if config["comparison"] == "compiled":
        return run_compiled(config)
    classes, hidden, variants = config["classes"], config["hidden"], config["variants"]
    result = measure(classes, hidden, config["rounds"], variants)
    if config["memory"]:
        result["mb"] = {variant: peak(variant, classes, hidden) for variant in variants}
    return result


def run_compiled(config: Config) -> Result:
    """Time the variants of one row of the comparison `compiled`, on its number of threads.

    On one thread the time is that of the processor, so that other work on the machine counts less.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(config["threads"])
    clock = time.thread_time if config["threads"] == 1 else time.perf_counter
    try:
        if "method" in config:
            torch.manual_seed(0)
            steps = {
                name: method_step(config["method"], config["data"], name == COMPILED)
                for name in (EAGER, COMPILED)
            }
            return in_turn(steps, config["rounds"], lambda name: FEW_REPEATS, clock)
        shape = (config["classes"], config["hidden"])
        return measure(*shape, config["rounds"], config["variants"], FEW_REPEATS, clock)
    finally:
        torch.set_num_threads(before)


def measure(
    classes: int,
    hidden: Sequence[int],
    rounds: int,
    variants: Sequence[str],
    repeats: int = 10,
    clock: Clock = time.perf_counter,
) -> dict[str, Any]:
    """Median milliseconds of each variant; all take a turn in every round.

    Arguments:
        classes: Number of classes K.
        hidden: Hidden widths of the networks.
        rounds: Number of rounds.
        variants: Names of the variants.
        repeats: Steps of one turn, of which the median counts; one of those that take long.
        clock: Gives the time in seconds.
    """
    torch.manual_seed(0)
    steps = {name: VARIANTS[name].build(classes, hidden) for name in variants}

    def repeats_of(name: str) -> int:
        return _repeats(name, classes, repeats)

    taking_turn = partial(_taking_turn, variants, classes)
    result = in_turn(steps, rounds, repeats_of, clock, taking_turn, lambda: rate(clock))
    rates = result.pop("between")
    floor = [products(classes, hidden) / r for r in rates[WARM_UP:]]
    result["gflops"] = 2e-9 * median(rates)
    result["ms"][FLOOR] = 1e3 * median(floor)
    result["rounds"][FLOOR] = [round(1e3 * s, 3) for s in floor]
    return result


def in_turn(
    steps: dict[str, Step],
    rounds: int,
    repeats: Callable[[str], int],
    clock: Clock,
    taking_turn: Callable[[int], Iterable[str]] | None = None,
    between: Callable[[], float] | None = None,
) -> dict[str, Any]:
    """Time steps in turn; `between` is measured after each round, those of the warm-up too."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    measured = []
    for turn in range(-WARM_UP, rounds):
        names = steps if taking_turn is None else taking_turn(turn)
        for name in names:
            spent = median(timed(steps[name], clock) for _ in range(repeats(name)))
            if turn >= 0:
                seconds[name].append(spent)
        if between is not None:
            measured.append(between())
    result = _milliseconds(seconds)
    if between is not None:
        result["between"] = measured
    return result


def _milliseconds(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Medians of the variants, and the times of all rounds."""
    return {
        "ms": {name: 1e3 * median(spent) for name, spent in seconds.items()},
        "rounds": {name: [round(1e3 * s, 3) for s in spent] for name, spent in seconds.items()},
    }


def _taking_turn(variants: Iterable[str], classes: int, turn: int) -> Iterator[str]:
    """Names of the variants of a turn; with 1000 classes a sum over all of them takes but four."""
    few_turns = -1 <= turn < 3
    for name in variants:
        takes_long = classes >= 1000 and VARIANTS[name].sums_classes
        if few_turns or not takes_long:
            yield name


def _repeats(name: str, classes: int, most: int = 10) -> int:
    """Steps of one turn, of which the median counts."""
    takes_long = classes >= 100 and VARIANTS[name].sums_classes
    return 1 if takes_long else most


def timed(step: Step, clock: Clock = time.perf_counter) -> float:
    """Seconds of one step."""
    started = clock()
    step()
    return clock() - started


def products(classes: int, hidden: Sequence[int]) -> float:
    """Multiplications of a step with top_k=1: forward, and backward for weights and inputs.

    No gradient is computed for x.
    """
    inner = sum(i * o for i, o in zip(hidden[:-1], hidden[1:], strict=True))
    first = 2 * 2 * ROWS * PIXELS * hidden[0]  # of q(y|x) and q(z|x,y): forward and weights
    q_y = 3 * ROWS * (inner + hidden[-1] * classes)
    q_z = 3 * 2 * ROWS * (inner + hidden[-1] * 2 * Z)
    p_x = 3 * 2 * ROWS * (Z * hidden[0] + inner + hidden[-1] * PIXELS)
    return float(first + q_y + q_z + p_x)


def rate(clock: Clock = time.perf_counter) -> float:
    """Multiplications per second of the step's largest matrix product."""
    a, b = torch.randn(2 * ROWS, 500), torch.randn(500, PIXELS)
    seconds = [timed(lambda: a @ b, clock) for _ in range(50)]
    return 2 * ROWS * 500 * PIXELS / median(seconds)


def peak(variant: str, classes: int, hidden: Sequence[int]) -> float:
    """Peak memory of three steps beyond that of the imports, MB, in a process of its own."""
    threads = (torch.get_num_threads(),)
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, threads) as pool:
        return pool.submit(_peak, variant, classes, hidden).result()


def _peak(variant: str, classes: int, hidden: Sequence[int]) -> float:
    before = _high_water()
    step = VARIANTS[variant].build(classes, hidden)
    for _ in range(MEMORY_STEPS):
        step()
    return _high_water() - before


def _high_water() -> float:
    """Peak resident memory of this process, MB; Linux's `ru_maxrss` would be the parent's."""
    status = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def report(results: Results, pictures: Path) -> dict[str, str]:
    """Tables of each comparison, and a plot of milliseconds against classes."""
    blocks = _comparison_tables(results)
    for data in METHOD_CLASSES:
        mine = where(results, comparison="compiled", data=data)
        if mine:
            blocks[f"methods, {data}"] = methods_table(mine, ratio)
    steps = where(results, comparison="steps")
    if steps:
        plot_speed(steps, pictures / "benchmark.png")
        blocks["machine"] = _machine(steps)
    compiled = [r for r in where(results, comparison="compiled") if "gflops" in r]
    if compiled:
        blocks["machine, compiled"] = _machine(compiled)
    return {name: text for name, text in blocks.items() if text}


def _comparison_tables(results: Results) -> dict[str, str]:
    """Speed, overhead and memory of M2's step in each comparison."""
    blocks = {}
    for comparison, title in TITLES.items():
        mine = [r for r in where(results, comparison=comparison) if "method" not in r["config"]]
        if mine:
            blocks[f"speed{title}"] = _speed(mine)
            blocks[f"overhead{title}"] = _overhead(mine)
            blocks[f"memory{title}"] = _memory(mine)
    return blocks


def _machine(results: list[Result]) -> str:
    """Speed of matrix products, on each number of threads."""
    speeds = []
    for threads in sorted({r["threads"] for r in results}):
        gflops = median(r["gflops"] for r in results if r["threads"] == threads)
        on = "1 thread" if threads == 1 else f"{threads} threads"
        speeds.append(f"{gflops:.0f} GFLOP/s on {on}")
    return f"Medians of paired rounds; matrix products at {', '.join(speeds)}."


def ratio(result: Result, a: str, b: str) -> float:
    """Median over rounds of the time of variant a over that of b."""
    rounds = result["rounds"]
    return median(x / y for x, y in zip(rounds[a], rounds[b], strict=False))


def _names(results: list[Result]) -> list[str]:
    """Variants of a comparison, and the floor."""
    return [*results[0]["config"]["variants"], FLOOR]


def _columns(results: list[Result]) -> list[str]:
    return [_column(r["config"]) for r in results]


def _column(config: Config) -> str:
    threads = {1: ", 1 thread", 2: ", 2 threads"}.get(config.get("threads"), "")
    return shape(config["classes"], config["hidden"]) + threads


def shape(classes: int, hidden: Sequence[int]) -> str:
    return f"K = {classes}, {len(hidden)}x{hidden[0]}"


def _speed(results: list[Result]) -> str:
    rows = [(name, *(_time(r, name) for r in results)) for name in _names(results)]
    return table(("ms per step (speed-up over Pyro's example)", *_columns(results)), rows)


def _time(result: Result, name: str) -> str:
    if name not in result["ms"]:
        return ""
    milliseconds = f"{result['ms'][name]:.1f}"
    if name == PYRO or PYRO not in result["ms"]:
        return milliseconds
    return f"{milliseconds} ({ratio(result, PYRO, name):.1f}x)"


def _overhead(results: list[Result]) -> str:
    names = [name for name in _names(results) if name.startswith("ours")]
    rows = [(name, *(f"{ratio(r, name, BARE):.2f}" for r in results)) for name in names]
    return table((f"time relative to {BARE}", *_columns(results)), rows)


def _memory(results: list[Result]) -> str:
    if "mb" not in results[0]:
        return ""
    rows = [
        (name, *(f"{r['mb'][name]:.0f}" for r in results))
        for name in results[0]["config"]["variants"]
    ]
    return table(("peak memory, MB", *_columns(results)), rows)


MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def plot_speed(results: list[Result], path: Path) -> None:
    """Milliseconds per step against the number of classes, one panel per network."""
    import matplotlib.pyplot as plt

    networks = sorted({tuple(r["config"]["hidden"]) for r in results}, key=len)
    size = (4 * len(networks) + 1.6, 3.4)
    figure, axes = plt.subplots(1, len(networks), figsize=size, squeeze=False, sharey=True)
    for ax, hidden in zip(axes[0], networks, strict=True):
        _plot_network(ax, [r for r in results if tuple(r["config"]["hidden"]) == hidden])
        layers = "1 hidden layer" if len(hidden) == 1 else f"{len(hidden)} hidden layers"
        ax.set(title=f"{layers} of {hidden[0]}")
    axes[0][0].set(ylabel="milliseconds per step")
    style.figure_legend(figure)
    plots.save(figure, path)


def _plot_network(ax: Any, results: list[Result]) -> None:
    """One line per variant, from the fewest classes to the most."""
    classes = [r["config"]["classes"] for r in results]
    for i, name in enumerate(_names(results)):
        milliseconds = [r["ms"][name] for r in results]
        if name == FLOOR:
            line = {"color": "0.3", "linestyle": "--"}
        else:
            line = {"color": style.class_colour(i)}
        ax.plot(classes, milliseconds, marker=MARKERS[i % len(MARKERS)], ms=4, label=name, **line)
    ax.set(xscale="log", yscale="log", xlabel="numbers of classes to time")
    ax.grid(alpha=0.3)


STUDY = Study(
    "benchmark",
    configs,
    run,
    report,
    draws=DRAWS,
    selections={
        "comparison": Selection("comparison", tuple(COMPARISONS), "groups of variants to time"),
        "classes": Selection("classes", CLASSES, "numbers of classes to time"),
        "method": Selection("method", METHODS, "methods of the comparison compiled"),
        "on-threads": Selection("threads", THREADS, "threads of the comparison compiled"),
    },
    workers=1,
    threads=2,
)

if __name__ == "__main__":
    main(STUDY, __doc__)

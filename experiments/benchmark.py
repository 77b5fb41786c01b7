"""Cost of an unlabeled step of M2: this library, Pyro's own example, bare torch, and the matrix
products alone.

python experiments/benchmark.py [--classes 10 100 1000] [--rounds 15] [--threads 2]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pages import sources, table, write_page
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from results_table import Result, Results, read_results, write_results
from study import RESULTS, Files, provenance
from torch import Tensor, nn
from torch.nn import functional as F

from pyro_ssl import Batch, zoo
from pyro_ssl.evaluation import plots, style

ROWS, PIXELS, Z = 200, 784, 50
EXTRA = ("ours, top_k=1, compiled",)
BARE = "bare torch, top_k=1"
FLOOR = "floor, top_k=1"
CODES = (
    "pyro example",
    "ours, all classes",
    "ours, top_k=1",
    "ours, auto",
    "ours, top_k=1, bf16",
    "bare torch, top_k=1",
)


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
    compiled: bool = False,
) -> Callable[[], Any]:
    """The library's objective and Adam as `fit` makes it; without the norm of the gradient and the
    schedule of `fit`.
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
    if compiled:
        for conditional in (objective.guide.q_y, objective.guide.q_z, objective.model.p_x):
            conditional.network.compile(dynamic=False)
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


def make(code: str, classes: int, hidden: Sequence[int]) -> Callable[[], Any]:
    """One step of a code, as a function."""
    return {
        "pyro example": lambda: pyro_example(classes, hidden),
        "ours, all classes": lambda: ours(classes, hidden, None),
        "ours, top_k=1": lambda: ours(classes, hidden),
        "ours, auto": lambda: ours(classes, hidden, "auto", concentrated=True),
        "ours, top_k=1, bf16": lambda: ours(classes, hidden, bf16=True),
        "ours, top_k=1, compiled": lambda: ours(classes, hidden, compiled=True),
        "bare torch, top_k=1": lambda: bare(classes, hidden),
    }[code]()


def products(classes: int, hidden: Sequence[int]) -> float:
    """Multiplications of a step with top_k=1: forward, and backward for weights and, but for x,
    inputs.
    """
    inner = sum(i * o for i, o in zip(hidden[:-1], hidden[1:], strict=True))
    first = (
        2 * 2 * ROWS * PIXELS * hidden[0]
    )  # of q(y|x) and q(z|x,y), whose input wants no gradient
    q_y = 3 * ROWS * (inner + hidden[-1] * classes)
    q_z = 3 * 2 * ROWS * (inner + hidden[-1] * 2 * Z)
    p_x = 3 * 2 * ROWS * (Z * hidden[0] + inner + hidden[-1] * PIXELS)
    return float(first + q_y + q_z + p_x)


def rate() -> float:
    """Multiplications per second of the step's largest matrix product."""
    a, b = torch.randn(2 * ROWS, 500), torch.randn(500, PIXELS)
    seconds = [timed(lambda: a @ b) for _ in range(50)]
    return 2 * ROWS * 500 * PIXELS / median(seconds)


def timed(step: Callable[[], Any]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def measure(
    classes: int, hidden: Sequence[int], rounds: int, codes: Sequence[str]
) -> dict[str, Any]:
    """Median seconds of each code, taking turns."""
    torch.manual_seed(0)
    steps = {code: make(code, classes, hidden) for code in codes}
    slow = {
        code for code in codes if classes >= 100 and code in ("pyro example", "ours, all classes")
    }
    few = slow if classes >= 1000 else set()
    seconds: dict[str, list[float]] = {code: [] for code in codes}
    rates = []
    for turn in range(-2, rounds):  # two to warm up
        for code, step in steps.items():
            if code in few and not -1 <= turn < 3:
                continue
            repeats = 1 if code in slow else 10
            spent = median(timed(step) for _ in range(repeats))
            if turn >= 0:
                seconds[code].append(spent)
        rates.append(rate())
    seconds["floor, top_k=1"] = [products(classes, hidden) / r for r in rates[2:]]
    return {
        "config": {"classes": classes, "hidden": list(hidden), "rounds": rounds},
        "threads": torch.get_num_threads(),
        "ms": {code: 1e3 * median(s) for code, s in seconds.items()},
        "rounds": {code: [round(1e3 * s, 3) for s in of] for code, of in seconds.items()},
        "gflops": 2e-9 * median(rates),
    }


def ratio(result: dict[str, Any], a: str, b: str) -> float | None:
    """Median over rounds of the time of code a over that of b."""
    rounds = result["rounds"]
    if a not in rounds or b not in rounds:
        return None
    return median(x / y for x, y in zip(rounds[a], rounds[b], strict=False))


def peak(code: str, classes: int, hidden: Sequence[int]) -> float:
    """Peak memory of three steps beyond that of the imports, MB, in a process of its own."""
    command = [
        sys.executable,
        __file__,
        "--peak",
        code,
        "--classes",
        str(classes),
        "--hidden",
        *map(str, hidden),
    ]
    command += ["--threads", str(torch.get_num_threads())]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _peak(code: str, classes: int, hidden: Sequence[int]) -> None:
    before = _high_water()
    step = make(code, classes, hidden)
    for _ in range(3):
        step()
    print(_high_water() - before)


def _high_water() -> float:
    """Peak resident memory of this process, MB; Linux's `ru_maxrss` would be the parent's."""
    line = next(
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    return int(line.split()[1]) / 1024


def report(results: Results, pictures: Path) -> dict[str, str]:
    """Tables of the measured shapes, and a plot of milliseconds against classes."""
    blocks = {}
    for compiled in (False, True):
        mine = [r for r in results.values() if ("ours, top_k=1, compiled" in r["ms"]) == compiled]
        if mine:
            suffix = ", torch.compile" if compiled else ""
            blocks[f"speed{suffix}"] = _speed(mine)
            blocks[f"overhead{suffix}"] = _overhead(mine)
            blocks[f"memory{suffix}"] = _memory(mine)
            if not compiled:
                with style.context():
                    plot_speed(mine, pictures / "benchmark.png")
    gflops = median(r["gflops"] for r in results.values())
    blocks["machine"] = f"Medians of paired rounds; matrix products at {gflops:.0f} GFLOP/s."
    return {name: text for name, text in blocks.items() if text}


def _columns(results: list[Result]) -> list[str]:
    return [shape(r["config"]["classes"], r["config"]["hidden"]) for r in results]


def shape(classes: int, hidden: Sequence[int]) -> str:
    return f"K = {classes}, {len(hidden)}x{hidden[0]}"


def _codes(results: list[Result]) -> list[str]:
    return [code for code in (*CODES, *EXTRA, FLOOR) if code in results[0]["ms"]]


def _speed(results: list[Result]) -> str:
    rows = []
    for code in _codes(results):
        cells = []
        for r in results:
            times = ratio(r, "pyro example", code)
            faster = f" ({times:.1f}x)" if times and code != "pyro example" else ""
            cells.append(f"{r['ms'][code]:.1f}{faster}")
        rows.append((code, *cells))
    return table(("ms a step (times faster than Pyro's)", *_columns(results)), rows)


def _overhead(results: list[Result]) -> str:
    codes = [code for code in _codes(results) if code.startswith("ours")]
    if BARE not in results[0]["ms"]:
        return ""
    rows = [(code, *(f"{ratio(r, code, BARE):.2f}" for r in results)) for code in codes]
    return table((f"times the step of {BARE}", *_columns(results)), rows)


def _memory(results: list[Result]) -> str:
    codes = [code for code in _codes(results) if code in results[0].get("mb", ())]
    if not codes:
        return ""
    rows = [(code, *(f"{r['mb'][code]:.0f}" for r in results)) for code in codes]
    return table(("peak memory, MB", *_columns(results)), rows)


MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def plot_speed(results: list[Result], path: Path) -> None:
    """Milliseconds a step against the number of classes, one panel a network."""
    import matplotlib.pyplot as plt

    networks = sorted({tuple(r["config"]["hidden"]) for r in results})
    figure, axes = plt.subplots(
        1,
        len(networks),
        figsize=(4 * len(networks) + 1.6, 3.4),
        squeeze=False,
        layout="constrained",
    )
    for ax, hidden in zip(axes[0], networks, strict=True):
        mine = [r for r in results if tuple(r["config"]["hidden"]) == hidden]
        classes = [r["config"]["classes"] for r in mine]
        for i, code in enumerate(_codes(mine)):
            milliseconds = [r["ms"][code] for r in mine]
            line = "--" if code == FLOOR else "-"
            colour = "0.3" if code == FLOOR else style.class_colour(i)
            ax.plot(classes, milliseconds, line, marker=MARKERS[i], ms=4, color=colour, label=code)
        title = f"{len(hidden)} hidden layer{'s' if len(hidden) > 1 else ''} of {hidden[0]}"
        ax.set(
            xscale="log", yscale="log", xlabel="number of classes", ylabel="ms a step", title=title
        )
        ax.grid(alpha=0.3)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside center right")
    plots.save(figure, path)


def main() -> None:
    given = _arguments()
    torch.set_num_threads(given.threads)
    if given.peak:
        _peak(given.peak, given.classes[0], given.hidden)
        return
    files = Files(given.out, "benchmark")
    for hidden in [given.hidden] if given.hidden else [[500], [500, 500]]:
        for classes in given.classes:
            result = provenance() | measure(classes, hidden, given.rounds, given.codes)
            if not given.no_memory:
                result["mb"] = {code: peak(code, classes, hidden) for code in given.codes}
            name = shape(classes, hidden) + (", compiled" if EXTRA[0] in given.codes else "")
            write_results(files.table, read_results(files.table) | {name: result})
            print(
                f"{name}: " + ", ".join(f"{code} {ms:.1f} ms" for code, ms in result["ms"].items()),
                flush=True,
            )
    results = _in_order(read_results(files.table))
    blocks = report(results, files.pictures) | {"sources": sources(results)}
    print(write_page(files.page, "benchmark", blocks))


def _in_order(results: Results) -> Results:
    order = sorted(
        results,
        key=lambda name: (
            len(results[name]["config"]["hidden"]),
            results[name]["config"]["classes"],
        ),
    )
    return {name: results[name] for name in order}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--classes", type=int, nargs="+", default=[10, 100, 1000], help="numbers of classes"
    )
    hidden = "hidden widths of all networks; None: 500, and 500 500"
    parser.add_argument("--hidden", type=int, nargs="+", default=None, help=hidden)
    parser.add_argument(
        "--rounds", type=int, default=15, help="rounds in which all codes take turns"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument(
        "--codes", nargs="+", default=list(CODES), choices=CODES + EXTRA, help="what is timed"
    )
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="folder of table, page and picture"
    )
    parser.add_argument("--peak", choices=CODES + EXTRA, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""Densities in one and two dimensions: the supplement of paper 003, Figures 1 to 3, 6 and 7.

It shows a mixture of two Gaussians fitted by EM, variational inference in a family that lacks the
posterior, amortized inference, a change of variables, and a chain of normalizing flows.

`python experiments/densities.py --help` explains every option.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyro.distributions as dist
import torch
from pages import table, where
from results_table import Result, Results
from study import Config, Study, main
from torch import Tensor, nn

from pyro_ssl import fixed_seed
from pyro_ssl.distributions.flows import FlowDistribution
from pyro_ssl.evaluation import plots, style
from pyro_ssl.utils.context import preserve_validation

STEPS = {"smoke": 5, "cpu": 1000}
"""Steps of Adam, by scale."""
TRANSFORMS = (0, 1, 2, 4)
"""Numbers of transforms of a flow; the chain with most of them is drawn."""
SHOWN_STEPS = (0, 30, 100)
"""Steps whose q(z) is drawn, beside the last one."""
DRAWS = {"smoke": [0], "cpu": [0]}
WEIGHTS, MEANS, VARIANCES = (0.6, 0.4), (0.0, 4.0), (1.0, 2.0)
"""The mixture of Figure 1; we read N(4, 2) as mean and variance."""


def configs(scale: str, draws: Sequence[int]) -> dict[str, Config]:
    steps = STEPS[scale]
    made: dict[str, Config] = {
        "mixture": {"of": "mixture", "figure": "1", "rows": 1000, "iterations": 100},
        "variational": {"of": "variational", "figure": "2", "steps": steps},
        "amortized": {"of": "amortized", "figure": "3", "steps": steps},
        "change_of_variables": {"of": "change_of_variables", "figure": "6", "rows": 10_000},
    }
    for count in TRANSFORMS:
        made[f"flow_{count}"] = {"of": "flow", "figure": "7", "transforms": count, "steps": steps}
    return made


def run(name: str, config: Config, directory: Path, pictures: Path) -> Result:
    """Compute one figure, save its picture, and measure what it shows."""
    with fixed_seed(0):
        return PARTS[config["of"]](config, pictures)


# --- Figure 1: a mixture of two Gaussians ---------------------------------------------------------


def mixture(config: Config, pictures: Path) -> Result:
    """The density and its components; EM from draws of it, and the posterior p(z|x)."""
    truth = Mixture(torch.tensor(WEIGHTS), torch.tensor(MEANS), torch.tensor(VARIANCES))
    component = torch.multinomial(truth.weights, config["rows"], replacement=True)
    x = truth.means[component] + truth.variances[component].sqrt() * torch.randn(len(component))
    fitted = Mixture(torch.tensor([0.5, 0.5]), torch.tensor([-1.0, 1.0]), torch.ones(2))
    curve = [fitted.log_prob(x).mean().item()]
    for _ in range(config["iterations"]):
        fitted = fitted.em_step(x)
        curve.append(fitted.log_prob(x).mean().item())
    plots.save(_mixture_figure(truth, fitted, x, curve), pictures / "mixture.png")
    return {
        "weights": _rounded(fitted.weights),
        "means": _rounded(fitted.means),
        "variances": _rounded(fitted.variances),
        "log_likelihood": curve[-1],
        "log_likelihood_of_truth": truth.log_prob(x).mean().item(),
    }


class Mixture:
    """A mixture of Gaussians in one dimension, with K weights, means and variances."""

    def __init__(self, weights: Tensor, means: Tensor, variances: Tensor) -> None:
        self.weights = weights
        self.means = means
        self.variances = variances

    def joint(self, x: Tensor) -> Tensor:
        """log p(x, z), `(N, K)`."""
        of_component = dist.Normal(self.means, self.variances.sqrt())
        return self.weights.log() + of_component.log_prob(x.unsqueeze(-1))

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), `(N,)`."""
        return self.joint(x).logsumexp(-1)

    def posterior(self, x: Tensor) -> Tensor:
        """p(z|x), `(N, K)`."""
        return self.joint(x).softmax(-1)

    def em_step(self, x: Tensor) -> Mixture:
        """The maximiser of E[log p(x, z)] under the posterior of this mixture."""
        share = self.posterior(x)
        count = share.sum(0)
        means = (share * x.unsqueeze(-1)).sum(0) / count
        variances = (share * (x.unsqueeze(-1) - means).square()).sum(0) / count
        return Mixture(count / len(x), means, variances)


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 3) for value in values.tolist()]


def _mixture_figure(truth: Mixture, fitted: Mixture, x: Tensor, curve: list[float]) -> Any:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(10.5, 2.8))
    grid = torch.linspace(-4, 9, 400)
    axes[0].plot(grid, truth.log_prob(grid).exp(), color="0.2", label="p(x)")
    for k, density in enumerate(truth.joint(grid).exp().T):
        label = f"{WEIGHTS[k]:g} N({MEANS[k]:g}, {VARIANCES[k]:g})"
        axes[0].plot(grid, density, color=style.class_colour(k), label=label)
    fit = fitted.log_prob(grid).exp()
    axes[0].plot(grid, fit, label="fitted by EM", color=style.COLOURS[2], linestyle="--")
    axes[0].set(xlabel="x", ylabel="density", title="mixture, and its fit by EM")
    for k, share in enumerate(fitted.posterior(grid).T):
        axes[1].plot(grid, share, color=style.class_colour(k))
    axes[1].set(xlabel="x", ylabel="p(z|x)", title="posterior of the component")
    axes[2].plot(range(1, len(curve)), curve[1:], color=style.COLOURS[2])
    axes[2].axhline(truth.log_prob(x).mean(), label="log p(x) of the truth", **style.GUIDE_LINE)
    axes[2].set(xlabel="iteration (from 1)", ylabel="log p(x), nats per datum", title="EM")
    style.figure_legend(figure)
    return figure


# --- Figures 2 and 3: variational and amortized inference -----------------------------------------

GRID = torch.linspace(-5, 5, 801)
"""Values of z; integrals over z are sums over them."""
NOISE = 0.5


def log_joint(x: Tensor, z: Tensor, mean: Callable[[Tensor], Tensor]) -> Tensor:
    """log p(x, z) with z ~ N(0, 1) and x ~ N(mean(z), NOISE^2), of shape `(*x, *z)`."""
    likelihood = dist.Normal(mean(z), NOISE).log_prob(x.unsqueeze(-1))
    return dist.Normal(0.0, 1.0).log_prob(z) + likelihood


def log_posterior(joint: Tensor) -> Tensor:
    """log p(z|x) on the grid."""
    return joint - joint.logsumexp(-1, keepdim=True) - math.log(GRID[1] - GRID[0])


def kl(loc: Tensor, log_scale: Tensor, log_p: Tensor) -> Tensor:
    """KL(q || p) of Gaussians q `(*,)` from densities p on the grid, `(*, len(GRID))`."""
    log_q = dist.Normal(loc.unsqueeze(-1), log_scale.exp().unsqueeze(-1)).log_prob(GRID)
    return (log_q.exp() * (log_q - log_p)).sum(-1) * (GRID[1] - GRID[0])


def minimised(loss: Callable[[], Tensor], parameters: Sequence[Tensor], steps: int) -> list[float]:
    """Minimise a loss by Adam; its value before each step."""
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    values = []
    for _ in range(steps):
        value = loss()
        values.append(value.item())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return values


def variational(config: Config, pictures: Path) -> Result:
    """A posterior with two modes, and the Gaussian q(z) on its way to the nearest one."""
    log_p = log_posterior(log_joint(torch.tensor(1.5), GRID, torch.square))
    loc, log_scale = (torch.tensor(start, requires_grad=True) for start in (0.3, -0.7))
    path = []

    def loss() -> Tensor:
        path.append((loc.item(), log_scale.item()))
        return kl(loc, log_scale, log_p)

    curve = minimised(loss, [loc, log_scale], config["steps"])
    plots.save(_variational_figure(log_p, path, curve), pictures / "variational.png")
    return {"kl": curve[-1], "kl_at_start": curve[0]}


def _variational_figure(
    log_p: Tensor, path: Sequence[tuple[float, float]], curve: Sequence[float]
) -> Any:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 2.8))
    axes[0].fill_between(GRID, log_p.exp(), color="0.8", label="p(z|x)", linewidth=0)
    steps = [step for step in SHOWN_STEPS if step < len(path) - 1] + [len(path) - 1]
    for colour, step in zip(style.COLOURS, steps, strict=False):
        loc, log_scale = path[step]
        density = dist.Normal(loc, math.exp(log_scale)).log_prob(GRID).exp()
        axes[0].plot(GRID, density, color=colour, label=f"q(z), step {step}")
        axes[1].plot(step, curve[step], "o", color=colour)
    axes[0].set(xlabel="z", ylabel="density", xlim=(-3, 3), title="Gaussians near the posterior")
    axes[1].plot(curve, color="0.4", zorder=0)
    axes[1].set(xlabel="step", ylabel="KL(q(z) || p(z|x)), nats", title="objective")
    style.figure_legend(figure)
    return figure


def amortized(config: Config, pictures: Path) -> Result:
    """KL by x, for a q of its own for each x, and for q whose parameters are functions of x."""
    x = torch.linspace(-2.5, 2.5, 41)
    log_p = log_posterior(log_joint(x, GRID, lambda z: torch.tanh(2 * z) + 0.5 * z))
    own = torch.zeros(len(x), 2, requires_grad=True)
    families: dict[str, tuple[Callable[[], Tensor], Sequence[Tensor]]] = {
        "one q for each x": (lambda: own, [own])
    }
    networks = {
        "f linear": nn.Linear(1, 2),
        "f with 20 hidden units": nn.Sequential(nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 2)),
    }
    for name, network in networks.items():
        families[name] = (lambda f=network: f(x.unsqueeze(-1)), list(network.parameters()))
    curves = {}
    for name, (parameters_of_q, trainable) in families.items():

        def each(parameters_of_q: Any = parameters_of_q) -> Tensor:
            loc, log_scale = parameters_of_q().unbind(-1)
            return kl(loc, log_scale, log_p)

        minimised(lambda each=each: each().mean(), trainable, config["steps"])
        curves[name] = each().detach()
    plots.save(_amortized_figure(x, curves), pictures / "amortized.png")
    return {"kl_by_family": {name: curve.mean().item() for name, curve in curves.items()}}


def _amortized_figure(x: Tensor, curves: dict[str, Tensor]) -> Any:
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(5.2, 2.8))
    lines = ("-", "-", "--")  # the last one lies on the first
    for colour, line, (name, curve) in zip(style.COLOURS, lines, curves.items(), strict=False):
        ax.plot(x, curve, line, color=colour, label=name)
    ax.set(xlabel="x", ylabel="KL(q(z|x) || p(z|x)), nats", ylim=0)
    style.legend_beside(ax)
    return figure


# --- Figures 6 and 7: change of variables ---------------------------------------------------------


def change_of_variables(config: Config, pictures: Path) -> Result:
    """U(0, 1) before and after f(x) = 2x + 1: densities, and histograms of draws."""
    base = dist.Uniform(0.0, 1.0)
    image = dist.TransformedDistribution(base, [dist.transforms.AffineTransform(1.0, 2.0)])
    expected = dist.Uniform(1.0, 3.0)
    inside = torch.linspace(1.001, 2.999, 101)
    error = (image.log_prob(inside).exp() - expected.log_prob(inside).exp()).abs().max()
    draws = base.sample(torch.Size([config["rows"]]))
    plots.save(_change_figure(draws), pictures / "change_of_variables.png")
    return {"largest_error": error.item()}


def _change_figure(x: Tensor) -> Any:
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(5.2, 2.6))
    edges = [0.1 * i for i in range(36)]
    shown = {"x": (x, (0, 1), 1.0), "y = 2x + 1": (2 * x + 1, (1, 3), 0.5)}
    for colour, (name, (values, ends, height)) in zip(
        (style.COLOURS[1], style.COLOURS[0]), shown.items(), strict=True
    ):
        ax.hist(values.numpy(), bins=edges, density=True, color=colour, alpha=0.35)
        corners = [ends[0], ends[0], ends[1], ends[1]]
        ax.plot(corners, [0, height, height, 0], color=colour, label=f"density of {name}")
    ax.set(xlabel="value", ylabel="density", xlim=(-0.2, 3.4))
    style.legend_beside(ax)
    return figure


def target() -> Any:
    """A density in the plane with three modes."""
    angles = torch.arange(3) * 2 * math.pi / 3 + math.pi / 2
    means = 1.5 * torch.stack([angles.cos(), angles.sin()], -1)
    parts = dist.Normal(means, 0.6).to_event(1)
    return dist.MixtureSameFamily(dist.Categorical(torch.ones(3)), parts)


def flow(config: Config, pictures: Path) -> Result:
    """Fit a chain of transforms of N(0, I) by the reverse KL, as a bound does; draw its steps."""
    with preserve_validation():  # importing zuko turns validation off for the whole process
        import zuko

    count = config["transforms"]
    base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    loc, log_scale = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    parameters = [loc, log_scale]
    transforms: list[Any] = []
    if count:
        composed = zuko.flows.MAF(2, transforms=count, hidden_features=(32, 32)).transform
        parameters += composed.parameters()
        transforms += composed.transforms
    p = target()

    def q(last: int) -> Any:
        """The chain, stopped after some of its transforms."""
        chain: Any = dist.Normal(loc, log_scale.exp()).to_event(1)
        for transform in transforms[:last]:
            chain = FlowDistribution(chain, transform())
        return chain

    def loss() -> Tensor:
        chain = q(count)
        z = chain.rsample(torch.Size([256]))
        return (chain.log_prob(z) - p.log_prob(z)).mean()

    minimised(loss, parameters, config["steps"])
    with torch.no_grad():
        chain = q(count)
        z = chain.rsample(torch.Size([20_000]))
        divergence = (chain.log_prob(z) - p.log_prob(z)).mean().item()
        if count == TRANSFORMS[-1]:
            steps = [base.sample(torch.Size([20_000]))]
            steps += [q(i).rsample(torch.Size([20_000])) for i in range(count + 1)]
            plots.save(_flow_figure(steps, p), pictures / "flow.png")
    return {"kl": divergence}


def _flow_figure(steps: Sequence[Tensor], p: Any) -> Any:
    import matplotlib.pyplot as plt

    titles = ["N(0, I)", "after an affine map"]
    titles += [f"after {i} of {len(steps) - 2} transforms" for i in range(1, len(steps) - 1)]
    figure, axes = plt.subplots(1, len(steps) + 1, figsize=(2 * (len(steps) + 1), 2.3), sharey=True)
    window = [[-4.0, 4.0], [-4.0, 4.0]]
    for ax, z, title in zip(axes, steps, titles, strict=False):
        ax.hist2d(*z.T.numpy(), bins=80, range=window)
        ax.set(title=title, xlabel="$z_1$", aspect="equal")
    line = torch.linspace(-4, 4, 80)
    grid = torch.cartesian_prod(line, line)
    density = p.log_prob(grid).exp().reshape(80, 80).T
    axes[-1].imshow(density.numpy(), origin="lower", extent=(-4, 4, -4, 4))
    axes[-1].set(title="target", xlabel="$z_1$")
    axes[0].set(ylabel="$z_2$")
    return figure


PARTS: dict[str, Callable[[Config, Path], Result]] = {
    "mixture": mixture,
    "variational": variational,
    "amortized": amortized,
    "change_of_variables": change_of_variables,
    "flow": flow,
}


# --- the page -------------------------------------------------------------------------------------


def report(results: Results, pictures: Path) -> dict[str, str]:
    return {
        "mixture": _mixture_table(results),
        "divergences": table(("figure", "q", "KL, nats"), list(_divergences(results))),
    }


def _mixture_table(results: Results) -> str:
    rows: list[tuple[Any, ...]] = [("true", *map(_listed, (WEIGHTS, MEANS, VARIANCES)), "")]
    for r in where(results, of="mixture"):
        rows[0] = (*rows[0][:4], f"{r['log_likelihood_of_truth']:.4f}")
        fitted = map(_listed, (r["weights"], r["means"], r["variances"]))
        rows.append(("EM", *fitted, f"{r['log_likelihood']:.4f}"))
    header = ("parameters", "weights", "means", "variances", "log-likelihood of the draws, nats")
    return table(header, rows)


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _divergences(results: Results) -> Any:
    for r in where(results, of="variational"):
        yield "2", "Gaussian, at the start", f"{r['kl_at_start']:.3f}"
        yield "2", "Gaussian, fitted", f"{r['kl']:.3f}"
    for r in where(results, of="amortized"):
        for name, value in r["kl_by_family"].items():
            yield "3", name, f"{value:.4f}"
    for count in TRANSFORMS:
        for r in where(results, of="flow", transforms=count):
            yield "7", _chain_name(count), f"{r['kl']:.3f}"


def _chain_name(count: int) -> str:
    if count == 0:
        return "Gaussian alone"
    return f"Gaussian and {count} transform{'s' if count > 1 else ''}"


STUDY = Study("densities", configs, run, report, draws=DRAWS, workers=1)

if __name__ == "__main__":
    main(STUDY, __doc__)

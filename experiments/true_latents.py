"""Are the true latents found? Paper 000, section 3.3, on data that the variational classifier's own
model has made.

The paper says that with p(z|y) of the form of the true one, "variational classification effectively
aims to invert h and learn the parameters of the true generative model", up to equivalences, and
that "the learned latent variables may reflect true latent variables". It has no experiment on it.
Here y ~ p(y), z ~ N(mu_y, diag sigma_y^2) and x = h(z), with a fixed random one-to-one network h.

Equivalences: models with the same p(x|y) for all y have the same log p(x|y) - log p(x|y'). With one
variance for all classes these are linear in z, so z is known up to an affine map, if the means span
the space. With variances of each class they are linear in z and z^2, so z is known up to order and
scale, if there are 2 Z + 1 classes or more. The same log-ratios follow from p(y|x) alone.

`python experiments/true_latents.py --help` explains every option.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import variational_presets as presets
from image_runs import trained
from pages import mean_sd, table, where
from results_table import Result, Results
from scipy.optimize import linear_sum_assignment
from study import Config, Selection, Study, main, of_preset, resolved
from torch import Tensor
from torch.distributions import Categorical, MultivariateNormal, Normal, kl_divergence

from pyro_ssl import Dataset, data, predict_proba
from pyro_ssl.evaluation import ood

TRUTHS = ("one variance", "own variances")
"""Whether all classes have the same variance."""
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "ce": ("ce", {}),
    "gm, paper": ("gm", {}),
    "gm, density 0.1": ("gm", {"density": 0.1}),
    "vc, paper: eq. 6": ("vc", {}),
    "vc, weight 1, bounded, T of squares": (
        "vc",
        {"bounded": True, "discriminator_inputs": "squared"},
    ),
    presets.OUR_LOSS_TITLES["vc"]: ("vc", presets.OUR_LOSS["vc"]),
}
"""Method and changes of the preset, by row."""
CLASSES = 10
Z_DIM = 4
X_DIM = 8
SPREAD = 1.5
"""Standard deviation of the true means; the classes overlap."""
LEAK = 0.2
LAYERS = 3
TRAINING = {"batch_size": 500, "labeled_batch_size": 500, "lr": 3e-3, "schedule": "one_cycle"}
"""The paper states none."""


@dataclass(frozen=True)
class Scale:
    rows: int
    test_rows: int
    epochs: int
    hidden: tuple[int, ...]


SCALES = {
    "smoke": Scale(1000, 200, 1, (8,)),
    "cpu": Scale(50_000, 10_000, 25, (128, 128)),
}
DRAWS = {"smoke": [0], "cpu": [0, 1, 2]}


def configs(scale: str, draws: Sequence[int]) -> dict[str, Config]:
    return {name: config for draw in draws for name, config in _of_draw(draw, scale)}


def _of_draw(draw: int, scale: str) -> Iterator[tuple[str, Config]]:
    size = SCALES[scale]
    for truth in TRUTHS:
        for i, (row, (method, changes)) in enumerate(ROWS.items()):
            settings = of_preset(method, "paper-000", **TRAINING, epochs=size.epochs)
            known = {
                "z_dim": Z_DIM,
                "backbone": None,
                "hidden": size.hidden,
                "shared_variance": truth == "one variance",  # the form of the true p(z|y)
            }
            yield (
                f"{method}_{i}_{truth.split()[0]}_{draw}",
                {
                    "truth": truth,
                    "row": row,
                    "method": method,
                    "draw": draw,
                    "rows": size.rows,
                    "test_rows": size.test_rows,
                    **settings,
                    "options": resolved(method, settings["options"] | known | changes),
                },
            )


# --- the true model -----------------------------------------------------------------------------


class Mixing:
    """A random network h: R^Z -> R^X that is one-to-one, and its inverse on its image.

    Z columns of a rotation, then leaky rectifiers between rotations of R^X.

    >>> h = Mixing(2, 5, torch.Generator().manual_seed(0))
    >>> z = torch.randn(3, 2, dtype=torch.float64)
    >>> bool(torch.allclose(h.inverse(h(z)), z))
    True
    """

    def __init__(self, z_dim: int, x_dim: int, generator: torch.Generator) -> None:
        self.lift = _rotation(x_dim, generator)[:, :z_dim]
        self.layers = [_rotation(x_dim, generator) for _ in range(LAYERS)]

    def __call__(self, z: Tensor) -> Tensor:
        x = z @ self.lift.T
        for rotation in self.layers:
            x = torch.nn.functional.leaky_relu(x, LEAK) @ rotation.T
        return x

    def inverse(self, x: Tensor) -> Tensor:
        for rotation in reversed(self.layers):
            x = torch.nn.functional.leaky_relu(x @ rotation, 1 / LEAK)
        return x @ self.lift


def _rotation(size: int, generator: torch.Generator) -> Tensor:
    square = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(square).Q


class Truth:
    """The true p(y), p(z|y) and h of a draw.

    Arguments:
        shared: One variance for all classes.
        seed: Seed of the model.
    """

    def __init__(self, shared: bool, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.p_y = Categorical(logits=0.3 * self._normal(CLASSES))
        self.loc = SPREAD * self._normal(CLASSES, Z_DIM)
        scale = (0.4 * self._normal(1 if shared else CLASSES, Z_DIM)).exp()
        self.scale = scale.expand(CLASSES, Z_DIM)
        self.h = Mixing(Z_DIM, X_DIM, self.generator)

    def sample(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Classes `(N,)`, latents `(N, Z)` and data `(N, X)`."""
        y = torch.multinomial(self.p_y.probs, count, replacement=True, generator=self.generator)
        z = self.loc[y] + self.scale[y] * self._normal(count, Z_DIM)
        return y, z, self.h(z)

    def posterior(self, z: Tensor) -> Categorical:
        """p(y|x) of x = h(z)."""
        log_p = Normal(self.loc, self.scale).log_prob(z.unsqueeze(-2)).sum(-1)
        return Categorical(logits=self.p_y.logits + log_p)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)


# --- a run --------------------------------------------------------------------------------------


def run(name: str, config: Config, directory: Path, pictures: Path) -> Result:
    """Train on data of the true model, and compare latents and parameters with the true ones."""
    truth = Truth(config["truth"] == "one variance", config["draw"])
    y, _, x = truth.sample(config["rows"])
    y_test, z_test, x_test = truth.sample(config["test_rows"])
    parts = (x.float().numpy(), y.numpy(), x_test.float().numpy(), y_test.numpy())
    dataset: Dataset = data.from_arrays(*parts, "true_latents")
    objective, _, _, history = trained(config, directory, (dataset, dataset.y))
    probs = predict_proba(objective, dataset.x_test).double().clamp_min(1e-30)
    posterior = truth.posterior(z_test)
    found = ood.features(objective, dataset.x_test)
    assert found is not None
    result: Result = {
        "seconds": history["seconds"][-1],
        "accuracy": float((probs.argmax(-1) == y_test).double().mean()),
        "best_accuracy": float((posterior.probs.argmax(-1) == y_test).double().mean()),
        "kl_of_classes": float(kl_divergence(posterior, Categorical(probs)).mean()),
        "explained_by_x": explained(x_test, z_test, y_test),
    }
    return result | compared(objective.model.p_z, found.double(), z_test, y_test, truth)


def compared(p_z: Any, found: Tensor, z: Tensor, y: Tensor, truth: Truth) -> Result:
    """Compare the latents that were found with the true ones, and p(z|y) with the true one.

    Arguments:
        p_z: The learned p(z|y).
        found: Latents `(N, Z)`.
        z: The true ones.
        y: Classes `(N,)`.
        truth: The true model.
    """
    weights = affine(found, z)
    matrix, shift = weights[:-1], weights[-1]
    scale = p_z.scale.detach().double().expand(CLASSES, -1)
    own = matrix.T @ torch.diag_embed(scale.square()) @ matrix
    mapped = MultivariateNormal(p_z.loc.detach().double() @ matrix + shift, own)
    true = MultivariateNormal(truth.loc, torch.diag_embed(truth.scale.square()))
    return {
        "explained": explained(found, z, y),
        "explained_within": explained(within(found, y), within(z, y), y),
        "correlation": correlation(found, z, y),
        "kl_of_latents": float(kl_divergence(true, mapped).mean()) / Z_DIM,
    }


def affine(inputs: Tensor, outputs: Tensor) -> Tensor:
    """The least-squares affine map, `(D + 1, Z)` with the shift in the last row."""
    ones = torch.ones(len(inputs), 1, dtype=inputs.dtype)
    return torch.linalg.lstsq(torch.cat([inputs, ones], 1), outputs, driver="gelsd").solution


def explained(inputs: Tensor, z: Tensor, y: Tensor) -> float:
    """Share of the variance of z within its class that an affine map of the inputs explains.

    The map is fitted on the first half of the rows and judged on the second. The true latents have
    1. The means of the classes have 0, and latents that are curved can have less: the map fits the
    distances of the classes, too.
    """
    half = len(z) // 2
    weights = affine(inputs[:half], z[:half])
    left = z[half:] - (inputs[half:] @ weights[:-1] + weights[-1])
    return 1 - float(left.square().sum() / within(z, y)[half:].square().sum())


def correlation(found: Tensor, z: Tensor, y: Tensor) -> float:
    """Mean absolute correlation within classes of each true latent with a found one of its own.

    The pairs are those with the highest mean, so order, sign and scale do not count.
    """
    a = torch.nn.functional.normalize(within(found, y), dim=0)
    b = torch.nn.functional.normalize(within(z, y), dim=0)
    each = (a.T @ b).abs()
    pairs = linear_sum_assignment(each.numpy(), maximize=True)
    return float(each[pairs].mean())


def within(z: Tensor, y: Tensor) -> Tensor:
    """Latents less the mean of their class."""
    member = torch.nn.functional.one_hot(y).to(z)
    means = member.T @ z / member.sum(0).clamp_min(1).unsqueeze(-1)
    return z - means[y]


# --- the table ----------------------------------------------------------------------------------


def report(results: Results, pictures: Path) -> dict[str, str]:
    return {truth: latents(results, truth) for truth in TRUTHS}


def latents(results: Results, truth: str) -> str:
    """How well each method finds the true latents and their model."""
    header = (
        f"truth: {truth}",
        "draws",
        "diverged",
        "variance of z within classes that an affine map explains",
        "with a shift for each class",
        "correlation within classes, by pairs",
        "KL(true p(z|y), learned), after the map, nats per dimension",
        "KL(true p(y|x), learned), nats",
        "accuracy %",
        "s per run",
    )
    rows: list[Sequence[Any]] = []
    for row in ROWS:
        everything = [
            r
            for r in results.values()
            if (r["config"]["truth"], r["config"]["row"]) == (truth, row)
        ]
        mine = where(results, truth=truth, row=row)
        if mine:
            rows.append((row, len(mine), len(everything) - len(mine), *_cells(mine)))
        elif everything:
            rows.append((row, 0, len(everything), *["–"] * 7))
    ended = where(results, truth=truth)
    if ended:
        by_draw = {r["config"]["draw"]: r for r in ended}
        rows.append(("x itself, or Bayes' rule", *_references(list(by_draw.values()))))
    return table(header, rows)


def _cells(mine: Sequence[Result]) -> tuple[str, ...]:
    columns = ("explained", "explained_within", "correlation", "kl_of_latents", "kl_of_classes")
    return (
        *(mean_sd((r[column] for r in mine), 3) for column in columns),
        mean_sd(100 * r["accuracy"] for r in mine),
        mean_sd((r["seconds"] for r in mine), 0),
    )


def _references(mine: Sequence[Result]) -> tuple[Any, ...]:
    """An affine map of x, and the accuracy of the true p(y|x)."""
    by_x = mean_sd((r["explained_by_x"] for r in mine), 3)
    best = mean_sd(100 * r["best_accuracy"] for r in mine)
    return len(mine), "", by_x, "", "", "", "0", best, ""


STUDY = Study(
    "true_latents",
    configs,
    run,
    report,
    draws=DRAWS,
    selections={
        "truths": Selection("truth", TRUTHS, "true models"),
        "methods": Selection("method", ("ce", "gm", "vc"), "methods to run"),
    },
)

if __name__ == "__main__":
    main(STUDY, __doc__)

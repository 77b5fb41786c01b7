"""What each process of a run does in the tests, and what one process does for comparison.

Run by torchrun: `distributed_programs.py DIRECTORY`. One of the two processes is killed, torchrun
starts both anew, and the first one saves what it has found.
"""

import os
import signal
import sys
import warnings
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import nn

from pyro_ssl import EarlyStopping, Objective, fit, zoo
from pyro_ssl.data.missing_labels import LabelWarning
from pyro_ssl.objectives.terms import Term
from pyro_ssl.training.distributed import Processes

SHAPE = (1, 8, 8)
K = 3
X = torch.rand(61, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.where(torch.arange(61) < 23, torch.arange(61) % K, -1)

SMALL = {"hidden": (9,), "z_dim": 2, "a_dim": 2, "z_dims": (3, 2), "z_y_dim": 2, "draws": 3}
SMALL |= {"gibbs_steps": 2, "z1_dim": 3, "m1_hidden": (9,), "m1_epochs": 1}
REGULARISED = {
    "batch_norm": True,
    "l2": 0.1,
    "entropy": 0.1,
    "mutual_information": 0.1,
    "consistency": 0.1,
    "noise": 0.1,
    "dropout": 0.2,
}
FURTHER = {
    "all classes": ("m2", {"top_k": None}),
    "one class": ("m2", {"top_k": 1}),
    "random weights": ("m2", {"bayesian": ("p_x",), "local_reparameterisation": True}),
    "one draw of weights": ("sslapd", {"local_reparameterisation": False, "batch_norm": True}),
    "shared random weights": ("latent_classifier", {"bayesian": ("p_y",)}),
    "flow, vamp": ("m2", {"prior": "vamp", "class_prior": True, "pseudo_inputs": 3, "flow": 1}),
    "mixture": ("sslpe", {"mixture": True}),
    "samples": ("adgm", {"num_particles": 2, "dropout": 0.2}),
    "importance weighted": ("m2", {"num_particles": 2, "importance_weighted": True}),
    "convolutions": ("m2", {"network": "conv", "batch_norm": True, "noise": 0.1}),
    "augmentation": ("m2", {"classifier_network": "conv", "warp": 0.1, "crop": 1, "flip": True}),
    "backbone": ("classifier", {"backbone": "wrn-10-1", "dropout": 0.3}),
    "weights by size": ("m2", {"labeled_weight": None}),
}
FITTED = {
    "Adam, average": ("m2", {"noise": 0.1, "dropout": 0.2}, {"optimizer": torch.optim.Adam}),
    "pixels, clipped": (
        "m2",
        {"likelihood": "bernoulli"},
        {"transform": torch.bernoulli, "clip_norm": 1.0},
    ),
    "few rows": ("m2", {}, {"batch_size": 3, "labeled_batch_size": 2}),
}
CASES = {name: (name, REGULARISED, {}) for name in zoo.METHODS}
CASES |= {name: (*case, {}) for name, case in FURTHER.items()} | FITTED


class OwnModel(PyroModule):
    """A user's pair with a latent that all data share, and with layers that are not ours."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 4))

    def forward(self, x, y=None):
        bias = pyro.sample("bias", dist.Normal(torch.zeros(3).to(x), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3).to(x), 1.0).to_event(1))
            mean = (z + bias).sum(-1, keepdim=True).expand(len(x), 64)
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x.flatten(1))


class OwnGuide(OwnModel):
    def __init__(self) -> None:
        super().__init__()
        self.bias_loc = nn.Parameter(torch.zeros(3))
        self.dropout = nn.Dropout(0.5)

    def classify(self, x):
        return dist.OneHotCategorical(logits=self.network(x)[..., :K])

    def forward(self, x, y=None):
        pyro.sample("bias", dist.Normal(self.bias_loc, 0.1).to_event(1))
        with pyro.plate("data", len(x)):
            loc = self.dropout(self.network(x))[..., :3]
            pyro.sample("z", dist.Normal(loc, 0.5).to_event(1))


class OwnTerm(Term):
    needs = "unlabeled"

    def formula(self, context):
        return context.q_unlabeled.mean.mean(0).square().sum()


def own() -> Objective:
    torch.manual_seed(0)
    return Objective(OwnModel(), OwnGuide()).double()


def objective_of(method: str, options: dict) -> Objective:
    known = zoo.options_of(method)
    options = {name: value for name, value in (SMALL | options).items() if name in known}
    return zoo.build(method, SHAPE, K, **options).double()


def trained(objective: Objective, **arguments) -> dict[str, torch.Tensor]:
    """Weights and history of a short training, by name."""
    settings = {"epochs": 1, "batch_size": 13, "labeled_batch_size": 7, "ema": 0.9, "seed": 3}
    # with Adam, gradients that are 0 but for rounding would become steps
    settings |= {"optimizer": torch.optim.SGD, "lr": 1e-2}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LabelWarning)
        history = fit(objective, X, Y, **settings | arguments)
    numbers = {name: torch.tensor(v) for name, v in history.items() if name != "seconds"}
    return {name: v.clone() for name, v in objective.state_dict().items()} | numbers


def case(name: str) -> dict[str, torch.Tensor]:
    method, options, arguments = CASES[name]
    return trained(objective_of(method, options), **arguments)


def stopped_early() -> dict[str, torch.Tensor]:
    """The score is the loss's and falls, so the first epoch is the best and the third the last."""
    scores = iter(range(10))
    stopping = EarlyStopping(lambda objective: -next(scores), patience=2)
    return trained(objective_of("m2", {}), epochs=5, early_stopping=stopping)


def resumed(directory: Path) -> dict[str, torch.Tensor]:
    """Two epochs, the first of which an error ends after its checkpoint."""

    def end(epoch):
        if epoch.step == 2:
            raise RuntimeError("ended on purpose")

    arguments = {"epochs": 4, "directory": directory, "resume": True}
    try:
        trained(objective_of("m2", REGULARISED), callbacks=[end], **arguments)
    except RuntimeError as error:
        assert "on purpose" in str(error)
    return trained(objective_of("m2", REGULARISED), **arguments)


def unbroken() -> dict[str, torch.Tensor]:
    return trained(objective_of("m2", REGULARISED), epochs=4)


class Killed:
    """A transform that changes nothing, and kills the second process in its first life."""

    def __init__(self) -> None:
        self.calls = 0
        is_second = os.environ.get("RANK") == "1"
        self.kills = is_second and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.kills and self.calls == 22:  # in the seventh step, after two epochs of three
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    def __repr__(self) -> str:  # the name by which a resumed run is compared
        return "Killed"


def killed(directory: Path) -> dict[str, torch.Tensor]:
    """The run of `unbroken`, whose second process is killed; torchrun starts both anew."""
    arguments = {"epochs": 4, "directory": directory, "resume": True, "transform": Killed()}
    return trained(objective_of("m2", REGULARISED), **arguments)


def message_of(function) -> str:
    """The message of the error that a function raises."""
    try:
        function()
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def refusals(rank: int) -> dict[str, str]:
    """Messages of what is refused, by what it is."""
    term = objective_of("m2", {})
    term.terms.append(OwnTerm())
    foreign = Objective(OwnModel(), OwnGuide(), elbo=pyro.infer.Trace_ELBO()).double()
    gamma = objective_of("classifier", {})
    gamma.guide.q_y.network.noise = GammaNoise()
    return {
        "data": message_of(lambda: fit(objective_of("m2", {}), X + 0.001 * rank, Y, epochs=1)),
        "settings": message_of(lambda: fit(objective_of("m2", {}), X, Y, epochs=1 + rank)),
        "options": message_of(
            lambda: fit(objective_of("m2", {"alpha": 1.0 + 9 * rank}), X, Y, epochs=1)
        ),
        "callback": message_of(lambda: trained_with_changes()),
        "form": message_of(lambda: fit(objective_of("m2", {"hidden": (3 + rank,)}), X, Y)),
        "one": message_of(lambda: fit(objective_of("m2", {}), X, Y[rank:], epochs=1)),
        "term": message_of(lambda: fit(term, X, Y, epochs=1)),
        "elbo": message_of(lambda: fit(foreign, X, epochs=1)),
        "rows": message_of(lambda: fit(objective_of("m2", {}), X, Y, labeled_batch_size=1)),
        "gamma": message_of(lambda: trained(gamma)),
    }


def trained_with_changes() -> None:
    """Fit with a callback that changes the objective, which the other process does not see."""
    objective = objective_of("m2", {"alpha": 1.0})

    def change(epoch):
        objective.terms[0].weight = 5.0

    fit(objective, X, Y, epochs=1, callbacks=[change])


class GammaNoise(nn.Module):
    def forward(self, x):
        return x * dist.Gamma(torch.ones_like(x), 1.0).rsample() if self.training else x


def main(directory: Path) -> None:
    torch.set_num_threads(1)
    processes = Processes.joined()
    results = {"killed": killed(directory / "killed")}
    results |= {name: case(name) for name in CASES}
    results["own"] = trained(own(), lr=1e-5)
    results["early stopping"] = stopped_early()
    results["resumed"] = resumed(directory / "run")
    messages = processes.gathered(refusals(processes.rank))
    alike = processes.gathered({n: float(v["loss"].sum()) for n, v in results.items()})
    if processes.is_first:
        restarts = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
        found = {"results": results, "messages": messages, "alike": alike, "restarts": restarts}
        torch.save(found, directory / "all.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

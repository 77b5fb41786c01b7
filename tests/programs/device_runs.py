"""Training on the fake device and on the CPU, compared; for a process of its own.

`python -m programs.device_runs [CASE ...]` prints one line of JSON for each case:

- `equal`: whether weights, histories and predictions are those of the CPU, to the bit;
- `waits`: for the last step and the making of its batch, what makes Python wait for the device;
- `error`: the error that ended the run, or "".
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from programs import fake_device
from programs.training_runs import X, Y
from pyro_ssl import Objective, fit, predict_proba, zoo
from pyro_ssl.training import run as training_run

SIZES = {
    "hidden": (6,),
    "z_dim": 2,
    "a_dim": 2,
    "z_dims": (3, 2),
    "z_y_dim": 2,
    "z1_dim": 3,
    "m1_hidden": (6,),
    "m1_epochs": 1,
    "likelihood": "gaussian",
    "sigma": 1.0,
}
ROWS = 46
"""Twenty labeled rows and 26 unlabeled ones: three steps a pass."""


@dataclass(frozen=True)
class Case:
    """A run of training.

    Arguments:
        method: The method of the zoo.
        options: Its options.
        arguments: Arguments of `fit`.
        shape: Shape of a datum, of four numbers.
        moved_noise: Draw on the CPU and move the numbers, as `experiments/check_gpu.py` does.
    """

    method: str = "m2"
    options: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (4,)
    moved_noise: bool = False

    def build(self) -> Objective:
        taken = zoo.method(self.method).options
        options = {k: v for k, v in (SIZES | self.options).items() if k in taken}
        return zoo.build(self.method, self.shape, 3, seed=0, **options)

    def run(self, device: str) -> dict[str, Any]:
        """The numbers of a run on a device, on the CPU."""
        objective = self.build()
        x = X[:ROWS].reshape(ROWS, *self.shape)
        sizes = {"epochs": 1, "batch_size": 8, "labeled_batch_size": 6}
        with noise_of_the_cpu() if self.moved_noise else nullcontext():
            history = fit(objective, x, Y[:ROWS], device=device, **sizes | self.arguments)
        history = {name: values for name, values in history.items() if name != "seconds"}
        numbers = {name: value.cpu() for name, value in objective.state_dict().items()}
        if self.method != "vae":  # which has no classes
            numbers["predicted"] = predict_proba(objective, x[:6])
        return {"history": history, "numbers": numbers}


CASES = {method: Case(method) for method in zoo.METHODS} | {
    "all classes": Case(options={"top_k": None}),
    "regularised": Case(options={"batch_norm": True, "l2": 0.1, "entropy": 0.1}),
    "random weights": Case(options={"bayesian": ("p_x",), "local_reparameterisation": True}),
    "flow": Case(options={"flow": 1}),
    "vamp": Case(options={"prior": "vamp", "pseudo_inputs": 3}),
    "importance weighted": Case(options={"num_particles": 2, "importance_weighted": True}),
    "free bits": Case(options={"free_bits": 0.1}),
    "mixture": Case("sslpe", {"mixture": True}),
    "warm-up, average, clipped": Case(arguments={"warmup": 9, "ema": 0.9, "clip_norm": 0.5}),
    "numbers drawn on the CPU": Case(moved_noise=True),
    "images": Case(options={"warp": 0.1, "crop": 1, "flip": True}, shape=(1, 2, 2)),
}


def noise_of_the_cpu() -> Any:
    """`CpuNoise` of the script that checks a GPU."""
    sys.path.append(str(Path(__file__).parents[2] / "experiments"))
    from check_gpu import CpuNoise

    return CpuNoise()


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """True if two runs have the same numbers, to the bit."""
    if a["history"] != b["history"] or a["numbers"].keys() != b["numbers"].keys():
        return False
    return all(torch.equal(a["numbers"][name], b["numbers"][name]) for name in a["numbers"])


def noting(step: Callable[..., Any], waits: list[str]) -> Callable[..., Any]:
    """A step of training that notes what has made Python wait since the step before."""

    def noted(*arguments: Any) -> Any:
        result = step(*arguments)
        waits[:] = fake_device.WAITS
        fake_device.WAITS.clear()
        return result

    return noted


def report(case: Case, expected: dict[str, Any], step: Callable[..., Any]) -> dict[str, Any]:
    """What a run on the fake device shows."""
    waits: list[str] = []
    training_run.train_step = noting(step, waits)
    try:
        got = case.run("fake")
    except Exception as error:
        return {"equal": False, "waits": waits, "error": _cause(error)}
    return {"equal": same(got, expected), "waits": waits, "error": ""}


def _cause(error: BaseException) -> str:
    """The first of the errors, which may have led to others, with its last frames."""
    while error.__context__ is not None:
        error = error.__context__
    return "".join(traceback.format_exception(error, chain=False)[-8:])


def main() -> None:
    torch.set_num_threads(1)
    fake_device.register()
    names = sys.argv[1:] or list(CASES)
    expected = {name: CASES[name].run("cpu") for name in names}
    step = training_run.train_step
    with fake_device.in_use():
        for name in names:
            print(json.dumps({"case": name} | report(CASES[name], expected[name], step)))


if __name__ == "__main__":
    main()

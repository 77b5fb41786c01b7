"""Steps compiled by Inductor itself, which needs a C++ compiler and takes tens of seconds a graph.

What does not need the compiler is tested in `test_compiled_steps.py`.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from programs.training_runs import X, Y, run, same, small, weights

from pyro_ssl import zoo
from pyro_ssl.training.new_run import new_run
from pyro_ssl.training.settings import Settings

TESTS = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler"),
]
ARGUMENTS = {"compile": True, "epochs": 3}


def built(method: str):
    options = {"hidden": (6,), "z_dim": 2, "a_dim": 2, "sigma": 1.0}
    taken = zoo.options_of(method)
    return zoo.build(method, 4, 3, seed=0, **{k: v for k, v in options.items() if k in taken})


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm().clamp_min(1e-6))


def check_step(objective, tolerance: float) -> None:
    """A compiled step gives the numbers and gradients of the step itself, with the same noise."""
    objective = objective.to(torch.get_default_dtype())
    settings = Settings(batch_size=10, labeled_batch_size=8, compile=True)
    compiled = new_run(objective.train(), X.numpy(), Y, settings).compiled
    batch = new_run(objective, X.numpy(), Y, settings).batches(0)
    state = torch.get_rng_state()
    expected = compiled.step(batch, 1.0)
    torch.set_rng_state(state)
    names, numbers = compiled(batch, 1.0)
    assert names == expected.names
    assert relative_error(torch.tensor(numbers), expected.values) < tolerance
    for parameter, gradient in zip(compiled.step.parameters, expected.gradients, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        assert gradient is None or relative_error(parameter.grad, gradient) < tolerance


def test_a_compiled_step_is_the_step_up_to_rounding():
    check_step(small(top_k=1), 1e-6)


@pytest.mark.parametrize("method", ["vc", "adgm"])
def test_a_compiled_step_in_double_precision_is_the_step_up_to_rounding(method, float64):
    check_step(built(method), 1e-12)


RESUME = """
import sys, torch
torch.set_num_threads(1)
from programs.training_runs import run, small, weights
objective, _ = run(small(top_k=1), directory=sys.argv[1], resume=True, compile=True, epochs=3)
torch.save(weights(objective), sys.argv[2])
"""


def test_a_compiled_run_is_repeatable_and_resumes_in_a_fresh_process(tmp_path):
    class Stopped(Exception):
        pass

    def stop(epoch):
        if epoch.epoch == 2:
            raise Stopped

    whole, _ = run(small(top_k=1), **ARGUMENTS)
    with pytest.raises(Stopped):
        run(small(top_k=1), directory=tmp_path / "run", callbacks=[stop], **ARGUMENTS)
    arguments = [sys.executable, "-c", RESUME, str(tmp_path / "run"), str(tmp_path / "weights")]
    subprocess.run(arguments, check=True, env=os.environ | {"PYTHONPATH": str(TESTS)})
    again, _ = run(small(top_k=1), **ARGUMENTS)
    assert same(weights(again), weights(whole))
    assert same(torch.load(tmp_path / "weights"), weights(whole))

"""Several draws of weights at once, and where weights live."""

import signal
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from comparisons import seeded
from programs.bayesian import SMALL, D, K, X, Y, Z, labels, sslapd
from torch import Tensor

from pyro_ssl import (
    MLP,
    Batch,
    fit,
    zoo,
)
from pyro_ssl.nn.norm import BatchNorm
from pyro_ssl.nn.random_weights import RandomWeights

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("lead", [(), (4,)])
def test_several_draws_of_weights_are_a_loop_over_them(lead):
    network = MLP([(1, 2, 2), K], (2, 3), (5, 4), batch_norm=True).eval()
    for part in network.modules():
        if isinstance(part, BatchNorm):
            for t in (part.running_mean, part.running_var, part.weight.data, part.bias.data):
                t.uniform_(0.5, 2.0)
    x, y = torch.randn(6, 1, 2, 2), torch.randn(*lead, 6, K)
    slots = RandomWeights(network)
    w = torch.randn(4, 1, len(slots.initial))
    with slots.substituted(w):
        joint_pass = network(x, y)
    assert joint_pass.shape == (4, 6, 2, 3)
    for s in range(4):
        with slots.substituted(w[s, 0]):
            assert torch.allclose(
                joint_pass[s], network(x, y[s] if lead else y), rtol=0, atol=1e-12
            )


def test_weights_leave_the_network_and_come_back_for_a_block():
    o = sslapd()
    network, names = o.model.program.p_y.network, {n for n, _ in o.named_parameters()}
    assert not list(network.parameters()) and {"guide.loc", "guide.log_variance"} <= names
    assert not any("p_y" in name for name in names | set(o.state_dict()))
    plain = zoo.build(
        "sslpe",
        D,
        K,
        **{k: v for k, v in SMALL.items() if k not in ("prior_scale", "log_variance")},
    )
    with o.model.given(
        zoo.build("sslapd", D, K, **SMALL).guide.loc
    ):  # the start of mu is the network's own
        x, z = torch.randn(2, D), torch.randn(2, Z)
        assert torch.allclose(o.model.predict(x, z).probs, plain.double().model.predict(x, z).probs)
    with pytest.raises(RuntimeError, match="mine"), o.model.given(o.guide.loc):
        assert network.first.bias is not None
        raise RuntimeError("mine")
    assert network.first.bias is None and network.rest[1].weight is None
    assert all(owner.__dict__[name] is None for owner, name in o.model.slots.entries)


def test_a_copy_is_independent_and_a_state_goes_round():
    o = sslapd(batch_norm=True)
    batch, before = Batch(X[:6], labels(), X[6:]), {k: v.clone() for k, v in o.state_dict().items()}
    loss, copy = seeded(deepcopy(o), batch), deepcopy(o)
    assert torch.equal(seeded(copy, batch), loss)
    with torch.no_grad():
        copy.guide.loc += 1
    assert not torch.equal(seeded(copy, batch), loss)
    assert all(torch.equal(v, before[k]) for k, v in o.state_dict().items())
    parts = {id(part) for part in copy.model.program.p_y.modules()}
    assert {id(owner) for owner, _ in copy.model.slots.entries} <= parts
    assert not parts & {id(owner) for owner, _ in o.model.slots.entries}
    other = zoo.build("sslapd", D, K, seed=1, **SMALL | {"batch_norm": True}).double()
    other.load_state_dict(o.state_dict())
    assert torch.equal(seeded(other, batch), loss)


def resumable(directory: Path, **options) -> dict[str, Tensor]:
    torch.set_default_dtype(torch.float64)
    o = sslapd(batch_norm=True, dropout=0.2, local_reparameterisation=True, alpha=0.5)
    settings = {
        "epochs": 2,
        "batch_size": 4,
        "labeled_batch_size": 2,
        "ema": 0.9,
        "checkpoint_every": 2,
    }
    fit(o, X, Y, **settings, directory=directory, resume=True, **options)
    return o.state_dict()


CHILD = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {models!r}]
from pyro_ssl import Objective
from test_weight_substitution import resumable
parts, left = Objective.parts, [6]  # once in the trial, five steps
def dying(self, *arguments, **more):
    left[0] -= 1
    return parts(self, *arguments, **more) if left[0] else os.kill(os.getpid(), signal.SIGKILL)
Objective.parts = dying
resumable(Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(tmp_path):
    whole = resumable(tmp_path / "whole")
    models = Path(__file__).parent
    child = CHILD.format(tests=str(models.parent), models=str(models))
    done = subprocess.run(
        [sys.executable, "-c", child, str(tmp_path / "killed")], capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "killed" / "checkpoint").exists()
    resumed, start = resumable(tmp_path / "killed"), sslapd(batch_norm=True).state_dict()
    assert whole.keys() == resumed.keys() and all(
        torch.equal(v, resumed[k]) for k, v in whole.items()
    )
    assert not torch.equal(whole["guide.loc"], start["guide.loc"])

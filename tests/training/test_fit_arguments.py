"""Arguments of `fit` that do not fit are refused before anything changes."""

import math

import pytest
import torch
from programs.training_runs import run, same, small, weights
from torch import nn

from pyro_ssl import (
    EarlyStopping,
)


@pytest.mark.parametrize("device", ["foo", "cuda:77", 3.5])
def test_a_device_that_is_not_there_is_named(device):
    with pytest.raises(ValueError, match=f"device {device} is not available"):
        run(device=device)


@pytest.mark.parametrize(
    "arguments",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"labeled_batch_size": 2.5},
        {"lr": 0.0},
        {"lr": math.nan},
        {"seed": -1},
        {"ema": 1.0},
        {"warmup": -1.0},
        {"clip_norm": 0.0},
        {"schedule": "linear"},
    ],
)
def test_bad_arguments_are_named_and_nothing_changes(arguments, tmp_path):
    o = small()
    before = weights(o)
    with pytest.raises(ValueError, match=next(iter(arguments))):
        run(o, directory=tmp_path / "run", **arguments)
    assert same(weights(o), before) and not (tmp_path / "run").exists()


NOT_CALLABLE = {
    "optimizer=str": (
        {"optimizer": "adamw"},
        "optimizer should be one of adam, nesterov, or a torch optimiser class, such as "
        "torch.optim.Adam, got 'adamw'",
    ),
    "optimizer=dict": (
        {"optimizer": lambda p, lr: {}},
        "optimizer should give a torch.optim.Optimizer, got dict",
    ),
    "optimizer=len": ({"optimizer": len}, "optimizer should take parameters and lr"),
    "schedule=None": ({"schedule": None}, "schedule should be one of constant"),
    "schedule=function": (
        {"schedule": lambda o, n: 1.0},
        "schedule should give an LRScheduler, got float",
    ),
    "callbacks=None": (
        {"callbacks": None},
        "callbacks should be functions in a tuple or list, such as .*, got None",
    ),
    "callbacks=print": ({"callbacks": print}, "callbacks should be functions"),
    "callbacks=str": ({"callbacks": "ab"}, "callbacks should be functions"),
    "early_stopping": (
        {"early_stopping": lambda o: 0.0},
        r"early_stopping should be an EarlyStopping\(score, patience\)",
    ),
    "score": ({"early_stopping": EarlyStopping(3.0)}, "early_stopping: score should be a function"),
    "patience": (
        {"early_stopping": EarlyStopping(len, 0)},
        "patience should be a whole number above 0",
    ),
    "transform": ({"transform": "flip"}, "transform should be a function"),
    "seed": (
        {"seed": 2**70},
        r"seed should be a whole number in 0 .. 2\*\*64 - 1, got 1180591620717411303424",
    ),
    "seed=nan": ({"seed": math.nan}, "seed should be a whole number"),
    "epochs=1e30": ({"epochs": 1e30}, r"epochs should be a whole number above 0, got 1e\+30"),
    "epochs=10**30": ({"epochs": 10**30}, "epochs should be fewer"),
    "lr=True": ({"lr": True}, "lr should be a number, got True"),
    "device=meta": ({"device": "meta"}, "device meta holds no values"),
    "identity": ({"identity": {"f": len}}, "identity should be plain data"),
    "checkpoint_every": (
        {"checkpoint_every": 0},
        "checkpoint_every should be a whole number above 0",
    ),
    "schedule list": ({"schedule": ["x"]}, "schedule should be one of"),
    "resume": ({"resume": "no"}, "resume should be True or False, got 'no'"),
    "progress": ({"progress": "bar"}, "progress should be True, False, None or a function"),
    "directory": ({"directory": 5}, "directory should be a path, got 5"),
}


@pytest.mark.parametrize(("arguments", "message"), NOT_CALLABLE.values(), ids=NOT_CALLABLE)
def test_an_argument_of_another_kind_is_refused_before_the_first_epoch(
    arguments, message, tmp_path
):
    o = small().train()
    o.sizes = (1, 2)
    before, seen = weights(o), []
    with pytest.raises(ValueError, match=message):
        run(o, **{"directory": tmp_path / "run", "callbacks": (seen.append,)} | arguments)
    assert same(weights(o), before) and o.sizes == (1, 2) and o.training
    assert not seen and not (tmp_path / "run").exists()


def test_an_objective_that_is_refused_a_directory_is_as_it_was(tmp_path):
    run(directory=tmp_path)
    o = small().train()
    with pytest.raises(FileExistsError):
        run(o, directory=tmp_path)
    assert o.sizes is None and o.extent is None and o.training


def test_weights_that_cannot_be_trained_are_refused():
    with torch.inference_mode():
        p_y = nn.Linear(4, 3)
    o = small()
    o.guide.extra = p_y
    with pytest.raises(ValueError, match="objective was made under torch.inference_mode"):
        run(o)
    with pytest.raises(ValueError, match="weights on the device meta have no values"):
        run(small().to("meta"))
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        run(small().requires_grad_(False))
    with pytest.raises(ValueError, match="objective should be a pyro_ssl.Objective, got Linear"):
        run(p_y)
    with pytest.raises(
        ValueError, match="got a DataParallel, but fit trains on one device; give .* .module"
    ):
        run(nn.DataParallel(small()))
    wrapped = small()
    wrapped.guide = nn.DataParallel(wrapped.guide)
    with pytest.raises(
        ValueError, match="got a DataParallel, but fit trains on one device; give .* .module"
    ):
        run(wrapped)

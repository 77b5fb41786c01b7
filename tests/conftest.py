"""One thread, fixed seeds, an empty parameter store and distributions that check.

What every test takes for granted.
"""

import os
import random
import sys

import numpy as np
import pyro
import pytest
import torch

torch.set_num_threads(1)
os.fsync = lambda descriptor: None  # no test cuts the power, and each call takes 5 ms


def seed_everything() -> None:
    """What a test draws without a seed of its own is the same in every order of the tests."""
    random.seed(0)
    np.random.seed(0)
    torch.default_generator.manual_seed(0)  # torch.manual_seed notes the call stack, which is slow


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef):
    if (
        fixturedef.scope != "function"
    ):  # it is set up before the fixture below, by whichever test comes first
        seed_everything()


@pytest.fixture(autouse=True)
def clean_process():
    seed_everything()
    torch.distributions.Distribution.set_default_validate_args(
        True
    )  # zuko, which tests import, turns it off
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()
    if "matplotlib.pyplot" in sys.modules:  # a figure left open would warn in some later test
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)

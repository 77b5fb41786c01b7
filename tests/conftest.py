"""One thread, a parameter store as it was found, and distributions that check: what every test takes for granted."""

import pyro
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def clean_store():
    torch.distributions.Distribution.set_default_validate_args(True)  # zuko, which tests import, turns it off
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)

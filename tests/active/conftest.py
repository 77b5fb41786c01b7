"""Trained methods that several files ask for labels."""

import pytest
import torch
from programs.active import trained


@pytest.fixture(scope="session")
def methods():
    torch.manual_seed(0)
    spread = {"log_variance": -2.0}
    return {
        "m2": trained("m2"),
        "adgm": trained("adgm"),
        "sslpe": trained("sslpe"),
        "sslapd": trained("sslapd", **spread),
        "latent_classifier": trained("latent_classifier"),
        "ce": trained("ce"),
        "random latent": trained("latent_classifier", bayesian=("p_y",), **spread),
    }

"""The page of results shows the tables that the scripts wrote."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RESULTS = (ROOT / "experiments" / "README.md").read_text()

EXPERIMENTS = [
    "m2_mnist",
    "benchmark",
    "moons",
    "mnist_labels",
    "latent_classifier",
    "mier",
    "variational_classification",
    "active_learning",
    "vae_downstream",
    "gradient_variance",
    "tables",
]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_its_figures_are_the_ones_that_were_measured(experiment):
    table = ROOT / "experiments" / "results" / experiment / "table.md"
    assert table.read_text().strip() in RESULTS

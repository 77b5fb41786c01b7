"""The README's Python runs as it stands, in one namespace, and does what it says."""

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from pyro_ssl import data, fit, zoo

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = ["README.md", "experiments/README.md"]
PAGES += [str(page.relative_to(ROOT)) for page in sorted((ROOT / "experiments/results").glob("*.md"))]
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def ran(*blocks: int, before: dict[str, Any]) -> dict[str, Any]:
    """Names after some of the README's blocks; those from before, networks among them, stay as they were."""
    space = {name: deepcopy(v) if isinstance(v, torch.nn.Module) else v for name, v in before.items()}
    for block in blocks:
        exec(BLOCKS[block], space)
    return space


@pytest.fixture(scope="module")
def twelve_lines():
    return ran(0, before={"__name__": "readme"})


@pytest.fixture(scope="module")
def own_model():
    torch.manual_seed(0)  # a user's own networks start from the caller's random state
    return ran(3, before={"__name__": "readme"})


def test_twelve_lines(twelve_lines):
    assert BLOCKS[0].strip().count("\n") + 1 - BLOCKS[0].count("\n\n") <= 12
    assert twelve_lines["m2"].score(twelve_lines["x_test"], twelve_lines["y_test"]) > 0.85


def test_regression_and_chains(twelve_lines):
    space = ran(1, before=twelve_lines)
    assert space["mean"].shape == space["std"].shape == (1000,) and (space["std"] > 0).all()
    assert space["chains"].mean.shape == (1000, 1) and space["chains"].z.shape == (1000, 2)


def test_a_learner_asks_for_the_right_labels(twelve_lines):
    space = ran(2, before=twelve_lines)
    assert len(space["learner"].indices) == 12 and (space["active"] == space["y_test"]).mean() > 0.95


def test_a_model_of_ones_own_learns(own_model):
    assert own_model["accuracy"] > 0.8
    assert own_model["history"]["loss"][-1] < own_model["history"]["loss"][0]


def test_it_trains_under_stock_pyro(own_model):
    torch.manual_seed(0)
    assert torch.isfinite(torch.tensor(ran(4, before=own_model)["loss"]))
    assert BLOCKS[4].strip().count("\n") + 1 <= 10


def test_the_bound_goes_with_any_pair(own_model):
    torch.manual_seed(0)
    space = ran(4, 5, before=own_model)  # as one reads: SVI and Adam are imported in the block before
    assert torch.isfinite(torch.tensor(space["loss"]))
    assert space["evidence"].shape == (100,) and space["per_class"].shape == (100, 10)
    right = (space["per_class"].argmax(-1) == data.load("digits").y_test[:100]).float().mean()
    assert right > 0.2 and space["by_reconstruction"].shape == (100,)


def test_a_method_of_ones_own_is_found():
    space = {}
    before = dict(zoo.METHODS)
    try:
        exec(BLOCKS[6], space)
        digits = data.load("digits")
        objective = zoo.build("m2_vector", digits.x_shape, 10, z_dim=4)
        history = fit(objective, digits.x, data.draw_labels(digits.y, 50).codes(digits.y), epochs=3)
        assert history["loss"][-1] < history["loss"][0]
    finally:
        zoo.METHODS.clear()
        zoo.METHODS.update(before)


def test_options_are_chosen_by_cross_validation(twelve_lines):
    space = ran(7, before=twelve_lines)
    assert space["search"].best_params_.keys() == {"options__z_dim", "training__lr"}
    assert space["search"].best_score_ == max(space["search"].cv_results_["mean_test_score"])
    assert space["search"].best_estimator_.score(space["x_test"], space["y_test"]) > 0.8


def test_the_table_of_methods_is_the_zoos():
    table = README.replace("\\|", "|")
    for name, row in zoo.METHODS.items():
        assert re.search(rf"\| `{name}`.* \| .*{re.escape(row.model)}.* \| {re.escape(row.guide)} \|", table), name


@pytest.mark.parametrize("page", PAGES)
def test_its_links_lead_somewhere(page):
    for link in re.findall(r"\]\((?!http)([^)]+)\)", (ROOT / page).read_text()):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles], link

"""The Python of README.md and docs/ runs as it stands, page by page, as the pages say."""

import inspect
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_ssl import data, fit, types, zoo
from pyro_ssl.cli import app as cli

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PAGES = [
    "README.md",
    "experiments/README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *sorted(
        str(path.relative_to(ROOT))
        for path in (ROOT / "docs").rglob("*.md")
        if "_generated" not in path.parts
    ),
]
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
BASH = re.compile(r"```bash\n(.*?)```", re.DOTALL)


@cache
def names_of(page: str) -> dict[str, Any]:
    """The names that a page's Python leaves behind, run from top to bottom."""
    torch.manual_seed(0)  # a reader's own networks start from the reader's random state
    methods = dict(zoo.METHODS)
    space: dict[str, Any] = {"__name__": "page"}
    try:
        for block in PYTHON.findall((ROOT / page).read_text()):
            exec(block, space)
        return space | {"methods": dict(zoo.METHODS)}
    finally:
        zoo.METHODS.clear()
        zoo.METHODS.update(methods)


def test_readme_prints_what_it_says(capsys):
    capsys.readouterr()
    names_of.__wrapped__("README.md")
    printed = re.findall(r"(\w+): (\d\.\d\d)", capsys.readouterr().out)
    said = re.findall(r"^(\w+): (\d\.\d\d)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert [name for name, _ in printed] == [name for name, _ in said] == ["classifier", "m2"]
    for (_, score), (_, expected) in zip(printed, said, strict=True):
        assert float(score) == pytest.approx(float(expected), abs=0.03)


def test_readme_is_one_screen_before_what_it_prints():
    first, _, _ = (ROOT / "README.md").read_text().partition("```text")
    assert len(first.splitlines()) <= 30


def test_estimators():
    names = names_of("docs/howto/estimators.md")
    assert names["m2"].score(names["x_test"], names["y_test"]) > 0.9
    assert names["mean"].shape == names["std"].shape == (1000,)
    assert (names["std"] > 0).all()
    assert names["chains"].mean.shape == (1000, 1)
    assert names["chains"].z.shape == (1000, 2)


@pytest.mark.slow
def test_model_selection():
    search = names_of("docs/howto/choose_options.md")["search"]
    assert search.best_params_.keys() == {"options__z_dim", "training__lr"}
    assert search.best_score_ == max(search.cv_results_["mean_test_score"])


def test_sweeps():
    names = names_of("docs/howto/many_runs.md")
    assert min(outcome.result["accuracy"] for outcome in names["outcomes"]) > 0.3
    assert len(names["outcomes"]) == 2


def test_logs():
    assert names_of("docs/howto/log_training.md")["history"]["val_accuracy"][-1] > 0.3


def test_the_fields_of_gibbs_are_printed_as_the_page_says(capsys):
    page = "docs/howto/gibbs_draws.md"
    capsys.readouterr()
    names = names_of.__wrapped__(page)
    printed = capsys.readouterr().out
    said = re.findall(r"```text\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert said and printed.startswith(said[0])
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / page).read_text(), re.MULTILINE)
    assert rows == [*names["moments"]._fields, *vars(names["samples"])]


def test_deploying():
    names = names_of("docs/howto/deploy.md")
    assert names["model"].classes == ["left", "right"]
    assert len(names["names"]) == 500


@pytest.mark.slow
def test_the_commands_for_sweeps(tmp_path, monkeypatch):
    for package in ("optuna", "tensorboard"):
        pytest.importorskip(package, reason=f"pip install 'pyro-ssl[{package}]'")
    monkeypatch.chdir(tmp_path)
    pages = [ROOT / "docs/howto/many_runs.md", ROOT / "docs/howto/log_training.md"]
    blocks = [block for page in pages for block in BASH.findall(page.read_text())]
    commands = "".join(blocks).splitlines()
    assert len(commands) == 3
    for command in commands:
        name, *arguments = shlex.split(command)
        assert name == "pyro-ssl"
        assert cli.main(arguments) == 0, command
    assert len((tmp_path / "sweep/table.csv").read_text().splitlines()) == 1 + 4
    assert (tmp_path / "search/search.journal").exists()
    assert list((tmp_path / "logged/tensorboard").iterdir())


def test_presets():
    names = names_of("docs/howto/presets.md")
    assert names["m2"].guide.q_y.network.first.bias.shape == (600,)
    assert names["training"]["epochs"] == 1 and names["training"]["warmup"] == 200 / 1000
    assert names["estimator"].get_params()["preset"] == "paper-002-moons"


@pytest.mark.slow
def test_the_commands_for_presets(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    *lists, train = "".join(BASH.findall((ROOT / "docs/howto/presets.md").read_text())).splitlines()
    for command in lists:
        assert cli.main(shlex.split(command)[1:]) == 0
    assert "paper-004" in capsys.readouterr().out
    assert cli.main([*shlex.split(train)[1:], "--epochs", "1", "--hidden", "[8]"]) == 0
    assert Path("runs/m2-paper/config.json").exists()


@pytest.mark.slow
def test_active_learning():
    names = names_of("docs/howto/active_learning.md")
    assert len(names["learner"].indices) == 12
    assert (names["predicted"] == names["y"]).mean() > 0.95


def test_a_pair_of_the_zoo_trains_with_stock_pyro():
    assert np.isfinite(names_of("docs/howto/stock_pyro.md")["loss"])


def test_a_method_of_ones_own_is_found(monkeypatch):
    names = names_of("docs/howto/add_a_method.md")
    monkeypatch.setitem(zoo.METHODS, "m2_vector", names["methods"]["m2_vector"])
    digits = data.load("digits")
    objective = zoo.build("m2_vector", digits.x_shape, 10, z_dim=4)
    history = fit(
        objective, digits.x, data.draw_labels(digits.y, 50).masked_labels(digits.y), epochs=3
    )
    assert history["loss"][-1] < history["loss"][0]


def test_the_bound():
    names = names_of("docs/explanation/bound.md")
    assert names["evidence"].shape == (100,)
    assert names["per_class"].shape == (100, 10)
    right = (names["per_class"].argmax(-1) == data.load("digits").y_test[:100]).float().mean()
    assert right > 0.2
    assert np.isfinite(names["loss"])


def test_several_processes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = "docs/howto/several_machines.md"
    assert len(names_of.__wrapped__(page)["history"]["loss"]) == 2
    commands = shell_commands(page)
    assert [command.split()[0] for command in commands] == ["torchrun"]
    _, *arguments = commands[0].split()
    subprocess.run([sys.executable, "-m", "torch.distributed.run", *arguments], check=True)
    assert len(Path("runs/m2/metrics.jsonl").read_text().splitlines()) == 2


def test_resuming(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = "docs/howto/resume.md"
    names = names_of.__wrapped__(page)
    again = fit(
        names["objective"],
        names["x"],
        names["y"],
        epochs=2,
        directory="runs/resumed",
        resume=True,
    )
    assert again == names["history"]
    commands = shell_commands(page)
    assert len(commands) == 3
    for command in commands:
        assert cli.main(shlex.split(command)[1:]) == 0
    assert len(Path("runs/m2/metrics.jsonl").read_text().splitlines()) == 3


def shell_commands(page: str) -> list[str]:
    """The lines of a page's blocks of shell commands."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    return "".join(blocks).splitlines()


def test_on_a_gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    assert names_of("docs/howto/gpu.md")["losses"].shape == (10,)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:these rows were trained on")
def test_your_data(tmp_path, monkeypatch, capsys):
    """The page's Python and its commands, from top to bottom, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {"__name__": "page"}
    page = (ROOT / "docs/howto/your_data.md").read_text()
    for kind, block in re.findall(r"```(python|sh)\n(.*?)```", page, re.DOTALL):
        if kind == "python":
            exec(block, space)
            continue
        for line in block.splitlines():
            program, *arguments = shlex.split(line, comments=True)
            assert program == "pyro-ssl" and cli.main(arguments) == 0, line
    assert "| cat   | 10 " in capsys.readouterr().out
    lines = Path("pets.csv").read_text().splitlines()
    assert lines[0] == "file,predicted,confidence,p(cat),p(dog)" and len(lines) == 81
    right = [line.startswith(line.split(",")[1]) for line in lines[1:]]
    assert np.mean(right) > 0.9
    assert (
        Path("animals_p.csv")
        .read_text()
        .startswith("row,id,weight,height,species,predicted,confidence,p(cat),p(dog)")
    )
    predicted = space["probs"].argmax(-1).numpy()
    assert (predicted == np.arange(5000) % 2).mean() > 0.9


def test_the_table_of_methods_is_the_zoos():
    table = (ROOT / "docs/methods/index.md").read_text().replace("\\|", "|")
    for name, row in zoo.METHODS.items():
        factors = rf"\| {re.escape(row.model)} \| {re.escape(row.guide)} \|"
        link = re.escape(f"[`{name}`]({name}.md)")
        assert re.search(rf"\| {link} {factors}", table) or not row.model, name


@pytest.mark.parametrize("name", zoo.METHODS)
def test_every_method_has_a_page(name):
    page = (ROOT / "docs/methods" / f"{name}.md").read_text()
    generated = re.findall(r"<!-- generated: (\w+) (\w+) -->", page)
    kinds = ("picture", "facts", "code", "cost", "numbers", "options")
    assert generated == [(kind, name) for kind in kinds]
    titles = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert {"The bound", "When it fails", "Paper"} <= set(titles)
    assert f"\n{name}\n" in (ROOT / "docs/methods/index.md").read_text()


@pytest.mark.parametrize("folder", ["tutorials", "howto", "methods", "explanation", "reference"])
def test_every_page_is_in_its_index(folder):
    index = (ROOT / "docs" / folder / "index.md").read_text()
    for page in (ROOT / "docs" / folder).glob("*.md"):
        assert page.stem == "index" or f"\n{page.stem}\n" in index, page.name


def test_the_table_of_protocols_is_that_of_types():
    page = (ROOT / "docs/reference/protocols.md").read_text()
    rows = re.findall(r"^\| `([A-Z]\w+)` \| \w+ \| `(\w+)", page, re.MULTILINE)
    assert len(rows) == 9
    for name, member in rows:
        assert hasattr(getattr(types, name), member) or member in _annotations(name), name


def _annotations(protocol: str) -> set[str]:
    """Names of the attributes that a Protocol declares."""
    return set(inspect.get_annotations(getattr(types, protocol)))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\((?!http|mailto)([^)\s]+)\)", (ROOT / page).read_text()):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if anchor else []
        anchors = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]
        assert not anchor or anchor in anchors, link

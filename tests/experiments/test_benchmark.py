"""The benchmark measures every variant, and bare torch computes the library's loss."""

import json
import math

import pytest
import torch
from experiment_files import row

from pyro_ssl import Batch, zoo
from pyro_ssl.training import compiled_step

pytestmark = pytest.mark.slow


def test_benchmark(tmp_path, script, scripts):
    """All variants take their turns, and each table has its rows."""
    benchmark = scripts("benchmark")
    out = script("benchmark", "--scale", "smoke", "--threads", "1", "--out", "out", cwd=tmp_path)
    for variant in (*benchmark.COMPARISONS["steps"], benchmark.FLOOR):
        assert f"| {variant} " in out
    measured = row(tmp_path / "out/benchmark.csv", "steps_10_50")
    assert all(ms > 0 for ms in json.loads(measured["ms"]).values())
    assert (tmp_path / "out/benchmark/benchmark.png").exists()
    assert "K = 10, 1x50" in (tmp_path / "out/benchmark.md").read_text()


def test_a_row_measures_the_memory_of_its_variants(tmp_path, scripts, monkeypatch):
    benchmark = scripts("benchmark")
    monkeypatch.setattr(benchmark, "peak", lambda variant, classes, hidden: float(len(variant)))
    _, config = benchmark._row("steps", 3, [4], 1)
    config |= {"variants": [benchmark.BARE], "memory": True}
    result = benchmark.run("name", config, tmp_path, tmp_path)
    assert result["mb"] == {benchmark.BARE: float(len(benchmark.BARE))}
    assert len(result["rounds"][benchmark.BARE]) == 1


def test_memory_is_measured_in_a_process_of_its_own(scripts):
    """More for Pyro's example, which repeats every row for every class."""
    benchmark = scripts("benchmark")
    ours = benchmark.peak("ours, top_k=1", 100, [8])
    theirs = benchmark.peak("pyro example", 100, [8])
    assert 0 < ours < theirs


def test_a_long_step_takes_fewer_turns_and_repeats(scripts):
    benchmark = scripts("benchmark")
    variants = ["pyro example", "ours, top_k=1"]
    turns = {turn: list(benchmark._taking_turn(variants, 1000, turn)) for turn in range(-2, 4)}
    assert turns[-2] == turns[3] == ["ours, top_k=1"]
    assert all(turns[turn] == variants for turn in (-1, 0, 1, 2))
    assert list(benchmark._taking_turn(variants, 100, 3)) == variants
    assert [benchmark._repeats("pyro example", classes) for classes in (10, 100)] == [10, 1]
    assert benchmark._repeats("ours, top_k=1", 1000) == 10


def test_every_comparison_names_variants_and_has_a_title(scripts):
    benchmark = scripts("benchmark")
    compared = {name for names in benchmark.COMPARISONS.values() for name in names}
    assert compared == set(benchmark.VARIANTS)
    assert benchmark.TITLES.keys() == benchmark.ROUNDS.keys() == benchmark.COMPARISONS.keys()
    assert all(benchmark.BARE in names for names in benchmark.COMPARISONS.values())


@pytest.mark.parametrize("data", ["moons", "images"])
def test_every_method_takes_a_step_of_the_comparison_of_compiled_steps(scripts, data):
    """The batch has all rows, with and without labels, for each method."""
    methods = scripts("compiled_methods")
    for method in methods.METHODS:
        loss = methods.method_step(method, data, compile=False)()
        assert math.isfinite(loss["loss"])


def test_a_row_of_compiled_steps_has_both_kinds_of_step(scripts, tmp_path, monkeypatch):
    benchmark = scripts("benchmark")
    monkeypatch.setattr(compiled_step, "compiled_graph", lambda graph, inputs: graph)
    rows = benchmark._compiled_rows()
    config = rows["compiled_moons_m2_1"] | {"rounds": 1}
    result = benchmark.run("name", config, tmp_path, tmp_path) | {"config": config}
    assert all(ms > 0 for ms in result["ms"].values())
    blocks = benchmark.report({"name": result}, tmp_path)
    assert "| m2 " in blocks["methods, moons"]


def test_bare_torch_in_the_benchmark_is_the_librarys_algorithm(monkeypatch, scripts):
    """The same numbers for q(y|x), noise and weights give the same loss, so that the times compare
    like with like.
    """
    benchmark = scripts("benchmark")

    plain = {
        "activation": "softplus",
        "likelihood": "bernoulli",
        "noise": 0.0,
        "dropout": 0.0,
        "balance": 0.0,
    }
    o = zoo.build("m2", benchmark.PIXELS, 5, hidden=(8,), z_dim=benchmark.Z, top_k=1, **plain)
    b = benchmark.Bare(5, [8])
    pairs = [
        (b.q_y[0], o.guide.q_y.network.first.weights[0], o.guide.q_y.network.first.bias),
        (b.x_to_h, o.guide.q_z.network.first.weights[0], o.guide.q_z.network.first.bias),
        (b.z_to_h, o.model.p_x.network.first.weights[1], o.model.p_x.network.first.bias),
    ]
    with torch.no_grad():
        for layer, weight, bias in pairs:
            layer.weight.copy_(weight.T), layer.bias.copy_(bias)
        (
            b.y_to_h.copy_(o.guide.q_z.network.first.weights[1]),
            b.y_to_g.copy_(o.model.p_x.network.first.weights[0]),
        )
        for stack, network in ((b.q_y, o.guide.q_y), (b.q_z, o.guide.q_z), (b.p_x, o.model.p_x)):
            stack[-1].load_state_dict(network.network.rest[-1].state_dict())
    x = benchmark.images()
    torch.manual_seed(0)
    theirs = b(x)
    torch.manual_seed(0)
    ours = (
        o(Batch(x_unlabeled=x)) - torch.tensor(5.0).log()
    )  # bare torch leaves the constant log p(y) out
    assert torch.allclose(ours, theirs, rtol=1e-5)

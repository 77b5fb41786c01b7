"""The benchmark measures every code, and bare torch computes the library's loss."""

import json

import torch
from experiment_files import names, row

from pyro_ssl import Batch, zoo


def test_benchmark(tmp_path, script):
    """All codes take their turns, every table has its row, and the memory is measured."""
    tiny = ["--hidden", "8", "--rounds", "1", "--threads", "1", "--out", "out"]
    out = script("benchmark", "--classes", "3", "10", "--no-memory", *tiny, cwd=tmp_path)
    for code in (
        "pyro example",
        "ours, all classes",
        "ours, top_k=1",
        "ours, auto",
        "bare torch, top_k=1",
        "floor, top_k=1",
    ):
        assert f"| {code} " in out
    assert names(tmp_path / "out/benchmark.csv") == {"K = 3, 1x8", "K = 10, 1x8"}
    assert (tmp_path / "out/benchmark/benchmark.png").exists()
    assert "K = 10, 1x8" in (tmp_path / "out/benchmark.md").read_text()
    code = "ours, top_k=1"  # in a process of its own, which is what takes long
    script("benchmark", "--classes", "3", "--codes", code, *tiny[:-1], "own", cwd=tmp_path)
    memory = json.loads(row(tmp_path / "own/benchmark.csv", "K = 3, 1x8")["mb"])
    assert memory.keys() == {code} and all(mb >= 0 for mb in memory.values())


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

"""Graphical models of the papers."""

import pytest
import torch
from experiment_files import cells, made


@pytest.mark.slow
def test_graphical_models(tmp_path, script, scripts):
    out = script("graphical_models", "--scale", "smoke", "--out", "out", cwd=tmp_path)
    module = scripts("graphical_models")
    pictures = {f"{name}.png" for name in [*module.PICTURES, *module.NETWORKS]}
    assert made(tmp_path / "out/graphical_models") == pictures
    text = out.replace("\\|", "/")
    assert "`p(W) p(z) p(y/x,z,W)`" in cells(text, "002 Fig. 2.4")
    assert "`q(epsilon) q(z/x,epsilon)`" in text


def test_the_layers_of_a_network_are_those_of_its_module(scripts):
    module = scripts("graphical_models")
    sizes = {
        name: scripts("network_pictures").layer_sizes(n) for name, n in module.networks().items()
    }
    assert sizes == {"q(z|x)": [4, 5, 5, 4], "p(x|z)": [2, 5, 5, 4]}


def test_a_reparameterised_z_has_the_distribution_of_the_original(scripts):
    module = scripts("graphical_models")
    torch.manual_seed(0)
    guide = module.reparameterised().guide
    x = torch.rand(1, module.FEATURES)
    trace = module.pyro.poutine.trace(guide).get_trace(x.expand(20_000, -1))
    z, q = trace.nodes["z"]["value"], guide.q_z(x)
    assert torch.allclose(z.mean(0), q.mean[0], atol=4 * q.stddev.max().item() / 20_000**0.5)
    assert torch.allclose(z.std(0), q.stddev[0], rtol=0.03)

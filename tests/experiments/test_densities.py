"""Densities of paper 003's supplement."""

import pytest
import torch
from experiment_files import made


def test_densities(tmp_path, script):
    out = script("densities", "--scale", "smoke", "--out", "out", cwd=tmp_path)
    assert "| EM " in out and "Gaussian and 4 transforms" in out
    pictures = ("mixture", "variational", "amortized", "change_of_variables", "flow")
    assert {f"{name}.png" for name in pictures} == made(tmp_path / "out/densities")


def test_em_never_lowers_the_likelihood_and_stays_at_its_maximum(scripts):
    densities = scripts("densities")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, generator=generator).double()
    x[:80] = 4 + 2**0.5 * x[:80]
    start = [torch.tensor(v).double() for v in ((0.5, 0.5), (-1.0, 1.0), (1.0, 1.0))]
    mixture, values = densities.Mixture(*start), []
    for _ in range(400):
        values.append(mixture.log_prob(x).mean().item())
        mixture = mixture.em_step(x)
    assert all(later >= before - 1e-12 for before, later in zip(values, values[1:], strict=False))
    parameters = [mixture.weights, mixture.means, mixture.variances]
    for parameter in parameters:
        parameter.requires_grad_(True)
    loss = densities.Mixture(*parameters).log_prob(x).mean() - parameters[0].sum()
    gradients = torch.autograd.grad(loss, parameters)  # the weights sum to one
    assert all(gradient.abs().max() < 1e-4 for gradient in gradients)


@pytest.mark.parametrize("loc", [0.0, 1.3])
def test_kl_on_the_grid_is_that_of_two_gaussians(scripts, loc):
    densities = scripts("densities")
    p = torch.distributions.Normal(0.2, 0.8)
    q = torch.distributions.Normal(loc, 0.5)
    values = densities.kl(torch.tensor(loc), torch.tensor(0.5).log(), p.log_prob(densities.GRID))
    expected = torch.distributions.kl_divergence(q, p)
    assert torch.allclose(values, expected, atol=1e-4)

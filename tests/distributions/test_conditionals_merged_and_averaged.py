"""Products of Gaussians and means over draws."""

import pyro.distributions as dist
import pytest
import torch
from programs.zoo_pairs import K

from pyro_ssl.distributions.conditionals import expected, merge

pytestmark = pytest.mark.usefixtures("float64")


def gaussian(loc: float, scale: float) -> dist.Independent:
    return dist.Normal(torch.tensor([loc]), torch.tensor([scale])).to_event(1)


KNOWN, VAGUE = (0.7, 0.4), (-50.0, 1e7)
PAIRS = [((0.3, 0.5), (-1.2, 1.4)), ((2.0, 0.2), (2.5, 0.3)), (KNOWN, VAGUE), (VAGUE, KNOWN)]


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_merge_is_the_normalised_product(a, b):
    """What knows nothing merges away."""
    grid = torch.linspace(-12, 12, 20_001)[:, None]
    density = (gaussian(*a).log_prob(grid) + gaussian(*b).log_prob(grid)).exp()
    density = density / (density.sum() * (grid[1, 0] - grid[0, 0]))
    assert torch.allclose(
        merge(gaussian(*a), gaussian(*b)).log_prob(grid).exp(), density, rtol=0, atol=1e-10
    )
    if VAGUE in (a, b):
        assert torch.allclose(density, gaussian(*KNOWN).log_prob(grid).exp(), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("rows", "draws", "blocks"), [(5, 7, [7]), (2**13, 7, [2, 2, 2, 1]), (2**15, 3, [1, 1, 1])]
)
def test_expected_is_the_mean_over_so_many_draws(rows, draws, blocks):
    g = torch.Generator().manual_seed(0)
    w, seen = torch.randn(1, K, generator=g), []
    given = dist.Normal(torch.randn(rows, 1, generator=g), 0.5).to_event(1)

    def p_y(z):
        seen.append(z)
        return dist.OneHotCategorical(logits=z @ w)

    q = expected(p_y, given, draws)
    z = torch.cat([z.reshape(-1, rows, 1) for z in seen])
    assert [len(part) for part in seen] == blocks and len(z) == draws
    assert torch.allclose(q.probs, (z @ w).softmax(-1).mean(0), rtol=0, atol=1e-12)
    assert len(z.unique()) == z.numel()

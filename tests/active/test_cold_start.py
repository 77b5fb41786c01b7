"""The first query: clusters of the data or of an embedding."""

import pytest
import torch
from programs.active import POOL, X, learner

from pyro_ssl.active import pca_embedding, vae_embedding
from pyro_ssl.active.cold_start import diverse


def test_diverse_start_covers_the_clusters():
    torch.manual_seed(0)
    clusters = torch.cat(
        [torch.randn(50, 2) * 0.1 + torch.tensor(c) for c in ([0.0, 0], [9, 0], [0, 9], [9, 9])]
    )
    rows = learner(start="diverse").query(clusters, 4)
    assert sorted(r // 50 for r in rows.tolist()) == [0, 1, 2, 3]
    turned = learner(start="diverse", embedding=lambda x: x[:, :1]).query(clusters, 2)
    assert {float(clusters[r, 0] > 4) for r in turned} == {0.0, 1.0}


def test_vae_embedding_separates_groups():
    torch.manual_seed(0)
    images = torch.zeros(60, 1, 8, 8)
    images[:30, :, :4], images[30:, :, 4:] = 1.0, 1.0
    found = vae_embedding(images + 0.05 * torch.rand(60, 1, 8, 8), steps=60, z_dim=2)
    assert found.shape == (60, 2)
    apart = torch.cdist(found, found)
    assert apart[:30, :30].max() < apart[:30, 30:].min()
    assert vae_embedding(POOL, steps=2).shape == (200, 16)


def test_diverse_does_not_depend_on_the_order_of_the_pool():
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    assert order[diverse(X[order], 5)].equal(diverse(X, 5))


def test_pca_embedding_keeps_distances_of_data_in_few_dimensions(float64):
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))[0]
    x = latent @ rotation[:2]
    found = pca_embedding(x.reshape(50, 1, 2, 3), dim=2)
    assert torch.allclose(torch.cdist(found, found), torch.cdist(x, x), atol=1e-6)
    assert pca_embedding(x).shape == (50, 6)
    assert torch.equal(found, pca_embedding(x.reshape(50, 1, 2, 3), dim=2))


@pytest.mark.parametrize("sizes", [{"dim": 0}, {"fitted_rows": 0}])
def test_pca_embedding_names_a_size_of_zero(sizes):
    with pytest.raises(ValueError, match=f"{next(iter(sizes))} should be a whole number above 0"):
        pca_embedding(X, **sizes)


def test_diverse_asks_in_the_largest_clusters_without_a_label():
    torch.manual_seed(0)
    sizes = [40, 30, 20, 10]
    middles = torch.tensor([[0.0, 0], [9, 0], [0, 9], [9, 9]])
    groups = [
        0.1 * torch.randn(size, 2) + middle for size, middle in zip(sizes, middles, strict=True)
    ]
    clusters = torch.cat(groups)
    group_of = torch.arange(4).repeat_interleave(torch.tensor(sizes))
    chosen = diverse(clusters, 2, known=[0, 75])
    assert sorted(group_of[chosen].tolist()) == [1, 3]
    assert 0 not in diverse(clusters, 99, known=[0]).tolist()
    with pytest.raises(ValueError, match="n should be at most 99"):
        diverse(clusters, 100, known=[0])


@pytest.mark.parametrize("seed", range(4))
def test_diverse_asks_nothing_of_empty_clusters(seed):
    """Of equal rows, k-means makes more clusters than there are groups, most of them empty."""
    groups = torch.tensor([0.0, 5.0, 9.0]).repeat_interleave(torch.tensor([100, 50, 25]))
    known = [0, 1, 2, 3, 4, 5, 100]  # six of the first group, one of the second, none of the third
    chosen = diverse(groups[:, None], 3, seed, known=known)
    assert groups[chosen].tolist() == [9.0, 5.0, 9.0]
    assert groups[diverse(groups[:, None], 2, seed)].tolist() == [0.0, 5.0]
    most = diverse(groups[:, None], 168, seed, known=known)
    assert len({*known, *most.tolist()}) == 175


def test_diverse_asks_nothing_of_clusters_whose_rows_are_all_known():
    groups = torch.tensor([0.0] * 30 + [8.0] * 5 + [9.0])
    known = [0, 1, 30, 31, 32, 35]  # two of the first group, three of the second, all of the third
    assert groups[diverse(groups[:, None], 1, known=known)].tolist() == [0.0]

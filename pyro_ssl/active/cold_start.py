"""Queries without a model: the centres of clusters, of the data or of an embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from pyro_ssl import zoo
from pyro_ssl.active.pool import check_count, order_by_value
from pyro_ssl.data.sources import Source, as_source
from pyro_ssl.evaluation.ood import features
from pyro_ssl.training.fit import fit
from pyro_ssl.utils.arguments import as_data, check_positive

Start = Literal["random", "diverse"]
Embedding = Callable[[Tensor], Any]
"""A function of a pool that gives one vector per datum, `(N, Z)`."""
MOST_CLUSTERS = 100
"""Largest number of clusters, unless more data are chosen at once."""


def embedded(pool: Tensor, embedding: Embedding | None = None) -> Tensor:
    """Embed a pool, `(N, Z)`; without an embedding, the vectors are the data themselves.

    >>> embedded(torch.zeros(2, 3), lambda x: x[:, :1]).shape
    torch.Size([2, 1])

    Arguments:
        pool: Data `(N, *event)`.
        embedding: Function that gives the vectors.

    Raises:
        ValueError: The embedding gives another number of rows.
    """
    if embedding is None:
        return pool
    vectors = as_data(embedding(as_data(pool)), "embedding").detach()
    if len(vectors) != len(pool):
        shape = tuple(vectors.shape)
        raise ValueError(f"embedding should give {len(pool)} rows, one per datum, got {shape}")
    return vectors


def diverse(vectors: Any, n: int, seed: int = 0, *, known: Sequence[int] = ()) -> Tensor:
    """Choose the vectors that are nearest to n centres of k-means, `(n,)`; largest clusters first.

    With rows that are known already, there is one more cluster for each of them, up to
    `MOST_CLUSTERS`. Clusters without a known row come first, then those with the fewest.

    >>> diverse(torch.tensor([[0.0], [0.1], [5.0]]), 2).shape
    torch.Size([2])
    >>> diverse(torch.tensor([[0.0], [0.1], [5.0]]), 1, known=[0]).tolist()
    [2]

    Arguments:
        vectors: `(N, Z)`, in a scale where Euclidean distances make sense.
        n: Number of vectors.
        seed: Seed of the clustering.
        known: Rows that are not chosen, such as those with a label.

    Raises:
        ValueError: n is not in 1 .. N, less the known rows.

    References:
        Hacohen, Dekel and Weinshall, Active learning on a budget, ICML 2022: clusters without a
        label, the largest first.
    """
    from sklearn.cluster import MiniBatchKMeans

    vectors = as_data(vectors, "vectors").flatten(1).cpu()
    check_count(n, len(vectors) - len(known))
    order = order_by_value(vectors)
    vectors = vectors[order]
    is_free = torch.ones(len(order), dtype=torch.bool)
    is_free[list(known)] = False
    is_free = is_free[order]
    count = min(n + len(known), max(n, MOST_CLUSTERS))
    clusters = MiniBatchKMeans(count, random_state=seed, n_init=3, batch_size=4096)
    members = torch.as_tensor(clusters.fit_predict(vectors.numpy())).long()
    centres = torch.as_tensor(clusters.cluster_centers_).to(vectors)
    chosen: list[int] = []
    for _ in range(n):
        cluster = _next_cluster(members, is_free, count)
        distances = torch.cdist(centres[[cluster]], vectors).squeeze(0)
        distances[(members != cluster) | ~is_free] = torch.inf
        row = int(distances.argmin())
        is_free[row] = False
        chosen.append(row)
    return order[chosen]


def _next_cluster(members: Tensor, is_free: Tensor, count: int) -> int:
    """The cluster with the fewest rows that are taken, and of these the largest.

    A cluster without a free row, such as one that k-means left empty, has nothing to ask for.
    """
    sizes = members.bincount(minlength=count)
    free = members[is_free].bincount(minlength=count)
    rank = (sizes - free) * (len(members) + 1) - sizes
    rank[free == 0] = torch.iinfo(rank.dtype).max
    return int(rank.argmin())


def pca_embedding(x: Any, *, dim: int = 32, fitted_rows: int = 5000, seed: int = 0) -> Tensor:
    """Embed data by principal components, `(N, Z)`.

    It takes seconds where `vae_embedding` takes minutes. Z is `dim`, or as many components as the
    data have.

    >>> pca_embedding(torch.rand(20, 1, 4, 4), dim=2).shape
    torch.Size([20, 2])

    Arguments:
        x: Data `(N, *event)`.
        dim: Number of components.
        fitted_rows: Rows drawn at random from which the components are computed.
        seed: Seed of these rows and of the components.

    Raises:
        ValueError: dim or fitted_rows is not above 0.
    """
    from sklearn.decomposition import PCA

    check_positive(dim=dim, fitted_rows=fitted_rows)
    rows = as_data(x).flatten(1).cpu()
    generator = torch.Generator().manual_seed(seed)
    fitted = rows[torch.randperm(len(rows), generator=generator)[:fitted_rows]]
    components = PCA(min(dim, *fitted.shape), svd_solver="randomized", random_state=seed)
    components.fit(fitted.numpy())
    return torch.as_tensor(components.transform(rows.numpy()))


def vae_embedding(x: Any, *, z_dim: int = 16, steps: int = 2000, seed: int = 0) -> Tensor:
    """Embed data by a variational autoencoder, trained on them: means of q(z|x), `(N, Z)`.

    >>> vae_embedding(torch.rand(20, 3), z_dim=2, steps=1).shape
    torch.Size([20, 2])

    Arguments:
        x: Data `(N, *event)`; images get a convolutional network.
        z_dim: Z.
        steps: Number of training steps.
        seed: Seed of the weights and of training.
    """
    source = as_source(x)
    x = source if isinstance(source, Source) else as_data(x)
    is_image = len(x.shape) == 4
    vae = zoo.build(
        "vae",
        tuple(x.shape[1:]),
        2,
        seed=seed,
        z_dim=z_dim,
        network="conv" if is_image else "mlp",
        likelihood="gaussian",
        sigma=0.3,
        activation="relu",
        hidden=(256,),
    )
    batch_size = min(200, len(x))
    epochs = max(1, round(steps * batch_size / len(x)))
    fit(
        vae,
        x.without_labels() if isinstance(x, Source) else x,
        epochs=epochs,
        batch_size=batch_size,
        lr=2e-3,
        seed=seed,
        progress=False,
    )
    means = features(vae, x.without_labels() if isinstance(x, Source) else x)
    assert means is not None  # a VAE has latents
    return means

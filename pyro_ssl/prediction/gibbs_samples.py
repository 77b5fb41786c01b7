"""The draws of Gibbs chains: their convergence, and their form for ArviZ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import torch
from torch import Tensor

from pyro_ssl.infer import convergence

Site = Literal["p_y", "y", "z", "w"]
FIRST_DATATREE = 1
"""First major version of ArviZ whose data are xarray's DataTree."""


@dataclass(frozen=True)
class GibbsSamples:
    """Draws of `gibbs`, on the CPU.

    Arguments:
        p_y: The mean of p(y|x, z, W) at each draw of z and W, `(chains, draws, N, K)`: the class
            probabilities, or the mean of a real label. Their average is the prediction.
        y: The drawn labels, `(chains, draws, N, K)`.
        z: The drawn latents, `(chains, draws, N, Z)`.
        w: The drawn random weights, `(chains, draws, P)`, which all rows share; None if the model
            has none, or they were not kept.

    >>> from pyro_ssl import gibbs, zoo
    >>> sslpe = zoo.build("sslpe", (4,), 3, hidden=(8,), z_dim=2)
    >>> samples = gibbs(sslpe, torch.zeros(5, 4), steps=50, chains=4, return_samples=True)
    >>> samples.p_y.shape, samples.w
    (torch.Size([4, 50, 5, 3]), None)
    >>> samples.rhat().shape, samples.effective_sample_size("z").shape
    (torch.Size([5, 3]), torch.Size([5, 2]))
    """

    p_y: Tensor
    y: Tensor
    z: Tensor
    w: Tensor | None = None

    def rhat(self, site: Site = "p_y") -> Tensor:
        """R-hat of each value, float64 `(N, *)`; see `pyro_ssl.infer.convergence.rhat`.

        Arguments:
            site: The draws to look at; by default those of the prediction.

        Raises:
            ValueError: There is no such site; there are fewer than two chains, or fewer than four
                draws in each.
        """
        return torch.as_tensor(convergence.rhat(self._of(site).numpy()))

    def effective_sample_size(self, site: Site = "p_y") -> Tensor:
        """Effective number of draws of each value, float64 `(N, *)`.

        See `pyro_ssl.infer.convergence.effective_sample_size`.

        Arguments:
            site: The draws to look at; by default those of the prediction.

        Raises:
            ValueError: There is no such site, or fewer than four draws in each chain.
        """
        return torch.as_tensor(convergence.effective_sample_size(self._of(site).numpy()))

    def to_inference_data(
        self, *, rows: Sequence[Any] | None = None, labels: Sequence[Any] | None = None
    ) -> Any:
        """Convert to ArviZ's format, with the draws of each site in the group `posterior`.

        Dimensions are chain, draw, row, label (of p_y and y), latent (of z) and weight (of w).

        Arguments:
            rows: Names of the rows, N; by default 0 .. N - 1.
            labels: Names of the classes, or of the values of a real label, K.

        Returns:
            An `arviz.InferenceData`; from ArviZ 1 on, an `xarray.DataTree`.

        Raises:
            ImportError: ArviZ is not installed.
            ValueError: There is another number of rows or labels.
        """
        dims = {
            "p_y": ["row", "label"],
            "y": ["row", "label"],
            "z": ["row", "latent"],
            "w": ["weight"],
        }
        sizes = {"row": self.y.shape[2], "label": self.y.shape[3]}
        coords = {}
        for dim, names, argument in (("row", rows, "rows"), ("label", labels, "labels")):
            if names is None:
                continue
            if len(names) != sizes[dim]:
                raise ValueError(f"{argument} should have {sizes[dim]} names, got {len(names)}")
            coords[dim] = list(names)
        return _as_arviz(self._arrays(), coords, dims)

    def _of(self, site: Site) -> Tensor:
        values = {"p_y": self.p_y, "y": self.y, "z": self.z, "w": self.w}
        draws = values.get(site)
        if draws is None:
            there = ", ".join(name for name, value in values.items() if value is not None)
            raise ValueError(f"site should be one of {there}, got {site!r}")
        return draws

    def _arrays(self) -> dict[str, Any]:
        values = {"p_y": self.p_y, "y": self.y, "z": self.z, "w": self.w}
        return {name: value.numpy() for name, value in values.items() if value is not None}


def _as_arviz(
    posterior: dict[str, Any], coords: dict[str, list[Any]], dims: dict[str, list[str]]
) -> Any:
    dims = {name: dims[name] for name in posterior}
    try:
        major = int(version("arviz").partition(".")[0])
    except PackageNotFoundError:
        raise ImportError(
            "to_inference_data needs ArviZ; install it with pip install 'pyro-ssl[arviz]'"
        ) from None
    if major < FIRST_DATATREE:
        import arviz

        return arviz.from_dict(posterior=posterior, coords=coords, dims=dims)
    import arviz_base

    return arviz_base.from_dict({"posterior": posterior}, coords=coords, dims=dims)

"""Handlers that scale some sites of a program: those per datum, their latents, or shared ones."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.scale_messenger import ScaleMessenger
from torch import Tensor

from pyro_ssl.infer.sites import Site, data_plates, is_per_datum


class _ScaleSome(ScaleMessenger):
    """`poutine.scale` for some sites, which a subclass selects.

    Arguments:
        scale: The weight, or one for each datum, `(B,)`.
        rows: Number of data.
        shared_plates: Names of plates that all data share, whatever their size.
    """

    def __init__(
        self,
        scale: float | Tensor,
        rows: int | None = None,
        shared_plates: Collection[str] = (),
    ) -> None:
        super().__init__(scale)
        self.rows = rows
        self.shared_plates = shared_plates

    def is_per_datum(self, site: Site) -> bool:
        return is_per_datum(site, self.rows, self.shared_plates)


class scale_data(_ScaleSome):
    """`poutine.scale` for the sites per datum: the weight of a part of the data.

    Arguments:
        scale: The weight, or one for each datum, `(B,)`.
        rows: Number of data.
        shared_plates: Names of plates that all data share, whatever their size.

    >>> import pyro, pyro.distributions as dist, torch
    >>> def program():
    ...     pyro.sample("W", dist.Normal(0.0, 1.0))
    ...     with pyro.plate("data", 3):
    ...         pyro.sample("z", dist.Normal(0.0, 1.0))
    >>> with scale_data(0.5, rows=3):
    ...     trace = pyro.poutine.trace(program).get_trace()
    >>> trace.nodes["W"]["scale"], trace.nodes["z"]["scale"]
    (1.0, 0.5)
    """

    def _process_message(self, msg: Any) -> None:
        if msg["type"] != "sample" or self.is_per_datum(msg):
            super()._process_message(msg)


class scale_latents(_ScaleSome):
    r"""`poutine.scale` for the continuous latents per datum: the weight beta_t of their KL.

    The label is not scaled, so that its entropy keeps q(y|x) soft in the warm-up. Latents that all
    data share are not scaled either.

    Arguments:
        scale: The weight beta_t.
        rows: Number of data.
        shared_plates: Names of plates that all data share, whatever their size.

    >>> import pyro, pyro.distributions as dist
    >>> with scale_latents(0.5, rows=1), pyro.plate("data", 1), pyro.poutine.trace() as t:
    ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
    >>> t.trace.nodes["z"]["scale"]
    0.5
    """

    def _process_message(self, msg: Any) -> None:
        if msg["type"] != "sample" or msg["is_observed"] or msg["name"] == "y":
            return
        if not msg["fn"].has_enumerate_support and self.is_per_datum(msg):
            super()._process_message(msg)


class scale_shared(_ScaleSome):
    """`poutine.scale` for the sites that all data share.

    Arguments:
        scale: The weight.
        rows: Number of data.
        shared_plates: Names of plates that all data share, whatever their size.

    >>> import pyro, pyro.distributions as dist
    >>> with scale_shared(0.5, rows=3), pyro.poutine.trace() as t:
    ...     w = pyro.sample("W", dist.Normal(0.0, 1.0))
    >>> t.trace.nodes["W"]["scale"]
    0.5
    """

    def _process_message(self, msg: Any) -> None:
        if msg["type"] == "sample" and not self.is_per_datum(msg):
            super()._process_message(msg)


class undo_subsampling(Messenger):
    """Remove the factor N / B of `pyro.plate(name, N, subsample=x)`, for a bound per datum.

    Arguments:
        rows: Number of data B in the batch; None removes the factor of every plate.

    >>> import pyro, pyro.distributions as dist
    >>> with undo_subsampling(2), pyro.poutine.trace() as t:
    ...     with pyro.plate("data", 10, subsample_size=2):
    ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
    >>> t.trace.nodes["z"]["scale"]
    1.0
    """

    def __init__(self, rows: int | None = None) -> None:
        super().__init__()
        self.rows = rows

    def _pyro_sample(self, msg: Any) -> None:
        for plate in data_plates(msg):
            is_of_data = self.rows is None or plate.size == self.rows
            if is_of_data and plate.full_size not in (None, plate.size):
                msg["scale"] = msg["scale"] * (plate.size / plate.full_size)

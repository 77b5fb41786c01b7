"""Batch norm that is right for enumerated labels and for random weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_ssl.nn.tensor_marks import class_weights, mean_of
from pyro_ssl.utils.process_rows import all_sum


class BatchNorm(nn.BatchNorm1d):
    r"""Batch norm over all leading dimensions of `(*, F)`, with each datum counted once.

    .. math:: \gamma\, \frac{h - \mathrm E[\bar h]}{\sqrt{\mathrm{Var}[\bar h] + \epsilon}} + \beta

    If h depends on an enumerated label, `(V, B, F)`, its values are weighted by q(y|x). With equal
    weights, the statistics would include labels that no datum has, and would leak y. After a layer
    with random weights, :math:`\bar h` is the layer's output for the mean of the weights; elsewhere
    it is h.

    Arguments:
        num_features: F.

    References:
        Paper 002, eq. 5.3 to 5.10.

    >>> import torch
    >>> h = BatchNorm(4)(torch.randn(3, 10, 4))
    >>> h.shape, h.mean((0, 1)).abs().max() < 1e-6
    (torch.Size([3, 10, 4]), tensor(True))
    """

    def forward(self, h: Tensor) -> Tensor:
        assert self.running_mean is not None and self.running_var is not None
        if not self.training:
            return self._normalised(h, self.running_mean, self.running_var)
        mean, var = _statistics(h)
        with torch.no_grad():
            assert self.momentum is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var, self.momentum)
        return self._normalised(h, mean, var)

    def _normalised(self, h: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        return (h - mean) * ((var + self.eps).rsqrt() * self.weight) + self.bias


def _statistics(h: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and variance of the features, each `(F,)`."""
    values = mean_of(h)
    if h.dtype == torch.bfloat16:
        values = values.float()
    log_weights = class_weights.get()
    if log_weights is None or not _depends_on_label(values, log_weights):
        w = torch.ones_like(values[..., :1])
    else:
        w = log_weights.detach().exp().unsqueeze(-1)
        lead = torch.broadcast_shapes(w.shape[:-1], values.shape[:-1])
        values = values.expand(*lead, values.shape[-1])
        w = w.expand(*lead, 1)
    dims = tuple(range(values.dim() - 1))
    sums = all_sum(torch.cat([w.sum().view(1), (w * values).sum(dims)]))
    total = sums[0]
    mean = sums[1:] / total
    var = all_sum((w * (values - mean).square()).sum(dims)) / total
    return mean, var


def _depends_on_label(values: Tensor, log_weights: Tensor) -> bool:
    return values.dim() >= 3 and values.shape[-3:-1] == log_weights.shape[-2:]

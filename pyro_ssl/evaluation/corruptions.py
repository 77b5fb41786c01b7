"""Corrupted images at five severities, after Hendrycks & Dietterich but computed here.

Each corruption takes images `(N, C, H, W)` in [0, 1] and a severity, 1 to 5; `corrupted` clips
the result to [0, 1].
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pyro_ssl.evaluation import metrics
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.utils.arguments import as_data
from pyro_ssl.utils.context import fixed_seed

SEVERITIES = (1, 2, 3, 4, 5)


def _level(values: tuple[float, ...], severity: int) -> float:
    return values[severity - 1]


def gaussian_noise(x: Tensor, severity: int) -> Tensor:
    """Add normal noise; the level is its standard deviation, in units of x.

    >>> gaussian_noise(torch.zeros(1, 1, 8, 8), 5).std() > 0.1
    tensor(True)
    """
    return x + _level((0.04, 0.08, 0.12, 0.18, 0.26), severity) * torch.randn_like(x)


def shot_noise(x: Tensor, severity: int) -> Tensor:
    """Add Poisson noise; the level is the number of photons at a value of 1.

    >>> shot_noise(torch.zeros(1, 1, 8, 8), 5).any()
    tensor(False)
    """
    photons = _level((500.0, 100.0, 50.0, 25.0, 12.0), severity)
    return torch.poisson(x * photons) / photons


def impulse_noise(x: Tensor, severity: int) -> Tensor:
    """Set pixels to 0 or 1; the level is their share.

    >>> impulse_noise(torch.full((1, 1, 8, 8), 0.5), 1).shape
    torch.Size([1, 1, 8, 8])
    """
    share = _level((0.01, 0.03, 0.06, 0.1, 0.17), severity)
    return torch.where(torch.rand_like(x) < share, (torch.rand_like(x) < 0.5).to(x), x)


def gaussian_blur(x: Tensor, severity: int) -> Tensor:
    """Blur by a Gaussian kernel of 9 x 9; the level is its standard deviation in pixels.

    >>> gaussian_blur(torch.ones(1, 1, 8, 8), 3).allclose(torch.ones(1, 1, 8, 8))
    True
    """
    sigma = _level((0.4, 0.6, 0.8, 1.1, 1.6), severity)
    kernel = (-torch.arange(-4.0, 5.0).square() / (2 * sigma**2)).softmax(0)
    rows, columns = (_along(n, kernel).to(x) for n in x.shape[-2:])
    return rows @ x @ columns.T


def motion_blur(x: Tensor, severity: int) -> Tensor:
    """Average along each row; the level is the length of the average in pixels.

    >>> motion_blur(torch.ones(1, 1, 8, 8), 3).allclose(torch.ones(1, 1, 8, 8))
    True
    """
    length = int(_level((3, 5, 7, 9, 11), severity))
    return x @ _along(x.shape[-1], torch.full((length,), 1 / length)).to(x).T


def _along(n: int, kernel: Tensor) -> Tensor:
    """Matrix `(n, n)` of a convolution along n pixels; edge pixels are repeated."""
    at = torch.arange(n)[:, None] + torch.arange(len(kernel)) - len(kernel) // 2
    return torch.zeros(n, n).scatter_add(1, at.clamp(0, n - 1), kernel.expand(n, -1))


def contrast(x: Tensor, severity: int) -> Tensor:
    """Move values towards the mean of the image; the level is the factor of the difference.

    >>> contrast(torch.tensor([0.0, 1.0]).view(1, 1, 1, 2), 3).flatten().tolist()
    [0.30000001192092896, 0.699999988079071]
    """
    kept = _level((0.75, 0.5, 0.4, 0.3, 0.15), severity)
    mean = x.mean((-3, -2, -1), keepdim=True)
    return mean + kept * (x - mean)


def brightness(x: Tensor, severity: int) -> Tensor:
    """Raise all values by the level.

    >>> round(float(brightness(torch.zeros(1, 1, 1, 1), 3)), 2)
    0.15
    """
    return x + _level((0.05, 0.1, 0.15, 0.2, 0.3), severity)


def fog(x: Tensor, severity: int) -> Tensor:
    """Lay a haze of three scales over the image; the level is its share.

    >>> bool((fog(torch.zeros(1, 1, 8, 8), 3) >= 0.15).all())
    True
    """
    share = _level((0.2, 0.3, 0.4, 0.5, 0.6), severity)
    height, width = x.shape[-2:]
    haze = torch.zeros_like(x[:, :1])
    for n in (2, 4, 8):
        coarse = torch.rand(len(x), 1, n, n, device=x.device, dtype=x.dtype)
        haze = haze + functional.interpolate(coarse, (height, width), mode="bicubic") / n
    low, high = haze.amin((-2, -1), keepdim=True), haze.amax((-2, -1), keepdim=True)
    return (1 - share) * x + share * (0.4 + 0.6 * (haze - low) / (high - low).clamp_min(1e-6))


def pixelate(x: Tensor, severity: int) -> Tensor:
    """Replace blocks by their mean; the level is the share of rows and columns that are left.

    >>> len(pixelate(torch.rand(1, 1, 8, 8), 3).unique())
    16
    """
    size = _level((0.75, 0.6, 0.5, 0.4, 0.3), severity)
    rows, columns = (_blocks(n, max(1, round(size * n))).to(x) for n in x.shape[-2:])
    return rows @ x @ columns


def _blocks(n: int, k: int) -> Tensor:
    """Matrix `(n, n)` that replaces each of k runs of neighbours by its mean."""
    member = torch.nn.functional.one_hot(torch.arange(n) * k // n, k).float()
    return member / member.sum(0) @ member.T


def jpeg(x: Tensor, severity: int) -> Tensor:
    """Compress as JPEG and back; the level is the quality.

    >>> jpeg(torch.rand(1, 3, 8, 8), 3).shape
    torch.Size([1, 3, 8, 8])
    """
    import numpy as np
    from PIL import Image

    quality = int(_level((60, 35, 20, 12, 6), severity))
    images = []
    for image in (255 * x).round().to(torch.uint8).cpu().movedim(-3, -1).numpy():
        file = io.BytesIO()
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(
            file, "JPEG", quality=quality
        )
        images.append(torch.from_numpy(np.array(Image.open(file))).reshape(image.shape))
    return torch.stack(images).movedim(-1, -3).to(x) / 255


CORRUPTIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    f.__name__: f
    for f in (
        gaussian_noise,
        shot_noise,
        impulse_noise,
        gaussian_blur,
        motion_blur,
        contrast,
        brightness,
        fog,
        pixelate,
        jpeg,
    )
}


def corrupted(x: Any, name: str, severity: int, seed: int = 0) -> Tensor:
    """Corrupt images `(N, C, H, W)` in [0, 1], and clip them to [0, 1].

    >>> corrupted(torch.rand(2, 1, 8, 8), "fog", 3).shape
    torch.Size([2, 1, 8, 8])

    Arguments:
        x: The images.
        name: One of `CORRUPTIONS`.
        severity: 1 to 5.
        seed: Seed of the draws, which all severities share.

    Raises:
        ValueError: There is no such corruption or severity; x does not hold images in [0, 1].

    References:
        Hendrycks & Dietterich 2019 for the kinds; the levels are ours, for 28 to 32 pixels.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"name should be one of {', '.join(CORRUPTIONS)}; got {name!r}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity should be 1 to 5, got {severity!r}")
    x = as_data(x)
    if x.dim() != 4 or x.shape[1] not in (1, 3) or not 0 <= float(x.min()) <= float(x.max()) <= 1:
        extent = f"within {float(x.min()):.4g} .. {float(x.max()):.4g}"
        raise ValueError(
            f"x should be images (N, 1 or 3, H, W) in [0, 1], got {tuple(x.shape)}, {extent}"
        )
    with fixed_seed(seed):
        return CORRUPTIONS[name](x, severity).clamp(0, 1)


def under_corruption(
    objective: Objective,
    x: Any,
    y: Any,
    names: Iterable[str] = tuple(CORRUPTIONS),
    *,
    seed: int = 0,
) -> dict[str, list[dict[str, float]]]:
    """Measures, as in `metrics.evaluate`, under each corruption at severities 1 to 5.

    >>> from pyro_ssl import zoo
    >>> objective = zoo.build("classifier", (1, 8, 8), 2, hidden=(8,))
    >>> x = torch.rand(3, 1, 8, 8)
    >>> measured = under_corruption(objective, x, torch.tensor([0, 1, 0]), ["fog"])
    >>> len(measured["fog"])
    5

    Arguments:
        objective: The method.
        x: Images `(N, C, H, W)` in [0, 1].
        y: Class indices `(N,)`.
        names: Names of the corruptions.
        seed: Seed of the draws.

    Raises:
        ValueError: See `corrupted`.
    """
    return {
        name: [
            metrics.evaluate(predict_proba(objective, corrupted(x, name, s, seed), seed=seed), y)
            for s in SEVERITIES
        ]
        for name in names
    }

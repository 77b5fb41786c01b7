"""Augmentation of training data: random shifts, mirror images, affine maps and noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Noise(nn.Module):
    """In training, shift, mirror and warp images and add Gaussian noise; in evaluation, do nothing.

    Arguments:
        std: Standard deviation of the noise, in the units of the input.
        warp: Size of the random affine map, see `warped`.
        crop: Largest shift in pixels, see `cropped`.
        flip: Mirror half of the images.

    >>> noise = Noise(0.1, warp=0.2, crop=2)
    >>> noise(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 1, 8, 8])
    """

    def __init__(
        self, std: float = 0.0, *, warp: float = 0.0, crop: int = 0, flip: bool = False
    ) -> None:
        super().__init__()
        self.std = std
        self.warp = warp
        self.crop = crop
        self.flip = flip

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        if self.crop or self.flip:
            x = cropped(x, self.crop, self.flip)
        if self.warp:
            x = warped(x, self.warp)
        if self.std:
            x = x + self.std * torch.randn_like(x)
        return x


def cropped(x: Tensor, crop: int, flip: bool = False) -> Tensor:
    """Shift each image by whole pixels over a border of zeros, and mirror half of them.

    Arguments:
        x: Images `(*, C, H, W)`.
        crop: Largest shift in pixels, up or down and left or right.
        flip: Mirror half of the images left to right.

    >>> cropped(torch.ones(2, 1, 4, 4), 1).shape
    torch.Size([2, 1, 4, 4])
    """
    flat = x.reshape(-1, *x.shape[-3:])
    n, _, height, width = flat.shape
    rows = torch.arange(height, device=x.device).expand(n, height)
    columns = torch.arange(width, device=x.device).expand(n, width)
    if flip:
        is_flipped = torch.rand(n, 1, device=x.device) < 0.5
        columns = torch.where(is_flipped, columns.flip(-1), columns)
    top, left = torch.randint(2 * crop + 1, (2, n, 1), device=x.device)
    padded = nn.functional.pad(flat, (crop,) * 4).movedim(1, -1)
    index = torch.arange(n, device=x.device)[:, None, None]
    shifted = padded[index, (rows + top)[:, :, None], (columns + left)[:, None, :]]
    return shifted.movedim(-1, 1).reshape(x.shape)


def warped(x: Tensor, warp: float) -> Tensor:
    r"""Apply a random affine map to the plane of each image, with zeros beyond its edge.

    .. math:: u \mapsto (I + w E)\, u + w e, \quad
              E \in \mathbb R^{2 \times 2}, e \in \mathbb R^2, \text{ uniform on } [-1, 1]

    Arguments:
        x: Images `(*, C, H, W)`.
        warp: w, in half widths of the image: 0.2 turns by up to about 11 degrees and shifts by up
            to a tenth of the width.

    >>> warped(torch.ones(2, 1, 4, 4), 0.2).shape
    torch.Size([2, 1, 4, 4])
    """
    flat = x.reshape(-1, *x.shape[-3:])
    identity = torch.eye(2, 3, dtype=x.dtype, device=x.device)
    uniform = 2 * torch.rand(len(flat), 2, 3, dtype=x.dtype, device=x.device) - 1
    maps = identity + warp * uniform
    with torch.autocast(
        x.device.type, enabled=False
    ):  # half precision is off by a fifth of a pixel
        grid = nn.functional.affine_grid(maps, list(flat.shape), align_corners=False)
        return nn.functional.grid_sample(flat, grid, align_corners=False).reshape(x.shape)

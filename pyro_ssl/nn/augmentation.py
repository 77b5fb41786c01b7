"""What becomes of data in training, on their device: images are shifted, mirrored and warped; noise is added."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def cropped(x: Tensor, crop: int, flip: bool = False) -> Tensor:
    """Images `(*, C, H, W)`, each shifted by whole pixels over a border of zeros, and half of them mirrored left to right.

    Arguments:
        x: The images.
        crop: Largest shift in pixels, up or down and left or right.
        flip: Whether any are mirrored.
    """
    flat = x.reshape(-1, *x.shape[-3:])
    n, _, height, width = flat.shape
    rows, columns = (torch.arange(size, device=x.device).expand(n, size) for size in (height, width))
    if flip:
        columns = torch.where(torch.rand(n, 1, device=x.device) < 0.5, columns.flip(-1), columns)
    top, left = torch.randint(2 * crop + 1, (2, n, 1), device=x.device)
    padded = nn.functional.pad(flat, (crop,) * 4).movedim(1, -1)
    index = torch.arange(n, device=x.device)[:, None, None]
    return padded[index, (rows + top)[:, :, None], (columns + left)[:, None, :]].movedim(-1, 1).reshape(x.shape)


def warped(x: Tensor, warp: float) -> Tensor:
    r"""Images `(*, C, H, W)`, each under a random affine map of its plane, with zeros where it looks beyond the edge.

    .. math:: u \mapsto (I + w E)\, u + w e, \quad E \in \mathbb R^{2 \times 2}, e \in \mathbb R^2, \text{ uniform on } [-1, 1]

    Arguments:
        x: The images.
        warp: w, in half widths of the image: 0.2 turns by up to about 11 degrees and shifts by up to a tenth of the width.
    """
    flat = x.reshape(-1, *x.shape[-3:])
    identity = torch.eye(2, 3, dtype=x.dtype, device=x.device)
    maps = identity + warp * (2 * torch.rand(len(flat), 2, 3, dtype=x.dtype, device=x.device) - 1)
    with torch.autocast(x.device.type, enabled=False):  # half precision is a fifth of a pixel
        grid = nn.functional.affine_grid(maps, list(flat.shape), align_corners=False)
        return nn.functional.grid_sample(flat, grid, align_corners=False).reshape(x.shape)


class Noise(nn.Module):
    """In training, shift, mirror and warp an image and add Gaussian noise; nothing in evaluation.

    Arguments:
        std: Standard deviation of the noise, in the units of the input.
        warp: Size of the random affine map, see `warped`.
        crop: Largest shift in pixels, see `cropped`.
        flip: Whether half of the images are mirrored.
    """

    def __init__(self, std: float = 0.0, *, warp: float = 0.0, crop: int = 0, flip: bool = False) -> None:
        super().__init__()
        self.std, self.warp, self.crop, self.flip = std, warp, crop, flip

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        x = cropped(x, self.crop, self.flip) if self.crop or self.flip else x
        x = warped(x, self.warp) if self.warp else x
        return x + self.std * torch.randn_like(x) if self.std else x

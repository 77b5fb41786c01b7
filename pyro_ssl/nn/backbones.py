"""Networks from an image to features: a small CNN, ResNets and wide ResNets."""

from __future__ import annotations

import re
from itertools import pairwise

import torch
from torch import Tensor, nn

from pyro_ssl.nn.augmentation import Noise
from pyro_ssl.nn.layers import Flat, Shape, as_shape
from pyro_ssl.nn.networks import MLP
from pyro_ssl.utils.torchvision_repair import torchvision


class Backbone(nn.Module):
    """An image network, chosen by name, then a linear layer over its features and further inputs.

    Arguments:
        name: `cnn-WIDTH`, `resnet18`, `resnet34`, `resnet50`, or `wrn-D-K`, such as `wrn-28-10`.
        in_shapes: `[(C, H, W), ...]`: shape of the image, then event shapes of further inputs; or
            the shape of the image alone.
        out_shape: Event shape of the output.
        dropout: Probability of dropping a feature in training; in a wide ResNet also within each
            block.
        noise: Augmentation of the image in training.

    Raises:
        ValueError: There is no network of that name; the first input is not an image.

    >>> Backbone("cnn-4", (1, 8, 8), 10)(torch.rand(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        name: str,
        in_shapes: Shape | list[Shape],
        out_shape: Shape,
        *,
        dropout: float = 0.0,
        noise: Noise | None = None,
    ) -> None:
        super().__init__()
        shapes = in_shapes if isinstance(in_shapes, list) else [in_shapes]
        image, *others = shapes
        shape = as_shape(image)
        if len(shape) != 3:
            raise ValueError(f"backbone: {name} should have an image (C, H, W), got {shape}")
        network, size = _by_name(name, shape[0], dropout)
        self.noise = noise or Noise()
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.features = Flat(network, event_dim=3)
        self.dropout = nn.Dropout(dropout)
        self.head = MLP([size, *others], out_shape, (), precise=True)

    def forward(self, image: Tensor, *others: Tensor) -> Tensor:
        features = self.dropout(self.features(self.noise(image)))
        h: Tensor = self.head(features, *others)
        return h


def _by_name(name: str, channels: int, dropout: float) -> tuple[nn.Module, int]:
    """Build a network `(N, C, H, W)` -> `(N, size)` by its name; return it and `size`."""
    if match := re.fullmatch(r"cnn-([1-9]\d*)", name):
        return cnn(int(match[1]), channels)
    if match := re.fullmatch(r"resnet(18|34|50)", name):
        return resnet(int(match[1]), channels)
    if match := re.fullmatch(r"wrn-(\d+)-(\d+)", name):
        wide = WideResNet(int(match[1]), int(match[2]), channels, dropout)
        return wide, wide.size
    raise ValueError(
        "backbone should be cnn-WIDTH such as cnn-32, resnet18, resnet34, resnet50 or "
        f"wrn-DEPTH-WIDTH such as wrn-28-10, got {name!r}"
    )


def cnn(width: int, channels: int) -> tuple[nn.Module, int]:
    """Build six 3x3 convolutions with batch norm; return the network and its number of features.

    The first has `width` channels, the next two have twice as many, and the last three four times.
    Pooling halves the image after the first and after the third.

    >>> network, size = cnn(4, 1)
    >>> network(torch.rand(5, 1, 8, 8)).shape, size
    (torch.Size([5, 16]), 16)
    """
    widths = [width, 2 * width, 2 * width, 4 * width, 4 * width, 4 * width]
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise([channels, *widths])):
        layers.append(nn.Conv2d(before, after, 3, padding=1, bias=False))
        if i in (0, 2):
            layers.append(nn.MaxPool2d(2))
        layers.append(nn.BatchNorm2d(after))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), widths[-1]


def resnet(depth: int, channels: int) -> tuple[nn.Module, int]:
    """Build torchvision's ResNet for small images; return it and its number of features.

    Its first layer is a 3x3 convolution of stride 1 without pooling, instead of a 7x7 one of
    stride 2.

    >>> network, size = resnet(18, channels=1)
    >>> network(torch.rand(2, 1, 8, 8)).shape, size
    (torch.Size([2, 512]), 512)
    """
    network = getattr(torchvision().models, f"resnet{depth}")(weights=None)
    network.conv1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    size = network.fc.in_features
    network.maxpool = nn.Identity()
    network.fc = network.maxpool
    return network, size


class WideResNet(nn.Module):
    """WRN-d-k: three groups of (d - 4) / 6 blocks with 16k, 32k and 64k channels.

    It maps `(N, C, H, W)` to `(N, 64 k)`.

    Arguments:
        depth: d, 4 more than a multiple of 6.
        width: k.
        channels: C.
        dropout: Probability of dropping a feature within each block.

    Raises:
        ValueError: There is no network of that depth or width.

    References:
        Zagoruyko & Komodakis 2016.

    >>> WideResNet(10, 1, 3)(torch.rand(2, 3, 8, 8)).shape
    torch.Size([2, 64])
    """

    def __init__(self, depth: int, width: int, channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1 or width < 1:
            raise ValueError(
                "backbone: the depth should be 4 more than a multiple of 6, "
                f"got wrn-{depth}-{width}"
            )
        self.size = 64 * width
        sizes = [16, 16 * width, 32 * width, 64 * width]
        layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, 1, 1, bias=False)]
        for group, (before, after) in enumerate(pairwise(sizes)):
            stride = 1 if group == 0 else 2
            layers.append(WideBlock(before, after, stride, dropout))
            layers += [WideBlock(after, after, 1, dropout) for _ in range(blocks - 1)]
        self.layers = nn.Sequential(
            *layers,
            nn.BatchNorm2d(self.size),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x)
        return features


class WideBlock(nn.Module):
    """A block of a wide ResNet: two 3x3 convolutions with dropout between, plus a shortcut.

    Batch norm and ReLU precede each convolution.

    Arguments:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the first convolution.
        dropout: Probability of dropping a feature between the convolutions.

    >>> WideBlock(4, 8, stride=2, dropout=0.0)(torch.rand(2, 4, 8, 8)).shape
    torch.Size([2, 8, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False),
        )
        self.shortcut: nn.Module | None = None
        if in_channels != out_channels or stride != 1:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        shortcut: Tensor = x if self.shortcut is None else self.shortcut(h)
        out: Tensor = self.body(h) + shortcut
        return out

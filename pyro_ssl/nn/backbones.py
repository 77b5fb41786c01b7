"""Networks from an image to features: a small CNN, wide residual networks, torchvision's ResNets for small images."""

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
    """A network over an image by its name, then a linear layer over its features and any further inputs.

    Arguments:
        name: `cnn-WIDTH`, `resnet18`, `resnet34`, `resnet50`, or `wrn-D-K`, such as `wrn-28-10`.
        in_shapes: `[(C, H, W), ...]`: the image's shape, then the event shapes of further inputs (or the image's alone).
        out_shape: Event shape of the output.
        dropout: Probability of dropping a feature, and of a wide ResNet those within each block, in training.
        noise: What the image goes through in training.

    Raises:
        ValueError: There is no network of that name; the first input is no image.
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
        image, *others = in_shapes if isinstance(in_shapes, list) else [in_shapes]
        if len(as_shape(image)) != 3:
            raise ValueError(f"backbone: {name} should have an image (C, H, W), got {as_shape(image)}")
        network, size = _made(name, as_shape(image)[0], dropout)
        self.noise = noise or Noise()
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.features, self.dropout = Flat(network, event_dim=3), nn.Dropout(dropout)
        self.head = MLP([size, *others], out_shape, (), precise=True)

    def forward(self, image: Tensor, *others: Tensor) -> Tensor:
        return self.head(self.dropout(self.features(self.noise(image))), *others)


def _made(name: str, channels: int, dropout: float) -> tuple[nn.Module, int]:
    """The network of a name, `(N, C, H, W)` -> `(N, size)`, and the size of its features."""
    if found := re.fullmatch(r"cnn-([1-9]\d*)", name):
        return cnn(int(found[1]), channels)
    if found := re.fullmatch(r"resnet(18|34|50)", name):
        return resnet(int(found[1]), channels)
    if found := re.fullmatch(r"wrn-(\d+)-(\d+)", name):
        network = WideResNet(int(found[1]), int(found[2]), channels, dropout)
        return network, network.size
    raise ValueError(
        f"backbone should be cnn-WIDTH such as cnn-32, resnet18, resnet34, resnet50 or wrn-DEPTH-WIDTH such as wrn-28-10, got {name!r}"
    )


def cnn(width: int, channels: int) -> tuple[nn.Module, int]:
    """Six 3x3 convolutions with batch norm: one of `width` channels, two of twice, three of four times, at half the height each."""
    widths = [width, 2 * width, 2 * width, 4 * width, 4 * width, 4 * width]
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise([channels, *widths])):
        layers += [nn.Conv2d(a, b, 3, padding=1, bias=False), *([nn.MaxPool2d(2)] if i in (0, 2) else [])]
        layers += [nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), widths[-1]


def resnet(depth: int, channels: int) -> tuple[nn.Module, int]:
    """torchvision's ResNet with the stem of small images: one 3x3 convolution of stride 1, no pooling."""
    network = getattr(torchvision().models, f"resnet{depth}")(weights=None)
    network.conv1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    size = network.fc.in_features
    network.maxpool = network.fc = nn.Identity()
    return network, size


class WideBlock(nn.Module):
    """Two 3x3 convolutions after batch norm and ReLU, with dropout between them, beside a shortcut."""

    def __init__(self, a: int, b: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.Sequential(nn.BatchNorm2d(a), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(a, b, 3, stride, 1, bias=False),
            nn.BatchNorm2d(b),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(b, b, 3, 1, 1, bias=False),
        )
        self.shortcut = None if a == b and stride == 1 else nn.Conv2d(a, b, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        return self.body(h) + (x if self.shortcut is None else self.shortcut(h))


class WideResNet(nn.Module):
    """WRN-d-k: three groups of (d - 4) / 6 blocks of 16k, 32k and 64k channels: `(N, C, H, W)` -> `(N, 64 k)`.

    Arguments:
        depth: d, 4 more than a multiple of 6.
        width: k.
        channels: C.
        dropout: Within each block.

    Raises:
        ValueError: There is no network of such depth or width.

    References:
        Zagoruyko & Komodakis 2016.
    """

    def __init__(self, depth: int, width: int, channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1 or width < 1:
            raise ValueError(f"backbone: the depth should be 4 more than a multiple of 6, got wrn-{depth}-{width}")
        sizes, self.size = [16, 16 * width, 32 * width, 64 * width], 64 * width
        layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, 1, 1, bias=False)]
        for i, (a, b) in enumerate(pairwise(sizes)):
            layers.append(WideBlock(a, b, 2 if i else 1, dropout))
            layers += [WideBlock(b, b, 1, dropout) for _ in range(blocks - 1)]
        self.layers = nn.Sequential(
            *layers, nn.BatchNorm2d(self.size), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

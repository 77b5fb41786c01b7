"""Networks over several inputs, each of which may have extra leading dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from pyro_ssl.nn.augmentation import Noise
from pyro_ssl.nn.layers import Flat, Linear, Shape, SplitLinear, as_shape
from pyro_ssl.nn.norm import BatchNorm


class MLP(nn.Module):
    """A multi-layer perceptron over one or several inputs, whose first layer is split by input.

    Arguments:
        in_shapes: Event shape of each input, `784`, `(1, 28, 28)` or `[(1, 28, 28), 10]` (a list
            means several inputs).
        out_shape: Event shape of the output.
        hidden: Widths of the hidden layers; none makes it linear.
        activation: Class of the activation.
        batch_norm: Batch norm before each activation; the values of an enumerated label are
            weighted by q(y|x).
        dropout: Probability of dropping a hidden unit in training.
        noise: Augmentation of the first input in training; a number is the standard deviation of
            Gaussian noise.
        precise: Under autocast, compute the last layer in full precision. The parameters of a
            latent need it: its scale may be smaller than half precision resolves.

    >>> mlp = MLP([(1, 8, 8), 10], 2, hidden=(32,))
    >>> mlp(torch.rand(5, 1, 8, 8), torch.eye(10).unsqueeze(1)).shape
    torch.Size([10, 5, 2])
    """

    def __init__(
        self,
        in_shapes: Shape | list[Shape],
        out_shape: Shape,
        hidden: Sequence[int] = (500,),
        *,
        activation: Callable[[], nn.Module] = nn.Softplus,
        batch_norm: bool = False,
        dropout: float = 0.0,
        noise: float | Noise = 0.0,
        precise: bool = False,
    ) -> None:
        super().__init__()
        self.out_shape = as_shape(out_shape)
        widths = [*hidden, math.prod(self.out_shape)]
        self.noise = _as_noise(noise)
        self.precise = precise
        self.first = SplitLinear(_as_list(in_shapes), widths[0])
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            if batch_norm:
                layers.append(BatchNorm(before))
            layers.append(activation())
            if dropout:
                layers.append(nn.Dropout(dropout))
            layers.append(Linear(before, after))
        self.rest = nn.Sequential(*layers)

    def forward(self, *inputs: Tensor) -> Tensor:
        inputs = (self.noise(inputs[0]), *inputs[1:])
        if not self.precise:
            h: Tensor = self.rest(self.first(*inputs))
            return h.unflatten(-1, self.out_shape)
        *hidden, last = [self.first, *self.rest]
        for layer in hidden:
            inputs = (layer(*inputs),)
        with torch.autocast(inputs[0].device.type, enabled=False):
            h = last(*(x.to(self.first.bias) for x in inputs))
            return h.unflatten(-1, self.out_shape)


class ConvEncoder(nn.Module):
    """Strided convolutions over an image, then an MLP over its features and any further inputs.

    Only the image passes through the convolutions, so they run once, not once per class.

    Arguments:
        in_shapes: `[(C, H, W), ...]`: shape of the image, then event shapes of further inputs; or
            the shape of the image alone.
        out_shape: Event shape of the output.
        channels: Output channels of each 3x3 convolution with stride 2.
        hidden: Widths of the hidden layers after the convolutions.
        activation: Class of the activation.
        batch_norm: Batch norm after each convolution; safe, since the image does not depend on an
            enumerated label.
        dropout: Probability of dropping a hidden unit in training.
        noise: Augmentation of the image in training; a number is the standard deviation of Gaussian
            noise.
        precise: Compute the last layer in full precision under autocast, see `MLP`.

    Raises:
        ValueError: The first input is not an image.

    >>> ConvEncoder([(1, 8, 8), 10], 2)(torch.rand(5, 1, 8, 8), torch.rand(5, 10)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        in_shapes: Shape | list[Shape],
        out_shape: Shape,
        channels: Sequence[int] = (32, 64),
        hidden: Sequence[int] = (256,),
        *,
        activation: Callable[[], nn.Module] = nn.ReLU,
        batch_norm: bool = False,
        dropout: float = 0.0,
        noise: float | Noise = 0.0,
        precise: bool = False,
    ) -> None:
        super().__init__()
        image, *others = _as_list(in_shapes)
        shape = as_shape(image)
        if len(shape) != 3:
            raise ValueError(
                "in_shapes: the first input of a ConvEncoder should be an image (C, H, W), "
                f"got {shape}"
            )
        layers: list[nn.Module] = []
        for before, after in pairwise([shape[0], *channels]):
            layers.append(nn.Conv2d(before, after, 3, stride=2, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(after))
            layers.append(activation())
        self.noise = _as_noise(noise)
        self.features = Flat(nn.Sequential(*layers), event_dim=3)
        self.head = MLP(
            [_output_shape(self.features, shape), *others],
            out_shape,
            hidden,
            activation=activation,
            dropout=dropout,
            precise=precise,
        )

    def forward(self, image: Tensor, *others: Tensor) -> Tensor:
        features = self.features(self.noise(image))
        h: Tensor = self.head(features, *others)
        return h


class ConvDecoder(nn.Module):
    """An MLP over the inputs, then transposed convolutions: the mirror of `ConvEncoder`.

    Arguments:
        in_shapes: Event shape of each input.
        out_shape: `(C, H, W)`; if H or W is not divisible by 2 to the number of convolutions, a
            larger image is computed and cropped.
        channels: Channels before each transposed convolution, coarsest first.
        hidden: Widths of the hidden layers before the convolutions.
        activation: Class of the activation.

    Raises:
        ValueError: The output is not an image.

    >>> ConvDecoder([2, 10], (1, 9, 9))(torch.rand(5, 2), torch.rand(5, 10)).shape
    torch.Size([5, 1, 9, 9])
    """

    def __init__(
        self,
        in_shapes: Shape | list[Shape],
        out_shape: Shape,
        channels: Sequence[int] = (64, 32),
        hidden: Sequence[int] = (256,),
        *,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        shape = as_shape(out_shape)
        if len(shape) != 3:
            raise ValueError(
                f"out_shape: the output of a ConvDecoder should be an image (C, H, W), got {shape}"
            )
        image_channels, self.height, self.width = shape
        factor = 2 ** len(channels)
        coarse_height = math.ceil(self.height / factor)
        coarse_width = math.ceil(self.width / factor)
        coarse = (channels[0], coarse_height, coarse_width)
        self.first = MLP(in_shapes, coarse, hidden, activation=activation)
        layers: list[nn.Module] = []
        for before, after in pairwise([*channels, image_channels]):
            layers.append(activation())
            layers.append(nn.ConvTranspose2d(before, after, 4, stride=2, padding=1))
        self.image = Flat(nn.Sequential(*layers), event_dim=3)

    def forward(self, *inputs: Tensor) -> Tensor:
        image: Tensor = self.image(self.first(*inputs))
        return image[..., : self.height, : self.width]


def _as_list(shapes: Shape | list[Shape]) -> list[Shape]:
    return shapes if isinstance(shapes, list) else [shapes]


def _as_noise(noise: float | Noise) -> Noise:
    return noise if isinstance(noise, Noise) else Noise(noise)


def _output_shape(network: nn.Module, in_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Event shape of a network's output, found without a change of its batch norm's statistics."""
    network.eval()
    with torch.no_grad():
        output: Tensor = network(torch.zeros(1, *in_shape))
    network.train()
    return tuple(output.shape[1:])

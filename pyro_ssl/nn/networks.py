"""Networks over several inputs, each of which may carry extra leading (enumerated or sampled) dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from pyro_ssl.nn.augmentation import Noise
from pyro_ssl.nn.layers import BatchNorm, Flat, Linear, Shape, SplitLinear, as_shape


class MLP(nn.Module):
    """A multi-layer perceptron over one or several inputs, whose first layer is split per input.

    Arguments:
        in_shapes: Event shape of each input, `784`, `(1, 28, 28)` or `[(1, 28, 28), 10]` (a list means several inputs).
        out_shape: Event shape of the output.
        hidden: Widths of the hidden layers; none makes it linear.
        activation: Class of the activation.
        batch_norm: Batch norm before each activation; inside a bound whatever stands for an enumerated label is weighed by
            q(y|x).
        dropout: Probability of dropping a hidden unit in training.
        noise: What the first input goes through in training; a number is the standard deviation of Gaussian noise.
        precise: Under autocast, the last layer is in full precision: for a code, which half precision would round by as much
            as its scale may be.
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
        shapes = in_shapes if isinstance(in_shapes, list) else [in_shapes]
        self.out_shape = as_shape(out_shape)
        widths = [*hidden, math.prod(self.out_shape)]
        self.noise, self.precise = noise if isinstance(noise, Noise) else Noise(noise), precise
        self.first = SplitLinear(shapes, widths[0])
        layers: list[nn.Module] = []
        for i, o in pairwise(widths):
            layers += [BatchNorm(i)] if batch_norm else []
            layers += [activation()]
            layers += [nn.Dropout(dropout)] if dropout else []
            layers += [Linear(i, o)]
        self.rest = nn.Sequential(*layers)

    def forward(self, *inputs: Tensor) -> Tensor:
        inputs = (self.noise(inputs[0]), *inputs[1:])
        if not self.precise:
            return self.rest(self.first(*inputs)).unflatten(-1, self.out_shape)
        *hidden, last = [self.first, *self.rest]
        for layer in hidden:
            inputs = (layer(*inputs),)
        with torch.autocast(inputs[0].device.type, enabled=False):
            return last(*(h.to(self.first.bias) for h in inputs)).unflatten(-1, self.out_shape)


class ConvEncoder(nn.Module):
    """Strided convolutions over an image, then an MLP over its features and any further inputs.

    The convolutions see the image alone, so they run once and not once per enumerated label.

    Arguments:
        in_shapes: `[(C, H, W), ...]`: the image's shape, then the event shapes of further inputs (or the image's alone).
        out_shape: Event shape of the output.
        channels: Output channels of each 3x3 convolution with stride 2.
        hidden: Widths of the hidden layers after the convolutions.
        activation: Class of the activation.
        batch_norm: Batch norm after each convolution; safe, since the image carries no enumerated label.
        dropout: Probability of dropping a hidden unit in training.
        noise: What the image goes through in training; a number is the standard deviation of Gaussian noise.
        precise: As of `MLP`.
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
        image, *others = in_shapes if isinstance(in_shapes, list) else [in_shapes]
        shape = as_shape(image)
        if len(shape) != 3:
            raise ValueError(f"in_shapes: the first input of a ConvEncoder should be an image (C, H, W), got {shape}")
        layers: list[nn.Module] = []
        for i, o in pairwise([shape[0], *channels]):
            layers += [nn.Conv2d(i, o, 3, stride=2, padding=1)]
            layers += [nn.BatchNorm2d(o)] if batch_norm else []
            layers += [activation()]
        self.noise = noise if isinstance(noise, Noise) else Noise(noise)
        self.features = Flat(nn.Sequential(*layers), event_dim=3)
        with torch.no_grad():
            features = tuple(nn.Sequential(*layers).eval()(torch.zeros(1, *shape)).shape[1:])
        self.features.train()
        self.head = MLP([features, *others], out_shape, hidden, activation=activation, dropout=dropout, precise=precise)

    def forward(self, image: Tensor, *others: Tensor) -> Tensor:
        return self.head(self.features(self.noise(image)), *others)


class ConvDecoder(nn.Module):
    """An MLP over the inputs, then transposed convolutions up to an image: the mirror of `ConvEncoder`.

    Arguments:
        in_shapes: Event shape of each input.
        out_shape: `(C, H, W)`; where H or W is not divisible by 2 once per channel, the picture is larger, and cut.
        channels: Channels before each transposed convolution, coarsest first.
        hidden: Widths of the hidden layers before the convolutions.
        activation: Class of the activation.

    Raises:
        ValueError: The output is no image.
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
            raise ValueError(f"out_shape: the output of a ConvDecoder should be an image (C, H, W), got {shape}")
        c, self.height, self.width = shape
        n = 2 ** len(channels)
        coarse = (channels[0], -(-self.height // n), -(-self.width // n))
        self.first = MLP(in_shapes, coarse, hidden, activation=activation)
        layers: list[nn.Module] = []
        for i, o in pairwise([*channels, c]):
            layers += [activation(), nn.ConvTranspose2d(i, o, 4, stride=2, padding=1)]
        self.image = Flat(nn.Sequential(*layers), event_dim=3)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.image(self.first(*inputs))[..., : self.height, : self.width]

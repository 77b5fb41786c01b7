"""From options to conditionals: a method names only the inputs and outputs of each network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from pyro_ssl.distributions.conditionals import (
    Bernoulli,
    Conditional,
    Gaussian,
    HeteroscedasticGaussian,
    Normal,
    OneHotCategorical,
)
from pyro_ssl.distributions.priors import ClassPrior
from pyro_ssl.nn.augmentation import Noise
from pyro_ssl.nn.backbones import Backbone
from pyro_ssl.nn.layers import Shape, check_shape
from pyro_ssl.nn.networks import MLP, ConvDecoder, ConvEncoder
from pyro_ssl.utils.arguments import check_positive, check_probs, looks_channels_last
from pyro_ssl.zoo.options import ClassifierOptions, LikelihoodOptions, NetworkOptions

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "softplus": nn.Softplus,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


@dataclass(frozen=True)
class Conditionals:
    """Build the conditionals of a method.

    Arguments:
        x_shape: Event shape of x, `(D,)` or `(C, H, W)`.
        classes: K.
        networks: The networks of all conditionals.
        classifier: The network that classifies x.
        likelihood: The family of p(x|.).
        class_probs: Class probabilities of p(y); None means uniform.

    Raises:
        ValueError: The options do not suit data of this shape or this number of classes.

    >>> import torch
    >>> make = Conditionals((4,), 3, NetworkOptions(hidden=(8,)))
    >>> make.q_y()(torch.zeros(5, 4)).probs.shape
    torch.Size([5, 3])
    """

    x_shape: tuple[int, ...]
    classes: int
    networks: NetworkOptions = NetworkOptions()
    classifier: ClassifierOptions = ClassifierOptions()
    likelihood: LikelihoodOptions = LikelihoodOptions()
    class_probs: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check_shape("x_shape", self.x_shape)
        check_positive(classes=self.classes)
        if self.class_probs is not None:
            check_probs(self.class_probs, self.classes)
        self._check_images()
        self._check_channels_first()

    def p_y(self, *, learn: bool = False) -> ClassPrior:
        """The prior over classes."""
        if self.class_probs is None:
            return ClassPrior(self.classes, learn=learn)
        return ClassPrior(check_probs(self.class_probs, self.classes), learn=learn)

    def p_x(self, *inputs: Shape) -> Conditional:
        """p(x|inputs)."""
        event_dim = len(self.x_shape)
        if self.likelihood.likelihood == "heteroscedastic_gaussian":
            size, *rest = self.x_shape
            decoder = self._decoder(inputs, (2 * size, *rest))
            start = self.likelihood.x_log_variance
            return HeteroscedasticGaussian(decoder, event_dim, log_variance=start)
        decoder = self._decoder(inputs, self.x_shape)
        if self.likelihood.likelihood == "bernoulli":
            return Bernoulli(decoder, event_dim)
        if self.likelihood.sigma is None:
            return Gaussian(decoder, event_dim, sigma=1.0, learn_sigma=True)
        return Gaussian(decoder, event_dim, sigma=self.likelihood.sigma, learn_sigma=False)

    def q_y(self, *others: Shape, real: bool = False) -> Conditional:
        """q(y|x,others), over one-hot vectors, or over real ones of size `classes`."""
        out = 2 * self.classes if real else self.classes
        hidden = self.classifier_hidden
        network = self._classifier(others, out, self.classifier.dropout, hidden=hidden)
        return Normal(network) if real else OneHotCategorical(network)

    def p_y_of(self, *latents: Shape) -> OneHotCategorical:
        """p(y|latents), over one-hot vectors.

        The network is part of model and guide, so dropout would be drawn twice: there is none.
        """
        network = MLP(
            list(latents),
            self.classes,
            self.classifier_hidden,
            activation=self._activation,
            batch_norm=self.networks.batch_norm,
        )
        return OneHotCategorical(network)

    def q_z(self, z_dim: int, *others: Shape) -> Normal:
        """q(z|x,others)."""
        return Normal(self.encoder(others, 2 * z_dim))

    def q_z_classified(self, z_dim: int, dropout: float = 0.0) -> Normal:
        """q(z|x) of a z that is classified, with the classifier's network and noise."""
        return Normal(self.code_network(2 * z_dim, dropout))

    def code_network(
        self, out: Shape, dropout: float, hidden: Sequence[int] | None = None
    ) -> nn.Module:
        """Network, in full precision, from x to a code that is classified."""
        return self._classifier([], out, dropout, hidden=hidden, precise=True)

    def encoder(self, others: Sequence[Shape], out: Shape) -> nn.Module:
        """Network from x and others to `out`."""
        return self._encoder(self.networks.network, others, out)

    def mlp(self, inputs: Sequence[Shape], out: Shape, hidden: Sequence[int] | None = None) -> MLP:
        """Network between latent variables, with hidden layers of `hidden` or the usual widths."""
        return MLP(
            list(inputs),
            out,
            self.networks.hidden if hidden is None else hidden,
            activation=self._activation,
            batch_norm=self.networks.batch_norm,
        )

    def _classifier(
        self,
        others: Sequence[Shape],
        out: Shape,
        dropout: float,
        *,
        hidden: Sequence[int] | None = None,
        precise: bool = False,
    ) -> nn.Module:
        options = self.classifier
        noise = Noise(options.noise, warp=options.warp, crop=options.crop, flip=options.flip)
        if options.backbone is not None:
            inputs = [self.x_shape, *others]
            return Backbone(options.backbone, inputs, out, dropout=dropout, noise=noise)
        return self._encoder(
            options.classifier_network or self.networks.network,
            others,
            out,
            hidden=hidden,
            dropout=dropout,
            noise=noise,
            precise=precise,
        )

    def _encoder(
        self,
        network: str,
        others: Sequence[Shape],
        out: Shape,
        *,
        hidden: Sequence[int] | None = None,
        dropout: float = 0.0,
        noise: float | Noise = 0.0,
        precise: bool = False,
    ) -> nn.Module:
        inputs: list[Shape] = [self.x_shape, *others]
        widths = self.networks.hidden if hidden is None else hidden
        if network == "conv":
            return ConvEncoder(
                inputs,
                out,
                self.networks.channels,
                widths,
                activation=self._activation,
                batch_norm=self.networks.batch_norm,
                dropout=dropout,
                noise=noise,
                precise=precise,
            )
        return MLP(
            inputs,
            out,
            widths,
            activation=self._activation,
            batch_norm=self.networks.batch_norm,
            dropout=dropout,
            noise=noise,
            precise=precise,
        )

    def _decoder(self, inputs: Sequence[Shape], out: tuple[int, ...]) -> nn.Module:
        hidden = self.likelihood.decoder_hidden
        if hidden is None:
            hidden = self.networks.hidden
        if self.networks.network != "conv":
            return self.mlp(inputs, out, hidden)
        return ConvDecoder(
            list(inputs),
            out,
            self.networks.channels[::-1],
            hidden=hidden,
            activation=self._activation,
        )

    @property
    def _activation(self) -> type[nn.Module]:
        return ACTIVATIONS[self.networks.activation]

    @property
    def classifier_hidden(self) -> Sequence[int]:
        """Widths of the classifier's hidden layers."""
        if self.classifier.classifier_hidden is None:
            return self.networks.hidden
        return self.classifier.classifier_hidden

    @property
    def _convolves(self) -> bool:
        return "conv" in (self.networks.network, self.classifier.classifier_network)

    def _check_images(self) -> None:
        is_image = len(self.x_shape) == 3
        channels = self.networks.channels
        if self._convolves and (not is_image or not channels):
            raise ValueError(
                "network: conv should have an image (C, H, W) and channels; "
                f"got {self.x_shape}, {channels}"
            )
        if self.classifier.augments_images and not is_image:
            raise ValueError(f"warp, crop and flip need images (C, H, W); got data {self.x_shape}")
        crop = self.classifier.crop
        if crop and crop >= min(self.x_shape[1:]):
            raise ValueError(
                f"crop should be less than the image, got {crop} for data {self.x_shape}"
            )

    def _check_channels_first(self) -> None:
        has_backbone = self.classifier.backbone is not None
        needs_image = self._convolves or has_backbone or self.classifier.augments_images
        if needs_image and looks_channels_last(self.x_shape):
            raise ValueError(
                "x_shape should be (C, H, W) for convolutions, warp, crop and flip; "
                f"{self.x_shape} looks like (H, W, C): move the channels to the front, "
                "x.transpose(0, 3, 1, 2)"
            )

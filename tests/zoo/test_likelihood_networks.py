"""p(x|.) with a variance network and hidden layers of its own, against sums written by hand."""

import math

import pytest
import torch
from comparisons import assert_same
from programs.zoo_pairs import B, D, K, build, by_hand, data
from torch import nn

from pyro_ssl import Batch, HeteroscedasticGaussian, generate, zoo
from pyro_ssl.nn.layers import Linear

pytestmark = pytest.mark.usefixtures("float64")

START = -2.0


class LogDensity:
    """Paper 002, eq. 4.1 and 4.3, written out: log N(x; mu, v) with log v = NN(z)."""

    def __init__(self, p_x: HeteroscedasticGaussian, *inputs: torch.Tensor) -> None:
        mu, log_v = p_x.network(*inputs).split(D, -1)
        self.mu = mu
        self.v = (log_v + START).exp() + 1e-3**2

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        squares = (x - self.mu).square() / self.v
        return -0.5 * (squares + self.v.log() + math.log(2 * math.pi)).sum(-1)


class ByHand:
    """A model whose p(x|.) is written out."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __getattr__(self, name: str) -> object:
        if name == "p_x":
            return lambda *inputs: LogDensity(self.model.p_x, *inputs)
        return getattr(self.model, name)


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("method", ["m2", "sdgm", "sslpe", "latent_classifier"])
def test_a_bound_with_a_variance_network_is_the_sum_written_out(method, given, noise):
    o = build(method, likelihood="heteroscedastic_gaussian", x_log_variance=START)
    x, y = data()
    y = y if given else None
    written = type("Written", (), {"model": ByHand(o.model), "guide": o.guide})()
    assert_same(o.bound(x, y), by_hand(method, written, x, y, noise), o)


def test_the_variance_starts_at_the_option():
    p_x = HeteroscedasticGaussian(nn.Linear(2, 2 * D), log_variance=-10.0, min_scale=0.0)
    nn.init.zeros_(p_x.network.weight)
    nn.init.zeros_(p_x.network.bias)
    assert torch.allclose(p_x(torch.ones(B, 2)).variance.log(), torch.tensor(-10.0))


def test_the_variance_differs_between_data_and_columns_and_is_learned():
    o, (x, y) = build("sslpe", likelihood="heteroscedastic_gaussian"), data()
    variance = o.model.p_x(torch.randn(B, 2)).variance
    assert variance.shape == (B, D) and len(variance.flatten().unique()) == B * D
    o(Batch(x, y, x)).backward()
    last = o.model.p_x.network.rest[-1].weight
    assert (last.grad[D:].abs() > 0).all()


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_images_have_a_mean_and_a_variance_for_each_pixel(network):
    o = zoo.build(
        "m2",
        (3, 6, 6),
        K,
        network=network,
        channels=(4,),
        hidden=(5,),
        likelihood="heteroscedastic_gaussian",
    )
    p = o.model.p_x(torch.eye(K)[:1], torch.zeros(1, 50))
    assert p.event_shape == (3, 6, 6) and p.variance.shape == (1, 3, 6, 6)
    assert generate(o, 2).shape == (2, 3, 6, 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"log_variance": math.inf}, "log_variance should be a finite number, got inf"),
        ({"min_scale": -1.0}, "min_scale should be 0 or above, got -1.0"),
    ],
)
def test_a_bad_variance_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        HeteroscedasticGaussian(nn.Identity(), **arguments)


def linear_layers(network: nn.Module) -> int:
    """Fully connected layers: the first is split by input."""
    return 1 + sum(isinstance(layer, Linear) for layer in network.modules())


def test_the_decoder_of_paper_001_has_three_convolutions_and_three_linear_layers():
    options = {"network": "conv", "channels": (4, 5, 6), "hidden": (7,)}
    vae = zoo.build("vae", (1, 16, 16), 10, z_dim=4, **options, decoder_hidden=(8, 9))
    plain = zoo.build("vae", (1, 16, 16), 10, z_dim=4, **options)
    encoder, decoder = vae.guide.q_z.network, vae.model.p_x.network
    assert (linear_layers(encoder), linear_layers(decoder)) == (2, 3)
    convolutions = [m for m in decoder.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert len(convolutions) == 3
    assert [str(p.shape) for p in vae.guide.q_z.parameters()] == [
        str(p.shape) for p in plain.guide.q_z.parameters()
    ]
    assert linear_layers(plain.model.p_x.network) == 2


@pytest.mark.parametrize("method", ["m2", "adgm", "sslpe", "latent_classifier_split"])
def test_only_the_decoder_has_its_widths(method):
    o = zoo.build(method, (D,), K, hidden=(5, 6), decoder_hidden=(7,))
    biases = {name: p.shape for name, p in o.named_parameters() if name.endswith("bias")}
    of_sizes = [name for name, shape in biases.items() if shape == (7,)]
    assert of_sizes == ["model.p_x.network.first.bias"]

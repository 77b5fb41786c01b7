"""Networks whose first layer is split by input, and enumerated labels."""

import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pyro_ssl import (
    MLP,
    ConvDecoder,
    ConvEncoder,
    Flat,
    SplitLinear,
)
from pyro_ssl.nn.augmentation import Noise
from pyro_ssl.nn.layers import Linear, as_shape
from pyro_ssl.nn.norm import BatchNorm

B, K, S, Z = 4, 3, 2, 5
IMAGE = (2, 4, 8)

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def labels() -> torch.Tensor:
    """All K one-hot labels as an enumerated site gives them, `(K, 1, K)`."""
    return torch.eye(K)[:, None]


@pytest.mark.parametrize(
    "leads", [[(B,), (B,)], [(B,), (K, 1)], [(B,), (K, 1), (S, K, B)], [(S, 1, B), (K, 1), ()]]
)
def test_split_linear_is_a_linear_layer_over_the_concatenation(leads):
    shapes = [IMAGE, 3, (2, 2)][: len(leads)]
    split = SplitLinear(shapes, 6)
    nn.init.normal_(split.bias)
    widths = [math.prod(as_shape(s)) for s in shapes]
    assert [w.shape for w in split.weights] == [(n, 6) for n in widths]
    plain = nn.Linear(sum(widths), 6)
    plain.load_state_dict({"weight": torch.cat(list(split.weights)).T, "bias": split.bias})
    inputs = [torch.randn(*lead, *as_shape(s)) for lead, s in zip(leads, shapes, strict=True)]
    lead = torch.broadcast_shapes(*leads)
    flat = [x.flatten(-len(as_shape(s))) for x, s in zip(inputs, shapes, strict=True)]
    joint = plain(torch.cat([x.expand(*lead, -1) for x in flat], -1))
    ours = split(*inputs)
    assert ours.shape == (*lead, 6) and torch.allclose(ours, joint, rtol=0, atol=1e-12)
    cotangent = torch.randn(ours.shape)
    bias, *parts = torch.autograd.grad((ours * cotangent).sum(), [split.bias, *split.weights])
    expected = torch.autograd.grad((joint * cotangent).sum(), [plain.bias, plain.weight])
    for a, b in zip((bias, torch.cat(parts).T), expected, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


def test_what_does_not_depend_on_the_label_is_multiplied_once():
    split = SplitLinear([7, K], 6)
    with FlopCounterMode(display=False) as count:
        split(torch.randn(B, 7), labels())
    assert count.get_total_flops() == 2 * 6 * (7 * B + K * K)


def test_convolutions_run_once_and_not_per_label():
    rows = []
    net = ConvEncoder([IMAGE, K], Z, channels=(2,), hidden=(6,))
    net.features.module[0].register_forward_hook(lambda module, inputs, out: rows.append(len(out)))
    net(torch.randn(B, *IMAGE), labels())
    assert rows == [B]


NETWORKS = {
    "mlp": lambda: (MLP([IMAGE, K], (Z, 2), (6, 7)), [IMAGE]),
    "linear": lambda: (MLP([IMAGE, K], (Z, 2), ()), [IMAGE]),
    "encoder": lambda: (ConvEncoder([IMAGE, K], (Z, 2), channels=(3, 4), hidden=(6,)), [IMAGE]),
    "decoder": lambda: (ConvDecoder([Z, K], (3, 8, 4), channels=(4, 3), hidden=(6,)), [(Z,)]),
    "flat": lambda: (Flat(nn.Sequential(nn.Linear(Z + K, 6), nn.Tanh(), nn.Linear(6, 2))), [(Z,)]),
}
OUT = {"mlp": (Z, 2), "linear": (Z, 2), "encoder": (Z, 2), "decoder": (3, 8, 4), "flat": (2,)}


@pytest.mark.parametrize("name", NETWORKS)
def test_enumerated_labels_give_what_a_loop_over_classes_gives(name):
    net, (shape,) = NETWORKS[name]()
    x, y = torch.randn(B, *shape), labels()
    together = net(x, y)
    assert together.shape == (K, B, *OUT[name])
    one_by_one = torch.stack([net(x, y[k].expand(B, K)) for k in range(K)])
    assert torch.allclose(together, one_by_one, rtol=0, atol=1e-10)
    assert not torch.allclose(together[0], together[1])
    sampled = net(torch.stack([x, 2 * x])[:, None], y)
    assert sampled.shape == (2, K, B, *OUT[name]) and torch.allclose(
        sampled[0], together, rtol=0, atol=1e-10
    )


def test_an_mlp_without_hidden_layers_is_linear():
    net = MLP(Z, 3, ())
    a, b = torch.randn(2, B, Z)
    assert torch.allclose(net(a + b) - net(b), net(a) - net(torch.zeros_like(a)))
    assert {n: p.shape for n, p in net.named_parameters()} == {
        "first.bias": (3,),
        "first.weights.0": (Z, 3),
    }


def test_mlp_batch_norm_and_dropout_are_where_they_should_be():
    net = MLP(Z, 3, (6, 6), batch_norm=True, dropout=0.5)
    kinds = [type(m) for m in net.rest]
    assert kinds == [BatchNorm, nn.Softplus, nn.Dropout, Linear] * 2
    assert torch.allclose(net.eval()(torch.ones(B, Z)), net(torch.ones(1, Z)).expand(B, 3))


@pytest.mark.parametrize("inputs", [1, 2])
def test_flat_runs_a_module_of_the_users_and_sees_one_batch(inputs):
    module = nn.Sequential(nn.BatchNorm2d(2 * inputs), nn.Conv2d(2 * inputs, 3, 3, padding=1))
    x, other = torch.randn(S, 1, B, *IMAGE), torch.randn(K, 1, *IMAGE)
    ours = Flat(module, event_dim=3)(*[x, other][:inputs])
    lead = (S, 1, B) if inputs == 1 else (S, K, B)
    joint = (
        x if inputs == 1 else torch.cat([x.expand(*lead, *IMAGE), other.expand(*lead, *IMAGE)], -3)
    )
    module[0].reset_running_stats()
    by_hand = module(joint.flatten(0, 2)).unflatten(0, lead)
    assert torch.equal(ours, by_hand)
    assert torch.allclose(module[0].running_mean, 0.1 * joint.flatten(0, 2).mean((0, 2, 3)))


@pytest.mark.parametrize("std", [0.0, 0.7])
def test_noise_is_for_training_alone(std):
    noise, x = Noise(std), torch.zeros(200, 100)
    assert noise(x).std().item() == pytest.approx(std, rel=0.03)
    assert torch.equal(noise.eval()(x), x)


@pytest.mark.parametrize("network", [MLP, ConvEncoder])
def test_noise_is_added_to_the_first_input_alone(network):
    net = network([IMAGE, K], Z, hidden=(6,), noise=1.0)
    assert not torch.equal(
        net(torch.zeros(1, *IMAGE), labels()), net(torch.zeros(1, *IMAGE), labels())
    )
    seen = []
    first = net.first if network is MLP else net.head.first
    first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    net(torch.zeros(1, *IMAGE), labels())
    assert torch.equal(seen[0], labels())


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (((B, 7), (B, 3)), r"input 1 should have shape \(\*, 4\), got \(4, 3\)"),
        (((B, 6), (B, 4)), "input 0 should have shape"),
        (((7,), ()), "input 1 should have shape"),
        (((B, 7),), "got 1 inputs, should have 2"),
        (((B, 7), (B, 4), (B, 1)), "got 3 inputs, should have 2"),
    ],
)
def test_wrong_shapes_are_refused_by_their_index(inputs, message):
    with pytest.raises(ValueError, match=message):
        MLP([7, 4], 2)(*[torch.zeros(s) for s in inputs])


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 8), (1, 7, 9), (1, 2, 3)])
def test_a_decoder_makes_images_of_any_size(shape):
    decoder = ConvDecoder([Z, 3], shape, channels=(4, 2), hidden=(5,))
    assert decoder(torch.randn(B, Z), torch.randn(2, B, 3)).shape == (2, B, *shape)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ConvDecoder(Z, 784), r"out_shape: .* image \(C, H, W\), got \(784,\)"),
        (lambda: ConvEncoder(784, Z), r"image \(C, H, W\), got \(784,\)"),
    ],
)
def test_images_that_do_not_fit_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()

"""Networks and conditionals.

What they promise about shapes, enumeration, batch norm, noise and bounds.
"""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from pyro_ssl import (
    MLP,
    Bernoulli,
    ClassPrior,
    ConvDecoder,
    ConvEncoder,
    Flat,
    Gaussian,
    Normal,
    OneHotCategorical,
    SplitLinear,
    StandardNormal,
    zoo,
)
from pyro_ssl.distributions.conditionals import GreyBernoulli, IsotropicNormal
from pyro_ssl.nn.augmentation import Noise, warped
from pyro_ssl.nn.layers import Linear, as_shape
from pyro_ssl.nn.norm import BatchNorm
from pyro_ssl.objectives.batch import Batch

pytestmark = pytest.mark.usefixtures("float64")
B, K, S, Z = 4, 3, 2, 5
IMAGE = (2, 4, 8)


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
        (((B, 7),), "got 1 inputs, want 2"),
        (((B, 7), (B, 4), (B, 1)), "got 3 inputs, want 2"),
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


# --- conditionals ---------------------------------------------------------------------------------


class Given(nn.Module):
    """A network that gives its parameter, whatever it is asked."""

    def __init__(self, value: torch.Tensor):
        super().__init__()
        self.value = nn.Parameter(value)

    def forward(self, *inputs):
        return self.value


@pytest.mark.parametrize("raw", [-math.inf, -1e6, -40.0])
def test_the_scale_of_a_normal_stays_above_its_bound(raw):
    q = Normal(Given(torch.tensor([[0.0, 1.0, raw, 3.0]])), min_scale=0.05)(torch.zeros(1))
    assert q.event_shape == (2,) and torch.equal(q.mean, torch.tensor([[0.0, 1.0]]))
    assert q.stddev[0].tolist() == pytest.approx(
        [0.05, math.log1p(math.exp(3.0)) + 0.05], rel=1e-12
    )
    assert q.log_prob(q.mean).item() < 5


def test_grey_bernoulli_is_minus_the_cross_entropy():
    logits, x = torch.randn(B, *IMAGE) * 3, torch.rand(B, *IMAGE)
    p = Bernoulli(Given(logits), event_dim=3)()
    expected = -binary_cross_entropy(logits.sigmoid(), x, reduction="none").sum((-1, -2, -3))
    assert p.event_shape == IMAGE and torch.allclose(p.log_prob(x), expected, rtol=0, atol=1e-10)
    assert p.mean.equal(logits.sigmoid()) and set(p.sample().unique().tolist()) == {0.0, 1.0}
    assert isinstance(p.base_dist.expand((7, *p.base_dist.batch_shape)), GreyBernoulli)


@pytest.mark.parametrize(
    ("binary", "value"),
    [(False, 1.001), (False, -0.1), (False, 255.0), (False, math.nan), (True, 0.5), (True, 2.0)],
)
def test_bernoulli_refuses_what_it_does_not_model(binary, value):
    p = Bernoulli(Given(torch.zeros(B, Z)), binary=binary)()
    x = torch.ones(B, Z)
    assert torch.allclose(p.log_prob(x), torch.tensor(Z * math.log(0.5)))
    x[2, 1] = value
    with pytest.raises(ValueError, match="Expected value argument"):
        p.log_prob(x)


def test_gaussian_with_a_fixed_sigma_has_no_parameter():
    p_x = Gaussian(nn.Identity(), sigma=0.3)
    assert not list(p_x.parameters()) and "log_sigma" in p_x.state_dict()
    assert torch.allclose(p_x(torch.zeros(B, Z)).stddev, torch.tensor(0.3).expand(B, Z), rtol=1e-12)


def test_gaussian_learns_sigma():
    x = 0.37 * torch.randn(2000, 1)
    p_x = Gaussian(nn.Identity(), sigma=1.0, learn_sigma=True)
    loss = lambda: -p_x(torch.zeros_like(x)).log_prob(x).mean()  # noqa: E731
    (gradient,) = torch.autograd.grad(loss(), p_x.log_sigma)
    values = []
    with torch.no_grad():
        for step in (1e-5, -2e-5):
            p_x.log_sigma += step
            values.append(loss().item())
        p_x.log_sigma += 1e-5
    assert gradient.item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-7)
    optimizer = torch.optim.Adam([p_x.log_sigma], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert p_x(x).stddev[0].item() == pytest.approx(x.square().mean().sqrt().item(), rel=1e-3)


def test_a_learned_sigma_stays_above_its_bound():
    p_x = Gaussian(nn.Identity(), sigma=0.5, learn_sigma=True, min_sigma=0.1)
    assert p_x(torch.zeros(1, 1)).stddev.item() == pytest.approx(0.5, rel=1e-12)
    nn.init.constant_(p_x.log_sigma, -1e4)
    assert p_x(torch.zeros(1, 1)).stddev.item() == 0.1


@pytest.mark.parametrize(
    ("sigma", "learn"), [(0.0, False), (-1.0, False), (math.nan, False), (0.01, True), (0.0, True)]
)
def test_gaussian_refuses_a_sigma_that_is_none(sigma, learn):
    with pytest.raises(ValueError, match="sigma should be above"):
        Gaussian(nn.Identity(), sigma=sigma, learn_sigma=learn)


def test_one_hot_categorical_has_the_networks_logits():
    logits = torch.randn(B, K)
    q = OneHotCategorical(nn.Identity())(logits)
    assert q.event_shape == (K,) and torch.allclose(q.mean, logits.softmax(-1))


@pytest.mark.parametrize(
    "classes", [0, -2, [0.5, 0.6], [0.0, 1.0], [1.5, -0.5], [math.nan, 1.0], []]
)
def test_class_prior_refuses_what_is_no_distribution(classes):
    with pytest.raises(ValueError, match="classes: .*above 0"):
        ClassPrior(classes)


@pytest.mark.parametrize("classes", [4, [0.1, 0.2, 0.3, 0.4], np.array([0.4, 0.3, 0.2, 0.1]), [1]])
def test_class_prior_has_the_given_probabilities(classes):
    expected = [0.25] * 4 if isinstance(classes, int) else list(classes)
    assert ClassPrior(classes)().mean.tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("prior", [ClassPrior(3), StandardNormal(3)])
def test_priors_move_with_their_model_and_have_no_parameter(prior):
    assert not list(prior.parameters())
    for dtype in (torch.float64, torch.float32):
        p = prior.to(dtype)()
        assert p.event_shape == (3,) and p.sample().dtype == dtype


def test_a_warp_of_nothing_is_the_image_and_one_of_each_datum_its_own():
    x = torch.rand(3, 2, 1, 12, 12)
    torch.testing.assert_close(warped(x, 0.0), x, atol=1e-6, rtol=0)
    torch.manual_seed(0)
    same = torch.rand(1, 1, 12, 12).expand(5, 1, 12, 12)
    moved = warped(same, 0.3)
    assert all((moved[i] - moved[j]).abs().max() > 0.01 for i in range(5) for j in range(i))


def test_a_warp_is_the_affine_map_that_its_formula_names():
    """With E = 0 and e = (1, 0) it looks w half widths to the right.

    The image moves left by w W / 2 pixels.
    """
    x = torch.zeros(1, 1, 8, 8)
    x[..., 3, 5] = 1.0
    draws = torch.full((1, 2, 3), 0.5)
    draws[0, 0, 2] = 1.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda *size, **_: draws)
        moved = warped(x, 0.25)
    assert moved[0, 0, 3, 4] == 1.0 and moved.sum() == 1.0


def test_only_the_classifier_sees_the_warp_and_only_in_training():
    seen = {}
    objective = zoo.build(
        "m2",
        (1, 8, 8),
        3,
        warp=0.3,
        noise=0.0,
        hidden=(4,),
        classifier_network="conv",
        channels=(2, 2),
    )
    x = torch.rand(5, 1, 8, 8)
    first = lambda name: lambda module, inputs: seen.__setitem__(name, inputs[0])  # noqa: E731
    objective.guide.q_y.network.features.register_forward_pre_hook(first("q_y"))
    objective.guide.q_z.network.first.register_forward_pre_hook(first("q_z"))
    objective.parts(Batch(x, torch.eye(3)[:1].expand(5, 3), x))
    assert not torch.equal(seen["q_y"][-5:], x) and torch.equal(
        seen["q_z"].reshape(-1, 1, 8, 8)[-5:], x
    )
    objective.eval().classify(x)
    assert torch.equal(seen["q_y"], x)


@pytest.mark.parametrize(
    "options", [{"warp": -0.1}, {"warp": float("nan")}, {"channels": (0,)}, {"channels": 3}]
)
def test_bad_warps_and_channels_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        zoo.build("m2", (1, 8, 8), 3, **options)


def test_a_warp_of_what_is_no_image_is_refused():
    with pytest.raises(ValueError, match="warp"):
        zoo.build("m2", (8,), 3, warp=0.1)


@pytest.mark.parametrize("event", [(4,), (1, 3, 2)])
def test_the_isotropic_normal_is_the_normal(event):
    loc = torch.randn(5, 3, *event, requires_grad=True)
    sigma, x = torch.tensor(0.6, requires_grad=True), torch.randn(3, *event, requires_grad=True)
    theirs = dist.Normal(loc, sigma).to_event(len(event))
    ours = IsotropicNormal(dist.Normal(loc, sigma), len(event))
    assert ours.batch_shape == theirs.batch_shape and ours.event_shape == theirs.event_shape
    assert torch.equal(ours.mean, theirs.mean) and torch.allclose(ours.stddev, theirs.stddev)
    a, b = ours.log_prob(x), theirs.log_prob(x)
    assert a.shape == (5, 3) and torch.allclose(a, b, rtol=1e-12)
    weights = torch.randn(5, 3)
    for mine, hand in zip(
        *(torch.autograd.grad((v * weights).sum(), (loc, sigma, x)) for v in (a, b)), strict=True
    ):
        assert torch.allclose(mine, hand, rtol=1e-10)
    for p in (ours, ours.expand((2, 5, 3))):
        torch.manual_seed(0)
        sample = p.sample((7,))
        torch.manual_seed(0)
        assert torch.allclose(sample, theirs.expand(p.batch_shape).sample((7,)))
    assert ours.support.check(x).all() and ours.rsample().requires_grad
    with pytest.raises(ValueError):
        ours.log_prob(torch.full_like(x, float("nan")))
    with pytest.raises(ValueError):
        ours.log_prob(torch.zeros(3, 7))


def test_the_isotropic_normal_as_a_latents_has_its_kl_and_counts_no_event():
    q = Gaussian(MLP(3, 4, ()), 1, sigma=0.5)(torch.randn(6, 3))
    p = dist.Normal(torch.zeros(4), torch.ones(4)).to_event(1)
    plain = dist.Normal(q.mean, 0.5).to_event(1)
    assert torch.allclose(
        torch.distributions.kl_divergence(q, p), torch.distributions.kl_divergence(plain, p)
    )
    single = Gaussian(nn.Linear(3, 2), 0, sigma=0.5)(torch.randn(6, 3))
    assert single.log_prob(torch.zeros(6, 2)).shape == (6, 2)
    assert torch.allclose(
        single.log_prob(torch.zeros(6, 2)),
        dist.Normal(single.mean, 0.5).log_prob(torch.zeros(6, 2)),
    )


@pytest.mark.parametrize("batch", [(), (5,)])
def test_the_kl_to_the_isotropic_normal_is_the_normals(batch):
    given = [
        torch.randn(*batch, 3, 2),
        torch.rand(*batch, 3, 2) + 0.1,
        torch.randn(3, 2),
        torch.tensor(0.6),
    ]
    given = [t.requires_grad_() for t in given]
    loc, scale, prior_loc, sigma = given
    q = dist.Normal(loc, scale).to_event(2)
    ours, theirs = (
        torch.distributions.kl_divergence(q, p)
        for p in (
            IsotropicNormal(dist.Normal(prior_loc, sigma), 2),
            dist.Normal(prior_loc, sigma).to_event(2),
        )
    )
    assert ours.shape == batch and torch.allclose(ours, theirs, rtol=1e-12)
    weights = torch.randn(batch)
    for mine, hand in zip(
        *(torch.autograd.grad((v * weights).sum(), given) for v in (ours, theirs)), strict=True
    ):
        assert torch.allclose(mine, hand, rtol=1e-10)
    with pytest.raises(NotImplementedError):
        torch.distributions.kl_divergence(
            dist.Laplace(loc, scale).to_event(2), IsotropicNormal(dist.Normal(prior_loc, sigma), 2)
        )

"""Networks for images by name, and what images go through in training."""

from functools import partial

import pytest
import torch
from torch import nn

from pyro_ssl import fit, zoo
from pyro_ssl.nn.augmentation import Noise, cropped
from pyro_ssl.nn.backbones import Backbone
from pyro_ssl.objectives.batch import Batch

NAMES = ["cnn-2", "resnet18", "resnet50", "wrn-10-1", "wrn-16-2"]


@pytest.mark.parametrize("name", NAMES)
def test_a_backbone_maps_images_of_any_leading_shape(name):
    net = Backbone(name, [(3, 16, 16), 5], (7,)).eval()
    x, a = torch.rand(2, 3, 3, 16, 16), torch.randn(4, 1, 1, 5)
    out = net(x, a)
    assert out.shape == (4, 2, 3, 7)
    assert torch.allclose(out[1, 0, 2], net(x[0, 2], a[1, 0, 0]), rtol=1e-4, atol=1e-4)
    net.train()(x[0], torch.randn(3, 5)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize(
    ("name", "millions"),
    [("wrn-28-10", 36.48), ("wrn-16-4", 2.75), ("resnet18", 11.17), ("resnet50", 23.51)],
)
def test_they_have_as_many_weights_as_the_published_ones(name, millions):
    """For CIFAR-10: WRN-28-10 36.5 million, WRN-16-4 2.75; ResNets with the small stem."""
    with torch.device("meta"):
        net = Backbone(name, (3, 32, 32), 10)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.02)


def test_the_stem_of_small_images_keeps_their_size():
    seen = []
    net = Backbone("resnet18", (1, 16, 16), 3).eval()
    net.features.module.layer1.register_forward_pre_hook(
        lambda m, given: seen.append(given[0].shape)
    )
    net(torch.rand(2, 1, 16, 16))
    assert seen == [(2, 64, 16, 16)]


def test_dropout_of_a_wide_resnet_is_in_its_blocks_and_only_in_training():
    net = Backbone("wrn-10-1", (1, 8, 8), 3, dropout=0.5)
    x = torch.rand(4, 1, 8, 8)
    assert sum(isinstance(m, nn.Dropout) for m in net.features.modules()) == 3
    assert not torch.equal(net(x), net(x)) and torch.equal(net.eval()(x), net(x))


@pytest.mark.parametrize("name", ["cnn", "cnn-0", "wrn-28", "wrn-12-2", "resnet20", "vgg"])
def test_unknown_backbones_are_named(name):
    with pytest.raises(ValueError, match="backbone"):
        zoo.build("vc", (1, 8, 8), 3, backbone=name)


def test_a_backbone_wants_an_image():
    with pytest.raises(
        ValueError, match=r"backbone: cnn-2 should have an image \(C, H, W\), got \(8,\)"
    ):
        zoo.build("classifier", (8,), 3, backbone="cnn-2")


@pytest.mark.parametrize(
    "method", ["classifier", "m2", "adgm", "sslpe", "sslapd", "latent_classifier", "ce", "gm", "vc"]
)
def test_any_method_may_classify_by_a_backbone(method):
    o = zoo.build(method, (1, 8, 8), 3, backbone="cnn-2", warp=0.1, crop=1, flip=True)
    x = torch.rand(5, 1, 8, 8)
    assert o(Batch(x, torch.eye(3)[torch.tensor([0, 1, 2, 0, 1])], x)).isfinite()
    assert o.eval().classify(x).mean.shape == (5, 3)


def test_a_crop_shifts_by_whole_pixels_over_zeros_and_half_are_mirrored():
    x = torch.rand(400, 2, 5, 6) + 0.1
    padded = nn.functional.pad(x, (2, 2, 2, 2))
    shifts = [(a, b, f) for a in range(5) for b in range(5) for f in (False, True)]
    moved, found = cropped(x, 2, True), []
    for i in range(len(x)):
        windows = {s: padded[i, :, s[0] : s[0] + 5, s[1] : s[1] + 6] for s in shifts}
        fits = [s for s, w in windows.items() if torch.equal(w.flip(-1) if s[2] else w, moved[i])]
        assert fits
        found.append(fits[0])
    assert len({s[:2] for s in found}) == 25 and 150 < sum(s[2] for s in found) < 250
    assert torch.equal(cropped(x, 0), x)
    state = cropped(x[:, None], 2).shape
    assert state == (400, 1, 2, 5, 6)


def test_noise_is_of_training_alone():
    x = torch.rand(3, 1, 6, 6)
    for noise in (Noise(0.5), Noise(crop=2), Noise(warp=0.3), Noise(flip=True)):
        assert not torch.equal(torch.stack([noise(x) for _ in range(8)]), x.expand(8, *x.shape))
        assert torch.equal(noise.eval()(x), x)


@pytest.mark.parametrize("options", [{"crop": -1}, {"crop": 1.5}, {"flip": "yes"}])
def test_bad_augmentation_is_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        zoo.build("vc", (1, 8, 8), 3, **options)
    with pytest.raises(ValueError, match=r"need images \(C, H, W\)"):
        zoo.build("vc", (8,), 3, crop=1)


@pytest.mark.parametrize("backbone", ["cnn-4", "wrn-10-1"])
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, partial(torch.optim.SGD, momentum=0.9)])
def test_a_killed_run_resumes_to_the_same_bits(backbone, optimizer, tmp_path):
    """Weights are channels_last in memory, and so must be what a fused optimiser has of them."""
    x, y = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2

    def trained(directory, callbacks=()):
        objective = zoo.build("vc", (1, 8, 8), 2, seed=0, backbone=backbone, z_dim=3, crop=1)
        fit(
            objective,
            x,
            y,
            epochs=3,
            labeled_batch_size=10,
            optimizer=optimizer,
            directory=tmp_path / directory,
            resume=True,
            callbacks=callbacks,
        )
        return objective.state_dict()

    def kill(epoch):
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    unbroken = trained("unbroken")
    with pytest.raises(KeyboardInterrupt):
        trained("killed", (kill,))
    resumed = trained("killed")
    assert all(torch.equal(resumed[name], value) for name, value in unbroken.items())


def test_a_wide_resnet_halves_its_images_twice():
    network, seen = Backbone("wrn-16-2", (3, 32, 32), 5), []
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    norms[-1].register_forward_hook(lambda m, given, output: seen.append(tuple(output.shape)))
    network(torch.rand(2, 3, 32, 32))
    assert seen == [(2, 128, 8, 8)]


@pytest.mark.parametrize("name", ["cnn-2", "wrn-10-1"])
def test_its_dropout_is_the_methods(name):
    objective = zoo.build("vc", (1, 8, 8), 3, backbone=name, z_dim=2, dropout=0.35)
    rates = [m.p for m in objective.guide.q_z.network.modules() if isinstance(m, nn.Dropout)]
    assert rates and set(rates) == {0.35}


@pytest.mark.parametrize(
    "options", [{"network": "mlp"}, {"network": "conv", "channels": (2,)}, {"backbone": "cnn-2"}]
)
def test_the_code_of_every_network_is_in_full_precision(options):
    o, x = (
        zoo.build("vc", (1, 8, 8), 3, z_dim=4, **{"hidden": (6,)} | options),
        torch.rand(16, 1, 8, 8),
    )
    with torch.autocast("cpu", torch.bfloat16):
        code = o.guide.q_z(x).mean
    assert code.dtype == torch.float32 and (code != code.bfloat16()).any()


def test_a_code_is_in_full_precision_whatever_the_convolutions_are_in():
    network, heads = Backbone("cnn-2", (1, 8, 8), 3).eval(), []
    x = torch.rand(4, 1, 8, 8)
    network.features.register_forward_hook(lambda m, given, output: heads.append(output))
    with torch.autocast("cpu", torch.bfloat16):
        code = network(x)
    assert code.dtype == torch.float32 and torch.equal(code, network.head(heads[0].float()))

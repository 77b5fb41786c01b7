"""Data sets by name: sizes, values, files and what is said where they are missing."""

import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pyro_ssl import data
from pyro_ssl.data import images
from pyro_ssl.utils import torchvision_repair as vision

BAD_ROWS = {
    "continuous": ([(torch.ones(2), 0.2), (torch.ones(2), 1.7)], ValueError, "continuous values"),
    "strings and numbers": (
        [(torch.ones(2), "0"), (torch.ones(2), 1)],
        ValueError,
        "strings or numbers; got both",
    ),
    "pictures": (
        [(Image.new("L", (2, 2)), k) for k in (0, 1)],
        TypeError,
        "train: x should be .* got PIL images",
    ),
    "shapes": (
        [(torch.ones(2), 0), (torch.ones(3), 1)],
        ValueError,
        "train should return x of one shape",
    ),
    "no pairs": ([torch.ones(3)], TypeError, r"train should return pairs \(x, y\)"),
    "no length": (iter([]), TypeError, "train should be a torch Dataset .* with a length"),
}


@pytest.mark.parametrize(
    ("name", "shape", "n", "n_test", "k"),
    [
        ("moons", (2,), 2000, 2000, 2),
        ("circles", (2,), 2000, 2000, 2),
        ("digits", (1, 8, 8), 1200, 597, 10),
    ],
)
def test_embedded_sets(name, shape, n, n_test, k):
    d = data.load(name)
    assert (d.name, d.x_shape, d.x.shape[0], d.x_test.shape[0], len(d.classes)) == (
        name,
        shape,
        n,
        n_test,
        k,
    )
    assert d.x.dtype == torch.float32
    assert set(d.y.tolist()) == set(d.y_test.tolist()) == set(range(k))
    counts = Counter(d.y.tolist())
    assert max(counts.values()) < 1.2 * min(counts.values())
    limit = (0, 1) if name == "digits" else (-3, 3)
    assert d.x.min() >= limit[0]
    assert d.x.max() <= limit[1]
    rows = {tuple(r) for r in d.x.flatten(1).tolist()}
    assert not any(tuple(r) in rows for r in d.x_test.flatten(1).tolist())
    again = data.load(name)
    assert torch.equal(again.x, d.x)
    assert not torch.equal(data.DATASETS[name](seed=1).x, d.x)


def test_unknown_set():
    with pytest.raises(
        ValueError,
        match=r"data should be one of moons, .*cifar100, or a path to an \.npz file; got 'mnits'",
    ):
        data.load("mnits")


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    vision.torchvision()
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)


def write_idx(folder, images: np.ndarray, labels: np.ndarray, part: str) -> None:
    """An MNIST-format pair of files."""
    folder.mkdir(parents=True, exist_ok=True)
    for array, name in (
        (images, f"{part}-images-idx3-ubyte"),
        (labels, f"{part}-labels-idx1-ubyte"),
    ):
        head = bytes([0, 0, 8, array.ndim]) + b"".join(
            int(n).to_bytes(4, "big") for n in array.shape
        )
        (folder / name).write_bytes(head + array.astype(np.uint8).tobytes())


@pytest.mark.parametrize(
    ("name", "folder"),
    [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")],
)
@pytest.mark.parametrize("by", ["argument", "environment"])
def test_mnist_format(no_network, tmp_path, monkeypatch, name, folder, by):
    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28))
    images[0, 0, :2] = 0, 255
    raw = tmp_path / folder / "raw"
    write_idx(raw, images, np.arange(30) % 10, "train")
    write_idx(raw, images[:10], np.arange(10), "t10k")
    monkeypatch.setenv(
        "PYRO_SSL_DATA", str(tmp_path if by == "environment" else tmp_path / "elsewhere")
    )
    d = data.load(name, None if by == "environment" else tmp_path)
    assert (d.name, d.x.shape, d.x_test.shape) == (name, (30, 1, 28, 28), (10, 1, 28, 28))
    assert (d.x.min(), d.x.max()) == (0, 1)
    np.testing.assert_allclose(d.x[:, 0].numpy(), images / 255, rtol=1e-6)
    assert d.y.tolist() == [i % 10 for i in range(30)]
    (raw / "train-images-idx3-ubyte").write_bytes(
        (raw / "train-images-idx3-ubyte").read_bytes()[:-100]
    )
    with pytest.raises(FileNotFoundError, match=rf"{folder} is missing or damaged in {tmp_path}"):
        data.load(name, tmp_path)


@pytest.mark.parametrize("name", images.NAMES)
def test_absent_images_are_said(no_network, tmp_path, name):
    with pytest.raises(
        FileNotFoundError,
        match=rf"{images.NAMES[name]} is missing.* --data-root or .* PYRO_SSL_DATA",
    ):
        data.load(name, tmp_path)


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_torchvision_beside_any_torch():
    code = """
import torch
try:
    import torchvision  # fails where its CUDA build meets a CPU-only torch
except RuntimeError:
    pass
from pyro_ssl.utils import torchvision_repair as vision
print(vision.torchvision() is vision.torchvision(), hasattr(vision.torchvision().datasets, "MNIST"))
"""
    assert python(code) == "True True"


@pytest.mark.slow
def test_importing_is_cheap():
    code = """
import sys, pyro_ssl
print([m for m in ('torchvision', 'matplotlib', 'sklearn') if m in sys.modules])
from pyro_ssl import zoo, data, fit, SemiSupervisedClassifier
print([m for m in ('torchvision', 'matplotlib') if m in sys.modules])
"""
    assert python(code).splitlines() == ["[]", "[]"]


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
def test_colour_images_come_channels_first_in_0_to_1(name, monkeypatch, tmp_path):
    """torchvision has CIFAR as (N, H, W, C) by `train=`, SVHN as (N, C, H, W) by `split=`."""
    svhn = name == "svhn"
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32)).astype(np.uint8)

    class Images:
        def __init__(self, root, download, **part):
            assert part in (
                [{"split": "train"}, {"split": "test"}]
                if svhn
                else [{"train": True}, {"train": False}]
            )
            self.data = pixels if svhn else pixels.transpose(0, 2, 3, 1)
            self.labels = self.targets = [0, 1, 0, 1]

    fakes = SimpleNamespace(
        datasets=SimpleNamespace(**dict.fromkeys(("CIFAR10", "CIFAR100", "SVHN"), Images))
    )
    monkeypatch.setattr(images, "torchvision", lambda: fakes)
    dataset = data.load(name, tmp_path)
    assert torch.equal(dataset.x, torch.from_numpy(pixels).float() / 255)
    assert dataset.y.tolist() == [0, 1, 0, 1] and dataset.x_shape == (3, 32, 32)

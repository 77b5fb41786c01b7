"""Data sets, users' own arrays, and which rows keep their labels."""

import pickle
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from pyro_ssl import data, vision
from pyro_ssl.data import LabelDraw, draw_labels

quick = settings(max_examples=40, deadline=None, derandomize=True)


# --- label draws ----------------------------------------------------------------------------------------------------


@st.composite
def classes(draw, least: int = 1):
    """Codes in any order, each of K classes at least `least` times, some rows without a class."""
    sizes = draw(st.lists(st.integers(least, 30), min_size=1, max_size=6))
    y = np.repeat([*range(len(sizes)), -1], [*sizes, draw(st.integers(0, 5))])
    return np.random.default_rng(draw(st.integers(0, 99))).permutation(y)


def counted(y: np.ndarray, drawn: LabelDraw) -> np.ndarray:
    """Labels in each class, after what holds of every draw."""
    assert list(drawn.indices) == sorted(set(drawn.indices))
    assert drawn.n == len(y)
    assert (y[list(drawn.indices)] >= 0).all()
    return np.bincount(y[list(drawn.indices)], minlength=y.max() + 1)


@quick
@given(y=classes(least=5), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_balanced_total(y, share, seed):
    k = y.max() + 1
    n = int(share * 5 * k)
    counts = counted(y, draw_labels(y, n, seed=seed))
    assert counts.sum() == n
    assert counts.max() - counts.min() <= 1


@quick
@given(y=classes(), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_stratified_total(y, share, seed):
    sizes = np.bincount(y[y >= 0])
    n = int(share * sizes.sum())
    counts = counted(y, draw_labels(y, n, how="stratified", seed=seed))
    assert counts.sum() == n
    more = counts - n * sizes / sizes.sum()
    assert (abs(more) < 1 + 1e-6).all()
    assert more.max() - more.min() < 1 + 2e-3  # the largest remainders are rounded up


@quick
@given(y=classes(), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_random_total(y, share, seed):
    n = int(share * (y >= 0).sum())
    assert counted(y, draw_labels(y, n, how="random", seed=seed)).sum() == n


@quick
@given(y=classes(least=3), per_class=st.integers(0, 3), seed=st.integers(0, 9), choice=st.data())
def test_per_class_and_counts(y, per_class, seed, choice):
    assert (counted(y, draw_labels(y, per_class=per_class, seed=seed)) == per_class).all()
    wanted = choice.draw(st.dictionaries(st.integers(0, int(y.max())), st.integers(0, 3)))
    counts = counted(y, draw_labels(y, counts=wanted, seed=seed))
    assert counts.tolist() == [wanted.get(c, 0) for c in range(y.max() + 1)]


@quick
@given(y=classes(), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_balanced_total_is_refused_only_where_there_is_none(y, share, seed):
    sizes = np.bincount(y[y >= 0])
    n = int(share * sizes.sum())
    each, rest = divmod(n, len(sizes))
    if sizes.min() >= each and (sizes > each).sum() >= rest:
        assert counted(y, draw_labels(y, n, seed=seed)).sum() == n
    else:
        with pytest.raises(ValueError, match=r"class \d has \d+ rows, cannot label \d+"):
            draw_labels(y, n, seed=seed)


def test_a_draw_depends_on_its_seed_alone():
    y = torch.arange(100) % 4
    np.random.seed(1)
    before = np.random.get_state()[1].tolist()
    draws = [draw_labels(y, 20, seed=seed) for seed in range(5)]
    assert np.random.get_state()[1].tolist() == before
    np.random.seed(2)
    assert draws == [draw_labels(y.numpy(), 20, seed=seed) for seed in range(5)]
    assert len({d.indices for d in draws}) == 5
    assert len({d.name for d in draws}) == 5


Y = np.array([0, 0, 0, 1, 2, 2, -1])
BAD_DRAWS = {
    "nothing": ({}, "exactly one of labels, per_class and counts"),
    "two": ({"labels": 2, "per_class": 1}, "exactly one of"),
    "below 0": ({"labels": -1}, r"labels should be in 0 \.\. 6"),
    "too many": ({"labels": 7}, r"labels should be in 0 \.\. 6, the rows with a class, got 7"),
    "too many of one": ({"labels": 6}, "class 1 has 1 rows, cannot label 2"),
    "per class": ({"per_class": 2}, "class 1 has 1 rows, cannot label 2"),
    "per class below 0": ({"per_class": -2}, "cannot label -2"),
    "counts": ({"counts": {0: 1, 2: 3}}, "class 2 has 2 rows, cannot label 3"),
    "unknown class": ({"counts": {0: 1, 5: 1}}, r"no class \[5\]"),
    "how": ({"labels": 2, "how": "any"}, "how should be balanced, stratified or random, got 'any'"),
    "seed": ({"labels": 2, "seed": -1}, "seed should be 0 or above"),
    "one-hot": ({"y": np.eye(3, dtype=int), "labels": 2}, r"y should have shape \(N,\)"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_DRAWS.values(), ids=BAD_DRAWS)
def test_bad_draws_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_labels(**{"y": Y} | arguments)


@quick
@given(y=classes(least=2), seed=st.integers(0, 9))
def test_draw_goes_round_and_hides_the_rest(tmp_path_factory, y, seed):
    drawn = draw_labels(y, per_class=2, seed=seed)
    path = tmp_path_factory.mktemp("draw") / "labels.json"
    drawn.save(path)
    assert LabelDraw.load(path) == drawn
    codes = drawn.codes(torch.as_tensor(y))
    assert torch.nonzero(codes >= 0).flatten().tolist() == list(drawn.indices)
    assert (codes[list(drawn.indices)].numpy() == y[list(drawn.indices)]).all()
    with pytest.raises(ValueError, match=f"the {len(y)} rows that the labels were drawn from, got {len(y) + 1}"):
        drawn.codes(torch.zeros(len(y) + 1))


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"format": "pyro-ssl labels", "n": 3, "name": "a", "indices": [3]}', '{"n": 3, "ind'] +
    ['{"format": "pyro-ssl labels", "n": 3, "name": "a", "indices": [-1]}', '{"format": "x", "n": 3, "indices": []}'],
)  # fmt: skip
def test_a_file_that_is_no_draw_is_refused(tmp_path, text):
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="is not a label draw"):
        LabelDraw.load(path)
    with pytest.raises(FileNotFoundError):
        LabelDraw.load(tmp_path / "none.json")


# --- users' own arrays ------------------------------------------------------------------------------------------------

ARRAYS = {
    "x": np.arange(12.0).reshape(6, 2),
    "y": np.array(["b", "a", "b", "c", "a", "b"]),
    "x_test": np.ones((2, 2)),
    "y_test": np.array(["c", "a"]),
}


@pytest.mark.parametrize("given", ["arrays", "npz"])
def test_arrays(tmp_path, given):
    if given == "npz":
        np.savez(tmp_path / "mine.npz", **ARRAYS)
        d = data.load(str(tmp_path / "mine.npz"))
        assert d.name == "mine"
    else:
        d = data.from_arrays(**ARRAYS)
    assert d.classes == ("a", "b", "c")
    assert (d.y.tolist(), d.y_test.tolist()) == ([1, 0, 1, 2, 0, 1], [2, 0])
    assert (d.x.dtype, d.x_shape) == (torch.float32, (2,))
    assert d.x.tolist() == ARRAYS["x"].tolist()


@pytest.mark.parametrize("y", [[5, -1, 9, 5, -1, 9], [5.0, np.nan, 9.0, 5.0, -1.0, 9.0]])
def test_rows_without_a_class_have_none(y):
    d = data.from_arrays(**ARRAYS | {"y": y, "y_test": [9, 5]})
    assert d.y.tolist() == [0, -1, 1, 0, -1, 1]
    assert d.y_test.tolist() == [1, 0]
    assert len(d.classes) == 2


BAD_ARRAYS = {
    "rows": ({"y": np.zeros(5)}, r"y should have shape \(6,\), got \(5,\)"),
    "test rows": ({"y_test": np.zeros(3)}, r"y_test should have shape \(2,\), got \(3,\)"),
    "features": ({"x_test": np.ones((2, 3))}, r"x_test should have rows of shape \(2,\) as x, got \(3,\)"),
    "class of test only": ({"y_test": np.array(["a", "d"])}, r"y_test has classes that y has not: \['d'\]"),
    "test without class": (
        {"y": np.arange(6), "y_test": np.array([0, -1])},
        r"y_test has classes that y has not: \[-1\]",
    ),
    "NaN": ({"x": np.full((6, 2), np.nan)}, "x holds NaN"),
    "test NaN": ({"x_test": np.full((2, 2), np.nan)}, "x_test holds NaN"),
    "empty": ({"x": np.ones((0, 2))}, "x is empty"),
    "too large": ({"x": ARRAYS["x"] + 1e300}, "x holds NaN or infinity"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_arrays_are_refused_by_name(arrays, message):
    with pytest.raises(ValueError, match=message):
        data.from_arrays(**ARRAYS | arrays)


def test_bad_files(tmp_path, monkeypatch):
    path = tmp_path / "mine.npz"
    with pytest.raises(FileNotFoundError, match="no such file"):
        data.load(str(path))
    np.savez(path, x=ARRAYS["x"], y=ARRAYS["y"])
    with pytest.raises(ValueError, match="x_test, y_test is missing"):
        data.load(str(path))
    monkeypatch.setattr(pickle, "load", None)
    np.savez(path, **ARRAYS | {"y": ARRAYS["y"].astype(object)})
    with pytest.raises(ValueError, match=r"not a readable \.npz file.*allow_pickle"):
        data.load(str(path))
    np.savez(path, **ARRAYS)
    for content in (path.read_bytes()[:-200], path.read_bytes()[:10], b"", b"x,y\n1,2\n", pickle.dumps(1)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"mine\.npz is not a readable \.npz file"):
            data.load(str(path))


def test_torch_datasets():
    x = torch.rand(6, 1, 4, 4)
    train = TensorDataset(x, torch.tensor([3, 5, 3, 5, 3, 5]))
    d = data.from_torch(train, TensorDataset(x[:2], torch.tensor([5, 3])))
    assert torch.equal(d.x, x)
    assert (d.classes, d.y.tolist(), d.y_test.tolist()) == (("3", "5"), [0, 1] * 3, [1, 0])
    with pytest.raises(ValueError, match="dataset is empty"):
        data.from_torch(TensorDataset(x[:0], x[:0]), train)


# --- data sets by name ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "n", "n_test", "k"),
    [("moons", (2,), 2000, 2000, 2), ("circles", (2,), 2000, 2000, 2), ("digits", (1, 8, 8), 1200, 597, 10)],
)
def test_embedded_sets(name, shape, n, n_test, k):
    d = data.load(name)
    assert (d.name, d.x_shape, d.x.shape[0], d.x_test.shape[0], len(d.classes)) == (name, shape, n, n_test, k)
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
        ValueError, match=r"data should be one of moons, .*cifar100, or a path to an \.npz file; got 'mnits'"
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
    for array, name in ((images, f"{part}-images-idx3-ubyte"), (labels, f"{part}-labels-idx1-ubyte")):
        head = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
        (folder / name).write_bytes(head + array.astype(np.uint8).tobytes())


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
@pytest.mark.parametrize("by", ["argument", "environment"])
def test_mnist_format(no_network, tmp_path, monkeypatch, name, folder, by):
    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28))
    images[0, 0, :2] = 0, 255
    raw = tmp_path / folder / "raw"
    write_idx(raw, images, np.arange(30) % 10, "train")
    write_idx(raw, images[:10], np.arange(10), "t10k")
    monkeypatch.setenv("PYRO_SSL_DATA", str(tmp_path if by == "environment" else tmp_path / "elsewhere"))
    d = data.load(name, None if by == "environment" else tmp_path)
    assert (d.name, d.x.shape, d.x_test.shape) == (name, (30, 1, 28, 28), (10, 1, 28, 28))
    assert (d.x.min(), d.x.max()) == (0, 1)
    np.testing.assert_allclose(d.x[:, 0].numpy(), images / 255, rtol=1e-6)
    assert d.y.tolist() == [i % 10 for i in range(30)]
    (raw / "train-images-idx3-ubyte").write_bytes((raw / "train-images-idx3-ubyte").read_bytes()[:-100])
    with pytest.raises(FileNotFoundError, match=rf"{folder} is missing or damaged in {tmp_path}"):
        data.load(name, tmp_path)


@pytest.mark.parametrize("name", vision.NAMES)
def test_absent_images_are_said(no_network, tmp_path, name):
    with pytest.raises(FileNotFoundError, match=rf"{vision.NAMES[name]} is missing.* --data-root or .* PYRO_SSL_DATA"):
        data.load(name, tmp_path)


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torchvision_beside_any_torch():
    code = """
import torch
try:
    import torchvision  # fails where its CUDA build meets a CPU-only torch
except RuntimeError:
    pass
from pyro_ssl import vision
print(vision.torchvision() is vision.torchvision(), hasattr(vision.torchvision().datasets, "MNIST"))
"""
    assert python(code) == "True True"


def test_importing_is_cheap():
    code = "import sys, pyro_ssl; print([m for m in ('torchvision', 'matplotlib', 'sklearn') if m in sys.modules])"
    assert python(code) == "[]"
    zoo = "import sys; from pyro_ssl import zoo, data, fit, SemiSupervisedClassifier"
    assert python(f"{zoo}; print('torchvision' in sys.modules, 'matplotlib' in sys.modules)") == "False False"


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
def test_colour_images_come_channels_first_in_0_to_1(name, monkeypatch, tmp_path):
    """torchvision gives CIFAR as (N, H, W, C) under `train=`, SVHN as (N, C, H, W) under `split=`."""
    svhn = name == "svhn"
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32)).astype(np.uint8)

    class Images:
        def __init__(self, root, download, **part):
            assert part in ([{"split": "train"}, {"split": "test"}] if svhn else [{"train": True}, {"train": False}])
            self.data = pixels if svhn else pixels.transpose(0, 2, 3, 1)
            self.labels = self.targets = [0, 1, 0, 1]

    fakes = SimpleNamespace(datasets=SimpleNamespace(**dict.fromkeys(("CIFAR10", "CIFAR100", "SVHN"), Images)))
    monkeypatch.setattr(vision, "torchvision", lambda: fakes)
    dataset = data.load(name, tmp_path)
    assert torch.equal(dataset.x, torch.from_numpy(pixels).float() / 255)
    assert dataset.y.tolist() == [0, 1, 0, 1] and dataset.x_shape == (3, 32, 32)

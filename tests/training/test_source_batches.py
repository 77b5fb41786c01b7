"""Training on memory maps and torch Datasets: the same bits as with arrays, and exact resuming."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from programs.training_runs import X, Y, same, small, weights
from torch.utils.data import Dataset, IterableDataset

from pyro_ssl import fit, predict_proba, zoo
from pyro_ssl.training.source_batches import SourceLabels

ROOT = Path(__file__).parent.parent.parent
TRAINING = {"epochs": 3, "batch_size": 10, "labeled_batch_size": 8}


class Rows(Dataset):
    """Rows of an array, with a label each, or without."""

    def __init__(self, x, y=None):
        self.x = np.asarray(x)
        self.y = y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        if self.y is None:
            return self.x[i]
        label = self.y[i].item()
        return self.x[i], None if label == -1 else label


class Noisy(Rows):
    """Rows with noise from all three global generators, as data augmentation draws it."""

    def __getitem__(self, i):
        import random

        return self.x[i] + (random.random() + np.random.rand() + torch.rand(()).numpy()) / 10


@pytest.fixture
def mapped(tmp_path):
    """A function that writes an array to a file and maps it."""

    def save(x):
        path = tmp_path / f"x{len(list(tmp_path.glob('x*')))}.npy"
        np.save(path, np.asarray(x))
        return np.load(path, mmap_mode="r")

    return save


def trained(x, y=None, objective=None, **arguments):
    objective = objective or small()
    history = fit(objective, x, y, **TRAINING | arguments)
    losses = {name: values for name, values in history.items() if name != "seconds"}
    return weights(objective), losses


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("kind", ["memmap", "dataset", "labels apart"])
def test_the_result_is_that_of_an_array_to_the_bit(mapped, kind, workers):
    before = torch.get_rng_state()
    data = {"memmap": (mapped(X), Y), "dataset": (Rows(X, Y),), "labels apart": (Rows(X), Y)}[kind]
    state, losses = trained(*data, workers=workers)
    expected, expected_losses = trained(X, Y)
    assert same(state, expected) and losses == expected_losses
    assert torch.get_rng_state().equal(before)


def test_labels_given_apart_take_the_place_of_those_in_the_items():
    other = torch.where(torch.arange(90) < 9, (torch.arange(90) + 1) % 3, -1)
    assert same(trained(Rows(X, Y), other, workers=0)[0], trained(X, other)[0])


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("classifier", {}),
        ("vae", {}),
        ("m1_m2", {"m1_epochs": 1}),
        ("latent_classifier", {}),
    ],
)
def test_every_kind_of_method_trains_on_a_memory_map(mapped, method, options):
    def train(x):
        objective = zoo.build(method, 4, 3, hidden=(6,), **options)
        state, losses = trained(x, Y, objective, workers=0)
        return state, losses, objective

    x = X.sigmoid()
    state, losses, objective = train(mapped(x))
    assert np.isfinite(losses["loss"]).all()
    if (
        method != "m1_m2"
    ):  # with arrays M2 gets all latents of M1 at once, from other random numbers
        expected, expected_losses, _ = train(x)
        assert same(state, expected) and losses == expected_losses
    else:
        assert objective.features.trained


def test_which_latents_m1_uses_is_found_in_chunks():
    features = zoo.build("m1_m2", 4, 3, hidden=(6,)).features
    features.finish_training(X)
    expected = features.used.clone()
    features.used.fill_(-1)
    features.finish_training_on(X.split(7))
    assert features.used.equal(expected)


def test_real_labels(mapped):
    y = torch.where(torch.arange(90) < 20, X[:, 0], torch.nan)

    def train(x, y):
        objective = zoo.build("sslpe", 4, 1, hidden=(6,), regression=True)
        return trained(x, y, objective, workers=0)[0]

    expected = train(X, y)
    assert same(train(mapped(X), y), expected)
    assert same(train(Rows(X, y), None), expected)


def test_all_rows_labeled(mapped):
    y = torch.arange(90) % 3
    assert same(trained(mapped(X), y, workers=0)[0], trained(X, y)[0])


def test_pixels_and_a_transform(mapped):
    pixels = torch.randint(0, 256, (90, 1, 2, 2), dtype=torch.uint8)
    arguments = {"transform": torch.bernoulli, "workers": 0}

    def train(x):
        return trained(x, Y, zoo.build("m2", (1, 2, 2), 3, hidden=(6,), z_dim=2), **arguments)[0]

    expected = train(pixels.float() / 255)
    assert same(train(mapped(pixels)), expected)
    assert same(train(pixels), expected)


class Stop(Exception):
    pass


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", [Rows, Noisy])
def test_a_stopped_run_resumes_to_the_same_bits(tmp_path, kind, workers):
    def stop(epoch):
        if epoch.epoch == 2:
            raise Stop

    whole, losses = trained(kind(X), Y, workers=workers)
    arguments = {"directory": tmp_path, "checkpoint_every": 3}
    with pytest.raises(Stop):
        trained(kind(X), Y, callbacks=[stop], workers=workers, **arguments)
    resumed, resumed_losses = trained(kind(X), Y, resume=True, workers=1 - workers, **arguments)
    assert same(resumed, whole) and resumed_losses == losses


OTHER_DATA = {
    "rows": (X[:-1], Y[:-1], r"^x: the run to resume had shape \[90, 4\], got \[89, 4\]; give"),
    "values": (X + 1, Y, r"^x: .* had other values, in the same shape \[90, 4\]; give the data"),
    "number of labels": (
        X,
        Y.where(torch.arange(90) < 13, -1),
        "^y: .* had 20 labeled rows, got 13; giv",
    ),
    "places": (X, Y.roll(1), "^y: .* had labels in other rows, 20 as well; give the data"),
    "labels": (X, (Y + 1).where(Y < 0, (Y + 1) % 3).where(Y >= 0, -1), "^y: .* had other labels"),
    "both": (X + 1, Y.roll(1), "^x: .* other values, .*; y: .* labels in other rows, 20 as well"),
}


@pytest.mark.parametrize("kind", ["memory map", "array"])
@pytest.mark.parametrize("change", OTHER_DATA)
def test_other_data_are_refused_when_a_run_resumes(tmp_path, mapped, change, kind):
    given = mapped if kind == "memory map" else torch.Tensor.clone
    trained(given(X), Y, directory=tmp_path, workers=0)
    x, y, message = OTHER_DATA[change]
    objective = small()
    before = weights(objective)
    with pytest.raises(ValueError, match=message):
        trained(given(x), y, objective, directory=tmp_path, resume=True, workers=0)
    assert same(weights(objective), before)


def test_data_of_another_dtype_are_named(tmp_path, mapped):
    trained(mapped(X), Y, directory=tmp_path, workers=0)
    with pytest.raises(ValueError, match="x: the run to resume had dtype float32, got float64"):
        trained(mapped(X.double()), Y, directory=tmp_path, resume=True, workers=0)


def far_apart(n=3000, bad=0.0):
    """Data of which row 2 is not among the 1000 rows that are looked at first."""
    x = torch.rand(n, 4, generator=torch.Generator().manual_seed(0))
    x[2] = bad
    return x


def test_a_row_that_is_not_finite_ends_the_run_at_its_batch(mapped):
    data = mapped(far_apart(bad=torch.nan))
    with pytest.raises(ValueError, match="x holds NaN or infinity, in row 2"):
        fit(small(), data, epochs=1, batch_size=100, workers=1)


def test_a_row_outside_the_support_ends_the_run_at_its_batch(mapped):
    bernoulli = zoo.build("vae", 4, 2, hidden=(4,))
    with pytest.raises(ValueError, match="'x' is observed outside the support of its"):
        fit(bernoulli, mapped(far_apart(bad=3.0)), epochs=1, batch_size=100, workers=0)


def test_an_array_of_such_data_is_refused_before_the_first_step():
    bernoulli = zoo.build("vae", 4, 2, hidden=(4,))
    with pytest.raises(ValueError, match="'x' is observed outside the support of its"):
        fit(bernoulli, far_apart(bad=3.0), epochs=1, batch_size=100)


class Broken(Rows):
    def __getitem__(self, i):
        if i == 2:
            raise OSError("the disk is gone")
        return self.x[i]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_item_that_cannot_be_read_is_named(workers):
    with pytest.raises(ValueError, match="x: item 2 cannot be read: OSError: the disk is gone"):
        fit(small(), Broken(far_apart()), epochs=1, batch_size=100, workers=workers)


def test_a_stream_is_refused_with_the_way_out():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(X)

    with pytest.raises(TypeError, match="IterableDataset.*mmap_mode='r'"):
        fit(small(), Stream())


@pytest.mark.parametrize("workers", [-1, 1.5, True])
def test_a_number_of_workers_that_is_none(workers):
    with pytest.raises(ValueError, match="workers should be"):
        fit(small(), X, Y, workers=workers)


def test_labels_that_do_not_fit_are_refused(mapped):
    with pytest.raises(ValueError, match=r"y should have shape \(90,\)"):
        fit(small(), mapped(X), Y[:-1])
    with pytest.raises(
        ValueError, match="x: item 2 has the label 3; it should be a class index, 0 .. 2"
    ):
        fit(small(), Rows(X, Y.clamp_min(0) + 1), workers=0)


def test_unlabeled_rows_are_counted_past_the_labeled_ones():
    rng = np.random.default_rng(0)
    for labeled in (0, 1, 7, 30):
        rows = np.sort(rng.permutation(30)[:labeled])
        labels = SourceLabels(30, rows, torch.zeros(labeled, dtype=torch.int64), 2)
        expected = np.setdiff1d(np.arange(30), rows)
        assert labels.unlabeled_rows(np.arange(30 - labeled)).tolist() == expected.tolist()


BAD_LABELS = {
    "a real label": (0.5, "m2", r"x: item 7 has the label 0.5; it should be a class index, 0 .. 2"),
    "another class": (3, "m2", "x: item 7 has the label 3; it should be a class index"),
    "below -1": (-2, "m2", "x: item 7 has the label -2; it should be a class index"),
    "two numbers": ([1.0, 2.0], "sslpe", "x: item 7 has the label .*should be a real label of 1"),
}


@pytest.mark.parametrize("kind", BAD_LABELS)
def test_a_label_that_does_not_fit_names_its_item(kind):
    label, method, message = BAD_LABELS[kind]

    class Labeled(Rows):
        def __getitem__(self, i):
            return self.x[i], label if i == 7 else 1

    objective = small()
    if method == "sslpe":
        objective = zoo.build("sslpe", 4, 1, hidden=(6,), regression=True)
    with pytest.raises(ValueError, match=message):
        trained(Labeled(X), objective=objective, workers=0)


def test_none_is_no_real_label():
    y = torch.where(torch.arange(90) < 20, X[:, 0], torch.nan)

    class Labeled(Rows):
        def __getitem__(self, i):
            return self.x[i], y[i].item() if i < 20 else None

    def train(*data):
        objective = zoo.build("sslpe", 4, 1, hidden=(6,), regression=True)
        return trained(*data, objective=objective, workers=0)[0]

    assert same(train(Labeled(X)), train(X, y))


def test_no_tensor_is_given_to_numpy(mapped):
    """Numpy 2 warns of it: torch's `__array__` does not know its `copy`."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        for workers in (0, 1):
            trained(mapped(X), Y, workers=workers)
            trained(Rows(X, Y), workers=workers)
        predict_proba(small(), mapped(X))
        predict_proba(small(), Rows(X, Y))


MEMORY = """
import sys
sys.path.insert(0, "experiments")
from pathlib import Path
import torch
torch.set_num_threads(1)
from larger_than_memory import accuracy_on, peak_memory, write_pictures
folder = Path(sys.argv[1])
write_pictures(folder / "small.npy", 0.02)
write_pictures(folder / "large.npy", 0.4)
with peak_memory() as small:
    accuracy_on(folder / "small.npy", 1000, 32)
with peak_memory() as large:
    accuracy = accuracy_on(folder / "large.npy", 1000, 32)
print(accuracy, large["peak_mb"]["all"] - small["peak_mb"]["all"], large["processes"])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_the_memory_does_not_grow_with_the_data(tmp_path):
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    accuracy, growth, processes = map(float, done.stdout.split())
    assert accuracy > 0.9
    assert processes == 2
    assert growth < 200  # megabytes; each of the two processes would hold 380 more

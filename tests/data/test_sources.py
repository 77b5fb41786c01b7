"""Memory maps and torch Datasets as sources: rows, labels, fingerprints, and what is refused."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from pyro_ssl.data.sources import DatasetSource, InputRows, MemmapSource, as_source

X = np.random.default_rng(0).normal(size=(40, 3, 4)).astype(np.float32)


class Items(Dataset):
    """A dataset of the items of a list; a function among them is called."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        item = self.items[i]
        return item() if callable(item) else item


class Stream(IterableDataset):
    def __iter__(self):
        return iter(X)


@pytest.fixture
def saved(tmp_path):
    """A function that saves an array and maps it."""

    def save(array, mode="r"):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
        np.save(path, array)
        return np.load(path, mmap_mode=mode)

    return save


VIEWS = {
    "whole": lambda x: x,
    "from a row on": lambda x: x[7:],
    "every second row": lambda x: x[::2],
    "backwards": lambda x: x[::-1],
    "one column": lambda x: x[:, :, 2:3],
    "columns with gaps": lambda x: x[3:, ::2, 1::2],
    "transposed": lambda x: x.transpose(0, 2, 1),
    "rows last": lambda x: x.transpose(2, 0, 1),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("mode", ["r", "r+"])
def test_any_view_of_a_memory_map_is_read_as_numpy_reads_it(saved, view, mode):
    array = VIEWS[view](saved(X, mode))
    source = as_source(array)
    assert isinstance(source, MemmapSource) and source.shape == array.shape
    for rows in ([0], [1, 2, 3], [3, 0, 3], list(range(len(array)))):
        wanted = torch.as_tensor(np.array(array[np.array(rows)]))
        assert source.read(np.array(rows)).equal(wanted)
        assert pickle.loads(pickle.dumps(source)).read(np.array(rows)).equal(wanted)


def test_a_pickled_source_does_not_hold_the_data(saved):
    array = saved(np.zeros((10_000, 30)))
    assert len(pickle.dumps(as_source(array))) < 2000


@pytest.mark.parametrize("dtype", ["uint8", "int16", "<f8", ">f4", "bool", "float16"])
def test_a_memory_map_of_any_real_dtype(saved, dtype):
    array = np.arange(12).reshape(6, 2).astype(dtype)
    read = as_source(saved(array)).read(np.array([4, 1]))
    assert read.tolist() == array[[4, 1]].tolist()


def test_what_is_written_to_a_map_is_read(saved):
    array = saved(X, "r+")
    array[5] = 7.0
    assert (as_source(array).read(np.array([5])) == 7.0).all()


def test_a_raw_file_with_an_offset(tmp_path):
    X.tofile(tmp_path / "raw")
    array = np.memmap(tmp_path / "raw", np.float32, "r", offset=48 * 2, shape=(10, 12))
    assert as_source(array).read(np.array([9])).equal(torch.as_tensor(X[11].reshape(1, 12)))


def test_other_data_are_no_source():
    for x in (X, torch.zeros(2, 2), [[1.0]], np.asarray(X)):
        assert as_source(x) is x


REFUSED = {
    "iterable": (lambda save: Stream(), TypeError, "IterableDataset.*__getitem__.*mmap_mode"),
    "loader": (
        lambda save: DataLoader(Items([X[0]])),
        TypeError,
        r"got a DataLoader; give its dataset, x\.dataset",
    ),
    "no length": (
        lambda save: type("Endless", (Dataset,), {"__getitem__": lambda self, i: X[0]})(),
        TypeError,
        "Endless has no length; give it a __len__",
    ),
    "empty": (lambda save: Items([]), ValueError, "x is empty: a Items of length 0"),
    "dictionary": (lambda save: Items([{"x": X[0]}]), TypeError, "item 0 should be an array"),
    "three": (lambda save: Items([(1, 2, 3)]), TypeError, "x or .x, y., got a tuple of 3"),
    "numbers": (lambda save: Items([1.0, 2.0]), ValueError, r"one feature is \(data, 1\)"),
    "complex": (lambda save: Items([np.ones(2, complex)]), TypeError, "real numbers"),
    "copy on write": (lambda save: save(X, "c"), ValueError, "mode 'c'.*open it with mode 'r'"),
    "reversed": (lambda save: save(X)[:, ::-1], ValueError, "rows are reversed"),
    "one axis": (lambda save: save(X[:, 0, 0]), ValueError, r"one feature is \(data, 1\)"),
    "text": (lambda save: save(np.array([["a"]])), TypeError, "real numbers, got a memory map"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_with_the_way_out(saved, kind):
    make, error, message = REFUSED[kind]
    with pytest.raises(error, match=message):
        as_source(make(saved))


def test_items_with_and_without_labels():
    rows = torch.as_tensor(X)
    for dataset, labels in (
        (TensorDataset(rows), None),
        (Items(list(X)), None),
        (TensorDataset(rows, torch.arange(40)), list(range(40))),
        (Items([(X[0], None), (X[1], 1), (X[2], np.int64(2)), (X[3], -1)]), [None, 1, 2, -1]),
    ):
        source = as_source(dataset)
        assert source.labels() == labels == source.labels(workers=1)
        assert source.read(np.array([2, 0])).equal(rows[[2, 0]])
        assert source.without_labels().labels() is None


def unreadable():
    raise OSError("the disk is gone")


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (X[0, :2], r"item 0 has \(3, 4\).*item 1 has \(2, 4\)"),
        (X[0].astype(int), "item 1 has .*int64"),
        (unreadable, "item 1 cannot be read: OSError: the disk is gone"),
    ],
)
def test_an_item_that_does_not_fit_is_named(item, message):
    with pytest.raises(ValueError, match=message):
        as_source(Items([X[0], item])).read(np.array([0, 1]))


def test_items_of_two_kinds_are_refused():
    with pytest.raises(ValueError, match=r"some items are \(x, y\) and others are x"):
        as_source(Items([(X[0], 1), X[1]])).labels()


def test_the_fingerprint_knows_shape_dtype_and_rows(saved, tmp_path):
    prints = {as_source(saved(a)).fingerprint for a in (X, X[:-1], X + 1, X.astype(float))}
    assert len(prints) == 4
    assert as_source(saved(X)).fingerprint in prints  # another file with the same rows
    assert as_source(Items(list(X))).fingerprint in prints


def test_a_dataset_that_draws_random_numbers_has_one_fingerprint():
    def dataset():
        return Items([lambda: X[0] + np.random.rand() + torch.rand(()).item()] * 5)

    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    assert as_source(dataset()).fingerprint == as_source(dataset()).fingerprint
    assert torch.get_rng_state().equal(before[0])
    assert np.random.get_state()[1].tolist() == before[1]


def test_input_rows_are_indexed_and_split_like_a_tensor(saved):
    rows = InputRows(as_source(saved(X)), torch.nn.Linear(2, 1).double())
    x = torch.as_tensor(X).double()
    assert rows[3].equal(x[3]) and rows[4:9].equal(x[4:9]) and rows[::7].equal(x[::7])
    assert rows[torch.tensor([5, 2])].equal(x[[5, 2]])
    assert torch.cat(list(rows.split(7))).equal(x) and len(rows) == 40


def test_pixels_are_divided_and_other_whole_numbers_are_not(saved):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 1, 4, 4), dtype=np.uint8)
    network = torch.nn.Linear(2, 1)
    assert InputRows(as_source(saved(pixels)), network)[:].equal(torch.as_tensor(pixels) / 255)
    table = pixels.reshape(30, 16)
    assert InputRows(as_source(saved(table)), network)[:].equal(torch.as_tensor(table).float())
    with pytest.raises(ValueError, match="uint8 with no number above 1.*float32"):
        InputRows(as_source(saved(pixels % 2)), network)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite_are_named(saved, bad):
    x = X.astype(np.float64)
    x[17, 1, 1] = bad
    rows = InputRows(as_source(saved(x)), torch.nn.Linear(2, 1))
    rows.on_host(np.arange(17))
    with pytest.raises(ValueError, match="x holds NaN or infinity, in row 17, as torch.float32"):
        rows.on_host(np.array([3, 17]))


def test_the_sample_of_large_rows_is_small():
    class Large(Dataset):
        def __len__(self):
            return 10**8

        def __getitem__(self, i):
            return torch.zeros(1000, 1000).expand(3, 1000, 1000)

    source = DatasetSource(Large())
    assert len(source.sampled()) == 20 and source.sampled()[-1] == 10**8 - 1

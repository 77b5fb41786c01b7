"""One reader for all commands: parts of folders, columns by name, and how later files are read."""

import numpy as np
import pytest
import torch
from PIL import Image

from pyro_ssl import data
from pyro_ssl.data.readers import (
    Reading,
    dataset_of,
    label_indices,
    labeled_rows_as_test,
    load_or_read,
    read,
)

RNG = np.random.default_rng(0)


def picture(path, level):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((2, 3), level, np.uint8)).save(path)


def pets(root, train="train/", unlabeled="unlabeled", test=True):
    """Cats are 10, dogs 20, unlabeled ones 30, and those to test 40."""
    for name in "ab":
        picture(root / f"{train}cat/{name}.png", 10)
        picture(root / f"{train}dog/{name}.png", 20)
        picture(root / f"{unlabeled}/{name}.png", 30)
    if test:
        picture(root / "test/dog/a.png", 40)
    return root


LAYOUTS = {
    "beside": {},
    "inside": {"unlabeled": "train/unlabeled"},
    "without train": {"train": ""},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("test", [True, False])
def test_folders_of_images(tmp_path, layout, test):
    dataset, reading = load_or_read(str(pets(tmp_path, **LAYOUTS[layout], test=test)))
    assert dataset.classes == ("cat", "dog") and dataset.x.shape == (6, 1, 2, 3)
    assert dataset.y.tolist() == [0, 0, 1, 1, -1, -1]
    levels = dataset.x.amax((1, 2, 3)).tolist()
    assert levels == [10, 10, 20, 20, 30, 30] and dataset.x.dtype == torch.uint8
    assert dataset.y_test.tolist() == ([1] if test else [])
    assert dataset.x_test.shape == (int(test), 1, 2, 3)
    assert reading == Reading(image_shape=(1, 2, 3), unit=255.0)


def test_images_keep_the_names_of_their_files(tmp_path):
    content = read(pets(tmp_path))
    assert content.train.names[0] == "train/cat/a.png" and len(content.train.names) == 6
    assert content.last.names == ("test/dog/a.png",)


def test_unlabeled_images_inside_come_before_those_beside(tmp_path):
    pets(tmp_path, unlabeled="train/unlabeled")
    picture(tmp_path / "unlabeled/c.png", 50)
    names = read(tmp_path).train.names
    assert names[-3:] == ("train/unlabeled/a.png", "train/unlabeled/b.png", "unlabeled/c.png")


def test_a_folder_of_images_alone_has_no_labels(tmp_path):
    picture(tmp_path / "a.png", 1)
    content = read(tmp_path)
    assert content.train.labels is None and content.train.names == ("a.png",)
    with pytest.raises(ValueError, match="there is no label.*--label-column NAME"):
        dataset_of(content, "pets")


TABLE = "id,b,a,label\n1,2,10,cat\n2,4,30,dog\n3,6,50,\n"


@pytest.fixture
def table(tmp_path):
    (tmp_path / "pets.csv").write_text(TABLE)
    return tmp_path / "pets.csv"


def test_columns_of_a_table_are_standardised(table):
    dataset, reading = load_or_read(str(table), reading=Reading(ignore_columns=("id",)))
    assert reading.columns == ("b", "a") and reading.mean == (4, 30)
    assert dataset.y.tolist() == [0, 1, -1] and len(dataset.x_test) == 0
    torch.testing.assert_close(dataset.x.mean(0), torch.zeros(2))
    torch.testing.assert_close(dataset.x.std(0, correction=0), torch.ones(2))


def test_a_later_table_is_read_by_name_in_the_units_of_the_first(table, tmp_path):
    first, reading = load_or_read(str(table), reading=Reading(ignore_columns=("id",)))
    reading = Reading.of({"reading": reading.plain()})
    (tmp_path / "later.csv").write_text("a,b\n50,6\n10,2\n")  # other order; no label, no id
    later = read(tmp_path / "later.csv", reading)
    assert torch.as_tensor(later.train.x).equal(first.x[[2, 0]]) and later.train.labels is None
    for text, message in (
        ("a\n1\n", "no column 'b'; its columns: 'a'"),
        ("a,b,c\n1,2,3\n", "training data lack: 'c'; the model was trained on 'b', 'a'"),
    ):
        (tmp_path / "other.csv").write_text(text)
        with pytest.raises(ValueError, match=message):
            read(tmp_path / "other.csv", reading)


def test_a_folder_of_tables(tmp_path):
    (tmp_path / "train.csv").write_text("a,label\n1,cat\n2,dog\n3,\n")
    (tmp_path / "unlabeled.csv").write_text("a\n4\n5\n")
    (tmp_path / "test.csv").write_text("a,label\n3,dog\n")
    dataset, reading = load_or_read(str(tmp_path))
    assert dataset.y.tolist() == [0, 1, -1, -1, -1] and dataset.y_test.tolist() == [1]
    assert reading.mean == (3,) and dataset.x_test.tolist() == [[0]]
    (tmp_path / "train.parquet").write_text("")
    with pytest.raises(ValueError, match="should hold one table train, got"):
        read(tmp_path)


def test_csv_and_parquet_give_the_same_data(table, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"id": [1, 2, 3], "b": [2, 4, 6], "a": [10, 30, 50], "label": ["cat", "dog", None]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "pets.parquet")
    (one, of_one), (other, of_other) = (
        load_or_read(str(tmp_path / f"pets.{end}")) for end in ("csv", "parquet")
    )
    assert one.x.equal(other.x) and one.y.equal(other.y) and one.classes == other.classes
    assert of_one == of_other


BAD_TABLES = {
    "a,b,label\n1,5,cat\n2,5,dog\n": "'b' has the same value in all rows.*--ignore-columns b",
    "a,kind\n1,cat\n2,dog\n": "no column 'label' of labels; give --label-column NAME, one of 'a'",
    "label\ncat\ndog\n": "has no columns besides 'label'",
    "a,label\n1,cat\n2,cat\n": "one class",
    "a,label\n1,\n2,\n": "y has no label",
}


@pytest.mark.parametrize("text", BAD_TABLES)
def test_a_table_that_cannot_be_learned_from_is_refused(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=BAD_TABLES[text]):
        load_or_read(str(tmp_path / "t.csv"))


def test_unknown_columns_to_ignore_are_refused(table):
    with pytest.raises(ValueError, match="--ignore-columns: .* has no column 'age'"):
        read(table, Reading(ignore_columns=("age",)))


def test_other_paths_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file; data should be one of moons"):
        read(tmp_path / "none")
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(ValueError, match="data should be a folder of images.*got .*x.txt"):
        read(tmp_path / "x.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no images"):
        read(tmp_path / "empty")


def test_labels_are_indices_of_a_models_classes(tmp_path):
    assert label_indices(["b", "", "a"], 3, ["a", "b", "c"]).tolist() == [1, -1, 0]
    assert label_indices([1.0, np.nan], 2, ["0", "1"]).tolist() == [1, -1]
    message = "the labels have other classes: 'd'; the known classes are 'a'"
    with pytest.raises(ValueError, match=message):
        label_indices(["d"], 1, ["a"])


def test_labeled_rows_are_the_test_part_where_there_is_none(table):
    dataset, _ = load_or_read(str(table))
    test = labeled_rows_as_test(dataset)
    assert test.x_test.equal(dataset.x[:2]) and test.y_test.tolist() == [0, 1]
    moons = data.load("moons")
    assert labeled_rows_as_test(moons) is moons


@pytest.mark.parametrize(("largest", "unit"), [(255, 255.0), (1, 1.0)])
def test_arrays_of_whole_numbers_have_a_unit(tmp_path, largest, unit):
    x = RNG.integers(0, largest + 1, (6, 1, 2, 2))
    y = np.arange(6) % 2
    np.savez(tmp_path / "x.npz", x=x, y=y, x_test=x // largest, y_test=y)
    dataset, reading = load_or_read(str(tmp_path / "x.npz"))
    assert reading.unit == unit
    np.testing.assert_allclose(dataset.x, x / unit, rtol=1e-6)
    np.testing.assert_allclose(dataset.x_test, x // largest / unit, rtol=1e-6)


def test_a_damaged_reading_is_refused():
    assert Reading.of({}) == Reading() and Reading.of({"unit": 255.0}).unit == 255
    for plain in ({"columns": ["a"]}, {"colour": 1}, 3):
        with pytest.raises(ValueError, match="reading is damaged"):
            Reading.of({"reading": plain})

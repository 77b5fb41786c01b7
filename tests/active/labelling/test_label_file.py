"""Labels as CSV, in and out."""

from pathlib import Path

import pytest

from pyro_ssl.active.labelling.label_file import as_classes, names_of_labels, write_labels

NAMES = ("unlabeled/a.png", 'b, "c".png', "d.png")
CLASSES = ["cat", "dog"]


@pytest.mark.parametrize("names", [NAMES, ()])
def test_labels_are_read_as_they_were_written(tmp_path, names):
    path = tmp_path / "labels.csv"
    write_labels(path, {2: 0, 1: 1}, CLASSES, names)
    assert path.read_text().startswith("file,label\n" if names else "row,label\n1,dog\n")
    labels = names_of_labels(path, 3, names)
    assert labels == {1: "dog", 2: "cat"} and as_classes(labels, CLASSES, path) == {1: 1, 2: 0}


def test_rows_without_a_label_and_other_columns_are_left_out(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("who,row,label\nme,0,\nme,2,dog\nyou,2,dog\n")
    assert names_of_labels(path, 3) == {2: "dog"}


@pytest.mark.parametrize(
    ("text", "names", "said"),
    [
        ("row,label\n3,dog\n", (), "no row '3' in the data; rows count from 0"),
        ("row,label\n-1,dog\n", (), "no row '-1'"),
        ("file,label\na.png,dog\n", NAMES, "write paths from the data's folder, such as"),
        ("row,label\n0,dog\n", NAMES, "should have the columns file and label; it has row, lab"),
        ("row,kind\n0,dog\n", (), "should have the columns row and label"),
        ("row,label\n0,dog\n0,cat\n", (), "row '0' has two labels, dog and cat"),
    ],
)
def test_rows_that_do_not_fit_are_named(tmp_path, text, names, said):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        names_of_labels(path, 3, names)


def test_a_label_of_another_class_is_named():
    with pytest.raises(ValueError, match="labels.csv has other classes: 'eel'"):
        as_classes({0: "eel"}, CLASSES, Path("labels.csv"))

"""Tables from CSV and Parquet files: the same numbers and labels, and what is refused."""

import numpy as np
import pytest

from pyro_ssl.data.tables import read_table

CSV = 'weight,"ears, pointed",label\n4.5,True,cat\n30,false, dog \n5,1,\n'


@pytest.fixture
def write(tmp_path):
    def file(text, name="pets.csv", encoding="utf-8"):
        (tmp_path / name).write_bytes(text.encode(encoding))
        return tmp_path / name

    return file


def parquet(path, **columns):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_csv_file(write, encoding, end):
    table = read_table(write(CSV.replace("\n", end), encoding=encoding))
    assert list(table.columns) == ["weight", "ears, pointed", "label"]
    assert table.numbers(["ears, pointed", "weight"]).tolist() == [[1, 4.5], [0, 30], [1, 5]]
    assert table.labels("label").tolist() == ["cat", "dog", ""]
    assert table.labels("class") is None


def test_a_parquet_file_gives_the_same(tmp_path, write):
    columns = {"weight": [4.5, 30, 5], "ears, pointed": [True, False, True]}
    path = parquet(tmp_path / "pets.parquet", **columns, label=["cat", "dog", None])
    table = read_table(path)
    names = ["ears, pointed", "weight"]
    assert table.numbers(names).tolist() == read_table(write(CSV)).numbers(names).tolist()
    assert table.labels("label").tolist() == ["cat", "dog", None]


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["1", "", "0"], [1.0, np.nan, 0.0]),
        (["1.0", "NaN", "0.0"], [1.0, np.nan, 0.0]),
        (["1", "-1", "2"], [1.0, np.nan, 2.0]),
        (["007", "", "7"], ["007", "", "7"]),  # names, not numbers
        (["1", "", "b"], ["1", "", "b"]),
        (["1e3", "", "2"], ["1e3", "", "2"]),
    ],
)
def test_labels_are_numbers_where_all_are(write, cells, labels):
    rows = "".join(f"0,{cell}\n" for cell in cells)
    found = read_table(write("x,y\n" + rows)).labels("y")
    np.testing.assert_array_equal(found, np.array(labels, found.dtype))


def test_whole_numbers_beside_empty_cells_in_parquet(tmp_path):
    path = parquet(tmp_path / "t.parquet", x=[0.0, 1.0], y=[3, None])
    assert read_table(path).labels("y").tolist() == [3, None]


BAD_CELLS = {
    "4.5,blue\n": "column 'b', line 2, holds 'blue', which is not a number.*get_dummies",
    "4.5,\n": "column 'b', line 2, is empty.*--ignore-columns b",
    "4.5,NA\n": "column 'b', line 2, holds NA: a method needs a number",
    "4.5,nan\n": "column 'b', line 2, holds nan: a method needs a number",
    "4.5,inf\n": "column 'b', line 2, holds inf: a method needs a number",
    "1,2\n3,4\n5,x\n": "column 'b', line 4, holds 'x'",
}


@pytest.mark.parametrize("text", BAD_CELLS)
def test_a_cell_without_a_number_is_named(write, text):
    with pytest.raises(ValueError, match=BAD_CELLS[text]):
        read_table(write("a,b\n" + text)).numbers(["a", "b"])


BAD_FILES = {
    "a,b\n1\n": "line 2 has 1 cells, but the header has 2",
    "a,a\n1,2\n": "two columns are called 'a'",
    "a;b\n1;2\n": "separated by semicolons",
    "1,2\n3,4\n": "the first line, 1,2, should name the columns",
    "a,b\n": "has no rows",
    "": "is empty",
    'a,b\n"1,2\n': "not a readable .csv file",
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_a_bad_csv_file_is_refused(write, text):
    with pytest.raises(ValueError, match=BAD_FILES[text]):
        read_table(write(text))


def test_other_bad_files_are_refused(write, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="not a readable .csv file in UTF-8"):
        read_table(write("a,b\n1,é", encoding="latin-1"))
    with pytest.raises(ValueError, match="no column 'c'; its columns: 'a', 'b'"):
        read_table(write("a,b\n1,2\n")).numbers(["a", "c"])
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_table(tmp_path / "none.csv")
    pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match="not a readable .parquet file"):
        read_table(write("a,b", "bad.parquet"))


def test_parquet_says_what_to_install(write, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"need pyarrow; pip install 'pyro-ssl\[tables\]'"):
        read_table(write("", "t.parquet"))

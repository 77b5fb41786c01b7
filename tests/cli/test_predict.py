"""`pyro-ssl predict`: files of rows, and data that do not fit the model."""

from pathlib import Path

import numpy as np
import pytest
from cli_programs import run

from pyro_ssl import data
from pyro_ssl.zoo.saved_model import SavedModel


def test_predict_writes_the_probabilities_of_the_model(finished):
    x = data.load("digits").x_test[:5]
    np.save("x.npy", x.numpy())
    assert run("predict", finished, "--input", "x.npy", "--output", "p.npy") == 0
    probs = np.load("p.npy")
    assert probs.shape == (5, 10)
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-5)
    expected = SavedModel.load(finished / "model").objective.classify(x).mean.detach().numpy()
    np.testing.assert_allclose(probs, expected, atol=1e-6)


def test_csv_is_read_and_written(capsys):
    x, y = np.random.default_rng(0).normal(size=(150, 3)), np.arange(150) % 2
    np.savez("mine.npz", x=x, y=y, x_test=x, y_test=y)
    assert (
        run(
            "train",
            "classifier",
            "--data",
            "mine.npz",
            "--epochs",
            1,
            "--hidden",
            "[4]",
            "--out",
            "run",
        )
        == 0
    )
    np.save("x.npy", x)
    np.savetxt("x.csv", x, delimiter=",")
    np.savetxt("named.csv", x, delimiter=",", header="height,weight,age", comments="")
    for name in ("x.npy", "x.csv", "named.csv"):
        assert run("predict", "run", "--input", name, "--output", f"{name}.npy") == 0
        np.testing.assert_allclose(np.load(f"{name}.npy"), np.load("x.npy.npy"), atol=1e-7)
    assert run("predict", "run", "--input", "x.csv", "--output", "p.csv") == 0
    lines = Path("p.csv").read_text().splitlines()
    assert lines[0] == "row,predicted,confidence,p(0),p(1)" and len(lines) == 151
    probs = np.loadtxt("p.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(probs[:, 3:], np.load("x.npy.npy"), atol=1e-7)
    assert probs[:, 0].tolist() == list(range(150))
    assert probs[:, 1].tolist() == probs[:, 3:].argmax(1).tolist()
    assert probs[:, 2].tolist() == probs[:, 3:].max(1).tolist()
    capsys.readouterr()
    for text, message in (
        (
            "1,2,3\n4,5\n",
            "rows of numbers, separated by commas: row 2 has 2 numbers, the first row 3",
        ),
        ("1,2,3\n4,a,5\n", "row 2 holds 'a'"),
        (",2,3\n4,5,6\n", "row 1 holds ''"),  # no line of names, but a value that is missing
        ("0,1,2\n.4,.5,.6\n", "the first line, 0,1,2, seems to number the columns, as pandas does"),
        ("1,2,3#\n", "row 1 holds '3#'"),
        ("a,b,c\n", "should hold rows of numbers, separated by commas: it has no rows"),
        ("", "should hold rows of numbers, separated by commas: it has no rows"),
        ("1,2\n3,4\n", "--data: x should have shape (N, 3), rows of shape (3,), got (2, 2)"),
        ("1,nan,3\n", "--data holds NaN or infinity, first in row 0"),
    ):
        Path("bad.csv").write_text(text)
        assert run("predict", "run", "--input", "bad.csv", "--output", "q.csv") == 2
        assert message in capsys.readouterr().err and not Path("q.csv").exists()
    Path("bad.csv").write_bytes(b"\xff\xfe1,2")
    assert run("predict", "run", "--input", "bad.csv", "--output", "q.csv") == 2
    assert run("predict", "run", "--input", "x.csv", "--output", "q.txt") == 2
    assert (
        "--output: the file should end in .npy or .csv" in capsys.readouterr().err
        and not Path("q.txt").exists()
    )


# --- data that do not fit -------------------------------------------------------------------------


@pytest.mark.parametrize("change", [lambda x: 255 * x, lambda x: 2 * x - 1])
def test_images_in_other_units_are_refused(finished, capsys, change):
    np.save("x.npy", change(data.load("digits").x_test[:50]).numpy())
    assert run("predict", finished, "--input", "x.npy", "--output", "p.npy") == 2
    said = capsys.readouterr().err
    assert (
        "--data is in other units than the training data" in said
        and "in training from 0 to 1" in said
    )
    assert not Path("p.npy").exists()


def test_columns_in_other_units_are_refused(capsys):
    raw, y = (
        np.random.default_rng(0).normal([40, 50_000], [12, 9000], size=(150, 2)),
        np.arange(150) % 2,
    )
    x = (raw - raw.mean(0)) / raw.std(0)
    np.savez("mine.npz", x=x, y=y, x_test=x, y_test=y)
    np.savez("raw.npz", x=raw, y=y, x_test=raw, y_test=y)
    np.save("x.npy", raw)
    assert (
        run(
            "train",
            "classifier",
            "--data",
            "mine.npz",
            "--epochs",
            1,
            "--hidden",
            "[4]",
            "--out",
            "run",
        )
        == 0
    )
    assert run("predict", "run", "--input", "x.npy", "--output", "p.npy") == 2
    assert (
        "--data is in other units than the training data: column 1 from" in capsys.readouterr().err
    )
    assert run("evaluate", "run", "--data", "raw.npz") == 2
    assert "x is in other units than the training data" in capsys.readouterr().err
    np.save("x.npy", x[:1] + [0, 30])  # a single row far out is no matter of units
    assert run("predict", "run", "--input", "x.npy", "--output", "p.npy") == 0


def save_truncated():
    np.save("x.npy", np.zeros((5, 64)))
    Path("x.npy").write_bytes(Path("x.npy").read_bytes()[:-100])


BAD_INPUT = {
    "shape": (lambda: np.save("x.npy", np.zeros((5, 63))), "rows of shape (1, 8, 8), got (5, 63)"),
    "flat": (lambda: np.save("x.npy", np.zeros((5, 64))), "rows of shape (1, 8, 8), got (5, 64)"),
    "channels last": (
        lambda: np.save("x.npy", np.zeros((5, 8, 8, 1))),
        "as in x.transpose(0, 3, 1, 2)",
    ),
    "one row": (lambda: np.save("x.npy", np.zeros(64)), "rows of shape (1, 8, 8), got (64,)"),
    "empty": (lambda: np.save("x.npy", np.zeros((0, 1, 8, 8))), "--data is empty"),
    "NaN": (lambda: np.save("x.npy", np.full((5, 1, 8, 8), np.nan)), "--data holds NaN"),
    "strings": (
        lambda: np.save("x.npy", np.full((5, 1, 8, 8), "a")),
        "--data should hold numbers",
    ),
    "objects": (
        lambda: np.save("x.npy", np.full((5, 64), None)),
        "--data: x.npy is not a readable .npy file",
    ),
    "truncated": (save_truncated, "--data: x.npy is not a readable .npy file"),
    "text": (
        lambda: Path("x.npy").write_text("1,2,3"),
        "it has another format, or holds Python objects; write",
    ),
    "npz": (
        lambda: [np.savez("x", x=np.zeros((5, 64))), Path("x.npz").rename("x.npy")],
        "one array, got an .npz",
    ),
    "missing": (lambda: None, "--data: x.npy: no such file"),
}


@pytest.mark.parametrize(("make", "message"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_invalid_input_is_named(finished, capsys, make, message):
    make()
    assert run("predict", finished, "--input", "x.npy", "--output", "p.npy") == 2
    assert message in capsys.readouterr().err
    assert not Path("p.npy").exists()

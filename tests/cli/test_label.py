"""`pyro-ssl label`: a person answers, the command trains, and an interrupted one continues."""

import json
import shutil
import threading
import time

import numpy as np
import pytest

from pyro_ssl.active import committee
from pyro_ssl.active.labelling.page import Page
from pyro_ssl.active.learner import ActiveLearner
from pyro_ssl.cli import app as cli
from pyro_ssl.cli import label
from pyro_ssl.data.missing_labels import LabelWarning
from pyro_ssl.utils import files


def pool(tmp_path, n=60):
    """Images whose upper or lower half is bright."""
    y = np.arange(n) % 2
    x = np.random.default_rng(0).integers(0, 60, (n, 8, 8), dtype=np.uint8)
    x[y == 0, :4] += 180
    x[y == 1, 4:] += 180
    np.savez(tmp_path / "images.npz", x=x, classes=np.array(["up", "down"]))
    return x, y


def command(tmp_path, *others):
    return cli.main(
        [
            "label",
            str(tmp_path / "run"),
            "--data",
            str(tmp_path / "images.npz"),
            "--source",
            "terminal",
            "--n",
            "4",
            "--options",
            json.dumps({"hidden": [8], "z_dim": 2, "network": "mlp"}),
            "--training",
            json.dumps({"epochs": 2}),
            "--start",
            "random",
            *others,
        ]
    )


@pytest.fixture
def person(monkeypatch, tmp_path):
    """Answers by looking at the rows that are asked for, as many as told; then is gone."""

    def answers(y, most=10**6):
        count = iter(range(most))

        def answer(prompt):
            if next(count, None) is None:
                raise EOFError
            rows = json.loads((tmp_path / "run/asked.json").read_text())["rows"]
            return ["up", "down"][y[rows[int(prompt.split()[1].rstrip(":"))]]]

        monkeypatch.setattr("builtins.input", answer)

    return answers


def kept(tmp_path, name="labels"):
    return json.loads((tmp_path / "run" / f"{name}.json").read_text())


# --- rounds ---------------------------------------------------------------------------------------


def test_label_asks_trains_and_continues(tmp_path, person, capsys):
    x, y = pool(tmp_path)
    person(y, 6)
    assert (
        command(tmp_path, "--rounds", "3") == 130
        and "run the same command to continue" in capsys.readouterr().err
    )
    asked = kept(tmp_path, "asked")
    assert len(asked["answers"]) == 2 and len(asked["rows"]) == 4  # of the second round
    person(y)
    assert (
        command(tmp_path, "--acquisition", "margin", "--n", "1") == 0
    )  # whatever else is asked for, these rows first
    said = capsys.readouterr().out
    assert "8 labels; the model gives one class more than 95 % in" in said
    assert "classes: 0 up, 1 down" in said and "to answer the next 1: pyro-ssl label" in said
    labels = kept(tmp_path)
    assert (
        set(asked["rows"]) <= set(labels["indices"])
        and labels["labels"] == y[labels["indices"]].tolist()
    )
    assert (tmp_path / "run/asked.png").exists()
    np.save(tmp_path / "x.npy", x[:, None] / 255.0)
    predict = [
        "predict",
        str(tmp_path / "run"),
        "--input",
        str(tmp_path / "x.npy"),
        "--output",
        str(tmp_path / "p.npy"),
    ]
    assert cli.main(predict) == 0 and np.load(tmp_path / "p.npy").shape == (60, 2)
    of_fractions = np.load(tmp_path / "p.npy")
    np.save(tmp_path / "x.npy", x[:, None])  # whole numbers, as they were labeled
    assert x.dtype == np.uint8 and cli.main(predict) == 0
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), of_fractions, atol=1e-5)
    for other in (x.astype(float), 2 * x / 255.0 - 1):
        np.save(tmp_path / "x.npy", other[:, None])
        assert (
            cli.main(predict) == 2
            and "in other units than the training data" in capsys.readouterr().err
        )


def test_label_with_a_page(tmp_path, monkeypatch):
    """The command's own page, answered by requests."""
    _, y = pool(tmp_path)

    def browse(page):
        while not page.state()["images"]:
            time.sleep(0.01)
        rows = kept(tmp_path, "asked")["rows"]
        page.answer(
            {"round": page.round, "answers": {str(i): int(y[row]) for i, row in enumerate(rows)}}
        )

    enter = Page.__enter__
    monkeypatch.setattr(
        Page,
        "__enter__",
        lambda page: (
            threading.Thread(target=browse, args=[page], daemon=True).start() or enter(page)
        ),
    )
    assert command(tmp_path, "--source", "browser") == 0
    assert kept(tmp_path)["labels"] == y[kept(tmp_path)["indices"]].tolist()


def test_label_ends_when_nothing_is_left(tmp_path, person, monkeypatch, capsys):
    _, y = pool(tmp_path, 8)
    person(y)
    assert (
        command(tmp_path, "--n", "6", "--rounds", "5") == 0 and len(kept(tmp_path)["labels"]) == 8
    )
    assert command(tmp_path) == 0
    shutil.rmtree(tmp_path / "run")
    monkeypatch.setattr("builtins.input", lambda _: "")
    assert (
        command(tmp_path) == 0
        and len(kept(tmp_path)["skipped"]) == 4
        and not (tmp_path / "run/model").exists()
    )
    assert (
        command(tmp_path, "--n", "6", "--rounds", "2") == 0 and len(kept(tmp_path)["skipped"]) == 8
    )


def test_label_names_a_class_without_a_label(tmp_path, person):
    _, y = pool(tmp_path)
    person(np.zeros_like(y))
    with pytest.warns(
        LabelWarning, match="no row of class 'down' has a label; label at least one of each class"
    ) as told:
        assert command(tmp_path) == 0
    assert len(told) == 1


# --- interruptions --------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before teaching", "in training", "before the model"])
def test_killed_command_loses_no_answer(tmp_path, person, monkeypatch, when):
    _, y = pool(tmp_path)
    person(y)

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if when == "before teaching":
            patch.setattr(ActiveLearner, "teach", killed)
        else:
            patch.setattr(
                *((committee, "fit") if when == "in training" else (label.SavedModel, "save")),
                killed,
            )
        assert command(tmp_path) == 130
    asked = kept(tmp_path, "asked")
    assert len(asked["answers"]) == 4
    assert command(tmp_path) == 0
    labels = kept(tmp_path)
    assert (
        labels["indices"][:4] == asked["rows"] and labels["labels"] == y[labels["indices"]].tolist()
    )
    assert (tmp_path / "run/model/state.json").exists()


def test_changed_answer_is_found(tmp_path, person, capsys):
    _, y = pool(tmp_path)
    person(y, 3)
    assert command(tmp_path) == 130
    asked = kept(tmp_path, "asked")
    row = next(iter(asked["answers"]))
    changed = asked | {"answers": asked["answers"] | {row: 1 - asked["answers"][row]}}
    (tmp_path / "run/asked.json").write_text(json.dumps(changed))
    assert (
        command(tmp_path) == 2
        and "asked.json is damaged: its checksum does not match" in capsys.readouterr().err
    )


def test_label_refuses_other_images_and_classes(tmp_path, person, capsys):
    x, y = pool(tmp_path)
    person(y, 3)
    assert command(tmp_path) == 130
    assert command(tmp_path, "--classes", "down", "up") == 2
    assert "belong to the classes up, down, got down, up" in capsys.readouterr().err
    np.savez(tmp_path / "images.npz", x=x[::-1], classes=np.array(["up", "down"]))
    assert command(tmp_path) == 2 and "belong to other images" in capsys.readouterr().err
    np.savez(tmp_path / "images.npz", x=x, classes=np.array(["up", "down"]))
    asked = kept(tmp_path, "asked")
    (tmp_path / "run/asked.json").write_text(json.dumps(asked | {"rows": [60]}))
    assert (
        command(tmp_path) == 2
        and "asked.json is damaged: its checksum does not match" in capsys.readouterr().err
    )
    del asked["checksum"]
    (tmp_path / "run/asked.json").write_text(json.dumps(asked | {"rows": [60]}))
    assert (
        command(tmp_path) == 2
        and "asked.json is damaged: row 60 is not in 0 .. 59" in capsys.readouterr().err
    )
    (tmp_path / "run/asked.json").write_text(
        json.dumps(asked | {"answers": {str(asked["rows"][0]): 9}})
    )
    assert (
        command(tmp_path) == 2
        and "asked.json is damaged: there is no class 9" in capsys.readouterr().err
    )
    (tmp_path / "run/asked.json").write_text("{")
    assert command(tmp_path) == 2 and "asked.json is damaged" in capsys.readouterr().err


def test_directory_in_use_is_refused(tmp_path, capsys):
    pytest.importorskip("fcntl")
    pool(tmp_path)
    with files.locked(tmp_path / "run"):
        assert command(tmp_path) == 2
    assert "in use by another" in capsys.readouterr().err


# --- images and errors ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "largest", "unit"),
    [("uint8", 255, 255), ("int64", 255, 255), ("uint8", 1, 1), ("float32", 1, 1)],
)
def test_integer_pixels_are_scaled(tmp_path, dtype, largest, unit):
    x = np.linspace(0, largest, 2 * 64).round().reshape(2, 8, 8)
    np.savez(tmp_path / "images.npz", x=x.astype(dtype))
    images = label.read_label_data(str(tmp_path / "images.npz"), ["a", "b"])
    assert (images.reading.unit or 1) == unit and float(images.pool.x.max()) == 1
    np.testing.assert_allclose(images.pool.x[:, 0] * unit, x, atol=1e-5)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (["--n", "0"], "n should be a whole number above 0"),
        (["--n", "61"], "n should be at most 60"),
        (
            ["--classes", "one"],
            "the classes should have two or more different names, got ['one']; give --classes",
        ),
        (["--acquisition", "bald"], "deterministic"),
        (["--port", "70000"], "--port should be in"),
        (["--data", "none.npz"], "no such file"),
    ],
)
def test_user_errors_of_label_take_one_line(tmp_path, capsys, others, said):
    pool(tmp_path)
    assert command(tmp_path, *others) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and "Traceback" not in error


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y": np.zeros(3)}, "should hold an array x"),
        ({"x": np.zeros((3, 4))}, "should be images"),
        ({"x": np.zeros((3, 2, 4, 4))}, "one channel or three"),
        ({"x": np.full((3, 4, 4), np.nan)}, "NaN"),
        ({"x": np.zeros((3, 4, 4))}, "two or more different names"),
        ({"x": np.full((3, 4, 4), 256)}, "integers, should be in 0 .. 255"),
    ],
)
def test_label_refuses_files_without_images(tmp_path, capsys, arrays, said):
    np.savez(tmp_path / "images.npz", **arrays)
    assert command(tmp_path) == 2
    assert said in capsys.readouterr().err

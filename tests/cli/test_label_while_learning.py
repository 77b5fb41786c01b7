"""`pyro-ssl label`: labels as CSV, questions while the model learns, and tables."""

import json
import threading

import numpy as np
import pytest
from PIL import Image

from pyro_ssl import ActiveLearner, zoo
from pyro_ssl.active import committee
from pyro_ssl.active.labelling.background import Background
from pyro_ssl.cli import app as cli
from pyro_ssl.cli.method_options import chosen_options

CLASSES = ["up", "down"]
OPTIONS = {"hidden": [8], "z_dim": 2, "network": "mlp"}


@pytest.fixture
def images(tmp_path):
    """A folder of unlabeled images whose upper or lower half is bright, and their classes."""
    y = np.arange(40) % 2
    x = np.random.default_rng(0).integers(0, 60, (40, 8, 8), dtype=np.uint8)
    x[y == 0, :4] += 180
    x[y == 1, 4:] += 180
    folder = tmp_path / "pets/unlabeled"
    folder.mkdir(parents=True)
    for i, pixels in enumerate(x):
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return y


def command(tmp_path, *others, data="pets"):
    return cli.main(
        [
            "label",
            str(tmp_path / "run"),
            "--data",
            str(tmp_path / data),
            "--source",
            "terminal",
            "--classes",
            *CLASSES,
            "--n",
            "4",
            "--options",
            json.dumps(OPTIONS),
            "--training",
            json.dumps({"epochs": 2}),
            *others,
        ]
    )


def asked(tmp_path):
    return json.loads((tmp_path / "run/asked.json").read_text())["rows"]


def labels_file(tmp_path):
    lines = (tmp_path / "run/labels.csv").read_text().splitlines()
    return dict(line.rsplit(",", 1) for line in lines[1:])


@pytest.fixture
def person(monkeypatch, tmp_path):
    """Answers by the row, as many times as told, and calls a function before each answer."""

    def answers(y, most=10**6, before=lambda: None):
        count = iter(range(most))

        def answer(prompt):
            if next(count, None) is None:
                raise EOFError
            before()
            number = int(prompt.split()[1].rstrip(":"))
            row = number if prompt.startswith("row") else asked(tmp_path)[number]
            return CLASSES[y[row]]

        monkeypatch.setattr("builtins.input", answer)

    return answers


# --- labels in and out ----------------------------------------------------------------------------


def test_every_answer_is_in_the_file_at_once(tmp_path, images, person, capsys):
    counts = []

    def note():
        counts.append(len(labels_file(tmp_path)))

    person(images, most=3, before=note)
    assert command(tmp_path) == 130
    assert counts == [0, 1, 2]
    said = capsys.readouterr()
    assert f"{tmp_path}/run/labels.csv: 3 labels, as CSV" in said.out
    given = labels_file(tmp_path)
    assert given == {
        f"unlabeled/{row:02d}.png": CLASSES[images[row]] for row in asked(tmp_path)[:3]
    }
    assert f"1 of 4: {tmp_path}/pets/unlabeled/" in said.out
    assert "There is no guess yet, since no model has learned." in said.out


def test_labels_of_a_file_are_learned_first(tmp_path, images, person, capsys):
    start = tmp_path / "start.csv"
    start.write_text("file,label\nunlabeled/00.png,up\nunlabeled/01.png,down\n")
    person(images)
    assert command(tmp_path, "--labels", str(start)) == 0
    given = labels_file(tmp_path)
    assert len(given) == 6 and given["unlabeled/00.png"] == "up"
    said = capsys.readouterr().out
    assert "to answer the next 4: pyro-ssl label" in said and "start.csv" not in said
    start.write_text("file,label\nunlabeled/00.png,down\n")
    assert command(tmp_path, "--labels", str(start)) == 0
    assert "has another label for 1 rows than" in capsys.readouterr().out
    assert labels_file(tmp_path)["unlabeled/00.png"] == "up"


def test_classes_of_a_file_of_labels(tmp_path, images):
    start = tmp_path / "start.csv"
    start.write_text("file,label\nunlabeled/00.png,eel\n")
    assert command(tmp_path, "--labels", str(start)) == 2


def test_a_table_is_labeled_by_its_cells(tmp_path, person, capsys):
    y = np.arange(30) % 2
    lines = [f"pet {i},{4 * y[i] + i / 100:.2f},{i % 7}," for i in range(30)]
    (tmp_path / "pets.csv").write_text("\n".join(["name,weight,age,label", *lines]))
    person(y)
    assert command(tmp_path, "--ignore-columns", "name", data="pets.csv") == 0
    row = asked(tmp_path)[0]
    said = capsys.readouterr().out
    assert f"1 of 4: row {row}\n  name: pet {row}\n  weight: " in said
    assert labels_file(tmp_path) == {str(row): CLASSES[y[row]] for row in asked(tmp_path)}
    output = ["--output", str(tmp_path / "p.csv")]
    assert (
        cli.main(["predict", str(tmp_path / "run"), "--data", str(tmp_path / "pets.csv")] + output)
        == 0
    )


# --- while the model learns -----------------------------------------------------------------------


def test_questions_go_on_from_clusters_until_the_model_is_ready(
    tmp_path, images, person, monkeypatch, capsys
):
    """Training waits until eight answers are given; the third round is the model's."""
    go_on = threading.Event()
    fit = committee.fit
    background = []
    enter = Background.__enter__
    monkeypatch.setattr(
        Background, "__enter__", lambda self: (background.append(self), enter(self))[1]
    )
    sources = []

    def patient_fit(*args, **kwargs):
        assert go_on.wait(60)
        return fit(*args, **kwargs)

    def before():
        sources.append(json.loads((tmp_path / "run/asked.json").read_text())["by_model"])
        if len(sources) == 8:
            go_on.set()
            background[0].join(60)

    monkeypatch.setattr(committee, "fit", patient_fit)
    person(images, before=before)
    assert command(tmp_path, "--rounds", "3") == 0
    assert sources == 8 * [False] + 4 * [True]
    said = capsys.readouterr().out
    assert "The model is still learning: these come from clusters without a label." in said
    assert "The model that learned from 4 labels chose these: it is least sure." in said
    assert len(labels_file(tmp_path)) == 12
    labels = json.loads((tmp_path / "run/labels.json").read_text())
    assert labels["labels"] == images[labels["indices"]].tolist()


def test_waiting_asks_what_a_loop_of_the_learner_asks(tmp_path, images, person):
    person(images)
    assert command(tmp_path, "--rounds", "3", "--while-learning", "wait", "--start", "random") == 0
    found = json.loads((tmp_path / "run/labels.json").read_text())["indices"]
    x = np.stack(
        [np.asarray(Image.open(p)) for p in sorted((tmp_path / "pets/unlabeled").iterdir())]
    )
    options = chosen_options("m2", {}) | OPTIONS
    learner = ActiveLearner(
        lambda seed: zoo.build("m2", (1, 8, 8), 2, seed=seed, **options),
        training={"progress": None, **zoo.method("m2").training, "epochs": 2},
        update_training={"epochs": 2},
    )
    pool = x[:, None]
    for _ in range(3):
        rows = learner.query(pool, 4)
        learner.teach(rows, images[rows])
    assert learner.indices == found


def test_a_person_who_stops_ends_the_training(tmp_path, images, person, monkeypatch):
    """The labels are kept, and the next command learns them."""
    has_begun = threading.Event()
    fit = committee.fit

    def endless_fit(*args, **kwargs):
        def note(epoch):
            has_begun.set()

        endless = {"epochs": 10**6, "callbacks": [note], "directory": None, "resume": False}
        return fit(*args, **kwargs | endless)

    def before():
        if len(labels_file(tmp_path)) == 6:
            assert has_begun.wait(60)

    with monkeypatch.context() as patch:
        patch.setattr(committee, "fit", endless_fit)
        person(images, most=7, before=before)
        assert command(tmp_path, "--rounds", "3") == 130
    assert not any(thread.name == "learning" for thread in threading.enumerate())
    given = labels_file(tmp_path)
    assert len(given) == 7 and not (tmp_path / "run/model").exists()
    person(images)
    assert command(tmp_path) == 0
    now = labels_file(tmp_path)
    assert len(now) == 8 and given.items() <= now.items()
    assert (tmp_path / "run/model").exists()


def test_an_error_in_training_reaches_the_terminal(tmp_path, images, person, monkeypatch, capsys):
    def failing_fit(*args, **kwargs):
        raise ValueError("the loss is made of cheese")

    monkeypatch.setattr(committee, "fit", failing_fit)
    person(images)
    assert command(tmp_path, "--rounds", "3") == 2
    assert "the loss is made of cheese" in capsys.readouterr().err
    assert len(labels_file(tmp_path)) in (8, 12)


@pytest.mark.slow
def test_another_method_trains_on_the_labels(tmp_path, capsys):
    lines = [f"{4 * (i % 2) + i / 100:.2f},{i % 7}," for i in range(30)]
    (tmp_path / "pets.csv").write_text("\n".join(["weight,age,label", *lines]))
    (tmp_path / "labels.csv").write_text("row,label\n0,cat\n1,dog\n3,dog\n")
    given = ["--data", str(tmp_path / "pets.csv"), "--label-file", str(tmp_path / "labels.csv")]
    out = ["--epochs", "2", "--out", str(tmp_path / "run")]
    assert cli.main(["train", "m2", *given, *out]) == 0
    assert "1 of 'cat', 2 of 'dog'; 27 rows without a label" in capsys.readouterr().out
    given[1] = "moons"
    assert cli.main(["train", "m2", *given, *out]) == 2
    assert "has labels of a file or folder, got the data set moons" in capsys.readouterr().err

"""All commands on folders of images and on tables: the same labels and names everywhere."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from cli_programs import result, run
from PIL import Image

from pyro_ssl.cli.label_data import read_label_data
from pyro_ssl.cli.output_files import check_output
from pyro_ssl.data import read, readers
from pyro_ssl.zoo.saved_model import SavedModel

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
TABLE = ("--label-column", "group", "--ignore-columns", "id")
SMALL = ("--hidden", "[8]", "--epochs", 2)


def picture(path, bright):
    """Cats are bright above, dogs below."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 60, (8, 8), dtype=np.uint8)
    pixels[bright] += 180
    Image.fromarray(pixels).save(path)


@pytest.fixture
def pets():
    halves = {"cat": slice(0, 4), "dog": slice(4, 8)}
    for i in range(6):
        for name, half in halves.items():
            picture(Path(f"pets/train/{name}/{i}.png"), half)
            picture(Path(f"pets/test/{name}/{i}.png"), half)
            picture(Path(f"pets/unlabeled/{name}{i}.png"), half)
    return "pets"


def people(path="people.csv", rows=40, labeled=20, order=("id", "weight", "income", "group")):
    weight = np.arange(rows) % 2 * 20 + RNG.normal(50, 3, rows)
    columns = {"id": range(rows), "weight": weight, "income": RNG.normal(50_000, 9000, rows)}
    groups = ["heavy" if value > 60 else "light" for value in weight]
    columns["group"] = [groups[i] if i < labeled else "" for i in range(rows)]
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(order)
        writer.writerows(zip(*(columns[name] for name in order), strict=True))
    return path, groups


def predictions(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_of_images_goes_through_all_commands(pets, capsys, monkeypatch):
    assert run("train", "m2", "--data", pets, *SMALL, "--out", "run") == 0
    said = capsys.readouterr().out
    assert said.startswith("labels: 6 of 'cat', 6 of 'dog'; 12 rows without a label")
    assert result("run")["classes"] == ["cat", "dog"] and "test_accuracy" in result("run")
    assert run("evaluate", "run") == run("evaluate", "run", "--data", "pets/test") == 0
    first, second = capsys.readouterr().out.split("test_accuracy")[1:]
    assert first == second and "| cat   | 6 " in first
    assert run("predict", "run", "--data", pets, "--output", "p.csv") == 0
    rows = predictions("p.csv")
    assert [row["file"] for row in rows][:2] == ["test/cat/0.png", "test/cat/1.png"]
    assert len(rows) == 12 and list(rows[0]) == [
        *("file", "predicted", "confidence", "p(cat)", "p(dog)")
    ]
    for row in rows:
        likeliest = "cat" if float(row["p(cat)"]) > float(row["p(dog)"]) else "dog"
        assert row["predicted"] == likeliest
    assert run("predict", "run", "--data", "pets/unlabeled", "--output", "q.csv") == 0
    assert predictions("q.csv")[0]["file"] == "cat0.png"
    right = sum(row["predicted"] in row["file"] for row in rows) / 12
    assert right == pytest.approx(result("run")["test_accuracy"])
    assert run("evaluate", "run", "--ood", "pets/unlabeled") == 0


def test_label_shows_the_classes_and_learns_the_labels_of_the_folder(pets, monkeypatch, capsys):
    given = read_label_data(pets, None)
    assert given.pool.classes == ["cat", "dog"] and given.labels.tolist()[:6] == [0] * 6
    monkeypatch.setattr("builtins.input", lambda prompt: "cat")
    options = ("--options", json.dumps({"hidden": [8], "network": "mlp"}))
    how = ("--source", "terminal", "--n", 2, "--training", '{"epochs": 1}', "--start", "random")
    assert run("label", "asked", "--data", pets, *how, *options) == 0
    labels = json.loads(Path("asked/labels.json").read_text())
    assert labels["labels"][:12] == [0] * 6 + [1] * 6 and labels["labels"][12:] == [0, 0]
    assert set(labels["indices"][12:]) <= set(range(12, 24))  # unlabeled ones
    assert "14 labels; the model gives one class more than 95 %" in capsys.readouterr().out
    assert SavedModel.load("asked/model").classes == ["cat", "dog"]
    assert run("predict", "asked", "--data", pets, "--output", "p.csv") == 0
    assert run("label", "asked", "--data", pets, *how, *options) == 0  # and nothing twice
    labels = json.loads(Path("asked/labels.json").read_text())
    assert len(labels["indices"]) == len(set(labels["indices"])) == 16


def test_a_table_goes_through_all_commands(capsys):
    path, groups = people()
    how = ("--label-column", "group", "--ignore-columns", "id")
    assert run("train", "classifier", "--data", path, *how, *SMALL, "--out", "run") == 0
    said = capsys.readouterr().out
    assert "20 rows without a label" in said and "no test data" in said
    assert not any(name.startswith("test_") for name in result("run"))
    assert run("evaluate", "run") == 2
    assert "have no test part; give --data PATH" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="these rows were trained on"):
        assert run("evaluate", "run", "--data", path) == 0  # its labeled rows
    table = capsys.readouterr().out
    heavy = groups[:20].count("heavy")
    assert f"| heavy | {heavy} " in table and f"| light | {20 - heavy} " in table
    assert run("predict", "run", "--data", path, "--output", "p.csv") == 0
    rows = predictions("p.csv")
    new = ["predicted", "confidence", "p(heavy)", "p(light)"]
    with open(path, newline="") as file:
        given = list(csv.DictReader(file))
    assert list(rows[0]) == ["row", *given[0], *new] and len(rows) == len(given)
    for number, (row, before) in enumerate(zip(rows, given, strict=True)):
        assert row["row"] == str(number) and before.items() <= row.items()
        assert row["confidence"] == max(row["p(heavy)"], row["p(light)"], key=float)
    assert run("predict", "run", "--data", path, "--unlabeled", "--output", "u.csv") == 0
    assert "predictions of 20 rows without a label" in capsys.readouterr().out
    assert predictions("u.csv") == [row for row in rows if not row["group"]]
    assert run("predict", "run", "--input", path, "--output", "p.npy") == 0
    probs = [[float(row["p(heavy)"]), float(row["p(light)"])] for row in predictions("p.csv")]
    np.testing.assert_allclose(np.load("p.npy"), probs, atol=1e-7)


def test_the_unlabeled_images_alone_can_be_predicted(pets, capsys):
    assert run("train", "m2", "--data", pets, *SMALL, "--out", "run") == 0
    assert run("predict", "run", "--data", pets, "--unlabeled", "--output", "p.csv") == 0
    files = [row["file"] for row in predictions("p.csv")]
    assert len(files) == 12 and all(name.startswith("unlabeled/") for name in files)
    capsys.readouterr()
    assert run("predict", "run", "--data", "pets/train", "--unlabeled", "--output", "q.csv") == 2
    assert "each of the 12 rows of pets/train has a label" in capsys.readouterr().err


def test_predictions_replace_no_column_of_the_data(monkeypatch, capsys):
    path, _ = people()
    text = Path(path).read_text()
    Path(path).write_text(text.replace("id", "confidence", 1).replace("group", "predicted", 1))
    how = ("--label-column", "predicted", "--ignore-columns", "confidence")
    assert run("train", "classifier", "--data", path, *how, *SMALL, "--out", "run") == 0
    capsys.readouterr()
    predict = ("predict", "run", "--data", path, "--output")
    with monkeypatch.context() as patch:
        patch.setattr("pyro_ssl.cli.predict.predict_proba", None)  # no work before the error
        assert run(*predict, "p.csv") == 2
        assert "columns named 'predicted', 'confidence', which" in capsys.readouterr().err
        assert run(*predict, "p.npy", "--prefix", "m2_") == 2
        assert "--prefix is for columns, and --output p.npy has none" in capsys.readouterr().err
        assert run(*predict, path) == 2
        assert f"--output: {path} is read as data, and would be replaced" in capsys.readouterr().err
    assert not Path("p.csv").exists() and not Path("p.npy").exists()
    assert run(*predict, "p.npy") == 0
    assert run(*predict, "p.csv", "--prefix", "m2_") == 0
    rows = predictions("p.csv")
    assert list(rows[0])[-4:] == ["m2_predicted", "m2_confidence", "m2_p(heavy)", "m2_p(light)"]
    with open(path, newline="") as file:
        given = list(csv.DictReader(file))
    for row, before in zip(rows, given, strict=True):
        assert before.items() <= row.items() and row["m2_predicted"] in ("heavy", "light")


def test_an_output_is_no_table_of_the_folder_that_is_read(tmp_path):
    (tmp_path / "test.csv").write_text("a\n")
    check_output("--output", str(tmp_path / "train.csv"), (".csv",), str(tmp_path))
    check_output("--output", str(tmp_path / "test.csv"), (".csv",), "elsewhere")
    with pytest.raises(ValueError, match=r"test.csv is read as data, and would be replaced"):
        check_output("--output", str(tmp_path / "test.csv"), (".csv",), str(tmp_path))


def test_columns_are_found_by_name(capsys):
    path, _ = people()
    how = ("--label-column", "group", "--ignore-columns", "id")
    assert run("train", "classifier", "--data", path, *how, *SMALL, "--out", "run") == 0
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    with open("other.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["income", "weight"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    for name in (path, "other.csv"):
        assert run("predict", "run", "--data", name, "--output", f"{name}.npy") == 0
    np.testing.assert_array_equal(np.load("other.csv.npy"), np.load("people.csv.npy"))
    Path("less.csv").write_text("weight\n50\n")
    np.save("x.npy", np.zeros((3, 2)))
    for name, message in (
        ("less.csv", "--data: less.csv has no column 'income'"),
        ("x.npy", "--data: x.npy has no column names; the model was trained on 'weight'"),
    ):
        assert run("predict", "run", "--data", name, "--output", "q.csv") == 2
        assert message in capsys.readouterr().err and not Path("q.csv").exists()


def test_a_run_on_files_is_resumed_from_another_folder(monkeypatch, capsys):
    path, _ = people()
    how = ("--label-column", "group", "--ignore-columns", "id")
    assert run("train", "m2", "--data", path, *how, *SMALL, "--out", "run") == 0
    config = json.loads(Path("run/config.json").read_text())
    assert config["label_column"] == "group" and config["ignore_columns"] == ["id"]
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert run("train", "--resume", "../run") == 0


def test_images_of_other_sizes(pets, capsys):
    Image.new("L", (5, 9)).save("pets/unlabeled/odd.png")
    assert run("train", "m2", "--data", pets, *SMALL, "--out", "run") == 2
    assert "odd.png has 9 x 5 pixels" in capsys.readouterr().err and not Path("run").exists()
    assert run("train", "m2", "--data", pets, *SMALL, "--out", "run", "--image-size", 6) == 0
    assert SavedModel.load("run/model").x_shape == (1, 6, 6)
    assert run("predict", "run", "--data", pets, "--output", "p.csv") == 0
    assert len(predictions("p.csv")) == 12


ERRORS = {
    "table to label": (("label", "asked", "--data", "people.csv"), "--data: .*no column 'label'"),
    "no data": (
        ("train", "m2", "--data", "nothing", "--out", "run"),
        "data should be one of moons",
    ),
    "no labels": (("train", "m2", "--data", "loose", "--out", "run"), "there is no label"),
    "size": (
        ("train", "m2", "--data", "loose", "--image-size", "0", "--out", "run"),
        "--image-size should be a whole number above 0, got 0",
    ),
}


@pytest.mark.parametrize("error", ERRORS)
def test_user_errors_take_one_line(capsys, error):
    people()
    picture(Path("loose/a.png"), slice(0, 4))
    command, message = ERRORS[error]
    capsys.readouterr()
    assert run(*command) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    import re

    assert re.search(message, said)


def test_data_of_another_kind_than_the_models_are_named(pets, capsys):
    path, _ = people()
    assert run("train", "m2", "--data", pets, *SMALL, "--out", "of_images") == 0
    options = ("--label-column", "group", "--ignore-columns", "id")
    assert run("train", "m2", "--data", path, *options, *SMALL, "--out", "of_table") == 0
    capsys.readouterr()
    is_table = "--data: people.csv is a table, but the model was trained on images of 8 x 8 pixels"
    is_folder = "--data: pets is a folder without train.csv, but the model was trained on a table"
    for directory, other, message in (
        ("of_images", path, is_table),
        ("of_table", pets, is_folder),
    ):
        assert run("predict", directory, "--data", other, "--output", "p.csv") == 2
        assert message in capsys.readouterr().err
        assert run("evaluate", directory, "--data", other) == 2
        assert message in capsys.readouterr().err
        assert not Path("p.csv").exists()


def test_images_of_a_folder_stay_uint8_with_the_numbers_of_floats(pets, monkeypatch):
    def commands(out):
        assert run("train", "m2", "--data", pets, *SMALL, "--validation", 0.3, "--out", out) == 0
        attack = ("--attack", "fgsm", "--corruptions", "--ood", "pets/unlabeled")
        assert run("evaluate", out, *attack) == 0
        assert run("predict", out, "--data", "pets/test", "--output", f"{out}.npy") == 0
        tables = {path.name: path.read_text() for path in Path(out, "evaluation").glob("*.md")}
        measured = {k: v for k, v in result(out).items() if k.startswith(("test", "val"))}
        weights = SavedModel.load(Path(out) / "model").objective.state_dict()
        return tables, measured, np.load(f"{out}.npy").tolist(), weights

    images = read(pets)
    assert images.train.x.dtype == images.test.x.dtype == np.uint8
    of_pixels = commands("pixels")
    monkeypatch.setattr(readers, "holds_pixels", lambda array: False)
    assert read(pets).train.x.dtype == np.float32
    of_floats = commands("floats")
    assert of_pixels[:3] == of_floats[:3]
    assert all(of_pixels[3][name].equal(value) for name, value in of_floats[3].items())


def test_a_folder_of_nearly_black_images_is_read():
    for name in ("cat", "dog"):
        Path("dark", name).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(np.eye(4, dtype=np.uint8)).save(f"dark/{name}/{i}.png")
    x = read("dark").train.x
    assert x.dtype == np.float32 and x.max() == np.float32(1 / 255)

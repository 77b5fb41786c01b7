"""`pyro-ssl train`: runs, their labels and their configuration."""

import json
from pathlib import Path

import numpy as np
import pytest
from cli_programs import OPTIONS, RESULT, measures, result, run, train

from pyro_ssl import data
from pyro_ssl.data.label_draws import LabelDraw
from pyro_ssl.data.missing_labels import LabelWarning

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("method", OPTIONS)
def test_train_and_evaluate_agree(method, capsys):
    assert train(method, "run", "--seed", 3) == 0
    got = result("run")
    assert got.keys() >= RESULT
    assert (got["method"], got["data"], got["labels"], got["seed"], got["epochs"]) == (
        method,
        "digits",
        30,
        3,
        3,
    )
    assert 0 <= got["test_accuracy"] <= 1
    assert got["test_log_likelihood"] < 0
    assert got["versions"].keys() >= {"pyro-ssl", "pyro-ppl", "torch", "python"}
    assert len(Path("run/metrics.jsonl").read_text().splitlines()) == 3
    assert Path("run/curves.png").stat().st_size > 0
    found, settings, said = capsys.readouterr().out.splitlines()
    assert settings.startswith(f"settings: the own defaults of {method}; epochs 3, ")
    assert found.startswith("labels: 3 of '0', 3 of '1', 3 of '2',") and found.endswith(
        "; 270 rows without a label"
    )
    assert said.startswith(f"{method} on digits, 30 labels: accuracy")
    assert run("evaluate", "run") == 0
    measured, classes, report = capsys.readouterr().out.strip().split("\n\n")
    assert report == f"report: {Path('run', 'report.html')}"
    said = dict(line.split() for line in measured.splitlines())
    assert classes.splitlines()[0].split()[1] == "class" and len(classes.splitlines()) == 12
    assert 0 < float(said.pop("test_calibration_p_value")) <= 1
    assert {k: f"{v:.6f}" for k, v in measures("run").items()} == said
    assert {p.name for p in Path("run/evaluation").iterdir()} == {
        "test.md",
        "classes.md",
        "reliability.png",
    }


@pytest.mark.parametrize("method", ["ce", "gm", "vc"])
def test_train_with_all_labels_and_a_backbone(method):
    assert train(method, "run", "--labels", "all", "--backbone", "cnn-2") == 0
    assert (
        result("run")["labels"] == 300
        and json.loads(Path("run/config.json").read_text())["options"]["backbone"] == "cnn-2"
    )


def test_config_file(capsys):
    Path("c.yaml").write_text("labels: 20\nepochs: 2\nhidden: [4]\nz_dim: 2\nout: run\n")
    assert run("train", "m2", "--config", "c.yaml", "--epochs", 1) == 0
    config = json.loads(Path("run/config.json").read_text())
    assert (config["labels"], config["training"]["epochs"], config["options"]["hidden"]) == (
        20,
        1,
        [4],
    )
    Path("c.yaml").write_text("labels: 20\nlabel_count: 3\nout: other\n")
    capsys.readouterr()
    assert run("train", "m2", "--config", "c.yaml") == 2
    assert "label_count" in capsys.readouterr().err
    assert not Path("other").exists()


def test_binarised_images_differ_from_grey_ones():
    assert train("m2", "run", "--binarise", "true") == 0
    assert train("m2", "grey") == 0
    assert measures("run") != measures("grey")


# --- labels ---------------------------------------------------------------------------------------


def test_labels_from_a_file():
    draw = data.draw_labels(data.load("digits").y, per_class=2, seed=5)
    draw.save("l.json")
    assert train("classifier", "run", "--label-file", "l.json") == 0
    assert LabelDraw.load("run/labels.json") == draw
    assert result("run")["labels"] == 20
    assert result("run")["draw"] == draw.name
    data.draw_labels(np.zeros(7, int), 2).save("other.json")
    assert train("classifier", "other", "--label-file", "other.json") == 2


def test_class_without_a_label_is_named_before_training(capsys):
    x = np.random.default_rng(0).normal(size=(200, 2))
    y = np.array(["often"] * 199 + ["seldom"])
    np.savez("rare.npz", x=x, y=y, x_test=x, y_test=y)
    arguments = (
        "--data",
        "rare.npz",
        "--labels",
        20,
        "--how",
        "stratified",
        "--epochs",
        1,
        "--hidden",
        "[8]",
    )
    with pytest.warns(
        LabelWarning, match="no row of class 'seldom' has a label; label at least one of each class"
    ) as told:
        assert run("train", "m2", *arguments, "--z_dim", 2, "--out", "run") == 0
    assert len(told) == 1
    assert (
        "labels: 20 of 'often', 0 of 'seldom'; 180 rows without a label" in capsys.readouterr().out
    )


def test_all_labels_are_used_where_some_are_missing():
    x, y = np.random.default_rng(0).normal(size=(150, 3)), np.arange(150) % 2
    command = (
        "train",
        "classifier",
        "--data",
        "mine.npz",
        "--epochs",
        1,
        "--hidden",
        "[4]",
        "--out",
    )
    np.savez("mine.npz", x=x, y=np.where(np.arange(150) < 130, y, -1), x_test=x, y_test=y)
    assert run(*command, "some") == run(*command, "few", "--labels", 20) == 0
    np.savez("mine.npz", x=x, y=y, x_test=x, y_test=y)
    assert run(*command, "whole") == 0
    assert [result(name)["labels"] for name in ("some", "few", "whole")] == [130, 20, 100]

"""The command line: runs that can be resumed, measured and used, and a user's mistakes, each said in one line with code 2."""

import json
import shutil
import subprocess
import sys
import warnings
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from pyro_ssl import data
from pyro_ssl.cli import main as cli
from pyro_ssl.data.label_draws import LabelDraw
from pyro_ssl.data.labels import LabelWarning
from pyro_ssl.evaluation.corruptions import CORRUPTIONS
from pyro_ssl.utils import files
from pyro_ssl.zoo.saved_model import SavedModel

OPTIONS = {"classifier": (), "vae": ("--z_dim", "2"), "m2": ("--z_dim", "2"), "gm": ("--z_dim", "2")}
RESULT = {
    "method", "data", "labels", "seed", "epochs", "seconds", "test_accuracy", "test_log_likelihood", "test_ece", "versions",
    "selection",
}  # fmt: skip


parser = cache(cli.make_parser)
"""Made once: it has the arguments of every method, and takes longer than most commands. Real processes make their own."""


@pytest.fixture(autouse=True)
def small_digits(monkeypatch, tmp_path):
    """A quarter of the digits, a parser that is there, and a current directory of the test's own."""
    monkeypatch.setitem(data.DATASETS, "digits", digits)
    monkeypatch.setattr(cli, "make_parser", parser)
    monkeypatch.chdir(tmp_path)


@cache
def all_digits() -> data.Dataset:
    return data.digits()


def digits() -> data.Dataset:
    d = all_digits()
    return data.Dataset(
        d.name, d.x[:300].clone(), d.y[:300].clone(), d.x_test[:100].clone(), d.y_test[:100].clone(), d.classes
    )


def run(*argv) -> int:
    """The exit code, as a shell would see it."""
    try:
        return cli.main([str(a) for a in argv])
    except SystemExit as stop:
        return stop.code


def train(method: str, out, *more) -> int:
    arguments = ("--data", "digits", "--labels", 30, "--epochs", 3, "--hidden", "[8]", "--out", out)
    return run("train", method, *arguments, *OPTIONS.get(method, ()), *more)


def result(directory) -> dict:
    return json.loads((Path(directory) / "result.json").read_text())


def measures(directory) -> dict:
    return {k: v for k, v in result(directory).items() if k.startswith("test_")}


def content(directory) -> dict:
    return {p: p.read_bytes() for p in Path(directory).rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, for all to read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(data.DATASETS, "digits", digits)
        directory = tmp_path_factory.mktemp("runs") / "finished"
        assert train("m2", directory) == 0
    return directory


@pytest.fixture
def copied(finished, tmp_path):
    """A finished run, to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "copied"))


def test_list(capsys):
    assert run("list") == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("classifier", "vae", "m2", "moons", "digits", "mnist", ".npz"))


@pytest.mark.parametrize("method", OPTIONS)
def test_train_and_evaluate(method, capsys):
    assert train(method, "run", "--seed", 3) == 0
    got = result("run")
    assert got.keys() >= RESULT
    assert (got["method"], got["data"], got["labels"], got["seed"], got["epochs"]) == (method, "digits", 30, 3, 3)
    assert 0 <= got["test_accuracy"] <= 1
    assert got["test_log_likelihood"] < 0
    assert got["versions"].keys() >= {"pyro-ssl", "pyro-ppl", "torch", "python"}
    assert len(Path("run/metrics.jsonl").read_text().splitlines()) == 3
    assert Path("run/curves.png").stat().st_size > 0
    found, said = capsys.readouterr().out.splitlines()
    assert found.startswith("labels: 3 of '0', 3 of '1', 3 of '2',") and found.endswith("; 270 rows without a label")
    assert said.startswith(f"{method} on digits, 30 labels: accuracy")
    assert run("evaluate", "run") == 0
    said = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert 0 < float(said.pop("test_calibration_p_value")) <= 1
    assert {k: f"{v:.6f}" for k, v in measures("run").items()} == said
    assert {p.name for p in Path("run/evaluation").iterdir()} == {"test.md", "reliability.png"}


def test_evaluate_beyond_the_test_set(copied, capsys):
    g = np.random.default_rng(0)
    x, y = g.random((40, 1, 8, 8)).astype(np.float32), np.arange(40) % 10
    np.savez("noise.npz", x=x, y=y, x_test=x, y_test=y)
    attack = ("--attack", "pgd", "--epsilons", 0.0, 0.1)
    np.save("rows.npy", x)
    assert run("evaluate", copied, "--ood", "noise.npz", "rows.npy", "--corruptions", *attack) == 0
    out, said = copied / "evaluation", capsys.readouterr().out
    tables = {name: (out / f"{name}.md").read_text() for name in ("test", "ood", "corruptions", "pgd")}
    assert all(text in said for name, text in tables.items() if name != "test")
    assert {p.stem for p in out.glob("*.png")} == {"reliability", "ood", "corruptions", "attack_pgd"}
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in tables["ood"].splitlines()[2:]]
    assert [row[:2] for row in rows[:2]] == [["noise", "max p"], ["noise", "entropy"]]
    assert all(0 <= float(cell) <= 1 for row in rows for cell in row[2:]) and len(rows) == 10
    assert [row[1:] for row in rows if row[0] == "rows"] == [row[1:] for row in rows if row[0] == "noise"]
    assert all(name in tables["corruptions"] for name in CORRUPTIONS)
    first = tables["pgd"].splitlines()[2].split("|")
    assert float(first[1]) == 0 and float(first[4]) == pytest.approx(100 * measures(copied)["test_accuracy"])


@pytest.mark.parametrize("method", ["ce", "gm", "vc"])
def test_train_with_all_labels_and_a_backbone(method):
    assert train(method, "run", "--labels", "all", "--backbone", "cnn-2") == 0
    assert (
        result("run")["labels"] == 300
        and json.loads(Path("run/config.json").read_text())["options"]["backbone"] == "cnn-2"
    )


@pytest.mark.parametrize("method", ["sslpe", "adgm", "latent_classifier"])
def test_foreign_data_of_other_methods(method, capsys):
    assert train(method, "run") == 0
    np.save("rows.npy", np.random.default_rng(0).random((30, 1, 8, 8)).astype(np.float32))
    assert run("evaluate", "run", "--ood", "rows.npy") == 0
    assert "| max p " in capsys.readouterr().out and Path("run/evaluation/ood.png").stat().st_size > 0


@pytest.mark.parametrize(("labels", "refitted"), [(10, False), (30, True)])
def test_densities_want_two_labels_of_each_class(labels, refitted, capsys):
    assert train("m2", "run", "--labels", labels) == 0
    np.save("rows.npy", np.random.default_rng(0).random((30, 1, 8, 8)).astype(np.float32))
    attack = ("--attack", "pgd", "--epsilons", 0.1, "--restarts", 2)
    assert run("evaluate", "run", "--ood", "rows.npy", *attack) == 0
    said = capsys.readouterr().out
    assert ("| log p(z), refitted" in said) == refitted == ("left out: a class has fewer" not in said)
    assert Path("run/evaluation/pgd.md").exists()


def test_an_attack_of_data_beyond_pixels_clips_nothing(capsys):
    assert run("train", "gm", "--data", "moons", "--labels", "all", "--epochs", 2, "--out", "run") == 0
    assert run("evaluate", "run", "--attack", "fgsm", "--epsilons", 0.0) == 0
    row = Path("run/evaluation/fgsm.md").read_text().splitlines()[2].split("|")
    assert float(row[4]) == pytest.approx(100 * measures("run")["test_accuracy"], abs=0.01)


def test_what_cannot_be_measured_is_told_before_anything_is(copied, capsys):
    np.save("rows.npy", np.zeros((3, 1, 8, 8), np.float32))
    Path("other").mkdir()
    np.save("other/rows.npy", np.zeros((3, 1, 8, 8), np.float32))
    wrong = (
        ("--ood", "rows.npy", "other/rows.npy"),
        ("--attack", "fgsm", "--epsilons", -1.0),
        ("--attack", "fgsm", "--restarts", 2),
        ("--restarts", 0),
    )
    for argv in wrong:
        assert run("evaluate", copied, "--corruptions", *argv) == 2
        assert "should" in capsys.readouterr().err and not (copied / "evaluation").exists()


def test_config_file(capsys):
    Path("c.yaml").write_text("labels: 20\nepochs: 2\nhidden: [4]\nz_dim: 2\nout: run\n")
    assert run("train", "m2", "--config", "c.yaml", "--epochs", 1) == 0
    config = json.loads(Path("run/config.json").read_text())
    assert (config["labels"], config["training"]["epochs"], config["options"]["hidden"]) == (20, 1, [4])
    Path("c.yaml").write_text("labels: 20\nlabel_count: 3\nout: other\n")
    capsys.readouterr()
    assert run("train", "m2", "--config", "c.yaml") == 2
    assert "label_count" in capsys.readouterr().err
    assert not Path("other").exists()


def test_labels_from_a_file():
    draw = data.draw_labels(data.load("digits").y, per_class=2, seed=5)
    draw.save("l.json")
    assert train("classifier", "run", "--label-file", "l.json") == 0
    assert LabelDraw.load("run/labels.json") == draw
    assert result("run")["labels"] == 20
    assert result("run")["draw"] == draw.name
    data.draw_labels(np.zeros(7, int), 2).save("other.json")
    assert train("classifier", "other", "--label-file", "other.json") == 2


def test_a_class_without_a_label_is_named_before_training(capsys):
    x = np.random.default_rng(0).normal(size=(200, 2))
    y = np.array(["often"] * 199 + ["seldom"])
    np.savez("rare.npz", x=x, y=y, x_test=x, y_test=y)
    arguments = ("--data", "rare.npz", "--labels", 20, "--how", "stratified", "--epochs", 1, "--hidden", "[8]")
    with pytest.warns(
        LabelWarning, match="no row of class 'seldom' has a label; label one at least of each class"
    ) as told:
        assert run("train", "m2", *arguments, "--z_dim", 2, "--out", "run") == 0
    assert len(told) == 1
    assert "labels: 20 of 'often', 0 of 'seldom'; 180 rows without a label" in capsys.readouterr().out


def test_the_same_classes_are_matched_whatever_their_dtype(capsys):
    x, y = np.random.default_rng(0).normal(size=(60, 2)), np.array([3, 10] * 30)
    x[:, 0] += 3 * (y == 10)
    for name, kind in {"whole": int, "pointed": float, "text": str}.items():  # as text, "10" stands before "3"
        np.savez(f"{name}.npz", x=x, y=y.astype(kind), x_test=x, y_test=y.astype(kind))
    assert (
        run(
            "train",
            "classifier",
            "--data",
            "whole.npz",
            "--labels",
            "all",
            "--epochs",
            20,
            "--lr",
            0.05,
            "--out",
            "run",
        )
        == 0
    )
    said = {}
    for name in ("whole", "pointed", "text"):
        capsys.readouterr()
        assert run("evaluate", "run", "--data", f"{name}.npz") == 0
        said[name] = capsys.readouterr().out
    assert said["whole"] == said["pointed"] == said["text"]
    assert measures("run")["test_accuracy"] > 0.8
    np.savez("other.npz", x=x, y=y + 1, x_test=x, y_test=y + 1)
    assert run("evaluate", "run", "--data", "other.npz") == 2
    assert (
        "--data: the data have classes that are not the model's: '4', '11'; those are '3', '10'"
        in capsys.readouterr().err
    )


def test_binarised_images():
    assert train("m2", "run", "--binarise", "true") == 0
    assert train("m2", "grey") == 0
    assert measures("run") != measures("grey")


# --- another run, and going on ------------------------------------------------------------------------------------------


def test_another_run_is_refused_and_unharmed(copied, capsys):
    before = content(copied)
    assert train("m2", copied, "--seed", 1) == 2
    assert f"--out: {copied} is not empty" in capsys.readouterr().err
    assert content(copied) == before
    Path("file").write_text("mine")
    assert train("m2", "file") == 2
    assert Path("file").read_text() == "mine"


class Stopped(Exception):
    pass


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_interrupted_and_resumed_is_the_same(finished, monkeypatch, epoch):
    def watch(e):
        seen.append(e.epoch)
        if len(seen) == epoch:
            raise Stopped

    seen: list[int] = []
    fit, config = cli.fit, json.loads((finished / "config.json").read_text())
    monkeypatch.setattr(cli, "fit", lambda *args, **kwargs: fit(*args, **kwargs, callbacks=(watch,)))
    with pytest.raises(Stopped):
        cli.train(Path("run"), config)
    assert not Path("run/result.json").exists()
    cli.train(Path("run"), config, resume=True)
    assert seen == [*range(1, epoch + 1), *range(epoch, 4)]  # it was stopped before the checkpoint of its last epoch
    assert measures("run") == measures(finished)
    assert result("run")["draw"] == result(finished)["draw"]
    tensors, expected = (SavedModel.load(Path(d) / "model").objective.state_dict() for d in ("run", finished))
    assert all((tensors[k] == expected[k]).all() for k in expected)
    assert len(Path("run/metrics.jsonl").read_text().splitlines()) == 3


def test_stopped_in_the_training_of_features_it_goes_on(monkeypatch, capsys):
    training = import_module("pyro_ssl.training.fit")  # the package has a function of that name

    def stopped(*arguments, **more):
        pretrain(*arguments, **more)
        raise KeyboardInterrupt

    pretrain = training.pretrain
    command = ["train", "m1_m2", "--data", "digits", "--labels", 20, "--epochs", 1, "--m1_epochs", 1, "--hidden", "[4]"]
    assert run(*command, "--out", "whole") == 0
    with monkeypatch.context() as patch:
        patch.setattr(training, "pretrain", stopped)
        assert run(*command, "--out", "run") == 130
    assert "stopped; pyro-ssl train --resume run goes on" in capsys.readouterr().err
    assert run("train", "--resume", "run") == 0
    assert measures("run") == measures("whole")


def test_resumed_without_its_checkpoint_starts_anew(copied, finished):
    shutil.rmtree(copied / "checkpoint")
    shutil.rmtree(copied / "checkpoint.previous", ignore_errors=True)
    assert run("train", "--resume", copied) == 0
    assert measures(copied) == measures(finished)


@pytest.mark.parametrize("lost", ["nothing", "result.json", "model", "metrics.jsonl"])
def test_finished_and_resumed_is_the_same(copied, finished, lost):
    shutil.rmtree(copied / lost) if (copied / lost).is_dir() else (copied / lost).unlink(missing_ok=True)
    assert run("train", "m2", "--resume", copied) == 0
    assert measures(copied) == measures(finished)
    assert run("evaluate", copied) == 0


def test_a_run_is_evaluated_by_the_labels_it_keeps(copied):
    dataset = data.load("digits")
    np.save("foreign.npy", dataset.x_test.numpy()[:, :, ::-1])
    draw = data.draw_labels(dataset.y, 30, seed=5)
    draw.save("draw.json")
    command = ("--data", "digits", "--label-file", "draw.json", "--epochs", 1, "--hidden", "[4]", "--out", "run")
    assert run("train", "latent_classifier", *command) == 0
    Path("draw.json").unlink()
    assert run("evaluate", "run", "--ood", "foreign.npy") == 0


def test_mended_mistake_can_be_given_again():
    images = (np.arange(64 * 20).reshape(20, 64) % 256).astype(np.uint8)
    np.savez("pixels.npz", x=images, y=np.arange(20) % 2, x_test=images, y_test=np.arange(20) % 2)
    command = ("train", "m2", "--data", "pixels.npz", "--labels", 4, "--epochs", 1, "--hidden", "[4]", "--out", "run")
    assert run(*command) == run(*command, "--likelihood", "bernoulli") == 2
    assert not Path("run").exists()
    assert run(*command, "--sigma", "50") == 0


def test_labels_of_ones_own_data_are_all_used_where_some_are_missing():
    x, y = np.random.default_rng(0).normal(size=(150, 3)), np.arange(150) % 2
    command = ("train", "classifier", "--data", "mine.npz", "--epochs", 1, "--hidden", "[4]", "--out")
    np.savez("mine.npz", x=x, y=np.where(np.arange(150) < 130, y, -1), x_test=x, y_test=y)
    assert run(*command, "some") == run(*command, "few", "--labels", 20) == 0
    np.savez("mine.npz", x=x, y=y, x_test=x, y_test=y)
    assert run(*command, "whole") == 0
    assert [result(name)["labels"] for name in ("some", "few", "whole")] == [130, 20, 100]


# --- prediction -----------------------------------------------------------------------------------------------------------


def test_predict(finished):
    x = data.load("digits").x_test[:5]
    np.save("x.npy", x.numpy())
    assert run("predict", finished, "--input", "x.npy", "--output", "p.npy") == 0
    probs = np.load("p.npy")
    assert probs.shape == (5, 10)
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-5)
    expected = SavedModel.load(finished / "model").objective.classify(x).mean.detach().numpy()
    np.testing.assert_allclose(probs, expected, atol=1e-6)


@pytest.mark.parametrize("change", [lambda x: 255 * x, lambda x: 2 * x - 1])
def test_images_in_other_units_are_refused(finished, capsys, change):
    np.save("x.npy", change(data.load("digits").x_test[:50]).numpy())
    assert run("predict", finished, "--input", "x.npy", "--output", "p.npy") == 2
    said = capsys.readouterr().err
    assert "--input is in other units than the training data" in said and "in training from 0 to 1" in said
    assert not Path("p.npy").exists()


def test_a_table_of_text_is_read_and_written(capsys):
    x, y = np.random.default_rng(0).normal(size=(150, 3)), np.arange(150) % 2
    np.savez("mine.npz", x=x, y=y, x_test=x, y_test=y)
    assert run("train", "classifier", "--data", "mine.npz", "--epochs", 1, "--hidden", "[4]", "--out", "run") == 0
    np.save("x.npy", x)
    np.savetxt("x.csv", x, delimiter=",")
    np.savetxt("named.csv", x, delimiter=",", header="height,weight,age", comments="")
    for name in ("x.npy", "x.csv", "named.csv"):
        assert run("predict", "run", "--input", name, "--output", f"{name}.npy") == 0
        np.testing.assert_allclose(np.load(f"{name}.npy"), np.load("x.npy.npy"), atol=1e-7)
    assert run("predict", "run", "--input", "x.csv", "--output", "p.csv") == 0
    np.testing.assert_allclose(np.loadtxt("p.csv", delimiter=","), np.load("x.npy.npy"), atol=1e-7)
    capsys.readouterr()
    for text, message in (
        ("1,2,3\n4,5\n", "should hold rows of numbers, separated by commas: row 2 has 2 of them, the first 3"),
        ("1,2,3\n4,a,5\n", "row 2 holds 'a'"),
        (",2,3\n4,5,6\n", "row 1 holds ''"),  # no line of names, but a value that is missing
        ("0,1,2\n.4,.5,.6\n", "the first line, 0,1,2, seems to number the columns, as pandas does"),
        ("1,2,3#\n", "row 1 holds '3#'"),
        ("a,b,c\n", "should hold rows of numbers, separated by commas: it has none"),
        ("", "should hold rows of numbers, separated by commas: it has none"),
        ("1,2\n3,4\n", "--input: x should have shape (N, 3), rows of shape (3,), got (2, 2)"),
        ("1,nan,3\n", "--input holds NaN or infinity, first in row 0"),
    ):
        Path("bad.csv").write_text(text)
        assert run("predict", "run", "--input", "bad.csv", "--output", "q.csv") == 2
        assert message in capsys.readouterr().err and not Path("q.csv").exists()
    Path("bad.csv").write_bytes(b"\xff\xfe1,2")
    assert run("predict", "run", "--input", "bad.csv", "--output", "q.csv") == 2
    assert run("predict", "run", "--input", "x.csv", "--output", "q.txt") == 2
    assert "--output: the file should end in .npy or .csv" in capsys.readouterr().err and not Path("q.txt").exists()


def test_a_warning_is_said_in_a_line(monkeypatch, capsys):
    before = warnings.formatwarning
    shown = lambda _: print(warnings.formatwarning("classes", LabelWarning, "data.py", 1), end="")  # noqa: E731
    monkeypatch.setattr(cli, "_list", shown)
    assert run("list") == 0
    assert capsys.readouterr().out == "pyro-ssl: warning: classes\n"
    assert warnings.formatwarning is before


def test_columns_in_other_units_are_refused(capsys):
    raw, y = np.random.default_rng(0).normal([40, 50_000], [12, 9000], size=(150, 2)), np.arange(150) % 2
    x = (raw - raw.mean(0)) / raw.std(0)
    np.savez("mine.npz", x=x, y=y, x_test=x, y_test=y)
    np.savez("raw.npz", x=raw, y=y, x_test=raw, y_test=y)
    np.save("x.npy", raw)
    assert run("train", "classifier", "--data", "mine.npz", "--epochs", 1, "--hidden", "[4]", "--out", "run") == 0
    assert run("predict", "run", "--input", "x.npy", "--output", "p.npy") == 2
    assert "--input is in other units than the training data: column 1 from" in capsys.readouterr().err
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
    "channels last": (lambda: np.save("x.npy", np.zeros((5, 8, 8, 1))), "as in x.transpose(0, 3, 1, 2)"),
    "one row": (lambda: np.save("x.npy", np.zeros(64)), "rows of shape (1, 8, 8), got (64,)"),
    "empty": (lambda: np.save("x.npy", np.zeros((0, 1, 8, 8))), "--input is empty"),
    "NaN": (lambda: np.save("x.npy", np.full((5, 1, 8, 8), np.nan)), "--input holds NaN"),
    "strings": (lambda: np.save("x.npy", np.full((5, 1, 8, 8), "a")), "--input should hold numbers"),
    "objects": (lambda: np.save("x.npy", np.full((5, 64), None)), "--input: x.npy is not a readable .npy file"),
    "truncated": (save_truncated, "--input: x.npy is not a readable .npy file"),
    "text": (lambda: Path("x.npy").write_text("1,2,3"), "it has another format, or holds Python objects; write"),
    "npz": (lambda: [np.savez("x", x=np.zeros((5, 64))), Path("x.npz").rename("x.npy")], "one array, got an .npz"),
    "missing": (lambda: None, "--input: x.npy: no such file"),
}


@pytest.mark.parametrize(("make", "message"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input(finished, capsys, make, message):
    make()
    assert run("predict", finished, "--input", "x.npy", "--output", "p.npy") == 2
    assert message in capsys.readouterr().err
    assert not Path("p.npy").exists()


# --- mistakes ---------------------------------------------------------------------------------------------------------------

MISTAKES = {
    "nothing": ((), "list,train,evaluate,predict"),
    "command": (("trian",), "trian"),
    "no method": (("train",), "train needs a method, one of classifier, vae, m2"),
    "method": (("train", "m7", "--out", "run"), "m7"),
    "no out": (("train", "m2"), "--out DIR is needed"),
    "option": (("train", "m2", "--zdim", 2, "--out", "run"), "--zdim"),
    "data": (("train", "m2", "--data", "digit", "--out", "run"), "data should be one of moons"),
    "data file": (("train", "m2", "--data", "none.npz", "--out", "run"), "none.npz: no such file"),
    "labels": (("train", "m2", "--labels", 9999, "--out", "run"), "labels should be in 0 .. 300"),
    "how": (("train", "m2", "--how", "any", "--out", "run"), "how should be balanced, stratified or random"),
    "type": (("train", "m2", "--epochs", "many", "--out", "run"), "epochs"),
    "epochs": (("train", "m2", "--epochs", 0, "--out", "run"), "epochs should be a whole number above 0"),
    "seed": (("train", "m2", "--seed", -1, "--out", "run"), "seed should be a whole number in 0"),
    "schedule": (("train", "m2", "--schedule", "slow", "--out", "run"), "--schedule should be one of constant"),
    "activation": (("train", "m2", "--activation", "gelu", "--out", "run"), "activation"),
    "network": (("train", "m2", "--network", "conv", "--data", "moons", "--labels", 6, "--out", "run"), "an image"),
    "label file": (("train", "m2", "--label-file", "none.json", "--out", "run"), "none.json"),
    "config file": (("train", "m2", "--config", "none.yaml", "--out", "run"), "none.yaml"),
    "resume": (("train", "--resume", "nowhere"), "nowhere is not the directory of a run"),
    "evaluate": (("evaluate", "nowhere"), "nowhere is not the directory of a run"),
    "labels all": (("train", "m2", "--labels", "most", "--out", "run"), "most"),
    "predict": (("predict", "nowhere", "--input", "x.npy", "--output", "p.npy"), "nowhere/model"),
    "diverges": (
        ("train", "m2", "--labels", 10, "--lr", 1e30, "--epochs", 5, "--hidden", "[4,4]") + ("--out", "diverged"),
        "not finite",
    ),
}


@pytest.mark.parametrize(("argv", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_said(argv, message, capsys):
    assert run(*argv) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not Path("run").exists()


def test_another_method_or_other_classes_are_refused(finished, capsys):
    assert run("train", "vae", "--resume", finished) == 2
    assert "is a run of m2, not of vae" in capsys.readouterr().err
    assert run("evaluate", finished, "--data", "moons") == 2
    assert "are not the model's" in capsys.readouterr().err
    wrong = {
        "--attack should be one of fgsm, pgd, got 'cw'": ("--attack", "cw"),
        "--ood: moons: x should have shape (N, 1, 8, 8)": ("--ood", "moons"),
        "--ood: none.npy: no such file": ("--ood", "none.npy"),
        "data should be one of": ("--ood", "none"),
        "--epsilons should be 0 or above, got -1.0": ("--epsilons", -1.0, "--attack", "fgsm"),
    }
    for message, argv in wrong.items():
        assert run("evaluate", finished, *argv) == 2
        assert message in capsys.readouterr().err


def test_an_evaluation_on_a_device_that_is_not_there(finished, capsys):
    assert run("evaluate", finished, "--device", "cuda:77") == 2
    assert "device cuda:77 is not available" in capsys.readouterr().err


CONFIGS = {
    "not UTF-8": (b"\xff\xfe\x00labels: 3", "c.yaml should be text in UTF-8"),
    "brackets": (b"x: " + b"[" * 900 + b"]" * 900, "c.yaml is nested too deeply"),
    "brackets that overflow the stack": (b"x: " + b"[" * 100_000 + b"]" * 100_000, "c.yaml is nested too deeply"),
    "dashes": (b"- " * 100_000, "c.yaml is nested too deeply"),
    "broken": (b"epochs: [1", "config"),
}


@pytest.mark.parametrize(("content", "message"), CONFIGS.values(), ids=CONFIGS)
def test_a_config_file_that_cannot_be_read(content, message, capsys):
    Path("c.yaml").write_bytes(content)
    assert run("train", "m2", "--config", "c.yaml", "--out", "run") == 2
    assert message in capsys.readouterr().err and not Path("run").exists()


def test_an_argument_nested_too_deeply(capsys):
    deep = "[" * 20_000 + "]" * 20_000
    assert run("label", "d", "--data", "x.npz", "--options", deep) == 2
    assert "nested too deeply" in capsys.readouterr().err


def test_a_mistyped_data_root_is_not_made(capsys):
    assert run("train", "m2", "--data", "mnist", "--data-root", "nowhre", "--out", "run") == 2
    assert "nowhre is not a directory" in capsys.readouterr().err
    assert not list(Path().iterdir())


@pytest.mark.parametrize("name", cli._KINDS)
@pytest.mark.parametrize("value", [None, [], 1e999, {"a": None}])
def test_a_config_with_another_kind_of_value(copied, capsys, name, value):
    path = copied / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {name: value}))
    if type(value) in cli._KINDS[name] and name not in ("options", "training"):
        return
    assert run("train", "--resume", copied) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said and name in said or "no option" in said


def test_a_config_that_is_nested_too_deeply(copied, capsys):
    (copied / "config.json").write_text("[" * 100_000)
    assert run("evaluate", copied) == 2
    assert "config.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("left", [(), ("lock",), ("config.json.writing",), ("lock", "fit.lock", "config.json.writing")])
def test_killed_before_its_config_was_written_a_run_is_begun_again(left, capsys):
    Path("run").mkdir()
    for name in left:
        Path("run", name).write_text("{")
    assert run("train", "--resume", "run") == 2
    assert "none has begun there: give --out again" in capsys.readouterr().err
    assert train("classifier", "run") == 0


def test_a_run_that_diverged_is_not_to_be_resumed(capsys):
    arguments = MISTAKES["diverges"][0]
    assert run(*arguments) == 2
    assert "smaller lr or a clip_norm; start again with it in another directory" in capsys.readouterr().err
    assert run(*arguments) == 2
    assert "as it was started; for other settings give another directory" in capsys.readouterr().err


def test_one_process_trains_in_a_run(copied, capsys):
    pytest.importorskip("fcntl")
    before = measures(copied)
    with files.locked(copied):
        assert run("train", "--resume", copied) == 2
    assert f"{copied} is in use by another process" in capsys.readouterr().err
    assert run("train", "--resume", copied) == 0 and measures(copied) == before


INTERRUPTED = {
    "while importing": """
import os, signal, sys, threading
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
from pyro_ssl.__main__ import main
""",
    "in a command": """
import os, signal, sys
from pyro_ssl.cli import main as cli
from pyro_ssl.__main__ import main
cli._list = lambda arguments: os.kill(os.getpid(), signal.SIGINT)
""",
    "twice": """
import os, signal, sys, time
from pyro_ssl.cli import main as cli
from pyro_ssl.__main__ import main
def twice(arguments):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(9)
    finally:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(9)
cli._list = twice
""",
    "at the end": """
import atexit, os, signal, sys, time
from pyro_ssl.__main__ import main
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
""",
}


@pytest.mark.parametrize("when", INTERRUPTED)
def test_interrupted_without_a_traceback(when):
    code = INTERRUPTED[when] + "sys.argv = ['pyro-ssl', 'list']\nsys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == (0 if when == "at the end" else 130), done.stderr
    assert done.stderr == ("" if when == "at the end" else "\npyro-ssl: stopped\n")


def truncate(path: Path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    "config cut": (lambda d: truncate(d / "config.json"), ("evaluate", "train"), "config.json is damaged"),
    "config empty": (lambda d: (d / "config.json").write_text("{}"), ("evaluate", "train"), "config.json is damaged"),
    "config list": (lambda d: (d / "config.json").write_text("[1]"), ("evaluate", "train"), "config.json is damaged"),
    "config gone": (lambda d: (d / "config.json").unlink(), ("evaluate", "train"), "is not the directory of a run"),
    "weights cut": (
        lambda d: truncate(d / "model/state.safetensors"), ("evaluate", "predict"), "state.safetensors is damaged",
    ),
    "weights gone": (
        lambda d: (d / "model/state.safetensors").unlink(), ("evaluate", "predict"), "state.safetensors cannot be read",
    ),
    "state cut": (lambda d: truncate(d / "model/state.json"), ("evaluate", "predict"), "state.json is damaged"),
    "foreign": (
        lambda d: (d / "model/state.json").write_text('{"a": 1}'), ("evaluate", "predict"), "not written by pyro-ssl",
    ),
    "no model": (lambda d: shutil.rmtree(d / "model"), ("evaluate", "predict"), "model: no such directory"),
    "another thing": (
        lambda d: [shutil.rmtree(d / "model"), shutil.copytree(d / "checkpoint", d / "model")],
        ("evaluate", "predict"), "holds no trained model",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "commands", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_run_is_said(copied, capsys, spoil, commands, message):
    spoil(copied)
    np.save("x.npy", np.zeros((2, 64)))
    argv = {
        "evaluate": ("evaluate", copied),
        "train": ("train", "--resume", copied),
        "predict": ("predict", copied, "--input", "x.npy", "--output", "p.npy"),
    }
    for command in commands:
        assert run(*argv[command]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert str(copied) in said


def test_in_a_process_of_its_own():
    images = np.full((20, 4), 255.0)
    np.savez("pixels.npz", x=images, y=np.arange(20) % 2, x_test=images, y_test=np.arange(20) % 2)
    command = ("train", "m2", "--data", "pixels.npz", "--labels", "4", "--out", "run", "--likelihood", "bernoulli")
    done = subprocess.run([sys.executable, "-m", "pyro_ssl", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "pyro-ssl: error: site 'x' is observed outside the support" in done.stderr
    assert "divide by 255" in done.stderr

"""`pyro-ssl evaluate`: test data, foreign data, corruptions and attacks."""

from pathlib import Path

import numpy as np
import pytest
from cli_programs import measures, run, train

from pyro_ssl import data
from pyro_ssl.evaluation.corruptions import CORRUPTIONS

pytestmark = pytest.mark.slow


def test_evaluate_foreign_data_corruptions_and_attack(copied, capsys):
    g = np.random.default_rng(0)
    x, y = g.random((40, 1, 8, 8)).astype(np.float32), np.arange(40) % 10
    np.savez("noise.npz", x=x, y=y, x_test=x, y_test=y)
    attack = ("--attack", "pgd", "--epsilons", 0.0, 0.1)
    np.save("rows.npy", x)
    assert run("evaluate", copied, "--ood", "noise.npz", "rows.npy", "--corruptions", *attack) == 0
    out, said = copied / "evaluation", capsys.readouterr().out
    tables = {
        name: (out / f"{name}.md").read_text() for name in ("test", "ood", "corruptions", "pgd")
    }
    assert all(text in said for name, text in tables.items() if name != "test")
    assert {p.stem for p in out.glob("*.png")} == {
        "reliability",
        "ood",
        "corruptions",
        "attack_pgd",
    }
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in tables["ood"].splitlines()[2:]
    ]
    assert [row[:2] for row in rows[:2]] == [["noise", "max p"], ["noise", "entropy"]]
    assert all(0 <= float(cell) <= 1 for row in rows for cell in row[2:]) and len(rows) == 10
    assert [row[1:] for row in rows if row[0] == "rows"] == [
        row[1:] for row in rows if row[0] == "noise"
    ]
    assert all(name in tables["corruptions"] for name in CORRUPTIONS)
    report = (copied / "report.html").read_text()
    titles = ("What was run", "Confusion matrix", "Out-of-distribution data", "Corrupted images")
    assert all(f">{title}</h2>" in report for title in (*titles, "Under attack: pgd"))
    assert report.count('alt="Under attack: pgd"') == 1
    assert "http://" not in report and "https://" not in report  # one file is all
    first = tables["pgd"].splitlines()[2].split("|")
    assert float(first[1]) == 0 and float(first[4]) == pytest.approx(
        100 * measures(copied)["test_accuracy"]
    )


@pytest.mark.parametrize("method", ["sslpe", "adgm", "latent_classifier"])
def test_evaluate_foreign_data_with_other_methods(method, capsys):
    assert train(method, "run") == 0
    np.save("rows.npy", np.random.default_rng(0).random((30, 1, 8, 8)).astype(np.float32))
    assert run("evaluate", "run", "--ood", "rows.npy") == 0
    assert (
        "| max p " in capsys.readouterr().out and Path("run/evaluation/ood.png").stat().st_size > 0
    )


@pytest.mark.parametrize(("labels", "refitted"), [(10, False), (30, True)])
def test_densities_need_two_labels_per_class(labels, refitted, capsys):
    assert train("m2", "run", "--labels", labels) == 0
    np.save("rows.npy", np.random.default_rng(0).random((30, 1, 8, 8)).astype(np.float32))
    attack = ("--attack", "pgd", "--epsilons", 0.1, "--restarts", 2)
    assert run("evaluate", "run", "--ood", "rows.npy", *attack) == 0
    said = capsys.readouterr().out
    assert (
        ("| log p(z), refitted" in said) == refitted == ("left out: a class has fewer" not in said)
    )
    assert Path("run/evaluation/pgd.md").exists()


def test_attack_does_not_clip_data_that_are_not_pixels(capsys):
    assert (
        run("train", "gm", "--data", "moons", "--labels", "all", "--epochs", 2, "--out", "run") == 0
    )
    assert run("evaluate", "run", "--attack", "fgsm", "--epsilons", 0.0) == 0
    row = Path("run/evaluation/fgsm.md").read_text().splitlines()[2].split("|")
    assert float(row[4]) == pytest.approx(100 * measures("run")["test_accuracy"], abs=0.01)


def test_classes_match_whatever_their_dtype(capsys):
    x, y = np.random.default_rng(0).normal(size=(60, 2)), np.array([3, 10] * 30)
    x[:, 0] += 3 * (y == 10)
    for name, kind in {
        "whole": int,
        "pointed": float,
        "text": str,
    }.items():  # as text, "10" stands before "3"
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
    error = capsys.readouterr().err
    assert "--data: the data have classes that the model lacks: '4', '11'" in error
    assert "the known classes are '3', '10'" in error


def test_evaluate_uses_the_labels_of_the_run(copied):
    dataset = data.load("digits")
    np.save("foreign.npy", dataset.x_test.numpy()[:, :, ::-1])
    draw = data.draw_labels(dataset.y, 30, seed=5)
    draw.save("draw.json")
    command = (
        "--data",
        "digits",
        "--label-file",
        "draw.json",
        "--epochs",
        1,
        "--hidden",
        "[4]",
        "--out",
        "run",
    )
    assert run("train", "latent_classifier", *command) == 0
    Path("draw.json").unlink()
    assert run("evaluate", "run", "--ood", "foreign.npy") == 0


# --- errors ---------------------------------------------------------------------------------------


def test_evaluate_checks_everything_first(copied, capsys):
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


def test_other_methods_classes_and_options_are_refused(finished, capsys):
    assert run("train", "vae", "--resume", finished) == 2
    assert "is a run of m2, not of vae" in capsys.readouterr().err
    assert run("evaluate", finished, "--data", "moons") == 2
    assert "but the model has" in capsys.readouterr().err
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


def test_evaluate_on_a_missing_device(finished, capsys):
    assert run("evaluate", finished, "--device", "cuda:77") == 2
    assert "device cuda:77 is not available" in capsys.readouterr().err

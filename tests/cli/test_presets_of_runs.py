"""`--preset` of `train` and `sweep`, and `list --presets`."""

import json
from pathlib import Path

import pytest
from cli_programs import run

from pyro_ssl import SavedModel, zoo
from pyro_ssl.cli.list import presets_table
from pyro_ssl.zoo.presets import PRESETS

QUICK = ("--data", "digits", "--labels", 30, "--epochs", 1, "--hidden", "[8]")
QUICK += ("--classifier_hidden", "null")


def config(directory: str) -> dict:
    return json.loads(Path(directory, "config.json").read_text())


def plain(values: dict) -> dict:
    return json.loads(json.dumps(values))


def test_a_run_has_the_presets_settings_except_for_what_is_given():
    before = ("train", "m2", "--z_dim", 3)
    assert run(*before, "--preset", "paper-004-mier", *QUICK, "--lr", 0.001, "--out", "run") == 0
    got = config("run")
    assert got["preset"] == "paper-004-mier"
    options = zoo.preset_of("m2", "paper-004-mier").option_values
    given = {"z_dim": 3, "hidden": [8], "classifier_hidden": None}
    assert got["options"] == plain(zoo.options_of("m2") | options) | given
    training = zoo.training_of("m2", "paper-004-mier", epochs=1) | {"lr": 0.001}
    assert training.items() <= got["training"].items()
    model = SavedModel.load("run/model")
    assert (model.preset, model.options["z_dim"]) == ("paper-004-mier", 3)
    assert json.loads(Path("run/result.json").read_text())["preset"] == "paper-004-mier"


def test_a_configuration_file_wins_over_its_preset():
    text = "preset: paper-004\nz_dim: 2\nhidden: [4]\nclassifier_hidden: [5]\nepochs: 1\n"
    Path("c.yaml").write_text(text + "labels: 20\nout: run\n")
    assert run("train", "m2", "--config", "c.yaml", "--batch_size", 50) == 0
    got = config("run")
    assert got["preset"] == "paper-004"
    values = [got["options"][name] for name in ("z_dim", "hidden", "classifier_hidden", "noise")]
    assert values == [2, [4], [5], 0.0]
    assert got["training"]["batch_size"] == 50 and got["training"]["schedule"] == "halving"


def test_without_a_preset_a_run_has_the_defaults():
    assert run("train", "m2", *QUICK, "--out", "run") == 0
    got = config("run")
    assert got["preset"] is None and got["options"]["noise"] == 0.3
    assert (got["training"]["ema"], got["training"]["optimizer"]) == (0.999, "adam")


def test_a_run_goes_on_with_its_own_preset(capsys):
    assert run("train", "m2", "--preset", "paper-004", *QUICK, "--out", "run") == 0
    assert run("train", "--resume", "run", "--epochs", 2) == 0
    assert config("run")["training"]["epochs"] == 2
    assert run("train", "m2", "--preset", "paper-004", "--resume", "run") == 0
    capsys.readouterr()
    assert run("train", "m2", "--preset", "paper-004-mier", "--resume", "run") == 2
    assert "run is a run with preset paper-004, not with paper-004-mier" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sdgm", "--preset", "paper-002"), "the presets of sdgm: paper-002-moons"),
        (("m2", "--preset", "mine"), "preset should be one of paper-000"),
        (("m2", "--optimizer", "adamw"), "--optimizer should be one of adam, nesterov"),
    ],
)
def test_unknown_names_are_refused(arguments, message, capsys):
    assert run("train", *arguments, *QUICK[:4], "--out", "run") == 2
    assert message in capsys.readouterr().err
    assert not Path("run").exists()


def test_a_sweep_over_an_option_of_a_preset():
    sweep = ("sweep", "m2", "--preset", "paper-004", *QUICK, "--labels", 60, "--grid", "z_dim=2,3")
    assert run(*sweep, "--out", "sweep") == 0
    configs = [json.loads(p.read_text()) for p in Path("sweep/runs").glob("*/config.json")]
    assert sorted(c["options"]["z_dim"] for c in configs) == [2, 3]
    assert {c["preset"] for c in configs} == {"paper-004"}
    assert {c["options"]["alpha"] for c in configs} == {6.0}
    assert {c["training"]["warmup"] for c in configs} == {200.0 / 1000}


def test_list_has_every_preset(capsys):
    assert run("list", "--presets") == 0
    table = capsys.readouterr().out
    assert table.strip() == presets_table()
    assert all(preset.name in table and preset.method in table for preset in PRESETS)


def test_list_has_the_values_of_a_preset_with_their_sources(capsys):
    assert run("list", "--presets", "paper-004-mier") == 0
    lines = [tuple(line.split(None, 3)) for line in capsys.readouterr().out.splitlines()]
    assert lines.count(("entropy", "5.0", "paper", "section 5.2: beta of eq. 7")) == 3
    assert [line[2] for line in lines if line[:2] == ("warmup", "200.0")] == ["ours"] * 3
    assert run("list", "--presets", "paper") == 2
    assert "--presets should be one of paper-000" in capsys.readouterr().err

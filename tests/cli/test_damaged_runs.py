"""Damaged files of a run are named."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cli_programs import run

from pyro_ssl.cli.run_config import CONFIG_TYPES


def truncate(path: Path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    "config cut": (
        lambda d: truncate(d / "config.json"),
        ("evaluate", "train"),
        "config.json is damaged",
    ),
    "config empty": (
        lambda d: (d / "config.json").write_text("{}"),
        ("evaluate", "train"),
        "config.json is damaged",
    ),
    "config list": (
        lambda d: (d / "config.json").write_text("[1]"),
        ("evaluate", "train"),
        "config.json is damaged",
    ),
    "config gone": (
        lambda d: (d / "config.json").unlink(),
        ("evaluate", "train"),
        "is not the directory of a run",
    ),
    "weights cut": (
        lambda d: truncate(d / "model/state.safetensors"),
        ("evaluate", "predict"),
        "state.safetensors is damaged",
    ),
    "weights gone": (
        lambda d: (d / "model/state.safetensors").unlink(),
        ("evaluate", "predict"),
        "state.safetensors cannot be read",
    ),
    "state cut": (
        lambda d: truncate(d / "model/state.json"),
        ("evaluate", "predict"),
        "state.json is damaged",
    ),
    "foreign": (
        lambda d: (d / "model/state.json").write_text('{"a": 1}'),
        ("evaluate", "predict"),
        "not written by pyro-ssl",
    ),
    "result cut": (
        lambda d: truncate(d / "result.json"),
        ("evaluate",),
        "result.json is damaged",
    ),
    "result of another kind": (
        lambda d: (d / "result.json").write_text('{"seconds": "a", "versions": {}}'),
        ("evaluate",),
        "result.json is damaged: seconds should be a number",
    ),
    "result without versions": (
        lambda d: (d / "result.json").write_text('{"seconds": 1.0}'),
        ("evaluate",),
        "result.json is damaged: KeyError('versions')",
    ),
    "no model": (
        lambda d: shutil.rmtree(d / "model"),
        ("evaluate", "predict"),
        "model: no such directory",
    ),
    "another thing": (
        lambda d: [shutil.rmtree(d / "model"), shutil.copytree(d / "checkpoint", d / "model")],
        ("evaluate", "predict"),
        "holds no trained model",
    ),
}


@pytest.mark.parametrize(("spoil", "commands", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_run_is_named(copied, capsys, spoil, commands, message):
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


# --- config.json ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIG_TYPES)
@pytest.mark.parametrize("value", [None, [], 1e999, {"a": None}])
def test_config_with_a_value_of_another_type(copied, capsys, name, value):
    path = copied / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {name: value}))
    if type(value) in CONFIG_TYPES[name] and name not in ("options", "training"):
        return
    assert run("train", "--resume", copied) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said and name in said or "no option" in said


def test_config_nested_too_deeply(copied, capsys):
    (copied / "config.json").write_text("[" * 100_000)
    assert run("evaluate", copied) == 2
    assert "config.json is damaged" in capsys.readouterr().err


def test_run_of_an_earlier_version_is_named(copied, capsys):
    path = copied / "config.json"
    config = json.loads(path.read_text())
    config["options"]["shared_noise"] = config["options"].pop("common_random_numbers")
    path.write_text(json.dumps(config))
    assert run("train", "--resume", copied) == 2
    said = capsys.readouterr().err
    assert "is a run of an earlier version" in said


def test_run_with_an_unknown_option_is_named(copied, capsys):
    path = copied / "config.json"
    config = json.loads(path.read_text())
    config["options"]["of_a_later_version"] = 1
    path.write_text(json.dumps(config))
    assert run("train", "--resume", copied) == 2
    said = capsys.readouterr().err
    assert "config.json was written by another version of pyro-ssl" in said
    assert "m2 has no option of_a_later_version" in said

"""Options: each is described, and dashes and underscores mean the same."""

import argparse
import json
from pathlib import Path

import pytest
from cli_programs import parser, run, train

from pyro_ssl import zoo
from pyro_ssl.cli import app
from pyro_ssl.cli.commands import COMMANDS, module_of
from pyro_ssl.cli.train import method_parser

PARSERS = {name: module_of(name).parser() for name in COMMANDS}


@pytest.mark.parametrize("name", [*PARSERS, *zoo.METHODS])
def test_every_option_is_described(name):
    of = PARSERS[name] if name in PARSERS else method_parser(name)
    options = [action for action in of._actions if action.option_strings]
    assert options
    for action in options:
        assert action.help and action.help != argparse.SUPPRESS, action.option_strings


@pytest.mark.parametrize("spelling", ["{}-{}", "{}_{}"])
def test_dashes_and_underscores_train_the_same_run(spelling):
    options = [("batch", "size", "50"), ("z", "dim", "3"), ("data", "root", ".")]
    given = []
    for first, second, value in options:
        given += ["--" + spelling.format(first, second), value]
    assert train("m2", "run", *given) == 0
    config = json.loads(Path("run/config.json").read_text())
    assert config["training"]["batch_size"] == 50 and config["options"]["z_dim"] == 3
    assert config["data_root"] == str(Path().resolve())


def test_all_commands_take_both():
    for argv in (
        ["compare", "--data=x.csv", "--label_column", "species", "--options.z-dim", "2"],
        ["compare", "--data=x.csv", "--label-column", "species", "--options.z_dim", "2"],
    ):
        given = parser().parse_args(app._as_declared(argv)).compare
        assert given.label_column == "species" and given.options == {"z_dim": 2}
    sweep = ["sweep", "m2", "--search_space", "lr=1", "--z-dim", "2", "--image_size=8"]
    declared = ["sweep", "m2", "--search-space", "lr=1", "--z_dim", "2", "--image-size=8"]
    assert app._as_declared(sweep) == declared


def test_an_unknown_option_keeps_the_users_spelling(capsys):
    assert run("train", "m2", "--no-such", 1, "--out", "run") == 2
    assert "--no-such" in capsys.readouterr().err


def test_the_classifier_takes_the_options_of_the_methods_classifier():
    assert (
        train("classifier", "run", "--classifier_network", "mlp", "--classifier-hidden", "[6]") == 0
    )
    options = json.loads(Path("run/config.json").read_text())["options"]
    assert options["classifier_network"] == "mlp" and options["classifier_hidden"] == [6]

"""The method of `train`: values of options that are called like one do not count."""

import pytest
from cli_programs import run

from pyro_ssl.cli import app


@pytest.mark.parametrize("argv", [("mm2", "--out", "vae"), ("--help", "m2")])
def test_all_methods_are_listed_unless_one_is_named(argv, capsys):
    run("train", *argv)
    said = capsys.readouterr()
    assert "latent_classifier_split" in said.out + said.err


def test_the_directory_to_resume_may_be_called_like_a_method(capsys):
    assert run("train", "--resume", "vae", "--alpha", 3) == 2
    assert "--alpha: a run continues with the settings" in capsys.readouterr().err
    argv = ["train", "--resume", "vae", "m1_m2", "--z1-dim", "3"]
    assert app._as_declared(argv)[-2:] == ["--z1_dim", "3"]
    assert app._methods_in(argv) == ("m1_m2",)

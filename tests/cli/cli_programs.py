"""Short commands on a quarter of the digits, and the files that they write."""

import json
from functools import cache
from pathlib import Path

from pyro_ssl import data
from pyro_ssl.cli import app as cli

OPTIONS = {
    "classifier": (),
    "vae": ("--z_dim", "2"),
    "m2": ("--z_dim", "2"),
    "gm": ("--z_dim", "2"),
}
RESULT = {
    "method",
    "data",
    "labels",
    "seed",
    "epochs",
    "seconds",
    "test_accuracy",
    "test_log_likelihood",
    "test_ece",
    "versions",
    "selection",
}

parser = cache(cli.make_parser)
"""The parser, made once, since that takes longer than most commands."""


@cache
def all_digits() -> data.Dataset:
    return data.digits()


def digits() -> data.Dataset:
    d = all_digits()
    return data.Dataset(
        d.name,
        d.x[:300].clone(),
        d.y[:300].clone(),
        d.x_test[:100].clone(),
        d.y_test[:100].clone(),
        d.classes,
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


DIVERGING = (
    *("train", "m2", "--labels", 10, "--lr", 1e30, "--epochs", 5),
    *("--hidden", "[4,4]", "--out", "diverged"),
)
"""A command whose training diverges."""

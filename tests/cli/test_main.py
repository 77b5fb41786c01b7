"""The command itself: the list, user errors in one line, configuration files, Ctrl-C."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from cli_programs import DIVERGING, run

from pyro_ssl.cli import list as list_command
from pyro_ssl.data.missing_labels import LabelWarning


def test_list_names_methods_and_data(capsys):
    assert run("list") == 0
    said = capsys.readouterr().out
    assert all(
        name in said for name in ("classifier", "vae", "m2", "moons", "digits", "mnist", ".npz")
    )


def test_warnings_take_one_line(monkeypatch, capsys):
    before = warnings.formatwarning
    shown = lambda _: print(warnings.formatwarning("classes", LabelWarning, "data.py", 1), end="")  # noqa: E731
    monkeypatch.setattr(list_command, "run", shown)
    assert run("list") == 0
    assert capsys.readouterr().out == "pyro-ssl: warning: classes\n"
    assert warnings.formatwarning is before


# --- user errors ----------------------------------------------------------------------------------


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
    "how": (
        ("train", "m2", "--how", "any", "--out", "run"),
        "how should be balanced, stratified or random",
    ),
    "type": (("train", "m2", "--epochs", "many", "--out", "run"), "epochs"),
    "epochs": (
        ("train", "m2", "--epochs", 0, "--out", "run"),
        "epochs should be a whole number above 0",
    ),
    "seed": (("train", "m2", "--seed", -1, "--out", "run"), "seed should be a whole number in 0"),
    "schedule": (
        ("train", "m2", "--schedule", "slow", "--out", "run"),
        "--schedule should be one of constant",
    ),
    "activation": (("train", "m2", "--activation", "gelu", "--out", "run"), "activation"),
    "network": (
        ("train", "m2", "--network", "conv", "--data", "moons", "--labels", 6, "--out", "run"),
        "an image",
    ),
    "label file": (("train", "m2", "--label-file", "none.json", "--out", "run"), "none.json"),
    "config file": (("train", "m2", "--config", "none.yaml", "--out", "run"), "none.yaml"),
    "resume": (("train", "--resume", "nowhere"), "nowhere is not the directory of a run"),
    "evaluate": (("evaluate", "nowhere"), "nowhere is not the directory of a run"),
    "labels all": (("train", "m2", "--labels", "most", "--out", "run"), "most"),
    "predict": (("predict", "nowhere", "--input", "x.npy", "--output", "p.npy"), "nowhere/model"),
    "diverges": (DIVERGING, "not finite"),
}


@pytest.mark.parametrize(("argv", "message"), MISTAKES.values(), ids=MISTAKES)
def test_user_errors_take_one_line(argv, message, capsys):
    assert run(*argv) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not Path("run").exists()


def test_mistyped_data_root_is_not_created(capsys):
    assert run("train", "m2", "--data", "mnist", "--data-root", "nowhre", "--out", "run") == 2
    assert "nowhre is not a directory" in capsys.readouterr().err
    assert not list(Path().iterdir())


@pytest.mark.slow
def test_user_error_in_a_process_of_its_own():
    images = np.full((20, 4), 255.0)
    np.savez("pixels.npz", x=images, y=np.arange(20) % 2, x_test=images, y_test=np.arange(20) % 2)
    command = (
        "train",
        "m2",
        "--data",
        "pixels.npz",
        "--labels",
        "4",
        "--out",
        "run",
        "--likelihood",
        "bernoulli",
    )
    done = subprocess.run(
        [sys.executable, "-m", "pyro_ssl", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "pyro-ssl: error: site 'x' is observed outside the support" in done.stderr
    assert "divide by 255" in done.stderr


# --- configuration files --------------------------------------------------------------------------


CONFIGS = {
    "not UTF-8": (b"\xff\xfe\x00labels: 3", "c.yaml should be text in UTF-8"),
    "brackets": (b"x: " + b"[" * 900 + b"]" * 900, "c.yaml is nested too deeply"),
    "brackets that overflow the stack": (
        b"x: " + b"[" * 100_000 + b"]" * 100_000,
        "c.yaml is nested too deeply",
    ),
    "dashes": (b"- " * 100_000, "c.yaml is nested too deeply"),
    "broken": (b"epochs: [1", "config"),
}


@pytest.mark.parametrize(("content", "message"), CONFIGS.values(), ids=CONFIGS)
def test_unreadable_config_file(content, message, capsys):
    Path("c.yaml").write_bytes(content)
    assert run("train", "m2", "--config", "c.yaml", "--out", "run") == 2
    assert message in capsys.readouterr().err and not Path("run").exists()


def test_argument_nested_too_deeply(capsys):
    deep = "[" * 20_000 + "]" * 20_000
    assert run("label", "d", "--data", "x.npz", "--options", deep) == 2
    assert "nested too deeply" in capsys.readouterr().err


# --- Ctrl-C ---------------------------------------------------------------------------------------


INTERRUPTED = {
    "while importing": """
import os, signal, sys, threading
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
from pyro_ssl.__main__ import main
""",
    "in a command": """
import os, signal, sys
from pyro_ssl.cli import list as list_command
from pyro_ssl.__main__ import main
list_command.run = lambda arguments: os.kill(os.getpid(), signal.SIGINT)
""",
    "twice": """
import os, signal, sys, time
from pyro_ssl.cli import list as list_command
from pyro_ssl.__main__ import main
def twice(arguments):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(9)
    finally:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(9)
list_command.run = twice
""",
    "at the end": """
import atexit, os, signal, sys, time
from pyro_ssl.__main__ import main
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("when", INTERRUPTED)
def test_interrupt_without_a_traceback(when):
    code = INTERRUPTED[when] + "sys.argv = ['pyro-ssl', 'list']\nsys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == (0 if when == "at the end" else 130), done.stderr
    assert done.stderr == ("" if when == "at the end" else "\npyro-ssl: stopped\n")

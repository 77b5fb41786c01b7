"""Run experiment scripts in this process, tiny and with small pictures."""

import importlib
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

EXPERIMENTS = Path(__file__).parent.parent.parent / "experiments"
SAVEFIG = Figure.savefig


def draw_once(figure: Figure, path: Any, **how: Any) -> None:
    """Save a figure without the search for a layout and for margins, which draws every artist
    several times.
    """
    figure.set_layout_engine("none")
    SAVEFIG(figure, path, dpi=20, format=how.get("format"))


@pytest.fixture
def scripts(monkeypatch):
    """Import a script as the scripts import each other."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    return importlib.import_module


@pytest.fixture
def script(monkeypatch, capsys, scripts):
    """Run a script in this process: one of its own would take seconds to import torch and Pyro."""

    def run(name: str, *arguments: str, cwd: Path) -> str:
        capsys.readouterr()
        with monkeypatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn warns of twenty images
            patch.chdir(cwd)
            patch.setenv("PYRO_SSL_DATA", "nowhere")  # restored after a script that sets it
            patch.setattr(sys, "argv", [str(EXPERIMENTS / f"{name}.py"), *arguments])
            patch.setattr(Figure, "savefig", draw_once)
            module = scripts(name)
            if hasattr(module, "STUDY"):
                scripts("study").main(module.STUDY, module.__doc__)
            else:
                module.main()
        return capsys.readouterr().out

    return run

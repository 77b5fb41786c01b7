"""Questions in the terminal, and the scale of the images."""

import pytest
import torch
from programs.label_page import CLASSES

from pyro_ssl.active.labelling.question import Question, ask_in_terminal


def test_terminal_takes_numbers_and_names(monkeypatch, capsys):
    lines = iter(["dog", "7", "0", ""])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    kept = []
    assert ask_in_terminal(CLASSES, 4, {2: 1}, kept.append) == {0: 1, 1: 0, 2: 1, 3: None}
    assert (
        "no class '7'" in capsys.readouterr().out
        and kept[-1] == {0: 1, 1: 0, 2: 1, 3: None}
        and len(kept) == 3
    )


def test_terminal_reads_numbers_as_names(monkeypatch, capsys):
    lines = iter(["0", "1", "3"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    assert ask_in_terminal(["1", "2", "3"], 2) == {0: 0, 1: 2}
    assert "no class '0'" in capsys.readouterr().out


@pytest.mark.parametrize("unit", [1, 1e-13, 1e13])
def test_images_are_displayed_with_one_scale(tmp_path, unit):
    x = unit * torch.linspace(-1, 3, 2 * 64).reshape(2, 1, 8, 8)
    question = Question(tmp_path / "asked.json", x, ["a", "b"])
    question.ask([1])
    shown = question._display()
    assert shown.min() > 0.49 and float(shown.max()) == 1
    assert (
        Question(tmp_path / "other.json", torch.full((1, 1, 2, 2), 7.0), ["a", "b"])
        ._display()
        .isfinite()
        .all()
    )

"""The scale of the images of a question, and what is kept of its answers."""

import pytest
import torch

from pyro_ssl.active.labelling.question import Question


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


def test_answers_and_their_origin_are_kept(tmp_path, monkeypatch):
    pool = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    lines = iter(["a", "", "b"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    kept = []
    question = Question(tmp_path / "asked.json", pool, ["a", "b"], lambda: kept.append(1))
    question.ask([3, 1, 4], by_model=True)
    assert question.answered(None) == ([3, 4], [0, 1]) and len(kept) == 3
    again = Question(tmp_path / "asked.json", pool, ["a", "b"])
    assert again.rows == [3, 1, 4] and again.by_model and again.labels == {3: 0, 4: 1}
    again.forget([3])
    assert again.labels == {4: 1} and again.left_out == [1]
    assert not (tmp_path / "asked.png").exists()  # rows of a table have no picture

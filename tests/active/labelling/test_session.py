"""Rounds of questions, while another thread learns."""

import pytest
from programs.active import FEW, Y, learner

from pyro_ssl.active import learner as learner_module
from pyro_ssl.active.labelling.background import Background
from pyro_ssl.active.labelling.session import Pool, Session


@pytest.mark.filterwarnings("ignore:y. no row of class")
def test_the_model_that_is_named_has_chosen_the_questions(tmp_path, monkeypatch, capsys):
    """Another model is ready just after the session has looked which one there is."""
    made = learner(directory=tmp_path)
    made.teach([0, 1, 2, 3], Y[:4], pool=FEW)
    first = made.members
    asked = []
    acquire = learner_module.acquire

    def noted(members, *arguments, **others):
        asked.append(list(members))
        return acquire(members, *arguments, **others)

    def learn_more(background):
        made.teach([4, 5, 6, 7], Y[4:8])

    monkeypatch.setattr(learner_module, "acquire", noted)
    monkeypatch.setattr(Background, "acknowledge", learn_more)
    monkeypatch.setattr("builtins.input", lambda prompt: "0")
    with Background() as background:
        Session(made, Pool(FEW, ["a", "b"]), None, background, lambda: None).run(3, 1)
    assert "The model that learned from 4 labels chose these" in capsys.readouterr().out
    assert asked == [first]

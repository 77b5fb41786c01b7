"""The record of what the model had guessed."""

import json

import pytest

from pyro_ssl.active.labelling.guesses import Guessed, GuessRecord
from pyro_ssl.utils.files import CheckpointError

GUESSES = {4: (1, 0.9), 7: (0, 0.8), 9: (0, 0.7)}


def test_guesses_count_once_and_only_answers_with_a_class(tmp_path):
    record = GuessRecord(tmp_path / "guesses.json")
    record.add({}, {1: 0}, labels=1, by_model=False)
    record.add(GUESSES, {4: 1, 7: 1}, labels=3, by_model=True)
    record.add(
        GUESSES, {4: 1, 7: 1}, labels=3, by_model=True
    )  # again, after the command was killed
    record.add(GUESSES, {}, labels=4, by_model=False)
    assert record.rounds == [Guessed(labels=3, answers=2, right=1, by_model=True)]
    assert GuessRecord(tmp_path / "guesses.json").rounds == record.rounds


@pytest.mark.parametrize(
    "rounds",
    [[{"labels": 3}], [{"labels": 3, "answers": 1, "right": 2, "by_model": True}], 3, [3]],
)
def test_a_damaged_record_is_named(tmp_path, rounds):
    (tmp_path / "guesses.json").write_text(json.dumps({"rounds": rounds}))
    with pytest.raises(CheckpointError, match="guesses.json is damaged"):
        GuessRecord(tmp_path / "guesses.json")

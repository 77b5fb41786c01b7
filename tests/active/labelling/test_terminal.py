"""Questions in the terminal."""

import pytest
from programs.label_page import CLASSES

from pyro_ssl.active.labelling.terminal import StoppedByPerson, ask_in_terminal


@pytest.fixture
def person(monkeypatch):
    """Types lines, and remembers the prompts."""
    prompts = []

    def types(*lines):
        rest = iter(lines)
        monkeypatch.setattr(
            "builtins.input", lambda prompt: (prompts.append(prompt), next(rest))[1]
        )
        return prompts

    return types


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


def test_terminal_goes_back_and_stops(person, capsys):
    prompts = person("back", "dog", "cat", "back", "eel", "stop")
    kept = []
    with pytest.raises(StoppedByPerson):
        ask_in_terminal(CLASSES, 3, keep=kept.append)
    assert [prompt.strip(" :").split()[1] for prompt in prompts] == list("001212")
    assert kept == [{0: 1}, {0: 1, 1: 0}, {0: 1, 1: 2}]
    said = capsys.readouterr().out
    assert "there is no answer before this one" in said
    assert "back returns to the one\nbefore, stop ends. Every answer is saved at once." in said


def test_a_class_called_stop_is_a_class(person, capsys):
    person("stop", "/stop")
    kept = []
    with pytest.raises(StoppedByPerson):
        ask_in_terminal(["go", "stop"], 2, keep=kept.append)
    assert kept == [{0: 1}] and "/stop ends" in capsys.readouterr().out


def test_terminal_says_where_to_look_and_what_the_model_thinks(person, capsys):
    person("0", "1")
    descriptions = [
        {"name": "pets/unlabeled/a.png", "values": []},
        {"name": "row 7", "values": [["weight", "4.5"]]},
    ]
    ask_in_terminal(CLASSES, 2, guesses=[(2, 0.834)], descriptions=descriptions, kind="row")
    said = capsys.readouterr().out
    assert "1 of 2: pets/unlabeled/a.png\nthe model's guess: eel, 83 %" in said
    assert "2 of 2: row 7\n  weight: 4.5\n" in said and "Enter leaves a row out" in said


def test_all_that_the_terminal_says(monkeypatch, capsys):
    lines = iter(["", "9", "0"])
    monkeypatch.setattr("builtins.input", lambda prompt: (print(prompt), next(lines))[1])
    descriptions = [
        {"name": "row 4", "values": [["weight", "2"]]},
        {"name": "row 8", "values": [["weight", "3"]]},
        {"name": "row 9", "values": []},
    ]
    answers = ask_in_terminal(
        ["cat", "dog"],
        3,
        {2: 0},
        guesses=[(1, 0.5), (0, 0.75)],
        descriptions=descriptions,
        kind="row",
    )
    assert answers == {0: None, 1: 0, 2: 0}
    assert capsys.readouterr().out == (
        "classes: 0 cat, 1 dog\n"
        "Type the number or the name of a class. Enter leaves a row out, back returns to the one\n"
        "before, stop ends. Every answer is saved at once.\n"
        "\n1 of 3: row 4\n  weight: 2\nthe model's guess: dog, 50 %\nrow 4: \n"
        "\n2 of 3: row 8\n  weight: 3\nthe model's guess: cat, 75 %\nrow 8: \n"
        "there is no class '9', only 0 cat, 1 dog; an empty line leaves it out\nrow 8: \n"
    )


def test_classes_that_are_numbers_are_asked_for_by_name_alone(person, capsys):
    person("0", "7")
    assert ask_in_terminal(["3", "5", "7"], 1) == {0: 2}
    said = capsys.readouterr().out
    assert "classes: 3, 5, 7\nType the name of a class." in said
    assert "there is no class '0', only 3, 5, 7; an empty line leaves it out" in said


def test_the_case_of_letters_does_not_matter_where_one_word_is_meant(person, capsys):
    person("DOG", "Back", "CAT")
    assert ask_in_terminal(["cat", "Dog"], 1) == {0: 1}
    person("up", "Up")
    assert ask_in_terminal(["UP", "Up"], 1) == {0: 1}
    assert "there is no class 'up'" in capsys.readouterr().out

"""Questions in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pyro_ssl.active.labelling.page import Answers, Description, Guesses

BACK = "back"
STOP = "stop"


class StoppedByPerson(EOFError):
    """The person ended the questions; the answers so far were kept."""


def ask_in_terminal(
    classes: Sequence[str],
    n: int,
    answers: Answers | None = None,
    keep: Callable[[Answers], None] | None = None,
    *,
    guesses: Guesses = (),
    descriptions: Sequence[Description] = (),
    kind: str = "image",
) -> Answers:
    """Ask in the terminal for the class of each of n images or rows.

    A class is given by its name, or by its number unless a name is a number. An empty line leaves
    the image out, `back` returns to the one before, and `stop` ends; a class of that name is given
    precedence, and the command is then written with a slash.

    Arguments:
        classes: Names of the classes.
        n: Number of images.
        answers: Answers so far.
        keep: Called with all answers after each new one.
        guesses: What the model thinks of each; empty without a model.
        descriptions: Name and values of each.
        kind: What is asked about: an image, or a row.

    Raises:
        StoppedByPerson: The person typed `stop`; the answers so far were kept.
        EOFError: The input ended before all images were answered; the answers so far were kept.

    >>> ask_in_terminal(["cat", "dog"], 1, answers={0: 1})
    classes: 0 cat, 1 dog
    Type the number or the name of a class. Enter leaves an image out, back returns to the one
    before, stop ends. Every answer is saved at once.
    {0: 1}
    """
    words = _Words.of(classes)
    print(words.instructions(kind))
    result = dict(answers or {})
    saved = dict(result)  # an answer that is asked for again stays saved until then
    answered: list[int] = []
    while len(result) < n:
        place = _first_without(result, n)
        _introduce(place, n, classes, guesses, descriptions)
        text = _read(_prompt(place, kind, descriptions), words)
        if text == words.stop:
            raise StoppedByPerson
        if text == words.back:
            _take_back(result, answered)
            continue
        label = words.labels[text] if text else None
        result[place] = label
        saved[place] = label
        answered.append(place)
        if keep is not None:
            keep(dict(saved))
    return result


# --- what can be typed ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Words:
    """What a person can type.

    Arguments:
        labels: The class of each word.
        menu: The classes, as they are shown.
        what: What names a class: its number or its name, or its name alone.
        back: The command that returns to the question before.
        stop: The command that ends the questions.
    """

    labels: dict[str, int]
    menu: str
    what: str
    back: str
    stop: str

    @classmethod
    def of(cls, classes: Sequence[str]) -> _Words:
        """The words for some classes; these have numbers, too, unless a name is a number."""
        labels = {name: k for k, name in enumerate(classes)}
        menu = ", ".join(classes)
        what = "name"
        if not any(name.isdigit() for name in classes):
            labels = {str(k): k for k in range(len(classes))} | labels
            menu = ", ".join(f"{k} {name}" for k, name in enumerate(classes))
            what = "number or the name"
        return cls(labels, menu, what, _command(BACK, labels), _command(STOP, labels))

    @property
    def known(self) -> list[str]:
        """All words; the empty one leaves out what is asked about."""
        return [self.back, self.stop, "", *self.labels]

    def word(self, text: str) -> str | None:
        """The word that a text means, in any case of its letters; None for none or several."""
        if text in self.known:
            return text
        alike = [word for word in self.known if word.casefold() == text.casefold()]
        return alike[0] if len(alike) == 1 else None

    def instructions(self, kind: str) -> str:
        return (
            f"classes: {self.menu}\n"
            f"Type the {self.what} of a class. Enter leaves {_an(kind)} out, {self.back} "
            f"returns to the one\nbefore, {self.stop} ends. Every answer is saved at once."
        )


def _command(name: str, labels: dict[str, int]) -> str:
    return name if name not in labels else f"/{name}"


def _an(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _read(prompt: str, words: _Words) -> str:
    """Ask until the answer is known."""
    while True:
        text = input(prompt).strip()
        word = words.word(text)
        if word is not None:
            return word
        print(f"there is no class {text!r}, only {words.menu}; an empty line leaves it out")


# --- one question ---------------------------------------------------------------------------------


def _first_without(answers: Answers, n: int) -> int:
    return next(place for place in range(n) if place not in answers)


def _take_back(answers: Answers, answered: list[int]) -> None:
    """Forget the last answer, so that it is asked for again; it stays saved until then."""
    if not answered:
        print("there is no answer before this one")
        return
    del answers[answered.pop()]


def _introduce(
    place: int,
    n: int,
    classes: Sequence[str],
    guesses: Guesses,
    descriptions: Sequence[Description],
) -> None:
    """Say where to look, and what the model thinks."""
    if descriptions:
        print(f"\n{place + 1} of {n}: {_description(descriptions[place])}")
    if place < len(guesses):
        label, probability = guesses[place]
        print(f"the model's guess: {classes[label]}, {100 * probability:.0f} %")


def _description(found: Description) -> str:
    """Where to look: the name, and the values of a row."""
    values = [f"  {column}: {value}" for column, value in found["values"]]
    return "\n".join([str(found["name"]), *values])


def _prompt(place: int, kind: str, descriptions: Sequence[Description]) -> str:
    """The prompt: the name of the row, or the number of the image on the contact sheet."""
    if descriptions and kind == "row":
        return f"{descriptions[place]['name']}: "
    return f"{kind} {place}: "

"""A preset: the settings of a method in a paper, each with its source."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal


def with_epochs(training: Mapping[str, Any], epochs: int | None) -> dict[str, Any]:
    """Arguments of `fit` with another number of epochs, of which the warm-up keeps its share.

    Without this, a short run would end before the weight of the KL has risen to 1.

    Arguments:
        training: Arguments of `fit` with `epochs`.
        epochs: The other number of epochs; None changes nothing.

    >>> with_epochs({"epochs": 1000, "warmup": 200.0, "lr": 0.1}, 10)
    {'epochs': 10, 'warmup': 2.0, 'lr': 0.1}
    """
    changed = dict(training)
    if epochs is None or epochs == training["epochs"]:
        return changed
    changed["epochs"] = epochs
    share = epochs / training["epochs"]
    if training.get("warmup"):
        changed["warmup"] = training["warmup"] * share
    return changed


@dataclass(frozen=True)
class Choice:
    """A value, and where it comes from.

    Arguments:
        value: The value.
        kind: `paper` for a value that the paper states, `ours` for one that the paper leaves open,
            `absent` for the value that switches off what the paper does not have.
        source: The place in the paper; for `ours`, the reason.

    >>> print(Choice(50, "paper", "section 5.2"))
    50 (section 5.2)
    """

    value: Any
    kind: Literal["paper", "ours", "absent"]
    source: str

    def __str__(self) -> str:
        mark = "ours: " if self.kind == "ours" else ""
        return f"{self.value} ({mark}{self.source})"


@dataclass(frozen=True)
class Preset:
    """The settings of a method in a paper: everything that the method, `fit` and prediction need.

    Arguments:
        name: Name of the preset, such as `paper-004`; several methods share it.
        method: Name of the method in the zoo.
        experiment: The data, and the table or figure that has the paper's result.
        options: Options of the method.
        training: Arguments of `fit`.
        left_out: What the paper does that a preset cannot hold.

    >>> from pyro_ssl import zoo
    >>> preset = zoo.preset_of("m2", "paper-004")
    >>> preset.option_values["z_dim"], preset.training_values["batch_size"]
    (50, 200)
    """

    name: str
    method: str
    experiment: str
    options: Mapping[str, Choice]
    training: Mapping[str, Choice]
    left_out: str = ""

    @property
    def option_values(self) -> dict[str, Any]:
        """The options of the method, for `zoo.build`."""
        return {name: choice.value for name, choice in self.options.items()}

    @property
    def training_values(self) -> dict[str, Any]:
        """The arguments of `fit`."""
        return {name: choice.value for name, choice in self.training.items()}

    def training_for(self, epochs: int | None = None) -> dict[str, Any]:
        """The arguments of `fit` for another number of epochs; see `with_epochs`.

        Arguments:
            epochs: Number of epochs; None for the preset's own.

        >>> from pyro_ssl import zoo
        >>> zoo.preset_of("m2", "paper-004").training_for(100)["warmup"]
        20.0
        """
        return with_epochs(self.training_values, epochs)

    def with_absent(
        self, options: Mapping[str, Choice], training: Mapping[str, Choice], known: Collection[str]
    ) -> Preset:
        """Switch off what the paper does not have.

        Arguments:
            options: Values of options that the preset does not name.
            training: Values of arguments of `fit` that the preset does not name.
            known: Options of the method; others of `options` are left out.

        >>> off = {"noise": Choice(0.0, "absent", "not in the paper")}
        >>> plain = Preset("mine", "m2", "digits", {}, {})
        >>> plain.with_absent(off, {}, ["noise"]).option_values
        {'noise': 0.0}
        """
        of_method = {name: choice for name, choice in options.items() if name in known}
        return replace(
            self,
            options={**of_method, **self.options},
            training={**training, **self.training},
        )

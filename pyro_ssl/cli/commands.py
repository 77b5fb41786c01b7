"""The commands, and what each does; a command is imported only if it is given."""

from __future__ import annotations

from importlib import import_module
from typing import Any

COMMANDS = {
    "list": "List the methods and the data sets, or the presets.",
    "train": "Train a method on a data set with few labels, or continue a run: --resume DIR.",
    "evaluate": (
        "Measure a trained model on test data: accuracy, likelihood and calibration; on "
        "request also out-of-distribution data, corruptions and attacks. Tables and "
        "pictures are written to DIR/evaluation, and all of it in one page to "
        "DIR/report.html."
    ),
    "predict": "Write the likeliest class of each row of a file, and the probability of each.",
    "label": (
        "Ask a person for the most useful labels, and train a method on them. Run the "
        "same command again to continue."
    ),
    "compare": (
        "Compare methods that learn from unlabeled rows with the same classifier "
        "network trained on the labels alone, with logistic regression and with label "
        "spreading, by cross-validation on the labels at hand."
    ),
    "sweep": (
        "Train a method with many seeds and options, in parallel. All options of "
        "`pyro-ssl train METHOD` can be given, too. The same command continues a sweep that "
        "was stopped."
    ),
}
"""Descriptions of the commands by name."""


def module_of(name: str) -> Any:
    """Import the module of a command, with `parser() -> ArgumentParser` and `run(arguments)`.

    >>> module_of("predict").parser().description
    'Write the likeliest class ...'
    """
    return import_module(f"pyro_ssl.cli.{name}")

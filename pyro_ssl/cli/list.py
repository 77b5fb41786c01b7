"""`pyro-ssl list`: the methods and data sets."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from pyro_ssl import data, zoo
from pyro_ssl.cli.method_options import summary


def parser() -> ArgumentParser:
    """Make the parser of the command.

    >>> parser().description
    'List the methods and the data sets.'
    """
    return ArgumentParser(description="List the methods and the data sets.")


def run(arguments: Namespace) -> None:
    """Print one line per method: name, model, guide and summary; then the data sets.

    >>> run(Namespace())
    classifier ...
    """
    rows = [
        (name, method.model or "-", method.guide, summary(name))
        for name, method in zoo.METHODS.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for *cells, text in rows:
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        print("  ".join([*padded, text]))
    print(f"\ndata: {', '.join(data.DATASETS)}, or an .npz file with x, y, x_test and y_test")

"""`pyro-ssl list`: the methods, data sets and presets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jsonargparse import ArgumentParser, Namespace

from pyro_ssl import data, zoo
from pyro_ssl.cli.commands import COMMANDS
from pyro_ssl.cli.method_options import summary
from pyro_ssl.zoo.presets import PRESETS, Choice, Preset

ALL_PRESETS = "all"


def parser() -> ArgumentParser:
    """Make the parser of the command.

    >>> parser().description
    'List the methods and the data sets, or the presets.'
    """
    parser = ArgumentParser(allow_abbrev=False, description=COMMANDS["list"])
    parser.add_argument(
        "--presets",
        type=str | None,
        nargs="?",
        const=ALL_PRESETS,
        default=None,
        help="list the presets; or, with the name of one, its values and their sources",
    )
    return parser


def run(arguments: Namespace) -> None:
    """Print one line per method: name, model, guide and summary; then the data sets.

    With `presets`, print one line per preset and method, or all values of one preset.

    Raises:
        ValueError: There is no preset of that name.

    >>> run(Namespace(presets=None))
    classifier ...
    >>> run(Namespace(presets="all"))
    paper-000 ...
    """
    if arguments.presets == ALL_PRESETS:
        print(presets_table())
        return
    if arguments.presets is not None:
        print("\n\n".join(preset_values(preset) for preset in _named(arguments.presets)))
        return
    rows = [
        (name, method.model or "-", method.guide, summary(name))
        for name, method in zoo.METHODS.items()
    ]
    print(_columns(rows))
    print(f"\ndata: {', '.join(data.DATASETS)}, or an .npz file with x, y, x_test and y_test")


def presets_table() -> str:
    """The presets: name, methods, and the data and tables of the paper.

    >>> print(presets_table())
    paper-000 ...
    """
    methods: dict[tuple[str, str], list[str]] = {}
    for preset in PRESETS:
        methods.setdefault((preset.name, preset.experiment), []).append(preset.method)
    rows = [(name, ", ".join(of), about) for (name, about), of in methods.items()]
    return _columns(rows)


def preset_values(preset: Preset) -> str:
    """The values of a preset with their sources; what the paper does not have comes last.

    >>> print(preset_values(zoo.preset_of("vae", "paper-001")))
    paper-001 of vae: ...
    """
    values = {**preset.options, **preset.training}
    stated = {name: choice for name, choice in values.items() if choice.kind != "absent"}
    switched_off = {name: choice for name, choice in values.items() if name not in stated}
    others = ", ".join(f"{name}={choice.value!r}" for name, choice in switched_off.items())
    lines = [
        f"{preset.name} of {preset.method}: {preset.experiment}",
        _columns(_rows_of(stated)),
        f"not in the paper: {others}",
    ]
    if preset.left_out:
        lines.append(f"left out: {preset.left_out}")
    return "\n".join(lines)


def _rows_of(values: Mapping[str, Choice]) -> list[tuple[str, ...]]:
    return [
        (f"  {name}", str(choice.value), choice.kind, choice.source)
        for name, choice in sorted(values.items())
    ]


def _named(name: str) -> list[Preset]:
    """The presets of a name, one for each method."""
    if name not in zoo.preset_names():
        names = ", ".join(zoo.preset_names())
        raise ValueError(f"--presets should be one of {names}, got {name!r}")
    return [zoo.preset_of(preset.method, name) for preset in PRESETS if preset.name == name]


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows of cells as lines of columns of equal width; the last cell is not padded."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for *cells, text in rows:
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=False)]
        lines.append("  ".join([*padded, text]))
    return "\n".join(lines)

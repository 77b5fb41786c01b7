"""Text that is generated from the code and from the tables of results, as Markdown.

A page holds a line such as `<!-- generated: costs --> *(The site has the table here; ...)*`. When
the site is built, the whole line is replaced by what the function of that name in `GENERATORS`
gives. In a checkout the line says which command prints the text, such as
`python docs/generated_text.py costs`.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import measured
from measured import Measurement
from site_links import ROOT, with_site_links

from pyro_ssl import zoo
from pyro_ssl.cli import train
from pyro_ssl.cli.commands import COMMANDS, module_of
from pyro_ssl.cli.list import preset_values
from pyro_ssl.zoo import presets
from pyro_ssl.zoo.option_names import Option

MARKER = re.compile(r"^<!-- generated: (.*?) -->.*$", re.MULTILINE)


def with_generated_text(text: str) -> str:
    """Replace the markers of a page.

    Raises:
        KeyError: A marker names no generator.
    """
    return MARKER.sub(lambda match: _generated(match[1]), text)


def _generated(marker: str) -> str:
    """The text of a marker, such as `cost m2`."""
    name, *arguments = marker.split()
    return GENERATORS[name](*arguments)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


# --- pages of methods -------------------------------------------------------------------------


def facts(name: str) -> str:
    """Factorisations, and what the method suits."""
    method = zoo.method(name)
    rows = [
        ["model", f"`{method.model}`" if method.model else "none"],
        ["guide", f"`{method.guide}`"],
        ["learns from unlabeled data", _yes(method.unlabeled or name in ("ce", "gm", "vc"))],
        ["suits tables", _yes(method.columns)],
    ]
    return table(["", ""], rows)


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


def picture(name: str) -> str:
    """The graphical model, drawn from the programs."""
    return (
        f"```{{image}} /_generated/methods/{name}.svg\n:alt: graphical model of {name}\n"
        f":width: 420px\n```"
    )


def code(name: str) -> str:
    """How the method is used, in Python and on the command line."""
    estimator = f'SemiSupervisedClassifier("{name}").fit(X, y)   # y: -1 where there is no label'
    objective = f'objective = zoo.build("{name}", x_shape, classes)'
    fit = f'fit(objective, x, y, **zoo.training_of("{name}"))'
    python = f"```python\n{estimator}\n\n{objective}\n{fit}\n```"
    command = f"```sh\npyro-ssl train {name} --data digits --labels 100 --out runs/{name}\n```"
    source = (
        f"The function is {{py:func}}`~pyro_ssl.zoo."
        f"{zoo.method(name).function.__module__.rpartition('.')[2]}.{name}`."
    )
    named = zoo.preset_names(name)
    listed = ", ".join(f"[`{preset}`](/reference/presets.md#{preset})" for preset in named)
    papers = f" Settings of papers: {listed}." if named else " There is no preset of a paper."
    return f"{python}\n\n{command}\n\n{source}{papers}"


def cost(name: str) -> str:
    """Milliseconds of a training step."""
    kinds = {
        "moons": "two columns, two classes, two hidden layers of 128; 100 unlabeled and 6 labeled",
        "images": "784 pixels, ten classes, default networks; 200 unlabeled and 30 labeled",
    }
    rows = []
    for kind, about in kinds.items():
        step = measured.cost(name, kind)
        if step is not None:
            rows.append([about, f"{step.eager:.1f}", f"{step.compiled:.1f}"])
    header = ["a training step", "ms", "ms, [compiled](/howto/compiled_steps.md)"]
    note = (
        "CPU time on one thread, median of nine rounds, with `top_k=1` where there is a sum over "
        "classes ([benchmark](/_generated/experiments/results/benchmark.md))."
    )
    return f"{table(header, rows)}\n\n{note}"


def numbers(name: str) -> str:
    """What was measured of the method."""
    parts = []
    found = [m for m in measured.measurements() if m.method == name]
    if found:
        found.sort(key=lambda m: (measured.STUDIES.index(m.study), m.data, m.setting))
        parts.append(_measurements(found))
    if name in ("m2", "classifier"):
        parts.append("Accuracy (%) on scikit-learn's tables:\n\n" + table_scores())
    if name == "vae":
        parts.append(_probes())
    if not parts:
        return "No study has measured this method yet."
    return "\n\n".join(parts)


def _measurements(found: Sequence[Measurement]) -> str:
    rows = [
        [
            f"[{m.study.title}](/_generated/experiments/results/{m.study.name}.md)",
            m.data,
            m.labels,
            m.setting,
            m.mean("accuracy", 100, 2),
            m.mean("log_likelihood", digits=3),
            m.mean("ece", 100),
            str(len(m.runs)),
        ]
        for m in found
    ]
    header = [
        "study",
        "data",
        "labels",
        "setting",
        "accuracy %",
        "log-likelihood",
        "ECE %",
        "draws",
    ]
    note = (
        "Mean over draws of labels, weights and noise, with the standard deviation in brackets. A "
        "study's page says how it was run; settings differ from study to study."
    )
    return f"{table(header, rows)}\n\n{note}"


def _probes() -> str:
    titles = {
        "logistic": "logistic regression",
        "network": "a network",
        "neighbours": "nearest neighbours",
        "svm": "a support vector machine",
        "spreading": "label spreading",
    }
    rows = [
        [vae, titles.get(probe, probe), measured.mean_sd([100 * v for v in values], 2)]
        for (vae, probe), values in sorted(measured.probes(100).items())
        if vae in ("ours", "z4", "z25")
    ]
    page = "[latents as features](/_generated/experiments/results/vae_downstream.md)"
    about = f"Fashion-MNIST, 100 labels, classifiers on the mean latents ({page}):"
    return f"{about}\n\n{table(['VAE', 'classifier', 'accuracy %'], rows)}"


def options(name: str) -> str:
    """The options of a method, with its defaults."""
    rows = [
        [f"[`{option.name}`](/reference/options.md#{option.name})", f"`{option.default!r}`"]
        for option in zoo.method(name).options.values()
    ]
    training = ", ".join(f"`{k}={v!r}`" for k, v in zoo.method(name).training.items())
    about = "" if not training else f"\n\nArguments of `fit` that suit it: {training}."
    return f"{table(['option', 'default'], rows)}{about}"


# --- which method? ----------------------------------------------------------------------------


def compare(study: str, labels: str, data: str, *setting: str) -> str:
    """Methods in one setting of a study, best first; in all settings, each row has its own."""
    wanted = " ".join(setting)
    found = [
        m
        for m in measured.measurements()
        if (m.study.name, m.labels.partition(",")[0], m.data)
        == (study, labels, data.replace("_", " "))
    ]
    if not wanted:
        return table(("method", "row", *COMPARED), [_compared(m, m.setting) for m in _best(found)])
    found = [m for m in found if m.setting == wanted]
    return table(("method", *COMPARED), [_compared(m) for m in _best(found)])


COMPARED = ("accuracy %", "log-likelihood", "ECE %", "s per run", "draws")


def _best(found: Iterable[Measurement]) -> list[Measurement]:
    """Measurements by their mean accuracy, the highest first."""
    return sorted(found, key=lambda m: -sum(run["accuracy"] for run in m.runs) / len(m.runs))


def _compared(m: Measurement, *setting: str) -> list[str]:
    """The method, its setting and the columns `COMPARED`."""
    return [
        f"[`{m.method}`](/methods/{m.method}.md)",
        *setting,
        m.mean("accuracy", 100, 2),
        m.mean("log_likelihood", digits=3),
        m.mean("ece", 100),
        m.mean("seconds", digits=0).partition(" ")[0],
        str(len(m.runs)),
    ]


def study_block(study: str, *name: str) -> str:
    """A generated table of a study's page."""
    text = (ROOT / "experiments" / "results" / f"{study}.md").read_text()
    start = f"<!-- {' '.join(name)} -->\n"
    end = f"\n<!-- /{' '.join(name)} -->"
    return text[text.index(start) + len(start) : text.index(end)]


def table_scores() -> str:
    """Scores on scikit-learn's tables with classes."""
    scores = measured.tables()
    columns = [key for key in sorted(scores) if "m2" in scores[key]]
    methods = list(scores[columns[0]])
    header = ["", *(f"{data}, {labels} per class" for data, labels in columns)]
    rows = [
        [method, *(measured.mean_sd(scores[key][method], 1) for key in columns)]
        for method in methods
    ]
    return table(header, rows)


def costs() -> str:
    """The cost of a step of every method."""
    rows = []
    for name in zoo.METHODS:
        steps = [measured.cost(name, data) for data in ("moons", "images")]
        cells = ["" if step is None else f"{step.eager:.1f}" for step in steps]
        rows.append([f"[`{name}`](/methods/{name}.md)", *cells])
    header = ["method", "two columns, two classes", "784 pixels, ten classes"]
    return table(header, rows)


# --- papers -----------------------------------------------------------------------------------


def reproduced(paper: str) -> str:
    """The tables and figures of a paper: verdict and reason."""
    lines = _reproduced_lines(f"## Paper {paper}:")
    columns = [_cells(line) for line in lines if line.startswith("|")]
    names = columns[0]
    wanted = [0, *(names.index(name) for name in ("shows", "verdict", "here", "paper", "reason"))]
    header = ["", "shows", "verdict", "here", "paper", "reason"]
    rows = [[cells[i] for i in wanted] for cells in columns[2:]]
    return table(header, rows)


def reproduced_counts() -> str:
    """How many tables and figures are reproduced."""
    lines = _reproduced_lines("# The papers' tables and figures")
    counts = [line for line in lines if line.startswith("|")]
    sentence = next(line for line in lines if line.startswith("Of "))
    return "\n".join(counts) + f"\n\n{sentence}"


def _reproduced_lines(title: str) -> list[str]:
    """A section of REPRODUCED.md, whose links are turned into those of the site."""
    page = "_generated/experiments/REPRODUCED"
    text = with_site_links((ROOT / "experiments" / "REPRODUCED.md").read_text(), page)
    section = text[text.index(title) :]
    end = re.search(r"^## ", section[len(title) :], re.MULTILINE)
    whole = section if end is None else section[: len(title) + end.start()]
    return whole.splitlines()


def _cells(line: str) -> list[str]:
    """The cells of a line of a Markdown table."""
    cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
    return [cell.strip().replace("\\|", "|") for cell in cells]


# --- reference --------------------------------------------------------------------------------


def all_options() -> str:
    """Every option of every method: meaning, and defaults by method."""
    groups: dict[str, dict[str, list[tuple[str, Option]]]] = {}
    for name, method in zoo.METHODS.items():
        for option in method.options.values():
            own = option.group == method.summary.removesuffix(".")
            title = "Options of single methods" if own else option.group
            groups.setdefault(title, {}).setdefault(option.name, []).append((name, option))
    last = groups.pop("Options of single methods")
    parts = [_group(title, listed) for title, listed in groups.items()]
    return "\n\n".join([*parts, _group("Options of single methods", last)])


def _group(title: str, listed: dict[str, list[tuple[str, Option]]]) -> str:
    parts = [f"## {title}"]
    for name, of_methods in sorted(listed.items()):
        option = of_methods[0][1]
        parts.append(f"### {name}")
        parts.append(f"{option.help}")
        parts.append(f"Type `{_kind(option.kind)}`. {_defaults(of_methods)}")
    return "\n\n".join(parts)


def _kind(kind: Any) -> str:
    text = kind.__name__ if isinstance(kind, type) else str(kind)
    return text.replace("typing.", "").replace("collections.abc.", "")


def _defaults(of_methods: Sequence[tuple[str, Option]]) -> str:
    """The commonest default, the others with their methods, and methods without the option."""
    by_default: dict[str, list[str]] = {}
    for name, option in of_methods:
        by_default.setdefault(repr(option.default), []).append(name)
    usual, *others = sorted(by_default, key=lambda value: -len(by_default[value]))
    text = f"Default `{usual}`"
    for value in others:
        text += f"; `{value}` in {', '.join(by_default[value])}"
    missing = [name for name in zoo.METHODS if name not in dict(of_methods)]
    if not missing:
        return f"{text}."
    if len(missing) < len(of_methods):
        return f"{text}. Not an option of {', '.join(missing)}."
    return f"{text}. Only of {', '.join(name for name, _ in of_methods)}."


def all_presets() -> str:
    """Every preset with the source of each value."""
    parts = []
    for name in zoo.preset_names():
        parts.append(f"## {name}")
        for preset in presets.PRESETS:
            if preset.name == name:
                text = preset_values(preset)
                parts.append(f"### {name}: {preset.method}\n\n```text\n{text}\n```")
    return "\n\n".join(parts)


def command_line() -> str:
    """Every command with its options."""
    parts = []
    for name in COMMANDS:
        parser = module_of(name).parser()
        parts.append(f"## pyro-ssl {name}\n\n{parser.description}\n\n{_arguments(parser)}")
        if name == "train":
            shared = train.method_parser("m2")
            own = set(zoo.options_of("m2"))
            about = (
                "After the name of a method, such as `pyro-ssl train m2`, these options are the "
                "same for all methods; defaults of `fit` may differ. The methods' own are in "
                "[Options](/reference/options.md)."
            )
            parts.append(f"### pyro-ssl train METHOD\n\n{about}\n\n{_arguments(shared, own)}")
    return "\n\n".join(parts)


def _arguments(parser: argparse.ArgumentParser, without: Iterable[str] = ()) -> str:
    rows = []
    for action in parser._actions:
        hidden = action.help == argparse.SUPPRESS or action.dest in {"help", *without}
        if hidden or isinstance(action, argparse._SubParsersAction):
            continue
        names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{action.dest}`"
        shown = action.option_strings and action.default not in (None, argparse.SUPPRESS)
        default = f"`{action.default!r}`" if shown else ""
        rows.append([names, _help(action.help), default])
    return table(["argument", "meaning", "default"], rows)


def _help(text: str | None) -> str:
    return (text or "").replace("%%", "%").replace("<", "&lt;").replace("*", "\\*")


def api(module: str) -> str:
    """The public names of a folder or file, by autodoc."""
    imported = importlib.import_module(module)
    names = sorted(imported.__all__) if hasattr(imported, "__all__") else _own_names(imported)
    parts = [inspect.getdoc(imported) or ""]
    lines = []
    for name in names:
        thing = getattr(imported, name)
        lines += _directive(module, name, thing)
    parts.append("```{eval-rst}\n" + "\n".join(lines) + "\n```")
    return "\n\n".join(parts)


def _own_names(module: Any) -> list[str]:
    """Public classes and functions that a file defines."""
    return [
        name
        for name, thing in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(thing) or inspect.isfunction(thing))
        and thing.__module__ == module.__name__
    ]


def _directive(module: str, name: str, thing: Any) -> list[str]:
    if inspect.ismodule(thing):
        return []
    full = f"{module}.{name}"
    if inspect.isclass(thing):
        # scikit-learn's methods for metadata refer to pages of its own site
        foreign = [name for name in dir(thing) if name.startswith("set_") and "request" in name]
        excluded = [f"   :exclude-members: {', '.join(foreign)}"] if foreign else []
        return [f".. autoclass:: {full}", "   :members:", *excluded, ""]
    if inspect.isfunction(thing):
        return [f".. autofunction:: {full}", ""]
    return [f".. py:data:: {full}", "", f"   {_about(thing)}", ""]


def _about(thing: Any) -> str:
    """What a constant holds, or what a type stands for; they have no docstrings of their own."""
    if isinstance(thing, Mapping):
        return f"By name: {', '.join(f'`{key}`' for key in thing)}."
    if isinstance(thing, Collection) and all(isinstance(item, str) for item in thing):
        return f"{', '.join(f'`{item}`' for item in thing)}."
    return f"`{thing}`"


GENERATORS: dict[str, Callable[..., str]] = {
    "facts": facts,
    "picture": picture,
    "code": code,
    "cost": cost,
    "numbers": numbers,
    "options": options,
    "compare": compare,
    "study_block": study_block,
    "tables": table_scores,
    "costs": costs,
    "reproduced": reproduced,
    "reproduced_counts": reproduced_counts,
    "all_options": all_options,
    "all_presets": all_presets,
    "command_line": command_line,
    "api": api,
}

if __name__ == "__main__":
    print(_generated(" ".join(sys.argv[1:])))

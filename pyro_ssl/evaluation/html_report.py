"""A report as one file of HTML: sections of text, tables and pictures, which need no other file.

Texts and cells are escaped, pictures are embedded, and nothing is loaded from the network.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_ssl.utils import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A picture in a report.

    Arguments:
        png: The bytes of a PNG file.
        description: What it shows, for readers who do not see it.
        enlarged: Show single pixels as squares: for images of few pixels.

    >>> Picture(b"...", "a cat").uri
    'data:image/png;base64,Li4u'
    """

    png: bytes
    description: str
    enlarged: bool = False

    @property
    def uri(self) -> str:
        """The picture as an address that holds it."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"

    @classmethod
    def of_figure(cls, figure: Figure | Axes, description: str) -> Picture:
        """Draw a figure, or the figure of some axes, and close it.

        Arguments:
            figure: Figure or axes.
            description: What it shows.
        """
        import matplotlib.pyplot as plt

        from pyro_ssl.evaluation import style

        whole: Any = getattr(figure, "figure", figure)
        png = io.BytesIO()
        with style.context():
            whole.savefig(png, format="png")
        plt.close(whole)
        return cls(png.getvalue(), description)

    @classmethod
    def of_file(cls, path: Path, description: str) -> Picture:
        """Read a PNG file.

        Arguments:
            path: The file.
            description: What it shows.
        """
        return cls(path.read_bytes(), description)


Cell = str | int | Picture


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Arguments:
        header: Names of the columns.
        rows: Rows of cells.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @classmethod
    def of_markdown(cls, text: str) -> Table:
        r"""Read a table that `reports.table` has written.

        Arguments:
            text: The table.

        >>> Table.of_markdown("| a | b |\n|---|---|\n| 1 | x\\|y |").rows
        [['1', 'x|y']]
        """
        lines = [_cells(line) for line in text.strip().splitlines()]
        return cls(lines[0], lines[2:])


def _cells(line: str) -> list[str]:
    hidden = line.strip().strip("|").replace("\\|", "\0")
    return [cell.strip().replace("\0", "|") for cell in hidden.split("|")]


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Arguments:
        title: Its heading.
        text: What it shows, in a sentence or two.
        tables: Its tables.
        pictures: Its pictures, below the tables.
    """

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()


def html(title: str, sections: Sequence[Section]) -> str:
    """Make the page of a report.

    Arguments:
        title: Title of the report.
        sections: Its parts.

    >>> page = html("A <run>", [Section("Data", "two moons")])
    >>> "A &lt;run&gt;" in page, "<h2 id=" in page
    (True, True)
    """
    from jinja2 import Environment

    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(PAGE)
    return template.render(title=title, sections=sections, is_picture=_is_picture)


def write(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write a report.

    Arguments:
        path: The file.
        title: Title of the report.
        sections: Its parts.
    """
    files.write_text(path, html(title, sections))


def _is_picture(cell: Cell) -> bool:
    return isinstance(cell, Picture)


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --line: #ccc; --quiet: #555; }
@media (prefers-color-scheme: dark) { :root { --line: #555; --quiet: #aaa; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; }
h2 { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1rem; }
nav a { margin-right: 1rem; }
p { max-width: 42rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.9rem; }
th, td { text-align: left; padding: 0.25rem 1rem 0.25rem 0; border-bottom: 1px solid var(--line); }
th { color: var(--quiet); font-weight: 600; }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
img { background: white; }
img.enlarged { width: 4rem; image-rendering: pixelated; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<nav aria-label="sections">
{% for section in sections %}
<a href="#section-{{ loop.index }}">{{ section.title }}</a>
{% endfor %}
</nav>
{% for section in sections %}
<h2 id="section-{{ loop.index }}">{{ section.title }}</h2>
{% if section.text %}
<p>{{ section.text }}</p>
{% endif %}
{% for table in section.tables %}
<div class="wide"><table>
<tr>{% for name in table.header %}<th scope="col">{{ name }}</th>{% endfor %}</tr>
{% for row in table.rows %}
<tr>
{%- for cell in row %}
<td>{% if is_picture(cell) %}<img{% if cell.enlarged %} class="enlarged"{% endif %}
 src="{{ cell.uri }}" alt="{{ cell.description }}">{% else %}{{ cell }}{% endif %}</td>
{%- endfor %}
</tr>
{% endfor %}
</table></div>
{% endfor %}
{% for picture in section.pictures %}
<div class="wide"><img{% if picture.enlarged %} class="enlarged"{% endif %}
 src="{{ picture.uri }}" alt="{{ picture.description }}"></div>
{% endfor %}
{% endfor %}
</body>
</html>
"""

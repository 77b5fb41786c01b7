"""Every number of a preset says whether it is a paper's or ours."""

import ast
import re
from pathlib import Path

import pytest

from pyro_ssl.zoo import presets

SOURCE = re.compile(
    r"# (.*, )?(ours$|papers?:? |all papers|(code of )?[A-Z]\w+ et al\. \d{4}|from the )"
)
FOLDER = Path(presets.__file__).parent
LINES = {path.stem: path.read_text().splitlines() for path in FOLDER.glob("*.py")}


def numbers_in(file: str) -> list[tuple[str, ast.keyword]]:
    """Every argument of a group of options in a file."""
    calls = [n for n in ast.walk(ast.parse("\n".join(LINES[file]))) if isinstance(n, ast.Call)]
    groups = [call for call in calls if ast.unparse(call.func).endswith("Options")]
    return [(file, keyword) for call in groups for keyword in call.keywords]


def source_of(number: tuple[str, ast.keyword]) -> str:
    file, keyword = number
    _, hash_sign, comment = LINES[file][keyword.value.end_lineno - 1].partition("#")
    return hash_sign + comment


NUMBERS = [number for file in sorted(LINES) for number in numbers_in(file)]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: f"{n[0]} {n[1].lineno}: {n[1].arg}")
def test_a_number_names_its_source(number):
    assert SOURCE.match(source_of(number))


def test_a_number_of_ours_is_not_among_the_papers():
    assert not [n for n in numbers_in("published_defaults") if source_of(n).endswith("ours")]


def test_the_numbers_are_found():
    assert len(NUMBERS) > 25
    assert not SOURCE.match("# chosen by somebody")

"""Every number of a preset says whether it is a paper's or ours."""

import ast
import re
from pathlib import Path

import pytest

from pyro_ssl.zoo import presets

SOURCE = re.compile(
    r"# (.*, )?(ours$|papers?:? |all papers|(code of )?[A-Z]\w+ et al\. \d{4}|from the )"
)
LINES = Path(presets.__file__).read_text().splitlines()
CALLS = [
    node
    for node in ast.walk(ast.parse("\n".join(LINES)))
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Options")
]
NUMBERS = [keyword for call in CALLS for keyword in call.keywords]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: f"{n.lineno}: {n.arg}")
def test_a_number_names_its_source(number):
    _, hash_sign, comment = LINES[number.lineno - 1].partition("#")
    assert SOURCE.match(hash_sign + comment)


def test_the_numbers_are_found():
    assert len(NUMBERS) > 25
    assert not SOURCE.match("# chosen by somebody")

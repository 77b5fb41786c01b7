"""Tables of columns."""

import json

import pytest
from experiment_files import row

pytestmark = pytest.mark.slow


def test_tables(tmp_path, script):
    out = script("tables", "--scale", "smoke", "--workers", "1", "--out", "out", cwd=tmp_path)
    assert (
        "| m2 " in out
        and "| sslpe " in out
        and "iris, 10 per class" in out
        and "diabetes, 100" in out
    )
    result = row(tmp_path / "out/tables.csv", "iris_3_0")
    score, seconds = (json.loads(result[k]) for k in ("score", "seconds_of"))
    assert result["rows"] == "105" and score.keys() == seconds.keys()

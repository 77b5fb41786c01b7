"""Gradient estimators."""

import pytest

pytestmark = pytest.mark.slow


def test_gradient_variance(tmp_path, script):
    out = script("gradient_variance", "--scale", "smoke", "--out", "out", cwd=tmp_path)
    assert (
        "| 100     | mixture " in out
        and "| one W for all data" in out
        and (tmp_path / "out/gradient_variance.md").exists()
    )

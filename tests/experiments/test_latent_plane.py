"""Paper 003 in the plane."""

import pytest
from experiment_files import made

pytestmark = pytest.mark.slow


def test_latent_plane(tmp_path, script):
    out = script("latent_plane", "--scale", "smoke", "--workers", "1", cwd=tmp_path)
    assert "labels alone" in out and "annealed" in out
    assert {"circles.png", "sigma.png", "moons.png"} == made(tmp_path / "runs/smoke/latent_plane")
    again = script("latent_plane", "--scale", "smoke", "--report", "--out", "none", cwd=tmp_path)
    assert "labels alone" not in again

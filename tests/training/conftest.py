"""Fixtures that several files of this folder use."""

from pathlib import Path

import pytest
from programs.checkpoints import CONTENT

from pyro_ssl.training.checkpoints import (
    save,
)


@pytest.fixture
def fresh(tmp_path) -> Path:
    save(tmp_path / "c", *CONTENT)
    return tmp_path / "c"

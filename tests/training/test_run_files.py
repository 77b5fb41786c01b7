"""What `fit` writes: no pickles, and whole checkpoints on a full disk."""

import errno
import re
from pathlib import Path

import pytest
from programs.pitfalls import INDICES, X, moved, small, weights

from pyro_ssl import (
    fit,
)
from pyro_ssl.training import checkpoints
from pyro_ssl.utils import files

ROOT = Path(__file__).parent.parent.parent


def test_nothing_unpickles(tmp_path):
    """`ParamStore.load` and `PyroOptim.load` do, so neither they nor their like stand in our
    source.
    """
    forbidden = (
        r"(?<!safetensors\.)torch\.(load|save)\b|param_store\(\)\.(load|save)\b|(?<![.\w])(eval|exec)\(|"
        r"import (pickle|dill|joblib|shelve)|pickle\.|allow_pickle=True"
    )
    folders = ("pyro_ssl", "models", "guides", "experiments")
    found = [
        f"{p}: {m[0]}"
        for f in folders
        for p in (ROOT / f).glob("*.py")
        for m in re.finditer(forbidden, p.read_text())
    ]
    assert not found
    fit(small(), X, INDICES, epochs=2, directory=tmp_path)
    files = [
        p for p in tmp_path.rglob("*") if p.is_file() and p.stat().st_size
    ]  # the lock is empty
    assert {p.suffix for p in files} == {".json", ".jsonl", ".safetensors"}
    assert not [p for p in files if p.read_bytes()[:2] in (b"\x80\x02", b"PK")]


def test_a_disk_that_fills_up_keeps_the_last_checkpoint_and_the_run_goes_on_from_it(
    tmp_path, monkeypatch
):
    arguments = {"epochs": 3, "batch_size": 20}
    whole = small()
    fit(whole, X, INDICES, **arguments)
    write, written = files.write_flushed, []

    def full(path: Path, content: bytes) -> None:
        written.append(path)
        if len(written) > 4:  # the first checkpoint has two files and a log beside them
            path.write_bytes(content[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(files, "write_flushed", full)
        fit(small(), X, INDICES, directory=tmp_path, **arguments)
    assert 0 < checkpoints.load(tmp_path / "checkpoint")[1]["position"]["step"] < 9
    resumed = small()
    fit(resumed, X, INDICES, directory=tmp_path, resume=True, **arguments)
    assert not moved(resumed, weights(whole))

"""Damaged, foreign and newer checkpoints are said."""

import hashlib
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs.checkpoints import CONTENT, FILES, OLD, many, same_content

from pyro_ssl.training import checkpoints
from pyro_ssl.training.checkpoints import (
    CheckpointWarning,
    load,
    save,
)
from pyro_ssl.utils.files import CheckpointError


@many
@given(st.sampled_from(FILES), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_flipped_byte_is_found_out(tmp_path, name, where, flip):
    save(tmp_path / "c", *CONTENT, keep_previous=False)
    path = tmp_path / "c" / name
    damaged = bytearray(path.read_bytes())
    damaged[int(where * len(damaged))] ^= flip
    path.write_bytes(damaged)
    try:
        assert same_content(load(tmp_path / "c"), CONTENT)  # a space that became another
    except CheckpointError as error:
        assert str(tmp_path) in str(error)


@many
@given(st.sampled_from(FILES), st.floats(0, 1, exclude_max=True), st.booleans())
def test_a_truncated_file_is_found_out_and_the_one_before_it_used(tmp_path, name, share, previous):
    save(tmp_path / "c", *OLD, keep_previous=False)
    save(tmp_path / "c", *CONTENT, keep_previous=previous)
    path = tmp_path / "c" / name
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    if previous:
        with pytest.warns(CheckpointWarning, match=f"{name}.*using the one before it"):
            assert same_content(load(tmp_path / "c"), OLD)
    else:
        with pytest.raises(CheckpointError, match=f"{name} is damaged"):
            load(tmp_path / "c")


def test_every_byte_of_a_small_header_counts(fresh):
    """No single bit of the JSON, flipped, gives other data without an error."""
    path = fresh / "state.json"
    whole = path.read_bytes()
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        with pytest.raises(CheckpointError):
            load(fresh)
    path.write_bytes(whole)
    assert same_content(load(fresh), CONTENT)


def rewrite(directory: Path, **header) -> None:
    path = directory / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | header))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: rewrite(c, version=2), "version 2, newer than 1.*upgrade pyro-ssl"),
        (lambda c: rewrite(c, version="1"), "state.json is damaged"),
        (lambda c: rewrite(c, version=None), "state.json is damaged"),
        (lambda c: rewrite(c, version=0), "state.json is damaged"),
        (lambda c: rewrite(c, format="other"), "not written by pyro-ssl"),
        (lambda c: rewrite(c, data='{"step": 8}'), "checksum does not match"),
        (lambda c: rewrite(c, data={"step": 7}), "checksum does not match"),
        (lambda c: rewrite(c, sha256=None), "state.safetensors is damaged"),
        (lambda c: (c / "state.json").write_text('{"a": 1}'), "not written by pyro-ssl"),
        (lambda c: (c / "state.json").write_text("[1, 2]"), "not written by pyro-ssl"),
        (lambda c: (c / "state.json").write_text("hello"), "state.json is damaged"),
        (lambda c: (c / "state.json").write_text("9" * 5000), "state.json is damaged"),
        (lambda c: (c / "state.json").write_text("[" * 100_000), "state.json is damaged"),
        (lambda c: (c / "state.json").write_bytes(b"\xff\xfe\x00"), "state.json is damaged"),
        (lambda c: (c / "state.json").unlink(), "holds no state.json"),
        (lambda c: (c / "state.safetensors").unlink(), "state.safetensors cannot be read"),
        (lambda c: [(c / n).unlink() for n in FILES] + [c.rmdir(), c.write_text("x")], "damaged"),
    ],
)
def test_foreign_newer_and_damaged_files_say_so(spoil, message, fresh):
    spoil(fresh)
    with pytest.raises(CheckpointError, match=message):
        load(fresh)


def test_a_missing_one_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such directory"):
        load(tmp_path / "c")
    assert not checkpoints.exists(tmp_path / "c")


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


@pytest.mark.parametrize("forged", [False, True])
def test_a_pickle_is_refused_and_not_run(forged, fresh, monkeypatch):
    """Even where its checksum is right."""
    monkeypatch.chdir(fresh.parent)
    blob = pickle.dumps(Bomb())
    (fresh / "state.safetensors").write_bytes(blob)
    if forged:
        rewrite(fresh, sha256=hashlib.sha256(blob).hexdigest())
    with pytest.raises(CheckpointError, match="damaged"):
        load(fresh)
    assert not Path("exploded").exists()
    pickle.loads(blob)
    assert Path("exploded").exists()  # it would have

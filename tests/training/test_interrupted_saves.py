"""Saves that are interrupted lose nothing."""

import errno
from pathlib import Path

import pytest
import torch
from programs.checkpoints import CONTENT, FILES, OLD, same_content

from pyro_ssl.training import checkpoints
from pyro_ssl.training.checkpoints import (
    CheckpointWarning,
    load,
    previous_of,
    save,
)
from pyro_ssl.utils import files


def full_disk(name: str):
    """A `write_flushed` that writes half of a file of this name, and then the disk is full."""
    write = files.write_flushed

    def half(path: Path, content: bytes) -> None:
        if path.name.startswith(name):
            path.write_bytes(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    return half


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("again", [True, False])
def test_a_full_disk_keeps_what_there_was(name, again, tmp_path, monkeypatch):
    if again:
        save(tmp_path / "c", *OLD)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(files, "write_flushed", full_disk(name))
        save(tmp_path / "c", *CONTENT)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert not list(tmp_path.glob("*.writing"))
    save(tmp_path / "c", *CONTENT)
    assert same_content(load(tmp_path / "c"), CONTENT)


def test_a_small_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    files.write_text(tmp_path / "t", "old")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(files, "write_flushed", full_disk("t"))
        files.write_text(tmp_path / "t", "newer")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_a_full_disk_is_told_with_its_path(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.os, "fsync", lambda descriptor: os_error())
        with pytest.raises(OSError, match=r"No space left on device: '.*c/state.safetensors'"):
            save(tmp_path / "c", *CONTENT)
        with pytest.raises(OSError, match=r"No space left on device: '.*/t'"):
            files.write_text(tmp_path / "t", "text")


def os_error() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path):
    for name in ("disk", "other"):
        (tmp_path / name).mkdir()
    link = tmp_path / "c"
    link.symlink_to(tmp_path / "disk" / "c")  # of nothing yet
    for step in range(3):
        save(link, {"a": torch.ones(2)}, {"step": step})
        assert (
            link.is_symlink()
            and load(link)[1] == {"step": step} == load(tmp_path / "disk" / "c")[1]
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "disk", "other"]
    (tmp_path / "disk" / "c" / "state.json").write_text("damaged")
    with pytest.warns(CheckpointWarning):
        assert load(link)[1] == {"step": 1}
    text = tmp_path / "t"
    text.symlink_to(tmp_path / "other" / "t")
    for content in ("old", "new"):
        files.write_text(text, content)
        assert text.is_symlink() and (tmp_path / "other" / "t").read_text() == content


@pytest.mark.parametrize("name", ["c.previous", "c.writing"])
def test_a_link_in_the_place_of_what_is_ours_does_not_stop_saving(fresh, name):
    (fresh.parent / "elsewhere").mkdir()
    fresh.with_name(name).symlink_to(fresh.parent / "elsewhere")
    for step in range(3):
        save(fresh, {"a": torch.ones(2)}, {"step": step})
    assert load(fresh)[1] == {"step": 2} and load(previous_of(fresh))[1] == {"step": 1}


def test_a_lock_is_of_one_and_ends_with_it(tmp_path):
    pytest.importorskip("fcntl")
    with files.locked(tmp_path / "d"):
        with (
            pytest.raises(ValueError, match=f"{tmp_path}/d is in use"),
            files.locked(tmp_path / "d"),
        ):
            pass
        with files.locked(tmp_path / "d", "other"):
            pass
    with files.locked(tmp_path / "d"):
        pass


def test_data_that_cannot_be_saved_leave_what_there_was(fresh):
    with pytest.raises(TypeError):
        save(fresh, {}, {"f": len})
    assert same_content(load(fresh), CONTENT) and len(list(fresh.parent.iterdir())) == 1


def test_what_a_killed_save_left_is_ignored_and_overwritten(fresh):
    aside = fresh.with_name("c.writing")
    aside.mkdir()
    (aside / "state.safetensors").write_bytes(b"half")
    assert same_content(load(fresh), CONTENT)
    save(fresh, *OLD)
    assert same_content(load(fresh), OLD) and not aside.exists()
    assert sorted(p.name for p in fresh.iterdir()) == sorted(FILES)


def test_killed_between_the_renames_the_previous_one_loads(fresh):
    fresh.rename(previous_of(fresh))
    assert checkpoints.exists(fresh)
    assert same_content(load(fresh), CONTENT)
    save(fresh, *OLD)
    assert same_content(load(fresh), OLD) and previous_of(fresh).exists()


@pytest.mark.parametrize("moment", ["the old one away", "the new one in place"])
def test_a_rename_that_fails_loses_nothing(moment, fresh, monkeypatch):
    rename = Path.rename

    def failing(self, target):
        if self.name.endswith(".writing") == (moment == "the new one in place"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output"):
        patch.setattr(Path, "rename", failing)
        save(fresh, *OLD)
    assert same_content(load(fresh), CONTENT)


@pytest.mark.parametrize("name", ["c", "c.previous", "c.writing"])
def test_nothing_of_the_users_beside_it_is_deleted(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="thesis.tex"):
        save(tmp_path / "c", *CONTENT, keep_previous=False)
    assert (tmp_path / name / "thesis.tex").read_text() == "years of work"


def test_a_directory_of_the_users_is_never_replaced(tmp_path):
    """Saving into a folder with other things in it would move them away, or delete them."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years")
    (tmp_path / "file").write_text("years")
    for target in (home, tmp_path / "file"):
        with pytest.raises(FileExistsError, match="give a new directory"):
            save(target, *CONTENT, keep_previous=False)
    assert (home / "thesis.tex").read_text() == (tmp_path / "file").read_text() == "years"
    (tmp_path / "empty").mkdir()
    save(tmp_path / "empty", *CONTENT)
    assert same_content(load(tmp_path / "empty"), CONTENT)


def test_a_damaged_one_does_not_push_out_the_good_one_before_it(fresh):
    save(fresh, {"a": torch.ones(2)}, {"step": 2})
    (fresh / "state.safetensors").write_bytes(b"damaged")
    with pytest.warns(CheckpointWarning):
        before = load(fresh)
    save(fresh, {"a": torch.zeros(2)}, {"step": 3})
    assert load(fresh)[1] == {"step": 3}
    assert load(previous_of(fresh))[1] == before[1]

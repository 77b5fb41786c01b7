"""Checkpoints: bit for bit there and back, whole or not at all, and never code."""

import errno
import hashlib
import json
import math
import pickle
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyro_ssl import zoo
from pyro_ssl.training import checkpoints
from pyro_ssl.training.checkpoints import (
    CheckpointWarning,
    load,
    pack,
    previous_of,
    save,
    unpack,
)
from pyro_ssl.utils import files
from pyro_ssl.utils.files import CheckpointError
from pyro_ssl.zoo.saved_model import SavedModel

FILES = ("state.json", "state.safetensors")
DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.complex64,
)
# every example overwrites the one before it, as a run's checkpoints do
many = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@st.composite
def tensors(draw):
    dtype, shape = draw(st.sampled_from(DTYPES)), draw(st.lists(st.integers(0, 3), max_size=3))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    x = (torch.randn(shape, generator=g, dtype=torch.float64) * 100).to(dtype)
    return x.T if x.dim() == 2 else x.expand(2, *shape) if draw(st.booleans()) else x


numbers = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 1e-308, 5e-324, 0.1])
plain = st.none() | st.booleans() | st.integers() | numbers | st.text(max_size=5)
keys = (
    st.text(max_size=3)
    | st.integers(-2, 12)
    | st.sampled_from(["a", "a/b", "b", "0", "tensor", "items", "plain"])
)
states = st.recursive(
    plain | tensors(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=12,
)


def same(a, b) -> bool:
    """Equal in type, value and bits; NaN equals NaN."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and bytes_of(a) == bytes_of(b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return math.isnan(a) and math.isnan(b) or struct.pack("d", a) == struct.pack("d", b)
    return a == b


def bytes_of(x: torch.Tensor) -> bytes:
    return bytes(x.contiguous().flatten().view(torch.uint8).tolist()) if x.numel() else b""


@many
@given(states)
def test_any_state_comes_back_bit_for_bit(tmp_path, state):
    found: dict[str, torch.Tensor] = {}
    packed = pack("run", state, found)
    save(tmp_path / "c", found, {"state": packed})
    tensors, data = load(tmp_path / "c")
    assert same(unpack(data["state"], tensors), state)


def test_keys_that_look_alike_keep_their_tensors(tmp_path):
    one, two, three = torch.arange(3.0)
    state = {"a/b": one, "a": {"b": two}, 1: two, "1": three}
    found: dict[str, torch.Tensor] = {}
    packed = pack("run", state, found)
    assert same(unpack(json.loads(json.dumps(packed)), found), state)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": [1, {"b": object()}]}, "run/a/1/b holds a object"),
        ({"f": len}, "run/f holds a builtin_function_or_method"),
        ({"s": {1, 2}}, "run/s holds a set"),
        ({(1, 2): 3}, "run holds a tuple"),
        ({"b": b"bytes"}, "run/b holds a bytes"),
    ],
)
def test_what_would_need_pickling_is_refused_by_its_path(state, message):
    with pytest.raises(TypeError, match=message):
        pack("run", state, {})


def test_a_checkpoint_of_training_goes_round(tmp_path):
    """An optimiser's and a schedule's state, as torch gives them."""
    p = torch.nn.Parameter(torch.randn(3))
    optimizer = torch.optim.AdamW([p], lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9)
    p.sum().backward()
    optimizer.step()
    schedule.step()
    found: dict[str, torch.Tensor] = {}
    state = [optimizer.state_dict(), schedule.state_dict()]
    packed = pack("run", state, found)
    save(tmp_path / "c", found, {"run": packed})
    tensors, data = load(tmp_path / "c")
    assert same(unpack(data["run"], tensors), state)


# --- damage ---------------------------------------------------------------------------------------

CONTENT = {"w": torch.arange(6.0).reshape(2, 3)}, {"step": 7, "name": "é\n", "x": [0.1, math.inf]}
OLD = {"w": torch.zeros(1)}, {"step": 6}


def same_content(a, b) -> bool:
    return same(list(a), list(b))


@pytest.fixture
def fresh(tmp_path) -> Path:
    save(tmp_path / "c", *CONTENT)
    return tmp_path / "c"


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


# --- interruptions --------------------------------------------------------------------------------


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


# --- trained models -------------------------------------------------------------------------------


def trained(**options) -> SavedModel:
    options = {"hidden": [5], "z_dim": 2, "batch_norm": True} | options
    return SavedModel(
        "m2",
        (4,),
        ["a", "b", "c"],
        options,
        zoo.build("m2", 4, 3, seed=3, **options),
        {"note": [1.5]},
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options", [{}, {"likelihood": "gaussian"}, {"likelihood": "gaussian", "sigma": 0.3}]
)
def test_a_model_goes_round(dtype, options, tmp_path):
    one = trained(**options)
    one.objective.to(dtype)
    torch.manual_seed(4)
    one.save(tmp_path / "m")
    state = torch.get_rng_state()
    two = SavedModel.load(tmp_path / "m")
    assert torch.equal(torch.get_rng_state(), state)
    assert (two.method, two.x_shape, two.classes, two.options, two.extra) == (
        "m2",
        (4,),
        ["a", "b", "c"],
        one.options,
        one.extra,
    )
    assert same(dict(two.objective.state_dict()), dict(one.objective.state_dict()))
    assert not two.objective.training
    x = torch.rand(5, 4, dtype=dtype)
    assert torch.equal(two.objective.classify(x).probs, one.objective.eval().classify(x).probs)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def forge(directory: Path, change) -> None:
    """The model's file with other content and a right checksum, as from another version."""
    tensors, data = load(directory)
    change(tensors, data)
    save(directory, tensors, data, keep_previous=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, d: d.update(kind="checkpoint"), "holds no trained model"),
        (lambda t, d: d.pop("kind"), "holds no trained model"),
        (lambda t, d: d.update(method="m3"), "method should be one of"),
        (lambda t, d: d["options"].update(depth=3), "m2 has no option depth"),
        (lambda t, d: d["options"].update(network="transformer"), "does not fit.*transformer"),
        (lambda t, d: d["options"].update(activation="unheard"), "does not fit.*unheard"),
        (lambda t, d: d["options"].update(hidden=[6]), "size mismatch"),
        (lambda t, d: d.update(classes=["a", "b"]), "does not fit"),
        (lambda t, d: d.update(dtype="float17"), "does not fit.*float17"),
        (lambda t, d: d.update(dtype="save"), "does not fit"),
        (lambda t, d: d.pop("options"), "does not fit.*options"),
        (lambda t, d: t.pop("model.p_z.loc"), "Missing key"),
        (lambda t, d: t.update(more=torch.zeros(1)), "Unexpected key"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(change, message, tmp_path):
    trained().save(tmp_path / "m")
    forge(tmp_path / "m", change)
    with pytest.raises(CheckpointError, match=rf"(?s){message}"):
        SavedModel.load(tmp_path / "m")


def test_a_missing_model_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        SavedModel.load(tmp_path / "m")


def test_a_damaged_one_does_not_push_out_the_good_one_before_it(fresh):
    save(fresh, {"a": torch.ones(2)}, {"step": 2})
    (fresh / "state.safetensors").write_bytes(b"damaged")
    with pytest.warns(CheckpointWarning):
        before = load(fresh)
    save(fresh, {"a": torch.zeros(2)}, {"step": 3})
    assert load(fresh)[1] == {"step": 3}
    assert load(previous_of(fresh))[1] == before[1]

"""Label draws: which rows keep their labels, their files, and bad arguments."""

import json

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pyro_ssl.data.label_draws import LabelDraw, draw_labels
from pyro_ssl.utils.files import CheckpointError

quick = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def classes(draw, least: int = 1):
    """Codes in any order, each of K classes at least `least` times, some rows without a class."""
    sizes = draw(st.lists(st.integers(least, 30), min_size=1, max_size=6))
    y = np.repeat([*range(len(sizes)), -1], [*sizes, draw(st.integers(0, 5))])
    return np.random.default_rng(draw(st.integers(0, 99))).permutation(y)


def counted(y: np.ndarray, drawn: LabelDraw) -> np.ndarray:
    """Labels in each class, after what holds of every draw."""
    assert list(drawn.indices) == sorted(set(drawn.indices))
    assert drawn.n == len(y)
    assert (y[list(drawn.indices)] >= 0).all()
    return np.bincount(y[list(drawn.indices)], minlength=y.max() + 1)


@quick
@given(y=classes(least=5), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_balanced_total(y, share, seed):
    k = y.max() + 1
    n = int(share * 5 * k)
    counts = counted(y, draw_labels(y, n, seed=seed))
    assert counts.sum() == n
    assert counts.max() - counts.min() <= 1


@quick
@given(y=classes(), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_stratified_total(y, share, seed):
    sizes = np.bincount(y[y >= 0])
    n = int(share * sizes.sum())
    counts = counted(y, draw_labels(y, n, how="stratified", seed=seed))
    assert counts.sum() == n
    more = counts - n * sizes / sizes.sum()
    assert (abs(more) < 1 + 1e-6).all()
    assert more.max() - more.min() < 1 + 2e-3  # the largest remainders are rounded up


@quick
@given(y=classes(), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_random_total(y, share, seed):
    n = int(share * (y >= 0).sum())
    assert counted(y, draw_labels(y, n, how="random", seed=seed)).sum() == n


@quick
@given(y=classes(least=3), per_class=st.integers(0, 3), seed=st.integers(0, 9), choice=st.data())
def test_per_class_and_counts(y, per_class, seed, choice):
    assert (counted(y, draw_labels(y, per_class=per_class, seed=seed)) == per_class).all()
    wanted = choice.draw(st.dictionaries(st.integers(0, int(y.max())), st.integers(0, 3)))
    counts = counted(y, draw_labels(y, counts=wanted, seed=seed))
    assert counts.tolist() == [wanted.get(c, 0) for c in range(y.max() + 1)]


@quick
@given(y=classes(), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_balanced_total_is_refused_only_where_there_is_none(y, share, seed):
    sizes = np.bincount(y[y >= 0])
    n = int(share * sizes.sum())
    each, rest = divmod(n, len(sizes))
    if sizes.min() >= each and (sizes > each).sum() >= rest:
        assert counted(y, draw_labels(y, n, seed=seed)).sum() == n
    else:
        with pytest.raises(ValueError, match=r"class \d has \d+ rows, cannot label \d+"):
            draw_labels(y, n, seed=seed)


def test_a_draw_depends_on_its_seed_alone():
    y = torch.arange(100) % 4
    np.random.seed(1)
    before = np.random.get_state()[1].tolist()
    draws = [draw_labels(y, 20, seed=seed) for seed in range(5)]
    assert np.random.get_state()[1].tolist() == before
    np.random.seed(2)
    assert draws == [draw_labels(y.numpy(), 20, seed=seed) for seed in range(5)]
    assert len({d.indices for d in draws}) == 5
    assert len({d.name for d in draws}) == 5


Y = np.array([0, 0, 0, 1, 2, 2, -1])


BAD_DRAWS = {
    "nothing": ({}, "exactly one of labels, per_class and counts"),
    "two": ({"labels": 2, "per_class": 1}, "exactly one of"),
    "below 0": ({"labels": -1}, r"labels should be in 0 \.\. 6"),
    "too many": ({"labels": 7}, r"labels should be in 0 \.\. 6, the rows with a class, got 7"),
    "too many of one": ({"labels": 6}, "class 1 has 1 rows, cannot label 2"),
    "per class": ({"per_class": 2}, "class 1 has 1 rows, cannot label 2"),
    "per class below 0": ({"per_class": -2}, "cannot label -2"),
    "counts": ({"counts": {0: 1, 2: 3}}, "class 2 has 2 rows, cannot label 3"),
    "half a label": ({"counts": {0: 1.5}}, "counts should be whole numbers, got 1.5"),
    "unknown class": ({"counts": {0: 1, 5: 1}}, "there is no class 5 in y"),
    "how": ({"labels": 2, "how": "any"}, "how should be balanced, stratified or random, got 'any'"),
    "seed": ({"labels": 2, "seed": -1}, "seed should be a whole number in 0"),
    "one-hot": ({"y": np.eye(3, dtype=int), "labels": 2}, r"y should have shape \(N,\)"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_DRAWS.values(), ids=BAD_DRAWS)
def test_bad_draws_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_labels(**{"y": Y} | arguments)


@quick
@given(y=classes(least=2), seed=st.integers(0, 9))
def test_draw_goes_round_and_hides_the_rest(tmp_path_factory, y, seed):
    drawn = draw_labels(y, per_class=2, seed=seed)
    path = tmp_path_factory.mktemp("draw") / "labels.json"
    drawn.save(path)
    assert LabelDraw.load(path) == drawn
    indices = drawn.masked_labels(torch.as_tensor(y))
    assert torch.nonzero(indices >= 0).flatten().tolist() == list(drawn.indices)
    assert (indices[list(drawn.indices)].numpy() == y[list(drawn.indices)]).all()
    with pytest.raises(
        ValueError, match=f"the {len(y)} rows that the labels were drawn from, got {len(y) + 1}"
    ):
        drawn.masked_labels(torch.zeros(len(y) + 1))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        '{"format": "pyro-ssl labels", "n": 3, "name": "a", "indices": [3]}',
        '{"n": 3, "ind',
        '{"format": "pyro-ssl labels", "n": 3, "name": "a", "indices": [-1]}',
        '{"format": "x", "n": 3, "indices": []}',
    ],
)
def test_a_file_that_is_no_draw_is_refused(tmp_path, text):
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r"labels\.json is (not a label draw|damaged)"):
        LabelDraw.load(path)
    with pytest.raises(FileNotFoundError):
        LabelDraw.load(tmp_path / "none.json")


def test_a_changed_byte_of_a_draw_is_found(tmp_path):
    """Each byte in turn, by one bit and by its highest one: the draw is as it was, or refused."""
    path, draw = tmp_path / "labels.json", LabelDraw((1, 5, 20, 31), 40, "four")
    draw.save(path)
    whole, refused = path.read_bytes(), 0
    for place in range(len(whole)):
        for bit in (1, 128):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            try:
                assert LabelDraw.load(path) == draw
            except CheckpointError as error:
                refused += 1
                assert "labels.json is" in str(error)
    assert refused > 1.9 * (len(whole) - len("checksum"))


def test_a_draw_of_an_earlier_version_is_read(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text('{"format": "pyro-ssl labels", "name": "a", "n": 3, "indices": [0, 2]}')
    assert LabelDraw.load(path) == LabelDraw((0, 2), 3, "a")


BAD_INDICES = {
    "twice": ([1, 1, 1], "row 1 is given twice"),
    "not whole": ([1.7], "indices should be whole numbers, got 1.7"),
    "truth value": ([True], "indices should be whole numbers, got True"),
    "beyond": ([0, 3], r"indices should be in 0 \.\. 2, got 3"),
    "below 0": ([-1], r"indices should be in 0 \.\. 2, got -1"),
    "text": (["0"], "indices should be whole numbers, got '0'"),
}


@pytest.mark.parametrize(("indices", "message"), BAD_INDICES.values(), ids=BAD_INDICES)
def test_rows_that_cannot_be_drawn_are_refused(tmp_path, indices, message):
    with pytest.raises(ValueError, match=message):
        LabelDraw(tuple(indices), 3)
    path = tmp_path / "labels.json"
    path.write_text(
        json.dumps({"format": "pyro-ssl labels", "name": "a", "n": 3, "indices": indices})
    )
    with pytest.raises(CheckpointError, match=f"is not a label draw.*{message}"):
        LabelDraw.load(path)


def test_a_draw_is_of_plain_numbers():
    assert LabelDraw(np.array([2, 0]), np.int64(3)) == LabelDraw((0, 2), 3)
    with pytest.raises(ValueError, match="n should be a whole number, 0 or above, got 2.5"):
        LabelDraw((), 2.5)


@pytest.mark.parametrize(
    "kind", [np.asarray, torch.as_tensor, list, lambda y: np.asarray(y, np.uint8)]
)
def test_codes_of_any_array(kind):
    indices = LabelDraw((0, 2), 3).masked_labels(kind([1, 2, 0]))
    assert indices.dtype == torch.int64 and indices.tolist() == [1, -1, 0]


def test_masked_labels_are_not_drawn():
    y = np.ma.array([0, 1] * 10, mask=[False] * 4 + [True] * 16)
    assert draw_labels(y, per_class=2).indices == (0, 1, 2, 3)
    assert LabelDraw((0, 7), 20).masked_labels(y).tolist() == [0] + [-1] * 19
    with pytest.raises(ValueError, match=r"labels should be in 0 \.\. 4"):
        draw_labels(y, 10)


BAD_LABELS = {
    "strings": (
        np.array(["a", "b"]),
        "y should hold class indices, .* got dtype <U1; pyro_ssl.data.encode",
    ),
    "fractions": (np.array([0.5, 1.0]), "y should hold class indices, .* got dtype float64"),
    "sparse": (
        scipy.sparse.csr_matrix([[0, 1]]),
        "y should be a dense array, got a sparse csr_matrix",
    ),
}


@pytest.mark.parametrize(("y", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_labels_that_are_no_codes_are_refused(y, message):
    with pytest.raises(TypeError, match=message):
        draw_labels(y, 1)
    with pytest.raises(TypeError, match=message):
        LabelDraw((0,), 2).masked_labels(y)


BAD_ROWS = {
    "continuous": ([(torch.ones(2), 0.2), (torch.ones(2), 1.7)], ValueError, "continuous values"),
    "strings and numbers": (
        [(torch.ones(2), "0"), (torch.ones(2), 1)],
        ValueError,
        "strings or numbers; got both",
    ),
    "pictures": (
        [(Image.new("L", (2, 2)), k) for k in (0, 1)],
        TypeError,
        "train: x should be .* got PIL images",
    ),
    "shapes": (
        [(torch.ones(2), 0), (torch.ones(3), 1)],
        ValueError,
        "train should return x of one shape",
    ),
    "no pairs": ([torch.ones(3)], TypeError, r"train should return pairs \(x, y\)"),
    "no length": (iter([]), TypeError, "train should be a torch Dataset .* with a length"),
}

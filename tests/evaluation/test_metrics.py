"""Metrics against torchmetrics, scikit-learn and by hand, at their edges too."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from pyro_ssl.evaluation import calibration, metrics

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-10}


@st.composite
def problems(draw, dtypes=(torch.float32, torch.float64)):
    """Probabilities `(N, K)` from hard to flat and classes `(N,)`, right more or less often."""
    n, k, dtype = draw(st.integers(1, 60)), draw(st.integers(2, 12)), draw(st.sampled_from(dtypes))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    logits = torch.randn(n, k, generator=g, dtype=torch.float64) * draw(
        st.sampled_from([0.1, 1.0, 5.0])
    )
    guess = torch.randint(k, (n,), generator=g)
    right = torch.rand(n, generator=g) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    return logits.softmax(-1).to(dtype), torch.where(right, logits.argmax(-1), guess)


ECE = ("ece", "ece_20", "ece_adaptive")

hundreds = settings(max_examples=300, deadline=None, derandomize=True, database=None)


@hundreds
@given(problems())
def test_scikit_learn_agrees(problem):
    probs, y = problem
    tolerance = TOLERANCE[probs.dtype]
    assert metrics.accuracy(probs, y) == pytest.approx(
        accuracy_score(y, probs.argmax(-1)), abs=1e-12
    )
    p = (probs.double() / probs.double().sum(-1, keepdim=True)).clamp_min(1e-12)  # as ours are
    expected = -log_loss(y, p.numpy(), labels=range(probs.shape[1]))
    assert metrics.log_likelihood(probs, y) == pytest.approx(expected, rel=tolerance, abs=tolerance)
    by_hand = sum(
        (p - (j == c)) ** 2
        for row, c in zip(probs.tolist(), y.tolist(), strict=True)
        for j, p in enumerate(row)
    )
    assert metrics.brier(probs, y) == pytest.approx(by_hand / len(y), abs=1e-12)


def inside(probs, bins: int) -> torch.Tensor:
    """Which data are off every bin's edge, where the two conventions differ."""
    scaled = probs.max(-1).values.double() * bins
    return (scaled - scaled.round()).abs() > 1e-4


@hundreds
@given(problems(), st.sampled_from([15, 20]))
def test_torchmetrics_agrees(problem, bins):
    probs, y = problem
    keep = inside(probs, bins)
    if keep.any():
        probs, y = probs[keep], y[keep]
        theirs = multiclass_calibration_error(
            probs.float(), y, probs.shape[1], n_bins=bins, norm="l1"
        )
        assert metrics.ece(probs, y, bins) == pytest.approx(theirs.item(), abs=2e-6)


def by_hand(probs, y, bins: int) -> float:
    """The sum over bins of the paper, with (b / bins, (b + 1) / bins]."""
    gaps = [0.0] * bins
    for row, c in zip(probs.tolist(), y.tolist(), strict=True):
        confidence = max(row)
        b = next(
            b
            for b in range(bins)
            if confidence <= torch.tensor((b + 1) / bins, dtype=probs.dtype).item()
        )
        gaps[b] += (row.index(confidence) == c) - confidence
    return sum(map(abs, gaps)) / len(y)


@hundreds
@given(problems(), st.sampled_from([1, 4, 15]), st.booleans())
def test_ece_is_the_papers_sum(problem, bins, on_edges):
    probs, y = problem
    if on_edges:  # confidences that are whole numbers of bins
        top_k = (probs.max(-1, keepdim=True).values * bins).ceil() / bins
        index = probs.argmax(-1, keepdim=True)
        others = probs.scatter(-1, index, 0)
        others = (1 - top_k) * others / others.sum(-1, keepdim=True).clamp_min(1e-30)
        probs = others.scatter(-1, index, top_k)
    assert metrics.ece(probs, y, bins) == pytest.approx(by_hand(probs, y, bins), abs=1e-9)


@pytest.mark.parametrize(
    ("probs", "y", "bins", "expected"),
    [
        ([[1.0, 0.0]] * 4, [0, 0, 0, 1], 15, 0.25),  # confidence exactly 1 is in the last bin
        (
            [[1.0, 0.0], [0.95, 0.05]],
            [1, 0],
            10,
            abs(-1.0 + 0.05) / 2,
        ),  # the same bin: gaps of both signs cancel
        (
            [[0.75, 0.25], [0.875, 0.125]],
            [0, 1],
            4,
            (0.25 + 0.875) / 2,
        ),  # 0.75 belongs to the bin below
        ([[0.7, 0.3]], [0], 15, 0.3),
        ([[0.5, 0.5]], [1], 2, 0.5),  # of equals, the first is the prediction
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ece_at_the_edges(probs, y, bins, expected, dtype):
    assert metrics.ece(torch.tensor(probs, dtype=dtype), torch.tensor(y), bins) == pytest.approx(
        expected, abs=1e-6
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_class_without_probability_is_finite(dtype):
    found = metrics.evaluate(torch.eye(3, dtype=dtype)[:2], torch.tensor([0, 2]))
    assert found == pytest.approx(
        {"accuracy": 0.5, "log_likelihood": math.log(1e-12) / 2, "brier": 1.0}
        | dict.fromkeys(ECE, 0.5)
    )


def test_one_datum():
    found = metrics.evaluate(torch.tensor([[0.2, 0.8]]).double(), torch.tensor([1]))
    assert found == pytest.approx(
        {"accuracy": 1.0, "log_likelihood": math.log(0.8), "brier": 0.08} | dict.fromkeys(ECE, 0.2)
    )


@pytest.mark.parametrize(
    ("probs", "y"),
    [((3,), (3,)), ((3, 2), (2,)), ((3, 2), (3, 1)), ((0, 2), (0,)), ((2, 3, 2), (2,))],
)
def test_shapes_that_do_not_match_are_refused(probs, y):
    with pytest.raises(ValueError, match=r"probs should have shape \(N, K\)"):
        metrics.evaluate(torch.full(probs, 0.5), torch.zeros(y, dtype=torch.long))


@hundreds
@given(problems(), st.sampled_from([1, 4, 15]))
def test_adaptive_bins_hold_equally_many(problem, bins):
    """Ties, which any order may break, are broken by the order of the data."""
    probs, y = problem
    rows = sorted(
        zip(probs.double().max(-1).values.tolist(), (probs.argmax(-1) == y).tolist(), strict=True),
        key=lambda row: row[0],
    )
    chunks = [
        [row for i, row in enumerate(rows) if i * bins // len(rows) == b] for b in range(bins)
    ]
    assert max(map(len, chunks)) - min(map(len, chunks)) <= 1
    expected = sum(
        abs(sum(right - confidence for confidence, right in chunk)) for chunk in chunks
    ) / len(rows)
    assert metrics.ece(probs, y, bins, adaptive=True) == pytest.approx(expected, abs=1e-9)


P = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.4, 0.35, 0.25], [0.05, 0.9, 0.05]])
CLASSES = torch.tensor([0, 2, 1, 1])
OF_PROBS = {
    "accuracy": metrics.accuracy,
    "log_likelihood": metrics.log_likelihood,
    "brier": metrics.brier,
    "ece": metrics.ece,
    "evaluate": metrics.evaluate,
    "reliability": calibration.reliability,
    "calibration_test": lambda p, y: calibration.calibration_test(p, y, draws=20),
    "temperature": lambda p, y: calibration.temperature(2 * np.asarray(p), y),  # of any numbers
}


def same(a, b):
    if isinstance(a, dict | float):
        return a == b
    return all(torch.allclose(x, z, equal_nan=True) for x, z in zip(a, b, strict=True))


@pytest.mark.parametrize("name", OF_PROBS)
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int16, np.uint8, np.int8])
def test_arrays_of_any_whole_type_are_as_good_as_tensors(name, dtype):
    """The estimator's `predict_proba` gives numpy, and labels are often of 8 or 32 bits."""
    function = OF_PROBS[name]
    expected = function(P, CLASSES)
    assert same(function(P.numpy(), CLASSES.numpy().astype(dtype)), expected)
    assert same(function(P, torch.as_tensor(CLASSES.numpy().astype(dtype))), expected)
    assert same(
        function(P.numpy()[::-1], CLASSES.numpy()[::-1].astype(">i4")),
        function(P.flip(0), CLASSES.flip(0)),
    )
    assert same(function(P.tolist(), CLASSES.tolist()), function(P.double().numpy(), CLASSES))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rounded_probabilities_are_taken(dtype):
    logits = torch.randn(500, 100, generator=torch.Generator().manual_seed(0))
    p = logits.softmax(-1)
    y = torch.arange(500) % 100
    assert metrics.brier(p.to(dtype), y) == pytest.approx(metrics.brier(p, y), abs=0.01)
    assert metrics.brier(torch.tensor([[0.3333, 0.3333, 0.3333]]), [0]) == pytest.approx(
        0.6667, abs=1e-3
    )


BAD = {
    "logits": (
        P.log() + 2,
        CLASSES,
        "probs should be probabilities, got numbers from -0.99.* to 1.89",
    ),
    "log-probabilities": (P.log(), CLASSES, "apply a softmax to logits or log-probabilities"),
    "negative": (P - 0.2, CLASSES, "probs should be probabilities, got numbers from -0.15"),
    "not normalised": (
        P / 2,
        CLASSES,
        r"probs should sum to 1 over the classes, got a row of sum 0\.5; divide it",
    ),
    "one column": (
        P[:, :1],
        0 * CLASSES,
        r"probs should have shape \(N, K\) with two classes or more, got \(4, 1\); for two",
    ),
    "masked": (
        np.ma.masked_array(P.numpy(), P.numpy() < 0.2),
        CLASSES,
        "probs has .* masked entries",
    ),
    "no column": (P[:, 0], CLASSES, r"probs should have shape \(N, K\).*got \(4,\)"),
    "three dimensions": (P[None], CLASSES, r"probs should have shape \(N, K\).*got \(1, 4, 3\)"),
    "NaN": (
        P.index_fill(0, torch.tensor([2]), math.nan),
        CLASSES,
        "probs holds NaN or infinity, first in row 2",
    ),
    "words": (
        np.full((4, 3), "a"),
        CLASSES,
        "probs should hold numbers, got an array of dtype <U1",
    ),
    "another length": (
        P,
        CLASSES[:3],
        r"y \(N,\), one class for each row; got \(4, 3\) and \(3,\)",
    ),
    "one-hot labels": (P, P.round(), r"got \(4, 3\) and \(4, 3\)"),
    "without a label": (
        P,
        CLASSES - 1,
        "y should be in 0 .. 2, got -1; leave out the rows without a label",
    ),
    "no class": (P, CLASSES + 1, "y should be in 0 .. 2, got 3; probs has 3 columns"),
    "real labels": (P, CLASSES.float(), "y should hold class indices"),
    "names": (P, np.array(list("abcd")), "y should hold class indices"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("name", [name for name in OF_PROBS if name != "temperature"])
def test_what_are_no_probabilities_is_refused(name, case):
    probs, y, message = BAD[case]
    with pytest.raises((ValueError, TypeError), match=message):
        OF_PROBS[name](probs, y)


@pytest.mark.parametrize(
    "case",
    [c for c in BAD if c not in ("logits", "log-probabilities", "negative", "not normalised")],
)
def test_what_are_no_logits_is_refused(case):
    logits, y, message = BAD[case]
    with pytest.raises((ValueError, TypeError), match=message.replace("probs", "logits")):
        calibration.temperature(logits, y)
    with pytest.raises(ValueError, match="logits holds NaN or infinity, first in row 1"):
        calibration.temperature(torch.tensor([[1.0, 2.0], [math.inf, 0.0]]), [0, 1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_temperature_refuses_probabilities(dtype):
    probs = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)).softmax(-1).to(dtype)
    y = torch.arange(50) % 4
    with pytest.raises(
        ValueError, match=r"got probabilities: each row sums to 1; give their logarithm"
    ):
        calibration.temperature(probs, y)
    assert calibration.temperature(probs.log(), y) > 0


@pytest.mark.parametrize("seed", [-1, 1.5, 2**70])
def test_calibration_test_refuses_what_is_no_seed(seed):
    with pytest.raises(ValueError, match="seed should be a whole number in 0"):
        calibration.calibration_test(P, CLASSES, seed=seed)

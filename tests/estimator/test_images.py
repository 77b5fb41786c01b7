"""Images: any shape, taken as they are, refused in another shape."""

import numpy as np
import pytest
from programs.estimators import PIXELS, tiny

from pyro_ssl import SemiSupervisedClassifier


@pytest.mark.parametrize("shape", [(40, 1), (40, 1, 2, 2)])
def test_one_feature_and_images(blobs, shape):
    _, blob = blobs
    rows = (blob + 0.01 * np.arange(40)).reshape(-1, *[1] * (len(shape) - 1)) / 2
    x = np.broadcast_to(rows, shape)
    assert tiny().fit(x, blob).predict_proba(x).shape == (40, 2)


def test_images_are_taken_as_they_are(blobs):
    x, y = np.random.default_rng(0).uniform(size=(40, 1, 4, 4)), blobs[1]
    fitted = lambda x, **arguments: SemiSupervisedClassifier(  # noqa: E731
        options={"hidden": (4,)}, epochs=1, min_steps=1, **arguments
    ).fit(x, y)
    model = fitted(x)
    assert model.mean_.max() == 0 and model.std_.min() == model.std_.max() == 1
    assert "sigma" not in model.options_ and "noise" not in model.options_
    np.testing.assert_allclose(fitted(x, scale=True).mean_, x.mean(0))
    with pytest.raises(
        ValueError,
        match=r"X, as images, should be in \[0, 1\], got 0.\d+ to 25\d; divide 0 .. 255 by 255",
    ):
        fitted(255 * x)
    assert fitted(255 * x, scale=True).predict_proba(255 * x).shape == (40, 2)
    with pytest.raises(ValueError, match="divide 0 .. 255 by 255"):
        model.predict_proba(255 * x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda x: x.reshape(40, -1),
            r"X should have shape \(N, 1, 6, 6\), .*\(40, 36\).*X.reshape\(-1, 1, 6, 6\)",
        ),
        (lambda x: x[:, 0], r"X should have shape \(N, 1, 6, 6\), .*\(40, 6, 6\); add the channel"),
        (
            lambda x: x.transpose(0, 2, 3, 1),
            r"X should have shape \(N, 1, 6, 6\), .*; move the channels to the front",
        ),
        (
            lambda x: x[0],
            r"X should have shape \(N, 1, 6, 6\), .*; for a single row give X\[None\]",
        ),
    ],
)
def test_images_of_another_shape_are_refused(make, message):
    model = tiny(min_steps=1, method="classifier", options={"hidden": (8,)}).fit(
        PIXELS, np.arange(40) % 2
    )
    for call in (model.predict, model.predict_proba):
        with pytest.raises(ValueError, match=message):
            call(make(PIXELS))


def test_images_for_a_model_of_columns_are_refused(fitted):
    model, _ = fitted
    with pytest.raises(
        ValueError, match=r"X should have shape \(N, 3\), rows of shape \(3,\), got \(40, 1, 6, 6\)"
    ):
        model.predict(PIXELS)

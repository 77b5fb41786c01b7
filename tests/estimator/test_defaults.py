"""Defaults of each method for columns."""

import warnings

import numpy as np
import pytest
from programs.estimators import PIXELS

from pyro_ssl import SemiSupervisedClassifier, zoo
from pyro_ssl.estimator import column_defaults
from pyro_ssl.zoo import presets


def far_blobs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two blobs, four deviations apart in eight columns; their classes; 20 labels of 400 rows."""
    y = np.arange(400) % 2
    x = np.random.default_rng(1).normal(size=(400, 8))
    x[:, 0] += 4 * y
    return x, y, np.where(np.arange(400) < 20, y, -1)


@pytest.fixture(scope="module")
def by_labels_alone() -> float:
    """Accuracy of the classifier by the labels alone; it is no better with its default epochs."""
    return accuracy("classifier", 150, 1e-2)


def accuracy(method: str, steps: int, lr: float) -> float:
    """Accuracy of a method with its defaults, after a short training."""
    x, y, labels = far_blobs()
    model = SemiSupervisedClassifier(method, epochs=1, min_steps=steps, lr=lr, random_state=0)
    return model.fit(x, labels).score(x, y)


STEPS = {
    "m2": (30, 2e-2),
    "m1_m2": (250, 3e-3),
    "m2_adversarial": (75, 6e-3),
    "adgm": (50, 2e-2),
    "sdgm": (250, 3e-3),
    "lvae": (60, 1e-2),
    "sslpe": (30, 2e-2),
    "sslapd": (30, 2e-2),
    "latent_classifier": (30, 2e-2),
    "latent_classifier_exact": (75, 6e-3),
    "latent_classifier_simplified": (75, 3e-3),
    "latent_classifier_split": (75, 6e-3),
    "ce": (75, 2e-2),
    "gm": (30, 2e-2),
    "vc": (30, 2e-2),
}
"""Steps and learning rate by method: the fewest steps that leave a margin of two points."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [name for name, row in zoo.METHODS.items() if row.unlabeled and row.columns]
)
def test_every_methods_defaults_beat_the_labels_alone(by_labels_alone, method):
    steps, lr = STEPS.get(method, (60, 1e-2))
    assert accuracy(method, steps, lr) > max(by_labels_alone, 0.85)


def test_a_method_that_is_not_for_columns_says_so():
    assert [name for name, row in zoo.METHODS.items() if not row.columns] == ["vae"]
    x, y, labels = far_blobs()
    with pytest.warns(UserWarning, match="method vae is not for columns"):
        SemiSupervisedClassifier("vae", epochs=1, min_steps=1, options={"hidden": (4,)}).fit(
            x, labels
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SemiSupervisedClassifier("vae", epochs=1, min_steps=1, options={"hidden": (4,)}).fit(
            PIXELS, np.arange(40) % 2
        )


def test_defaults_of_methods_are_their_options_and_give_way_to_the_callers():
    for method, defaults in presets.TABULAR_DEFAULTS_BY_METHOD.items():
        assert defaults.keys() <= zoo.options_of(method).keys()
        assert column_defaults(method, 4).items() >= defaults.items()
    assert column_defaults("classifier", 4).keys() == {"hidden", "activation", "noise", "dropout"}
    x, y, labels = far_blobs()
    given = {"sigma": 0.7, "m1_epochs": 1, "hidden": (4,), "m1_hidden": (4,), "z1_dim": 2}
    one = SemiSupervisedClassifier("m1_m2", epochs=1, min_steps=3, options=given).fit(x, labels)
    assert one.options_["sigma"] == 0.7 and one.options_["m1_epochs"] == 1
    enough = SemiSupervisedClassifier(
        "m1_m2", epochs=1, min_steps=90, options=given | {"z1_dim": 3}
    )
    del enough.options["m1_epochs"]
    assert enough.fit(x, labels).options_["m1_epochs"] == 45  # of two steps each

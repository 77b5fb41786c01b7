"""Estimators with a right checksum and wrong content predict as before, or are refused."""

import copy
import random

import pytest
from programs.forged import DATA_CHANGES, VALUES, X, Y, change_data, read, write

from pyro_ssl import (
    SemiSupervisedClassifier,
    SemiSupervisedRegressor,
)
from pyro_ssl.utils.files import CheckpointError


def test_a_forged_estimator_is_what_it_was_or_is_refused(tmp_path):
    one = SemiSupervisedClassifier(
        epochs=1, min_steps=2, random_state=0, options={"hidden": [4], "z_dim": 2}
    )
    one.fit(X.numpy(), Y.numpy()).save(tmp_path / "whole")
    expected = one.predict_proba(X.numpy())
    (tmp_path / "m").mkdir()
    for case in range(8 * len(DATA_CHANGES)):
        draw, (tensors, data) = random.Random(case), read(tmp_path / "whole")
        place = data["extra"] if draw.random() < 0.6 else data
        how = DATA_CHANGES[case % len(DATA_CHANGES)]
        said = change_data(place, how, copy.deepcopy(draw.choice(VALUES)), draw)
        write(tmp_path / "m", tensors, data)
        try:
            two = SemiSupervisedClassifier.load(tmp_path / "m")
        except CheckpointError as error:
            assert str(tmp_path) in str(error), said
            continue
        if not said.startswith(
            ("replace", "add")
        ):  # another number among the means is another estimator, and a whole one
            assert (two.predict_proba(X.numpy()) == expected).all(), said


@pytest.mark.parametrize(
    ("name", "value"),
    [("y_mean", -0.5), ("y_mean", [1.0, 2.0]), ("y_std", [0.0]), ("y_std", [1e999]), ("flat", 1)]
    + [("n_features_in", 3), ("n_features_in", {})],
)
def test_a_forged_regressor_is_refused(name, value, tmp_path):
    one = SemiSupervisedRegressor(epochs=1, min_steps=2, options={"hidden": [4], "z_dim": 2})
    one.fit(X.numpy(), X[:, 0].numpy()).save(tmp_path / "whole")
    tensors, data = read(tmp_path / "whole")
    data["extra"][name] = value
    (tmp_path / "m").mkdir()
    write(tmp_path / "m", tensors, data)
    SemiSupervisedRegressor.load(tmp_path / "whole")
    with pytest.raises(CheckpointError, match=name):
        SemiSupervisedRegressor.load(tmp_path / "m")

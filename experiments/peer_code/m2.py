"""M2 with the estimator's defaults."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyro_ssl import SemiSupervisedClassifier


def probabilities(
    x: np.ndarray, labels: np.ndarray, x_test: np.ndarray, seed: int = 0, **training: Any
) -> np.ndarray:
    model = SemiSupervisedClassifier("m2", random_state=seed, **training)
    return model.fit(x, labels).predict_proba(x_test)

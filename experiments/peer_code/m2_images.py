"""M2 on square images, with random affine maps and consistency."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyro_ssl import SemiSupervisedClassifier


def probabilities(
    x: np.ndarray, labels: np.ndarray, x_test: np.ndarray, seed: int = 0, **training: Any
) -> np.ndarray:
    side = int(x.shape[1] ** 0.5)
    images, test_images = (part.reshape(-1, 1, side, side) / x.max() for part in (x, x_test))
    options = {"z_dim": 8, "hidden": (128, 128), "warp": 0.25, "consistency": 1.0}
    model = SemiSupervisedClassifier("m2", options=options, random_state=seed, **training)
    return model.fit(images, labels).predict_proba(test_images)

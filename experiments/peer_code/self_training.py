"""Self-training of logistic regression."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier


def probabilities(
    x: np.ndarray, labels: np.ndarray, x_test: np.ndarray, seed: int = 0
) -> np.ndarray:
    classifier = SelfTrainingClassifier(LogisticRegression(max_iter=1000))
    model = make_pipeline(StandardScaler(), classifier)
    return model.fit(x, labels).predict_proba(x_test)

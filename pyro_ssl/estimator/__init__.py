"""Scikit-learn estimators: `fit(X, y)`, where -1 or NaN in y marks a row without a label."""

from pyro_ssl.estimator.classifier import SemiSupervisedClassifier
from pyro_ssl.estimator.defaults import column_defaults
from pyro_ssl.estimator.regressor import SemiSupervisedRegressor

__all__ = ["SemiSupervisedClassifier", "SemiSupervisedRegressor", "column_defaults"]

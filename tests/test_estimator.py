import warnings
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks
from pyro_ssl import SemiSupervisedClassifier
TINY = SemiSupervisedClassifier(epochs=2, min_steps=60, lr=0.03, options={"hidden": (8,), "z_dim": 2}, random_state=0)
@parametrize_with_checks([TINY])
def test_sklearn(estimator, check):
    check(estimator)

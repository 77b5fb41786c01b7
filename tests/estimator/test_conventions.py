"""Conventions of scikit-learn."""

from programs.estimators import tiny, tiny_regressor
from sklearn.utils.estimator_checks import parametrize_with_checks

EXPECTED_FAILURES = {
    "check_classifiers_classes": "it takes -1 for a class; here -1 means that a row has no label",
    "check_sample_weight_equivalence_on_dense_data": "it shuffles the repeated rows, and training "
    "draws batches by the place of a row; tests/estimator/test_sample_weight.py keeps the order",
}


@parametrize_with_checks(
    [tiny(min_steps=20, lr=0.06), tiny_regressor(min_steps=20, lr=0.06)],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES,
)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)

"""The numbers of the methods' defaults: `papers` and `ours` say where each comes from.

A preset is a group of options, or of arguments of `fit`, that several methods share. Options that a
preset does not name have the defaults of their class in `options`. Sizes of a single method, such
as `z_dim`, are ours unless its signature names a source.
"""

from pyro_ssl.zoo.presets.ours import (
    BOUND,
    CLASSIFIER,
    CLASSIFIER_OF_CODES,
    FEW_EPOCHS,
    FEW_LABELS,
    LABELS_ALONE,
    LIKELIHOOD,
    LOSS,
    LOW_DIMENSIONAL_DEFAULTS,
    M1_M2_PIXELS,
    M1_TRAINING,
    M2_LOSS,
    MANY_LABELS,
    NETWORKS,
    PIXELS,
    RANDOM_CLASSIFIER,
    TABULAR_DEFAULTS,
    TABULAR_DEFAULTS_BY_METHOD,
    UNIT_LIKELIHOOD,
    VARIATIONAL_LOSS,
)
from pyro_ssl.zoo.presets.papers import (
    DEEP_NETWORKS,
    LATENT,
    LATENT_CLASSIFIER_LOSS,
    PLAIN_CLASSIFIER,
    POINT_WEIGHTS,
    SIMPLIFIED_LOSS,
    VAE_NETWORKS,
)

__all__ = [
    "BOUND",
    "CLASSIFIER",
    "CLASSIFIER_OF_CODES",
    "DEEP_NETWORKS",
    "FEW_EPOCHS",
    "FEW_LABELS",
    "LABELS_ALONE",
    "LATENT",
    "LATENT_CLASSIFIER_LOSS",
    "LIKELIHOOD",
    "LOSS",
    "LOW_DIMENSIONAL_DEFAULTS",
    "M1_M2_PIXELS",
    "M1_TRAINING",
    "M2_LOSS",
    "MANY_LABELS",
    "NETWORKS",
    "PIXELS",
    "PLAIN_CLASSIFIER",
    "POINT_WEIGHTS",
    "RANDOM_CLASSIFIER",
    "SIMPLIFIED_LOSS",
    "TABULAR_DEFAULTS",
    "TABULAR_DEFAULTS_BY_METHOD",
    "UNIT_LIKELIHOOD",
    "VAE_NETWORKS",
    "VARIATIONAL_LOSS",
]

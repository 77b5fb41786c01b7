"""Numbers and where they come from: the methods' defaults, and the papers' settings.

`published_defaults` and `ours` hold groups of defaults, of options or of arguments of `fit`, that
several methods share. Options that a group does not name have the defaults of their class in
`options`. Sizes of a single method, such as `z_dim`, are ours unless its signature names a source.

`papers` holds the settings of each paper's methods, which `zoo.build(..., preset="paper-004")`
takes instead of the defaults.
"""

from pyro_ssl.zoo.presets.own_defaults import (
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
from pyro_ssl.zoo.presets.papers import ABSENT, ABSENT_IN_TRAINING, PRESETS
from pyro_ssl.zoo.presets.preset import Choice, Preset, with_epochs
from pyro_ssl.zoo.presets.published_defaults import (
    DEEP_NETWORKS,
    LATENT,
    LATENT_CLASSIFIER_LOSS,
    PLAIN_CLASSIFIER,
    POINT_WEIGHTS,
    SIMPLIFIED_LOSS,
    VAE_NETWORKS,
)

__all__ = [
    "ABSENT",
    "ABSENT_IN_TRAINING",
    "BOUND",
    "CLASSIFIER",
    "CLASSIFIER_OF_CODES",
    "Choice",
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
    "PRESETS",
    "Preset",
    "RANDOM_CLASSIFIER",
    "SIMPLIFIED_LOSS",
    "TABULAR_DEFAULTS",
    "TABULAR_DEFAULTS_BY_METHOD",
    "UNIT_LIKELIHOOD",
    "VAE_NETWORKS",
    "VARIATIONAL_LOSS",
    "with_epochs",
]

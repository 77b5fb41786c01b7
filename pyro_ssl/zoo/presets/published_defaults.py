"""Groups of defaults whose numbers are all a paper's.

The comment behind each number names the paper.
"""

from __future__ import annotations

from pyro_ssl.zoo.options import (
    ClassifierOptions,
    LatentOptions,
    LossOptions,
    NetworkOptions,
    RandomWeightOptions,
)

DEEP_NETWORKS = NetworkOptions(
    hidden=(500, 500),  # Maaloe et al. 2016
    activation="relu",  # Maaloe et al. 2016
)
"""Two hidden layers, for ADGM and SDGM."""

VAE_NETWORKS = NetworkOptions(
    hidden=(500,),  # code of Kingma et al. 2014
    activation="softplus",  # code of Kingma et al. 2014
)
"""The networks of M1."""

PLAIN_CLASSIFIER = ClassifierOptions(
    noise=0.0,  # papers 003 and 000
    dropout=0.0,  # papers 003 and 000
)
"""For the methods of papers 003 and 000; in our tests noise and dropout made them worse."""

LATENT_CLASSIFIER_LOSS = LossOptions(
    alpha=0.0,  # paper 003
    labeled_weight=0.5,  # lambda, from the grid of paper 003, Table 1
)
"""Paper 003's loss, which has no other term."""

SIMPLIFIED_LOSS = LossOptions(
    alpha=0.0,  # paper 003
    labeled_weight=1e-3,  # lambda, from the grid of paper 003, Table 1
)
"""Paper 003's loss for the simplified model, where a small lambda classifies best."""

LATENT = LatentOptions(
    flow=0,  # all papers
    prior="normal",  # all papers
)
"""A Gaussian posterior and N(0, I)."""

POINT_WEIGHTS = RandomWeightOptions()
"""Point estimates of all weights."""

"""Results of a row do not depend on its place, chunk or company."""

import pytest
import torch

from pyro_ssl import (
    GibbsPredictor,
    bounds,
    class_bounds,
    gibbs,
    log_evidence,
    one_hot,
    predict_proba,
    zoo,
)
from pyro_ssl.active.prediction_draws import label_draws
from pyro_ssl.evaluation.attacks import pgd
from pyro_ssl.evaluation.ood import scores
from pyro_ssl.prediction.generate import reconstruct

D, K, N = 4, 3, 50


def in_any_place(function, x, atol=1e-4):
    """Check that a row's result is the same in another order, chunk or company, and alone."""
    whole, place = function(x, chunk=len(x)), torch.arange(len(x))
    order = place.flip(0)
    for rows, chunk in ((place, 7), (order, 11), (place[::3], 5), (place[17:18], 5)):
        torch.testing.assert_close(
            function(x[rows], chunk=chunk), whole[rows], atol=atol, rtol=1e-4
        )


VARIANTS = {
    "random latent classifier": ("latent_classifier", {"bayesian": ("p_y",)}),
    "mixture": ("sslpe", {"mixture": True}),
}


@pytest.mark.parametrize("name", [*zoo.METHODS, "random latent classifier", "mixture"])
def test_a_rows_results_do_not_depend_on_its_place(name, x, build):
    method, options = VARIANTS.get(name, (name, {}))
    o = build(method, **options)
    in_any_place(lambda x, chunk: predict_proba(o, x, chunk=chunk, seed=1), x)
    if o.model is None:
        return
    if "likelihood" in zoo.options_of(method):
        o = build(method, **options, likelihood="gaussian", sigma=1.0)
    in_any_place(lambda x, chunk: bounds(o, x, num_particles=3, chunk=chunk), x, 1e-3)
    in_any_place(
        lambda x, chunk: bounds(o, x, one_hot(torch.ones(len(x)), K), chunk=chunk), x, 1e-3
    )
    in_any_place(lambda x, chunk: log_evidence(o, x, num_particles=5, chunk=chunk), x, 1e-3)
    if isinstance(o.predictor, GibbsPredictor):
        in_any_place(
            lambda x, chunk: torch.cat(gibbs(o, x, steps=3, chains=2, hard=True, chunk=chunk), -1),
            x,
        )


def test_neither_do_bounds_of_classes_scores_draws_and_attacks(x, build):
    m2, latent = build("m2", likelihood="gaussian", sigma=1.0), build("latent_classifier")
    in_any_place(lambda x, chunk: class_bounds(m2, x, num_particles=2, chunk=chunk), x, 1e-3)
    in_any_place(
        lambda x, chunk: torch.stack([*scores(latent, x, chunk=chunk).values()], -1), x, 1e-3
    )
    in_any_place(lambda x, chunk: label_draws(latent, x, 3).movedim(0, 1), x)
    in_any_place(lambda x, chunk: reconstruct(build("adgm"), x), x)

    def attack(x, chunk):
        y = torch.ones(len(x)).long()
        return pgd(latent, x, y, 0.1, steps=2, bounds=None, chunk=chunk)

    in_any_place(attack, x)

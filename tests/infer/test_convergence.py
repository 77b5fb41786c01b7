"""R-hat and the effective sample size: against ArviZ, and where their values are known."""

import math

import numpy as np
import pytest

from pyro_ssl.infer.convergence import effective_sample_size, rhat


def autoregressive(shape: tuple[int, ...], memory: float, seed: int = 0) -> np.ndarray:
    """Chains `(chains, draws, *)` whose draws have correlation `memory` with the ones before."""
    noise = np.random.default_rng(seed).normal(size=shape)
    draws = noise.copy()
    for t in range(1, shape[1]):
        draws[:, t] = memory * draws[:, t - 1] + math.sqrt(1 - memory**2) * noise[:, t]
    return draws


CHAINS = {
    "independent": autoregressive((4, 100, 3), 0.0),
    "slow": autoregressive((2, 301, 3), 0.95),
    "antithetic": autoregressive((3, 200, 3), -0.7),
    "short": autoregressive((2, 4, 3), 0.3),
    "five draws": autoregressive((2, 5, 3), 0.0),
    "apart": autoregressive((4, 60, 3), 0.5) + np.arange(4)[:, None, None],
    "another scale": autoregressive((4, 60, 3), 0.5) * (1 + np.arange(4))[:, None, None],
    "labels": (autoregressive((4, 90, 3), 0.8) > 0.7).astype(float),
}


@pytest.mark.filterwarnings("ignore:\nArviZ is undergoing:FutureWarning")
@pytest.mark.parametrize("name", CHAINS)
def test_values_are_arvizs(name):
    arviz = pytest.importorskip("arviz")
    draws = CHAINS[name]
    columns = np.moveaxis(draws, -1, 0)
    assert np.allclose(rhat(draws), [arviz.rhat(column) for column in columns], rtol=1e-12)
    sizes = [arviz.ess(column) for column in columns]
    assert np.allclose(effective_sample_size(draws), sizes, rtol=1e-12)


def test_the_size_of_an_autoregression_is_the_known_one():
    memory = 0.8
    draws = autoregressive((8, 20_000), memory)
    expected = draws.size * (1 - memory) / (1 + memory)
    assert abs(effective_sample_size(draws) / expected - 1) < 0.05
    assert abs(rhat(draws) - 1) < 0.002


def test_rhat_sees_another_mean_and_another_scale():
    assert (rhat(CHAINS["independent"]) < 1.05).all()
    assert (rhat(CHAINS["apart"]) > 1.3).all()
    assert (rhat(CHAINS["another scale"]) > 1.05).all()


def test_constant_draws_have_no_rhat_and_count_in_full():
    draws = np.ones((3, 10, 2))
    assert np.isnan(rhat(draws)).all()
    assert (effective_sample_size(draws) == 30).all()


def test_tiny_draws_have_the_numbers_of_large_ones():
    draws = CHAINS["apart"]
    assert np.array_equal(rhat(2.0**-70 * draws), rhat(draws))
    assert np.array_equal(effective_sample_size(2.0**-70 * draws), effective_sample_size(draws))


def test_a_middle_draw_that_no_half_has_does_not_count():
    draws = np.ones((2, 5, 1))
    draws[:, 2] = 0
    assert np.isnan(rhat(draws)).all()
    assert (effective_sample_size(draws) == 10).all()


def test_blocks_change_nothing(monkeypatch):
    draws = autoregressive((2, 20, 5, 3), 0.5)
    whole = rhat(draws), effective_sample_size(draws)
    monkeypatch.setattr("pyro_ssl.infer.convergence.MOST_VALUES", 100)
    assert whole[0].shape == (5, 3)
    assert np.allclose(whole[0], rhat(draws), rtol=1e-12)
    assert np.allclose(whole[1], effective_sample_size(draws), rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((10,), "shape"), ((1, 10), "chains should be 2 or more"), ((2, 3), "draws should be 4")],
)
def test_too_few_draws_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        rhat(np.zeros(shape))

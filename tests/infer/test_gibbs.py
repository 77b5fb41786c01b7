"""Gibbs sampling against posteriors that are known exactly, and what `gibbs` promises about chains,
chunks and seeds.
"""

from collections.abc import Callable

import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from pyro_ssl import (
    GibbsPredictor,
    Objective,
    fit,
    gibbs,
    guides,
    models,
    predict_proba,
    zoo,
)
from pyro_ssl.infer import gibbs as sampling
from pyro_ssl.nn.layers import Linear
from pyro_ssl.nn.random_weights import RandomWeights
from pyro_ssl.prediction import chunks

pytestmark = pytest.mark.usefixtures("float64")


class Model(nn.Module):
    """Whatever predicts; it notes the z of every step."""

    def __init__(self, p_y: Callable[[Tensor, Tensor], dist.TorchDistribution]) -> None:
        super().__init__()
        self.p_y, self.z = p_y, []

    def predict(self, x: Tensor, z: Tensor) -> dist.TorchDistribution:
        self.z.append(z)
        return self.p_y(x, z)


class Guide(nn.Module):
    """Whatever encodes; it notes the y that every step begins with."""

    def __init__(self, q_y: Callable[[Tensor], dist.TorchDistribution], q_z: Callable) -> None:
        super().__init__()
        self.q_y, self.q_z, self.y = q_y, q_z, []
        self.unused = nn.Parameter(
            torch.zeros(())
        )  # of a dtype and on a device, which `gibbs` goes by

    def classify(self, x: Tensor) -> dist.TorchDistribution:
        return self.q_y(x)

    def encode(self, x: Tensor, y: Tensor) -> dist.TorchDistribution:
        self.y.append(y)
        return self.q_z(x, y)


# --- z and y discrete: all by tables --------------------------------------------------------------

V, K = 4, 3  # values of x and of y; z is 0 or 1
G = torch.Generator().manual_seed(0)
P_Z = torch.tensor([0.35, 0.65], dtype=torch.float64)
P_X = torch.rand(2, V, generator=G, dtype=torch.float64).softmax(-1)  # (z, x)
P_Y = (3 * torch.rand(V, 2, K, generator=G, dtype=torch.float64)).softmax(-1)  # (x, z, y)
Z_OF_X = (P_Z[:, None] * P_X / (P_Z @ P_X)).T  # (x, z)
Y_OF_X = torch.einsum("xz,xzy->xy", Z_OF_X, P_Y)
Z_OF_XY = torch.einsum("xz,xzy->xyz", Z_OF_X, P_Y) / Y_OF_X[..., None]
WRONG = torch.rand(V, K, 2, generator=G, dtype=torch.float64).pow(3)  # what no q(z|x,y) should be
WRONG = WRONG / WRONG.sum(-1, keepdim=True)


def tables(q_z: Tensor = Z_OF_XY, q_y: Tensor = Y_OF_X) -> Objective:
    """x one-hot, `(B, V)`."""
    model = Model(
        lambda x, z: dist.OneHotCategorical(probs=P_Y[x.argmax(-1), z.squeeze(-1).long()])
    )
    encode = lambda x, y: dist.Bernoulli(q_z[x.argmax(-1), y.argmax(-1)][..., 1:]).to_event(1)  # noqa: E731
    return Objective(
        model, Guide(lambda x: dist.OneHotCategorical(probs=q_y[x.argmax(-1)]), encode)
    )


def rows(n: int) -> Tensor:
    """Each value of x n times, scaled by next to nothing: equal rows would have the same noise."""
    return torch.eye(V).repeat_interleave(n, 0) * nearly_one(V * n)


def nearly_one(n: int) -> Tensor:
    """Different numbers `(n, 1)`."""
    return 1 + 1e-9 * torch.arange(n)[:, None]


def deviations(draws: Tensor, expected: Tensor) -> Tensor:
    """By how many standard errors the mean of `(V * n, K)` is off, for each value of x."""
    draws = draws.unflatten(0, (V, -1))
    return (draws.mean(1) - expected).abs() / (draws.std(1) / draws.shape[1] ** 0.5)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(("steps", "chains"), [(1, 1), (5, 2)])
def test_gibbs_has_the_exact_posteriors_for_its_mean(steps, chains, hard):
    found = gibbs(tables(), rows(4000), steps=steps, chains=chains, hard=hard)
    assert deviations(found.mean, Y_OF_X).max() < 4
    assert deviations(found.z, Z_OF_X[:, 1:]).max() < 4
    assert torch.allclose(found.mean.sum(-1), torch.ones(4000 * V))


def test_a_wrong_encoder_shows():
    found = gibbs(tables(WRONG), rows(4000), steps=5, chains=2)
    assert deviations(found.mean, Y_OF_X).max() > 8 and deviations(found.z, Z_OF_X[:, 1:]).max() > 8


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_each_step_is_one_of_the_papers_chain(steps):
    """From any start and by any encoder.

    The law of y goes through the same matrix in each step, and all steps count.
    """
    start = torch.tensor([0.8, 0.15, 0.05]).expand(V, K)
    found = gibbs(tables(WRONG, start), rows(4000), steps=steps)
    y, mean, code = start, 0.0, 0.0
    for _ in range(steps):
        z = torch.einsum("xy,xyz->xz", y, WRONG)
        y = torch.einsum("xz,xzk->xk", z, P_Y)
        mean, code = mean + y / steps, code + z[:, 1:] / steps
    assert deviations(found.mean, mean).max() < 4 and deviations(found.z, code).max() < 4
    assert deviations(found.mean, Y_OF_X).max() > 8


def test_labels_drawn_have_the_same_mean_and_more_noise():
    soft, hard = (gibbs(tables(), rows(2000), steps=5, hard=hard) for hard in (False, True))
    assert (
        hard.mean.unflatten(0, (V, -1)).var(1) > 1.5 * soft.mean.unflatten(0, (V, -1)).var(1)
    ).all()
    assert ((hard.mean * 5).round() == hard.mean * 5).all() and torch.equal(
        hard.mean.sum(-1), torch.ones(2000 * V)
    )


@pytest.mark.parametrize("hard", [False, True])
def test_variance_is_that_of_the_prediction(hard):
    found = gibbs(tables(), rows(20), steps=5, chains=2000, hard=hard)
    assert torch.allclose(
        found.variance.unflatten(0, (V, -1)).mean(1), Y_OF_X * (1 - Y_OF_X), atol=2e-3
    )


# --- z and y real: a linear Gaussian model --------------------------------------------------------

S, A, B, T = 1.0, 0.5, 1.2, 0.8  # x ~ N(z, S^2), y ~ N(A x + B z, T^2), z ~ N(0, 1)
POSTERIOR = S**2 / (1 + S**2)  # variance of z given x


def gaussian(variance: float = 1.0, start: float | None = None) -> Objective:
    """Exact for `variance=1`, a factor of q(z|x,y)'s.

    By `start`, y begins as N(0, start^2) in place of p(y|x).
    """

    def q_y(x: Tensor) -> dist.TorchDistribution:
        exact = dist.Normal(A * x + B * x / (1 + S**2), (B**2 * POSTERIOR + T**2) ** 0.5)
        return (exact if start is None else dist.Normal(torch.zeros_like(x), start)).to_event(1)

    def q_z(x: Tensor, y: Tensor) -> dist.TorchDistribution:
        precision = 1 + 1 / S**2 + B**2 / T**2
        mean = (x / S**2 + B * (y - A * x) / T**2) / precision
        return dist.Normal(mean, (variance / precision) ** 0.5).to_event(1)

    return Objective(Model(lambda x, z: dist.Normal(A * x + B * z, T).to_event(1)), Guide(q_y, q_z))


@pytest.mark.parametrize("hard", [False, True])
def test_variance_of_real_y_is_the_total_one(hard):
    x = torch.tensor([[-1.5], [0.0], [2.0]])
    found = gibbs(gaussian(), x, steps=5, chains=30_000, hard=hard, chunk=1)
    assert torch.allclose(found.variance, torch.full((3, 1), B**2 * POSTERIOR + T**2), rtol=0.03)
    assert torch.allclose(found.mean, A * x + B * x / (1 + S**2), atol=0.02)
    assert torch.allclose(found.z, x / (1 + S**2), atol=0.02)


class Regression(nn.Module):
    """y ~ N(w (x, z) + c, T^2) with random w and c."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Linear(2, 1)

    def predict(self, x: Tensor, z: Tensor) -> dist.TorchDistribution:
        return dist.Normal(self.network(torch.cat([x.expand(z.shape), z], -1)), T).to_event(1)


@pytest.mark.parametrize(("steps", "chains"), [(1, 40_000), (100, 400)])
def test_random_weights_are_drawn_anew_for_each_chain_and_step(steps, chains):
    """The total variance has that of the weights.

    By one draw for all chains, or for all steps, it would be short of it.
    """
    model, q_z = Regression(), lambda x, y: dist.Normal(0.3 * x.expand(y.shape), 0.6).to_event(1)
    slots = RandomWeights(model)
    guide = guides.MeanField(Guide(lambda x: dist.Normal(x, 1.0).to_event(1), q_z), slots.initial)
    mean, deviation = {"weight": torch.tensor([A, B]), "bias": torch.tensor([0.2])}, 0.7
    with torch.no_grad():
        guide.loc.copy_(torch.cat([mean[name] for _, name in slots.places]))
        guide.log_variance.fill_(2 * torch.tensor(deviation).log())
    x = torch.tensor([[-1.0], [0.5]])
    torch.manual_seed(0)
    found = sampling.gibbs(models.Bayesian(model, slots), guide, x, steps=steps, chains=chains)
    z_mean, z_var = 0.3 * x, 0.36
    of_weights = deviation**2 * (x**2 + z_mean**2 + z_var + 1)
    assert torch.allclose(found.mean, A * x + B * z_mean + 0.2, atol=0.06)
    assert torch.allclose(found.variance, B**2 * z_var + T**2 + of_weights, rtol=0.04)
    assert (of_weights > 0.3 * found.variance).all()


def p_uniform(o: Objective, steps: int, draws: int = 19, data: int = 3000) -> tuple[float, float]:
    """Simulation-based calibration.

    The p-values of uniform ranks of the true z, and of the true y, among their draws.
    """
    torch.manual_seed(1)
    z = torch.randn(data, 1)
    x = z + S * torch.randn(data, 1)
    y = A * x + B * z + T * torch.randn(data, 1)
    gibbs(o, x, steps=steps, chains=draws, chunk=data)
    ranks = [(seen[-1] < true).sum(0).flatten() for seen, true in ((o.model.z, z), (o.guide.y, y))]
    return tuple(stats.chisquare(torch.bincount(r, minlength=draws + 1)).pvalue for r in ranks)


@pytest.mark.parametrize(("start", "steps"), [(None, 1), (None, 6), (3.0, 25)])
def test_ranks_of_the_truth_among_draws_are_uniform(start, steps):
    assert min(p_uniform(gaussian(start=start), steps)) > 1e-3


def test_ranks_show_what_is_wrong():
    assert p_uniform(gaussian(variance=0.5), 6)[0] < 1e-6
    assert max(p_uniform(gaussian(start=3.0), 1)) < 1e-6  # too few steps to forget its start


# --- chains, chunks, seeds ------------------------------------------------------------------------


def same_law(a: Tensor, b: Tensor) -> float:
    return min(stats.ks_2samp(p, q).pvalue for p, q in zip(a.T, b.T, strict=True))


def test_chains_are_independent_runs():
    o, x, n = gaussian(), 0.7 * nearly_one(1500), 4
    together = gibbs(o, x, steps=3, chains=n)
    apart = [gibbs(o, x, steps=3, seed=seed) for seed in range(1, 1 + n)]
    for name in ("mean", "z"):
        ours, theirs = getattr(together, name), torch.stack([getattr(run, name) for run in apart])
        assert same_law(ours, theirs.mean(0)) > 1e-3
        assert same_law(ours, theirs[0]) < 1e-6  # one chain has n times the variance
        assert abs(theirs[0].var() / ours.var() / n - 1) < 0.25


def test_chunks_change_nothing():
    o, x = gaussian(), 0.7 * nearly_one(2000)
    whole, parts, other = (
        gibbs(o, x, steps=3, chunk=chunk, seed=seed) for chunk, seed in ((2000, 0), (7, 0), (7, 1))
    )
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(whole, parts, strict=True))
    assert all(same_law(a, b) > 1e-3 for a, b in zip(whole, other, strict=True))
    assert not torch.allclose(
        parts.mean[:7], parts.mean[7:14], atol=1e-3
    )  # no chunk has the noise of another


def test_equal_rows_have_equal_results():
    found = gibbs(gaussian(), torch.full((5, 1), 0.7), steps=3, chunk=2)
    assert all(torch.allclose(part, part[:1].expand_as(part), atol=1e-12) for part in found)


@pytest.mark.parametrize("chains", [1, 50, 100_000])
@pytest.mark.parametrize("by", ["gibbs", "predict_proba"])
def test_many_rows_run_in_chunks_of_bounded_memory(chains, by):
    n = {1: 100_000, 50: 3000, 100_000: 2}[chains]
    o = tables()
    x = torch.eye(V)[torch.arange(n) % V]
    if by == "gibbs":
        assert all(len(part) == n for part in gibbs(o, x, steps=1, chains=chains))
    else:
        o.predictor = GibbsPredictor(1, chains)
        assert len(predict_proba(o, x)) == n
    sizes = [z.numel() for z in o.model.z]
    assert sum(sizes) == n * chains and {len(z) for z in o.model.z} == {chains}
    assert max(sizes) <= max(chunks.AT_ONCE, chains)


def test_a_seed_says_it_all_and_nobody_elses_state_is_touched():
    o, x = (
        zoo.build("sslapd", 4, 3, hidden=(5,), z_dim=2, dropout=0.5, log_variance=-1.0),
        torch.randn(20, 4),
    )
    o.train()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (gibbs(o, x, steps=2, chunk=8, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected) and all(part.training for part in o.modules())
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.mean, other.mean) and not first.mean.requires_grad


# --- the zoo, and bad input -----------------------------------------------------------------------


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("method", ["sslpe", "sslapd"])
def test_sslpe_and_sslapd_predict_by_it(method, batch_norm):
    options = {"hidden": (6,), "z_dim": 2, "gibbs_steps": 4, "batch_norm": batch_norm}
    o, x = (
        zoo.build(method, 5, 3, **options),
        torch.randn(30, 5, generator=torch.Generator().manual_seed(0)),
    )
    fit(o, x, torch.where(torch.arange(30) < 9, torch.arange(30) % 3, -1), epochs=2, batch_size=7)
    for chunk in (4096, 11):
        p, found = (
            predict_proba(o, x, chunk=chunk, seed=3),
            gibbs(o, x, steps=4, chunk=chunk, seed=3),
        )
        assert torch.allclose(p, found.mean, atol=1e-12) and torch.allclose(
            p.sum(-1), torch.ones(30)
        )
        assert found.z.shape == (30, 2)
    assert not torch.allclose(p, gibbs(o, x, steps=5, chunk=11, seed=3).mean, atol=1e-4)
    assert not torch.allclose(p, o.guide.classify(x).probs, atol=1e-3)
    many, p = (
        gibbs(o, x, steps=4, chains=500).mean,
        torch.stack([predict_proba(o, x, seed=s) for s in range(100)]),
    )
    assert ((p.mean(0) - many).abs() < 5 * p.std(0) / 100**0.5 + 0.01).all()


def test_bad_arguments_are_named():
    o, x = zoo.build("sslpe", 4, 3, hidden=(5,), z_dim=2), torch.randn(6, 4)
    for name in ("steps", "chains", "chunk"):
        for value in (0, -1, 2.5, "3"):
            with pytest.raises(ValueError, match=f"{name} should be a whole number above 0, got"):
                gibbs(o, x, **{name: value})
            if name != "chunk":
                with pytest.raises(
                    ValueError, match=f"{name} should be a whole number above 0, got"
                ):
                    sampling.gibbs(o.model, o.guide, x, **{name: value})
    for method, what in (("m2", "M2 has no predict"), ("classifier", "NoneType has no predict")):
        with pytest.raises(
            ValueError, match=f"Gibbs sampling wants a model with predict.*; {what}"
        ):
            gibbs(zoo.build(method, 4, 3, hidden=(5,)), x)
    with pytest.raises(ValueError, match="Classifier has no encode"):
        sampling.gibbs(o.model, zoo.build("classifier", 4, 3, hidden=(5,)).guide, x)
    with pytest.raises(ValueError, match="x holds NaN or infinity, first in row 2"):
        gibbs(o, x.index_fill(0, torch.tensor([2]), torch.nan))
    with pytest.raises(
        ValueError, match=r"x should have shape \(data, features, ...\), got \(4,\)"
    ):
        gibbs(o, x[0])
    with pytest.raises(ValueError, match=r"input 0 should have shape \(\*, 4\), got \(6, 3\)"):
        gibbs(o, x[:, :3])


def test_more_chains_predict_with_less_noise():
    """The same weights; the spread of predictions over seeds falls."""
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    spread = []
    for chains in (1, 16):
        o = zoo.build(
            "sslapd", (4,), 3, hidden=(6,), z_dim=2, gibbs_chains=chains, log_variance=0.0
        )
        spread.append(torch.stack([predict_proba(o, x, seed=s) for s in range(20)]).std(0).mean())
    assert spread[1] < 0.5 * spread[0]


def test_chains_are_a_whole_number_above_0():
    with pytest.raises(ValueError, match="gibbs_chains should be a whole number above 0"):
        zoo.build("sslpe", (4,), 3, gibbs_chains=0)

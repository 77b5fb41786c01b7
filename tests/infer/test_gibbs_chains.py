"""What `gibbs` promises about chains, chunks and seeds."""

import pytest
import torch
from programs.gibbs import V, gaussian, nearly_one, tables
from scipy import stats
from torch import Tensor

from pyro_ssl import (
    GibbsPredictor,
    fit,
    gibbs,
    predict_proba,
    zoo,
)
from pyro_ssl.infer import gibbs_chain as sampling
from pyro_ssl.prediction import chunks

pytestmark = pytest.mark.usefixtures("float64")


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
        with pytest.raises(ValueError, match=f"Gibbs sampling .* a model with predict.*; {what}"):
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

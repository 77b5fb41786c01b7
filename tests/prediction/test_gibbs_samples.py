"""The draws that `gibbs` gives with `return_samples`."""

import sys
from types import ModuleType

import pytest
import torch
from programs.gibbs import P_Y, POSTERIOR, A, B, V, gaussian, nearly_one, tables

from pyro_ssl import gibbs, zoo
from pyro_ssl.prediction import gibbs_samples

pytestmark = pytest.mark.usefixtures("float64")
SMALL = {"hidden": (5,), "z_dim": 2}


def test_draws_are_those_whose_moments_gibbs_gives():
    objective, x = gaussian(), 0.7 * nearly_one(20)
    for hard in (False, True):
        moments = gibbs(objective, x, steps=9, chains=3, burn_in=2, hard=hard)
        samples = gibbs(objective, x, steps=9, chains=3, burn_in=2, return_samples=True)
        values = samples.y if hard else samples.p_y
        assert samples.y.shape == samples.p_y.shape == samples.z.shape == (3, 7, 20, 1)
        assert torch.allclose(values.mean((0, 1)), moments.mean, atol=1e-12)
        assert torch.allclose(samples.z.mean((0, 1)), moments.z, atol=1e-12)


def test_p_y_is_the_probability_at_the_drawn_latent():
    x = torch.eye(V)
    samples = gibbs(tables(), x, steps=6, chains=2, return_samples=True)
    rows = torch.arange(V).expand(2, 6, V)
    assert torch.allclose(samples.p_y, P_Y[rows, samples.z.squeeze(-1).long()], atol=1e-12)
    assert torch.equal(samples.y.sum(-1), torch.ones(2, 6, V))


def test_thinning_burn_in_and_a_choice_of_rows_select_from_all_draws():
    objective, x = gaussian(), 0.7 * nearly_one(11)
    every = gibbs(objective, x, steps=12, chains=2, return_samples=True)
    few = gibbs(
        objective, x[3:5], steps=12, chains=2, burn_in=3, thin=4, return_samples=True, chunk=1
    )
    for site in ("p_y", "y", "z"):
        expected = getattr(every, site)[:, 3::4, 3:5]
        assert torch.allclose(getattr(few, site), expected, atol=1e-12)


def test_random_weights_are_one_draw_for_all_rows_and_chunks():
    objective = zoo.build("sslapd", (4,), 3, log_variance=-1.0, **SMALL)
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    arguments = {"steps": 5, "chains": 3, "return_samples": True}
    samples = gibbs(objective, x, **arguments)
    in_chunks = gibbs(objective, x, chunk=4, **arguments)
    assert samples.w.shape == (3, 5, len(objective.guide.loc))
    assert torch.equal(samples.w, in_chunks.w)
    assert torch.allclose(samples.p_y, in_chunks.p_y, atol=1e-12)
    with objective.model.given(samples.w[1, 2]), torch.no_grad():
        objective.eval()
        again = objective.model.predict(x, samples.z[1, 2]).mean
    assert torch.allclose(again, samples.p_y[1, 2], atol=1e-12)
    assert gibbs(objective, x, keep_weights=False, **arguments).w is None


def test_convergence_of_a_chain_that_mixes_and_of_one_that_has_not_begun_to():
    x = torch.tensor([[0.7]])
    mixed = gibbs(gaussian(), x, steps=400, chains=4, return_samples=True)
    assert mixed.rhat() < 1.02 and mixed.effective_sample_size() > 100
    assert mixed.rhat("z").dtype == torch.float64
    assert abs(mixed.p_y.var() / (B**2 * POSTERIOR) - 1) < 0.2
    assert abs(mixed.p_y.mean() - (A + B / 2) * 0.7) < 0.1
    far = gibbs(gaussian(start=500.0), x, steps=4, chains=4, return_samples=True)
    assert far.rhat() > 1.2
    with pytest.raises(ValueError, match="site should be one of p_y, y, z, got 'w'"):
        mixed.rhat("w")


def test_arguments_that_do_not_go_together_are_refused():
    objective, x = gaussian(), torch.ones(2, 1)
    for arguments, message in (
        ({"thin": 2}, "thin is for draws"),
        ({"keep_weights": False}, "keep_weights is for draws"),
        ({"hard": True, "return_samples": True}, "hard: return_samples gives labels"),
        ({"thin": 0, "return_samples": True}, "thin should be a whole number above 0"),
        ({"burn_in": 10}, "burn_in should be in 0 .. 9, below steps; got 10"),
        ({"burn_in": True}, "burn_in should be in 0 .. 9"),
    ):
        with pytest.raises(ValueError, match=message):
            gibbs(objective, x, **arguments)


@pytest.mark.filterwarnings("ignore:\nArviZ is undergoing:FutureWarning")
def test_arviz_gets_named_dimensions():
    arviz = pytest.importorskip("arviz")
    objective = zoo.build("sslapd", (4,), 3, **SMALL)
    samples = gibbs(objective, torch.randn(2, 4), steps=6, chains=2, return_samples=True)
    data = samples.to_inference_data(rows=["first", "second"], labels=["a", "b", "c"])
    of_b = data.posterior["p_y"].sel(row="second", label="b")
    assert of_b.dims == ("chain", "draw")
    assert (of_b.values == samples.p_y[:, :, 1, 1].numpy()).all()
    assert data.posterior["z"].dims == ("chain", "draw", "row", "latent")
    assert data.posterior["w"].dims == ("chain", "draw", "weight")
    theirs = arviz.rhat(data, var_names=["p_y"])["p_y"].values
    assert torch.allclose(torch.as_tensor(theirs), samples.rhat(), atol=1e-9)
    with pytest.raises(ValueError, match="labels should have 3 names, got 2"):
        samples.to_inference_data(labels=["a", "b"])


def test_arviz_1_gets_its_own_form(monkeypatch):
    calls = []
    base = ModuleType("arviz_base")
    base.from_dict = lambda data, **more: calls.append((data, more))
    monkeypatch.setitem(sys.modules, "arviz_base", base)
    monkeypatch.setattr(gibbs_samples, "version", lambda name: "1.2.0")
    samples = gibbs(gaussian(), torch.ones(2, 1), return_samples=True)
    samples.to_inference_data()
    ((data, more),) = calls
    assert data["posterior"].keys() == {"p_y", "y", "z"} == more["dims"].keys()


def test_arviz_is_named_where_it_is_not_installed(monkeypatch):
    def missing(name: str) -> str:
        raise gibbs_samples.PackageNotFoundError(name)

    monkeypatch.setattr(gibbs_samples, "version", missing)
    samples = gibbs(gaussian(), torch.ones(2, 1), return_samples=True)
    with pytest.raises(ImportError, match=r"pip install 'pyro-ssl\[arviz\]'"):
        samples.to_inference_data()

"""Any `pyro.infer.ELBO` in the place of ours."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from programs.own_pairs import INDICES, Guide, K, Model, WithWeight, X, Z
from pyro.infer import (
    SVI,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from pyro.nn import PyroModule
from torch import nn

from pyro_ssl import (
    Batch,
    Objective,
    TraceTopKEnum_ELBO,
    class_bounds,
    fit,
    one_hot,
    predict_proba,
)

Y = one_hot(INDICES[:20], K)


class WithFactor(Model):
    """A model with a factor that all data share."""

    def __init__(self):
        super().__init__()
        self.level = nn.Parameter(torch.tensor(300.0))

    def forward(self, x, y=None):
        pyro.factor("of all", self.level)
        super().forward(x, y)


class GuideWithWeight(Guide):
    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(0.1))

    def forward(self, x, y=None):
        pyro.sample("w", dist.Normal(self.loc, 0.5))
        super().forward(x, y)


def stock() -> TraceEnum_ELBO:
    return TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("subsample", [False, True])
@pytest.mark.parametrize(
    ("programs", "batch"),
    [
        ((WithFactor, Guide), "both"),
        ((WithFactor, Guide), "labeled"),
        ((WithWeight, GuideWithWeight), "labeled"),
        ((WithWeight, GuideWithWeight), "unlabeled"),
    ],
    ids=["factor, both", "factor, labeled", "latent, labeled", "latent, unlabeled"],
)
@pytest.mark.parametrize(
    "weights",
    [{}, {"labeled_weight": 0.3, "unlabeled_weight": 2.0}, {"labeled_weight": None}],
    ids=str,
)
def test_stock_elbo_has_the_loss_of_ours(weights, programs, batch, subsample, monkeypatch):
    """With lambda, beta_t, what all data share counted once in the data set, and a subsampled
    plate.
    """
    if subsample:
        plate = pyro.plate
        monkeypatch.setattr(
            pyro, "plate", lambda name, size: plate(name, 500, subsample=torch.arange(size))
        )
    x, y = X.double(), Y.double()
    given = {
        "both": (x[:20], y, x[20:]),
        "labeled": (x[:20], y, None),
        "unlabeled": (None, None, x[20:]),
    }[batch]
    model, guide = (program().double() for program in programs)
    losses, gradients = [], []
    for elbo in (stock(), TraceTopKEnum_ELBO(None, closed_form=())):
        objective = Objective(model, guide, elbo=elbo, **weights)
        objective.sizes = 20, 400
        torch.manual_seed(1)
        loss = sum(objective.parts(Batch(*given), kl_weight=0.25).values())
        losses.append(loss.item())
        gradients.append(torch.autograd.grad(loss, list(objective.parameters()), allow_unused=True))
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)
    for a, b in zip(*gradients, strict=True):
        assert (a is None and b is None) or torch.allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "elbo",
    [TraceGraph_ELBO(), RenyiELBO(alpha=0.5, num_particles=2)],
    ids=lambda e: type(e).__name__,
)
def test_an_elbo_without_a_differentiable_loss_has_its_own_gradient(elbo):
    class Rate(PyroModule):
        """A latent Poisson, which has no reparameterised sample."""

        def __init__(self, value, observe):
            super().__init__()
            self.rate, self.observe = nn.Parameter(torch.tensor(value)), observe

        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                n = pyro.sample("n", dist.Poisson(self.rate.expand(len(x))))
                if self.observe:
                    pyro.sample("x", dist.Normal(n, 1.0), obs=x[:, 0])

    x, objective = X.double(), Objective(Rate(1.0, True), Rate(2.0, False), elbo=elbo)
    torch.manual_seed(0)
    loss = objective(Batch(x_unlabeled=x))
    assert not list(pyro.get_param_store())
    loss.backward()
    ours = [p.grad.clone() for p in objective.parameters()]
    objective.zero_grad()
    torch.manual_seed(0)
    total = elbo.loss_and_grads(objective.model, objective.guide, x)
    assert loss.item() == pytest.approx(total / 60, rel=1e-12)
    for a, p in zip(ours, objective.parameters(), strict=True):
        assert torch.allclose(a, p.grad / 60, rtol=1e-10)


@pytest.mark.parametrize(
    "elbo", [Trace_ELBO(), TraceMeanField_ELBO(), stock()], ids=lambda e: type(e).__name__
)
def test_a_stock_elbo_trains_resumes_and_predicts(elbo, tmp_path):
    def built():
        torch.manual_seed(0)
        return Objective(Model(), Guide(), elbo=elbo)

    y = INDICES.clamp_min(0) if isinstance(elbo, TraceMeanField_ELBO | Trace_ELBO) else INDICES
    whole, begun = built(), built()
    history = fit(whole, X, y, epochs=6, batch_size=20, lr=0.01, ema=0.9)
    assert history["loss"][-1] < history["loss"][0]
    arguments = {
        "epochs": 6,
        "batch_size": 20,
        "lr": 0.01,
        "ema": 0.9,
        "directory": tmp_path / "run",
    }

    def kill(epoch):
        if epoch.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(begun, X, y, callbacks=(kill,), checkpoint_every=1, **arguments)
    resumed = built()
    fit(resumed, X, y, resume=True, checkpoint_every=1, **arguments)
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in whole.state_dict().items())
    assert torch.allclose(predict_proba(whole, X).sum(-1), torch.ones(60))
    assert class_bounds(whole, X).shape == (60, K)


@pytest.mark.filterwarnings("ignore:Encountered NaN")
def test_a_stock_elbos_divergence_is_named():
    class Exploding(Model):
        def __init__(self):
            super().__init__()
            self.level = nn.Parameter(torch.tensor(80.0))

        def forward(self, x, y=None):
            pyro.factor("bang", -(81.0 - self.level).log())
            super().forward(x, y)

    with pytest.raises(FloatingPointError, match="site 'bang'"):
        fit(Objective(Exploding(), Guide(), elbo=stock()), X, INDICES, epochs=50, lr=10.0)


def test_a_stock_elbo_checks_as_stock_pyro_does():
    class NoEvent(Model):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                pyro.sample("y", dist.OneHotCategorical(logits=torch.zeros(K)), obs=y)
                z = pyro.sample("z", dist.Normal(torch.zeros(Z), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z[..., :1], 1.0), obs=x[:, :1])

    with pytest.raises(ValueError, match="tensor shape"):
        fit(Objective(NoEvent(), Guide(), elbo=stock()), X, INDICES, epochs=1)
    for elbo in (3, TraceEnum_ELBO, "elbo"):
        with pytest.raises(ValueError, match="elbo should be a pyro.infer.ELBO"):
            Objective(Model(), Guide(), elbo=elbo)


def test_arguments_of_trace_enum_elbo_are_taken():
    """`TraceTopKEnum_ELBO` in the place of `TraceEnum_ELBO`, with its arguments."""
    elbo = TraceTopKEnum_ELBO(
        max_plate_nesting=1,
        vectorize_particles=False,
        strict_enumeration_warning=True,
        num_particles=2,
    )
    svi = SVI(Model(), Guide(), pyro.optim.Adam({"lr": 0.01}), elbo)
    assert svi.step(X) != 0
    with pytest.warns(UserWarning, match="no site is marked"):
        svi.step(X[:20], Y)
    TraceTopKEnum_ELBO(max_plate_nesting=float("inf"))
    with pytest.raises(ValueError, match="max_plate_nesting should be 1, got 2.*TraceEnum_ELBO"):
        TraceTopKEnum_ELBO(max_plate_nesting=2)

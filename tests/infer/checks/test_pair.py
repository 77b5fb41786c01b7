"""Pairs and data that `fit` and `Objective` refuse in words, and any ELBO of Pyro's in an
`Objective`.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    SVI,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
)
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from torch import nn

from pyro_ssl import (
    MLP,
    Batch,
    Normal,
    Objective,
    TraceTopKEnum_ELBO,
    class_bounds,
    fit,
    one_hot,
    predict_proba,
    zoo,
)

D, K, Z = 4, 2, 2
X = torch.randn(60, D, generator=torch.Generator().manual_seed(0))
CODES = torch.tensor([0, 1] * 10 + [-1] * 40)
Y = one_hot(CODES[:20], K)


class Model(PyroModule):
    """M2, with a likelihood by argument."""

    def __init__(self, likelihood=lambda mean: dist.Normal(mean, 1.0).to_event(1)):
        super().__init__()
        self.network, self.likelihood = MLP([K, Z], D, (6,)), likelihood

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(logits=torch.zeros(K)), obs=y)
            z = pyro.sample("z", dist.Normal(torch.zeros(Z), 1.0).to_event(1))
            pyro.sample("x", self.likelihood(self.network(y, z)), obs=x)


class Guide(PyroModule):
    """M2's guide; what it classifies by can be replaced."""

    def __init__(self, classify=lambda logits: dist.OneHotCategorical(logits=logits)):
        super().__init__()
        self.network, self.q_z = MLP(D, K, (6,)), Normal(MLP([D, K], 2 * Z, (6,)))
        self.label = classify

    def classify(self, x):
        return self.label(self.network(x))

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            if y is None:
                q_y = dist.OneHotCategorical(logits=self.network(x))
                y = pyro.sample("y", q_y, infer={"enumerate": "parallel"})
            pyro.sample("z", self.q_z(x, y))


class WithWeight(PyroModule):
    """A model with a latent w that all data share."""

    def __init__(self):
        super().__init__()
        self.program = Model()

    def forward(self, x, y=None):
        w = pyro.sample("w", dist.Normal(0.0, 2.0))
        self.program(x + w, y)


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


# --- pairs that are refused in words --------------------------------------------------------------

PAIRS = {
    "a function": (
        lambda: (lambda x, y=None: None, Guide()),
        "model should be a pyro.nn.PyroModule .* function <lambda>",
    ),
    "config_enumerate of a module": (
        lambda: (Model(), config_enumerate(Guide())),
        "guide should be .* inside the class",
    ),
    "poutine of a module": (
        lambda: (poutine.scale(Model(), 2.0), Guide()),
        "model should be .* inside the class",
    ),
    "a class": (lambda: (Model, Guide()), r"got the class Model; call it"),
    "DataParallel": (
        lambda: (nn.DataParallel(Model()), Guide()),
        "got DataParallel; give its .module",
    ),
    "Categorical": (
        lambda: (Model(), Guide(lambda logits: dist.Categorical(logits=logits))),
        "one-hot .* got Categorical",
    ),
    "Bernoulli": (
        lambda: (Model(), Guide(lambda logits: dist.Bernoulli(logits=logits[:, 0]))),
        "one-hot .* got Bernoulli",
    ),
    "logits": (
        lambda: (Model(), Guide(lambda logits: logits)),
        "should return a distribution .* got a Tensor",
    ),
    "no classify": (lambda: (Model(), Normal(MLP(D, 2 * Z, ()))), r"Normal has no classify\(x\)"),
}


@pytest.mark.parametrize(("make", "message"), PAIRS.values(), ids=PAIRS)
def test_fit_says_what_a_program_should_be(make, message):
    with pytest.raises(ValueError, match=message):
        fit(Objective(*make()), X, CODES, epochs=1)


def test_prediction_by_class_indices_is_refused():
    with pytest.raises(ValueError, match="one-hot .* got Categorical"):
        predict_proba(Objective(Model(), Guide(lambda logits: dist.Categorical(logits=logits))), X)


COUNTS = {
    "Multinomial": (
        lambda m: dist.Multinomial(9, logits=m),
        "counts, whole numbers that sum to total_count, 9",
    ),
    "Poisson": (lambda m: dist.Poisson(m.exp()).to_event(1), "a Poisson wants .* counts"),
    "Gamma": (
        lambda m: dist.Gamma(m.exp(), 1.0).to_event(1),
        "a Gamma wants .* another likelihood",
    ),
    "Bernoulli": (lambda m: dist.Bernoulli(logits=m).to_event(1), "divide by 255"),
}


@pytest.mark.parametrize(("likelihood", "fix"), COUNTS.values(), ids=COUNTS)
def test_data_outside_a_support_get_its_own_fix(likelihood, fix):
    with pytest.raises(ValueError, match=f"observed outside the support.*{fix}"):
        fit(Objective(Model(likelihood), Guide()), X, CODES, epochs=1)


def test_counts_in_their_support_train():
    counts = dist.Multinomial(9, torch.ones(D)).sample((60,))
    objective = Objective(Model(COUNTS["Multinomial"][0]), Guide())
    assert len(fit(objective, counts, CODES, epochs=2)["loss"]) == 2


def test_a_plate_of_another_size_is_named():
    class Fixed(Model):
        def forward(self, x, y=None):
            with pyro.plate("data", 50):
                pyro.sample("y", dist.OneHotCategorical(logits=torch.zeros(K)), obs=y)

    class JustY(Guide):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                if y is None:
                    pyro.sample("y", self.classify(x), infer={"enumerate": "parallel"})

    with pytest.raises(
        ValueError, match=r"several sizes, .* give all of them pyro.plate\(name, len\(x\)\)"
    ):
        fit(Objective(Fixed(), JustY()), X, CODES, epochs=1)


def test_an_autoguide_inside_a_guide_is_trained_and_resumed(tmp_path):
    class Inner(Guide):
        def __init__(self, model):
            super().__init__()
            self.weight = AutoNormal(poutine.block(model, expose=["w"]))

        def forward(self, x, y=None):
            self.weight(x, y)
            super().forward(x, y)

    def built():
        torch.manual_seed(0)
        model = WithWeight()
        return Objective(model, Inner(model))

    whole, begun, resumed = built(), built(), built()
    fit(whole, X, CODES, epochs=4, batch_size=20)
    parameters = dict(whole.guide.named_parameters())
    (name,) = [n for n in parameters if n.endswith("locs.w_unconstrained") or n.endswith("locs.w")]
    assert parameters[name].abs() > 1e-3  # it starts at 0
    stop = {"calls": 0}

    def kill(epoch):
        stop["calls"] += 1
        if stop["calls"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(
            begun,
            X,
            CODES,
            epochs=4,
            batch_size=20,
            directory=tmp_path / "run",
            callbacks=(kill,),
            checkpoint_every=1,
        )
    fit(
        resumed,
        X,
        CODES,
        epochs=4,
        batch_size=20,
        directory=tmp_path / "run",
        resume=True,
        checkpoint_every=1,
    )
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


# --- units ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [name for name in zoo.METHODS if name != "m1_m2"])
def test_every_method_refuses_other_units(method):
    x = 255 * torch.rand(60, D, generator=torch.Generator().manual_seed(0))
    for y in (CODES, CODES.clamp_min(0)):
        with pytest.raises(ValueError, match="divide.* 255|255.* divide"):
            fit(zoo.build(method, D, K), x, y, epochs=1)


def test_standardised_columns_with_outliers_are_taken():
    x = X.clone()
    x[:, 0] = 0.0
    x[3, 0] = 60**0.5  # the largest number that a standardised column of 60 rows can have
    x[4, 1] = 300.0
    assert fit(zoo.build("classifier", D, K), x, CODES.clamp_min(0), epochs=1)["loss"]


def test_programs_of_ones_own_take_any_units():
    objective = Objective(Model(lambda mean: dist.Normal(mean, 100.0).to_event(1)), Guide())
    assert fit(objective, 100 * X, CODES, epochs=1)["loss"]


# --- any pyro.infer.ELBO --------------------------------------------------------------------------


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

    y = CODES.clamp_min(0) if isinstance(elbo, TraceMeanField_ELBO | Trace_ELBO) else CODES
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
        fit(Objective(Exploding(), Guide(), elbo=stock()), X, CODES, epochs=50, lr=10.0)


def test_a_stock_elbo_checks_as_stock_pyro_does():
    class NoEvent(Model):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                pyro.sample("y", dist.OneHotCategorical(logits=torch.zeros(K)), obs=y)
                z = pyro.sample("z", dist.Normal(torch.zeros(Z), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z[..., :1], 1.0), obs=x[:, :1])

    with pytest.raises(ValueError, match="tensor shape"):
        fit(Objective(NoEvent(), Guide(), elbo=stock()), X, CODES, epochs=1)
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

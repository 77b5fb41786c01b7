"""Programs that are refused in words, by `fit` and by prediction."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from programs.own_pairs import INDICES, D, Guide, K, Model, WithWeight, X, Z
from pyro import poutine
from pyro.infer import (
    config_enumerate,
)
from pyro.infer.autoguide import AutoNormal
from torch import nn

from pyro_ssl import (
    MLP,
    Normal,
    Objective,
    fit,
    predict_proba,
)

PAIRS = {
    "a function": (
        lambda: (lambda x, y=None: None, Guide()),
        "model should be a pyro.nn.PyroModule .* function <lambda>",
    ),
    "config_enumerate of a module": (
        lambda: (Model(), config_enumerate(Guide())),
        "guide should be .* on that method",
    ),
    "poutine of a module": (
        lambda: (poutine.scale(Model(), 2.0), Guide()),
        "model should be .* on that method",
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
        fit(Objective(*make()), X, INDICES, epochs=1)


def test_prediction_by_class_indices_is_refused():
    with pytest.raises(ValueError, match="one-hot .* got Categorical"):
        predict_proba(Objective(Model(), Guide(lambda logits: dist.Categorical(logits=logits))), X)


COUNTS = {
    "Multinomial": (
        lambda m: dist.Multinomial(9, logits=m),
        "counts, whole numbers that sum to total_count, 9",
    ),
    "Poisson": (lambda m: dist.Poisson(m.exp()).to_event(1), "a Poisson .* counts"),
    "Gamma": (
        lambda m: dist.Gamma(m.exp(), 1.0).to_event(1),
        "a Gamma .* another likelihood",
    ),
    "Bernoulli": (lambda m: dist.Bernoulli(logits=m).to_event(1), "divide by 255"),
}


@pytest.mark.parametrize(("likelihood", "fix"), COUNTS.values(), ids=COUNTS)
def test_data_outside_a_support_get_its_own_fix(likelihood, fix):
    with pytest.raises(ValueError, match=f"observed outside the support.*{fix}"):
        fit(Objective(Model(likelihood), Guide()), X, INDICES, epochs=1)


def test_counts_in_their_support_train():
    counts = dist.Multinomial(9, torch.ones(D)).sample((60,))
    objective = Objective(Model(COUNTS["Multinomial"][0]), Guide())
    assert len(fit(objective, counts, INDICES, epochs=2)["loss"]) == 2


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
        fit(Objective(Fixed(), JustY()), X, INDICES, epochs=1)


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
    fit(whole, X, INDICES, epochs=4, batch_size=20)
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
            INDICES,
            epochs=4,
            batch_size=20,
            directory=tmp_path / "run",
            callbacks=(kill,),
            checkpoint_every=1,
        )
    fit(
        resumed,
        X,
        INDICES,
        epochs=4,
        batch_size=20,
        directory=tmp_path / "run",
        resume=True,
        checkpoint_every=1,
    )
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key

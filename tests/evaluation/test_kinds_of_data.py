"""Which public functions of x take a memory map, a torch Dataset, and images of uint8.

Each gives the numbers of an array, or says what to give instead.
"""

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from pyro_ssl import (
    Accuracy,
    ActiveLearner,
    bounds,
    class_bounds,
    data,
    fit,
    gibbs,
    log_evidence,
    predict_proba,
    reconstruct,
    zoo,
)
from pyro_ssl.active import acquisition, cold_start, prediction_draws, vae_embedding
from pyro_ssl.evaluation import attacks, corruptions, ood
from pyro_ssl.utils import memory

N = 30
PIXELS = torch.randint(
    0, 256, (N, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
X = PIXELS / 255
Y = torch.arange(N) % 2


class Images(Dataset):
    """Images with a label each that no prediction may use."""

    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], 1 - int(Y[i])


@dataclass(frozen=True)
class Case:
    """A function of (objective, x).

    Arguments:
        function: The function; its result is compared.
        method: Name in the fixture `trained`.
        whole: It needs all rows at once, so it refuses a Dataset.
    """

    function: object
    method: str = "m2"
    whole: bool = False
    options: dict = field(default_factory=dict)

    def __call__(self, objective, x):
        return self.function(objective, x, **self.options)


def of_learner(objective, x):
    learner = ActiveLearner(
        lambda seed: zoo.build("m2", (1, 8, 8), 2, hidden=(4,), z_dim=2, seed=seed),
        training={"epochs": 1},
    )
    learner.teach([0, 1], [0, 1], pool=x)
    return learner.predict_proba(X)


def trained_on(objective, x):
    m2 = zoo.build("m2", (1, 8, 8), 2, hidden=(4,), z_dim=2)
    fit(m2, x, Y, epochs=1, batch_size=10, workers=0)
    return predict_proba(m2, X)


ATTACK = {"y": Y, "epsilon": 0.1, "chunk": 7}
CASES = {
    "fit": Case(trained_on),
    "predict_proba": Case(predict_proba),
    "bounds": Case(bounds, options={"chunk": 7}),
    "bounds, random weights": Case(bounds, "sslapd", options={"chunk": 7}),
    "class_bounds": Case(class_bounds, options={"chunk": 7}),
    "log_evidence": Case(log_evidence, options={"num_particles": 3}),
    "gibbs": Case(lambda objective, x: gibbs(objective, x).mean, "sslpe"),
    "reconstruct": Case(reconstruct),
    "Accuracy": Case(lambda objective, x: Accuracy(x, Y).score(objective)),
    "fgsm": Case(attacks.fgsm, "classifier", options=ATTACK),
    "pgd": Case(attacks.pgd, "classifier", options=ATTACK | {"steps": 2}),
    "under_attack": Case(
        attacks.under_attack, "classifier", options={"y": Y, "epsilons": [0.0, 0.1]}
    ),
    "ood.scores": Case(ood.scores),
    "ood.scores, draws": Case(ood.scores, "adgm", options={"chunk": 7}),
    "ood.features": Case(ood.features, options={"chunk": 7}),
    "ood.fit_densities": Case(
        lambda objective, x: ood.fit_densities(objective, x, Y).log_prob(torch.zeros(1, 4))
    ),
    "ood.score_sets": Case(
        lambda objective, x: ood.score_sets(objective, {"own": x, "other": x})["other"]
    ),
    "corrupted": Case(lambda _, x: corruptions.corrupted(x, "fog", 3), whole=True),
    "under_corruption": Case(
        lambda objective, x: corruptions.under_corruption(objective, x, Y, ["fog"])["fog"],
        "classifier",
        whole=True,
    ),
    "acquisition.scores": Case(acquisition.scores),
    "acquisition.scores, draws": Case(
        acquisition.scores, "adgm", options={"acquisition": "bald", "draws": 3}
    ),
    "acquire": Case(acquisition.acquire, options={"n": 3}),
    "acquire, joint": Case(
        lambda objective, x: acquisition.acquire([objective] * 2, x, 3, "batch_bald")
    ),
    "label_draws": Case(prediction_draws.label_draws, "adgm", options={"draws": 3}),
    "embedded": Case(lambda _, x: cold_start.embedded(x, lambda x: x.flatten(1)), whole=True),
    "diverse": Case(lambda _, x: cold_start.diverse(x, 3), whole=True),
    "vae_embedding": Case(lambda _, x: vae_embedding(x, z_dim=2, steps=2)),
    "ActiveLearner": Case(of_learner, whole=True),
    "from_arrays": Case(lambda _, x: data.from_arrays(x, Y, x, Y).x_test, whole=True),
}
"""Every public function of x, by name; the test below goes through all of them."""


@pytest.fixture(scope="module")
def trained():
    objectives = {}
    for method in sorted({case.method for case in CASES.values()}):
        objectives[method] = zoo.build(method, (1, 8, 8), 2, hidden=(4,))
        fit(objectives[method], X, Y.where(torch.arange(N) < 10, -1), epochs=1)
    return objectives


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    def save(x, name):
        path = tmp_path_factory.mktemp("maps") / f"{name}.npy"
        np.save(path, x.numpy())
        return np.load(path, mmap_mode="r")

    return save


def kinds(mapped):
    return {
        "memory map": mapped(X, "x"),
        "Dataset": Images(X),
        "uint8": PIXELS,
        "memory map of uint8": mapped(PIXELS, "pixels"),
        "Dataset of uint8": Images(PIXELS),
    }


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(torch.as_tensor(a), torch.as_tensor(b))


@pytest.mark.parametrize("name", CASES)
def test_every_kind_gives_the_numbers_of_an_array_or_is_refused(trained, mapped, name):
    case = CASES[name]
    call = partial(case, trained[case.method])
    expected = call(X)
    for kind, x in kinds(mapped).items():
        if case.whole and kind.startswith("Dataset"):
            with pytest.raises(TypeError, match="should be an array, got a Images.*from_torch"):
                call(x)
        else:
            assert same(call(x), expected), kind


WHOLE = [name for name, case in CASES.items() if case.whole]


@pytest.mark.parametrize("name", WHOLE)
def test_a_memory_map_that_is_needed_whole_and_does_not_fit_is_refused(
    trained, mapped, monkeypatch, name
):
    case = CASES[name]
    x = mapped(X, "large")
    monkeypatch.setattr(memory, "physical_memory", lambda: 1000)
    with pytest.raises(ValueError, match="is a memory map of shape .*this machine has"):
        case(trained[case.method], x)


def test_attacks_of_many_rows_of_a_map_are_those_of_an_array(trained, mapped, monkeypatch):
    monkeypatch.setattr(attacks, "ROWS_AT_ONCE", 14)
    call = partial(attacks.under_attack, trained["classifier"], epsilons=[0.1], chunk=7)
    for attack, more in (("fgsm", {}), ("pgd", {"steps": 2})):
        expected = call(X, Y, attack=attack, **more)
        assert call(mapped(X, "x"), Y, attack=attack, **more) == expected


@pytest.mark.parametrize("method", ["adgm", "m2"])
def test_other_data_in_float64_have_the_scores_of_an_array(trained, mapped, method):
    x = X.double() + 1e-9
    expected = ood.scores(trained[method], x, chunk=7)
    assert same(ood.scores(trained[method], mapped(x, "double"), chunk=7), expected)

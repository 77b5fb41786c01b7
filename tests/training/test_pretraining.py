"""M1+M2's first model, trained first, and what the second sees of it."""

from copy import deepcopy

import pytest
import torch
from comparisons import assert_unbiased
from programs.latents import FAMILIES, PLAIN, RESUMED, SMALL, D, K, build, same, state
from programs.pairs import data

from pyro_ssl import (
    fit,
    predict_proba,
    zoo,
)
from pyro_ssl.training.fit import pretrain
from pyro_ssl.utils.context import eval_mode
from pyro_ssl.zoo.saved_model import SavedModel


@pytest.fixture(autouse=True)
def seeded(float64):
    torch.manual_seed(0)


def test_the_first_model_is_trained_first_and_then_rests():
    seen, o = [], build("m1_m2", **RESUMED["m1_m2"])
    before, x, y = state(o.features), data(40)[0].sigmoid(), torch.arange(40) % K

    def look(epoch) -> None:
        seen.append(state(o.features))
        assert not any(p.requires_grad for p in o.features.parameters()) and o.features.trained

    fit(o, x, y, epochs=3, batch_size=20, callbacks=(look,))
    fit(o, x, y, epochs=1, callbacks=(look,))  # it is trained once
    assert not before["trained"] and all(same(s, seen[0]) for s in seen) and len(seen) == 4
    assert not any(torch.equal(seen[0][k], v) for k, v in before.items() if ".q_z." in k)
    alone = build("m1_m2", **RESUMED["m1_m2"]).features
    pretrain(alone, x, seed=0)
    assert same(state(alone), seen[0])


@pytest.mark.parametrize("uses", [1, 2, 0])
def test_features_are_fresh_samples_in_training_and_means_in_evaluation(uses):
    """Latents that the encoder does not use are 0 in both; where it uses none, all stay."""
    o, x = build("m1_m2", **RESUMED["m1_m2"]), data(40)[0].sigmoid()
    twin = deepcopy(o.features)
    pretrain(twin, x)
    deviations = twin.objective.guide.q_z(x).mean.std(0, correction=0)
    o.features.least = deviations.sort(descending=True).values[uses - 1].item() if uses else 1e9
    pretrain(o.features, x)
    q, used = (
        o.features.objective.guide.q_z(x),
        (deviations >= o.features.least).double() if uses else torch.ones(3),
    )
    assert torch.equal(o.features.used, used) and used.sum() == (uses or 3)
    with eval_mode(o):
        assert torch.equal(o.encode(x), used * q.mean)
    o.train()
    draws = torch.stack([o.encode(x) for _ in range(4000)])
    assert not draws.requires_grad and torch.equal(draws, used * draws)
    assert_unbiased(draws[..., used.bool()], q.mean[..., used.bool()].detach())
    assert torch.allclose(draws.std(0), used * q.stddev, rtol=0.06)


def test_training_encodes_each_datum_once_and_a_transform_each_time():
    """To the same weights, if the transform changes nothing."""
    ends, calls = [], []
    for transform in (None, torch.clone):
        o, x = build("m1_m2", **RESUMED["m1_m2"]), data(40)[0].sigmoid()
        pretrain(o.features, x)
        rows: list[int] = []
        o.features.objective.guide.q_z.register_forward_hook(
            lambda m, given, q, rows=rows: rows.append(len(given[0]))
        )
        fit(
            o,
            x,
            torch.where(torch.arange(40) < 9, torch.arange(40) % K, -1),
            epochs=2,
            batch_size=10,
            transform=transform,
        )
        ends.append(state(o))
        calls.append(rows)
    assert calls[0] == [2, 40] and len(calls[1]) > 2 * 2 * 3  # `fit` looks at two rows first
    assert all(
        torch.allclose(a, b, atol=1e-9)
        for a, b in zip(ends[0].values(), ends[1].values(), strict=True)
    )


SAVED = RESUMED | {"m2": FAMILIES["vamp by class and flow"], "sslpe": {"mixture": True}}


@pytest.mark.parametrize("method", SAVED)
def test_models_of_codes_go_to_disk_and_back(method, tmp_path):
    options = SMALL | PLAIN | SAVED[method]
    o, x = zoo.build(method, D, K, **options).double(), data(40)[0].sigmoid()
    fit(o, x, torch.arange(40) % K, epochs=1)
    SavedModel(method, (D,), list(range(K)), options, o).save(tmp_path / "model")
    loaded = SavedModel.load(tmp_path / "model").objective
    other = zoo.build(method, D, K, seed=1, **options).double()
    other.load_state_dict(o.state_dict())
    for twin in (loaded, other):
        assert same(state(twin), state(o)) and torch.equal(
            predict_proba(twin, x), predict_proba(o, x)
        )

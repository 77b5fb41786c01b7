"""Labeled and unlabeled data in one call of the programs."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from comparisons import assert_same, parameters, seeded
from programs.pairs import PARALLEL, D, InPlate, adgm, data, m2, pair_over, sslpe, without_z

from pyro_ssl import (
    Batch,
    Objective,
    TraceTopKEnum_ELBO,
    zoo,
)
from pyro_ssl.infer.joint_pass import joint_pass_is_exact
from pyro_ssl.infer.param_store import without_param_store

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("closed_form", [True, False])
@pytest.mark.parametrize(
    "weights",
    [
        {"labeled_weight": 0.3, "unlabeled_weight": 2.0},
        {"labeled_weight": 0.7, "unlabeled_weight": 0.7},
    ],
)
def test_together_is_as_apart(weights, closed_form):
    """The same noise: torch draws 16 numbers at a time, so those of 8 and of 16 rows are those of
    24.
    """
    terms = {"balance": 0.5, "entropy": 0.4, "mutual_information": 0.6, "l2": 0.1, "alpha": 0.2}
    o = m2(top_k=None, closed_form=closed_form, common_random_numbers=True, **terms, **weights)
    batch, parts = Batch(*data(8), data(16, seed=1)[0]), {}
    for o.joint_pass in (True, False):
        parts[o.joint_pass] = seeded(o.parts, batch, kl_weight=0.5)
    assert list(parts[True]) == list(parts[False]) and len(parts[True]) == 7
    for name, value in parts[True].items():
        assert_same(value, parts[False][name], parameters(o))


@pytest.mark.parametrize("top_k", [1, "auto"])
def test_together_gives_labeled_data_their_own_bound_whatever_is_summed_over(top_k):
    o = without_z(m2(20, top_k=top_k, labeled_weight=0.3, unlabeled_weight=2.0))
    batch = Batch(*data(8, 20), data(16, seed=1)[0])
    labeled = {}
    for o.joint_pass in (True, False):
        labeled[o.joint_pass] = o.parts(batch, kl_weight=0.5)["labeled"]
    assert_same(labeled[True], labeled[False], parameters(o))


def leaves_out_y(p, x, y):
    """Without y, q(z|x,y) sees the mean label: another program than with it."""
    label = pyro.sample("y", p.q_y(x), infer=PARALLEL) if y is None else y
    pyro.sample("z", p.q_z(x, torch.full_like(label, 1 / 3) if y is None else label))


def as_m2(p, x, y):
    y = pyro.sample("y", p.q_y(x), infer=PARALLEL) if y is None else y
    pyro.sample("z", p.q_z(x, y))


def classify(p, x):
    return p.q_y(x)


def averages(p, x):
    return dist.OneHotCategorical(probs=(p.q_y(x).probs + p.q_y(-x).probs) / 2)


def more_without_y(p, x, y):
    missing = y is None
    y, z = pyro.sample("y", p.p_y(), obs=y), pyro.sample("z", p.p_z())
    pyro.sample("x", p.p_x(y, z), obs=x)
    if missing:
        pyro.factor("more", z.sum(-1))


def test_pairs_that_treat_labels_alike():
    o, (x, y) = m2(), data()
    batch = Batch(x, y, data(4, seed=1)[0])
    parts = {"q_y": o.guide.q_y, "q_z": o.guide.q_z}
    assert joint_pass_is_exact(o.model, InPlate(as_m2, classify, **parts), batch)
    assert not joint_pass_is_exact(o.model, InPlate(as_m2, averages, **parts), batch)
    model = {"p_y": o.model.p_y, "p_z": o.model.p_z, "p_x": o.model.p_x}
    assert joint_pass_is_exact(o.model, o.guide, batch)
    assert joint_pass_is_exact(o.model, m2(noise=1.0, dropout=0.5).guide.train(), batch)
    assert not joint_pass_is_exact(InPlate(more_without_y, **model), o.guide, batch)
    assert not joint_pass_is_exact(o.model, InPlate(leaves_out_y, classify, **parts), batch)
    normed = m2(
        batch_norm=True
    )  # as in evaluation: in training its statistics are to be those of all data
    assert joint_pass_is_exact(normed.model, normed.guide, batch)
    assert not joint_pass_is_exact(*adgm(), batch)
    o.guide.q_y.network.register_forward_pre_hook(lambda q_y, args: (args[0] - args[0].mean(0),))
    assert not joint_pass_is_exact(
        o.model, o.guide, batch
    )  # q(y|x) of a datum depends on the others
    vae = zoo.build("vae", D, 3, likelihood="gaussian").double()
    assert not joint_pass_is_exact(vae.model, vae.guide, batch)
    assert joint_pass_is_exact(*sslpe(), batch)


def test_whether_labels_are_treated_alike_is_found_out_without_a_trace():
    o, (x, y) = m2(noise=0.5, dropout=0.5), data()
    o.guide.q_z.eval()
    batch = Batch(x, y, data(4, seed=1)[0])
    modes, before = [m.training for m in o.modules()], torch.get_rng_state()
    assert joint_pass_is_exact(o.model, o.guide, batch)
    assert [m.training for m in o.modules()] == modes
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in o.parameters()) and not pyro.get_param_store()


@pytest.mark.parametrize(
    ("options", "joint_pass"),
    [
        ({}, True),
        ({"hidden": (4000,), "top_k": None}, False),
        ({"hidden": (4000,), "top_k": None, "batch_norm": True}, True),
    ],
)
def test_a_step_calls_its_programs_once_where_that_is_exact_and_cheap(options, joint_pass):
    o, calls = m2(**options), {"q_y": 0, "q_z": 0, "p_x": 0}
    batch = Batch(*data(600), data(16, seed=1)[0])
    assert o.joint_pass_for(batch) is joint_pass
    for name in calls:
        part = getattr(o.guide, name, None) or getattr(o.model, name)
        part.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    o.parts(batch, joint=joint_pass)
    assert calls == (
        {"q_y": 1, "q_z": 1, "p_x": 1} if joint_pass else {"q_y": 2, "q_z": 2, "p_x": 2}
    )


@pytest.mark.parametrize(
    "extra",
    [
        lambda x: pyro.factor("more", torch.zeros(1), has_rsample=True),
        lambda x: pyro.sample("o", dist.Normal(0.0, 1.0), obs=torch.zeros(())),
    ],
)
def test_what_else_a_guide_says_does_not_stop_its_training(extra):
    y = dist.OneHotCategorical(torch.ones(3) / 3)
    pair, (x, labels) = pair_over(y, y, extra=extra), data()
    assert joint_pass_is_exact(*pair, Batch(x, labels, x)) in (True, False)


def test_labels_of_another_kind_go_apart():
    y = dist.Categorical(torch.ones(3) / 3)
    pair, (x, labels) = pair_over(y, y), data()
    assert not joint_pass_is_exact(*pair, Batch(x, labels, x))
    with pytest.raises(
        ValueError, match=r"labels: site 'y' .* at most 6 values of shape \(\), got \(6, 3\)"
    ):
        TraceTopKEnum_ELBO().bound(*pair, x, labels=labels)
    with pytest.raises(ValueError, match="labels: the guide has no enumerated site"):
        TraceTopKEnum_ELBO().bound(*pair, x, labels.argmax(-1), labels=labels)


def test_a_plate_of_ones_own_is_refused_by_name():
    def model(p, x, y):
        with pyro.plate("pixels", D, dim=-2):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x.T)

    o = Objective(InPlate(model), InPlate(lambda q, x, y: None, lambda q, x: None))
    for run in (lambda x: o.bound(x), lambda x: o.check(Batch(x_unlabeled=x))):
        with pytest.raises(
            ValueError, match="site 'x' .* in plate 'pixels', which is not at dim -1"
        ):
            run(data()[0])


def test_a_prior_that_is_added_later_counts():
    o, x = m2(), data()[0]
    o.bound(x)
    o.model.w = pyro.nn.PyroSample(dist.Normal(0.0, 1.0))
    assert (
        not callable(getattr(without_param_store(o.model), "func", None))
        and without_param_store(o.guide) is not o.guide
    )

"""Labeled and unlabeled data in one call of a method's programs."""

import pytest
import torch
from comparisons import assert_same
from programs.zoo_pairs import LATENT, SUMMED, D, K, build, by_hand, data

from pyro_ssl import (
    Batch,
    Objective,
    zoo,
)
from pyro_ssl.infer.joint_pass import joint_pass_is_exact
from pyro_ssl.nn.tensor_marks import class_weights
from pyro_ssl.objectives.terms import Entropy, MutualInformation

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize(("closed_form", "top_k"), [(True, None), (False, None), (True, 1)])
@pytest.mark.parametrize("method", SUMMED)
def test_together_is_as_apart(method, closed_form, top_k, noise):
    """And as written out; labeled data have their own bound whatever is summed over."""
    o, (x, y), (u, _) = build(method, closed_form=closed_form, top_k=top_k), data(8), data(16)
    batch, options = Batch(x, y, u), {"closed_form": closed_form, "beta": 0.5}
    assert joint_pass_is_exact(o.model, o.guide, batch)
    weights, terms = (
        {"labeled_weight": 0.3, "unlabeled_weight": 2.0},
        [Entropy(0.4), MutualInformation(0.6)],
    )
    parts, calls = {}, []
    o.guide.register_forward_pre_hook(lambda *_: calls.append(len(calls)))
    for joint_pass in (True, False):
        whole = Objective(o.model, o.guide, terms, **weights, elbo=o.elbo, joint_pass=joint_pass)
        parts[joint_pass] = whole.parts(batch, kl_weight=0.5)
        assert len(calls) == (1 if joint_pass else 3)
    assert (
        list(parts[True])
        == list(parts[False])
        == ["labeled", "unlabeled", "Entropy", "MutualInformation"]
    )
    for name, value in parts[True].items():
        if name != "unlabeled" or top_k is None:
            assert_same(value, parts[False][name], o)
    assert_same(parts[True]["labeled"], -0.3 * by_hand(method, o, x, y, noise, **options).mean(), o)
    if top_k is None:
        assert_same(
            parts[True]["unlabeled"], -2.0 * by_hand(method, o, u, None, noise, **options).mean(), o
        )


@pytest.mark.parametrize("method", LATENT[1:])
def test_a_guide_without_y_is_called_apart(method):
    o, (x, y) = build(method), data()
    o.check(Batch(x, y, x))
    assert not joint_pass_is_exact(o.model, o.guide, Batch(x, y, x))
    assert o(Batch(x, y, x)).isfinite()


def test_checks_leave_no_weights_of_classes_behind():
    o, (x, y) = zoo.build("m2", (D,), K, batch_norm=True).double(), data()
    before = class_weights.get()  # of a test that enumerates by hand
    o.check(Batch(x, y, x))
    o.bound(x)
    assert class_weights.get() is before


def test_convolutions_with_batch_norm_see_all_data_in_one_call():
    o = zoo.build("m2", (1, 8, 8), 3, network="conv", channels=(2, 2), hidden=(4,), batch_norm=True)
    x, y = torch.rand(6, 1, 8, 8), torch.eye(3)[torch.arange(6) % 3]
    assert o.double().joint_pass_for(Batch(x.double(), y.double(), x.double()))

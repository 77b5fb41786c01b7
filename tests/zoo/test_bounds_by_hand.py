"""The bounds of the zoo against sums written out by hand and against Pyro's, in float64."""

import pyro
import pytest
import torch
from comparisons import assert_same
from programs.zoo_pairs import BY_HAND, SUMMED, B, K, build, by_hand, data
from pyro.infer import TraceEnum_ELBO

from pyro_ssl import (
    TraceTopKEnum_ELBO,
)

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(
    ("closed_form", "shared", "beta"),
    [(True, True, 1.0), (True, False, 0.3), (False, True, 0.3), (False, False, 1.0)],
)
@pytest.mark.parametrize("method", BY_HAND)
def test_bounds_are_the_sums_written_out(method, closed_form, shared, beta, given, noise):
    o, (x, y) = build(method, closed_form=closed_form, common_random_numbers=shared), data()
    y = y if given else None
    theirs = by_hand(method, o, x, y, noise, closed_form=closed_form, shared=shared, beta=beta)
    assert_same(o.bound(x, y, kl_weight=beta), theirs, o)


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(("free", "beta"), [(3.0, 1.0), (2.0, 0.3)])
@pytest.mark.parametrize("method", BY_HAND)
def test_free_bits_are_the_least_that_a_closed_kl_counts(method, free, beta, given, noise):
    """For each site and datum alone, and times beta under warm-up; some above and some below."""
    o, (x, y) = build(method, free_bits=free), data()
    y = y if given else None
    assert_same(
        o.bound(x, y, kl_weight=beta), by_hand(method, o, x, y, noise, beta=beta, free=free), o
    )
    assert not torch.allclose(
        o.bound(x, y, kl_weight=beta), by_hand(method, o, x, y, noise, beta=beta)
    )


SIZES = {"adgm": (2, 3), "sdgm": (2, 3), "lvae": (2, 3, 4), "latent_classifier_split": (2, 3)}
SLIPS = [(m, slip) for m in BY_HAND for slip in (*SIZES.get(m, (2,)), "detached")]


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(("method", "slip"), SLIPS)
def test_a_wrong_sum_shows(method, slip, given, noise):
    """Negative control of the comparison: it detects a missing site and a missing gradient."""
    o, (x, y) = build(method), data()
    y = y if given else None
    ours, theirs = o.bound(x, y), by_hand(method, o, x, y, noise, slip=slip)
    assert torch.allclose(ours, theirs) == (slip == "detached")
    with pytest.raises(AssertionError):
        assert_same(ours, theirs, o)


@pytest.mark.parametrize(
    ("method", "sites"), [("adgm", ("a", "z")), ("sdgm", ("a", "z")), ("sslpe", ("y", "z"))]
)
def test_a_kl_where_it_is_not_exact_shows(method, sites, noise):
    """Negative control of the bound: in the model these sites depend on later ones of the guide."""
    o, (x, _) = build(method), data()
    o.elbo = TraceTopKEnum_ELBO(None, common_random_numbers=True, closed_form=sites)
    assert not torch.allclose(o.bound(x), by_hand(method, o, x, None, noise), atol=1e-2)


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("scale", [1.0, 0.37])
@pytest.mark.parametrize("method", BY_HAND)
def test_bounds_are_pyros_own(method, scale, given, noise):
    """Of latent_classifier_exact it is Pyro that sums y out of the model.

    Pyro's validation takes SSLPE's p(y|x,z), with a z for each class, for a conflict of
    dimensions; its sum is right.
    """
    o, (x, y) = build(method, closed_form=False, common_random_numbers=False), data()
    y = y if given else None
    stock = TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)
    with pyro.poutine.scale(scale=scale), pyro.validation_enabled(method != "sslpe"):
        theirs, ours = stock.differentiable_loss(o.model, o.guide, x, y), -o.bound(x, y).sum()
    assert_same(ours, theirs, o)


@pytest.mark.parametrize("method", [*SUMMED, "latent_classifier_exact"])
def test_a_bound_per_class_is_the_labeled_bound(method, noise):
    o, (x, _) = build(method), data()
    every = [o.bound(x, torch.eye(K)[k].expand(B, K)) for k in range(K)]
    assert_same(o.elbo.class_bounds(o.model, o.guide, x), torch.stack(every, -1), o)

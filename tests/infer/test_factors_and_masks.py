"""Factors and masks: where stock Pyro is wrong in silence, and ours is not."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from programs.pairs import Program
from programs.pitfalls import B, D, K, X, enum_elbo, small
from pyro import poutine
from pyro.infer import Trace_ELBO

from pyro_ssl import (
    Batch,
    Objective,
    Term,
    TraceTopKEnum_ELBO,
)
from pyro_ssl.infer.checks.scope_error import ScopeError


def formula(theta: torch.Tensor) -> torch.Tensor:
    """A deterministic term: a function of the guide's parameter and of no sample."""
    return (3 * theta).sin() + theta**2


class Deterministic(Term):
    needs = "nothing"

    def __init__(self, guide):
        super().__init__()
        self.theta = guide.theta

    def formula(self, step):
        return formula(self.theta)


def factor_pair(has_rsample: bool | None):
    """z ~ N(0, 1) observed through x; the guide adds the term where `has_rsample` says how."""

    def model(self, x, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x, y):
        with pyro.plate("data", len(x)):
            if has_rsample is not None:
                pyro.factor("term", formula(self.theta) / len(x), has_rsample=has_rsample)
            pyro.sample("z", dist.Normal(self.theta, 1.0))

    return Program(model), Program(guide, theta=0.5)


@pytest.mark.usefixtures("float64")
def test_a_deterministic_factor_in_a_guide_is_wrong_in_stock_pyro_and_a_term_is_exact():
    x = torch.full((5,), 10.0)

    def gradient(loss_of, has_rsample=None):
        model, guide = factor_pair(has_rsample)
        torch.manual_seed(0)
        value = loss_of(model, guide)
        return value.item(), torch.autograd.grad(value, guide.theta)[0].item()

    stock = lambda m, g: Trace_ELBO().differentiable_loss(m, g, x)  # noqa: E731
    elbo = TraceTopKEnum_ELBO(None, closed_form=())
    ours = lambda m, g: elbo.differentiable_loss(m, g, x)  # noqa: E731

    def term(m, g):
        return 5 * Objective(m, g, elbo=elbo)(Batch(x_unlabeled=x)) + Objective(
            None, g, [Deterministic(g)]
        )(Batch())

    theta = torch.tensor(0.5, requires_grad=True)
    (slope,) = torch.autograd.grad(formula(theta), theta)
    bare = gradient(ours)
    exact = pytest.approx((bare[0] + formula(theta).item(), bare[1] + slope.item()), rel=1e-12)
    assert gradient(term) == exact
    assert gradient(stock, has_rsample=True) == exact
    assert gradient(ours, has_rsample=True) == exact
    with pytest.raises(
        ScopeError, match="has_rsample=True: otherwise Pyro adds a score term to its gradient"
    ):
        gradient(ours, has_rsample=False)
    value, wrong = gradient(stock, has_rsample=False)
    assert value == pytest.approx(gradient(term)[0]) and abs(wrong - bare[1]) > 10 * abs(
        slope.item()
    )


def first_columns(self, x):
    return dist.OneHotCategorical(logits=x[:, :K] * self.theta)


def enumerating_guide(self, x, y):
    with pyro.plate("data", len(x)):
        pyro.sample("y", self.classify(x), infer={"enumerate": "parallel"})


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("plate", ["data", "rows"])
def test_a_factor_counts_once_per_datum_and_class(plate):
    """In another plate than the label's, stock Pyro gives another loss without a warning.

    Our bound and the sum by hand agree.
    """
    value = torch.randn(K, generator=torch.Generator().manual_seed(1))

    def model(self, x, y):
        data, rows = pyro.plate("data", len(x)), pyro.plate("rows", len(x))
        with data:
            y = pyro.sample("y", dist.OneHotCategorical(logits=torch.zeros(K)))
        with {"data": data, "rows": rows}[plate]:
            pyro.factor("ratio", (y * value).sum(-1) * x[:, 0])

    x = torch.randn(B, D, generator=torch.Generator().manual_seed(2))
    o = Objective(Program(model), Program(enumerating_guide, first_columns, theta=0.7))
    q = (0.7 * x[:, :K]).softmax(-1)
    by_hand = (q * (value * x[:, :1] - torch.tensor(K).log() - q.log())).sum(-1)
    assert torch.allclose(o.bound(x), by_hand, rtol=0, atol=1e-12)
    stock = -enum_elbo().loss(o.model, o.guide, x)
    assert (abs(stock - by_hand.sum().item()) < 1e-10) == (plate == "data")


@pytest.mark.usefixtures("float64")
def test_masking_a_site_in_both_programs_and_a_factor_replace_a_density_by_a_ratio():
    ratio = lambda z: (z**2 - z).sum(-1)  # noqa: E731

    def model(self, x, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1).mask(False))
            pyro.factor("ratio", ratio(z))
            pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

    def guide(self, x, y):
        with pyro.plate("data", len(x)), poutine.mask(mask=False):
            pyro.sample("z", dist.Normal(self.theta, 0.3).to_event(1))

    x = torch.randn(B, 2)
    o = Objective(Program(model), Program(guide, theta=[0.2, -0.1]))
    torch.manual_seed(3)
    ours = o.bound(x)
    torch.manual_seed(3)
    z = o.guide.theta + 0.3 * torch.randn(B, 2)
    by_hand = ratio(z) + torch.distributions.Normal(z, 0.5).log_prob(x).sum(-1)
    assert torch.allclose(ours, by_hand, rtol=0, atol=1e-12)
    grads = [torch.autograd.grad(v.sum(), o.guide.theta)[0] for v in (ours, by_hand)]
    assert torch.allclose(*grads, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("top_k", [None, 1])
def test_data_that_are_masked_out_add_nothing(top_k):
    """The enumerated label's entropy too.

    With a mask around both programs, as stock Pyro has it.
    """
    o, x, keep = small(z_dim=1).double(), X[:B].double(), torch.arange(B) < 2
    torch.manual_seed(1)
    with poutine.mask(mask=keep):
        ours = TraceTopKEnum_ELBO(top_k).bound(o.model, o.guide, x).value
    assert (ours[2:] == 0).all() and (ours[:2] != 0).all()
    if top_k is None:
        torch.manual_seed(1)
        with poutine.mask(mask=keep):
            assert -enum_elbo().loss(o.model, o.guide, x) == pytest.approx(
                ours.sum().item(), abs=1e-10
            )

"""The silent traps of Pyro and its neighbours: that we do not have them and, where it is cheap, that stock Pyro does."""

import errno
import math
import re
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.nn import PyroModule
from torch import nn

from pyro_ssl import (
    MLP,
    Batch,
    Flat,
    Objective,
    Term,
    TraceTopKEnum_ELBO,
    bounds,
    fit,
    guides,
    models,
    one_hot,
    predict_proba,
    zoo,
)
from pyro_ssl.infer.enumeration import EnumerateMessenger, ScopeError
from pyro_ssl.nn.tensor_annotations import class_weights
from pyro_ssl.training import checkpoints
from pyro_ssl.utils import files

ROOT = Path(__file__).parent.parent.parent
D, K, B = 4, 3, 6
X = torch.randn(60, D, generator=torch.Generator().manual_seed(0)) + torch.tensor(
    [2.0, 0.0, 0.0, 0.0]
)
CODES = torch.arange(60) % K
Y = one_hot(CODES, K)
SMALL = {"hidden": (6,), "z_dim": 2, "likelihood": "gaussian", "sigma": 1.0}


def small(method: str = "m2", seed: int = 0, **options) -> Objective:
    return zoo.build(method, D, K, seed=seed, **SMALL | options)


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.detach().clone() for k, v in module.named_parameters()}


def moved(module: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {k for k, v in module.named_parameters() if not torch.equal(v, before[k])}


def enum_elbo() -> TraceEnum_ELBO:
    return TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)


def svi(o, elbo=None, lr: float = 0.02) -> SVI:
    return SVI(o.model, o.guide, pyro.optim.Adam({"lr": lr}), elbo or enum_elbo())


class Program(PyroModule):
    """A program whose body is a function of itself, x and y; it has one parameter."""

    def __init__(self, body, parameter: torch.Tensor | None = None):
        super().__init__()
        self.body, self.theta = (
            body,
            nn.Parameter(torch.zeros(()) if parameter is None else parameter),
        )

    def forward(self, x, y=None):
        return self.body(self, x, y)

    def classify(self, x):
        return dist.OneHotCategorical(logits=x[:, :K] * self.theta)


# --- data -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
def test_an_infinite_observation_is_refused(bad):
    x = X.clone()
    x[4, 1] = bad
    o = small()
    before = weights(o)
    for call in (
        lambda: fit(o, x, CODES),
        lambda: predict_proba(o, x),
        lambda: bounds(o, x),
        lambda: bounds(o, x, Y),
    ):
        with pytest.raises(ValueError, match="row 4"):
            call()
    assert not moved(o, before)


def test_stock_pyro_turns_an_infinite_observation_into_nan_weights():
    def model(self, x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(self.theta, 1.0), obs=x)

    o = Objective(Program(model), Program(lambda self, x, y: None))
    svi(o, Trace_ELBO()).step(torch.tensor([1.0, torch.inf]))
    assert o.model.theta.isnan()


def test_an_empty_batch_is_refused():
    none, o = torch.zeros(0, D), small()
    for call in (lambda: fit(o, none), lambda: predict_proba(o, none), lambda: bounds(o, none)):
        with pytest.raises(ValueError, match="x is empty"):
            call()
    for parts in (
        (none, torch.zeros(0, K)),
        (None, None, none),
        (X, Y, none),
        (X, Y[:5]),
        (X, None),
        (None, Y),
    ):
        with pytest.raises(ValueError, match="a part without data should be None"):
            Batch(*parts)
    with pytest.raises(ZeroDivisionError):
        svi(o).step(none)


def test_bounds_want_as_many_labels_as_data():
    for y in (Y[:5], torch.cat([Y, Y])):
        with pytest.raises(ValueError, match=rf"y should be one-hot with shape \(60, {K}\)"):
            bounds(small(), X, y)


def test_bounds_of_labeled_data_draw_anew_for_each_row():
    nearly_one = 1 + 1e-6 * torch.arange(60)[:, None]
    x, y = X[:1] * nearly_one, Y[:1].expand(60, K)
    assert bounds(small(), x, y, chunk=4).std() > 0.1


# --- files ------------------------------------------------------------------------------------------------------------


def test_nothing_unpickles(tmp_path):
    """`ParamStore.load` and `PyroOptim.load` do, so neither they nor their like stand in our source."""
    forbidden = (
        r"(?<!safetensors\.)torch\.(load|save)\b|param_store\(\)\.(load|save)\b|(?<![.\w])(eval|exec)\(|"
        r"import (pickle|dill|joblib|shelve)|pickle\.|allow_pickle=True"
    )
    folders = ("pyro_ssl", "models", "guides", "experiments")
    found = [
        f"{p}: {m[0]}"
        for f in folders
        for p in (ROOT / f).glob("*.py")
        for m in re.finditer(forbidden, p.read_text())
    ]
    assert not found
    fit(small(), X, CODES, epochs=2, directory=tmp_path)
    files = [
        p for p in tmp_path.rglob("*") if p.is_file() and p.stat().st_size
    ]  # the lock is empty
    assert {p.suffix for p in files} == {".json", ".jsonl", ".safetensors"}
    assert not [p for p in files if p.read_bytes()[:2] in (b"\x80\x02", b"PK")]


def test_a_disk_that_fills_up_keeps_the_last_checkpoint_and_the_run_goes_on_from_it(
    tmp_path, monkeypatch
):
    arguments = {"epochs": 3, "batch_size": 20}
    whole = small()
    fit(whole, X, CODES, **arguments)
    write, written = files.write_flushed, []

    def full(path: Path, content: bytes) -> None:
        written.append(path)
        if len(written) > 4:  # the first checkpoint has two files and a log beside them
            path.write_bytes(content[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(files, "write_flushed", full)
        fit(small(), X, CODES, directory=tmp_path, **arguments)
    assert 0 < checkpoints.load(tmp_path / "checkpoint")[1]["position"]["step"] < 9
    resumed = small()
    fit(resumed, X, CODES, directory=tmp_path, resume=True, **arguments)
    assert not moved(resumed, weights(whole))


# --- parameters -------------------------------------------------------------------------------------------------------


def test_config_enumerate_loses_the_guides_parameters_and_we_do_not_need_it():
    o = small()
    assert not [
        n
        for n, _ in TraceEnum_ELBO()(o.model, config_enumerate(o.guide)).named_parameters()
        if "q_y" in n
    ]
    assert {id(p) for p in o.parameters()} == {
        id(p) for m in (o.model, o.guide) for p in m.parameters()
    }
    trace = poutine.trace(o.guide).get_trace(X)
    assert trace.nodes["y"]["infer"]["enumerate"] == "parallel"
    o(Batch(x_unlabeled=X)).backward()
    assert all(p.grad.abs().sum() > 0 for p in o.guide.parameters())


def test_a_second_pair_in_the_process_trains_its_own_weights():
    """Under stock SVI it does not: both go by the same names in the parameter store."""
    first, second = small(), small(seed=1)
    stock = [weights(o) for o in (first, second)]
    for o in (first, second):
        for _ in range(2):
            svi(o).step(X)
    assert moved(first, stock[0]) and not moved(second, stock[1])
    pyro.clear_param_store()
    svi(second).step(X)
    assert moved(second, stock[1])
    ours = [weights(o) for o in (first, second)]
    fit(second, X, CODES, epochs=1)
    assert moved(second, ours[1]) == set(ours[1]) and not moved(first, ours[0])


class PlainModel(nn.Module):
    """M2 as a module that is no PyroModule."""

    forward = models.M2.forward

    def __init__(self, program: PyroModule):
        super().__init__()
        for name, child in program.named_children():
            self.add_module(name, child)


class PlainGuide(PlainModel):
    forward, classify = guides.M2.forward, guides.M2.classify


def test_a_plain_module_trains():
    """Under stock SVI it does not: none of its parameters are in the store."""
    o = small()
    plain = Objective(PlainModel(o.model), PlainGuide(o.guide), o.terms)
    before = weights(plain)
    svi(plain).step(X)
    assert not moved(plain, before)
    fit(plain, X, torch.where(torch.arange(60) < 9, CODES, -1), epochs=2)
    assert moved(plain, before) == set(before)


@pytest.mark.parametrize("elbo", [enum_elbo(), TraceTopKEnum_ELBO(), TraceTopKEnum_ELBO(1)])
@pytest.mark.parametrize("method", ["vae", "m2"])
def test_an_elbo_module_has_and_trains_all_parameters(method, elbo):
    o = small(method)
    module = elbo(o.model, o.guide)
    assert {id(p) for p in module.parameters()} == {
        id(p) for m in (o.model, o.guide) for p in m.parameters()
    }
    module(X).backward()
    unused = {n for n, p in module.named_parameters() if p.grad is None}
    assert unused == {n for n, _ in module.named_parameters() if method == "vae" and "q_y" in n}


# --- stock SVI --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "elbo", [enum_elbo(), TraceTopKEnum_ELBO(top_k=1)], ids=["TraceEnum", "TraceTopEnum"]
)
@pytest.mark.parametrize("given", [True, False], ids=["labeled", "unlabeled"])
@pytest.mark.parametrize("method", ["vae", "m2"])
def test_every_pair_trains_under_stock_svi(method, given, elbo):
    torch.manual_seed(0)
    o = small(method)
    before, stepper = weights(o), svi(o, elbo)
    losses = [stepper.step(X, Y if given else None) for _ in range(40)]
    assert sum(losses[-8:]) < sum(losses[:8]) - 8 * 20
    fixed = {n for n in before if "q_y" in n} if method == "vae" or given else set()
    assert moved(o, before) == set(before) - fixed


@pytest.mark.parametrize("method", [name for name, row in zoo.METHODS.items() if row.model])
def test_every_method_takes_a_step_under_stock_svi(method):
    """Of labeled and of unlabeled data, with Pyro's validation where the README does not say that it has to be off."""
    torch.manual_seed(0)
    own = {k: v for k, v in SMALL.items() if k in zoo.options_of(method)}
    own |= (
        {"z_dims": (2, 2)}
        if method == "lvae"
        else {"z1_dim": 2, "m1_hidden": (4,)}
        if method == "m1_m2"
        else {}
    )
    o = zoo.build(method, D, K, seed=0, **own)
    x, stepper = o.encode(X), svi(o, enum_elbo())
    with pyro.validation_enabled(method not in ("sslpe", "sslapd")):
        assert math.isfinite(stepper.step(x, Y)) and math.isfinite(stepper.step(x))


def test_labeled_batches_have_nothing_to_enumerate_and_do_not_warn():
    """Stock Pyro's default warns of it at every step; warnings are errors here."""
    o = small()
    o.bound(X, Y)
    svi(o).step(X, Y)
    with pytest.warns(
        UserWarning, match="TraceEnum_ELBO found no sample sites configured for enumeration"
    ):
        svi(o, TraceEnum_ELBO(max_plate_nesting=1)).step(X, Y)


# --- gradients and bounds ---------------------------------------------------------------------------------------------


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

    return Program(model), Program(guide, torch.tensor(0.5))


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
    with pytest.raises(ScopeError, match="has_rsample=True, which is exact"):
        gradient(ours, has_rsample=False)
    value, wrong = gradient(stock, has_rsample=False)
    assert value == pytest.approx(gradient(term)[0]) and abs(wrong - bare[1]) > 10 * abs(
        slope.item()
    )


def enumerating_guide(self, x, y):
    with pyro.plate("data", len(x)):
        pyro.sample("y", self.classify(x), infer={"enumerate": "parallel"})


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("plate", ["data", "rows"])
def test_a_factor_counts_once_per_datum_and_class(plate):
    """In another plate than the label's, stock Pyro gives another loss without a warning; our bound and the sum by hand agree."""
    value = torch.randn(K, generator=torch.Generator().manual_seed(1))

    def model(self, x, y):
        data, rows = pyro.plate("data", len(x)), pyro.plate("rows", len(x))
        with data:
            y = pyro.sample("y", dist.OneHotCategorical(logits=torch.zeros(K)))
        with {"data": data, "rows": rows}[plate]:
            pyro.factor("ratio", (y * value).sum(-1) * x[:, 0])

    x = torch.randn(B, D, generator=torch.Generator().manual_seed(2))
    o = Objective(Program(model), Program(enumerating_guide, torch.tensor(0.7)))
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
    o = Objective(Program(model), Program(guide, torch.tensor([0.2, -0.1])))
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
    """The enumerated label's entropy too: with a mask around both programs, as stock Pyro has it."""
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


# --- batch norm -------------------------------------------------------------------------------------------------------


def test_batch_norm_over_enumerated_labels_leaks_the_label_and_ours_does_not():
    """Statistics over K tiled labels: what a class gets depends on the other classes being there. Ours weigh by q(y|x)."""
    torch.manual_seed(0)
    net = Flat(nn.Sequential(nn.Linear(D + K, 5), nn.BatchNorm1d(5)))
    x, eye = X[:B], torch.eye(K)[:, None]
    assert not torch.allclose(net(x, eye)[0], net(x, eye[0]), atol=1e-2)
    ours = MLP([D, K], 2, (5,), batch_norm=True)
    certain = torch.full((K, B), -torch.inf).index_fill_(0, torch.tensor([0]), 0.0)
    before = class_weights.set(certain)
    try:
        assert torch.allclose(ours(x, eye)[0], ours(x, eye[0]), atol=1e-5)
    finally:
        class_weights.reset(before)


def test_convolutions_that_are_normalised_see_the_image_alone():
    rows: list[int] = []
    o = zoo.build("m2", (1, 4, 4), K, network="conv", batch_norm=True, hidden=(6,), z_dim=2)
    for module in o.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    o(Batch(x_unlabeled=torch.rand(B, 1, 4, 4)))
    assert set(rows) == {B}


# --- the class drawn beside the likeliest -----------------------------------------------------------------------------


def classes_and_log_weights(log_q: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What an enumerated site with q(y|x) gets: the likeliest classes and the one drawn, each `(top_k + 1, B)`."""

    def guide():
        with pyro.plate("data", len(log_q)):
            pyro.sample("y", dist.OneHotCategorical(logits=log_q), infer={"enumerate": "parallel"})

    site = poutine.trace(EnumerateMessenger(top_k)(guide)).get_trace().nodes["y"]
    assert (site["value"].sum(-1) == 1).all() and len(site["value"]) == top_k + 1
    return site["value"].argmax(-1), site["infer"]["log_weights"]


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize(
    "logits",
    [
        [1000.0, -1000.0, 0.0, -1000.0],
        [100.0, -60.0, -60.0, -60.0],
        [0.0, -torch.inf, -torch.inf, -torch.inf],
    ],
)
def test_a_likeliest_class_is_never_drawn_again(logits, top_k):
    n = 20_000
    log_q = torch.tensor(logits).log_softmax(-1).expand(n, 4).clone().requires_grad_()
    assert log_q[0].exp().tolist() == [1, 0, 0, 0]
    index, log_weights = classes_and_log_weights(log_q, top_k)
    best, drawn = index[:top_k], index[top_k]
    assert (best[0] == 0).all() and not (best == drawn).any()
    total = log_weights.exp().sum(0)
    assert torch.allclose(total, torch.ones(n)) and log_weights.exp().isfinite().all()
    (gradient,) = torch.autograd.grad(total.sum(), log_q)
    assert gradient.isfinite().all() and gradient.abs().max() <= 1


@pytest.mark.parametrize("u", [0.0, 1 - 2**-24])
@pytest.mark.parametrize("spread", [1.0, 50.0, 1000.0])
@pytest.mark.parametrize("classes", [3, 10, 1000])
def test_an_extreme_draw_does_not_draw_the_likeliest_again(classes, spread, u, monkeypatch):
    """The ends of what a float32 uniform can be, with the likeliest anywhere, and first or last."""
    logits = spread * torch.randn(300, classes, generator=torch.Generator().manual_seed(0))
    logits[:100], logits[100:200] = (
        logits[:100].sort(-1).values,
        logits[100:200].sort(-1, descending=True).values,
    )
    drawn = []
    monkeypatch.setattr(torch, "rand_like", lambda t: drawn.append(t) or torch.full_like(t, u))
    index, log_weights = classes_and_log_weights(logits.log_softmax(-1), 1)
    assert len(drawn) == 1
    assert torch.equal(index[0], logits.argmax(-1)) and not (index[0] == index[1]).any()
    assert log_weights.isfinite().all() and log_weights.max() < 1e-5


def test_the_loss_of_a_saturated_classifier_does_not_jump():
    o = small(top_k=1)
    with torch.no_grad():
        o.guide.q_y.network.rest[-1].bias.copy_(torch.tensor([300.0, 0.0, 0.0]))
        assert o.classify(X).probs.max(-1).values.min() == 1
        torch.manual_seed(0)
        exact = Objective(o.model, o.guide, elbo=TraceTopKEnum_ELBO(None)).bound(X)
        values = torch.stack([o.bound(X) for _ in range(100)])
    assert (
        values.isfinite().all()
        and values.min() > exact.min() - 100
        and values.max() < exact.max() + 100
    )

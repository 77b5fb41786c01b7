"""Ordinary Pyro pairs under stock `TraceEnum_ELBO` and ours: the same value and gradient, or a refusal in words."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions.testing.rejection_gamma import ShapeAugmentedGamma
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
    init_to_value,
)
from pyro.nn import PyroModule, PyroSample
from torch import Tensor, nn

from pyro_ssl import Batch, Objective, TraceTopKEnum_ELBO, bounds, fit
from pyro_ssl.infer.enumeration import ScopeError

pytestmark = pytest.mark.usefixtures("float64")
B, D, K = 6, 3, 2
ENUMERATE = {"enumerate": "parallel"}
Body = Callable[..., None]


class Program(PyroModule):
    """A program whose body is a function of itself, x and y, with parameters by name."""

    def __init__(self, body: Body, **parameters: Any) -> None:
        super().__init__()
        self.body = body
        for name, value in parameters.items():
            setattr(self, name, nn.Parameter(torch.as_tensor(value, dtype=torch.float64)))

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        self.body(self, x, y)

    def classify(self, x: Tensor) -> Any:
        return dist.OneHotCategorical(logits=x[:, :K] * self.a)


@dataclass
class Pair:
    """A model, its guide, and what ours does with them: equal, or a word out of its refusal."""

    model: Any
    guide: Any
    refused: str = ""
    labels: bool = False
    nesting: int = 1
    stock_validates: bool = True
    stock: str = ""  # how stock Pyro refuses it
    options: dict[str, Any] = field(default_factory=dict)


def data(n: int = B, d: int = D) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def one_hot(n: int = B) -> Tensor:
    return torch.eye(K, dtype=torch.float64)[torch.arange(n) % K]


def plate(x: Tensor, name: str = "data", **arguments: Any) -> Any:
    return pyro.plate(name, len(x), **arguments)


def normal(loc: Any, scale: Any = 1.0) -> Any:
    """A diagonal Gaussian over vectors."""
    return dist.Normal(loc, scale).to_event(1)


def p_y(n: int = K) -> Any:
    return dist.OneHotCategorical(logits=torch.linspace(0, 1, n))


def column(values: Tensor) -> Tensor:
    """A number for each datum and class as the mean of all columns."""
    return values.unsqueeze(-1) + torch.zeros(D)


# --- labels -----------------------------------------------------------------------------------------------------------


def labeled_by(
    p: Callable[[], Any], q: Callable[[Any, Tensor], Any], number: Callable[[Tensor], Tensor]
) -> Pair:
    """y in the guide, of any kind; x ~ N(number(y) m, 1)."""

    def model(s, x, y):
        with plate(x):
            y = pyro.sample("y", p())
            pyro.sample("x", normal(column(number(y) * s.m)), obs=x)

    def guide(s, x, y):
        with plate(x):
            pyro.sample("y", q(s, x), infer=ENUMERATE)

    return Pair(Program(model, m=1.5), Program(guide, a=0.7))


def first(y: Tensor) -> Tensor:
    return y[..., 0]


def identity(y: Tensor) -> Tensor:
    return y.to(torch.float64)


def one_hot_label() -> Pair:
    return labeled_by(p_y, lambda s, x: dist.OneHotCategorical(logits=x[:, :K] * s.a), first)


def categorical_label() -> Pair:
    return labeled_by(
        lambda: dist.Categorical(logits=torch.arange(3.0)),
        lambda s, x: dist.Categorical(logits=x * s.a),
        identity,
    )


def bernoulli_label() -> Pair:
    return labeled_by(
        lambda: dist.Bernoulli(0.3), lambda s, x: dist.Bernoulli(logits=x[:, 0] * s.a), identity
    )


def binomial_label() -> Pair:
    return labeled_by(
        lambda: dist.Binomial(3, 0.3), lambda s, x: dist.Binomial(3, logits=x[:, 0] * s.a), identity
    )


def class_ruled_out_by_both() -> Pair:
    out = torch.tensor([0.0, -math.inf, 0.5])
    return labeled_by(
        lambda: dist.OneHotCategorical(logits=out),
        lambda s, x: dist.OneHotCategorical(logits=out + s.a * x),
        first,
    )


def expanded_label() -> Pair:
    def model(s, x, y):
        with plate(x):
            y = pyro.sample("y", p_y())
            pyro.sample("x", normal(torch.cat([y, first(y).unsqueeze(-1) * s.m], -1)), obs=x)

    class Guide(Program):
        @config_enumerate(default="parallel", expand=True)
        def forward(self, x, y=None):
            with plate(x):
                y = pyro.sample("y", self.classify(x))
                z = (x[:, :K] * self.a).expand(y.shape[:-2] + (len(x), K))
                torch.cat([z, y], -1)  # wants a value for each datum, as Pyro's scANVI does

    return Pair(Program(model, m=1.0), Guide(lambda *_: None, a=0.4))


def label_and_code() -> Pair:
    """M2: z ~ q(z|x, y) after y."""

    def model(s, x, y):
        with plate(x):
            y = pyro.sample("y", p_y(), obs=y)
            z = pyro.sample("z", normal(torch.zeros(2)))
            pyro.sample("x", normal(column(first(y) * s.m + z.sum(-1))), obs=x)

    def guide(s, x, y):
        with plate(x):
            if y is None:
                y = pyro.sample("y", s.classify(x), infer=ENUMERATE)
            pyro.sample("z", normal(x[:, :2] * s.b + y, s.c.exp()))

    return Pair(Program(model, m=1.0), Program(guide, a=0.5, b=0.3, c=-0.2))


def observed_label() -> Pair:
    pair = label_and_code()
    pair.labels = True
    return pair


def code_before_label() -> Pair:
    """An auxiliary variable v before y in the guide and after it in the model."""

    def model(s, x, y):
        with plate(x):
            y = pyro.sample("y", p_y())
            v = pyro.sample("v", normal(y * s.m))
            pyro.sample("x", normal(column(first(y) * s.m + v.sum(-1))), obs=x)

    def guide(s, x, y):
        with plate(x):
            v = pyro.sample("v", normal(x[:, :2] * s.b))
            pyro.sample("y", dist.OneHotCategorical(logits=v * s.a), infer=ENUMERATE)

    return Pair(Program(model, m=1.0), Program(guide, a=0.5, b=0.3))


def label_after_code_in_the_model() -> Pair:
    """SSLPE: p(z) p(x|z) p(y|x,z), whose z differs by class; stock Pyro's validation takes that for an error."""

    def model(s, x, y):
        with plate(x):
            z = pyro.sample("z", normal(torch.zeros(2)))
            pyro.sample("x", normal(column(z.sum(-1) * s.m)), obs=x)
            pyro.sample("y", dist.OneHotCategorical(logits=z * s.m), obs=y)

    pair = label_and_code()
    return Pair(Program(model, m=1.0), pair.guide, stock_validates=False)


def ladder() -> Pair:
    def model(s, x, y):
        with plate(x):
            z_2 = pyro.sample("z_2", normal(torch.zeros(2)))
            z_1 = pyro.sample("z_1", normal(z_2 * s.m))
            pyro.sample("x", normal(column(z_1.sum(-1))), obs=x)

    def guide(s, x, y):
        with plate(x):
            z_1 = pyro.sample("z_1", normal(x[:, :2] * s.a))
            pyro.sample("z_2", normal(z_1 * s.b))

    return Pair(Program(model, m=1.0), Program(guide, a=0.5, b=0.3))


def flow_and_other_families() -> Pair:
    """LogNormal, Gamma, Beta, Dirichlet and a transformed Gaussian, each reparameterised."""

    def sites(s, x):
        yield "v", dist.LogNormal(s.a * torch.ones(len(x)), 0.5)
        yield "g", dist.Gamma(torch.full((len(x),), 2.0), s.a.exp())
        yield "b", dist.Beta(s.a.exp() * torch.ones(len(x)), 2.0)
        yield "d", dist.Dirichlet(s.a.exp() * torch.ones(len(x), 3))
        tanh = dist.transforms.TanhTransform()
        yield "t", dist.TransformedDistribution(dist.Normal(s.a * torch.ones(len(x)), 1.0), [tanh])

    def model(s, x, y):
        with plate(x):
            values = [pyro.sample(name, q) for name, q in sites(s, x)]
            pyro.sample(
                "x",
                normal(column(values[0] + values[1] + values[2] + values[4]) + values[3]),
                obs=x,
            )

    def guide(s, x, y):
        with plate(x):
            for name, q in sites(s, x):
                pyro.sample(name, q)

    return Pair(Program(model, a=0.1), Program(guide, a=0.4))


# --- a site summed out of the model ------------------------------------------------------------------------------------


def summed(q: Callable[[], Any], number: Callable[[Tensor], Tensor]) -> Pair:
    def model(s, x, y):
        with plate(x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            c = pyro.sample("c", q(), infer=ENUMERATE)
            pyro.sample("x", normal(column(number(c) * s.m + z)), obs=x)

    def guide(s, x, y):
        with plate(x):
            pyro.sample("z", dist.Normal(x[:, 0] * s.a, 1.0))

    return Pair(Program(model, m=1.0), Program(guide, a=0.3))


def summed_one_hot() -> Pair:
    return summed(p_y, first)


def summed_categorical() -> Pair:
    return summed(lambda: dist.Categorical(logits=torch.arange(4.0)), identity)


def summed_bernoulli() -> Pair:
    return summed(lambda: dist.Bernoulli(0.4), identity)


def mixture(make: Callable[[Any], Any]) -> Pair:
    """Pyro's GMM tutorial: a plate of components, one of data, and the assignment summed out."""

    def model(s, x, y):
        weights = pyro.sample("weights", dist.Dirichlet(0.5 * torch.ones(K)))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 2.0))
        with pyro.plate("components", K):
            locs = pyro.sample("locs", dist.Normal(0.0, 10.0))
        with plate(x):
            assignment = pyro.sample("assignment", dist.Categorical(weights), infer=ENUMERATE)
            pyro.sample("obs", dist.Normal(locs[assignment], scale), obs=x[:, 0])

    program = Program(model)
    values = {
        "weights": torch.tensor([0.4, 0.6]),
        "scale": torch.tensor(1.3),
        "locs": torch.tensor([-1.0, 1.0]),
    }
    guide = make(
        poutine.block(program, expose=["weights", "scale", "locs"]), init_to_value(values=values)
    )
    guide(data())
    return Pair(program, guide)


def mixture_by_points() -> Pair:
    return mixture(lambda model, init: AutoDelta(model, init_loc_fn=init))


def mixture_by_normals() -> Pair:
    return mixture(lambda model, init: AutoNormal(model, init_loc_fn=init))


def mixture_by_a_joint_normal() -> Pair:
    return mixture(lambda model, init: AutoDiagonalNormal(model, init_loc_fn=init))


# --- masks and scales -------------------------------------------------------------------------------------------------


def under(handler: Callable[[Tensor], Any], make: Callable[[], Pair] = label_and_code) -> Pair:
    """Both programs inside a handler."""
    pair = make()

    def wrapped(program):
        body = program.body

        def inside(s, x, y):
            with handler(x):
                body(s, x, y)

        program.body = inside

    wrapped(pair.model)
    wrapped(pair.guide)
    return pair


def masked() -> Pair:
    return under(lambda x: poutine.mask(mask=torch.arange(len(x)) < 4))


def masked_summed() -> Pair:
    return under(lambda x: poutine.mask(mask=torch.arange(len(x)) < 4), summed_one_hot)


def scaled() -> Pair:
    return under(lambda x: poutine.scale(scale=0.37))


def scaled_by_datum() -> Pair:
    return under(lambda x: poutine.scale(scale=torch.linspace(0.5, 2.0, len(x))))


def scaled_summed() -> Pair:
    return under(lambda x: poutine.scale(scale=0.37), summed_one_hot)


def partly(handler: Callable[[Tensor], Any], summed_out: bool = False, refused: str = "") -> Pair:
    """The observation alone inside a handler."""

    def model(s, x, y):
        with plate(x):
            y = pyro.sample("y", p_y(), infer=ENUMERATE if summed_out else {})
            with handler(x):
                pyro.sample("x", normal(column(first(y) * s.m)), obs=x)

    def guide(s, x, y):
        if summed_out:
            return
        with plate(x):
            pyro.sample("y", s.classify(x), infer=ENUMERATE)

    return Pair(Program(model, m=1.0), Program(guide, a=0.5), refused=refused)


def observation_masked() -> Pair:
    return partly(lambda x: poutine.mask(mask=torch.arange(len(x)) < 4))


def observation_scaled() -> Pair:
    return partly(lambda x: poutine.scale(scale=3.0))


def observation_scaled_summed() -> Pair:
    pair = partly(
        lambda x: poutine.scale(scale=3.0),
        summed_out=True,
        refused="'x' depends on 'y', which the model sums out",
    )
    pair.stock = "share a common poutine.scale"
    return pair


def distribution_masked() -> Pair:
    def model(s, x, y):
        with plate(x):
            y = pyro.sample("y", p_y())
            pyro.sample("x", normal(column(first(y) * s.m)).mask(torch.arange(len(x)) < 4), obs=x)

    return Pair(Program(model, m=1.0), one_hot_label().guide)


def label_by_obs_mask() -> Pair:
    """Some labels observed: Pyro splits y into y_observed and y_unobserved."""
    known = torch.arange(B) < 2

    def model(s, x, y):
        with plate(x):
            y = pyro.sample("y", p_y(), obs=one_hot(len(x)), obs_mask=known)
            pyro.sample("x", normal(column(first(y) * s.m)), obs=x)

    def guide(s, x, y):
        with plate(x), poutine.mask(mask=~known):
            pyro.sample("y_unobserved", s.classify(x), infer=ENUMERATE)

    return Pair(Program(model, m=1.0), Program(guide, a=0.5))


def values_by_obs_mask() -> Pair:
    """Missing values of x, imputed by the guide."""
    known = torch.arange(B) < 4

    def model(s, x, y):
        with plate(x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", normal(column(z * s.m)), obs=x, obs_mask=known)

    def guide(s, x, y):
        with plate(x):
            pyro.sample("z", dist.Normal(s.a * torch.ones(len(x)), 1.0))
            with poutine.mask(mask=~known):
                pyro.sample("x_unobserved", normal(s.a * torch.ones(len(x), D)))

    return Pair(Program(model, m=1.0), Program(guide, a=0.5))


# --- latents that all data share --------------------------------------------------------------------------------------


def shared(draw: Callable[[Any, Any], Tensor], label: bool = True) -> Pair:
    """A global w, drawn by `draw(loc, scale)`, beside a label in the guide."""

    def model(s, x, y):
        w = draw(torch.zeros(()), 3.0)
        with plate(x):
            number = first(pyro.sample("y", p_y())) if label else torch.zeros(len(x))
            pyro.sample("x", normal(column(w.sum() * s.m + number)), obs=x)

    def guide(s, x, y):
        draw(s.b, 0.1)
        if label:
            with plate(x):
                pyro.sample("y", s.classify(x), infer=ENUMERATE)

    return Pair(Program(model, m=1.0), Program(guide, a=0.5, b=0.2))


def shared_scalar() -> Pair:
    return shared(lambda loc, scale: pyro.sample("w", dist.Normal(loc, scale)))


def shared_vector() -> Pair:
    return shared(
        lambda loc, scale: pyro.sample("w", dist.Normal(loc.expand(4), scale).to_event(1))
    )


def shared_of_batch_shape_1() -> Pair:
    return shared(lambda loc, scale: pyro.sample("w", dist.Normal(loc.expand(1), scale)))


def in_components(size: int) -> Callable[[Any, Any], Tensor]:
    def draw(loc, scale):
        with pyro.plate("components", size):
            return pyro.sample("w", dist.Normal(loc, scale))

    return draw


def shared_in_a_plate_of_1() -> Pair:
    return shared(in_components(1))


def shared_in_a_plate_of_4_without_label() -> Pair:
    return shared(in_components(4), label=False)


def shared_in_a_sequential_plate() -> Pair:
    def draw(loc, scale):
        return torch.stack(
            [pyro.sample(f"w{i}", dist.Normal(loc, scale)) for i in pyro.plate("components", 3)]
        )

    return shared(draw)


def shared_in_a_plate_of_as_many_as_data() -> Pair:
    pair = shared(in_components(B))
    pair.refused = "'components', whose size 6 is the number of data"
    return pair


def shared_in_three_runs() -> Pair:
    """Three particles: three draws of w."""
    pair = shared(in_components(4))
    pair.options = {"num_particles": 3}
    return pair


def two_particles_one_after_the_other() -> Pair:
    pair = label_and_code()
    pair.options = {"num_particles": 2, "vectorize_particles": False}
    return pair


def two_data_plates_of_which_one_has_size_1() -> Pair:
    def model(s, x, y):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("one", 1):
            pyro.sample("t", dist.Normal(w, 1.0), obs=torch.ones(1))
        with plate(x):
            pyro.sample("x", normal(column(w * s.m * torch.ones(len(x)))), obs=x)

    return Pair(
        Program(model, m=1.0),
        Program(lambda s, x, y: pyro.sample("w", dist.Normal(s.a, 1.0)), a=0.1),
    )


class Regression(PyroModule):
    """Bayesian linear regression with `PyroSample` weights, as in Pyro's tutorial."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = PyroModule[nn.Linear](2, 1)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 2]).to_event(2))
        self.linear.bias = PyroSample(dist.Normal(0.0, 10.0).expand([1]).to_event(1))

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        sigma = pyro.sample("sigma", dist.LogNormal(0.0, 1.0))
        mean = self.linear(x[:, :2]).squeeze(-1)
        with plate(x):
            pyro.sample("obs", dist.Normal(mean, sigma), obs=x[:, 2])


def automatic(make: Callable[[Any], Any]) -> Pair:
    model = Regression()
    torch.manual_seed(5)
    guide = make(model)
    guide(data())
    return Pair(model, guide.double())


def regression_by_normals() -> Pair:
    return automatic(AutoNormal)


def regression_by_points() -> Pair:
    return automatic(AutoDelta)


def regression_by_a_joint_normal() -> Pair:
    return automatic(AutoDiagonalNormal)


def regression_by_a_full_normal() -> Pair:
    return automatic(AutoMultivariateNormal)


def regression_by_a_low_rank_normal() -> Pair:
    return automatic(lambda model: AutoLowRankMultivariateNormal(model, rank=1))


# --- subsampling, factors, deterministic sites ------------------------------------------------------------------------


def subsampled(**arguments: Any) -> Pair:
    def rows(x):
        return pyro.plate("data", 30, **({"subsample": x} if not arguments else arguments))

    def model(s, x, y):
        w = pyro.sample("w", dist.Normal(0.0, 3.0))
        with rows(x) as batch:
            batch = batch if not arguments else x[batch % len(x)]
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", normal(column(w * s.m + z)), obs=batch)

    def guide(s, x, y):
        pyro.sample("w", dist.Normal(s.a, 1.0))
        with rows(x):
            pyro.sample("z", dist.Normal(s.b, 1.0))

    return Pair(Program(model, m=1.0), Program(guide, a=0.1, b=0.2))


def subsampled_by_size() -> Pair:
    return subsampled(subsample_size=4)


def factors() -> Pair:
    """In the model's plate, outside it, and in the guide's."""

    def model(s, x, y):
        pyro.factor("of all", -s.m.square())
        with plate(x):
            y = pyro.sample("y", p_y())
            pyro.factor("of each", first(y) * s.m + x[:, 0])
            pyro.factor("the same for each", s.m)
            pyro.deterministic("twice", 2 * y)
            pyro.sample("x", normal(column(first(y) * s.m)), obs=x)

    def guide(s, x, y):
        with plate(x):
            pyro.sample("y", s.classify(x), infer=ENUMERATE)
            pyro.factor("of the guide", x[:, 0] * s.a, has_rsample=True)

    return Pair(Program(model, m=1.0), Program(guide, a=0.5))


def factor_with_a_score() -> Pair:
    def guide(s, x, y):
        with plate(x):
            pyro.sample("y", s.classify(x), infer=ENUMERATE)
            pyro.factor("of the guide", x[:, 0] * s.a, has_rsample=False)

    return Pair(
        one_hot_label().model, Program(guide, a=0.7), refused="has_rsample=True, which is exact"
    )


def deterministic_outside_the_plate() -> Pair:
    def model(s, x, y):
        mean = pyro.deterministic("mean", x * s.m)
        with plate(x):
            y = pyro.sample("y", p_y())
            pyro.sample("x", normal(mean + first(y).unsqueeze(-1)), obs=x)

    return Pair(Program(model, m=1.0), one_hot_label().guide)


# --- refused ----------------------------------------------------------------------------------------------------------


def cluster_beside_the_label() -> Pair:
    def model(s, x, y):
        with plate(x):
            y = pyro.sample("y", p_y())
            c = pyro.sample("c", p_y(3), infer=ENUMERATE)
            pyro.sample("x", normal(column(first(y) * s.m + 3 * first(c))), obs=x)

    return Pair(
        Program(model, m=1.0),
        one_hot_label().guide,
        refused="sites 'y' and 'c' are both enumerated",
    )


def two_clusters() -> Pair:
    def model(s, x, y):
        with plate(x):
            a = pyro.sample("a", p_y(), infer=ENUMERATE)
            c = pyro.sample("c", p_y(), infer=ENUMERATE)
            pyro.sample("x", normal(column(first(a) * s.m + 3 * first(c))), obs=x)

    return Pair(
        Program(model, m=1.0),
        Program(lambda s, x, y: None, a=0.0),
        refused="sites 'a' and 'c' are both enumerated",
    )


def two_labels() -> Pair:
    def model(s, x, y):
        with plate(x):
            y, c = pyro.sample("y", p_y()), pyro.sample("c", p_y(3))
            pyro.sample("x", normal(column(first(y) * s.m + 3 * first(c))), obs=x)

    def guide(s, x, y):
        with plate(x):
            pyro.sample("y", s.classify(x), infer=ENUMERATE)
            pyro.sample("c", dist.OneHotCategorical(logits=x * s.a), infer=ENUMERATE)

    return Pair(
        Program(model, m=1.0),
        Program(guide, a=0.5),
        refused="sites 'y' and 'c' are both enumerated",
    )


def chain() -> Pair:
    """A discrete Markov chain of two steps, `pyro.markov`."""

    def model(s, x, y):
        with plate(x):
            state = torch.zeros((), dtype=torch.long)
            for t in pyro.markov(range(2)):
                state = pyro.sample(
                    f"s{t}", dist.Categorical(logits=torch.eye(2)[state] * s.m), infer=ENUMERATE
                )
                pyro.sample(f"x{t}", dist.Normal(state.to(x), 1.0), obs=x[:, t])

    return Pair(
        Program(model, m=1.0),
        Program(lambda s, x, y: None, a=0.0),
        refused="'s0' and 's1' are both enumerated",
    )


def marked(infer: dict[str, Any], refused: str) -> Pair:
    pair = one_hot_label()

    def guide(s, x, y):
        with plate(x):
            pyro.sample("y", s.classify(x), infer=infer)

    pair.guide.body, pair.refused = guide, refused
    return pair


def sequential() -> Pair:
    return marked({"enumerate": "sequential"}, '"sequential"')


def several_samples() -> Pair:
    return marked({"enumerate": "parallel", "num_samples": 5}, "give num_particles")


def label_of_all_data() -> Pair:
    def model(s, x, y):
        y = pyro.sample("y", p_y())
        with plate(x):
            pyro.sample("x", normal(column(first(y) * s.m)), obs=x)

    def guide(s, x, y):
        pyro.sample("y", dist.OneHotCategorical(logits=torch.ones(K) * s.a), infer=ENUMERATE)

    return Pair(
        Program(model, m=1.0),
        Program(guide, a=0.5),
        refused="'y' is enumerated outside every plate",
    )


def cluster_of_all_data() -> Pair:
    def model(s, x, y):
        c = pyro.sample("c", p_y(), infer=ENUMERATE)
        with plate(x):
            pyro.sample("x", normal(column(first(c) * s.m)), obs=x)

    return Pair(
        Program(model, m=1.0),
        Program(lambda s, x, y: None, a=0.0),
        refused="'c' is enumerated outside every plate",
    )


def partly_reparameterised() -> Pair:
    def model(s, x, y):
        with plate(x):
            z = pyro.sample("z", dist.Gamma(0.5 * torch.ones(len(x)), 1.0))
            pyro.sample("x", normal(column(z * s.m)), obs=x)

    def guide(s, x, y):
        with plate(x):
            pyro.sample("z", ShapeAugmentedGamma(s.a * torch.ones(len(x)), torch.ones(len(x))))

    return Pair(Program(model, m=1.0), Program(guide, a=1.5), refused="or only in part")


def not_reparameterised() -> Pair:
    def model(s, x, y):
        with plate(x):
            z = pyro.sample("z", dist.Poisson(torch.ones(len(x))))
            pyro.sample("x", normal(column(z * s.m)), obs=x)

    def guide(s, x, y):
        with plate(x):
            pyro.sample("z", dist.Poisson(s.a * torch.ones(len(x))))

    return Pair(
        Program(model, m=1.0), Program(guide, a=1.5), refused="'z' has no reparameterised sample"
    )


def observed_in_the_guide() -> Pair:
    def model(s, x, y):
        with plate(x):
            pyro.sample("x", normal(column(s.m * torch.ones(len(x)))), obs=x)

    def guide(s, x, y):
        with plate(x):
            q = s.classify(x)
            pyro.sample("y", q, obs=one_hot(len(x)), infer={"is_auxiliary": True})

    refused = "'y' is observed and has no reparameterised"
    return Pair(Program(model, m=1.0), Program(guide, a=0.5), refused=refused)


def nested_plates() -> Pair:
    def model(s, x, y):
        with pyro.plate("columns", D, dim=-2), plate(x, dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z * s.m, 1.0), obs=x.T)

    def guide(s, x, y):
        with pyro.plate("columns", D, dim=-2), plate(x, dim=-1):
            pyro.sample("z", dist.Normal(s.a, 1.0))

    return Pair(
        Program(model, m=1.0),
        Program(guide, a=0.5),
        refused="plate 'columns', not at dim -1",
        nesting=2,
    )


def plate_at_minus_2() -> Pair:
    def model(s, x, y):
        with plate(x, dim=-2):
            y = pyro.sample("y", p_y())
            pyro.sample("x", normal(column(first(y) * s.m)), obs=x.unsqueeze(-2))

    def guide(s, x, y):
        with plate(x, dim=-2):
            pyro.sample(
                "y",
                dist.OneHotCategorical(logits=s.classify(x).logits.unsqueeze(-2)),
                infer=ENUMERATE,
            )

    refused = "'y' is in plate 'data', not at dim -1"
    return Pair(Program(model, m=1.0), Program(guide, a=0.5), refused=refused, nesting=2)


def joint_of_bernoullis() -> Pair:
    def model(s, x, y):
        with plate(x):
            b = pyro.sample("b", dist.Bernoulli(0.3 * torch.ones(2)).to_event(1))
            pyro.sample("x", normal(column(b.sum(-1) * s.m)), obs=x)

    def guide(s, x, y):
        with plate(x):
            pyro.sample("b", dist.Bernoulli(logits=x[:, :2] * s.a).to_event(1), infer=ENUMERATE)

    return Pair(
        Program(model, m=1.0),
        Program(guide, a=0.5),
        refused="marked for enumeration, but .to_event",
        stock="cartesian product",
    )


def forgotten_event(columns: int) -> Pair:
    def model(s, x, y):
        with plate(x):
            z = pyro.sample("z", normal(torch.zeros(2)))
            pyro.sample(
                "x",
                dist.Normal(z.sum(-1, keepdim=True) * s.m + torch.zeros(columns), 1.0),
                obs=x[:, :1].expand(-1, columns),
            )

    def guide(s, x, y):
        with plate(x):
            pyro.sample("z", normal(x[:, :2] * s.a))

    return Pair(
        Program(model, m=1.0),
        Program(guide, a=0.5),
        refused="its event dimensions into .to_event",
        stock="tensor shape",
    )


def forgotten_event_of_one_column() -> Pair:
    return forgotten_event(1)


def forgotten_event_of_as_many_columns_as_data() -> Pair:
    return forgotten_event(B)


def codes_of_two_sizes() -> Pair:
    def model(s, x, y):
        with plate(x):
            z = pyro.sample("z", normal(torch.zeros(2)))
            pyro.sample("x", normal(column(z.sum(-1) * s.m)), obs=x)

    def guide(s, x, y):
        with plate(x):
            pyro.sample("z", normal(x[:, :1] * s.a))

    return Pair(
        Program(model, m=1.0),
        Program(guide, a=0.5),
        refused="shapes disagree",
        stock="shapes disagree",
    )


def label_of_groups() -> Pair:
    """A label for each of 4 groups, summed out, and data in a plate of their own."""

    def model(s, x, y):
        with pyro.plate("groups", 4):
            y = pyro.sample("y", p_y(), infer={**ENUMERATE, "expand": True})
        with plate(x):
            group = torch.arange(len(x)) % 4
            pyro.sample("x", normal(column(first(y)[..., group] * s.m)), obs=x)

    refused = "'x' depends on 'y', which is enumerated in plate 'groups', and is in plate 'data'"
    return Pair(Program(model, m=1.0), Program(lambda s, x, y: None, a=0.0), refused=refused)


def depends_on_the_label_elsewhere(place: Callable[[Any, Tensor], None], refused: str) -> Pair:
    def model(s, x, y):
        with plate(x):
            y = pyro.sample("y", p_y(), infer=ENUMERATE)
            pyro.sample("x", normal(column(first(y) * s.m)), obs=x)
        place(s, first(y))

    return Pair(Program(model, m=1.0), Program(lambda s, x, y: None, a=0.0), refused=refused)


def another_plate_depends_on_the_label() -> Pair:
    def place(s, number):
        with pyro.plate("others", 4):
            pyro.factor("t", number.mean(-1, keepdim=True) * s.m)

    return depends_on_the_label_elsewhere(place, "depends on 'y', .* is in plate 'others'")


def a_factor_of_all_data_depends_on_the_label() -> Pair:
    def place(s, number):
        pyro.factor("t", number.mean(-1, keepdim=True) * s.m)

    return depends_on_the_label_elsewhere(place, "depends on 'y', .* is outside every plate")


def value_depends_on_the_label_under_another_scale() -> Pair:
    """Not the distribution of x, but what is observed, differs by y."""

    def model(s, x, y):
        with plate(x):
            y = pyro.sample("y", p_y(), infer=ENUMERATE)
            with poutine.scale(scale=3.0):
                pyro.sample("x", normal(torch.zeros(D) * s.m), obs=x - column(first(y)))

    return Pair(
        Program(model, m=1.0),
        Program(lambda s, x, y: None, a=0.0),
        refused="'x' depends on 'y', which the model sums out",
        stock="share a common poutine.scale",
    )


EQUAL = [
    one_hot_label, categorical_label, bernoulli_label, binomial_label, class_ruled_out_by_both, expanded_label, label_and_code,
    observed_label, code_before_label, label_after_code_in_the_model, ladder, flow_and_other_families, summed_one_hot,
    summed_categorical, summed_bernoulli, mixture_by_points, mixture_by_normals, mixture_by_a_joint_normal, masked, masked_summed,
    scaled, scaled_by_datum, scaled_summed, observation_masked, observation_scaled, distribution_masked, label_by_obs_mask,
    values_by_obs_mask, shared_scalar, shared_vector, shared_of_batch_shape_1, shared_in_a_plate_of_1,
    shared_in_a_plate_of_4_without_label, shared_in_a_sequential_plate, shared_in_three_runs, two_particles_one_after_the_other,
    two_data_plates_of_which_one_has_size_1, regression_by_normals, regression_by_points, regression_by_a_joint_normal,
    regression_by_a_full_normal, regression_by_a_low_rank_normal, subsampled, subsampled_by_size, factors,
    deterministic_outside_the_plate,
]  # fmt: skip
REFUSED = [
    cluster_beside_the_label, two_clusters, two_labels, chain, sequential, several_samples, label_of_all_data, cluster_of_all_data,
    partly_reparameterised, not_reparameterised, observed_in_the_guide, factor_with_a_score, nested_plates, plate_at_minus_2,
    shared_in_a_plate_of_as_many_as_data, observation_scaled_summed, joint_of_bernoullis, forgotten_event_of_one_column,
    label_of_groups, another_plate_depends_on_the_label, a_factor_of_all_data_depends_on_the_label,
    value_depends_on_the_label_under_another_scale,
    forgotten_event_of_as_many_columns_as_data, codes_of_two_sizes,
]  # fmt: skip


def loss_and_gradients(elbo: Any, pair: Pair, validate: bool = True) -> tuple[Tensor, list[Tensor]]:
    pyro.clear_param_store()
    torch.manual_seed(1)
    with pyro.validation_enabled(validate):
        loss = elbo.differentiable_loss(
            pair.model, pair.guide, data(), one_hot() if pair.labels else None
        )
    parameters = [*pair.model.parameters(), *pair.guide.parameters()]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return loss, [
        torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)
    ]


def stock_elbo(pair: Pair) -> TraceEnum_ELBO:
    particles = pair.options.get("num_particles", 1)
    return TraceEnum_ELBO(
        num_particles=particles, max_plate_nesting=pair.nesting, strict_enumeration_warning=False
    )


@pytest.mark.parametrize("make", EQUAL, ids=lambda make: make.__name__)
def test_pair_has_stock_pyros_value_and_gradient(make):
    pair = make()
    stock, expected = loss_and_gradients(stock_elbo(pair), pair, pair.stock_validates)
    ours, gradients = loss_and_gradients(
        TraceTopKEnum_ELBO(None, closed_form=(), **pair.options), pair
    )
    assert stock.isfinite()
    assert ours.item() == pytest.approx(stock.item(), rel=1e-10, abs=1e-10)
    assert expected and any(g.abs().max() > 1e-3 for g in expected)
    for a, b in zip(gradients, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


def test_one_datum_beside_a_plate_of_size_1():
    """Its bound leaves the shared latent out, as that of more data; training, which weighs by the plate's size, is refused."""
    pair = shared_in_a_plate_of_1()
    elbo = TraceTopKEnum_ELBO(None)
    torch.manual_seed(0)
    several = elbo.bound(pair.model, pair.guide, data())
    torch.manual_seed(0)
    one = elbo.bound(pair.model, pair.guide, data()[:1])
    assert one.value.item() == pytest.approx(several.value[0].item(), rel=1e-12)
    assert one.shared.item() == pytest.approx(several.shared.item(), rel=1e-12)
    with pytest.raises(ScopeError, match="plate of size 1, like the plate of one datum"):
        fit(Objective(pair.model, pair.guide), data(), batch_size=1, epochs=1)


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_pair_is_refused_in_words(make):
    pair = make()
    with pytest.raises(ValueError, match=pair.refused) as error:
        loss_and_gradients(TraceTopKEnum_ELBO(None, closed_form=()), pair)
    if pair.stock:
        with pytest.raises((ValueError, NotImplementedError), match=pair.stock):
            loss_and_gradients(stock_elbo(pair), pair)
        return
    assert isinstance(error.value, ScopeError)
    message = str(error.value)
    assert (
        message.count("Objective(elbo=pyro.infer.TraceEnum_ELBO") == 1
        and "Trace Shapes" not in message
    )


LABEL_OF_MANY_DATA = [label_of_groups, another_plate_depends_on_the_label]
"""What all data share and what is a datum's have two weights in a batch, and stock Pyro sums over a label of one scale."""


@pytest.mark.parametrize(
    "make",
    [make for make in REFUSED if not make().stock and make not in LABEL_OF_MANY_DATA],
    ids=lambda make: make.__name__,
)
def test_the_way_out_trains_what_is_refused(make):
    """Under stock Pyro's ELBO: the loss per datum is Pyro's, and `fit` runs."""
    pair = make()
    stock, expected = loss_and_gradients(stock_elbo(pair), pair)
    objective = Objective(pair.model, pair.guide, elbo=stock_elbo(pair))
    torch.manual_seed(1)
    parts = objective.parts(Batch(x_unlabeled=data()))
    assert parts.keys() == {"unlabeled"}
    assert parts["unlabeled"].item() == pytest.approx(stock.item() / B, rel=1e-10)
    parameters = [*pair.model.parameters(), *pair.guide.parameters()]
    found = torch.autograd.grad(parts["unlabeled"], parameters, allow_unused=True)
    for gradient, total in zip(found, expected, strict=True):
        assert torch.allclose(
            torch.zeros(()) if gradient is None else gradient, total / B, rtol=1e-9, atol=1e-9
        )
    assert fit(objective, data(), epochs=2)["loss"][-1] is not None
    for call in (
        lambda: objective.bound(data()),
        lambda: Objective(pair.model, pair.guide, elbo=stock_elbo(pair), joint_pass=True),
    ):
        with pytest.raises(ValueError, match="bound per datum"):
            call()
    with pytest.raises(ValueError, match=pair.refused):
        bounds(objective, data())


# --- where the programs' first argument does not count the data -------------------------------------------------------


class Given(PyroModule):
    """A program that gets its data in another way than as the first argument."""

    def __init__(self, program: Any, data_of: Callable[..., Tensor]) -> None:
        super().__init__()
        self.program, self.data_of = program, data_of

    def forward(self, *args: Any, **kwargs: Any) -> None:
        self.program(self.data_of(*args, **kwargs))


WAYS = {
    "by keyword": (lambda x: x, (), {"x": data()}),
    "in a dict": (lambda batch: batch["x"], ({"x": data()},), {}),
    "in a closure": (data, (), {}),
    "columns first": (lambda x: x.T, (data().T,), {}),
}


def several_particles(
    importance_weighted: bool, data_of: Callable[..., Tensor] | None, *args, **kwargs
) -> Tensor:
    """Losses over 100 seeds, of programs whose data come in a way of their own, or as the first argument."""

    def model(s, x, y):
        with pyro.plate("components", 4):
            w = pyro.sample("w", dist.Normal(0.0, 2.0))
        with plate(x):
            z = pyro.sample("z", normal(torch.zeros(2)))
            pyro.sample("x", normal(column(w.sum() * s.m + z.sum(-1))), obs=x)

    def guide(s, x, y):
        with pyro.plate("components", 4):
            pyro.sample("w", dist.Normal(s.b, 0.5))
        with plate(x):
            pyro.sample("z", normal(x[:, :2] * s.b))

    programs = [Program(model, m=1.0), Program(guide, a=0.5, b=0.3)]
    if data_of is not None:
        programs = [Given(p, data_of) for p in programs]
    elbo = TraceTopKEnum_ELBO(None, num_particles=3, importance_weighted=importance_weighted)
    runs = []
    for seed in range(100):  # the components counted as data are then 8.7 standard errors away
        torch.manual_seed(seed)
        with torch.no_grad():
            runs.append(elbo.differentiable_loss(*programs, *args, **kwargs))
    return torch.stack(runs)


@cache
def several_particles_of_the_first_argument(importance_weighted: bool) -> Tensor:
    return several_particles(importance_weighted, None, data())


@pytest.mark.parametrize(("data_of", "args", "kwargs"), WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("importance_weighted", [False, True])
def test_several_particles_tell_data_from_components_however_data_are_given(
    importance_weighted, data_of, args, kwargs
):
    """A latent in a plate of its own is drawn once a run, and those of the data S times."""
    theirs = several_particles(importance_weighted, data_of, *args, **kwargs)
    losses = [several_particles_of_the_first_argument(importance_weighted), theirs]
    difference = losses[0] - losses[1]
    error = torch.hypot(*(loss.std() / len(loss) ** 0.5 for loss in losses))
    assert difference.mean().abs() < 4 * error


@pytest.mark.parametrize(
    "family", [dist.Poisson(2.0), dist.Normal(0.0, 1.0)], ids=["Poisson", "Normal"]
)
def test_a_marked_model_site_without_finite_support_is_refused(family):
    """Stock Pyro raises NotImplementedError; it must not be drawn from the prior in silence."""

    def model(s, x, y):
        with plate(x):
            n = pyro.sample("n", family, infer=ENUMERATE)
            pyro.sample("x", normal(column(n * s.m)), obs=x)

    pair = Pair(Program(model, m=1.0), Program(lambda s, x, y: None, a=0.0))
    with pytest.raises(NotImplementedError):
        loss_and_gradients(stock_elbo(pair), pair)
    with pytest.raises(ScopeError, match="'n' is marked for enumeration, but"):
        loss_and_gradients(TraceTopKEnum_ELBO(None), pair)


# --- what has no loss per datum ----------------------------------------------------------------------------------------


def subsample_drawn_by_the_plate() -> Pair:
    def model(s, x, y):
        with pyro.plate("data", len(x), subsample_size=4) as rows:
            pyro.sample("x", normal(s.m * torch.ones(D)), obs=x[rows])

    return Pair(Program(model, m=1.0), Program(lambda s, x, y: None, a=0.1))


def regression_without_a_plate() -> Pair:
    def model(s, x, y):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        pyro.sample("t", dist.Normal(x[:, 0] * w * s.m, 1.0).to_event(1), obs=x[:, 1])

    return Pair(
        Program(model, m=1.0),
        Program(lambda s, x, y: pyro.sample("w", dist.Normal(s.a, 1.0)), a=0.1),
    )


def data_one_by_one() -> Pair:
    def model(s, x, y):
        for i in pyro.plate("data", len(x)):
            pyro.sample(f"x{i}", normal(s.m * torch.ones(D)), obs=x[i])

    return Pair(Program(model, m=1.0), Program(lambda s, x, y: None, a=0.1))


@pytest.mark.parametrize(
    "make",
    [subsample_drawn_by_the_plate, regression_without_a_plate, data_one_by_one],
    ids=lambda m: m.__name__,
)
@pytest.mark.parametrize("stock", [False, True])
def test_fit_refuses_a_pair_whose_plate_is_not_of_the_batch(make, stock):
    pair = make()
    objective = Objective(pair.model, pair.guide, elbo=stock_elbo(pair) if stock else None)
    with pytest.raises(
        ValueError,
        match=r"no site is inside a plate of size 6|should have \(\*, 6\), one value per datum",
    ):
        fit(objective, data(), epochs=1)


@pytest.mark.parametrize("size", [4, 5])
def test_stock_elbo_weighs_a_plate_that_is_as_large_as_the_batch_by_chance(size):
    """KL(W) counts once in the data set, whether or not there are as many components as data in the batch."""

    def program(body, in_plate, **parameters):
        def inside(s, x, y):
            if in_plate:
                with pyro.plate("components", size):
                    w = pyro.sample("w", dist.Normal(*body(s)))
            else:
                loc, scale = body(s)
                w = pyro.sample("w", normal(torch.as_tensor(loc).expand(size), scale))
            if hasattr(s, "m"):
                with plate(x):
                    pyro.sample("x", normal(column(w.sum() * s.m * torch.ones(len(x)))), obs=x)

        return Program(inside, **parameters)

    losses = []
    for in_plate in (False, True):
        model = program(lambda s: (0.0, 2.0), in_plate, m=1.0)
        guide = program(lambda s: (s.b, 0.5), in_plate, a=0.5, b=0.2)
        objective = Objective(
            model, guide, elbo=stock_elbo(Pair(model, guide)), unlabeled_weight=0.5
        )
        objective.sizes = 0, 100
        batch = Batch(x_unlabeled=data(4))
        objective.check(batch)
        torch.manual_seed(0)
        losses.append(objective(batch, kl_weight=0.3).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_a_bound_of_trained_pyro_params_is_refused():
    """It would be of their initial values."""

    def model(x):
        loc = pyro.param("loc of the test", torch.zeros(()))
        with plate(x):
            pyro.sample("x", normal(loc.expand(D)), obs=x)

    pyro.clear_param_store()
    elbo = TraceTopKEnum_ELBO()
    untrained = elbo.bound(model, lambda x: None, data())
    assert untrained.value.shape == (B,)
    svi = pyro.infer.SVI(model, lambda x: None, pyro.optim.Adam({"lr": 0.1}), elbo)
    svi.step(data())
    for call in (elbo.bound, elbo.log_evidence):
        with pytest.raises(ValueError, match=r"pyro.param\('loc of the test'\) has been trained"):
            call(model, lambda x: None, data())
    pyro.clear_param_store()

"""The zoo: every method as a row, the only module that knows models and guides.

A method is a function that puts conditionals into a model and a guide, and these with terms into an `Objective`. Options
that many methods share come in groups, `Networks`, `Loss` and `Sum`; a method takes the groups it wants and adds its own.
All of them are keyword arguments of `build`, on the command line as in Python; a row adds the training that suits it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any, Literal, get_type_hints

import torch
import zuko
from torch import nn

from pyro_ssl import guides, models
from pyro_ssl.checks import check_positive
from pyro_ssl.conditionals import (
    Bernoulli,
    ClassPrior,
    Conditional,
    Gaussian,
    Normal,
    OneHotCategorical,
    StandardNormal,
)
from pyro_ssl.elbo import TraceTopEnum_ELBO
from pyro_ssl.features import Features
from pyro_ssl.flows import Flow, VampPrior
from pyro_ssl.networks import MLP, ConvDecoder, ConvEncoder, Shape, as_shape
from pyro_ssl.objective import Objective
from pyro_ssl.terms import L2, Adversary, Balance, Entropy, LabelLogProb, MutualInformation, Term
from pyro_ssl.weights import Slots

Network = Literal["mlp", "conv"]
Likelihood = Literal["bernoulli", "gaussian"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"softplus": nn.Softplus, "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}
Activation = Literal["softplus", "relu", "silu", "tanh"]


@dataclass(frozen=True)
class Networks:
    """What kind of network every conditional of a method gets, so that a method names only inputs and outputs.

    Arguments:
        x_shape: Event shape of x, `(D,)` or `(C, H, W)`.
        classes: K.
        network: `mlp`, or `conv` for images.
        hidden: Widths of the hidden layers.
        classifier_hidden: Those of the classifier, where they are others.
        activation: Of all hidden layers.
        likelihood: p(x|.): `bernoulli` for values in [0, 1], `gaussian`.
        sigma: The Gaussian's standard deviation; None learns it.
        regression: y is a real vector, of size `classes`, and not a class; it has no balance.
        noise: Standard deviation of the noise added to x in training where it is classified.
        dropout: Probability of dropping a hidden unit of the classifier in training.
        batch_norm: Batch norm in all networks, but for convolutional decoders; where y is enumerated its statistics are weighed
            by q(y|x).
    """

    x_shape: tuple[int, ...]
    classes: int
    network: Network = "mlp"
    hidden: Sequence[int] = (500,)
    classifier_hidden: Sequence[int] | None = None
    activation: Activation = "relu"
    likelihood: Likelihood = "gaussian"
    sigma: float | None = 0.7
    regression: bool = False
    noise: float = 0.3
    dropout: float = 0.3
    batch_norm: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("network", self.network, ("mlp", "conv")),
            ("activation", self.activation, ACTIVATIONS),
            ("likelihood", self.likelihood, ("bernoulli", "gaussian")),
        ):
            if value not in known:
                raise ValueError(f"{name} should be one of {', '.join(known)}, got {value!r}")
        check_sizes("hidden", self.hidden)
        check_sizes("classifier_hidden", self.classifier_hidden or ())
        if not self.noise >= 0 or not 0 <= self.dropout < 1:
            raise ValueError(f"noise should be 0 or above and dropout in [0, 1), got {self.noise} and {self.dropout}")

    def mlp(self, inputs: Sequence[Shape], out: Shape) -> MLP:
        """Between latent variables."""
        return MLP(list(inputs), out, self.hidden, activation=self._activation, batch_norm=self.batch_norm)

    def encoder(self, others: Sequence[Shape], out: Shape, **regularisers: Any) -> nn.Module:
        """From x and others to `out`."""
        kind = {"mlp": MLP, "conv": ConvEncoder}[self.network]
        chosen = {"hidden": self.hidden, "activation": self._activation, "batch_norm": self.batch_norm} | regularisers
        return kind([self.x_shape, *others], out, **chosen)

    @property
    def _of_classifier(self) -> Sequence[int]:
        return self.hidden if self.classifier_hidden is None else self.classifier_hidden

    @property
    def _activation(self) -> type[nn.Module]:
        return ACTIVATIONS[self.activation]

    def p_y(self) -> ClassPrior:
        """The uniform prior over classes."""
        return ClassPrior(self.classes)

    def p_x(self, *inputs: Shape) -> Conditional:
        """x given inputs."""
        if self.network == "conv":
            decoder: nn.Module = ConvDecoder(
                list(inputs), self.x_shape, hidden=self.hidden, activation=self._activation
            )
        else:
            decoder = self.mlp(inputs, self.x_shape)
        event_dim = len(self.x_shape)
        if self.likelihood == "bernoulli":
            return Bernoulli(decoder, event_dim)
        learned = self.sigma is None
        return Gaussian(decoder, event_dim, sigma=1.0 if self.sigma is None else self.sigma, learn_sigma=learned)

    def q_y(self, *others: Shape) -> Conditional:
        """y given x and others."""
        regularisers = {"noise": self.noise, "dropout": self.dropout, "hidden": self._of_classifier}
        if self.regression:
            return Normal(self.encoder(others, 2 * self.classes, **regularisers))
        return OneHotCategorical(self.encoder(others, self.classes, **regularisers))

    def p_y_of(self, *latents: Shape) -> OneHotCategorical:
        """One-hot y given latent variables, with the dropout of q(y|x)."""
        chosen = {"activation": self._activation, "dropout": self.dropout, "batch_norm": self.batch_norm}
        return OneHotCategorical(MLP(list(latents), self.classes, self._of_classifier, **chosen))

    def q_z(self, z_dim: int, *others: Shape, noise: bool = False) -> Normal:
        """z given x and others; x with noise where z is what is classified."""
        return Normal(self.encoder(others, 2 * z_dim, noise=self.noise if noise else 0.0))


@dataclass(frozen=True)
class Loss:
    """What is added to the bounds, and how these are weighed.

    Arguments:
        alpha: Weight of -log q(y|x), on the mean over labeled data.
        labeled: Weight of the labeled bound.
        unlabeled: Weight of the unlabeled bound.
        balance: Weight of minus the entropy of q(y|x)'s mean on unlabeled data: classes are equally frequent.
        entropy: Weight of H(q(y|x)) on unlabeled data, MIER's beta.
        mutual_information: Weight of -I(y;x) on unlabeled data, MIER's gamma.
        l2: Weight of half the squared norm of all networks' weights, but for random ones.
    """

    alpha: float = 1.0
    labeled: float = 1.0
    unlabeled: float = 1.0
    balance: float = 5.0
    entropy: float = 0.0
    mutual_information: float = 0.0
    l2: float = 0.0

    def objective(
        self,
        model: nn.Module,
        guide: nn.Module,
        elbo: TraceTopEnum_ELBO,
        others: Sequence[Term] = (),
        **arguments: Any,
    ) -> Objective:
        """The pair's objective with the terms of this loss, and others."""
        terms = [
            LabelLogProb(self.alpha),
            Balance(self.balance),
            Entropy(self.entropy),
            MutualInformation(self.mutual_information),
            L2(nn.ModuleList([model, guide]), self.l2),
            *others,
        ]
        return Objective(
            model,
            guide,
            [term for term in terms if term.weight],
            labeled=self.labeled,
            unlabeled=self.unlabeled,
            elbo=elbo,
            **arguments,
        )


@dataclass(frozen=True)
class Codes:
    """What family the code's posterior and prior are of.

    Arguments:
        flow: Autoregressive transforms (zuko's) after the Gaussian q(z|.).
        prior: p(z): `normal`, N(0, I); `vamp`, the mean of q(z|.) at trained pseudo-inputs.
        class_prior: p(z|y) in place of p(z): a Gaussian per class, or the pseudo-inputs under each class.
        pseudo_inputs: Their number.
    """

    flow: int = 0
    prior: Literal["normal", "vamp"] = "normal"
    class_prior: bool = False
    pseudo_inputs: int = 50

    def __post_init__(self) -> None:
        if self.prior not in ("normal", "vamp"):
            raise ValueError(f"prior should be normal or vamp, got {self.prior!r}")
        if not isinstance(self.flow, int) or self.flow < 0:
            raise ValueError(f"flow should be a number of transforms, 0 or above, got {self.flow!r}")

    def q_z(self, base: Normal, z_dim: int) -> nn.Module:
        """The posterior: base, and the transforms after it."""
        if not self.flow:
            return base
        width = max(64, 2 * z_dim)
        return Flow(base, zuko.flows.MAF(z_dim, transforms=self.flow, hidden_features=(width,)).transform)

    def p_z(self, z_dim: int, q_z: nn.Module, inputs: Sequence[Shape]) -> nn.Module:
        """The prior; `inputs` are the event shapes of what q_z is given, with a class_prior y last."""
        if self.prior == "vamp":
            return VampPrior(q_z, inputs, self.pseudo_inputs, by_class=self.class_prior)
        return Normal(MLP(inputs[-1], 2 * z_dim, ())) if self.class_prior else StandardNormal(z_dim)


@dataclass(frozen=True)
class RandomWeights:
    """Weights of the model's networks with a prior N(0, s^2) and a mean-field posterior, in place of point estimates.

    Arguments:
        bayesian: Names of the model's conditionals whose linear layers have random weights, such as (p_y,).
        prior_scale: Standard deviation s of the prior over a weight.
        log_variance: Start of the posterior's log-variance.
        local: Local reparameterisation: draw what the weights make for each datum, not the weights.
        adapted: Batch norm behind random weights takes its statistics from their means, not from a draw.
    """

    bayesian: Sequence[str] = ()
    prior_scale: float = 1.0
    log_variance: float = -10.0
    local: bool = False
    adapted: bool = True

    def pair(self, model: nn.Module, guide: nn.Module) -> tuple[nn.Module, nn.Module]:
        """The pair, with random weights if there shall be any."""
        if not self.bayesian:
            return model, guide
        shared = {id(part) for part in guide.modules()}
        parts = [(name, part) for name, part in model.named_children() if isinstance(part, Conditional)]
        known = [name for name, part in parts if id(part) not in shared]
        names = self.bayesian
        if not isinstance(names, Sequence) or isinstance(names, str) or not set(names) <= set(known):
            raise ValueError(
                f"bayesian should name conditionals of the model, of {', '.join(known)}; got {self.bayesian!r}"
            )
        slots = Slots(*(getattr(model, name) for name in dict.fromkeys(names)))
        return (
            models.Bayesian(model, slots, self.prior_scale),
            guides.MeanField(guide, slots.initial, self.log_variance, local=self.local, adapted=self.adapted),
        )


@dataclass(frozen=True)
class Sum:
    """How the bound sums over classes and samples.

    Arguments:
        top: Sum over this many of the likeliest classes and one drawn; None (null on the command line) sums over all, "auto"
            over as many as hold most of q(y|x).
        shared_noise: One noise in z for all classes of a datum, which lowers the variance of their differences.
        closed_form: KL terms in closed form, where that is exact, in place of a sample of them.
        num_particles: Samples of z per class.
        importance_weighted: The importance-weighted bound over these samples, in place of their mean.
        free_bits: The KL of a continuous latent counts at least so many nats per datum.
    """

    top: int | None | Literal["auto"] = "auto"
    shared_noise: bool = True
    closed_form: bool = True
    num_particles: int = 1
    importance_weighted: bool = False
    free_bits: float = 0.0

    def elbo(self) -> TraceTopEnum_ELBO:
        """The bound."""
        return TraceTopEnum_ELBO(
            self.top,
            shared_noise=self.shared_noise,
            num_particles=self.num_particles,
            importance_weighted=self.importance_weighted,
            closed_form="auto" if self.closed_form else (),
            free_bits=self.free_bits,
        )


FEW_LABELS: dict[str, Any] = {"epochs": 32, "batch_size": 100, "labeled_batch_size": 30, "lr": 3e-3, "ema": 0.999}
"""Training with few labels and much unlabeled data: small steps, many of them, and the average of their weights."""


@dataclass(frozen=True)
class Method:
    """A row of the table of methods.

    Arguments:
        build: `build(x_shape, classes, **options) -> Objective`.
        model: The model's factorisation, for the table.
        guide: The guide's.
        training: Arguments of `fit` that suit it, where they differ from `fit`'s own.
        unlabeled: Whether it learns from data without labels.
    """

    build: Callable[..., Objective]
    model: str
    guide: str
    training: dict[str, Any] = field(default_factory=dict)
    unlabeled: bool = True


def check_sizes(name: str, sizes: Any) -> None:
    """Raise ValueError unless it is a sequence of whole numbers above 0."""
    if not isinstance(sizes, Sequence) or not all(isinstance(s, int) and s > 0 for s in sizes):
        raise ValueError(f"{name} should be a sequence of sizes above 0, such as (500,), got {sizes!r}")


def grouped(
    without: Sequence[str] = (), **defaults: Any
) -> Callable[[Callable[..., Objective]], Callable[..., Objective]]:
    """Decorates a function over groups of options and options of its own: a `build` over all of them as keywords.

    Arguments:
        without: Options of the groups that mean nothing to it.
        defaults: Options of the groups whose default is another for this method.
    """

    def decorate(function: Callable[..., Objective]) -> Callable[..., Objective]:
        hints = get_type_hints(function)
        positional = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
        own = [p for p in inspect.signature(function).parameters.values() if p.default is not p.empty]
        groups = [hints[p.name] for p in positional]
        types = {"x_shape": Shape, "classes": int} | {p.name: hints[p.name] for p in own}
        values, docs = {p.name: p.default for p in own}, _documented(function)
        for group in groups:
            of_group = get_type_hints(group)
            for f in fields(group):
                if f.name not in ("x_shape", "classes", *without) and (
                    f.name != "regression" or "regression" in defaults
                ):
                    types[f.name], values[f.name] = of_group[f.name], defaults.get(f.name, f.default)
            docs |= _documented(group)

        def build(x_shape: Shape, classes: int, **options: Any) -> Objective:
            chosen, made = values | options, []
            sizes = {
                n: v for n, v in chosen.items() if n.endswith("_dim") or n in ("draws", "pseudo_inputs", "m1_epochs")
            }
            check_positive(classes=classes, **sizes)
            for group in groups:
                shapes = {"x_shape": as_shape(x_shape), "classes": classes} if group is Networks else {}
                made.append(group(**shapes, **{f.name: chosen[f.name] for f in fields(group) if f.name in values}))
            return function(*made, **{p.name: chosen[p.name] for p in own})

        kind = inspect.Parameter
        positionals = [kind(n, kind.POSITIONAL_OR_KEYWORD, annotation=types[n]) for n in ("x_shape", "classes")]
        keywords = [kind(n, kind.KEYWORD_ONLY, default=v, annotation=types[n]) for n, v in values.items()]
        build.__signature__ = inspect.Signature([*positionals, *keywords])  # type: ignore[attr-defined]
        build.__annotations__, build.__kwdefaults__, build.__name__ = types, dict(values), function.__name__
        lines = [f"    {name}: {docs[name]}" for name in types]
        build.__doc__ = "\n".join([inspect.getdoc(function).partition("\n\nArguments:")[0], "", "Arguments:", *lines])
        return build

    return decorate


def _documented(thing: Any) -> dict[str, str]:
    """What a docstring says of each argument."""
    docs, name = {"x_shape": "Event shape of x, `(D,)` or `(C, H, W)`.", "classes": "K."}, ""
    for line in (inspect.getdoc(thing) or "").partition("Arguments:\n")[2].splitlines():
        if line.startswith("        "):
            docs[name] += " " + line.strip()
        elif line.startswith("    "):
            name, _, text = line.strip().partition(": ")
            docs[name] = text
        elif line:
            break
    return docs


@grouped(without=("likelihood", "sigma", "classifier_hidden"))
def classifier(nets: Networks, *, l2: float = 0.0) -> Objective:
    r"""The supervised baseline, q(y|x) by cross-entropy on the labeled data; its defaults are those of M2's q(y|x).

    Arguments:
        l2: Weight of half the squared norm of the weights.
    """
    q_y = nets.q_y()
    return Objective(None, guides.Classifier(q_y), [LabelLogProb(), *([L2(q_y, l2)] if l2 else [])])


@grouped(
    without=("noise", "dropout", "batch_norm", "class_prior", "classifier_hidden"),
    activation="softplus",
    likelihood="bernoulli",
    sigma=None,
)
def vae(
    nets: Networks,
    codes: Codes,
    *,
    z_dim: int = 50,
    probe_hidden: Sequence[int] = (),
    num_particles: int = 1,
    importance_weighted: bool = False,
) -> Objective:
    r"""M1: a variational autoencoder, and a classifier on its code, which the code does not feel.

    Arguments:
        z_dim: Z.
        probe_hidden: Hidden widths of the classifier on the code; none is logistic regression.
        num_particles: Samples of z.
        importance_weighted: The importance-weighted bound over these samples (IWAE), in place of their mean.
    """
    q_z = codes.q_z(nets.q_z(z_dim), z_dim)
    model = models.VAE(codes.p_z(z_dim, q_z, [nets.x_shape]), nets.p_x(z_dim))
    guide = guides.VAE(q_z, OneHotCategorical(MLP(z_dim, nets.classes, probe_hidden)))
    elbo = TraceTopEnum_ELBO(num_particles=num_particles, importance_weighted=importance_weighted)
    return Objective(model, guide, [LabelLogProb()], elbo=elbo)


@grouped()
def m2(nets: Networks, loss: Loss, sums: Sum, codes: Codes, *, z_dim: int = 50) -> Objective:
    r"""M2, a class and a style make x; the defaults suit images in [0, 1] and few labels.

    Arguments:
        z_dim: Z.
    """
    k = nets.classes
    q_y, p_x = nets.q_y(), nets.p_x(k, z_dim)
    q_z = codes.q_z(nets.q_z(z_dim, k), z_dim)
    model = models.M2(nets.p_y(), codes.p_z(z_dim, q_z, [nets.x_shape, k]), p_x)
    return loss.objective(model, guides.M2(q_y, q_z), sums.elbo())


@grouped()
def m2_adversarial(
    nets: Networks,
    loss: Loss,
    sums: Sum,
    codes: Codes,
    *,
    z_dim: int = 50,
    adversary: float = 1.0,
    adversary_lr: float = 1.0,
) -> Objective:
    r"""M2 and a classifier of its code to play against, so that the style does not tell the class.

    Arguments:
        z_dim: Z.
        adversary: Weight of the game.
        adversary_lr: The adversary's learning rate over the pair's.
    """
    k, q_y = nets.classes, nets.q_y()
    q_z = codes.q_z(nets.q_z(z_dim, k), z_dim)
    model = models.M2(nets.p_y(), codes.p_z(z_dim, q_z, [nets.x_shape, k]), nets.p_x(k, z_dim))
    f = OneHotCategorical(nets.mlp([z_dim], k))
    return loss.objective(model, guides.M2(q_y, q_z), sums.elbo(), others=[Adversary(f, adversary, adversary_lr)])


@grouped(likelihood="bernoulli", noise=0.0)
def m1_m2(
    nets: Networks,
    loss: Loss,
    sums: Sum,
    codes: Codes,
    *,
    z_dim: int = 50,
    z1_dim: int = 50,
    m1_hidden: Sequence[int] = (500, 500),
    m1_epochs: int = 40,
    sigma1: float | None = 0.5,
) -> Objective:
    r"""M2 on fresh samples of M1's code, which `fit` trains first, on all data.

    Arguments:
        z_dim: Z, of M2.
        z1_dim: Size of M1's code, which is M2's data.
        m1_hidden: Widths of M1's hidden layers.
        m1_epochs: Epochs of M1's training.
        sigma1: Standard deviation of M2's p(z1|y,z); None learns it.
    """
    first = vae(
        nets.x_shape, nets.classes, z_dim=z1_dim, network=nets.network, hidden=m1_hidden, likelihood=nets.likelihood,
        sigma=nets.sigma,
    )  # fmt: skip
    features = Features(first, z1_dim, {"epochs": m1_epochs, "batch_size": 200, "lr": 1e-3})
    inner = replace(nets, x_shape=(z1_dim,), network="mlp", likelihood="gaussian", sigma=sigma1)
    k, q_y = nets.classes, inner.q_y()
    q_z = codes.q_z(inner.q_z(z_dim, k), z_dim)
    model = models.M2(inner.p_y(), codes.p_z(z_dim, q_z, [z1_dim, k]), inner.p_x(k, z_dim))
    return loss.objective(model, guides.M2(q_y, q_z), sums.elbo(), features=features)


@grouped(hidden=(500, 500))
def adgm(
    nets: Networks, loss: Loss, sums: Sum, codes: Codes, *, z_dim: int = 100, a_dim: int = 100, draws: int = 100
) -> Objective:
    r"""The auxiliary deep generative model: M2 with a richer guide, by an auxiliary variable that it draws first.

    Arguments:
        z_dim: Z.
        a_dim: A, of the auxiliary variable.
        draws: Samples of the auxiliary variable that a prediction averages over.
    """
    k, q_y = nets.classes, nets.q_y(a_dim)
    q_z = codes.q_z(nets.q_z(z_dim, a_dim, k), z_dim)
    p_z, p_a = codes.p_z(z_dim, q_z, [nets.x_shape, a_dim, k]), Normal(nets.encoder([k, z_dim], 2 * a_dim))
    model = models.ADGM(nets.p_y(), p_z, nets.p_x(k, z_dim), p_a)
    return loss.objective(model, guides.Auxiliary(nets.q_z(a_dim, noise=True), q_y, q_z, draws), sums.elbo())


@grouped(hidden=(500, 500))
def sdgm(
    nets: Networks, loss: Loss, sums: Sum, codes: Codes, *, z_dim: int = 100, a_dim: int = 100, draws: int = 100
) -> Objective:
    r"""The skip deep generative model: two layers of latents, with a skip past the second.

    Arguments:
        z_dim: Z.
        a_dim: A, of the second layer.
        draws: Samples of the second layer that a prediction averages over.
    """
    k, q_y = nets.classes, nets.q_y(a_dim)
    q_z = codes.q_z(nets.q_z(z_dim, a_dim, k), z_dim)
    p_z, p_a = codes.p_z(z_dim, q_z, [nets.x_shape, a_dim, k]), Normal(nets.mlp([k, z_dim], 2 * a_dim))
    model = models.SDGM(nets.p_y(), p_z, p_a, nets.p_x(a_dim, k, z_dim))
    return loss.objective(model, guides.Auxiliary(nets.q_z(a_dim, noise=True), q_y, q_z, draws), sums.elbo())


@grouped()
def lvae(nets: Networks, loss: Loss, sums: Sum, *, z_dims: Sequence[int] = (32, 16, 8)) -> Objective:
    r"""The ladder variational autoencoder with a class: a path up, merged on the way down with the model's conditionals.

    Arguments:
        z_dims: Sizes of the latents, lowest first.
    """
    check_sizes("z_dims", z_dims)
    if not z_dims or not nets.hidden:
        raise ValueError(f"z_dims and hidden should not be empty, got {z_dims!r} and {nets.hidden!r}")
    width, q_y = nets.hidden[-1], nets.q_y()
    p_z = [Normal(nets.mlp([above], 2 * here)) for here, above in pairwise(z_dims)]
    model = models.LVAE(nets.p_y(), StandardNormal(z_dims[-1]), p_z, nets.p_x(nets.classes, z_dims[0]))
    up = [nets.encoder([nets.classes], width), *(nets.mlp([width], width) for _ in z_dims[1:])]
    q_z = [Normal(MLP(width, 2 * here, ())) for here in z_dims]
    return loss.objective(model, guides.LVAE(q_y, up, q_z, p_z), sums.elbo())


@grouped(without=("class_prior",), balance=0.0, alpha=0.0, labeled=0.5)
def latent_classifier(
    nets: Networks, loss: Loss, sums: Sum, codes: Codes, *, z_dim: int = 50, draws: int = 100
) -> Objective:
    r"""Paper 003's model: the code determines the class, and both make x; `labeled` is the paper's lambda.

    Arguments:
        z_dim: Z.
        draws: Samples of the code that a prediction averages over.
    """
    p_y = nets.p_y_of(z_dim)
    q_z = codes.q_z(nets.q_z(z_dim, noise=True), z_dim)
    model = models.LatentClassifier(codes.p_z(z_dim, q_z, [nets.x_shape]), p_y, nets.p_x(nets.classes, z_dim))
    return loss.objective(model, guides.LatentClassifier(q_z, p_y, draws), sums.elbo())


@grouped(without=("class_prior",), balance=0.0, alpha=0.0, labeled=0.5)
def latent_classifier_exact(
    nets: Networks, loss: Loss, sums: Sum, codes: Codes, *, z_dim: int = 50, draws: int = 100
) -> Objective:
    r"""The same model under its exact bound: y is summed inside the logarithm, log p(x|z) = log sum_y p(y|z) p(x|y,z).

    Arguments:
        z_dim: Z.
        draws: Samples of the code that a prediction averages over.
    """
    p_y = nets.p_y_of(z_dim)
    q_z = codes.q_z(nets.q_z(z_dim, noise=True), z_dim)
    model = models.LatentClassifier(codes.p_z(z_dim, q_z, [nets.x_shape]), p_y, nets.p_x(nets.classes, z_dim))
    return loss.objective(model, guides.LatentEncoder(q_z, p_y, draws), sums.elbo())


@grouped(without=("class_prior",), balance=0.0, alpha=0.0, labeled=1e-3)
def latent_classifier_simplified(
    nets: Networks, loss: Loss, sums: Sum, codes: Codes, *, z_dim: int = 50, draws: int = 100
) -> Objective:
    r"""Paper 003's simplification: given the code, class and x are independent; `labeled` is the paper's lambda.

    Arguments:
        z_dim: Z.
        draws: Samples of the code that a prediction averages over.
    """
    p_y = nets.p_y_of(z_dim)
    q_z = codes.q_z(nets.q_z(z_dim, noise=True), z_dim)
    model = models.SimplifiedLatentClassifier(codes.p_z(z_dim, q_z, [nets.x_shape]), p_y, nets.p_x(z_dim))
    return loss.objective(model, guides.LatentEncoder(q_z, p_y, draws), sums.elbo())


@grouped(without=("class_prior",), balance=0.0, alpha=0.0, labeled=0.5)
def latent_classifier_split(
    nets: Networks, loss: Loss, sums: Sum, codes: Codes, *, z_y_dim: int = 10, z_dim: int = 50, draws: int = 100
) -> Objective:
    r"""Paper 003's special case: the code has two parts, of which the first determines the class.

    Arguments:
        z_y_dim: Size of the part that determines the class.
        z_dim: Size of the rest.
        draws: Samples of the code that a prediction averages over.
    """
    p_y = nets.p_y_of(z_y_dim)
    q_z_y = codes.q_z(nets.q_z(z_y_dim, noise=True), z_y_dim)
    p_z_y, p_z_u = codes.p_z(z_y_dim, q_z_y, [nets.x_shape]), StandardNormal(z_dim)
    model = models.SplitLatentClassifier(p_z_y, p_z_u, p_y, nets.p_x(z_y_dim, z_dim))
    guide = guides.SplitLatentEncoder(q_z_y, nets.q_z(z_dim, z_y_dim), p_y, draws)
    return loss.objective(model, guide, sums.elbo())


def _sslpe(
    nets: Networks,
    loss: Loss,
    sums: Sum,
    codes: Codes,
    weights: RandomWeights,
    *,
    z_dim: int = 50,
    gibbs_steps: int = 10,
    gibbs_chains: int = 1,
    mixture: bool = False,
) -> Objective:
    r"""Paper 002's model: z makes x, both make y, and the model itself predicts, by Gibbs sampling.

    With `bayesian=(p_y,)`, the default of `sslapd`, p(y|x,z) has random weights, drawn anew in each step of the sampler.

    Arguments:
        z_dim: Z.
        gibbs_steps: Steps of the Gibbs sampler that predicts.
        gibbs_chains: Chains of each datum that a prediction averages.
        mixture: Draw z from the mixture over classes, with its gradient, in place of summing over classes: p(x|z) is
            evaluated once, however many there are. KL warm-up then reaches y too; single gradients can be large, see
            `mixtures.MixtureOfNormals`.

    Raises:
        ValueError: The mixture is asked for with a flow, or for a real y; local weights with an importance-weighted bound;
            MIER of a real y.
    """
    if nets.regression:
        if loss.entropy or loss.mutual_information:
            raise ValueError("entropy and mutual_information are of classes: they go with no regression")
        loss = replace(loss, balance=0.0)
    if weights.local and weights.bayesian and sums.importance_weighted:
        raise ValueError(
            "importance_weighted: weights drawn for each datum would stand inside its logarithm; set local=False"
        )
    if mixture and (codes.flow or nets.regression):
        raise ValueError("mixture is of Gaussians over classes: it goes with neither a flow nor regression")
    k, q_y = nets.classes, nets.q_y()
    q_z = codes.q_z(nets.q_z(z_dim, k), z_dim)
    model = models.SSLPE(codes.p_z(z_dim, q_z, [nets.x_shape, k]), nets.p_x(z_dim), nets.q_y(z_dim))
    pair = weights.pair(model, (guides.Mixture if mixture else guides.M2)(q_y, q_z))
    return loss.objective(*pair, sums.elbo(), gibbs_steps=gibbs_steps, gibbs_chains=gibbs_chains)


sslpe = grouped(without=("class_prior",), regression=False)(_sslpe)
sslapd = grouped(without=("class_prior",), regression=False, bayesian=("p_y",), local=True)(_sslpe)


METHODS: dict[str, Method] = {
    "classifier": Method(
        classifier,
        "",
        "q(y|x)",
        training={"epochs": 1000, "batch_size": 100, "lr": 3e-3, "ema": 0.999},
        unlabeled=False,
    ),
    "vae": Method(vae, "p(z) p(x|z)", "q(z|x)"),
    "m2": Method(m2, "p(y) p(z) p(x|y,z)", "q(y|x) q(z|x,y)", FEW_LABELS),
    "m1_m2": Method(m1_m2, "p(y) p(z) p(z1|y,z), z1 ~ M1", "q(y|z1) q(z|z1,y)", FEW_LABELS),
    "m2_adversarial": Method(m2_adversarial, "p(y) p(z) p(x|y,z)", "q(y|x) q(z|x,y), against f(y|z)", FEW_LABELS),
    "adgm": Method(adgm, "p(y) p(z) p(x|y,z) p(a|x,y,z)", "q(a|x) q(y|x,a) q(z|x,a,y)", FEW_LABELS),
    "sdgm": Method(sdgm, "p(y) p(z) p(a|y,z) p(x|a,y,z)", "q(a|x) q(y|x,a) q(z|x,a,y)", FEW_LABELS),
    "lvae": Method(
        lvae, "p(y) p(z_L) prod p(z_l|z_l+1) p(x|y,z_1)", "q(y|x) q(z_L|x,y) prod q(z_l|z_l+1,x,y)", FEW_LABELS
    ),
    "sslpe": Method(sslpe, "p(z) p(x|z) p(y|x,z)", "q(y|x) q(z|x,y)", FEW_LABELS),
    "sslapd": Method(sslapd, "p(W) p(z) p(x|z) p(y|x,z,W)", "q(W) q(y|x) q(z|x,y)", FEW_LABELS),
    "latent_classifier": Method(latent_classifier, "p(z) p(y|z) p(x|y,z)", "q(z|x) p(y|z)", FEW_LABELS),
    "latent_classifier_exact": Method(latent_classifier_exact, "p(z) p(y|z) p(x|y,z)", "q(z|x)", FEW_LABELS),
    "latent_classifier_simplified": Method(latent_classifier_simplified, "p(z) p(y|z) p(x|z)", "q(z|x)", FEW_LABELS),
    "latent_classifier_split": Method(
        latent_classifier_split, "p(z_y) p(z_u) p(y|z_y) p(x|z_y,z_u)", "q(z_y|x) q(z_u|x,z_y)", FEW_LABELS
    ),
}


def method(name: str) -> Method:
    """The row of a method.

    Raises:
        ValueError: There is none of that name; the message lists those there are.
    """
    if name not in METHODS:
        raise ValueError(f"method should be one of {', '.join(METHODS)}; got {name!r}")
    return METHODS[name]


def options_of(name: str) -> dict[str, Any]:
    """A method's options and their defaults."""
    return dict(method(name).build.__kwdefaults__ or {})


def build(name: str, x_shape: Shape, classes: int, *, seed: int = 0, **options: Any) -> Objective:
    """The objective of a method, its weights drawn by `seed`; the caller's random state is left as it was.

    Raises:
        ValueError: The method is unknown, or an option is.
    """
    row, known = method(name), options_of(name)
    if unknown := sorted(options.keys() - known.keys()):
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return row.build(as_shape(x_shape), classes, **options)

"""The zoo: every method as a row, the only module that knows models and guides.

A method is a function that puts conditionals into a model and a guide, and these with terms into an `Objective`.
Its keyword arguments are its options, on the command line as in Python; its row adds the training that suits it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from pyro_ssl import guides, models
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
from pyro_ssl.networks import MLP, ConvDecoder, ConvEncoder, Shape, as_shape
from pyro_ssl.objective import Objective
from pyro_ssl.terms import L2, Balance, Entropy, LabelLogProb, MutualInformation, Term

Network = Literal["mlp", "conv"]
Likelihood = Literal["bernoulli", "gaussian"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"softplus": nn.Softplus, "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}
Activation = Literal["softplus", "relu", "silu", "tanh"]


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


@dataclass(frozen=True)
class Networks:
    """What kind of network every conditional of a method gets, so that a method names only inputs and outputs.

    Arguments:
        x_shape: Event shape of x, `(D,)` or `(C, H, W)`.
        network: `mlp`, or `conv` for images.
        hidden: Widths of the hidden layers.
        activation: Name of the activation.
    """

    x_shape: tuple[int, ...]
    network: Network
    hidden: Sequence[int]
    activation: Activation

    def __post_init__(self) -> None:
        for name, value, known in (
            ("network", self.network, ("mlp", "conv")),
            ("activation", self.activation, ACTIVATIONS),
        ):
            if value not in known:
                raise ValueError(f"{name} should be one of {', '.join(known)}, got {value!r}")
        if not isinstance(self.hidden, Sequence) or isinstance(self.hidden, str) or min(self.hidden, default=1) < 1:
            raise ValueError(f"hidden should be a sequence of widths above 0, such as (500,), got {self.hidden!r}")

    def encoder(self, others: Sequence[Shape], out: Shape, **regularisers: Any) -> nn.Module:
        """From x and others to `out`."""
        kind = {"mlp": MLP, "conv": ConvEncoder}[self.network]
        return kind(
            [self.x_shape, *others], out, hidden=self.hidden, activation=ACTIVATIONS[self.activation], **regularisers
        )

    def decoder(self, inputs: Sequence[Shape]) -> nn.Module:
        """From latent variables to the parameters of x."""
        kind = {"mlp": MLP, "conv": ConvDecoder}[self.network]
        return kind(list(inputs), self.x_shape, hidden=self.hidden, activation=ACTIVATIONS[self.activation])

    def likelihood(self, inputs: Sequence[Shape], likelihood: Likelihood, sigma: float | None) -> Conditional:
        """p(x|inputs); sigma is the Gaussian's, None to learn it."""
        event_dim = len(self.x_shape)
        if likelihood == "bernoulli":
            return Bernoulli(self.decoder(inputs), event_dim)
        if likelihood != "gaussian":
            raise ValueError(f"likelihood should be bernoulli or gaussian, got {likelihood!r}")
        return Gaussian(
            self.decoder(inputs), event_dim, sigma=1.0 if sigma is None else sigma, learn_sigma=sigma is None
        )


def classifier(
    x_shape: Shape,
    classes: int,
    *,
    network: Network = "mlp",
    hidden: Sequence[int] = (500,),
    activation: Activation = "relu",
    noise: float = 0.3,
    dropout: float = 0.3,
    batch_norm: bool = False,
    l2: float = 0.0,
) -> Objective:
    r"""The supervised baseline, :math:`q(y|x)` by cross-entropy on the labeled data; its defaults are those of M2's q(y|x).

    Arguments:
        x_shape: Event shape of x, `(D,)` or `(C, H, W)`.
        classes: K.
        network: `mlp`, or `conv` for images.
        hidden: Widths of the hidden layers.
        activation: Of all hidden layers.
        noise: Standard deviation of the noise added to x in training.
        dropout: Probability of dropping a hidden unit in training.
        batch_norm: Batch norm in the hidden layers.
        l2: Weight of half the squared norm of the weights.
    """
    nets = Networks(as_shape(x_shape), network, hidden, activation)
    q_y = OneHotCategorical(nets.encoder([], classes, noise=noise, dropout=dropout, batch_norm=batch_norm))
    guide = guides.Classifier(q_y)
    return Objective(None, guide, _used([LabelLogProb(), L2(q_y, l2)]))


def vae(
    x_shape: Shape,
    classes: int,
    *,
    z_dim: int = 50,
    network: Network = "mlp",
    hidden: Sequence[int] = (500,),
    activation: Activation = "softplus",
    likelihood: Likelihood = "bernoulli",
    sigma: float | None = None,
    probe_hidden: Sequence[int] = (),
    num_particles: int = 1,
    importance_weighted: bool = False,
) -> Objective:
    r"""M1: a variational autoencoder, :math:`p(z) p(x|z)`, and a classifier on its code, which the code does not feel.

    Arguments:
        x_shape: Event shape of x, `(D,)` or `(C, H, W)`.
        classes: K.
        z_dim: Z.
        network: `mlp`, or `conv` for images.
        hidden: Widths of the hidden layers.
        activation: Of all hidden layers.
        likelihood: p(x|z): `bernoulli` for values in [0, 1], `gaussian`.
        sigma: The Gaussian's standard deviation; None learns it.
        probe_hidden: Hidden widths of the classifier on the code; none is logistic regression.
        num_particles: Samples of z.
        importance_weighted: The importance-weighted bound over these samples (IWAE), in place of their mean.
    """
    nets = Networks(as_shape(x_shape), network, hidden, activation)
    model = models.VAE(StandardNormal(z_dim), nets.likelihood([z_dim], likelihood, sigma))
    guide = guides.VAE(Normal(nets.encoder([], 2 * z_dim)), OneHotCategorical(MLP(z_dim, classes, probe_hidden)))
    elbo = TraceTopEnum_ELBO(num_particles=num_particles, importance_weighted=importance_weighted)
    return Objective(model, guide, [LabelLogProb()], elbo=elbo)


def m2(
    x_shape: Shape,
    classes: int,
    *,
    z_dim: int = 50,
    network: Network = "mlp",
    hidden: Sequence[int] = (500,),
    activation: Activation = "relu",
    likelihood: Likelihood = "gaussian",
    sigma: float | None = 0.7,
    alpha: float = 1.0,
    labeled: float = 1.0,
    unlabeled: float = 1.0,
    noise: float = 0.3,
    dropout: float = 0.3,
    batch_norm: bool = False,
    balance: float = 5.0,
    entropy: float = 0.0,
    mutual_information: float = 0.0,
    l2: float = 0.0,
    top: int | None | Literal["auto"] = "auto",
    shared_noise: bool = True,
    closed_form: bool = True,
    num_particles: int = 1,
    importance_weighted: bool = False,
) -> Objective:
    r"""M2, :math:`p(y) p(z) p(x|y,z)` with :math:`q(y|x) q(z|x,y)`; the defaults suit images in [0, 1] and few labels.

    Arguments:
        x_shape: Event shape of x, `(D,)` or `(C, H, W)`.
        classes: K.
        z_dim: Z.
        network: `mlp`, or `conv` for images.
        hidden: Widths of the hidden layers.
        activation: Of all hidden layers.
        likelihood: p(x|y,z): `bernoulli` for values in [0, 1], `gaussian`.
        sigma: The Gaussian's standard deviation; None learns it.
        alpha: Weight of -log q(y|x), on the mean over labeled data.
        labeled: Weight of the labeled bound.
        unlabeled: Weight of the unlabeled bound.
        noise: Standard deviation of the noise that q(y|x) adds to x in training.
        dropout: Probability of dropping a hidden unit of q(y|x) in training.
        batch_norm: Batch norm in q(y|x); never in a network that sees y, whose statistics would leak it.
        balance: Weight of minus the entropy of q(y|x)'s mean on unlabeled data: classes are equally frequent.
        entropy: Weight of H(q(y|x)) on unlabeled data, MIER's beta.
        mutual_information: Weight of -I(y;x) on unlabeled data, MIER's gamma.
        l2: Weight of half the squared norm of q(y|x)'s weights.
        top: Sum over this many of the likeliest classes and one drawn; None (null on the command line) sums over all, "auto"
            over as many as hold most of q(y|x).
        shared_noise: One noise in z for all classes of a datum, which lowers the variance of their differences.
        closed_form: KL terms in closed form, where that is exact, in place of a sample of them.
        num_particles: Samples of z per class.
        importance_weighted: The importance-weighted bound over these samples, in place of their mean.
    """
    nets = Networks(as_shape(x_shape), network, hidden, activation)
    q_y = OneHotCategorical(nets.encoder([], classes, noise=noise, dropout=dropout, batch_norm=batch_norm))
    model = models.M2(ClassPrior(classes), StandardNormal(z_dim), nets.likelihood([classes, z_dim], likelihood, sigma))
    guide = guides.M2(q_y, Normal(nets.encoder([classes], 2 * z_dim)))
    terms = [
        LabelLogProb(alpha),
        Balance(balance),
        Entropy(entropy),
        MutualInformation(mutual_information),
        L2(q_y, l2),
    ]
    elbo = TraceTopEnum_ELBO(
        top,
        shared_noise=shared_noise,
        num_particles=num_particles,
        importance_weighted=importance_weighted,
        closed_form="auto" if closed_form else (),
    )
    return Objective(model, guide, _used(terms), labeled=labeled, unlabeled=unlabeled, elbo=elbo)


def _used(terms: Sequence[Term]) -> list[Term]:
    return [term for term in terms if term.weight]


METHODS: dict[str, Method] = {
    "classifier": Method(
        classifier,
        "",
        "q(y|x)",
        training={"epochs": 1000, "batch_size": 100, "lr": 3e-3, "ema": 0.999},
        unlabeled=False,
    ),
    "vae": Method(vae, "p(z) p(x|z)", "q(z|x)"),
    "m2": Method(
        m2,
        "p(y) p(z) p(x|y,z)",
        "q(y|x) q(z|x,y)",
        training={"epochs": 32, "batch_size": 100, "labeled_batch_size": 30, "lr": 3e-3, "ema": 0.999},
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

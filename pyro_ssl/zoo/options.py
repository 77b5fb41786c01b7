"""Options that many methods share, in groups; and how a function over groups becomes a method's `build`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_type_hints

from torch import nn

from pyro_ssl.distributions.conditionals import (
    Bernoulli,
    Conditional,
    Gaussian,
    Normal,
    OneHotCategorical,
)
from pyro_ssl.distributions.flows import Flow
from pyro_ssl.distributions.priors import ClassPrior, StandardNormal, VampPrior
from pyro_ssl.infer.elbo import TraceTopKEnum_ELBO
from pyro_ssl.nn.augmentation import Noise
from pyro_ssl.nn.backbones import Backbone
from pyro_ssl.nn.layers import Shape, as_shape, check_shape
from pyro_ssl.nn.networks import MLP, ConvDecoder, ConvEncoder
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.objectives.terms import (
    L2,
    ClassBalance,
    Consistency,
    Entropy,
    LabelLogProb,
    MutualInformation,
    Term,
)
from pyro_ssl.utils.arguments import check_kind, check_positive, check_probs, looks_channels_last
from pyro_ssl.utils.context import preserve_validation

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
        classifier_network: The classifier's kind, where it is another; of q(z|x) too where the code is what is classified.
        backbone: The classifier's network in place of these, for images: `cnn-32`, `resnet18`, `resnet50`, `wrn-28-10`, `wrn-16-4`.
        channels: Of convolutional encoders, one number per layer with stride 2; decoders mirror it.
        activation: Of all hidden layers.
        likelihood: p(x|.): `bernoulli` for values in [0, 1], `gaussian`.
        sigma: The Gaussian's standard deviation; None learns it.
        noise: Standard deviation of the noise added to x in training where it is classified.
        warp: Size of the random affine map of an image in training where it is classified, see `augment.warped`.
        crop: Largest shift of an image in training where it is classified, in whole pixels, over a border of zeros.
        flip: Mirror half of the images in training where they are classified.
        dropout: Probability of dropping a hidden unit of the classifier in training.
        batch_norm: Batch norm in all networks, but for convolutional decoders and what follows convolutions; where y is
            enumerated its statistics are weighed by q(y|x).
        class_probs: How frequent the classes are, for p(y), where the model has one, and for `balance`; None is equally.
    """

    x_shape: tuple[int, ...]
    classes: int
    network: Network = "mlp"
    hidden: Sequence[int] = (500,)
    classifier_hidden: Sequence[int] | None = None
    classifier_network: Network | None = None
    backbone: str | None = None
    channels: Sequence[int] = (32, 64)
    activation: Activation = "relu"
    likelihood: Likelihood = "gaussian"
    sigma: float | None = 0.7
    noise: float = 0.3
    warp: float = 0.0
    crop: int = 0
    flip: bool = False
    dropout: float = 0.3
    batch_norm: bool = False
    class_probs: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check_shape("x_shape", self.x_shape)
        if self.class_probs is not None:
            object.__setattr__(self, "class_probs", check_probs(self.class_probs, self.classes))
        check_sizes("hidden", self.hidden)
        check_sizes("classifier_hidden", self.classifier_hidden or ())
        check_sizes("channels", self.channels)
        if "conv" in (self.network, self.classifier_network) and (len(self.x_shape) != 3 or not self.channels):
            raise ValueError(
                f"network: conv should have an image (C, H, W) and channels; got {self.x_shape}, {self.channels}"
            )
        if not self.noise >= 0 or not 0 <= self.dropout < 1:
            raise ValueError(f"noise should be 0 or above and dropout in [0, 1), got {self.noise} and {self.dropout}")
        if not self.warp >= 0 or self.crop < 0:
            raise ValueError(f"warp and crop should be 0 or above, got {self.warp} and {self.crop}")
        if (self.warp or self.crop or self.flip) and len(self.x_shape) != 3:
            raise ValueError(f"warp, crop and flip are of images (C, H, W); got data {self.x_shape}")
        if self.crop and self.crop >= min(self.x_shape[1:]):
            raise ValueError(f"crop should be less than the image, got {self.crop} for data {self.x_shape}")
        self._check_channels_first()

    def _check_channels_first(self) -> None:
        convolves = "conv" in (self.network, self.classifier_network) or self.backbone is not None
        augments = bool(self.warp or self.crop or self.flip)
        if (convolves or augments) and looks_channels_last(self.x_shape):
            raise ValueError(
                f"x_shape should be (C, H, W) for convolutions, warp, crop and flip; {self.x_shape} "
                "looks like (H, W, C): move the channels to the front, x.transpose(0, 3, 1, 2)"
            )

    def mlp(self, inputs: Sequence[Shape], out: Shape) -> MLP:
        """Between latent variables."""
        return MLP(list(inputs), out, self.hidden, activation=self._activation, batch_norm=self.batch_norm)

    def encoder(
        self, others: Sequence[Shape], out: Shape, network: Network | None = None, **regularisers: Any
    ) -> nn.Module:
        """From x and others to `out`."""
        chosen: dict[str, Any] = {"hidden": self.hidden, "activation": self._activation, "batch_norm": self.batch_norm}
        chosen |= regularisers
        if (network or self.network) == "conv":
            return ConvEncoder([self.x_shape, *others], out, self.channels, **chosen)
        return MLP([self.x_shape, *others], out, **chosen)

    def classifier_network_of(
        self, others: Sequence[Shape], out: Shape, dropout: float, **regularisers: Any
    ) -> nn.Module:
        """From x, where it is what is classified, and others: by the classifier's network, with noise in training."""
        noise = Noise(self.noise, warp=self.warp, crop=self.crop, flip=self.flip)
        if self.backbone is not None:
            return Backbone(self.backbone, [self.x_shape, *others], out, dropout=dropout, noise=noise)
        return self.encoder(others, out, self.classifier_network, noise=noise, dropout=dropout, **regularisers)

    @property
    def _classifier_hidden(self) -> Sequence[int]:
        return self.hidden if self.classifier_hidden is None else self.classifier_hidden

    @property
    def _activation(self) -> type[nn.Module]:
        return ACTIVATIONS[self.activation]

    def p_y(self, *, learn: bool = False) -> ClassPrior:
        """The prior over classes."""
        return ClassPrior(self.classes if self.class_probs is None else self.class_probs, learn=learn)

    def p_x(self, *inputs: Shape) -> Conditional:
        """x given inputs."""
        if self.network == "conv":
            decoder: nn.Module = ConvDecoder(
                list(inputs), self.x_shape, self.channels[::-1], hidden=self.hidden, activation=self._activation
            )
        else:
            decoder = self.mlp(inputs, self.x_shape)
        event_dim = len(self.x_shape)
        if self.likelihood == "bernoulli":
            return Bernoulli(decoder, event_dim)
        learned = self.sigma is None
        return Gaussian(decoder, event_dim, sigma=1.0 if self.sigma is None else self.sigma, learn_sigma=learned)

    def q_y(self, *others: Shape, real: bool = False) -> Conditional:
        """y given x and others: one-hot, or a real vector of size `classes`."""
        out = 2 * self.classes if real else self.classes
        network = self.classifier_network_of(others, out, self.dropout, hidden=self._classifier_hidden)
        return Normal(network) if real else OneHotCategorical(network)

    def p_y_of(self, *latents: Shape) -> OneHotCategorical:
        """One-hot y given latent variables; without dropout, so that it is the same in model and guide."""
        chosen: dict[str, Any] = {"activation": self._activation, "batch_norm": self.batch_norm}
        return OneHotCategorical(MLP(list(latents), self.classes, self._classifier_hidden, **chosen))

    def q_z(self, z_dim: int, *others: Shape) -> Normal:
        """z given x and others."""
        return Normal(self.encoder(others, 2 * z_dim))

    def q_z_classified(self, z_dim: int, dropout: float = 0.0) -> Normal:
        """z given x, where z is what is classified: with the classifier's network and noise."""
        return Normal(self.code_network(2 * z_dim, dropout))

    def code_network(self, out: int, dropout: float) -> nn.Module:
        """From x to a code that is classified, by the classifier's network and noise, in full precision."""
        return self.classifier_network_of([], out, dropout, precise=True)


@dataclass(frozen=True)
class Loss:
    """What is added to the bounds, and how these are weighed.

    Arguments:
        alpha: Weight of -log q(y|x), on the mean over labeled data.
        labeled_weight: Weight of the labeled bound; None is N_l / N_u, of the papers' sums over the data (1 if nothing is unlabeled).
        unlabeled_weight: Weight of the unlabeled bound.
        balance: Weight of the KL of q(y|x)'s mean on unlabeled data to `class_probs`, up to a constant.
        entropy: Weight of H(q(y|x)) on unlabeled data, MIER's beta.
        mutual_information: Weight of -I(y;x) on unlabeled data, MIER's gamma.
        consistency: Weight of -log q(y|x) of noisy unlabeled data for the y that is certain without noise.
        l2: Weight of half the squared norm of all networks' weights, but for random ones.
        class_probs: How frequent the classes are, for p(y), where the model has one, and for `balance`; None is equally.
    """

    alpha: float = 1.0
    labeled_weight: float | None = None
    unlabeled_weight: float = 1.0
    balance: float = 5.0
    entropy: float = 0.0
    mutual_information: float = 0.0
    consistency: float = 0.0
    l2: float = 0.0
    class_probs: Sequence[float] | None = None

    def __post_init__(self) -> None:
        for name in ("alpha", "balance", "entropy", "mutual_information", "consistency", "l2"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} should be 0 or above, got {getattr(self, name)}")

    def objective(
        self,
        model: nn.Module,
        guide: nn.Module,
        elbo: TraceTopKEnum_ELBO,
        others: Sequence[Term] = (),
        **arguments: Any,
    ) -> Objective:
        """The pair's objective with the terms of this loss, and others."""
        terms = [
            LabelLogProb(self.alpha),
            ClassBalance(self.balance, self.class_probs),
            Entropy(self.entropy),
            MutualInformation(self.mutual_information),
            Consistency(self.consistency),
            L2(nn.ModuleList([model, guide]), self.l2, without=others),
            *others,
        ]
        return Objective(
            model,
            guide,
            [term for term in terms if term.weight],
            labeled_weight=self.labeled_weight,
            unlabeled_weight=self.unlabeled_weight,
            elbo=elbo,
            **arguments,
        )


@dataclass(frozen=True)
class LatentOptions:
    """What family the code's posterior and prior are of.

    Arguments:
        flow: Autoregressive transforms (zuko's) after the Gaussian q(z|.), of z and not of an auxiliary variable.
        prior: p(z): `normal`, N(0, I); `vamp`, the mean of q(z|.) at trained pseudo-inputs.
        class_prior: p(z|y) in place of p(z): a Gaussian per class, or the pseudo-inputs under each class.
        pseudo_inputs: Their number.
    """

    flow: int = 0
    prior: Literal["normal", "vamp"] = "normal"
    class_prior: bool = False
    pseudo_inputs: int = 50

    def __post_init__(self) -> None:
        if self.flow < 0:
            raise ValueError(f"flow should be a number of transforms, 0 or above, got {self.flow!r}")
        check_positive(pseudo_inputs=self.pseudo_inputs)

    def q_z(self, base: Normal, z_dim: int) -> nn.Module:
        """The posterior: base, and the transforms after it."""
        if not self.flow:
            return base
        with preserve_validation():  # zuko turns off everybody's
            import zuko

        width = max(64, 2 * z_dim)
        return Flow(base, zuko.flows.MAF(z_dim, transforms=self.flow, hidden_features=(width,)).transform)

    def p_z(self, z_dim: int, q_z: nn.Module, inputs: Sequence[Shape]) -> Any:
        """The prior; `inputs` are the event shapes of what q_z is given, with a class_prior y last."""
        if self.prior == "vamp":
            return VampPrior(q_z, inputs, self.pseudo_inputs, by_class=self.class_prior)
        return Normal(MLP(inputs[-1], 2 * z_dim, ())) if self.class_prior else StandardNormal(z_dim)


@dataclass(frozen=True)
class BoundOptions:
    """How the bound sums over classes and samples.

    Arguments:
        top_k: Sum over this many of the likeliest classes and one drawn; None (null on the command line) sums over all, "auto"
            over as many as hold most of q(y|x).
        common_random_numbers: One noise in z for all classes of a datum, which lowers the variance of their differences.
        closed_form: KL terms in closed form, where that is exact, in place of a sample of them.
        num_particles: Samples of z per class.
        importance_weighted: The importance-weighted bound over these samples, in place of their mean.
        free_bits: The KL of a continuous latent, where in closed form, counts at least so many nats per datum.
    """

    top_k: int | None | Literal["auto"] = "auto"
    common_random_numbers: bool = True
    closed_form: bool = True
    num_particles: int = 1
    importance_weighted: bool = False
    free_bits: float = 0.0

    def elbo(self, codes: LatentOptions, weights: Any) -> TraceTopKEnum_ELBO:
        """The bound, for codes of a family and perhaps random weights."""
        if self.importance_weighted and weights.bayesian and weights.local_reparameterisation:
            raise ValueError(
                "importance_weighted: weights drawn for each datum would stand inside its logarithm; set local_reparameterisation=False"
            )
        if self.free_bits and (codes.flow or codes.prior == "vamp"):
            raise ValueError("free_bits are of a KL in closed form, which neither a flow nor a vamp prior has")
        return TraceTopKEnum_ELBO(
            self.top_k,
            common_random_numbers=self.common_random_numbers,
            num_particles=self.num_particles,
            importance_weighted=self.importance_weighted,
            closed_form="auto" if self.closed_form else (),
            free_bits=self.free_bits,
        )


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

    Raises:
        ValueError: At decoration: `without` or `defaults` names an option that no group has, a
            default is of the wrong kind, or an option is not documented.
    """

    def decorate(function: Callable[..., Objective]) -> Callable[..., Objective]:
        hints = get_type_hints(function)
        positional = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
        own = [p for p in inspect.signature(function).parameters.values() if p.default is not p.empty]
        groups = [hints[p.name] for p in positional]
        _check_grouped(function.__name__, groups, without, defaults)
        types = {"x_shape": Shape, "classes": int} | {p.name: hints[p.name] for p in own}
        values, docs = {p.name: p.default for p in own}, _documented(function)
        for group in _leaves(groups):
            of_group = get_type_hints(group)
            for f in fields(group):
                if f.name not in ("x_shape", "classes", *without):
                    types[f.name], values[f.name] = of_group[f.name], defaults.get(f.name, f.default)
            docs |= _documented(group)
        if missing := [name for name in values if name not in docs]:
            raise ValueError(
                f"{function.__name__}: its docstring should say under `Arguments:` what {', '.join(missing)} is"
            )

        def build(x_shape: Shape, classes: int, **options: Any) -> Objective:
            if unknown := sorted(options.keys() - values.keys()):
                raise TypeError(f"{function.__name__} has no option {', '.join(unknown)}; it has {', '.join(values)}")
            for name, value in options.items():
                check_kind(name, value, types[name])
            chosen = values | options
            if classes == 1 and not chosen.get("regression"):
                raise ValueError("classes should be 2 or above, got 1; one is for a real y, with regression=True")
            check_positive(classes=classes, **{n: v for n, v in chosen.items() if n.endswith("_dim") or n == "draws"})
            shared = {name: chosen[name] for name in values} | {"x_shape": as_shape(x_shape), "classes": classes}
            made = [_made(group, shared) for group in groups]
            return function(*made, **{p.name: chosen[p.name] for p in own})

        kind = inspect.Parameter
        positionals = [kind(n, kind.POSITIONAL_OR_KEYWORD, annotation=types[n]) for n in ("x_shape", "classes")]
        keywords = [kind(n, kind.KEYWORD_ONLY, default=v, annotation=types[n]) for n, v in values.items()]
        build.__signature__ = inspect.Signature([*positionals, *keywords])  # type: ignore[attr-defined]
        build.__annotations__, build.__kwdefaults__, build.__name__ = types, dict(values), function.__name__
        lines = [f"    {name}: {docs[name]}" for name in types]
        build.__doc__ = "\n".join(
            [(inspect.getdoc(function) or "").partition("\n\nArguments:")[0], "", "Arguments:", *lines]
        )
        return build

    return decorate


def _check_grouped(name: str, groups: Sequence[type], without: Sequence[str], defaults: dict[str, Any]) -> None:
    """Raise ValueError unless what a method leaves out or changes are options of its groups."""
    kinds: dict[str, Any] = {}
    for group in _leaves(groups):
        kinds |= get_type_hints(group)
    kinds.pop("x_shape", None)
    kinds.pop("classes", None)
    for option in (*without, *defaults):
        if option not in kinds:
            raise ValueError(f"{name}: no option {option!r} in its groups; {_nearest(option, kinds)}")
    if both := sorted(set(without) & defaults.keys()):
        raise ValueError(f"{name}: {', '.join(both)} should have a default or be left out, not both")
    for option, default in defaults.items():
        check_kind(f"{name}: the default of {option}", default, kinds[option])


def _nearest(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"


def _leaves(groups: Iterable[type]) -> Iterator[type]:
    """The groups, with those that are made of groups taken apart."""
    for group in groups:
        parts: list[Any] = [t for t in get_type_hints(group).values() if is_dataclass(t)]
        yield from _leaves(parts) if parts else [group]


def _made(group: Any, chosen: dict[str, Any]) -> Any:
    """A group, or a group of groups, of what is chosen."""
    of_group = {f.name: get_type_hints(group)[f.name] for f in fields(group)}
    return group(
        **{
            n: _made(t, chosen) if is_dataclass(t) else chosen[n]
            for n, t in of_group.items()
            if is_dataclass(t) or n in chosen
        }
    )


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

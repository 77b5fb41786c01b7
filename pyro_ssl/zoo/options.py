"""Options that many methods share, in groups: frozen dataclasses that check themselves.

A method is a function whose keyword arguments are such groups and further options.
`option_names.flat_options` lists the fields of all groups by name, for `zoo.build` and the command
line. The defaults of the methods are in `presets`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal, cast, get_type_hints

from torch import nn

from pyro_ssl import guides, models
from pyro_ssl.distributions.conditionals import Conditional, Normal
from pyro_ssl.distributions.flows import Flow
from pyro_ssl.distributions.priors import Prior, StandardNormal, VampPrior
from pyro_ssl.infer.elbo import TraceTopKEnum_ELBO
from pyro_ssl.nn.layers import Shape
from pyro_ssl.nn.networks import MLP
from pyro_ssl.nn.norm import BatchNorm
from pyro_ssl.nn.random_weights import RandomWeights
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
from pyro_ssl.utils.arguments import check_kind, check_positive
from pyro_ssl.utils.context import preserve_validation

Network = Literal["mlp", "conv"]
Likelihood = Literal["bernoulli", "gaussian", "heteroscedastic_gaussian"]
Activation = Literal["softplus", "relu", "silu", "tanh"]


@dataclass(frozen=True)
class NetworkOptions:
    """The networks of all conditionals.

    Arguments:
        network: `mlp`, or `conv` for images.
        hidden: Widths of the hidden layers.
        channels: Channels of convolutional encoders, one number per layer with stride 2; decoders
            mirror them.
        activation: Activation of the hidden layers.
        batch_norm: Use batch norm, except in convolutional decoders and in the layers that follow
            convolutions; where y is enumerated, its statistics are weighted by q(y|x).

    Raises:
        ValueError: An option is of the wrong kind, or a size is not above 0.

    >>> NetworkOptions(hidden=(300, 100)).activation
    'relu'
    """

    network: Network = "mlp"
    hidden: Sequence[int] = (500,)
    channels: Sequence[int] = (32, 64)
    activation: Activation = "relu"
    batch_norm: bool = False

    def __post_init__(self) -> None:
        check_kinds(self)
        check_sizes("hidden", self.hidden)
        check_sizes("channels", self.channels)


@dataclass(frozen=True)
class ClassifierOptions:
    """The network that classifies x, and the augmentation of its input in training.

    Where the latent code is classified, these options apply to its encoder q(z|x).

    Arguments:
        classifier_hidden: Widths of the classifier's hidden layers; defaults to `hidden`.
        classifier_network: `mlp` or `conv`; defaults to `network`.
        backbone: Named image network instead of an MLP or `conv`: `cnn-WIDTH`, `resnet18`,
            `resnet34`, `resnet50`, `wrn-DEPTH-WIDTH`.
        dropout: Probability of dropping a hidden unit in training.
        noise: Standard deviation of the Gaussian noise added to x in training.
        warp: Size of the random affine map of images in training, see `augmentation.warped`.
        crop: Largest random shift of images in training, in pixels, over a border of zeros.
        flip: Mirror half of the images in training.

    Raises:
        ValueError: An option is of the wrong kind or out of range.

    >>> ClassifierOptions(noise=0.3, dropout=0.3).backbone is None
    True
    """

    classifier_hidden: Sequence[int] | None = None
    classifier_network: Network | None = None
    backbone: str | None = None
    dropout: float = 0.0
    noise: float = 0.0
    warp: float = 0.0
    crop: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        check_kinds(self)
        check_sizes("classifier_hidden", self.classifier_hidden or ())
        if not self.noise >= 0 or not 0 <= self.dropout < 1:
            raise ValueError(
                "noise should be 0 or above and dropout in [0, 1), "
                f"got {self.noise} and {self.dropout}"
            )
        if not self.warp >= 0 or self.crop < 0:
            raise ValueError(f"warp and crop should be 0 or above, got {self.warp} and {self.crop}")

    @property
    def augments_images(self) -> bool:
        """True if an augmentation needs an image."""
        return bool(self.warp or self.crop or self.flip)


@dataclass(frozen=True)
class LikelihoodOptions:
    """The family of p(x|.), and the widths of its network.

    Arguments:
        likelihood: `bernoulli` for values in [0, 1]; `gaussian` with one variance; or
            `heteroscedastic_gaussian`, whose variances are outputs of the network, for data whose
            columns all vary.
        sigma: Standard deviation of `gaussian`; None learns it.
        x_log_variance: Initial log-variance of `heteroscedastic_gaussian`.
        decoder_hidden: Widths of the hidden layers of p(x|.), before its convolutions if it has
            any; defaults to `hidden`.

    Raises:
        ValueError: An option is of the wrong kind, or a size is not above 0.

    >>> LikelihoodOptions("bernoulli").sigma
    1.0
    """

    likelihood: Likelihood = "gaussian"
    sigma: float | None = 1.0
    x_log_variance: float = 0.0
    decoder_hidden: Sequence[int] | None = None

    def __post_init__(self) -> None:
        check_kinds(self)
        check_sizes("decoder_hidden", self.decoder_hidden or ())


@dataclass(frozen=True)
class LossOptions:
    """Weights of the bounds and of the other terms of the loss.

    `pyro_ssl/objectives/terms.py` says how to add a term.

    Arguments:
        alpha: Weight of -log q(y|x), the mean over labeled data.
        labeled_weight: Weight of the labeled bound; None is N_l / N_u, which gives the papers' sums
            over the data (1 if nothing is unlabeled).
        unlabeled_weight: Weight of the unlabeled bound.
        balance: Weight of the KL divergence of the mean q(y|x) of unlabeled data from
            `class_probs`, up to a constant.
        entropy: Weight of H(q(y|x)) on unlabeled data, MIER's beta.
        mutual_information: Weight of -I(y;x) on unlabeled data, MIER's gamma.
        consistency: Weight of the FixMatch term: confident predictions on clean unlabeled data are
            targets for their noisy versions.
        l2: Weight of half the squared norm of the networks' weights, random weights excluded.
        class_probs: Class probabilities for `balance`, and for the model's p(y) if it has one; None
            means uniform.

    Raises:
        ValueError: An option is of the wrong kind, or a weight is below 0.

    >>> LossOptions(alpha=-1.0)
    Traceback (most recent call last):
    ...
    ValueError: alpha should be 0 or above, got -1.0
    """

    alpha: float = 1.0
    labeled_weight: float | None = None
    unlabeled_weight: float = 1.0
    balance: float = 0.0
    entropy: float = 0.0
    mutual_information: float = 0.0
    consistency: float = 0.0
    l2: float = 0.0
    class_probs: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check_kinds(self)
        for field in fields(self):
            value = getattr(self, field.name)
            is_weight = isinstance(value, int | float)
            if is_weight and not value >= 0:
                raise ValueError(f"{field.name} should be 0 or above, got {value}")

    def objective(
        self,
        model: nn.Module,
        guide: nn.Module,
        elbo: TraceTopKEnum_ELBO,
        others: Sequence[Term] = (),
        **arguments: Any,
    ) -> Objective:
        """Build the objective of a model and a guide with the terms of this loss.

        Arguments:
            model: The model.
            guide: Its guide.
            elbo: The bound.
            others: Terms of the method itself; `l2` leaves out their parameters.
            arguments: Other arguments of `Objective`.
        """
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
    """The families of the latent code's posterior and prior.

    Arguments:
        flow: Number of autoregressive transforms (zuko's) after the Gaussian q(z|.); auxiliary
            variables have none.
        prior: p(z): `normal` is N(0, I), `vamp` is the equal mixture of q(z|.) at trained
            pseudo-inputs.
        class_prior: Use p(z|y) instead of p(z): a Gaussian per class, or with `vamp` the mixture
            under each class.
        pseudo_inputs: Number of pseudo-inputs of the `vamp` prior.

    Raises:
        ValueError: An option is of the wrong kind or out of range.

    >>> LatentOptions(prior="vamp").pseudo_inputs
    50
    """

    flow: int = 0
    prior: Literal["normal", "vamp"] = "normal"
    class_prior: bool = False
    pseudo_inputs: int = 50

    def __post_init__(self) -> None:
        check_kinds(self)
        if self.flow < 0:
            raise ValueError(
                f"flow should be a number of transforms, 0 or above, got {self.flow!r}"
            )
        check_positive(pseudo_inputs=self.pseudo_inputs)

    def q_z(self, base: Normal, z_dim: int) -> nn.Module:
        """The posterior: a Gaussian, and the transforms that follow it."""
        if not self.flow:
            return base
        with preserve_validation():  # importing zuko turns validation off for the whole process
            import zuko

        width = max(64, 2 * z_dim)
        flow = zuko.flows.MAF(z_dim, transforms=self.flow, hidden_features=(width,))
        return Flow(base, flow.transform)

    def p_z(self, z_dim: int, q_z: nn.Module, inputs: Sequence[Shape]) -> Prior:
        """The prior of a z that does not depend on y.

        Arguments:
            z_dim: Z.
            q_z: The posterior, for the `vamp` prior.
            inputs: Event shapes of the posterior's inputs.

        Raises:
            ValueError: `class_prior` is set.
        """
        if self.class_prior:
            raise ValueError("class_prior=True needs a model whose z may depend on y, such as m2")
        if self.prior == "vamp":
            return VampPrior(q_z, inputs, self.pseudo_inputs)
        return StandardNormal(z_dim)

    def p_z_of_class(
        self, z_dim: int, q_z: nn.Module, inputs: Sequence[Shape], classes: int
    ) -> Prior | Conditional:
        """The prior of a z that may depend on y.

        Arguments:
            z_dim: Z.
            q_z: The posterior, for the `vamp` prior; y is its last input.
            inputs: Event shapes of its other inputs.
            classes: K.
        """
        shapes = [*inputs, classes]
        if not self.class_prior:
            return self.p_z(z_dim, q_z, shapes)
        if self.prior == "vamp":
            return VampPrior(q_z, shapes, self.pseudo_inputs, by_class=True)
        return Normal(MLP(classes, 2 * z_dim, ()))


@dataclass(frozen=True)
class RandomWeightOptions:
    """Weights of the model with a prior N(0, s^2) and a mean-field posterior.

    Arguments:
        bayesian: Names of the model's conditionals whose linear layers have random weights, such as
            (p_y,); the others have point estimates.
        prior_scale: Standard deviation s of the prior over a weight.
        log_variance: Initial log-variance of the posterior.
        local_reparameterisation: Draw each datum's pre-activations instead of the weights.
        norm_from_mean_weights: In batch norm after a layer with random weights, compute the
            statistics with the mean weights, not with a draw.

    Raises:
        ValueError: An option is of the wrong kind or out of range, or two contradict each other.

    >>> RandomWeightOptions(bayesian=("p_y",)).prior_scale
    1.0
    """

    bayesian: Sequence[str] = ()
    prior_scale: float = 1.0
    log_variance: float = -10.0
    local_reparameterisation: bool = False
    norm_from_mean_weights: bool = True

    def __post_init__(self) -> None:
        check_kinds(self)
        if not self.prior_scale > 0:
            raise ValueError(f"prior_scale should be above 0, got {self.prior_scale}")
        if self.local_reparameterisation and not self.norm_from_mean_weights:
            raise ValueError(
                "norm_from_mean_weights=False needs local_reparameterisation=False, which draws "
                "weights; with local reparameterisation there is no draw of the weights to "
                "compute statistics with"
            )

    def with_random_weights(
        self, model: nn.Module, guide: nn.Module
    ) -> tuple[nn.Module, nn.Module]:
        """Put random weights into the conditionals that `bayesian` names.

        Raises:
            ValueError: A name is not a conditional of the model.
        """
        if not self.bayesian:
            return model, guide
        random = self._random_parts(model)
        has_norm = any(isinstance(layer, BatchNorm) for part in random for layer in part.modules())
        # a guide that shares these layers runs them with the drawn weights, so it gets `slots`
        of_guide = {id(part) for part in guide.modules()}
        shares_parts = any(id(inner) in of_guide for part in random for inner in part.modules())
        weights = RandomWeights(*random)
        mean_field = guides.MeanField(
            guide,
            weights.initial,
            self.log_variance,
            slots=weights if shares_parts else None,
            local_reparameterisation=self.local_reparameterisation,
            norm_from_mean_weights=self.norm_from_mean_weights and has_norm,
        )
        return models.Bayesian(model, weights, self.prior_scale), mean_field

    def _random_parts(self, model: nn.Module) -> list[nn.Module]:
        known = [name for name, part in model.named_children() if _has_conditional(part)]
        names = self.bayesian
        is_sequence = isinstance(names, Sequence) and not isinstance(names, str)
        if not is_sequence or not set(names) <= set(known):
            raise ValueError(
                f"bayesian should name conditionals of the model, of {', '.join(known)}; "
                f"got {self.bayesian!r}"
            )
        return [getattr(model, name) for name in dict.fromkeys(names)]


def _has_conditional(part: nn.Module) -> bool:
    if not isinstance(part, Conditional | nn.ModuleList):
        return False
    return any(isinstance(inner, Conditional) for inner in part.modules())


@dataclass(frozen=True)
class BoundOptions:
    """Estimator of the bound: sums over classes, samples and KL terms.

    Arguments:
        top_k: Number of likeliest classes to sum over, with one more drawn from the rest; None
            (null on the command line) sums over all, "auto" over as many as hold most of q(y|x).
        common_random_numbers: Use the same noise in z for all classes of a datum, which lowers the
            variance of their differences.
        closed_form: Use closed-form KL terms instead of a sample, where they are exact.
        num_particles: Samples of z per class.
        importance_weighted: Use the importance-weighted bound over these samples (IWAE) instead of
            their mean.
        free_bits: Smallest KL of a continuous latent that counts, in nats per datum; for KL terms
            in closed form.

    Raises:
        ValueError: An option is of the wrong kind.

    >>> BoundOptions(top_k=None).elbo(LatentOptions(), RandomWeightOptions()).num_particles
    1
    """

    top_k: int | None | Literal["auto"] = "auto"
    common_random_numbers: bool = True
    closed_form: bool = True
    num_particles: int = 1
    importance_weighted: bool = False
    free_bits: float = 0.0

    def __post_init__(self) -> None:
        check_kinds(self)

    def elbo(self, latent: LatentOptions, weights: RandomWeightOptions) -> TraceTopKEnum_ELBO:
        """Build the bound for these latents and random weights.

        Raises:
            ValueError: The options contradict each other.
        """
        draws_for_each_datum = bool(weights.bayesian) and weights.local_reparameterisation
        if self.importance_weighted and draws_for_each_datum:
            raise ValueError(
                "importance_weighted needs one draw of the weights for all data; set "
                "local_reparameterisation=False"
            )
        if self.free_bits and (latent.flow or latent.prior == "vamp"):
            raise ValueError(
                "free_bits needs a KL in closed form, which a flow or a vamp prior does not have"
            )
        return TraceTopKEnum_ELBO(
            self.top_k,
            common_random_numbers=self.common_random_numbers,
            num_particles=self.num_particles,
            importance_weighted=self.importance_weighted,
            closed_form="auto" if self.closed_form else (),
            free_bits=self.free_bits,
        )


def check_sizes(name: str, sizes: Any) -> None:
    """Raise ValueError unless `sizes` is a sequence of whole numbers above 0.

    >>> check_sizes("hidden", (500, 500))
    """
    is_sequence = isinstance(sizes, Sequence) and not isinstance(sizes, str)
    if not is_sequence or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ValueError(
            f"{name} should be a sequence of sizes above 0, such as (500,), got {sizes!r}"
        )


def check_kinds(options: Any) -> None:
    """Raise ValueError, naming the option, unless each field of a group has its annotated type.

    >>> check_kinds(NetworkOptions())
    """
    kinds = _annotations(cast(Hashable, type(options)))
    for option in fields(options):
        check_kind(option.name, getattr(options, option.name), kinds[option.name])


@cache
def _annotations(group: Any) -> dict[str, Any]:
    return get_type_hints(group)

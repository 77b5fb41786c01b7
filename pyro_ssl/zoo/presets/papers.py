"""The papers' settings: one preset for each paper and method, each value with its source.

`paper` marks a value that the paper states, with its place; `ours` one that the paper leaves open,
with our reason. `ABSENT` switches off what no paper has. Papers have the numbers of
`docs/explanation/papers.md`. Pages are those of the thesis 002, where its table of contents says
that the section begins; our texts of the other papers have no page numbers.

An option that has no effect beside the others, such as `channels` without convolutions, is left
out.
"""

from __future__ import annotations

from typing import Any

from pyro_ssl.zoo.presets.preset import Choice, Preset

Choices = dict[str, Choice]


def paper(value: Any, source: str) -> Choice:
    """A value that the paper states."""
    return Choice(value, "paper", source)


def ours(value: Any, reason: str) -> Choice:
    """A value that the paper leaves open."""
    return Choice(value, "ours", reason)


def absent(**values: Any) -> Choices:
    """Values that switch off what the paper does not have."""
    return {name: Choice(value, "absent", "not in the paper") for name, value in values.items()}


ABSENT: Choices = absent(
    noise=0.0,
    dropout=0.0,
    warp=0.0,
    crop=0,
    flip=False,
    backbone=None,
    classifier_network=None,
    classifier_hidden=None,
    decoder_hidden=None,
    batch_norm=False,
    flow=0,
    prior="normal",
    class_prior=False,
    balance=0.0,
    entropy=0.0,
    mutual_information=0.0,
    consistency=0.0,
    l2=0.0,
    class_probs=None,
    num_particles=1,
    importance_weighted=False,
    free_bits=0.0,
    bayesian=(),
    mixture=False,
)
"""Options that no paper uses, unless its preset says so."""

ABSENT_IN_TRAINING: Choices = absent(warmup=0.0, clip_norm=None, ema=0.0, precision="float32")
"""Arguments of `fit` that no paper uses, unless its preset says so."""


def _mlp(source: str) -> Choices:
    """Fully connected networks."""
    return {"network": paper("mlp", source)}


# --- paper 000: Variational Classification ------------------------------------------------------

_VARIATIONAL: Choices = {
    "stochastic": paper(False, "section 5: q(z|x) is a delta distribution"),
    "alpha": paper(1.0, "eq. 6"),
    "labeled_weight": paper(1.0, "eq. 6"),
    "unlabeled_weight": paper(0.0, "eq. 6 has labeled data only"),
}
_CE: Choices = {
    "shared_variance": paper(True, "section 3.1, eq. 8: a softmax layer, equivariate Gaussians"),
}
_GM: Choices = {
    "shared_variance": paper(False, "section 5: each class has its own diagonal covariance"),
    "density": paper(1.0, "section 5, J_GM"),
}
_VC: Choices = {
    "shared_variance": paper(False, "section 5: each class has its own diagonal covariance"),
    "ratio": paper(1.0, "eq. 6"),
    "density": paper(0.0, "eq. 6: log p(z|y) is part of the log-ratio"),
    "bounded": paper(False, "eq. 6: the log-ratio itself"),
    "discriminator_inputs": paper("linear", "eq. 9: T = w'z + b"),
    "discriminator_hidden": paper(0, "eq. 9: T = w'z + b"),
    "spectral_norm": ours(False, "not mentioned"),
    "discriminator_lr": ours(1.0, "not stated; that of the classifier"),
    "backpropagate": ours(
        True,
        "section 3.2 can be read either way; without the gradient through T the ratio would "
        "not change the code, and the authors' later code has it",
    ),
}
_MNIST_CNN: Choices = {
    "backbone": paper("cnn-32", "reproducibility statement: a 6-layer CNN; its width is ours"),
}
_MNIST_CODE: Choices = {"z_dim": ours(16, "not stated, but 2 in Figure 1")}
_MNIST_LABELS: Choices = {
    "epochs": ours(60, "not stated"),
    "batch_size": ours(100, "not stated"),
    "labeled_batch_size": ours(100, "not stated"),
    "lr": ours(1e-3, "not stated"),
    "optimizer": ours("adam", "not stated"),
    "schedule": ours("constant", "not stated"),
}
_REPOSITORY = "basic setting of the repository that the reproducibility statement names"
_WIDE_RESNET: Choices = {
    "backbone": paper("wrn-28-10", "section 5.1"),
    "dropout": ours(0.3, _REPOSITORY),
    "crop": ours(4, _REPOSITORY),
    "flip": ours(True, _REPOSITORY),
}
_WIDE_RESNET_CODE: Choices = {
    "z_dim": ours(640, "z is the input of the softmax layer (section 3), here the 640 features")
}
_WIDE_RESNET_TRAINING: Choices = {
    "epochs": ours(200, _REPOSITORY),
    "batch_size": ours(128, _REPOSITORY),
    "labeled_batch_size": ours(128, _REPOSITORY),
    "lr": ours(0.1, _REPOSITORY),
    "optimizer": ours("nesterov", _REPOSITORY),
    "schedule": ours("fifths", _REPOSITORY),
}
_MNIST = "MNIST: Table 4, Figures 1, 5 and 8"
_CIFAR = "CIFAR-10 and CIFAR-100: Tables 1 to 3, Figures 3 to 7"

_VARIATIONAL_PRESETS = [
    Preset(name, method, experiment, options, training)
    for name, experiment, network, code, training in (
        ("paper-000", _MNIST, _MNIST_CNN, _MNIST_CODE, _MNIST_LABELS),
        ("paper-000-cifar", _CIFAR, _WIDE_RESNET, _WIDE_RESNET_CODE, _WIDE_RESNET_TRAINING),
    )
    for method, options in (
        ("classifier", network),
        ("ce", network | code | _VARIATIONAL | _CE),
        ("gm", network | code | _VARIATIONAL | _GM),
        ("vc", network | code | _VARIATIONAL | _VC),
    )
]

# --- paper 001: Variational Auto-Encoders for Downstream Classification -------------------------

_DOWNSTREAM = Preset(
    "paper-001",
    "vae",
    "Fashion-MNIST: Tables 1 and 2, Figures 1 to 3",
    options={
        "network": paper("conv", "section 2.3"),
        "channels": paper(
            (32, 64, 64), "section 2.3: 3 convolutional layers; their widths are ours"
        ),
        "hidden": paper((256,), "section 2.3: 2 fully connected layers; their width is ours"),
        "decoder_hidden": paper(
            (256, 256), "section 2.3: 3 fully connected layers; their widths are ours"
        ),
        "activation": ours("relu", "not stated"),
        "z_dim": paper(4, "section 3.3"),
        "likelihood": paper("bernoulli", "section 2.3"),
        "probe_hidden": paper((), "section 2.2: logistic regression"),
    },
    training={
        "epochs": ours(60, "not stated"),
        "batch_size": ours(200, "not stated"),
        "labeled_batch_size": ours(100, "not stated"),
        "lr": ours(1e-3, "not stated"),
        "optimizer": ours("adam", "not stated for the VAE"),
        "schedule": ours("constant", "not stated"),
    },
    left_out="The paper chooses networks and z_dim by test accuracy; its second classifier on the "
    "code, a simple CNN, and its optimiser of the first, SGD, are other programs.",
)

# --- paper 002: SSLPE and SSLAPD ----------------------------------------------------------------

_TUNED = "tuned for each model and not stated (section 5.2.1, page 42)"
_TUNED_ON_MNIST = "tuned for each model and not stated (section 5.5.1, page 51)"

_THESIS_MODEL: Choices = {
    "labeled_weight": paper(None, "eq. 4.10, section 4.1.2, page 31: sums over the data"),
    "unlabeled_weight": paper(1.0, "eq. 4.10, section 4.1.2, page 31"),
    "top_k": paper(None, "eq. 4.11, section 4.2, page 32: the sum over all classes"),
    "common_random_numbers": ours(False, "not stated; each class has its own noise in eq. 4.22"),
    "closed_form": paper(True, "section 4.1.1, page 30: the KL divergence is tractable"),
    "num_particles": ours(1, "L of eq. 4.7 is not stated"),
}
_THESIS_PREDICTION: Choices = {
    "gibbs_steps": paper(10, "section 4.4, page 35: T = 10"),
    "gibbs_chains": paper(1, "eq. 4.24, section 4.4, page 35"),
    "gibbs_hard": ours(
        False,
        "eq. 4.24 (page 35) is the mean of 10 drawn labels, whose logarithm is infinite where none "
        "is right: the log-likelihoods of Tables 5.2 and 5.4 cannot come from it. We average "
        "p(y|x, z, W) over the draws, which estimates the same expectation, eq. 4.23",
    ),
    "mixture": paper(False, "section 4.2, page 32: left for the future"),
}
_POSTERIOR_OF_WEIGHTS: Choices = {
    "bayesian": paper(("p_y",), "section 4.3, page 34"),
    "prior_scale": paper(1.0, "eq. 4.16, section 4.3, page 34"),
    "log_variance": paper(-10.0, "section 5.1.3, page 39"),
    "local_reparameterisation": paper(False, "section 4.3, page 34: Bayes by backprop"),
    "norm_from_mean_weights": paper(True, "section 5.3, page 45"),
}
_NORM: Choices = {"batch_norm": paper(True, "section 5.1.4, page 39")}
_L2 = "on all deterministic networks (section 5.1.2, page 38), its weight not stated; as N(0, I) "

_MOONS_NETWORK: Choices = _mlp("section 5.2.1, page 42") | {
    "hidden": paper((128, 128), "section 5.2.1, page 42"),
    "activation": paper("relu", "section 5.2.1, page 42"),
}
_MOONS_MODEL: Choices = (
    _THESIS_MODEL
    | _MOONS_NETWORK
    | {
        "alpha": ours(
            1.0,
            "a small constant (section 4.1.2, page 31), not stated; with 0.1, as in Kingma et al. "
            "2014, SSLPE fails on one of two draws of the moons for development",
        ),
        "x_log_variance": ours(0.0, "not stated"),
        "l2": ours(1e-4, _L2 + "for 10,000 data"),
    }
)
_MOONS_SCHEDULE: Choices = {
    "optimizer": paper("adam", "section 5.1.2, page 38"),
    "lr": ours(3e-3, _TUNED),
    "schedule": paper("exponential", "eq. 5.2, section 5.1.2, page 38; its rate is ours"),
}
_MOONS_TRAINING: Choices = _MOONS_SCHEDULE | {
    "epochs": ours(50, "trained to convergence (section 5.2.2, page 42); those of SSLAPD"),
    "batch_size": ours(100, "not stated"),
    "labeled_batch_size": ours(6, "not stated; all labels"),
    "warmup": ours(3.0, "linear (eq. 5.1, section 5.1.1, page 37), its length " + _TUNED),
}
_MOONS = "two moons with six labels: Tables 5.1 and 5.2, Figures 5.3 to 5.7"
_OF_OTHERS: Choices = {
    "z_dim": ours(2, "not stated; as many as columns"),
    "likelihood": ours("heteroscedastic_gaussian", "not stated; that of SSLPE (eq. 4.3, page 29)"),
}
_OF_THE_THESIS: Choices = {
    "z_dim": ours(10, "not stated; as in our earlier runs"),
    "likelihood": paper("heteroscedastic_gaussian", "eq. 4.3, chapter 4, page 29"),
}
_OF_SSLAPD: Choices = {
    "epochs": paper(50, "section 5.3, page 45"),
    "lr": ours(7e-3, _TUNED),
    "warmup": ours(2.0, "linear (eq. 5.1, section 5.1.1, page 37), its length " + _TUNED),
}

_MOONS_PRESETS = [
    Preset(
        "paper-002-moons",
        "classifier",
        _MOONS,
        options=_MOONS_NETWORK | {"l2": ours(1e-4, _L2 + "for 10,000 data, as for the others")},
        training=_MOONS_SCHEDULE
        | {
            "epochs": ours(1000, "trained to convergence (section 5.2.2, page 42)"),
            "batch_size": ours(100, "not stated"),
            "labeled_batch_size": ours(6, "not stated; all labels"),
        },
    ),
    Preset(
        "paper-002-moons",
        "m2",
        _MOONS,
        options=_MOONS_MODEL | _OF_OTHERS | {"batch_norm": paper(True, "section 5.2.2, page 42")},
        training=_MOONS_TRAINING,
    ),
    Preset(
        "paper-002-moons",
        "sdgm",
        _MOONS,
        options=_MOONS_MODEL
        | _OF_OTHERS
        | {
            "batch_norm": paper(True, "section 5.2.1, page 42"),
            "a_dim": ours(2, "not stated; as many as columns"),
            "draws": ours(100, "not stated; as in Maaloe et al. 2016"),
        },
        training=_MOONS_TRAINING,
    ),
    Preset(
        "paper-002-moons",
        "sslpe",
        _MOONS,
        options=_MOONS_MODEL | _OF_THE_THESIS | _NORM | _THESIS_PREDICTION,
        training=_MOONS_TRAINING,
    ),
    Preset(
        "paper-002-moons",
        "sslapd",
        _MOONS,
        options=_MOONS_MODEL | _OF_THE_THESIS | _NORM | _THESIS_PREDICTION | _POSTERIOR_OF_WEIGHTS,
        training=_MOONS_TRAINING | _OF_SSLAPD,
    ),
]

_DIGITS_NETWORK: Choices = _mlp("section 5.5.1, page 51") | {
    "hidden": paper((500, 500), "section 5.5.1, page 51"),
    "activation": paper("relu", "section 5.5.1, page 51"),
    "l2": ours(1.7e-5, _L2 + "for 60,000 data"),
}
_DIGITS_MODEL: Choices = (
    _THESIS_MODEL
    | _DIGITS_NETWORK
    | {
        "z_dim": paper(100, "section 5.5.1, page 51"),
        "alpha": ours(
            10.0,
            "a constant as in Kingma et al. 2014 (section 4.1.2, page 31), not stated; their code "
            "has 0.1 N / N_l beside means, 10 with 60 labels per class",
        ),
        "likelihood": ours(
            "bernoulli",
            "Bernoulli for binary data (eq. 4.1, chapter 4, page 29); whether pixels were made "
            "binary is not stated, here they are grey",
        ),
    }
)
_DIGITS_SCHEDULE: Choices = {
    "optimizer": paper("adam", "section 5.1.2, page 38"),
    "lr": ours(1e-3, _TUNED_ON_MNIST),
    "schedule": paper("exponential", "eq. 5.2, section 5.1.2, page 38; its rate is ours"),
    "batch_size": ours(200, "not stated"),
    "labeled_batch_size": ours(100, "not stated"),
}
_DIGITS_TRAINING: Choices = _DIGITS_SCHEDULE | {
    "epochs": ours(200, "not stated"),
    "warmup": ours(20.0, "linear (eq. 5.1, section 5.1.1, page 37), its length " + _TUNED_ON_MNIST),
}
_DIGITS = "MNIST with 20, 60, 100 or 300 labels per class: Tables 5.3 and 5.4, Figure 5.13"

_DIGITS_PRESETS = [
    Preset(
        "paper-002",
        "classifier",
        _DIGITS,
        options=_DIGITS_NETWORK,
        training=_DIGITS_SCHEDULE | {"epochs": ours(1000, "not stated")},
    ),
    Preset(
        "paper-002",
        "m2",
        _DIGITS,
        options=_DIGITS_MODEL | {"batch_norm": ours(True, "not stated for MNIST; as on moons")},
        training=_DIGITS_TRAINING,
    ),
    Preset(
        "paper-002",
        "sslpe",
        _DIGITS,
        options=_DIGITS_MODEL | _NORM | _THESIS_PREDICTION,
        training=_DIGITS_TRAINING,
    ),
    Preset(
        "paper-002",
        "sslapd",
        _DIGITS,
        options=_DIGITS_MODEL | _NORM | _THESIS_PREDICTION | _POSTERIOR_OF_WEIGHTS,
        training=_DIGITS_TRAINING,
    ),
]

# --- paper 003: the latent classifier -----------------------------------------------------------

_TUNED_SIGMA = (
    "section 3.1 tunes it and does not state it for MNIST; of 1, 0.6, 0.5 and 0.3 the best of the "
    "latent classifier and of M2 on two draws of labels for development, see "
    "experiments/results/latent_classifier_sigma.md"
)
_SPLIT = "Appendix C has no experiment"
_ONE_LAYER: Choices = _mlp("appendix B") | {
    "hidden": paper((500,), "appendix B"),
    "activation": paper("softplus", "appendix B"),
}
_WITH_LATENT: Choices = _ONE_LAYER | {
    "z_dim": paper(50, "appendix B"),
    "likelihood": paper("gaussian", "section 2.2"),
    "sigma": ours(0.6, _TUNED_SIGMA),
    "unlabeled_weight": paper(1.0, "section 4, J_our"),
    "closed_form": paper(True, "eq. 1"),
}
_SUM_OVER_CLASSES: Choices = {"top_k": paper(None, "eq. 3 and 6: the sum over all classes")}
_CODE_CLASSIFIER: Choices = _WITH_LATENT | {
    "alpha": paper(0.0, "section 4: no discriminative loss"),
    "draws": ours(100, "samples of z in a prediction are not stated"),
}
_HUNDRED_LABELS: Choices = {
    "epochs": paper(500, "section 5.1"),
    "batch_size": paper(100, "section 5.1"),
    "labeled_batch_size": paper(100, "section 5.1"),
    "lr": paper(1e-3, "appendix B"),
    "optimizer": paper("adam", "appendix B"),
    "schedule": ours("constant", "appendix B states a learning rate and no schedule"),
}
_TABLE_1 = "MNIST with 100 labels: Table 1"
_BY_VALIDATION = (
    "The paper keeps the epoch that is best on 10,000 validation images with labels; "
    "`fit(early_stopping=...)` can do this."
)


def _lambda(value: Choice) -> Choices:
    return {"labeled_weight": value}


_LATENT_PRESETS = [
    Preset("paper-003", method, _TABLE_1, options, _HUNDRED_LABELS, _BY_VALIDATION)
    for method, options in (
        ("classifier", _ONE_LAYER),
        (
            "m2",
            _WITH_LATENT
            | _SUM_OVER_CLASSES
            | {
                "alpha": paper(
                    100.0,
                    "Table 1: 10000 is best, beside sums over a batch of 100 (section 2.3), so "
                    "100 per datum; appendix B has 1 elsewhere, so 0.01",
                ),
                "labeled_weight": paper(1.0, "sections 2.3 and 5.1: sums over equal batches"),
                "common_random_numbers": ours(False, "not stated"),
            },
        ),
        (
            "latent_classifier",
            _CODE_CLASSIFIER
            | _SUM_OVER_CLASSES
            | _lambda(paper(0.5, "Table 1: lambda = 0.5 is best")),
        ),
        (
            "latent_classifier_exact",
            _CODE_CLASSIFIER
            | _lambda(ours(0.5, "the bound is not in the paper; as latent_classifier")),
        ),
        (
            "latent_classifier_simplified",
            _CODE_CLASSIFIER | _lambda(paper(0.001, "Table 1: lambda = 0.001 is best")),
        ),
        (
            "latent_classifier_split",
            _CODE_CLASSIFIER
            | _lambda(ours(0.001, _SPLIT + "; as latent_classifier_simplified"))
            | {
                "z_y_dim": ours(10, _SPLIT + "; with z_dim the 50 of appendix B"),
                "z_dim": ours(40, _SPLIT + "; with z_y_dim the 50 of appendix B"),
            },
        ),
    )
]

# --- paper 004: MIER ----------------------------------------------------------------------------

_BASELINES = "section 5.2 refers to the papers of the models"
_BATCH = "section 5.2: a batch size of 200; how many of them have labels is not stated"
_MIER_MODEL: Choices = _mlp("section 5.2") | {
    "likelihood": ours(
        "bernoulli", "not stated; the bounds of Table 2 are those of grey Bernoulli pixels"
    ),
    "alpha": ours(
        6.0,
        "not stated; the code of Kingma et al. 2014 has 0.1 N / N_l beside means, 6 with 100 of "
        "6000 labels per class",
    ),
    "labeled_weight": paper(None, "eq. 4 and 9: sums over the data"),
    "unlabeled_weight": paper(1.0, "eq. 4 and 9"),
    "class_probs": paper(None, "section 3.2: uniform"),
    "top_k": paper(None, "eq. 3: the expectation over y"),
    "common_random_numbers": ours(False, "not stated"),
    "closed_form": paper(True, "eq. 2"),
}
_MIER: Choices = {
    "entropy": paper(5.0, "section 5.2: beta of eq. 7"),
    "mutual_information": paper(1.0, "section 5.2: gamma of eq. 7"),
}
_MIER_TRAINING: Choices = {
    "epochs": paper(1000, "section 5.2"),
    "batch_size": paper(200, _BATCH),
    "labeled_batch_size": ours(100, _BATCH),
    "lr": paper(3e-4, "section 5.2"),
    "optimizer": paper("adam", "section 5.2"),
    "schedule": paper("halving", "section 5.2: halved after every 150 of 1000 epochs"),
    "warmup": ours(200.0, "section 5.2 has warm-up without its length; as in the LVAE's paper"),
}
_MIER_METHODS: dict[str, Choices] = {
    "m2": {
        "hidden": paper((600, 600), "section 5.2"),
        "classifier_hidden": paper((600,), "section 5.2"),
        "activation": ours("softplus", _BASELINES + "; as in Kingma et al. 2014"),
        "z_dim": paper(50, "section 5.2"),
    },
    "adgm": {
        "hidden": paper((500, 500), "section 5.2"),
        "classifier_hidden": paper((500,), "section 5.2"),
        "activation": ours("relu", _BASELINES + "; as in Maaloe et al. 2016"),
        "z_dim": paper(100, "section 5.2"),
        "a_dim": paper(100, "section 5.2"),
        "draws": ours(100, "not stated; as in Maaloe et al. 2016"),
    },
    "lvae": {
        "hidden": paper((128,), "section 5.2: three layers of 128, one before each code"),
        "classifier_hidden": paper((128,), "section 5.2"),
        "activation": ours("relu", "not stated"),
        "batch_norm": ours(True, _BASELINES + "; as in the LVAE's paper"),
        "z_dims": paper((32, 16, 8), "section 5.2"),
    },
}
_BEST_EPOCH = "The paper keeps the best of all epochs and does not say by which data."
_MIER_DATA = "Fashion-MNIST, grey CIFAR-10, KMNIST, grey SVHN: Tables 1 to 3, Figures 2 to 4"

_MIER_PRESETS = [
    Preset(name, method, _MIER_DATA, _MIER_MODEL | own | terms, _MIER_TRAINING, _BEST_EPOCH)
    for name, terms in (("paper-004", {}), ("paper-004-mier", _MIER))
    for method, own in _MIER_METHODS.items()
]

PRESETS: tuple[Preset, ...] = (
    *_VARIATIONAL_PRESETS,
    _DOWNSTREAM,
    *_DIGITS_PRESETS,
    *_MOONS_PRESETS,
    *_LATENT_PRESETS,
    *_MIER_PRESETS,
)
"""All presets, without what `ABSENT` adds; see `zoo.preset_of`."""

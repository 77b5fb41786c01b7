"""The table of methods, and `build`, which makes the objective of a method by its name.

To add a method, write a function over `(x_shape, classes, *, ...)` that builds a model and a guide
out of conditionals and returns their `Objective`, and give it a row in `METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import torch

from pyro_ssl import guides, models
from pyro_ssl.nn.layers import Shape, as_shape, check_shape
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.utils.arguments import check_kind, check_positive, check_seed
from pyro_ssl.utils.context import fixed_seed
from pyro_ssl.zoo import presets
from pyro_ssl.zoo.earlier_names import OPTIONS as RENAMED
from pyro_ssl.zoo.generative import adgm, lvae, m2, m2_adversarial, sdgm, vae
from pyro_ssl.zoo.latent_classifiers import (
    latent_classifier,
    latent_classifier_exact,
    latent_classifier_simplified,
    latent_classifier_split,
)
from pyro_ssl.zoo.m1_m2 import m1_m2
from pyro_ssl.zoo.option_names import Option, flat_options, grouped, hint, summary
from pyro_ssl.zoo.presets.preset import Preset
from pyro_ssl.zoo.sslpe import sslapd, sslpe
from pyro_ssl.zoo.supervised import classifier
from pyro_ssl.zoo.variational_classifiers import ce, gm, vc

INPUT_LIMIT = 10.0
"""Largest absolute value of x that is accepted, times sigma if sigma is above 1.

The initial weights of the zoo suit numbers of about 1; by Chebyshev's inequality at most 1 % of a
standardised column exceeds 10. A sigma above 1 says that the data are in larger units.
"""


@dataclass(frozen=True)
class Method:
    """A row of the table of methods.

    Arguments:
        function: `function(x_shape, classes, *, ...) -> Objective`.
        model: The model's factorisation.
        guide: The guide's factorisation.
        training: Arguments of `fit` that suit the method and differ from its defaults.
        without: Options that have no effect here, or repeat another one; they are not offered.
        unlabeled: Learns from data without labels.
        columns: Suits tabular data; the estimators warn if not.

    Raises:
        ValueError: `without` names no option, or two options have one name.

    >>> Method(m2, "p(y) p(z) p(x|y,z)", "q(y|x) q(z|x,y)").options["z_dim"].default
    50
    """

    function: Callable[..., Objective]
    model: str
    guide: str
    training: dict[str, Any] = field(default_factory=dict)
    without: Sequence[str] = ()
    unlabeled: bool = True
    columns: bool = True

    def __post_init__(self) -> None:
        known = flat_options(self.function)
        for name in self.without:
            if name not in known:
                raise ValueError(
                    f"{self.function.__name__}: without: there is no option {name!r}; "
                    f"{hint(name, known)}"
                )

    @property
    def options(self) -> dict[str, Option]:
        """The options by name."""
        options = flat_options(self.function)
        return {name: option for name, option in options.items() if name not in self.without}

    @property
    def summary(self) -> str:
        """The method in one line."""
        return summary(self.function)


_NO_IMAGES = ("classifier_network", "backbone", "warp", "crop", "flip")
"""In a method that classifies codes, not images, these do not apply."""

_NO_CLASS_IN_PRIOR = ("class_prior",)
"""In a model whose z does not depend on y, this does not apply."""

_NO_SUM_OVER_CLASSES = ("class_prior", "top_k", "common_random_numbers")
"""Options that do not apply if the guide does not sum over classes and z does not depend on y."""

METHODS: dict[str, Method] = {
    "classifier": Method(
        classifier,
        model="",
        guide=guides.Classifier.factorisation,
        training=presets.LABELS_ALONE,
        unlabeled=False,
    ),
    "vae": Method(
        vae,
        model=models.VAE.factorisation,
        guide=guides.VAE.factorisation,
        without=("batch_norm", *_NO_CLASS_IN_PRIOR),
        columns=False,
    ),
    "m2": Method(
        m2,
        model=models.M2.factorisation,
        guide=guides.M2.factorisation,
        training=presets.FEW_LABELS,
    ),
    "m1_m2": Method(
        m1_m2,
        model="p(y) p(z) p(z1|y,z), z1 ~ M1",
        guide="q(y|z1) q(z|z1,y)",
        training=presets.FEW_LABELS,
        without=_NO_IMAGES,
    ),
    "m2_adversarial": Method(
        m2_adversarial,
        model=models.M2.factorisation,
        guide=f"{guides.M2.factorisation}, against f(y|z)",
        training=presets.FEW_LABELS,
    ),
    "adgm": Method(
        adgm,
        model=models.ADGM.factorisation,
        guide=guides.Auxiliary.factorisation,
        training=presets.FEW_LABELS,
    ),
    "sdgm": Method(
        sdgm,
        model=models.SDGM.factorisation,
        guide=guides.Auxiliary.factorisation,
        training=presets.FEW_LABELS,
    ),
    "lvae": Method(
        lvae,
        model=models.LVAE.factorisation,
        guide=guides.LVAE.factorisation,
        training=presets.FEW_LABELS,
    ),
    "sslpe": Method(
        sslpe,
        model=models.SSLPE.factorisation,
        guide=guides.M2.factorisation,
        training=presets.FEW_LABELS,
        without=_NO_CLASS_IN_PRIOR,
    ),
    "sslapd": Method(
        sslapd,
        model="p(W) p(z) p(x|z) p(y|x,z,W)",
        guide=f"q(W) {guides.M2.factorisation}",
        training=presets.FEW_LABELS,
        without=_NO_CLASS_IN_PRIOR,
    ),
    "latent_classifier": Method(
        latent_classifier,
        model=models.LatentClassifier.factorisation,
        guide=guides.LatentClassifier.factorisation,
        training=presets.FEW_EPOCHS,
        without=("class_prior", "common_random_numbers"),
    ),
    "latent_classifier_exact": Method(
        latent_classifier_exact,
        model=models.LatentClassifier.factorisation,
        guide=guides.LatentEncoder.factorisation,
        training=presets.FEW_EPOCHS,
        without=_NO_SUM_OVER_CLASSES,
    ),
    "latent_classifier_simplified": Method(
        latent_classifier_simplified,
        model=models.SimplifiedLatentClassifier.factorisation,
        guide=guides.LatentEncoder.factorisation,
        training=presets.FEW_EPOCHS,
        without=_NO_SUM_OVER_CLASSES,
    ),
    "latent_classifier_split": Method(
        latent_classifier_split,
        model=models.SplitLatentClassifier.factorisation,
        guide=guides.SplitLatentEncoder.factorisation,
        training=presets.FEW_EPOCHS,
        without=_NO_SUM_OVER_CLASSES,
    ),
    "ce": Method(
        ce,
        model="p(y)",
        guide=guides.VC.factorisation,
        training=presets.MANY_LABELS,
    ),
    "gm": Method(
        gm,
        model=models.VC.factorisation,
        guide=guides.VC.factorisation,
        training=presets.MANY_LABELS,
    ),
    "vc": Method(
        vc,
        model="p(y) / exp T(y,z)",
        guide=guides.VC.factorisation,
        training=presets.MANY_LABELS,
    ),
}


def build(
    name: str,
    x_shape: Shape,
    classes: int,
    *,
    seed: int = 0,
    preset: str | None = None,
    **options: Any,
) -> Objective:
    """Build the objective of a method, with its defaults or with the settings of a paper.

    The weights are drawn with `seed`, and the caller's random state is unchanged. They can be
    trained even if they are built under `torch.no_grad` or `torch.inference_mode`.

    Arguments:
        name: Name of the method, see `METHODS`.
        x_shape: Event shape of x, `(D,)`, `(C, H, W)` or D.
        classes: K, or the size of a real y.
        seed: Seed of the weights.
        preset: Name of a preset, such as `paper-004`, see `preset_names`; its options take the
            place of the defaults. `training_of` has its arguments of `fit`.
        options: Options of the method by name, see `options_of`; they win over the preset's.

    Raises:
        ValueError: The method, the preset or an option is unknown, or an option is out of range.

    >>> from pyro_ssl import zoo
    >>> zoo.build("m2", (4,), 3, z_dim=2, alpha=2.0).classify(torch.zeros(5, 4)).mean.shape
    torch.Size([5, 3])
    >>> zoo.build("sslapd", (4,), 3, preset="paper-002", hidden=(8,)).predictor
    GibbsPredictor(steps=10, chains=1, hard=False)
    """
    check_seed(seed)
    function = method(name).function
    if preset is not None:
        options = preset_of(name, preset).option_values | options
    _check_options(name, options)
    shape = as_shape(x_shape)
    check_shape("x_shape", shape)
    _check_classes(classes, bool(options.get("regression")))
    with torch.inference_mode(False), torch.enable_grad(), fixed_seed(seed):
        objective = function(shape, classes, **grouped(function, options))
    objective.input_limit = _input_limit(options.get("sigma"))
    return objective


def method(name: str) -> Method:
    """Look up the row of a method.

    Raises:
        ValueError: There is no method of that name.

    >>> method("m2").model
    'p(y) p(z) p(x|y,z)'
    """
    if name not in METHODS:
        raise ValueError(f"method should be one of {', '.join(METHODS)}; got {name!r}")
    return METHODS[name]


def options_of(name: str) -> dict[str, Any]:
    """The options of a method by name, with their defaults.

    >>> options_of("m2")["noise"]
    0.3
    """
    return {option.name: option.default for option in method(name).options.values()}


def preset_of(name: str, preset: str) -> Preset:
    """Look up the settings of a method in a paper; what the paper does not have is switched off.

    Arguments:
        name: Name of the method.
        preset: Name of the preset, see `preset_names`.

    Raises:
        ValueError: The method or the preset is unknown, or the paper does not have the method.

    >>> print(preset_of("sslapd", "paper-002").options["gibbs_steps"])
    10 (section 4.4, page 35: T = 10)
    """
    known = method(name).options
    for candidate in presets.PRESETS:
        if (candidate.method, candidate.name) == (name, preset):
            return candidate.with_absent(presets.ABSENT, presets.ABSENT_IN_TRAINING, known)
    if preset not in preset_names():
        raise ValueError(f"preset should be one of {', '.join(preset_names())}; got {preset!r}")
    methods = ", ".join(p.method for p in presets.PRESETS if p.name == preset)
    others = ", ".join(preset_names(name)) or "none"
    raise ValueError(
        f"preset {preset} is of {methods}, not of {name}; the presets of {name}: {others}"
    )


def preset_names(name: str | None = None) -> list[str]:
    """List the names of the presets.

    Arguments:
        name: Name of a method, for its presets alone.

    >>> preset_names("sdgm")
    ['paper-002-moons']
    """
    chosen = [p.name for p in presets.PRESETS if name in (None, p.method)]
    return list(dict.fromkeys(chosen))


def training_of(name: str, preset: str | None = None, epochs: int | None = None) -> dict[str, Any]:
    """Arguments of `fit` that suit a method, or those of a preset.

    Arguments:
        name: Name of the method.
        preset: Name of a preset; None for our own.
        epochs: Another number of epochs, of which the warm-up of the KL keeps its share.

    Raises:
        ValueError: See `preset_of`.

    >>> training_of("m2")["epochs"], training_of("m2", "paper-004")["epochs"]
    (32, 1000)
    >>> training_of("m2", "paper-004", epochs=100)["warmup"]
    20.0
    """
    if preset is None:
        training = dict(method(name).training)
        return training if epochs is None else training | {"epochs": epochs}
    return preset_of(name, preset).training_for(epochs)


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raise ValueError for an unknown option or a value of the wrong kind."""
    known = method(name).options
    unknown = sorted(options.keys() - known.keys())
    renamed = [option for option in unknown if RENAMED.get(option) in known]
    if renamed:
        raise ValueError(f"{name}: {renamed[0]} is now called {RENAMED[renamed[0]]}")
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; {hint(unknown[0], known)}")
    for option, value in options.items():
        check_kind(option, value, known[option].kind)
        if option.endswith("_dim") or option == "draws":
            check_positive(**{option: value})


def _check_classes(classes: int, regression: bool) -> None:
    check_positive(classes=classes)
    if classes == 1 and not regression:
        raise ValueError(
            "classes should be 2 or above, got 1; 1 is for a real y, with regression=True"
        )


def _input_limit(sigma: Any) -> float:
    """The largest absolute value of ordinary data, for the given sigma."""
    if not isinstance(sigma, Real):
        return INPUT_LIMIT
    return INPUT_LIMIT * max(1.0, float(sigma))

"""Options by flat names, and the groups that they come from."""

from dataclasses import FrozenInstanceError

import pytest

from pyro_ssl import Objective, zoo
from pyro_ssl.zoo import presets
from pyro_ssl.zoo.option_names import flat_options, grouped
from pyro_ssl.zoo.options import (
    BoundOptions,
    ClassifierOptions,
    LatentOptions,
    LikelihoodOptions,
    LossOptions,
    NetworkOptions,
    RandomWeightOptions,
)

GROUPS = (
    BoundOptions,
    ClassifierOptions,
    LatentOptions,
    LikelihoodOptions,
    LossOptions,
    NetworkOptions,
    RandomWeightOptions,
)


def least(x_shape, classes, *, depth: int = 3, loss: LossOptions = presets.LOSS) -> Objective:
    """A method with one group.

    Arguments:
        depth: Depth of something.
    """
    return x_shape, classes, depth, loss


def test_the_fields_of_groups_are_options():
    options = flat_options(least)
    assert list(options)[:3] == ["depth", "alpha", "labeled_weight"]
    assert options["balance"].default == presets.LOSS.balance
    assert options["depth"].help == "Depth of something."
    assert options["depth"].group == "A method with one group"
    assert options["alpha"].help.startswith("Weight of -log q(y|x)")


def test_options_go_back_to_their_groups():
    arguments = grouped(least, {"alpha": 2.0, "depth": 1})
    assert arguments["depth"] == 1
    assert arguments["loss"].alpha == 2.0
    assert arguments["loss"].balance == presets.LOSS.balance
    assert grouped(least, {}) == {}


def test_two_options_of_one_name_are_refused():
    def twice(x_shape, classes, *, alpha: float = 1.0, loss: LossOptions = presets.LOSS):
        """A method."""

    with pytest.raises(ValueError, match="twice has two options alpha; rename one"):
        flat_options(twice)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("alhpa", "least: without: there is no option 'alhpa'; did you mean 'alpha'"),
        ("qqq", "there is no option 'qqq'; there are depth, .*labeled_weight"),
        ("x_shape", "there is no option 'x_shape'"),
    ],
)
def test_a_misspelt_option_of_a_row_is_refused_where_it_is_declared(name, message):
    with pytest.raises(ValueError, match=message):
        zoo.Method(least, "", "", without=(name,))


def test_options_without_effect_are_not_offered():
    assert "alpha" not in zoo.Method(least, "", "", without=("alpha",)).options
    assert "alpha" in zoo.Method(least, "", "").options


def test_a_misspelt_default_is_refused_where_it_is_declared():
    with pytest.raises(TypeError, match="alfa"):
        LossOptions(alfa=5.0)
    with pytest.raises(ValueError, match="alpha should be a finite number, got '5'"):
        LossOptions(alpha="5")


@pytest.mark.parametrize("group", GROUPS)
def test_groups_are_frozen_and_their_defaults_neutral(group):
    options = group()
    with pytest.raises(FrozenInstanceError):
        options.alpha = 1.0
    assert not getattr(options, "noise", 0.0) and not getattr(options, "balance", 0.0)


@pytest.mark.parametrize("method", zoo.METHODS)
def test_every_option_of_the_zoo_is_documented(method):
    row = zoo.METHODS[method]
    assert row.summary
    for option in row.options.values():
        assert option.help and option.group, option.name


def test_a_prior_of_classes_needs_a_model_whose_code_depends_on_the_class():
    with pytest.raises(ValueError, match="class_prior=True needs a model"):
        zoo.METHODS["vae"].function((4,), 3, latent=LatentOptions(class_prior=True))

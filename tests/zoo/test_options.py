"""Options, shapes and seeds that the zoo refuses by name."""

import math
from dataclasses import dataclass

import pytest

from pyro_ssl import zoo
from pyro_ssl.zoo.options import LossOptions

D, K = 4, 3

BAD = [
    ({"hidden": 5}, "hidden should be a sequence"),
    ({"hidden": "5"}, "hidden should be a sequence"),
    ({"hidden": (0,)}, "hidden should be a sequence of sizes above 0"),
    ({"z_dim": 0}, "z_dim should be a whole number above 0"),
    ({"likelihood": "poisson"}, "likelihood should be one of"),
    ({"bayesian": ("p_q",)}, "bayesian should name conditionals of the model, of .*p_x"),
    ({"bayesian": "p_y"}, "bayesian should name"),
    ({"sigma": "a"}, "sigma should be a finite number or None, got 'a'"),
    ({"x_log_variance": math.inf}, "x_log_variance should be a finite number"),
    ({"decoder_hidden": (0,)}, "decoder_hidden should be a sequence of sizes above 0"),
    ({"gibbs_hard": 1}, "gibbs_hard should be True or False, got 1"),
    ({"dropout": None}, "dropout should be a finite number, got None"),
    ({"log_variance": math.nan}, "log_variance should be a finite number"),
    ({"prior_scale": math.inf}, "prior_scale should be a finite number"),
    ({"flow": -1}, "flow should be a number of transforms"),
    ({"flow": True}, "flow should be a whole number, got True"),
    ({"prior": "vampire"}, "prior should be one of normal, vamp, got 'vampire'"),
    ({"class_prior": "yes"}, "class_prior should be True or False"),
    ({"prior": "vamp", "pseudo_inputs": 0}, "pseudo_inputs should be a whole number above 0"),
    ({"draws": 0}, "draws should be a whole number above 0"),
    ({"gibbs_steps": -1}, "gibbs_steps should be"),
    ({"gibbs_chains": 0}, "gibbs_chains should be"),
    (
        {"regression": True, "gibbs_steps": 0, "balance": 0.0},
        "gibbs_steps should be above 0 for a real y",
    ),
    ({"alpha": "x"}, "alpha should be a finite number, got 'x'"),
    ({"alpha": -1.0}, "alpha should be 0 or above, got -1.0"),
    ({"consistency": -1}, "consistency should be 0 or above"),
    ({"entropy": math.nan}, "entropy should be a finite number, got nan"),
    ({"mutual_information": None}, "mutual_information should be a finite number, got None"),
    ({"l2": -1.0}, "l2 should be 0 or above"),
    ({"unlabeled_weight": -1.0}, "unlabeled_weight should be 0 or above"),
    ({"balance": -0.5}, "balance should be 0 or above, got -0.5"),
    ({"labeled_weight": math.inf}, "labeled_weight should be a finite number or None, got inf"),
    ({"labeled_weight": -1.0}, "labeled_weight should be 0 or above"),
    ({"unlabeled_weight": "x"}, "unlabeled_weight should be a finite number"),
    ({"free_bits": math.inf}, "free_bits should be a finite number"),
    ({"top_k": True}, "top_k should be a whole number or None or one of auto, got True"),
    ({"batch_norm": "x"}, "batch_norm should be True or False, got 'x'"),
    ({"mixture": 1}, "mixture should be True or False, got 1"),
    ({"adversary": "x"}, "adversary should be a finite number"),
    ({"adversary_lr": 0.0}, "adversary_lr should be above 0"),
    ({"sigma1": "x"}, "sigma1 should be a finite number or None"),
    ({"m1_epochs": 0}, "m1_epochs should be a whole number above 0"),
]


@dataclass(frozen=True)
class WithSparsity(LossOptions):
    """A loss with one more weight."""

    sparsity: float = 0.0


def test_a_new_weight_of_the_loss_is_checked_like_the_others():
    assert WithSparsity(sparsity=1.0).sparsity == 1.0
    with pytest.raises(ValueError, match="sparsity should be 0 or above, got -1.0"):
        WithSparsity(sparsity=-1.0)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("method", zoo.METHODS)
def test_bad_options_are_named(method):
    for option, message in BAD:
        if option.keys() <= zoo.options_of(method).keys():
            with pytest.raises(ValueError, match=message):
                zoo.build(method, D, K, **option)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("method", ["m2", "adgm", "sdgm", "lvae"])
def test_no_classes_are_refused(method):
    with pytest.raises(ValueError, match="classes should be a whole number above 0, got 0"):
        zoo.build(method, D, 0)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((0,), {}, r"x_shape should be whole numbers above 0, .* got \(0,\)"),
        ((), {}, "x_shape should be whole numbers above 0"),
        ((3, -1), {}, "x_shape should be whole numbers above 0"),
        ((2.5,), {}, "x_shape should be whole numbers above 0"),
        ((4,), {"balance": -1.0}, "balance should be 0 or above, got -1.0"),
        ((4,), {"entropy": -0.1}, "entropy should be 0 or above, got -0.1"),
        ((4,), {"mutual_information": -0.1}, "mutual_information should be 0 or above"),
        ((4,), {"seed": 2**70}, r"seed should be a whole number in 0 .. 2\*\*64 - 1"),
        ((4,), {"seed": -1}, "seed should be a whole number"),
    ],
)
def test_a_shape_a_weight_or_a_seed_that_is_none_is_refused(shape, options, message):
    with pytest.raises(ValueError, match=message):
        zoo.build("m2", shape, 2, **options)

"""The presets against the papers' own numbers, typed from the papers, and what presets promise."""

import csv
import inspect
import io
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from pyro_ssl import SavedModel, fit, zoo
from pyro_ssl.nn.networks import ConvEncoder
from pyro_ssl.objectives.terms import L2
from pyro_ssl.types import unwrapped
from pyro_ssl.utils.files import CheckpointError
from pyro_ssl.zoo.presets import PRESETS

# As the papers have them; a factor is between the paper's units and ours. Pages of 002 are those of
# its table of contents; our texts of the other papers have none.
PAPERS = """preset|methods|setting|value|factor|place
paper-000|ce gm vc|stochastic|False||section 5: a delta distribution
paper-000|ce gm vc|labeled_weight|1||eq. 6
paper-000|ce gm vc|alpha|1||eq. 6
paper-000|ce gm vc|unlabeled_weight|0||eq. 6, all data have labels
paper-000|gm|density|1||section 5, J_GM
paper-000|vc|ratio|1||eq. 6
paper-000|vc|bounded|False||eq. 6
paper-000|vc|discriminator_inputs|linear||eq. 9
paper-000|vc|discriminator_hidden|0||eq. 9
paper-000|gm vc|shared_variance|False||section 5
paper-000-cifar|classifier ce gm vc|backbone|wrn-28-10||section 5.1, Table 1
paper-001|vae|network|conv||section 2.3
paper-001|vae|likelihood|bernoulli||section 2.3
paper-001|vae|z_dim|4||section 3.3
paper-002|classifier m2 sslpe sslapd|hidden|500 500||section 5.5.1, page 51
paper-002|classifier m2 sslpe sslapd|activation|relu||section 5.5.1, page 51
paper-002|m2 sslpe sslapd|z_dim|100||section 5.5.1, page 51
paper-002|classifier m2 sslpe sslapd|schedule|exponential||section 5.1.2, page 38
paper-002|classifier m2 sslpe sslapd|optimizer|adam||section 5.1.2, page 38
paper-002|sslpe sslapd|batch_norm|True||section 5.1.4, page 39
paper-002|sslpe sslapd|gibbs_steps|10||section 4.4, page 35
paper-002|sslpe sslapd|gibbs_chains|1||section 4.4, page 35
paper-002|m2 sslpe sslapd|top_k|None||eq. 4.11, page 32
paper-002|m2 sslpe sslapd|labeled_weight|None||eq. 4.10, page 31
paper-002|sslapd|bayesian|p_y||section 4.3, page 34
paper-002|sslapd|prior_scale|1||eq. 4.16, page 34
paper-002|sslapd|log_variance|-10||section 5.1.3, page 39
paper-002|sslapd|local_reparameterisation|False||section 4.3, page 34
paper-002|sslapd|norm_from_mean_weights|True||section 5.3, page 45
paper-002-moons|classifier m2 sdgm sslpe sslapd|hidden|128 128||section 5.2.1, page 42
paper-002-moons|classifier m2 sdgm sslpe sslapd|activation|relu||section 5.2.1, page 42
paper-002-moons|sslpe sslapd|likelihood|heteroscedastic_gaussian||eq. 4.3, page 29
paper-002-moons|sslpe sslapd|gibbs_steps|10||section 4.4, page 35
paper-002-moons|m2 sdgm sslpe sslapd|batch_norm|True||sections 5.1.4 to 5.2.2, pages 39 to 42
paper-002-moons|sslapd|epochs|50||section 5.3, page 45
paper-002-moons|sslapd|log_variance|-10||section 5.1.3, page 39
paper-003|classifier m2 latent_classifier|hidden|500||appendix B
paper-003|latent_classifier_exact latent_classifier_simplified|hidden|500||appendix B
paper-003|classifier m2 latent_classifier|activation|softplus||appendix B
paper-003|m2 latent_classifier latent_classifier_simplified|z_dim|50||appendix B
paper-003|m2 latent_classifier latent_classifier_simplified|likelihood|gaussian||section 2.2
paper-003|classifier m2 latent_classifier|lr|0.001||appendix B
paper-003|classifier m2 latent_classifier|optimizer|adam||appendix B
paper-003|classifier m2 latent_classifier|epochs|500||section 5.1
paper-003|m2 latent_classifier|batch_size|100||section 5.1
paper-003|m2 latent_classifier|labeled_batch_size|100||section 5.1
paper-003|m2|alpha|10000|0.01|Table 1, beside sums over batches of 100
paper-003|latent_classifier|labeled_weight|0.5||Table 1
paper-003|latent_classifier_simplified|labeled_weight|0.001||Table 1
paper-003|latent_classifier latent_classifier_simplified|alpha|0||section 4
paper-004|m2|hidden|600 600||section 5.2
paper-004|m2|classifier_hidden|600||section 5.2
paper-004|m2|z_dim|50||section 5.2
paper-004|adgm|hidden|500 500||section 5.2
paper-004|adgm|classifier_hidden|500||section 5.2
paper-004|adgm|z_dim|100||section 5.2
paper-004|adgm|a_dim|100||section 5.2
paper-004|lvae|z_dims|32 16 8||section 5.2
paper-004|lvae|hidden|128||section 5.2
paper-004|lvae|classifier_hidden|128||section 5.2
paper-004|m2 adgm lvae|lr|3e-4||section 5.2
paper-004|m2 adgm lvae|epochs|1000||section 5.2
paper-004|m2 adgm lvae|batch_size|200||section 5.2
paper-004|m2 adgm lvae|optimizer|adam||section 5.2
paper-004|m2 adgm lvae|schedule|halving||section 5.2
paper-004|m2 adgm lvae|labeled_weight|None||eq. 4
paper-004-mier|m2 adgm lvae|entropy|5||section 5.2, beta
paper-004-mier|m2 adgm lvae|mutual_information|1||section 5.2, gamma
"""
ROWS = list(csv.DictReader(io.StringIO(PAPERS), delimiter="|"))
EACH = [(preset.method, preset.name) for preset in PRESETS]
PLACE = re.compile(r"section|eq\.|appendix|Table|reproducibility")

# What has no effect: without convolutions, a vamp prior, a Gaussian or random weights.
NO_EFFECT = {"channels", "pseudo_inputs", "sigma", "x_log_variance", "regression"}
OF_RANDOM_WEIGHTS = {
    "prior_scale",
    "log_variance",
    "local_reparameterisation",
    "norm_from_mean_weights",
}


def value_of(text: str, kind: type) -> object:
    """A value of the table in the type of the preset's value."""
    if text == "None":
        return None
    if kind is bool:
        return {"True": True, "False": False}[text]
    if kind is tuple:
        return tuple(int(word) if word.isdigit() else word for word in text.split())
    return kind(text)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['preset']}-{row['setting']}")
def test_a_preset_has_the_papers_value(row):
    for method in row["methods"].split():
        preset = zoo.preset_of(method, row["preset"])
        choice = (preset.options | preset.training)[row["setting"]]
        expected = value_of(row["value"], type(choice.value))
        if row["factor"]:
            expected = expected * float(row["factor"])
        assert choice.value == expected
        assert choice.kind == "paper"


@pytest.mark.parametrize(("method", "name"), EACH)
def test_a_preset_names_every_option_and_argument_that_counts(method, name):
    preset = zoo.preset_of(method, name)
    known = zoo.options_of(method)
    assert preset.options.keys() <= known.keys()
    unimportant = set(NO_EFFECT)
    values = preset.option_values
    if not values.get("bayesian"):
        unimportant |= OF_RANDOM_WEIGHTS
    if values.get("backbone"):
        unimportant |= {"network", "hidden", "activation"}
    if values.get("stochastic") is False:
        unimportant |= {"draws"}
    assert known.keys() - preset.options.keys() <= unimportant
    arguments = {"epochs", "batch_size", "labeled_batch_size", "lr", "optimizer", "schedule"}
    arguments |= {"warmup", "clip_norm", "ema", "precision"}
    assert preset.training.keys() == arguments <= inspect.signature(fit).parameters.keys()


@pytest.mark.parametrize(("method", "name"), EACH)
def test_every_value_has_a_source_or_a_reason(method, name):
    preset = zoo.preset_of(method, name)
    for choice in (preset.options | preset.training).values():
        assert choice.kind in ("paper", "ours", "absent") and choice.source
        if choice.kind == "paper":
            assert PLACE.search(choice.source)
            if name.startswith("paper-002"):
                assert "page" in choice.source


@pytest.mark.parametrize(("method", "name"), EACH)
def test_nothing_of_ours_is_on(method, name):
    preset = zoo.preset_of(method, name)
    values = preset.option_values
    if name != "paper-000-cifar":  # whose repository has dropout, crops and mirrored images
        assert all(not values.get(option) for option in ("dropout", "crop", "flip"))
    assert all(not values.get(o) for o in ("noise", "warp", "balance", "consistency", "flow"))
    assert values.get("top_k") is None
    assert preset.training_values["ema"] == 0.0


SMALL = {"hidden": (6,), "classifier_hidden": None, "z_dim": 2, "a_dim": 2, "z_dims": (3, 2)}
SMALL |= {"decoder_hidden": None, "draws": 2, "gibbs_steps": 2, "backbone": None}


@pytest.mark.parametrize(("method", "name"), EACH)
def test_a_preset_trains_and_predicts(method, name):
    options = {k: v for k, v in SMALL.items() if k in zoo.options_of(method)}
    if zoo.preset_of(method, name).option_values.get("backbone"):
        options |= {"backbone": "cnn-2"}
    shape = (1, 8, 8)
    x = torch.rand(40, *shape, generator=torch.Generator().manual_seed(0))
    y = torch.where(torch.arange(40) < 20, torch.arange(40) % 2, -1)
    o = zoo.build(method, shape, 2, preset=name, **options)
    training = zoo.training_of(method, name) | {"epochs": 1, "progress": False}
    history = fit(o, x, y, **training)
    assert all(torch.tensor(history["loss"]).isfinite())
    assert torch.allclose(o.classify(x).mean.sum(-1), torch.ones(40), atol=1e-5)


def test_the_users_options_win():
    o = zoo.build("m2", (4,), 3, preset="paper-004", hidden=(7,), classifier_hidden=(5,))
    assert o.guide.q_y.network.first.bias.shape == (5,)
    assert o.guide.q_z.network.first.bias.shape == (7,)
    assert o.model.p_z().event_shape == (50,)
    assert not [layer for layer in o.modules() if isinstance(layer, nn.Dropout)]


def test_mier_differs_by_its_two_terms_alone():
    for method in ("m2", "adgm", "lvae"):
        plain, mier = (zoo.preset_of(method, n) for n in ("paper-004", "paper-004-mier"))
        changed = {k: v for k, v in mier.option_values.items() if v != plain.option_values[k]}
        assert changed == {"entropy": 5.0, "mutual_information": 1.0}
        assert mier.training == plain.training


def test_paper_001_has_its_layers():
    o = zoo.build("vae", (1, 28, 28), 10, preset="paper-001")
    encoder, decoder = o.guide.q_z.network, o.model.p_x.network
    assert isinstance(encoder, ConvEncoder)
    for network, kind in ((encoder, nn.Conv2d), (decoder, nn.ConvTranspose2d)):
        assert sum(isinstance(layer, kind) for layer in network.modules()) == 3
    assert len(zoo.preset_of("vae", "paper-001").options["hidden"].value) + 1 == 2
    assert len(zoo.preset_of("vae", "paper-001").options["decoder_hidden"].value) + 1 == 3


@pytest.mark.parametrize("method", ["sslpe", "sslapd"])
def test_l2_is_on_all_deterministic_networks_of_the_thesis(method):
    """Paper 002, section 5.1.2: on every network that is not trained as a Bayesian one."""
    o = zoo.build(method, (4,), 3, preset="paper-002-moons", hidden=(6, 5), l2=0.2).double()
    (l2,) = [term for term in o.terms if isinstance(term, L2)]
    model, guide = unwrapped(o.model), unwrapped(o.guide)
    networks = [guide.q_y, guide.q_z, model.p_x]
    if method == "sslpe":
        networks.append(model.p_y)
    expected = sum(w.square().sum() for n in networks for w in n.parameters() if w.dim() > 1)
    assert torch.allclose(l2.weight * l2.formula(None), 0.1 * expected)
    assert l2.weight == 0.2


@pytest.mark.parametrize(
    ("method", "name", "message"),
    [
        ("m2", "paper-005", "preset should be one of paper-000, .*paper-004-mier; got 'paper-005'"),
        ("sdgm", "paper-002", "of classifier, m2, sslpe, sslapd, .* presets of sdgm: paper-002-m"),
        ("m1_m2", "paper-003", "is of classifier, m2, .* the presets of m1_m2: none"),
        ("m3", "paper-003", "method should be one of"),
    ],
)
def test_a_pair_that_does_not_exist_names_those_that_do(method, name, message):
    for look_up in (zoo.preset_of, zoo.training_of, lambda m, n: zoo.build(m, 4, 3, preset=n)):
        with pytest.raises(ValueError, match=message):
            look_up(method, name)


def test_a_saved_model_remembers_its_preset_and_all_options(tmp_path):
    given = {"hidden": (6,), "classifier_hidden": None, "z_dim": 2}
    o = zoo.build("m2", (4,), 2, preset="paper-004-mier", **given)
    SavedModel("m2", (4,), [0, 1], given, o, preset="paper-004-mier").save(tmp_path / "model")
    again = SavedModel.load(tmp_path / "model")
    assert again.preset == "paper-004-mier"
    expected = zoo.preset_of("m2", "paper-004-mier").option_values | given
    assert again.options == {k: list(v) if type(v) is tuple else v for k, v in expected.items()}
    assert [term.weight for term in again.objective.terms] == [6.0, 5.0, 1.0]
    with pytest.raises(ValueError, match="preset should be one of"):
        SavedModel("m2", (4,), [0, 1], given, o, preset="paper-005")


def test_a_model_whose_preset_is_no_longer_there_loads(tmp_path):
    o = zoo.build("m2", (4,), 2, hidden=(6,))
    saved = SavedModel("m2", (4,), [0, 1], {"hidden": (6,)}, o)
    saved.preset = "paper-of-another-version"
    saved.save(tmp_path / "model")
    assert SavedModel.load(tmp_path / "model").preset == "paper-of-another-version"
    saved.preset = 5
    saved.save(tmp_path / "model")
    with pytest.raises(CheckpointError, match="preset should be a name or null, got 5"):
        SavedModel.load(tmp_path / "model")


def test_the_page_lists_every_preset():
    page = (Path(__file__).parents[2] / "docs" / "howto" / "presets.md").read_text()
    methods: dict[tuple[str, str], list[str]] = {}
    for preset in PRESETS:
        methods.setdefault((preset.name, preset.experiment), []).append(f"`{preset.method}`")
    for (name, experiment), of in methods.items():
        assert f"| `{name}` | {', '.join(of)} | {experiment} |" in page

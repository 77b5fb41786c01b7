"""Every picture is drawn and saved, and drawing moves nothing."""

import numpy as np
import pytest
import torch

from pyro_ssl import Objective, fit, zoo
from pyro_ssl.evaluation import plots, style

IMAGE = (1, 4, 4)
SMALL = {"hidden": (6,), "z_dim": 2}


@pytest.fixture(autouse=True)
def agg(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    yield
    plt.close("all")


def data(*shape: int) -> torch.Tensor:
    return torch.rand(12, *shape, generator=torch.Generator().manual_seed(0))


def class_indices(classes: int) -> torch.Tensor:
    return torch.where(torch.arange(12) < 6, torch.arange(12) % classes, -1)


def plane(classes: int = 2, **options) -> Objective:
    return zoo.build("m2", 2, classes, likelihood="gaussian", **SMALL | options)


def images(channels: int = 1, **options) -> Objective:
    return zoo.build("m2", (channels, 4, 4), 3, noise=0.5, dropout=0.3, **SMALL | options)


def histories() -> dict:
    return {str(s): fit(plane(), data(2), class_indices(2), epochs=2, seed=s) for s in (0, 1)} | {
        "other": {"loss": [1.0]}
    }


PICTURES = {
    "regions": lambda o: plots.decision_regions(
        o, data(2), class_indices(2), title="t", resolution=9
    ),
    "regions of a function": lambda o: plots.decision_regions(
        lambda x: x.softmax(-1), data(2), class_indices(2), resolution=9
    ),
    "regions without labels": lambda o: plots.decision_regions(
        o, data(2), torch.full((12,), -1), resolution=9
    ),
    "analogies": lambda o: plots.analogies(o, data(*IMAGE)[:4], 3),
    "samples": lambda o: plots.class_samples(o, 3, 4),
    "curves": lambda o: plots.learning_curves(histories()),
    "one curve": lambda o: plots.learning_curves(histories(), ["loss"]),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("training", [True, False])
def test_a_picture_is_saved_and_nothing_moves(name, training, tmp_path):
    o = (images() if name in ("analogies", "samples") else plane()).train(training)
    before = {k: v.clone() for k, v in o.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    path = plots.save(PICTURES[name](o), tmp_path / "new" / "picture.png")
    assert torch.equal(torch.rand(2), expected)
    assert all(m.training == training for m in o.modules())
    assert all(torch.equal(v, before[k]) for k, v in o.state_dict().items())
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 1000


@pytest.mark.parametrize(
    "options", [{"network": "conv"}, {"channels": 3}, {"likelihood": "gaussian"}]
)
def test_images_of_every_kind_are_drawn(options, tmp_path):
    o = images(**options)
    x = data(options.get("channels", 1), 4, 4)[:2]
    for figure in (plots.analogies(o, x, 3), plots.class_samples(o, 3, 2)):
        assert plots.save(figure, tmp_path / "a.png").stat().st_size > 500


def pixels(figure) -> torch.Tensor:
    """The images of a grid, row by row, which stand a white pixel apart."""
    sheet = torch.as_tensor(figure.axes[0].images[0].get_array())
    sheet = torch.nn.functional.pad(sheet, (0, 1, 0, 1))
    found = sheet.unfold(0, 5, 5).unfold(1, 5, 5)
    assert (found[..., 4, :] == 0).all() and (found[..., 4] == 0).all()
    return found[..., :4, :4].flatten(0, 1)


def test_analogies_show_the_image_and_each_class_with_its_style():
    o, x = images().eval(), data(*IMAGE)[:2]
    shown = pixels(plots.analogies(o, x, 3)).unflatten(0, (2, 4))
    eye = torch.eye(3)
    with torch.no_grad():
        z = o.guide.q_z(x, eye[o.classify(x).probs.argmax(-1)]).mean
        expected = [o.model.p_x(eye[k].expand(2, 3), z).mean[:, 0] for k in range(3)]
    assert torch.equal(shown[:, 0], x[:, 0])
    assert torch.allclose(shown[:, 1:], torch.stack(expected, 1).clamp(0, 1), atol=1e-6)


def test_titles_stand_over_their_columns():
    for channels in (1, 3):
        figure = plots.image_grid(torch.ones(2, 3, channels, 4, 6), ["a", "b", "c"])
        ax = figure.axes[0]
        assert [(t.get_text(), t.xy[0]) for t in ax.texts] == [("a", 2.5), ("b", 9.5), ("c", 16.5)]
        assert ax.images[0].get_array().shape[:2] == (9, 20)


def test_samples_are_a_function_of_their_seed_and_share_z_in_a_row():
    o = images()
    first, again, other = (pixels(plots.class_samples(o, 3, 2, seed=s)) for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    with torch.no_grad():
        o.model.p_x.network.first.weights[0].zero_()  # the class does not matter
    rows = pixels(plots.class_samples(o, 3, 2)).unflatten(0, (2, 3))
    assert torch.allclose(rows[:, 0], rows[:, 2]) and not torch.allclose(rows[0], rows[1])


def test_decision_regions_colour_each_side_by_its_class():
    x = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    right = lambda x: torch.stack([(x[:, 0] < 0).float(), (x[:, 0] >= 0).float()], -1)  # noqa: E731
    picture = torch.as_tensor(
        plots.decision_regions(right, x, torch.tensor([0, 1]), resolution=10).images[0].get_array()
    )
    assert picture.shape == (10, 10, 3)
    for column, colour in ((0, plots.COLOURS[0]), (9, plots.COLOURS[1])):
        expected = torch.tensor([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]).double()
        assert torch.allclose(picture[:, column], expected.expand(10, 3))


@pytest.mark.parametrize("shape", [(3,), (1,), (1, 2, 2)])
def test_decision_regions_need_a_plane(shape):
    with pytest.raises(ValueError, match=r"x should have shape \(N, 2\)"):
        plots.decision_regions(plane(), data(*shape), class_indices(2))


@pytest.mark.parametrize("unit", [1e-13, 1.0, 1e10])
def test_histograms_are_as_wide_as_the_scores(unit):
    figure = plots.histograms({"own": {"s": unit * torch.linspace(0, 1, 200)}}, "own")
    edges = figure.axes[0].patches[0].get_xy()[:, 0]
    np.testing.assert_allclose([edges.min() / unit, edges.max() / unit], [0.005, 0.995], rtol=1e-4)
    plots.histograms({"own": {"s": torch.full((5,), unit)}}, "own")


def test_mixed_colours_stay_in_range_for_rounded_probabilities():
    assert style.mixed_colours([[0.0, 1.0001]]).max() == 1

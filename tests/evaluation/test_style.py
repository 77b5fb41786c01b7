"""One palette for every picture, distinct for everybody; titles in place of names from the code."""

from itertools import combinations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from pyro_ssl import objectives, zoo
from pyro_ssl.evaluation import style

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.3039],
    ],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1.0, 1.089])


def linear(colour: str) -> np.ndarray:
    values = np.array(style.rgb(colour))
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear RGB."""
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
def test_colours_differ_for_everybody(vision):
    seen = [lab(np.array(VISION[vision]) @ linear(colour)) for colour in style.COLOURS]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 15


def test_every_method_has_a_colour_of_the_palette():
    assert style.METHOD_COLOURS.keys() == zoo.METHODS.keys()
    assert set(style.METHOD_COLOURS.values()) <= set(style.COLOURS)


def test_lines_of_one_picture_have_different_colours():
    for names in (["m2", "a", "b"], ["sslapd", "vae"], ["latent_classifier", "sdgm", "m2"]):
        colours = style.line_colours(names)
        assert list(colours) == names
        assert len(set(colours.values())) == len(names)


def test_a_backend_that_is_loaded_within_the_style_stays_interactive():
    before = plt.isinteractive()
    try:
        with style.context():
            plt.ion()  # as the backend of notebooks does when the first figure loads it
        assert plt.isinteractive()
        with style.context():
            plt.ioff()
        assert not plt.isinteractive()
    finally:
        matplotlib.interactive(before)


def test_every_term_has_a_title():
    terms = [name for name in vars(objectives) if isinstance(getattr(objectives, name), type)]
    terms = [name for name in terms if issubclass(getattr(objectives, name), objectives.Term)]
    assert set(terms) - {"Term"} <= style.PART_TITLES.keys()


def test_settings_hold_within_the_block_only():
    before = plt.rcParams["axes.spines.top"]
    with style.context():
        assert not plt.rcParams["axes.spines.top"]
    assert plt.rcParams["axes.spines.top"] == before


def test_figure_legend_names_each_line_once_and_covers_no_axes():
    with style.context():
        figure, axes = plt.subplots(1, 2)
        for ax in axes:
            ax.plot([0, 1], label="a")
        style.figure_legend(figure)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a"]
    assert not any(legend.get_window_extent().overlaps(ax.get_window_extent()) for ax in axes)
    plt.close(figure)

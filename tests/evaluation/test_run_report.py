"""The report of a run: its sections, and a page that needs no other file."""

import pytest
import torch
from PIL import Image

from pyro_ssl import data, zoo
from pyro_ssl.evaluation import html_report, run_report
from pyro_ssl.evaluation.html_report import Picture, Section, Table


@pytest.fixture(scope="module")
def digits():
    return data.digits(n_test=40)


def test_texts_are_escaped_and_pictures_are_embedded():
    picture = Picture(b"png", "a 'dog' & a <cat>")
    table = Table(["<b>"], [["<script>alert(1)</script>"], [picture]])
    page = html_report.html("a & b", [Section("<i>", "x < y", [table], [picture])])
    assert "<script>" not in page and "<b>" not in page and "<i>" not in page
    assert page.count("data:image/png;base64,cG5n") == 2
    assert page.count("a &#39;dog&#39; &amp; a &lt;cat&gt;") == 2


@pytest.mark.parametrize(
    ("method", "absent"),
    [("m2", set()), ("classifier", {"Most surprising data", "Samples"}), ("sslpe", {"Map"})],
)
def test_a_method_has_the_sections_that_it_can_have(digits, method, absent):
    objective = zoo.build(method, digits.x_shape, 10, seed=0, hidden=(8,))
    sections = run_report.sections(objective, digits, None)
    everything = {"Test set", "Confusion matrix", "Least certain", "Most surprising labels"}
    everything |= {"Most surprising data", "Samples", "Map"}
    assert {section.title for section in sections} == everything - absent


@pytest.mark.parametrize(
    ("method", "density"), [("m2", "log p(x)"), ("m1_m2", "the log-density of their mean code")]
)
def test_the_bound_is_called_what_it_bounds(digits, method, density):
    objective = zoo.build(method, digits.x_shape, 10, seed=0)
    (section,) = run_report.surprising_data(objective, digits)
    assert section.text == f"The test rows with the lowest bound on {density}."


def test_the_least_certain_rows_come_first(digits):
    objective = zoo.build("classifier", digits.x_shape, 10, seed=0, hidden=(8,))
    sections = {s.title: s for s in run_report.test_sections(objective, digits)}
    rows = sections["Least certain"].tables[0].rows
    confidences = [float(row[3]) for row in rows]
    assert confidences == sorted(confidences) and len(rows) == run_report.SHOWN
    row = int(rows[0][0])
    assert rows[0][4] == digits.classes[int(digits.y_test[row])]


def test_an_image_is_shown_pixel_by_pixel(tmp_path):
    x = torch.zeros(3, 1, 2, 2)
    x[:, 0, 0, 1] = 1.0
    y = torch.arange(3) % 2
    dataset = data.from_arrays(x, y, x, y, "dots")
    objective = zoo.build("classifier", dataset.x_shape, 2, seed=0, hidden=(4,))
    picture = run_report.test_sections(objective, dataset)[2].tables[0].rows[0][1]
    (tmp_path / "dot.png").write_bytes(picture.png)
    with Image.open(tmp_path / "dot.png") as image:
        assert list(image.getdata()) == [0, 255, 0, 0]


def test_two_columns_have_decision_regions():
    moons = data.two_moons(40, 20, seed=0)
    objective = zoo.build("classifier", (2,), 2, seed=0, hidden=(4,))
    titles = [section.title for section in run_report.sections(objective, moons, moons.y)]
    assert titles[-1] == "Decision regions"


def test_the_map_has_rows_of_all_classes_of_a_sorted_file(monkeypatch):
    y = torch.arange(40) // 20
    x = torch.rand(40, 3, generator=torch.Generator().manual_seed(0))
    dataset = data.from_arrays(x, y, x, y, "sorted")
    objective = zoo.build("classifier", (3,), 2, seed=0, hidden=(4,))
    drawn = []
    draw = run_report.plots.feature_map
    monkeypatch.setattr(run_report, "MAP_ROWS", 15)
    monkeypatch.setattr(
        run_report.plots, "feature_map", lambda f, y, names: drawn.append(y) or draw(f, y, names)
    )
    assert "14 test rows" in run_report.map_sections(objective, dataset, None)[0].text
    assert drawn[0].bincount().tolist() == [7, 7]


@pytest.mark.parametrize("method", ["classifier", "ce", "m1_m2"])
def test_a_method_that_draws_no_images_has_no_samples(digits, method):
    objective = zoo.build(method, (1, 8, 8), 10, hidden=(4,))
    assert run_report.sample_sections(objective, digits) == []


def test_another_error_in_drawing_samples_is_not_hidden(digits, monkeypatch):
    def broken(*arguments, **more):
        raise ValueError("something else")

    monkeypatch.setattr(run_report.plots, "class_samples", broken)
    with pytest.raises(ValueError, match="something else"):
        run_report.sample_sections(zoo.build("m2", (1, 8, 8), 10, hidden=(4,)), digits)

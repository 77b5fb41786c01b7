"""Generated text of the site: numbers are those of the studies' pages, links are the site's."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pyro_ssl import zoo

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "experiments" / "results"


@pytest.fixture(autouse=True)
def docs(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))


@pytest.mark.parametrize("study", ["moons", "m2_mnist", "mnist_labels", "mier"])
def test_numbers_are_those_of_the_studys_page(study):
    from measured import measurements

    page = (RESULTS / f"{study}.md").read_text()
    of_study = [m for m in measurements() if m.study.name == study]
    assert len(of_study) >= 2
    for measurement in of_study:
        assert f"| {measurement.mean('accuracy', 100, 2)} " in page, measurement


def test_every_method_has_a_cost():
    from measured import cost

    for name in zoo.METHODS:
        for data in ("moons", "images"):
            step = cost(name, data)
            assert step is not None and step.eager > 0 and step.compiled > 0, name


def test_every_marker_of_a_page_gives_text():
    from generated_text import MARKER, with_generated_text

    pages = [p for p in (ROOT / "docs").rglob("*.md") if "_generated" not in p.parts]
    marked = [page for page in pages if MARKER.search(page.read_text())]
    assert len(marked) > len(zoo.METHODS)
    for page in marked:
        text = with_generated_text(page.read_text())
        assert "<!-- generated" not in text and "The site" not in text, page
        assert "|" in text or "```" in text or "### " in text, page


def test_a_placeholder_names_the_command_that_prints_its_text():
    from generated_text import GENERATORS, MARKER

    for page in (ROOT / "docs").rglob("*.md"):
        for match in MARKER.finditer(page.read_text()):
            command = re.search(r"`(pyro-ssl|python docs/|python -m pydoc) ?[^`]+`", match[0])
            assert command, f"{page}: {match[0]}"
            if "generated_text.py" in command[0]:
                name, *_ = match[1].split()
                assert name in GENERATORS and f"generated_text.py {match[1]}`" in command[0]


def test_generated_text_is_printed_without_the_site():
    command = [sys.executable, "docs/generated_text.py", "compare", "m2_mnist", "100", "MNIST"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown.startswith("| method | row | accuracy %") and "/methods/m2.md" in shown


def test_every_option_is_explained():
    from generated_text import all_options

    text = all_options()
    titles = set(re.findall(r"^### (\w+)$", text, re.MULTILINE))
    assert titles == {name for method in zoo.METHODS for name in zoo.options_of(method)}
    assert "Default `0.3`; `0.0` in" in text  # noise: some methods differ


def test_links_lead_to_pages_of_the_site():
    from site_links import with_site_links

    links = {
        "[data](your_data.md#arrays)": "[data](/howto/your_data.md#arrays)",
        "[moons](../../experiments/results/moons.md)": (
            "[moons](/_generated/experiments/results/moons.md)"
        ),
        "[code](../../pyro_ssl)": "code",
        "[terms](../../pyro_ssl/types.py)": "[terms](../../pyro_ssl/types.py)",
        "[web](https://pyro.ai)": "[web](https://pyro.ai)",
        "![picture](../moons.png)": "![picture](/moons.png)",
    }
    for link, of_site in links.items():
        assert with_site_links(link, "howto/gpu") == of_site
    back = with_site_links("[GPU](../docs/howto/gpu.md)", "_generated/experiments/README")
    assert back == "[GPU](/howto/gpu.md)"

"""The page of the papers' tables and figures follows from its rows and from today's results."""

import dataclasses
import re

import pytest

ITEMS = {
    "000": [
        *(f"Table {i}" for i in range(1, 5)),
        *("Figure 1", "Figure 2, left", "Figure 2, right", "Figure 3", "Figure 4"),
        *("Figure 5, left", "Figure 5, right", "Figure 6", "Figure 7", "Figure 8"),
    ],
    "001": ["Table 1", "Table 2", "Figure 1", "Figure 2", "Figure 3"],
    "002": [
        *(f"Table 5.{i}" for i in range(1, 5)),
        *("Figure 1.1", "Figure 2.1", "Figure 2.2", "Figure 2.3", "Figure 2.4"),
        *("Figure 3.1", "Figure 3.2", "Figure 3.3", "Figure 4.1"),
        *(f"Figure 5.{i}" for i in range(1, 15)),
    ],
    "003": [
        "Table 1",
        *(f"Figure {i}" for i in range(1, 10)),
        *(f"Supplement, Figure {i}" for i in range(1, 13)),
    ],
    "004": [*(f"Table {i}" for i in range(1, 4)), *(f"Figure {i}" for i in range(1, 5))],
}
"""Read off the papers; parts of a figure that show different things stand alone."""
NUMBERS = {
    ("000", "Table 1"): 12,
    ("000", "Table 2"): 12,
    ("000", "Table 3"): 6,
    ("000", "Table 4"): 3,
    ("001", "Table 1"): 8,
    ("001", "Table 2"): 21,
    ("002", "Table 5.1"): 5,
    ("002", "Table 5.2"): 10,
    ("002", "Table 5.3"): 16,
    ("002", "Table 5.4"): 16,
    ("003", "Table 1"): 22,
    ("004", "Table 1"): 24,
    ("004", "Table 2"): 24,
    ("004", "Table 3"): 24,
}
"""How many numbers each table of the papers has."""


@pytest.fixture
def reproduced(scripts):
    return scripts("reproduced")


def test_the_page_is_what_the_script_makes_of_the_results(reproduced):
    """Run `python experiments/reproduced.py` after a change of rows or results."""
    assert reproduced.PAGE.read_text() == reproduced.page()


def test_every_table_and_figure_of_the_papers_has_a_row(reproduced):
    present = {(item.paper, item.item) for item in reproduced.read_items()}
    assert present == {(paper, item) for paper, items in ITEMS.items() for item in items}
    kinds = [item.startswith("Table") for items in ITEMS.values() for item in items]
    assert (kinds.count(True), kinds.count(False)) == (14, 61)


def test_a_row_is_unique_and_complete(reproduced):
    items = reproduced.read_items()
    keys = [(item.paper, item.item, item.settings) for item in items]
    assert len(set(keys)) == len(keys)
    for item in items:
        name = f"{item.paper} {item.item}"
        assert item.shows, name
        assert item.verdict in reproduced.VERDICTS, name
        assert item.reason or item.verdict == "reproduced", name
        assert item.settings in (reproduced.SETTINGS if item.script else ("",)), name
        assert item.conclusion in (("yes", "no") if item.is_table else ("",)), name
        assert bool(item.runs) <= bool(item.script), name


def test_every_script_and_picture_exists_and_a_figure_that_is_shown_has_one(reproduced):
    for item in reproduced.read_items():
        if item.script:
            assert (reproduced.FOLDER / f"{item.script}.py").exists(), item.script
        for picture in item.pictures.split():
            assert (reproduced.RESULTS / picture).exists(), picture
        if not item.is_table and item.verdict != "not":
            assert item.script and item.pictures, f"{item.paper} {item.item}"


def test_options_of_commands_are_those_of_the_scripts(reproduced, scripts):
    for item in reproduced.read_items():
        options = re.findall(r"--([\w-]+)", item.options)
        if options:
            selections = scripts(item.script).STUDY.selections
            assert set(options) <= set(selections), f"{item.paper} {item.item}"


def test_every_number_of_the_tables_is_published(reproduced):
    tables = [item for item in reproduced.read_items() if item.is_table]
    assert {(t.paper, t.item): len(t.cells) for t in tables} == NUMBERS
    for item in tables:
        names = {f"{c.setting} / {c.row} / {c.measure}" for c in item.cells}
        assert item.headline in names


def test_a_number_is_reached_to_the_digits_that_the_paper_prints(reproduced):
    def cell(measure, paper, **result):
        run = reproduced.Run("study", "run", {"draw": 0}, result)
        return reproduced.Cell("setting", "row", measure, paper, [run])

    assert cell("accuracy %", "99.9 (0.01)", accuracy=0.9987).reached
    assert not cell("accuracy %", "99.9 (0.01)", accuracy=0.9984).reached
    assert not cell("accuracy %", "99.87", accuracy=0.9986).reached
    assert cell("log-likelihood", "-0.305", log_likelihood=-0.3).reached
    assert not cell("log-likelihood", "-0.305", log_likelihood=-0.31).reached
    assert cell("ECE %", "3.10", ece_20=0.02).reached
    assert not cell("ECE %", "3.10", ece_20=0.04).reached
    assert not reproduced.Cell("setting", "row", "accuracy %", "0.0").reached
    assert not cell("accuracy %", "0.0", log_likelihood=1.0).reached  # not measured


def test_a_tables_verdict_follows_from_its_numbers(reproduced):
    def cells(*values):
        return [
            reproduced.Cell(
                "setting",
                "row",
                "accuracy %",
                "50",
                [reproduced.Run("study", "run", {"draw": 0}, {"accuracy": value})],
            )
            for value in values
        ]

    missing = reproduced.Cell("setting", "row", "accuracy %", "50")
    verdict = reproduced.table_verdict
    assert verdict(cells(0.5, 0.6), True, True) == "reproduced"
    assert verdict(cells(0.5, 0.6), False, True) == "partly"  # settings of ours
    assert verdict(cells(0.5, 0.6), True, False) == "partly"  # the conclusion is not seen
    assert verdict([*cells(0.5, 0.6), missing], True, True) == "partly"
    assert verdict(cells(0.5, 0.4), True, True) == "partly"
    assert verdict(cells(0.4, 0.4), True, True) == "not"
    assert verdict([missing], True, True) == "not"


def test_an_item_with_two_rows_counts_by_its_best(reproduced):
    first, *_ = reproduced.read_items()
    rows = [dataclasses.replace(first, verdict=v) for v in ("not", "partly", "not")]
    assert set(reproduced.best_verdicts(rows).values()) == {"partly"}


def test_our_numbers_are_means_over_the_draws_of_the_results(reproduced, scripts):
    """Cells of three kinds beside means that are computed by hand from the tables of results."""
    cells = {
        (item.paper, item.item, c.setting, c.row, c.measure): c.values
        for item in reproduced.read_items()
        for c in item.cells
        if item.settings == "ours"
    }
    read = scripts("results_table").read_results
    moons = read(reproduced.RESULTS / "moons.csv")
    by_hand = [moons[f"sslapd_0.1_{draw}"]["accuracy"] for draw in range(10, 15)]
    found = cells["002", "Table 5.1", "noise 0.1", "sslapd", "accuracy %"]
    assert found == pytest.approx([100 * accuracy for accuracy in by_hand])
    latents = read(reproduced.RESULTS / "vae_downstream.csv")
    by_hand = [
        probe["accuracy"]
        for draw in range(5)
        for probe in latents[f"z9_{draw}"]["probes"]
        if (probe["labels"], probe["probe"], probe["latents"]) == (100, "network", "mean")
    ]
    found = cells["001", "Table 1", "100 labels", "z = 9, network", "accuracy %"]
    assert found == pytest.approx([100 * accuracy for accuracy in by_hand])
    full = read(reproduced.RESULTS / "variational_classification.csv")
    by_hand = full["cifar_wrn-10-2_vc_0"]["ood"]["cifar100"]["max p"]["auroc"]
    found = cells["000", "Table 3", "cifar10 against cifar100", "vc", "AUROC of max p"]
    assert found == pytest.approx([by_hand])


def test_selectors_take_wildcards_nested_keys_and_exclusions(reproduced):
    def names(text):
        (selector,) = reproduced.selectors(text)
        return {run.name for run in reproduced.selected(selector)}

    assert names("moons name=m2_0.1_1[01]") == {"m2_0.1_10", "m2_0.1_11"}
    assert names("moons name=sslapd_0.1_* draw!=10 draw!=11") == {
        f"sslapd_0.1_{draw}" for draw in (12, 13, 14)
    }
    assert names("latent_plane options.sigma=0.03") == {"circles_m2_0.03_0"}


def test_a_selector_without_runs_and_a_cell_of_two_settings_are_refused(reproduced):
    (nothing,) = reproduced.selectors("moons noise=0.3")
    with pytest.raises(ValueError, match="no runs in moons.csv"):
        reproduced.selected(nothing)
    item = next(item for item in reproduced.read_items() if item.item == "Table 5.1")
    mixed = dataclasses.replace(item, runs="moons noise=0.1 -> noise {noise} / {method}")
    with pytest.raises(ValueError, match="should differ in draw"):
        reproduced.table_cells(mixed)


def test_runs_that_are_awaited_may_be_missing(reproduced):
    (selector,) = reproduced.selectors("awaited moons noise=0.3 -> noise {noise} / {method}")
    assert (selector.study, selector.awaited) == ("moons", True)
    assert reproduced.selected(selector) == []
    table = next(item for item in reproduced.read_items() if item.item == "Table 5.1")
    awaited = dataclasses.replace(table, settings="paper", runs="awaited moons noise=0.3 -> a / b")
    awaited = dataclasses.replace(awaited, cells=reproduced.table_cells(awaited))
    assert reproduced._row(awaited)[-1] == f"no runs yet: {table.reason}"
    assert reproduced._row(table)[-1] == table.reason
    numbers = reproduced._numbers_reached([table])
    assert numbers.startswith("Of 5 numbers")
    assert reproduced._numbers_reached([awaited, table]) == numbers  # each number counts once


def test_the_script_writes_the_page(reproduced, script, tmp_path):
    assert "Page:" in script("reproduced", "--out", "page.md", cwd=tmp_path)
    assert (tmp_path / "page.md").read_text() == reproduced.PAGE.read_text()

"""Pages of results: generated tables stay in their place, sources, published numbers."""


def test_a_tables_source_is_its_whole_command_and_names_what_differs(scripts):
    pages = scripts("pages")
    run = {"versions": {"torch": "2"}, "date": "2026-01-01", "commit": "abc", "threads": 1}
    results = {
        "one": run | {"command": "python a.py --draws 0 1 --scale cpu --workers 1"},
        "two": run | {"command": "python a.py --scale cpu --threads 2", "threads": 2},
        "three": run
        | {"command": "python a.py --scale cpu", "date": "2026-01-02", "diverged": "loss"},
    }
    said = pages.sources(results)
    days = "2026-01-01 abc; 2026-01-02 abc"
    assert said.startswith(f"`python a.py --scale cpu` ({days}); torch 2; run on 2 threads: two;")
    assert "diverged, and in no mean: three." in said


def test_generated_tables_are_replaced_and_the_text_around_them_stays(scripts, tmp_path):
    pages = scripts("pages")
    page = tmp_path / "page.md"
    pages.write_page(page, "moons", {"one": "| a |"})
    page.write_text(page.read_text().replace("# moons", "# Two moons\n\nA finding."))
    pages.write_page(page, "moons", {"one": "| b |", "two": "| c |"})
    text = page.read_text()
    assert text.startswith("# Two moons\n\nA finding.") and "| a |" not in text
    assert text.index("| b |") < text.index("| c |")


def test_smoke_tables_are_marked(scripts, tmp_path):
    pages = scripts("pages")
    shown = pages.write_page(tmp_path / "page.md", "moons", {"one": "| a |"}, smoke=True)
    assert pages.SMOKE in shown and pages.SMOKE in (tmp_path / "page.md").read_text()


def test_every_published_number_has_a_source_and_a_page(scripts):
    rows = scripts("pages").published_rows()
    assert len(rows) > 200 and all(row["value"] and row["source"] and row["page"] for row in rows)
    keys = [(r["study"], r["setting"], r["row"], r["measure"]) for r in rows]
    assert len(set(keys)) == len(keys)


def test_a_table_is_read_as_it_was_written(scripts, tmp_path):
    table = scripts("results_table")
    source = {
        "command": "a, b",
        "commit": "abc",
        "date": "2026-01-01",
        "versions": {"torch": "2"},
        "threads": 1,
    }
    first = {"config": {"draw": 0}} | source | {"accuracy": 1 / 3, "curve": [1, 2]}
    second = {"config": {"draw": 1}} | source | {"diverged": "loss"}
    table.write_results(tmp_path / "t.csv", {"b": second, "a": first})
    assert table.read_results(tmp_path / "t.csv") == {"a": first, "b": second}
    table.add_result(tmp_path / "t.csv", "a", second, tmp_path / "lock")
    assert table.read_results(tmp_path / "t.csv")["a"] == second
    assert table.read_results(tmp_path / "none.csv") == {}


def test_only_known_studies_have_published_numbers(scripts):
    with_numbers = {row["study"] for row in scripts("pages").published_rows()}
    for name in with_numbers:
        assert scripts(name).STUDY.name == name


def test_the_command_of_a_page_has_the_slice_that_all_its_runs_share(scripts):
    def result(command):
        return {"command": command, "versions": {"python": "3"}, "date": "2026", "commit": ""}

    smoke = "python experiments/moons.py --scale smoke"
    one = {"a": result(f"{smoke} --noise 0.1 --workers 1 --out out --labels placed")}
    assert f"`{smoke} --noise 0.1 --labels placed`" in scripts("pages").sources(one)
    both = one | {"b": result(f"{smoke} --noise 0.2 --labels placed")}
    assert f"`{smoke} --labels placed`" in scripts("pages").sources(both)

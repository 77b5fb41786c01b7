"""Studies: which runs are missing, which belong to a table, and checkpoints of another config."""

import argparse
from contextlib import suppress
from pathlib import Path

import pytest


def given(out: Path, **others) -> argparse.Namespace:
    defaults = {"report": False, "workers": 1, "threads": 1, "draws": None, "backend": None}
    return argparse.Namespace(**defaults | {"out": out} | others)


SOURCE = {"command": "", "commit": "", "date": "", "versions": {}, "threads": 1}


def test_a_table_keeps_the_draws_of_earlier_runs(scripts, tmp_path):
    study, results_table = scripts("study"), scripts("results_table")
    table = tmp_path / "study.csv"
    assert study.table_draws(table, [0, 1], [7]) == [0, 1, 7]
    rows = {"earlier": {"config": {"draw": 3}} | SOURCE, "other": {"config": {}} | SOURCE}
    results_table.write_results(table, rows)
    assert study.table_draws(table, [0, 1], [7]) == [0, 1, 3, 7]
    assert study.table_draws(table, [0, 1], [0, 1]) == [0, 1, 3]
    assert study.table_draws(table, [0, 1], [100]) == [100]


def test_a_changed_run_starts_anew(scripts, tmp_path):
    study = scripts("study")
    resumed = []

    def run(name, config, directory, pictures):
        resumed.append((directory / "checkpoint").exists())
        (directory / "checkpoint").mkdir(exist_ok=True)
        if len(resumed) < 3:
            raise KeyboardInterrupt
        return {"accuracy": 1.0}

    draws = {"smoke": [0]}
    for config in ({"draw": 0}, {"draw": 0}, {"draw": 1}, {"draw": 1}):
        made = study.Study("study", None, run, None, draws)
        files = study.Files(tmp_path, "study")
        missing = [] if study.stored(files.table, {"run": config}) else ["run"]
        with suppress(KeyboardInterrupt):
            study.run_missing(made, {"run": config}, missing, files, given(tmp_path))
    assert resumed == [False, True, False] and not (files.work / "run").exists()


def test_a_diverged_run_is_a_result_without_numbers(scripts, tmp_path):
    from pyro_ssl.training import DivergedError

    study, pages = scripts("study"), scripts("pages")

    def run(name, config, directory, pictures):
        raise DivergedError("loss is nan")

    files = study.Files(tmp_path, "study")
    made = study.Study("study", None, run, None, {"smoke": [0]})
    study.run_missing(made, {"run": {"draw": 0}}, ["run"], files, given(tmp_path))
    results = study.stored(files.table, {"run": {"draw": 0}})
    assert results["run"]["diverged"] == "loss is nan" and pages.where(results) == []


def test_runs_go_to_a_dask_cluster(scripts, tmp_path):
    distributed = pytest.importorskip("distributed", reason="pip install 'pyro-ssl[dask]'")
    study = scripts("study")
    made = study.Study("study", None, number_of_draw, None, {})
    files = study.Files(tmp_path, "study")
    configs = {f"run{draw}": {"draw": draw} for draw in range(3)}
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
    )
    with cluster:
        where = {"backend": "dask", "scheduler": cluster.scheduler_address}
        study.run_missing(made, configs, list(configs), files, given(tmp_path, **where))
    results = study.stored(files.table, configs)
    assert {name: result["number"] for name, result in results.items()} == {
        "run0": 0,
        "run1": 10,
        "run2": 20,
    }


def test_a_run_whose_worker_was_lost_is_said_to_be_done_again(scripts, tmp_path, capfd):
    study = scripts("study")
    files = study.Files(tmp_path, "study")

    def killed(*_):
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            study._run_one(killed, frozenset(), files, "", "session", "m2-0", {"draw": 0})
    assert capfd.readouterr().err == (
        "run m2-0 has lost its worker and is done again, attempt 2 of 3\n"
    )


def number_of_draw(name, config, directory, pictures):
    return {"number": 10 * config["draw"]}


def test_arrays_are_kept_beside_the_table(scripts, tmp_path):
    study = scripts("study")
    files = study.Files(tmp_path, "study")
    made = study.Study(
        "study", None, lambda *_: {"accuracy": 1.0, "plane": [1, 2]}, None, {}, arrays=["plane"]
    )
    study.run_missing(made, {"run": {"draw": 0}}, ["run"], files, given(tmp_path))
    columns = files.table.read_text().splitlines()[0]
    assert "plane" not in columns
    assert study._with_arrays(study.stored(files.table, {"run": {"draw": 0}}), files)["run"][
        "plane"
    ] == [1, 2]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, ""),
        (59.6, ", about 60 s left"),
        (2400, ", about 40 min left"),
        (20000, ", about 5.6 h left"),
    ],
)
def test_the_time_that_is_left(scripts, seconds, text):
    assert scripts("study")._time_left(seconds) == text


def test_options_that_came_later_have_their_defaults_in_an_older_config(scripts):
    from pyro_ssl import zoo

    study = scripts("study")
    config = {"method": "m2", "options": zoo.options_of("m2")}
    older = {
        "method": "m2",
        "options": {k: v for k, v in config["options"].items() if k != "z_dim"},
    }
    assert study.same(older, config) and not study.same(older | {"draw": 1}, config)
    assert not study.same(None, config)


def test_a_command_with_spaces_is_quoted(scripts, monkeypatch):
    given = ["/x/experiments/a.py", "--data-root", "/here", "--rows", "two words"]
    monkeypatch.setattr("sys.argv", given)
    command = scripts("study").provenance()["command"]
    assert command == "python experiments/a.py --data-root DATA --rows 'two words'"


def test_pictures_are_stored_with_a_palette(scripts, tmp_path):
    from PIL import Image

    for name, shade in (("a.png", 10), ("b.png", 200)):
        Image.new("RGBA", (4, 4), (shade, 0, 0, 255)).save(tmp_path / name)
    for _ in range(2):
        scripts("panels").reduce_colours(tmp_path)
    for name, shade in (("a.png", 10), ("b.png", 200)):
        with Image.open(tmp_path / name) as picture:
            assert picture.mode == "P" and picture.convert("RGB").getpixel((0, 0)) == (shade, 0, 0)


def test_runs_are_chosen_by_name_and_in_order(scripts):
    study = scripts("study")
    names = ["m2_0", "m2_1", "vc_0"]
    assert study.matching(names, ["vc_*", "m2_1", "*"]) == ["vc_0", "m2_1", "m2_0"]
    with pytest.raises(SystemExit, match="--runs m3_\\*: no run has this name"):
        study.matching(names, ["m3_*"])


def test_a_run_that_lacks_something_is_skipped_by_name(scripts, monkeypatch, capsys):
    study = scripts("study")

    def unavailable(config):
        return "" if study.path_of("scvi-python") else "there is no such Python"

    made = study.Study("study", None, None, None, {"smoke": [0]}, unavailable=unavailable)
    monkeypatch.delenv("PYRO_SSL_SCVI_PYTHON", raising=False)
    assert study.available(made, {"one": {}, "two": {}}, ["one", "two"]) == []
    assert capsys.readouterr().out == "Skipped, since there is no such Python: one, two\n"
    monkeypatch.setenv("PYRO_SSL_SCVI_PYTHON", "python")
    assert study.available(made, {"one": {}, "two": {}}, ["one", "two"]) == ["one", "two"]


def test_a_stored_command_has_no_paths_of_the_machine(scripts, monkeypatch):
    given = ["peers.py", "--scvi-python", "/a/python", "--data-root", "/b"]
    monkeypatch.setattr("sys.argv", given)
    command = scripts("study").provenance()["command"]
    assert command == "python experiments/peers.py --scvi-python PYTHON --data-root DATA"

"""`sweep`: every configuration is run once, errors do not stop the others, and tables."""

import csv
import json
import math
import os
import signal
import sys
import time
from pathlib import Path

import joblib
import pytest
import torch

from pyro_ssl.sweeps import Outcome, backend, group_by, run_name, statistics, sweep, write_table
from pyro_ssl.sweeps.lost_workers import ATTEMPTS_FILE, LostRunError, begin_attempt
from pyro_ssl.sweeps.runs import run_once
from pyro_ssl.sweeps.sweep import in_parallel
from pyro_ssl.utils import files

CONFIGS = [{"x": x, "seed": seed} for x in (1, 2) for seed in (0, 1)]


def count(config: dict, directory: Path) -> dict:
    """Note each call in a file, and give a number."""
    with (directory / "calls").open("a") as file:
        file.write("x")
    return {"value": config["x"] + config["seed"] / 10, "threads": torch.get_num_threads()}


def fail_on_two(config: dict, directory: Path) -> dict:
    if config["x"] == 2:
        raise ValueError("x is two")
    return count(config, directory)


def process(config: dict, directory: Path) -> dict:
    return {"process": os.getpid()}


def calls(directory: Path) -> list[str]:
    return [path.read_text() for path in sorted(directory.glob("runs/*/calls"))]


def test_each_configuration_is_run_once(tmp_path):
    said = []
    first = sweep(count, CONFIGS[:3], tmp_path, report=said.append)
    assert [outcome.config for outcome in first] == CONFIGS[:3]
    assert [outcome.result["value"] for outcome in first] == [1.0, 1.1, 2.0]
    assert [line.split(",")[0] for line in said] == ["1 of 3", "2 of 3", "3 of 3"]
    assert "about" in said[0] and "left" in said[0] and said[2] == "3 of 3"
    said.clear()
    again = sweep(count, CONFIGS + CONFIGS, tmp_path, report=said.append)
    assert again[:3] == first and len(again) == 4
    assert said == ["4 of 4"]
    assert calls(tmp_path) == ["x"] * 4
    for outcome in again:
        directory = tmp_path / "runs" / outcome.name
        assert json.loads((directory / "config.json").read_text()) == outcome.config


def test_an_error_does_not_stop_the_others_and_is_tried_again(tmp_path):
    outcomes = sweep(fail_on_two, CONFIGS, tmp_path, report=str)
    assert [outcome.error for outcome in outcomes] == ["", ""] + ["ValueError: x is two"] * 2
    assert outcomes[2].result is None
    failed = tmp_path / "runs" / outcomes[2].name
    assert "fail_on_two" in (failed / "error.txt").read_text()
    mended = sweep(count, CONFIGS, tmp_path, report=str)
    assert not any(outcome.error for outcome in mended)
    assert not (failed / "error.txt").exists()
    assert calls(tmp_path) == ["x"] * 4


def test_threads_are_set_and_put_back(tmp_path):
    before = torch.get_num_threads()
    assert sweep(count, CONFIGS[:1], tmp_path, threads=2, report=str)[0].result["threads"] == 2
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_runs_go_to_joblibs_active_backend(tmp_path):
    with joblib.parallel_config(backend="loky", n_jobs=2):
        outcomes = sweep(process, CONFIGS[:2], tmp_path, report=str)
    assert os.getpid() not in {outcome.result["process"] for outcome in outcomes}


def kill_on_two(config: dict, directory: Path) -> dict:
    if config["x"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if config["x"] == 1:
        time.sleep(3)  # it ends when its neighbour does
    return count(config, directory)


@pytest.mark.slow
def test_a_run_that_ends_its_worker_again_and_again_does_not_stop_the_others(tmp_path, capfd):
    configs = [{"x": x, "seed": 0} for x in (2, 1, 3)]
    with joblib.parallel_config(backend="loky", n_jobs=2):
        outcomes = sweep(kill_on_two, configs, tmp_path, report=str)
    name = run_name(configs[0])
    assert f"run {name} has lost its worker 3 times" in outcomes[0].error
    said = capfd.readouterr().err.splitlines()
    lines = [
        f"run {name} has lost its worker and is done again, attempt {attempt} of 3"
        for attempt in (2, 3)
    ]
    assert [line for line in said if name in line] == lines
    assert [outcome.result["value"] for outcome in outcomes[1:]] == [1.0, 3.0]
    again = sweep(count, configs, tmp_path, report=str)
    assert not again[0].error


def die(config: dict) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_worker_that_dies_before_its_run_begins_is_an_error_with_the_name_of_the_run():
    message = "run a has lost its worker 4 times, with no other run beside it; is there enough mem"
    with joblib.parallel_config(backend="loky", n_jobs=2):
        with pytest.raises(LostRunError, match=message) as told:
            in_parallel(die, {"run a": ({},)}, progress=print)
    assert "BrokenProcessPool" in {kind.__name__ for kind in type(told.value.__cause__).__mro__}


def test_an_attempt_of_an_earlier_session_is_no_lost_worker(tmp_path, capfd):
    begin_attempt(tmp_path, "monday")
    begin_attempt(tmp_path, "tuesday")
    (tmp_path / ATTEMPTS_FILE).write_text("{")  # damaged
    begin_attempt(tmp_path, "tuesday")
    assert capfd.readouterr().err == ""
    begin_attempt(tmp_path, "tuesday")
    assert capfd.readouterr().err == (
        f"run {tmp_path.name} has lost its worker and is done again, attempt 2 of 3\n"
    )


def test_a_run_in_use_by_another_command_is_an_error_of_this_run(tmp_path):
    directory = tmp_path / run_name(CONFIGS[0])
    with files.locked(directory):
        outcome = run_once(count, CONFIGS[0], directory, 1)
    assert "in use" in outcome.error and not (directory / "calls").exists()


def test_a_damaged_result_is_named(tmp_path):
    (outcome,) = sweep(count, CONFIGS[:1], tmp_path, report=str)
    path = tmp_path / "runs" / outcome.name / "result.json"
    path.write_text(path.read_text().replace("1.0", "1.5"))
    with pytest.raises(files.CheckpointError, match=f"{outcome.name} to repeat this run"):
        sweep(count, CONFIGS[:1], tmp_path, report=str)


def test_configurations_are_plain_data(tmp_path):
    with pytest.raises(ValueError, match="plain data"):
        sweep(count, [{"x": object()}], tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "slurm"}, "one of loky, dask, ray"),
        ({"name": "loky", "scheduler": "tcp://a:1"}, "is for the backends dask and ray only"),
    ],
)
def test_backends_that_are_not_there(arguments, message):
    with pytest.raises(ValueError, match=message), backend(**arguments):
        pass


def test_statistics_over_seeds():
    outcomes = [Outcome(str(i), config, {"value": i / 2}) for i, config in enumerate(CONFIGS)]
    groups = group_by(outcomes)
    assert [[outcome.name for outcome in group] for group in groups] == [["0", "1"], ["2", "3"]]
    mean, sd, worst, runs = statistics([1.0, 2.0, 4.0])
    assert (mean, worst, runs) == (pytest.approx(7 / 3), 1.0, 3)
    assert sd == pytest.approx(math.sqrt(((4 / 3) ** 2 + (1 / 3) ** 2 + (5 / 3) ** 2) / 2))
    assert math.isnan(statistics([1.0]).sd)


def test_the_table_has_a_row_for_each_run(tmp_path):
    outcomes = [
        Outcome("a", {"x": [1, 2], "seed": 0}, {"value": 0.5}),
        Outcome("b", {"x": None, "seed": 1}, None, "ValueError: no, never"),
    ]
    write_table(tmp_path / "t.csv", outcomes)
    with (tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"run": "a", "x": "[1, 2]", "seed": "0", "value": "0.5", "error": ""},
        {"run": "b", "x": "", "seed": "1", "value": "", "error": "ValueError: no, never"},
    ]


def test_no_column_of_the_table_replaces_another(tmp_path):
    outcome = Outcome("a", {"x": 1, "loss": "l1", "error": "squared"}, {"loss": 0.5})
    with pytest.raises(ValueError, match="different columns, got error, loss twice"):
        write_table(tmp_path / "t.csv", [outcome])
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.parametrize("name, package", [("dask", "distributed"), ("ray", "ray")])
def test_the_reason_why_a_backend_cannot_be_imported_is_told(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pyro-ssl\[{name}\].*{package}") as told:
        with backend(name, "tcp://127.0.0.1:9"):
            pass
    assert isinstance(told.value.__cause__, ImportError)

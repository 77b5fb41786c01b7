"""`search`: bad runs end early, and a search that was killed goes on."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from pyro_ssl.sweeps import Range, Search, run_name, search
from pyro_ssl.sweeps.runs import RunStopped

pytest.importorskip("optuna", reason="pip install 'pyro-ssl[optuna]'")
EPOCHS = 10
SPACE = {"x": Range(0.0, 1.0), "kind": ["good", "bad"], "width": Range(2, 5, log=True, whole=True)}


def make_config(values: dict) -> dict:
    return {"seed": 0} | values


def learn(config: dict, directory: Path, callbacks) -> dict:
    """A run whose score rises to x, or to nothing; it notes its epochs."""
    score = config["x"] * (config["kind"] == "good")
    for epoch in range(1, EPOCHS + 1):
        with (directory / "epochs").open("a") as file:
            file.write("x")
        metrics = {"val_accuracy": score * epoch / EPOCHS}
        for callback in callbacks:
            callback(SimpleNamespace(epoch=epoch, metrics=metrics, is_last=epoch == EPOCHS))
    return {"val_accuracy": score}


def learn_until_killed(config: dict, directory: Path, callbacks) -> dict:
    (directory / "killed").touch()
    raise KeyboardInterrupt


def fail(config: dict, directory: Path, callbacks) -> dict:
    raise OSError("no disk")


def of(run, directory: Path) -> Search:
    return Search(run, make_config, SPACE, directory, warmup=2)


def test_bad_runs_end_early_and_the_best_is_complete(tmp_path):
    best, outcomes = search(of(learn, tmp_path), 24, report=str)
    assert len(outcomes) == 24
    complete = [o for o in outcomes if o.result["state"] == "complete"]
    pruned = [o for o in outcomes if o.result["state"] == "pruned"]
    assert len(complete) + len(pruned) == 24 and len(pruned) >= 3
    top = max(complete, key=lambda outcome: outcome.result["val_accuracy"])
    assert best == top.config and best["kind"] == "good"
    for outcome in outcomes:
        epochs = len((tmp_path / "runs" / outcome.name / "epochs").read_text())
        assert (epochs == EPOCHS) == (outcome in complete)
        assert epochs >= 2  # none in the warm-up
        assert 0 <= outcome.config["x"] <= 1 and outcome.config["width"] in (2, 3, 4, 5)


def test_a_search_goes_on_with_what_is_there(tmp_path):
    _, first = search(of(learn, tmp_path), 3, report=str)
    said = []
    best, more = search(of(learn, tmp_path), 5, report=said.append)
    assert more[:3] == first and len(more) == 5
    assert said[-1] == "5 of 5"
    other = Search(learn, make_config, {"x": Range(0.0, 1.0)} | {"kind": ["good"]}, tmp_path)
    assert search(other, 1, report=str)[1][0].config.keys() == {"seed", "x", "kind"}


def test_a_killed_trial_continues_in_its_directory(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        search(of(learn_until_killed, tmp_path), 2, report=str)
    (killed,) = tmp_path.glob("runs/*/killed")
    _, outcomes = search(of(learn, tmp_path), 2, report=str)
    assert killed.parent.name in {outcome.name for outcome in outcomes}
    assert len(outcomes) == len(list((tmp_path / "runs").iterdir())) == 2


def test_failed_trials_are_told_and_tried_again(tmp_path):
    best, outcomes = search(of(fail, tmp_path), 2, report=str)
    assert best is None
    assert [outcome.error for outcome in outcomes] == ["OSError: no disk"] * 2
    best, outcomes = search(of(learn, tmp_path), 2, report=str)
    assert len(outcomes) == 2 and best in [outcome.config for outcome in outcomes]


def test_a_stopped_run_has_no_result(tmp_path):
    from pyro_ssl.sweeps import sweep

    (outcome,) = sweep(stop, [{"x": 1}], tmp_path, report=str)
    assert outcome.result is None and not outcome.error
    assert {p.name for p in (tmp_path / "runs" / run_name({"x": 1})).iterdir()} == {
        "config.json",
        "lock",
    }


def stop(config: dict, directory: Path) -> dict:
    raise RunStopped


@pytest.mark.parametrize(
    ("low", "high", "log", "message"),
    [(2, 1, False, "low to high"), (0, 1, True, "above 0"), (float("nan"), 1, False, "got nan")],
)
def test_ranges(low, high, log, message):
    with pytest.raises(ValueError, match=message):
        Range(low, high, log=log)


def test_an_empty_space_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one option"):
        search(Search(learn, make_config, {}, tmp_path), 1)

"""M2 beside its peers: the same rows for all, code that is run and counted, skipped peers."""

import sys

import numpy as np
import pytest
from experiment_files import names, row, write_mnist


def config(peer: str, data: str = "moons", **others) -> dict:
    return {"peer": peer, "data": data, "labels": 3, "draw": 0, "arguments": {}} | others


def test_lines_of_code_are_those_without_docstrings_and_comments(scripts, tmp_path):
    file = tmp_path / "code.py"
    file.write_text('"""Two\n\nlines."""\n\nimport os  # one\n\n# none\ndef f():\n    """No."""\n')
    assert scripts("peer_process").lines_of_code(file) == 2


@pytest.mark.parametrize("data", ["moons", "breast_cancer", "digits", "counts"])
def test_all_peers_have_the_same_rows_labels_and_test_rows(scripts, data):
    peers = scripts("peers")
    of_peers = [peers.arrays_of(config(peer, data)) for peer in ("m2", "scanvi")]
    (ours, y_ours), (theirs, y_theirs) = of_peers
    assert (ours["labels"] == theirs["labels"]).all() and (y_ours == y_theirs).all()
    assert (np.bincount(ours["labels"][ours["labels"] >= 0]) == 3).all()
    same = (ours["x"] == theirs["x"]).all() and (ours["x_test"] == theirs["x_test"]).all()
    assert same == (data != "counts")
    if data in peers.COUNTS:
        assert (theirs["x"] == theirs["x"].round()).all() and theirs["x"].min() == 0


def test_counts_have_the_stated_mean_and_variance(scripts, monkeypatch):
    peers = scripts("peers")
    monkeypatch.setattr(peers, "ROWS", 20_000)
    monkeypatch.setattr(peers, "GENES", 2)
    monkeypatch.setattr(peers, "CELL_TYPES", 1)
    x, _ = peers.cell_counts(0)
    mean, variance = x.mean(0), x.var(0)
    depth = np.exp(0.25)  # E d^2 / (E d)^2 of a log-normal (0, 0.5)
    expected = mean + mean**2 * (depth * (1 + 1 / peers.DISPERSION) - 1)
    assert variance == pytest.approx(expected, rel=0.1)


def test_a_peer_in_another_process_predicts_the_same(scripts):
    peers, peer_process = scripts("peers"), scripts("peer_process")
    arrays, _ = peers.arrays_of(config("logistic_regression"))
    file = peers.CODE / "logistic_regression.py"
    here, seconds = peer_process.timed(file, arrays, {"seed": 0})
    command = [sys.executable, peers._script("peer_process"), str(file)]
    there, others, versions = peers._in_process(command, arrays, {"seed": 0})
    assert (here == there).all() and seconds > 0 and others > 0 and "numpy" in versions


def test_a_failure_in_another_process_is_shown(scripts, tmp_path):
    peers = scripts("peers")
    code = tmp_path / "wrong.py"
    code.write_text("def probabilities(**arrays):\n    raise ValueError('no such thing')\n")
    command = [sys.executable, peers._script("peer_process"), str(code)]
    with pytest.raises(RuntimeError, match="no such thing"):
        peers._in_process(command, {"x": np.zeros(2)}, {})


def test_a_row_without_a_prediction_gets_equal_probabilities(scripts, monkeypatch, tmp_path):
    peers = scripts("peers")
    y = peers.arrays_of(config("m2"))[1]
    p = np.eye(2)[y]
    p[0] = np.nan
    monkeypatch.setattr(peers, "timed", lambda *call: (p, 1.0))
    result = peers.run("name", config("m2"), tmp_path, tmp_path)
    assert result["undecided"] == 1
    assert result["log_likelihood"] == pytest.approx(np.log(0.5) / len(y))


def test_a_mean_above_m2s_is_listed_with_its_standard_error(scripts):
    peers = scripts("peers")

    def result(peer, draw, accuracy):
        measured = {"accuracy": accuracy, "log_likelihood": -0.1 * draw - accuracy}
        return {"config": config(peer, "digits", draw=draw)} | measured

    results = {
        f"{peer}_{draw}": result(peer, draw, accuracy)
        for peer, accuracies in {"m2": (0.8, 0.7), "scanvi": (0.82, 0.76)}.items()
        for draw, accuracy in enumerate(accuracies)
    }
    assert peers.better(results) == (
        "- digits: scANVI, by 4.0 points of accuracy (standard error 2.0)."
    )


def test_pyros_example_gets_the_labels_of_the_draw(scripts, tmp_path, monkeypatch):
    example = scripts("pyro_example")
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils/__init__.py").touch()
    cached = "def get_ss_indices_per_class(y, per_class):\n    raise AssertionError\n"
    (tmp_path / "utils/mnist_cached.py").write_text(cached)
    text = (
        "import visdom\nfrom utils import mnist_cached\n"
        "def setup_data_loaders(*call, root, download):\n"
        "    return mnist_cached.get_ss_indices_per_class(None, 1), root, download\n"
    )
    (tmp_path / "ss_vae_M2.py").write_text(text)
    write_mnist(tmp_path / "data")
    monkeypatch.setenv("PYRO_SSL_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("visdom", "utils", "utils.mnist_cached", "ss_vae_M2"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    root = example.data_folder(tmp_path)
    assert (root / "MNISTCached/raw/train-images-idx3-ubyte").exists()
    module = example.example_module(tmp_path, np.array([-1, 3, -1]), root)
    assert module.setup_data_loaders() == (([1], [0, 2]), str(root), False)
    for name in ("visdom", "utils", "utils.mnist_cached", "ss_vae_M2"):
        sys.modules.pop(name, None)
    assert example.settings(100, tmp_path / "out.npz", 0, 2).sup_num % example.BATCH_SIZE == 0


@pytest.mark.slow
def test_peers(tmp_path, script):
    write_mnist(tmp_path / "data", n=10_600)
    arguments = ("--scale", "smoke", "--out", "out", "--data-root", "data")
    out = script("peers", *arguments, "--peers", "m2", "self_training", "scanvi", cwd=tmp_path)
    assert "Skipped, since --scvi-python does not name a Python with scvi-tools" in out
    table = tmp_path / "out/peers.csv"
    assert {"moons_m2_0", "counts_self_training_0", "mnist_m2_0"} <= names(table)
    assert not any("scanvi" in name for name in names(table))
    result = row(table, "mnist_m2_0")
    assert result["rows"] == "600" and int(result["lines"]) > 5
    assert "passes over the data" in out and "| self-training" in out

"""Time to an accuracy."""

import json
import re

from experiment_files import row, write_mnist


def test_time_to_accuracy(tmp_path, script):
    write_mnist(tmp_path / "data")
    arguments = ["--data-root", "data", "--labels", "20", "--epochs", "2", "--out", "out"]
    out = script("time_to_accuracy", *arguments, "--accuracy", "0", cwd=tmp_path)
    assert re.search(r"m2, 20 labels of MNIST, draw 0: 0% after \d+ s", out)
    out = script("time_to_accuracy", *arguments, "--accuracy", "1.1", cwd=tmp_path)
    assert re.search(r"110% not reached in \d+ s; best \d+\.\d+ %", out)
    assert len(json.loads(row(tmp_path / "out/time_to_accuracy.csv", "m2_0")["path"])) == 2

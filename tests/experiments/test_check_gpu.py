"""The script that checks a GPU, as far as a machine without one can run it."""

import csv
import json
import sys

import pytest
import torch
from torch import nn

RANDOM = ("randn", "rand_like", "normal_", "uniform_", "bernoulli_", "exponential_", "multinomial")
RANDOM += ("randint", "randperm", "native_dropout")
WITHOUT_GPU = ["synchronisations", "predict", "gibbs", "save and load", "resume", "bfloat16"]
WITHOUT_GPU += ["float64 steps", "stacked draws"]


@pytest.fixture
def check_gpu(scripts):
    return scripts("check_gpu")


@pytest.fixture
def code(check_gpu, monkeypatch, tmp_path):
    """Run the script in a folder of its own; its code."""

    def run(*arguments: str) -> int:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["check_gpu.py", *arguments])
        return check_gpu.main()

    return run


@pytest.mark.slow
def test_the_checks_that_need_no_gpu_pass_on_a_cpu(check_gpu, code, tmp_path, monkeypatch):
    monkeypatch.setattr(check_gpu, "QUICK", ("m2",))
    assert code("--device", "cpu", "--quick", "--only", *WITHOUT_GPU) == 0
    with (tmp_path / "runs/check_gpu/check_gpu.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["check"] for row in rows if row["status"] == "skipped"] == ["synchronisations"]
    assert {row["check"] for row in rows} == set(WITHOUT_GPU)
    equal = [row for row in rows if row["check"] in ("float64 steps", "predict", "resume")]
    assert {float(row["measured"]) for row in equal} == {0.0}  # the device is the CPU itself
    written = json.loads((tmp_path / "runs/check_gpu/check_gpu.json").read_text())
    assert len(written["lines"]) == len(rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(code, capsys):
    assert code() == 2
    assert "there is no CUDA GPU here" in capsys.readouterr().out


def broken(machine, subject):
    raise RuntimeError("out of memory\nin detail")


@pytest.mark.parametrize("measured, expected", [(0.5, 0), (2.0, 1), (float("nan"), 1)])
def test_a_number_above_its_limit_fails(check_gpu, code, monkeypatch, measured, expected):
    def find(machine, subject):
        return [check_gpu.Found(subject, measured, 1.0, "")]

    monkeypatch.setitem(check_gpu.CHECKS, "predict", check_gpu.Check(lambda machine: ["a"], find))
    assert code("--device", "cpu", "--only", "predict") == expected


def test_an_error_fails_its_check_and_the_others_are_made(check_gpu, code, monkeypatch, capsys):
    checks = {"gibbs": broken, "predict": lambda m, s: [check_gpu.Found(s, 0.0, 1.0, "")]}
    for name, find in checks.items():
        monkeypatch.setitem(check_gpu.CHECKS, name, check_gpu.Check(lambda machine: ["a"], find))
    assert code("--device", "cpu", "--only", *checks) == 1
    out = capsys.readouterr().out
    assert "RuntimeError: out of memory" in out and "in detail" not in out
    assert "1 passed, 1 failed or left out" in out


def test_what_there_is_no_time_for_is_left_out(code, capsys):
    assert code("--device", "cpu", "--only", "gibbs", "--minutes", "0") == 1
    assert "LEFT OUT" in capsys.readouterr().out


def test_what_draws_is_known_to_draw():
    """`CpuNoise` knows by this tag which operations are to be made on the CPU."""
    for name in RANDOM:
        packet = getattr(torch.ops.aten, name)
        overloads = [getattr(packet, overload) for overload in packet.overloads()]
        assert any(torch.Tag.nondeterministic_seeded in op.tags for op in overloads), name


def test_dropout_of_a_gpu_is_made_as_on_a_cpu(check_gpu):
    x = torch.randn(50, 4)
    torch.manual_seed(0)
    expected = nn.functional.dropout(x, 0.3)
    torch.manual_seed(0)
    dropped, mask = check_gpu.dropout(x, 0.3)
    assert torch.equal(dropped, expected)
    assert torch.equal(mask, expected != 0)

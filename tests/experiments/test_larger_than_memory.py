"""A file that is made, trained on, predicted and removed, with the memory of all processes."""

from experiment_files import cells, made, row


def test_larger_than_memory(tmp_path, script, scripts, monkeypatch):
    # often enough to meet the worker, which lives for a moment with so small a file
    monkeypatch.setattr(scripts("larger_than_memory"), "SECONDS_BETWEEN", 0.002)
    said = script("larger_than_memory", "--scale", "smoke", "--out", "out", cwd=tmp_path)
    of_run = cells(said, "0.003")
    assert of_run[5] == "2"  # this process and one worker
    assert (
        float(of_run[3]) >= float(of_run[4]) > 10
    )  # all memory, and that of mapped files left out
    measured = row(tmp_path / "out" / "larger_than_memory.csv", "file_0.003")
    assert float(measured["megabytes"]) > 2.9
    assert made(tmp_path / "out") >= {"larger_than_memory.csv", "larger_than_memory.md"}
    assert not list(tmp_path.rglob("*.npy"))


def test_memory_that_processes_share_is_counted_once(scripts):
    """A child that has only been forked adds little to the memory of its parent."""
    import multiprocessing
    import os

    import numpy as np

    script = scripts("larger_than_memory")
    block = np.ones(20_000_000)  # 160 MB
    before = script.memory_of([os.getpid()])["own"]
    context = multiprocessing.get_context("fork")
    go_on = context.Event()
    child = context.Process(target=go_on.wait)
    child.start()
    try:
        processes = script.processes_below(os.getpid())
        both = script.memory_of(processes)["own"]
    finally:
        go_on.set()
        child.join()
    assert child.pid in processes and block.nbytes == 160_000_000
    assert before > 160 and abs(both - before) < 40

"""A file that is made, trained on and predicted; an existing one is kept."""


def test_larger_than_memory(tmp_path, script):
    arguments = ["--file", "x.npy", "--gigabytes", "0.003", "--batch-size", "100", "--hidden", "4"]
    first = script("larger_than_memory", *arguments, cwd=tmp_path)
    assert "file: 3 MB; accuracy" in first and "MB; peak of a worker:" in first
    made = (tmp_path / "x.npy").stat().st_mtime_ns
    script("larger_than_memory", *arguments, cwd=tmp_path)
    assert (tmp_path / "x.npy").stat().st_mtime_ns == made

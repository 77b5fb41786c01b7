"""Image files for experiment scripts, and what the scripts write."""

import csv
from pathlib import Path
from typing import Any

import numpy as np


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_mnist(root: Path, n: int = 60, name: str = "MNIST") -> None:
    """Noise in MNIST's own file format.

    No test image is an 8, as among the first 60 of MNIST's own.
    """
    raw, rng = root / name / "raw", np.random.default_rng(0)
    raw.mkdir(parents=True)
    for part, classes in (("train", range(10)), ("t10k", (0, 1, 2, 3, 4, 5, 6, 7, 9))):
        labels = np.resize(classes, n)
        images = (rng.random((n, 28, 28)) * 60 + 15 * labels[:, None, None]).astype(np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))


def made(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def row(table: Path, name: str) -> dict[str, Any]:
    """A run's row of a study's table, as text."""
    with table.open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}[name]


def names(table: Path) -> set[str]:
    """Names of the runs of a study's table."""
    with table.open(newline="") as file:
        return {row["name"] for row in csv.DictReader(file)}


def remove(table: Path, name: str) -> None:
    """Take a run out of a study's table."""
    with table.open(newline="") as file:
        reader = csv.DictReader(file)
        kept = [row for row in reader if row["name"] != name]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, reader.fieldnames)
        writer.writeheader()
        writer.writerows(kept)


def cells(text: str, name: str) -> list[str]:
    """Cells of a Markdown table's row, by its first cell."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} "))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]

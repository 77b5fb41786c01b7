"""Train on a file larger than memory, predict all its rows, and print the peak memory.

python experiments/larger_than_memory.py --file x.npy [--gigabytes 10] [--batch-size 1000]

If the file is missing, it is filled with noisy pictures of two classes; 200 rows have a label.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np

from pyro_ssl import fit, predict_proba, zoo

PIXELS = 784
LABELED = 200
ROWS_AT_ONCE = 10_000


def write_pictures(path: Path, gigabytes: float) -> None:
    """Write noisy pictures, float32 in [0, 1], chunk by chunk; even rows are of class 0."""
    rows = max(LABELED, int(gigabytes * 1e9 / (4 * PIXELS)))
    rng = np.random.default_rng(0)
    means = rng.uniform(0.2, 0.8, (2, PIXELS)).astype(np.float32)
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, PIXELS)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, rows, ROWS_AT_ONCE):
            number = min(ROWS_AT_ONCE, rows - start)
            noise = rng.uniform(-0.2, 0.2, (number, PIXELS)).astype(np.float32)
            (means[np.arange(number) % 2] + noise).tofile(file)


def peak_megabytes() -> tuple[float, float]:
    """Return the peak memory of this process, and of its largest worker that has ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    own, workers = (resource.getrusage(kind).ru_maxrss / 1024 for kind in kinds)
    return own, workers


def accuracy_on(path: Path, batch_size: int, hidden: int) -> float:
    """Train M2 for one pass over the file; return its accuracy on all rows."""
    x = np.load(path, mmap_mode="r")
    y = np.full(len(x), -1, np.int8)
    y[:LABELED] = np.arange(LABELED) % 2
    m2 = zoo.build("m2", x.shape[1:], 2, hidden=(hidden,), z_dim=2)
    fit(m2, x, y, epochs=1, batch_size=batch_size)
    predicted = predict_proba(m2, x).argmax(-1).numpy()
    return float((predicted == np.arange(len(x)) % 2).mean())


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, required=True, help="file, created if missing")
    parser.add_argument("--gigabytes", type=float, default=10.0, help="size of a new file")
    parser.add_argument("--batch-size", type=int, default=1000, help="unlabeled rows per step")
    parser.add_argument("--hidden", type=int, default=64, help="width of the networks")
    arguments = parser.parse_args()
    if not arguments.file.exists():
        write_pictures(arguments.file, arguments.gigabytes)
    before, _ = peak_megabytes()
    started = time.perf_counter()
    accuracy = accuracy_on(arguments.file, arguments.batch_size, arguments.hidden)
    seconds = time.perf_counter() - started
    own, workers = peak_megabytes()
    size = arguments.file.stat().st_size / 1e6
    print(f"file: {size:.0f} MB; accuracy {100 * accuracy:.1f} %; {seconds:.0f} s")
    print(f"before: {before:.0f} MB; peak: {own:.0f} MB; peak of a worker: {workers:.0f} MB")


if __name__ == "__main__":
    main()

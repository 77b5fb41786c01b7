"""Run one file of `peer_code`, and measure its CPU time and its lines.

As a script it runs the file in another Python, which needs numpy and the peer alone:
`python peer_process.py FILE INPUT.npz OUTPUT.npz ARGUMENTS`, with the arguments as JSON.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
import time
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("scvi-tools", "anndata", "lightning", "torch", "numpy")


def timed(
    file: Path, arrays: dict[str, np.ndarray], arguments: dict[str, Any]
) -> tuple[np.ndarray, float]:
    """Give p(y|x) of the test rows, `(N, K)`, and the CPU seconds that fit and prediction took.

    The imports of the file do not count.
    """
    spec = importlib.util.spec_from_file_location(f"peer_code_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        started = time.process_time()
        p = module.probabilities(**arrays, **arguments)
    return np.asarray(p, np.float64), time.process_time() - started


def lines_of_code(file: Path) -> int:
    """Count the lines of a file that hold code: no blank lines, comments and docstrings."""
    text = file.read_text()
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            first = node.body[0]
            docstrings |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines = [line.strip() for line in text.splitlines()]
    return sum(
        bool(line) and not line.startswith("#") and number not in docstrings
        for number, line in enumerate(lines, 1)
    )


def versions() -> dict[str, str]:
    """Versions of the packages of this Python that a peer may use."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main(file: str, source: str, target: str, arguments: str) -> None:
    with np.load(source) as stored:
        arrays = dict(stored)
    p, seconds = timed(Path(file), arrays, json.loads(arguments))
    np.savez(target, p=p, seconds=seconds, versions=json.dumps(versions()))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Run Pyro's own `examples/vae/ss_vae_M2.py` on MNIST, as it is, with a given draw of labels.

`python pyro_example.py FOLDER INPUT.npz OUTPUT.npz ARGUMENTS`: FOLDER is `examples/vae` of a clone
of Pyro, and the arguments are JSON. Four things around the example differ: its images are read
from the folder of data sets, its labeled rows are those of the draw, its plots are left out, and
its check of Pyro's version is not made.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from pyro_ssl import data
from pyro_ssl.utils.torchvision_repair import torchvision

SETTINGS = {
    "aux_loss": True,
    "aux_loss_multiplier": 46,
    "enum_discrete": "parallel",
    "z_dim": 50,
    "hidden_layers": [500],
    "learning_rate": 0.00042,
    "beta_1": 0.95,
}
"""Of the command that the example itself gives."""
BATCH_SIZE = 100
"""The example needs a divisor of the number of labels."""


def main(folder: str, source: str, target: str, arguments: str) -> None:
    given = json.loads(arguments)
    with np.load(source) as stored:
        labels, x_test = stored["labels"], torch.from_numpy(stored["x_test"]).float()
    example = example_module(Path(folder), labels, data_folder(Path(target).parent))
    made: list[Any] = []
    build = example.SSVAE

    def remembered(**sizes: Any) -> Any:
        made.append(build(**sizes))
        return made[-1]

    example.SSVAE = remembered
    started = time.process_time()
    example.main(settings(int((labels >= 0).sum()), Path(target), **given))
    with torch.no_grad():
        p = made[0].encoder_y(x_test)
    seconds = time.process_time() - started
    np.savez(target, p=p.double().numpy(), seconds=seconds)


def data_folder(folder: Path) -> Path:
    """Make a folder in which the example finds MNIST: torchvision looks for its class's name."""
    (folder / "MNISTCached").symlink_to(data.data_root().resolve() / "MNIST")
    return folder


def example_module(folder: Path, labels: np.ndarray, root: Path) -> Any:
    """Import the example, with these labeled rows and with MNIST from the folder `root`."""
    torchvision()  # with a CPU build of torch, the example's own import of it may fail
    sys.path.insert(0, str(folder))
    sys.modules["visdom"] = ModuleType("visdom")
    sys.modules["visdom"].Visdom = None  # type: ignore[attr-defined]
    cached = import_module("utils.mnist_cached")
    rows = np.flatnonzero(labels >= 0).tolist(), np.flatnonzero(labels < 0).tolist()
    cached.get_ss_indices_per_class = lambda y, per_class: rows
    example = import_module("ss_vae_M2")
    example.setup_data_loaders = partial(example.setup_data_loaders, root=str(root), download=False)
    return example


def settings(labels: int, target: Path, seed: int, epochs: int) -> argparse.Namespace:
    """The example's arguments."""
    return argparse.Namespace(
        **SETTINGS,
        seed=seed,
        num_epochs=epochs,
        sup_num=labels,
        batch_size=BATCH_SIZE,
        cuda=False,
        jit=False,
        visualize=False,
        logfile=str(target.with_suffix(".log")),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

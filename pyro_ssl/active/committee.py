"""The objectives of an active learner, trained from scratch or from the last round."""

from __future__ import annotations

import inspect
import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_ssl.active.labelling.store import Labels, read_text
from pyro_ssl.data.extent import Extent
from pyro_ssl.objectives.batch import Batch
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.training import checkpoints
from pyro_ssl.training.fit import fit
from pyro_ssl.training.packed_state import check_tensors
from pyro_ssl.training.run import History
from pyro_ssl.utils import files
from pyro_ssl.utils.arguments import as_input, check_positive, check_seed, placed
from pyro_ssl.utils.arrays import extreme_rows
from pyro_ssl.utils.context import fixed_seed
from pyro_ssl.utils.stable_repr import stable_repr

MODELS_FOLDER = "learner"
"""Folder of the models of the last round."""
EARLIER_KEYS = {"of": "labels", "fresh": "learned_at_restart"}
"""Keys in files of earlier versions, with their names of today."""
IN_TRAINING = "learner.training"
"""Folder of the round in training; it is deleted when the round ends."""
VERSION = 1
"""Version of the saved settings; earlier versions of pyro-ssl saved none."""
RESERVED = {"objective", "x", "y", "seed", "directory", "resume", "identity"}
"""Arguments of `fit` that the committee sets."""
FIT_ARGUMENTS = set(inspect.signature(fit).parameters) - RESERVED
"""Arguments of `fit` that a user may set."""


class Committee:
    """Objectives that learn from the same labels, and their folder.

    >>> from pyro_ssl import zoo
    >>> build = lambda seed: zoo.build("m2", (2,), 2, seed=seed, hidden=(4,))
    >>> committee = Committee(build, size=2, training={"epochs": 1})
    >>> labels = Labels()
    >>> pool = torch.randn(10, 2)
    >>> labels.register(pool)
    >>> labels.add([0, 1], [0, 1], skipped=[])
    >>> committee.train(pool, labels)
    >>> committee.predict_proba(pool).shape
    torch.Size([10, 2])

    Arguments:
        build: `build(seed)` gives an untrained objective.
        size: Number of objectives.
        training: Arguments of `fit`.
        update_training: Arguments of `fit` that differ in rounds that start from the last weights;
            None trains from scratch in each round.
        restart_factor: With `update_training`, retrain from scratch when the number of labels has
            grown by this factor.
        seed: Seed of weights and training.
        identity: Plain data that a saved model must share, such as the method and its options.
        directory: Folder for models; None keeps them in memory.

    Attributes:
        members: The trained objectives; empty before the first round.
        history: For each round, each member's history.
        learned: Number of labels that the members have been trained on.

    Raises:
        ValueError: An argument is invalid.
    """

    def __init__(
        self,
        build: Callable[[int], Objective],
        *,
        size: int = 1,
        training: dict[str, Any] | None = None,
        update_training: dict[str, Any] | None = None,
        restart_factor: float = 2.0,
        seed: int = 0,
        identity: Any = None,
        directory: Path | None = None,
    ) -> None:
        check_positive(members=size)
        check_seed(seed)
        _check_fit_arguments("training", training)
        _check_fit_arguments("update_training", update_training)
        if not restart_factor > 1:
            raise ValueError(f"restart_factor should be above 1, got {restart_factor}")
        self.build = build
        self.size = size
        self.training = dict(training or {})
        self.update_training = update_training
        self.restart_factor = float(restart_factor)
        self.seed = int(seed)
        self.identity = json.loads(json.dumps(identity))
        self.directory = directory
        self.members: list[Objective] = []
        self.history: list[list[History]] = []
        self.learned = 0
        self._learned_at_restart = 0

    def build_members(self, count: int | None = None) -> list[Objective]:
        """Build untrained objectives, each with its own seed; by default all of them."""
        return [self.build(derived_seed(self.seed, m, 1)) for m in range(count or self.size)]

    def check_pool(self, objective: Objective, pool: Tensor) -> None:
        """Raise ValueError if an objective cannot learn from this pool."""
        transforms = self.training.get("transform") is not None
        if transforms or not objective.learns_unlabeled:
            return
        with fixed_seed(self.seed):
            x = placed(as_input(objective, pool), next(objective.parameters()))
            first = Batch(x_unlabeled=x[:100])
            extreme = Batch(x_unlabeled=x[extreme_rows(x)])
            objective.check(first, extreme)

    def predict_proba(self, x: Any) -> Tensor:
        """p(y|x), the mean over the members, `(N, K)`."""
        return torch.stack([predict_proba(m, x, seed=self.seed) for m in self.members]).mean(0)

    # --- training ---------------------------------------------------------------------------------

    def train(self, pool: Tensor, labels: Labels) -> None:
        """Train a round on all labels, unless the members already have been."""
        count = len(labels.indices)
        if self.learned == count:
            return
        members = self.build_members()
        arguments = {"progress": False, **self.training}
        continues = self._continues_training(count)
        if continues:
            arguments |= self.update_training or {}
            for member, before in zip(members, self.members, strict=True):
                member.load_state_dict(before.state_dict())
        folders = self._training_folders(members, labels)
        histories = []
        y = labels.targets()
        for m, member in enumerate(members):
            history = fit(
                member,
                pool,
                y,
                seed=derived_seed(self.seed, count, m + 1),
                directory=folders[m],
                resume=True,
                **arguments,
            )
            histories.append(history)
        self.members = members
        self.history = [*self.history, histories]
        self.learned = count
        if not continues:
            self._learned_at_restart = count
        self._save(labels)

    def _continues_training(self, count: int) -> bool:
        """Return True if a round with this many labels starts from the last round's weights."""
        if not self.members or self.update_training is None:
            return False
        return count < self.restart_factor * self._learned_at_restart

    def _training_folders(
        self, members: Sequence[Objective], labels: Labels
    ) -> Sequence[Path | None]:
        """Folders of the members' runs; those of another round or other settings are deleted."""
        if self.directory is None:
            return [None] * len(members)
        folder = files.followed(self.directory / IN_TRAINING)
        settings = self._settings(members)
        this_round = json.dumps([settings, self.learned, labels.indices, labels.values])
        if read_text(folder / "round.json") != this_round:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            files.write_text(folder / "round.json", this_round)
        return [folder / f"member_{m}" for m in range(len(members))]

    # --- the folder -------------------------------------------------------------------------------

    def _save(self, labels: Labels) -> None:
        if self.directory is None:
            return
        data = {
            "version": VERSION,
            "settings": self._settings(self.members),
            "labels": labels.first(self.learned),
            "learned_at_restart": self._learned_at_restart,
            "history": self.history,
            "extents": [m.extent and m.extent.plain() for m in self.members],
        }
        tensors = _named_tensors(self.members)
        checkpoints.save(self.directory / MODELS_FOLDER, tensors, data, keep_previous=False)
        shutil.rmtree(files.followed(self.directory / IN_TRAINING))

    def load(self, labels: Labels) -> None:
        """Read the models of the last round; warn if they are damaged or have other settings."""
        if self.directory is None or not checkpoints.exists(self.directory / MODELS_FOLDER):
            return
        path = self.directory / MODELS_FOLDER
        members = self.build_members()
        try:
            tensors, data = checkpoints.load(path)
            data = {EARLIER_KEYS.get(key, key): value for key, value in data.items()}
            extents = [Extent.read(e) for e in data.get("extents", [None] * self.size)]
            learned = len(data["labels"][1])
            self._check_data(data, members, labels.first(learned), path)
            check_tensors(tensors, _named_tensors(members), str(path))
            for m, member in enumerate(members):
                member.load_state_dict(_tensors_of(tensors, m))
                member.extent = extents[m]
                member.eval().to(self.training.get("device") or "cpu")
        except (ValueError, TypeError, LookupError, RuntimeError) as error:
            count = len(labels.indices)
            message = f"{error}; the {count} labels are kept, and the model is trained from scratch"
            warnings.warn(message, checkpoints.CheckpointWarning, stacklevel=3)
            return
        self.members = members
        self.history = data["history"]
        self.learned = learned
        self._learned_at_restart = data["learned_at_restart"]

    def _check_data(
        self, data: dict[str, Any], members: Sequence[Objective], first: list[Any], path: Path
    ) -> None:
        """Raise CheckpointError unless a saved round has these settings and labels."""
        if data.get("settings") != files.as_json(self._settings(members), "settings"):
            earlier = "" if data.get("version") == VERSION else "is of an earlier version and "
            raise files.CheckpointError(f"{path} {earlier}has other settings")
        if data["labels"] != files.as_json(first, "first labels"):
            raise files.CheckpointError(
                f"{path} has learned other labels than those in labels.json"
            )
        if type(data["learned_at_restart"]) is not int or not isinstance(data["history"], list):
            raise files.CheckpointError(
                f"{path} is damaged: learned_at_restart or history has the wrong type"
            )

    def _settings(self, members: Sequence[Objective]) -> list[Any]:
        """Everything that determines the weights, except the labels, as plain data."""
        shapes = [[name, list(v.shape)] for name, v in members[0].state_dict().items()]
        return [
            self.seed,
            len(members),
            _as_text(self.training),
            _as_text(self.update_training),
            str(self.restart_factor),
            self.identity,
            shapes,
        ]


def derived_seed(*parts: int) -> int:
    """Derive an independent seed from several integers.

    >>> derived_seed(0, 1) == derived_seed(0, 1), derived_seed(0, 1) == derived_seed(1, 0)
    (True, False)
    """
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _check_fit_arguments(name: str, arguments: dict[str, Any] | None) -> None:
    unknown = sorted(set(arguments or {}) - FIT_ARGUMENTS)
    if unknown:
        raise ValueError(
            f"{name} has {', '.join(unknown)}, not an argument of fit, or one that the learner sets"
        )


def _named_tensors(members: Sequence[Objective]) -> dict[str, Tensor]:
    """Tensors of all members, by the member's number and their names."""
    tensors = {}
    for m, member in enumerate(members):
        for name, tensor in member.state_dict().items():
            tensors[f"{m}/{name}"] = tensor
    return tensors


def _tensors_of(tensors: dict[str, Tensor], m: int) -> dict[str, Tensor]:
    """One member's tensors by their names: the inverse of `_named_tensors`."""
    prefix = f"{m}/"
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _as_text(arguments: dict[str, Any] | None) -> str:
    return stable_repr(arguments and sorted(arguments.items()))

"""The objectives of an active learner, trained from scratch or from the last round."""

from __future__ import annotations

import inspect
import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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


class Trained(NamedTuple):
    """What a committee has learned. It is replaced as a whole, so any thread may read it.

    >>> Trained().members, Trained().learned
    ((), 0)

    Arguments:
        members: The trained objectives; empty before the first round.
        history: For each round, each member's history.
        learned: Number of labels that the members have been trained on.
        learned_at_restart: Number of labels at the last training from scratch.
    """

    members: Sequence[Objective] = ()
    history: Sequence[list[History]] = ()
    learned: int = 0
    learned_at_restart: int = 0


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
        trained: What the members have learned. While another thread trains, read it once.

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
        self.trained = Trained()

    @property
    def members(self) -> list[Objective]:
        """The trained objectives; empty before the first round."""
        return list(self.trained.members)

    @property
    def history(self) -> list[list[History]]:
        """For each round, each member's history."""
        return list(self.trained.history)

    @property
    def learned(self) -> int:
        """Number of labels that the members have been trained on."""
        return self.trained.learned

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
        before = self.trained
        if before.learned == count:
            return
        members = self.build_members()
        arguments = {"progress": False, **self.training}
        continues = self._continues_training(count)
        if continues:
            arguments |= self.update_training or {}
            for member, earlier in zip(members, before.members, strict=True):
                member.load_state_dict(earlier.state_dict())
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
        self.trained = Trained(
            members,
            [*before.history, histories],
            learned=count,
            learned_at_restart=before.learned_at_restart if continues else count,
        )
        self._save(labels)

    def _continues_training(self, count: int) -> bool:
        """Return True if a round with this many labels starts from the last round's weights."""
        before = self.trained
        if not before.members or self.update_training is None:
            return False
        return count < self.restart_factor * before.learned_at_restart

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
        members, history, learned, learned_at_restart = self.trained
        data = {
            "version": VERSION,
            "settings": self._settings(members),
            "labels": labels.first(learned),
            "learned_at_restart": learned_at_restart,
            "history": history,
            "extents": [m.extent and m.extent.plain() for m in members],
        }
        tensors = _named_tensors(members)
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
        self.trained = Trained(members, data["history"], learned, data["learned_at_restart"])

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

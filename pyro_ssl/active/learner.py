"""Active learning: the method asks for the labels it wants, and learns from all the pool, labeled or not."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pyro_ssl import zoo
from pyro_ssl.active.acquisition import (
    Acquisition,
    Score,
    acquire,
    check,
    check_power,
    diverse,
    top_n,
)
from pyro_ssl.data.extent import Extent
from pyro_ssl.evaluation.ood import features
from pyro_ssl.objectives.batch import Batch
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.prediction.chunks import label_of
from pyro_ssl.prediction.predict import predict_proba
from pyro_ssl.training import History, checkpoints, fit
from pyro_ssl.utils import files
from pyro_ssl.utils.arguments import as_data, as_input, check_positive, placed
from pyro_ssl.utils.arrays import as_array, check_unmasked, extreme_rows
from pyro_ssl.utils.context import fixed_seed

FORMAT = "pyro-ssl active learner"
IN_TRAINING = "learner.training"
"""Folder of the round that is being trained; it is deleted after it."""
FIT_ARGUMENTS = set(fit.__kwdefaults__ or {}) - {"seed", "directory", "resume", "identity"}
"""Arguments of `fit` that are not the learner's own to give."""


class ActiveLearner:
    """Asks for labels of a pool, and trains on what it is told and on the rest of the pool, in rounds.

    .. code-block:: python

        learner = ActiveLearner(lambda seed: zoo.build("m2", (1, 28, 28), 10, seed=seed), directory="run")
        while len(learner.indices) < 40:
            rows = learner.query(pool, 10)
            learner.teach(rows, oracle(rows))

    With a directory each label is on disk before anything is learned from it, and the model after each round: a loop that was
    killed, at any moment, is run again as it stands and has the same picks. It may be run again with another `identity`,
    `training`, `warm`, `fresh`, `members` or `seed`: labels stay, and the model is trained afresh.

    Arguments:
        build: `build(seed)` gives an untrained objective.
        acquisition: What is asked for; see `acquisition.scores`.
        start: The first query, before there is a label: `random`, or `diverse`, the middles of clusters of `code`. Or teach some
            before the first query, one of each class, say.
        code: `code(pool)`, `(N, Z)`, for `diverse`; by default the pool itself. `codes` gives a variational autoencoder's.
        training: Arguments of `fit`.
        warm: Those of them that are others in later rounds, which go on from the weights of the round before, such as
            `{"epochs": 2}`; None trains from scratch in each round.
        fresh: With `warm`, a round is from scratch nonetheless when labels are this many times those of the last one that was:
            what a method has told itself of the unlabeled pool, few further labels do not undo. Infinity for never.
        members: Objectives that are trained, an ensemble, whose mean predicts and asks.
        power: As of `acquisition.acquire`, of what is asked at once.
        draws: As of `acquisition.acquire`.
        candidates: As of `acquisition.acquire`.
        directory: Where labels and models are kept; None for nowhere.
        identity: Plain data that a model in the directory has to share, such as the method and its options.
        seed: Of weights, training and picks.

    Attributes:
        indices: The pool's rows that have a label, in the order in which they were taught.
        labels: Their labels: codes, or real.
        skipped: Rows that shall not be asked again, and have no label.
        members: The trained objectives; none before the first round.
        history: Of each round each member's history.

    Raises:
        ValueError: An argument does not fit.
        CheckpointError: The labels in the directory are damaged, or something else's.

    References:
        Paper 002, sections 2.2 and 5.4.
    """

    def __init__(
        self,
        build: Callable[[int], Objective],
        *,
        acquisition: Acquisition | Score = "entropy",
        start: Literal["random", "diverse"] = "random",
        code: Callable[[Tensor], Tensor] | None = None,
        training: dict[str, Any] | None = None,
        warm: dict[str, Any] | None = None,
        fresh: float = 2.0,
        members: int = 1,
        power: float | None = None,
        draws: int = 20,
        candidates: int = 1000,
        directory: str | Path | None = None,
        identity: Any = None,
        seed: int = 0,
    ) -> None:
        check_positive(members=members, draws=draws, candidates=candidates)
        check_power(power, acquisition)
        if start not in ("random", "diverse"):
            raise ValueError(f"start should be random or diverse, got {start!r}")
        whole: Any = seed  # numpy's whole numbers are no int
        if isinstance(whole, bool) or not isinstance(whole, Integral) or whole < 0:
            raise ValueError(f"seed should be a whole number, 0 or above, got {seed!r}")
        if not fresh > 1:
            raise ValueError(f"fresh should be above 1, times the labels of the last round from scratch; got {fresh}")
        for name, given in (("training", training), ("warm", warm)):
            if unknown := sorted(set(given or {}) - FIT_ARGUMENTS):
                raise ValueError(
                    f"{name} has {', '.join(unknown)}, which are no arguments of fit, or the learner's to give"
                )
        self.build, self.acquisition, self.start, self.code = build, acquisition, start, code
        self.training, self.warm, self.fresh = dict(training or {}), warm, float(fresh)
        self.size, self.seed = members, int(seed)
        self.power, self.draws, self.candidates = power, draws, candidates
        self.identity = json.loads(json.dumps(identity))
        self.indices: list[int] = []
        self.labels: list[Any] = []
        self.skipped: list[int] = []
        self.members: list[Objective] = []
        self.history: list[list[History]] = []
        self._learned = 0  # how many of the labels
        self._fresh = 0  # how many there were in the last round from scratch
        self._pool: Tensor | None = None
        self._pool_fingerprint: list[Any] | None = None
        self._written: str | None = None
        self.directory = None if directory is None else Path(directory)
        if self.directory is not None:
            self._read_labels(self.directory / "labels.json")
            self._read_members(self.directory / "learner")

    @property
    def left(self) -> int:
        """How many rows of the pool can still be asked for."""
        if self._pool_fingerprint is None:
            raise ValueError("pool: not known before the first query or teach")
        return self._pool_fingerprint[0][0] - len(self.indices) - len(self.skipped)

    def query(self, pool: Any, n: int = 1) -> Tensor:
        """Rows of the pool whose labels are wanted most, `(n,)`, most wanted first; the same ones until they are taught.

        Arguments:
            pool: Data `(N, *event)`: the same in every call, for it is what is learned from.
            n: How many.

        Raises:
            ValueError: The pool is empty, another, or none that the method can learn; n is more than is left; the method has not
                what the acquisition asks for.
        """
        x = self._register_pool(pool)
        check_positive(n=n)
        if n > self.left:
            raise ValueError(f"n should be at most {self.left}, the rows of the pool without a label; got {n}")
        rows = torch.ones(len(x), dtype=torch.bool)
        rows[self.indices + self.skipped] = False
        free, seed = rows.nonzero().flatten(), _seed(self.seed, len(self.indices))
        if not self.indices:
            self._try(x)
            return free[self._first(x[free], n, seed)]
        self._train()
        settings: dict[str, Any] = {"power": self.power, "draws": self.draws, "candidates": self.candidates}
        return free[acquire(self.members, x[free], n, self.acquisition, **settings, seed=seed)]

    def _try(self, x: Tensor) -> None:
        """Raise ValueError, before anyone is asked, if the method cannot answer the acquisition, or cannot learn such data."""
        members = self._built()
        check(self.acquisition, members, x, self.draws)
        if members[0].learns_unlabeled and self.training.get("transform") is None:
            with fixed_seed(self.seed):
                like = next(members[0].parameters())
                x = placed(as_input(members[0], x), like)
                few, extremes = x[:100], x[extreme_rows(x)]
                members[0].check(Batch(x_unlabeled=few), Batch(x_unlabeled=extremes))

    def _first(self, pool: Tensor, n: int, seed: int) -> Tensor:
        if self.start == "random":
            return top_n(torch.zeros(len(pool)), n, seed)
        codes = pool if self.code is None else as_data(self.code(as_data(pool)), "code").detach()
        if len(codes) != len(pool):
            raise ValueError(f"code should give {len(pool)} rows, one for each datum, got {tuple(codes.shape)}")
        return diverse(codes, n, seed)

    def teach(self, indices: Any, labels: Any, *, pool: Any = None, skipped: Any = ()) -> None:
        """Take labels, and train on all there are.

        If training fails, the labels stay; it is tried again by the next query, `learn` or `teach`.

        Arguments:
            indices: Rows of the pool, `(n,)`; not only those of the last query.
            labels: Their labels: codes `(n,)`, or real `(n,)` or `(n, D)`.
            pool: As of `query`; needed only before the first one.
            skipped: Rows that cannot be labeled, and shall not be asked for again.

        Raises:
            ValueError: A row is not in the pool, there twice, or has a label; a label is of no class; the pool was changed; none
                of them is kept then.
            TypeError: They are not numbers of their kind.
            CheckpointError: Another learner has written to the directory.
        """
        if pool is not None:
            self._register_pool(pool)
        if self._pool is None:
            raise ValueError("pool: not known yet; give it, as in teach(indices, labels, pool=x)")
        if pool is None and self._pool_fingerprint != _fingerprint(self._pool):
            raise ValueError("pool: its values were changed after the query; give it as it was")
        new, out = self._rows("indices", indices), self._rows("skipped", skipped)
        if both := sorted(set(new) & set(out)):
            raise ValueError(f"skipped: row {both[0]} is among the labeled ones too")
        values = self._values(labels, len(new))
        known = set(self.skipped)
        skips = [row for row in self.skipped if row not in set(new)] + [row for row in out if row not in known]
        self._write(self.indices + new, self.labels + values, skips)
        self.indices, self.labels, self.skipped = self.indices + new, self.labels + values, skips
        if self.indices:
            self._train()

    def learn(self, pool: Any) -> None:
        """Train for the labels there are, if a loop was killed before it had; `teach` and `query` do it by themselves.

        Arguments:
            pool: As of `query`.
        """
        self._register_pool(pool)
        if self.indices:
            self._train()

    def predict_proba(self, x: Any) -> Tensor:
        """p(y|x), `(N, K)`, the mean over the members.

        Raises:
            ValueError: Nothing was taught yet, or not all of it has been learned.
        """
        if not self.members or self._learned < len(self.indices):
            raise ValueError(
                f"the learner has learned {self._learned} of its {len(self.indices)} labels: teach, query, or learn(pool)"
            )
        return torch.stack([predict_proba(m, x, seed=self.seed) for m in self.members]).mean(0)

    # --- what is known ------------------------------------------------------------------------------------------------

    def _register_pool(self, pool: Any) -> Tensor:
        x = as_data(pool, "pool", integers=True)
        this = _fingerprint(x)
        if (self.indices or self.skipped) and self._pool_fingerprint != this:
            was = tuple((self._pool_fingerprint or [()])[0])
            raise ValueError(
                f"pool: it is not the one that the labels are of, from shape {was} to {tuple(x.shape)} or in its values; "
                "give the same one"
            )
        self._pool, self._pool_fingerprint = x, this
        return x

    def _rows(self, name: str, rows: Any) -> list[int]:
        check_unmasked(rows, name)
        array, _ = as_array(rows, name)
        if not array.size:
            return []
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise TypeError(f"{name} should be whole numbers, (n,), got {array.dtype} of shape {array.shape}")
        found, size = array.tolist(), self.left + len(self.indices) + len(self.skipped)
        taught, seen = dict(zip(self.indices, self.labels, strict=True)), set()
        for row in found:
            if not 0 <= row < size:
                raise ValueError(f"{name} should be in 0 .. {size - 1}, rows of the pool; got {row}")
            if row in seen:
                raise ValueError(f"{name}: row {row} is there twice")
            if row in taught:
                raise ValueError(f"{name}: row {row} has a label already, {taught[row]}")
            seen.add(row)
        return found

    def _values(self, labels: Any, n: int) -> list[Any]:
        check_unmasked(labels, "labels")
        array, _ = as_array(labels, "labels")
        if array.shape[:1] != (n,) and (n or array.size):
            raise ValueError(f"labels should have shape ({n},), one for each of the indices; got {array.shape}")
        if not n:
            return []
        q = label_of(self.members[0] if self.members else self._built(1)[0], self._pool)
        size, of_classes = int(q.event_shape[-1]), q.has_enumerate_support
        if array.dtype.kind not in ("iu" if of_classes else "iuf") or (of_classes and array.ndim != 1):
            wanted = "codes, whole numbers (n,)" if of_classes else "real numbers"
            raise TypeError(f"labels should be {wanted}, got {array.dtype} of shape {array.shape}")
        if not of_classes:
            values = array.astype(np.float64)
            if values.reshape(n, -1).shape != (n, size) or not np.isfinite(values).all():
                raise ValueError(f"labels should be finite, ({n}, {size}); got shape {array.shape}")
            return values.reshape(n, size).tolist()
        if bad := [v for v in array.tolist() if not 0 <= v < size]:
            raise ValueError(f"labels should be in 0 .. {size - 1}, the classes of the method; got {bad[0]}")
        return array.tolist()

    # --- training -----------------------------------------------------------------------------------------------------

    def _built(self, members: int | None = None) -> list[Objective]:
        return [self.build(_seed(self.seed, m, 1)) for m in range(members or self.size)]

    def _train(self) -> None:
        """A round for the labels there are, unless it has been."""
        if self._learned == len(self.indices):
            return
        members, arguments = self._built(), {"progress": False} | self.training
        goes_on = self.members and self.warm is not None and len(self.indices) < self.fresh * self._fresh
        if goes_on:
            arguments |= self.warm or {}
            for member, before in zip(members, self.members, strict=True):
                member.load_state_dict(before.state_dict())
        folders = self._folders(members)
        y, seeds = self._targets(), [_seed(self.seed, len(self.indices), m + 1) for m in range(self.size)]
        histories = [
            fit(member, self._pool, y, seed=seed, directory=folder, resume=True, **arguments)
            for member, seed, folder in zip(members, seeds, folders, strict=True)
        ]
        self.members, self.history, self._learned = members, [*self.history, histories], len(self.indices)
        self._fresh = self._fresh if goes_on else self._learned
        if self.directory is not None:
            tensors = {f"{m}/{k}": v for m, member in enumerate(members) for k, v in member.state_dict().items()}
            data = {
                "settings": self._settings(members),
                "of": self._known(self._learned),
                "fresh": self._fresh,
                "history": self.history,
                "extents": [member.extent and member.extent.plain() for member in members],
            }
            checkpoints.save(self.directory / "learner", tensors, data, keep_previous=False)
            shutil.rmtree(files.followed(self.directory / IN_TRAINING))

    def _folders(self, members: Sequence[Objective]) -> list[Path | None]:
        """Of each member's run; what is there of another round, or of other settings, is deleted."""
        if self.directory is None:
            return [None] * len(members)
        folder = files.followed(self.directory / IN_TRAINING)
        this = json.dumps([self._settings(members), self._learned, self.indices, self.labels])
        if _text(folder / "round.json") != this:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            files.write_text(folder / "round.json", this)
        return [folder / f"member_{m}" for m in range(len(members))]

    def _targets(self) -> Tensor:
        assert self._pool is not None
        if isinstance(self.labels[0], int):
            y = torch.full((len(self._pool),), -1)
        else:
            y = torch.full((len(self._pool), len(self.labels[0])), torch.nan, dtype=torch.float64)
        y[self.indices] = torch.tensor(self.labels, dtype=y.dtype)
        return y

    def _known(self, n: int) -> list[Any]:
        """The pool and the first n labels."""
        return [self._pool_fingerprint, self.indices[:n], self.labels[:n]]

    def _settings(self, members: Sequence[Objective]) -> list[Any]:
        """What the weights follow from, beside the labels, as plain data."""
        shapes = [[k, list(v.shape)] for k, v in members[0].state_dict().items()]
        return [self.seed, len(members), _said(self.training), _said(self.warm), str(self.fresh), self.identity, shapes]

    # --- the directory ------------------------------------------------------------------------------------------------

    def _write(self, indices: list[int], labels: list[Any], skipped: list[int]) -> None:
        if self.directory is None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / "labels.json"
        if _text(path) != self._written:
            raise files.CheckpointError(
                f"{path} was written by another learner meanwhile; make a new one, which reads it"
            )
        known = {"indices": indices, "labels": labels, "skipped": skipped}
        text = files.sealed({"format": FORMAT, "pool": self._pool_fingerprint} | known)
        files.write_text(path, text)
        self._written = text

    def _read_labels(self, path: Path) -> None:
        self._written = _text(path)
        if self._written is None:
            return
        try:
            found = files.unsealed(self._written, path)
            indices, labels, skipped = (list(found[k]) for k in ("indices", "labels", "skipped"))
            rows = [*indices, *skipped]
            whole = len(indices) == len(labels) and len(set(rows)) == len(rows) and found["format"] == FORMAT
            size = found["pool"][0][0]
            if not whole or not all(type(row) is int and 0 <= row < size for row in rows):
                raise ValueError("its rows and labels do not belong together")
            codes = all(type(label) is int and label >= 0 for label in labels)
            if not codes and (np.asarray(labels, np.float64).ndim != 2 or not np.isfinite(labels).all()):
                raise ValueError("its labels are neither codes nor finite numbers")
        except files.CheckpointError:
            raise
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise files.CheckpointError(f"{path} is damaged, or no active learner's: {error}") from None
        self.indices, self.labels, self.skipped, self._pool_fingerprint = indices, labels, skipped, found["pool"]

    def _read_members(self, path: Path) -> None:
        """The model of the last round, unless it is damaged or of other settings: labels are worth more, and stay."""
        if not checkpoints.exists(path):
            return
        members = self._built()
        try:
            tensors, data = checkpoints.load(path)
            extents = [Extent.read(extent) for extent in data.get("extents", [None] * self.size)]
            if data.get("settings") != json.loads(json.dumps(self._settings(members))):
                raise files.CheckpointError(f"{path} has other settings")
            learned = len(data["of"][1])
            if data["of"] != json.loads(json.dumps(self._known(learned))):
                raise files.CheckpointError(f"{path} has learned other labels than those of labels.json")
            fresh, history = data["fresh"], data["history"]
            if type(fresh) is not int or not isinstance(history, list):
                raise files.CheckpointError(f"{path} is damaged: fresh or history is of another kind")
            state = {f"{m}/{k}": v for m, member in enumerate(members) for k, v in member.state_dict().items()}
            checkpoints.check_tensors(tensors, state, str(path))
            for m, member in enumerate(members):
                own = {k.removeprefix(f"{m}/"): v for k, v in tensors.items() if k.startswith(f"{m}/")}
                member.load_state_dict(own)
                member.extent = extents[m]
                member.eval().to(self.training.get("device") or "cpu")
            history = data["history"]
            fresh = int(data["fresh"])
        except (ValueError, TypeError, LookupError, RuntimeError) as error:  # a CheckpointError is a ValueError
            said = f"{error}; the {len(self.indices)} labels stay, and the model is trained afresh"
            warnings.warn(said, checkpoints.CheckpointWarning, stacklevel=3)
            return
        self.members, self.history = members, history
        self._learned, self._fresh = learned, fresh


def codes(x: Any, *, z_dim: int = 16, steps: int = 2000, seed: int = 0) -> Tensor:
    """Codes of data before there are labels, `(N, Z)`: the means of q(z|x) of a variational autoencoder, trained here.

    Arguments:
        x: Data `(N, *event)`; images get a convolutional network.
        z_dim: Z.
        steps: Of training.
        seed: Of the training.
    """
    x = as_data(x)
    image = x.dim() == 4
    vae = zoo.build(
        "vae", tuple(x.shape[1:]), 2, seed=seed, z_dim=z_dim, network="conv" if image else "mlp",
        likelihood="gaussian", sigma=0.3, activation="relu", hidden=(256,),
    )  # fmt: skip
    batch = min(200, len(x))
    fit(vae, x, epochs=max(1, round(steps * batch / len(x))), batch_size=batch, lr=2e-3, seed=seed, progress=False)
    found = features(vae, x)
    assert found is not None
    return found


def _fingerprint(pool: Tensor) -> list[Any]:
    """Shape and checksum of a pool, as of numbers with a point, whatever they are."""
    return [list(pool.shape), files.checksum(as_data(pool, "pool"))]


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _text(path: Path) -> str | None:
    """What a file holds; bytes that are no text are shown so, and then are no JSON of ours."""
    return path.read_text(encoding="utf-8", errors="backslashreplace") if path.exists() else None


def _said(arguments: dict[str, Any] | None) -> str:
    return checkpoints.stable_repr(arguments and sorted(arguments.items()))

"""`ActiveLearner`: a method asks for labels and learns from the whole pool, in rounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from pyro_ssl.active.acquisition import Score, acquire, check_acquisition, check_choice
from pyro_ssl.active.cold_start import Embedding, Start, diverse, embedded
from pyro_ssl.active.committee import Committee, Trained, derived_seed
from pyro_ssl.active.labelling.store import Labels, as_label_values
from pyro_ssl.active.pool import check_count
from pyro_ssl.active.top_n import top_n
from pyro_ssl.objectives.objective import Objective
from pyro_ssl.prediction.chunks import label_of
from pyro_ssl.training.run import History
from pyro_ssl.utils.arguments import as_data, as_tensor, check_positive, is_pixels


class ActiveLearner:
    """Ask for labels of a pool, and train on them and on the rest of the pool.

    >>> import torch
    >>> from pyro_ssl import zoo
    >>> build = lambda seed: zoo.build("m2", (2,), 2, seed=seed, hidden=(4,))
    >>> pool = torch.randn(20, 2)
    >>> learner = ActiveLearner(build, training={"epochs": 1})
    >>> learner.teach([0, 1], [0, 1], pool=pool)
    >>> learner.query(pool, 3).shape
    torch.Size([3])

    With a directory, labels are written to disk before training and models after each round: a loop
    that was killed continues with the same queries when it is run again. If `identity`, `training`,
    `update_training`, `restart_factor`, `members` or `seed` has changed, the labels are kept, and
    the model is trained from scratch.

    Arguments:
        build: `build(seed)` gives an untrained objective.
        acquisition: Score by which labels are asked for; see `acquisition.scores`.
        start: First query, before there are labels: `random`, or `diverse`, the centres of clusters
            of the embedding. An alternative is to teach some labels first, such as one per class.
        embedding: `embedding(pool)`, `(N, Z)`, for `diverse`; the pool itself by default. See
            `pca_embedding` and `vae_embedding`.
        training: Arguments of `fit`.
        update_training: Arguments of `fit` that differ in later rounds, which then start from the
            weights of the last round, such as `{"epochs": 2}`; None trains from scratch each time.
        restart_factor: With `update_training`, retrain from scratch when the number of labels has
            grown by this factor: weights trained with few labels keep wrong beliefs about the
            unlabeled data, which a few more labels do not correct. With infinity, never retrain
            from scratch.
        members: Number of objectives in the ensemble; predictions are averaged.
        power: See `acquisition.acquire`.
        draws: See `acquisition.acquire`.
        candidates: See `acquisition.acquire`.
        directory: Folder of labels and models; None keeps them in memory.
        identity: Plain data that a saved model must share, such as the method and its options.
        seed: Seed of weights, training and queries.

    Raises:
        ValueError: An argument is invalid.
        CheckpointError: The labels in the directory are damaged, or were not written by an active
            learner.

    References:
        Paper 002, sections 2.2 and 5.4.
    """

    def __init__(
        self,
        build: Callable[[int], Objective],
        *,
        acquisition: str | Score = "entropy",
        start: Start = "random",
        embedding: Embedding | None = None,
        training: dict[str, Any] | None = None,
        update_training: dict[str, Any] | None = None,
        restart_factor: float = 2.0,
        members: int = 1,
        power: float | None = None,
        draws: int = 20,
        candidates: int = 1000,
        directory: str | Path | None = None,
        identity: Any = None,
        seed: int = 0,
    ) -> None:
        check_positive(draws=draws, candidates=candidates)
        check_choice(acquisition, power)
        if start not in get_args(Start):
            raise ValueError(f"start should be random or diverse, got {start!r}")
        self.acquisition = acquisition
        self.start = start
        self.embedding = embedding
        self.power = power
        self.draws = draws
        self.candidates = candidates
        self.directory = None if directory is None else Path(directory)
        self.committee = Committee(
            build,
            size=members,
            training=training,
            update_training=update_training,
            restart_factor=restart_factor,
            seed=seed,
            identity=identity,
            directory=self.directory,
        )
        self._labels = Labels(None if self.directory is None else self.directory / "labels.json")
        self._pool: Tensor | None = None
        self._vectors: Tensor | None = None  # the embedded pool
        self.committee.load(self._labels)

    @property
    def indices(self) -> list[int]:
        """Labeled rows of the pool, in the order in which they were taught."""
        return self._labels.indices

    @property
    def labels(self) -> list[Any]:
        """Labels of `indices`: class indices, or real values."""
        return self._labels.values

    @property
    def skipped(self) -> list[int]:
        """Rows that could not be labeled and are not asked for again."""
        return self._labels.skipped

    @property
    def labels_by_row(self) -> dict[int, Any]:
        """The label of each labeled row."""
        return self._labels.rows.by_row

    @property
    def num_unasked(self) -> int:
        """Number of rows of the pool that can still be asked for."""
        return self._labels.num_unasked

    @property
    def trained(self) -> Trained:
        """The trained objectives, and how many labels they have learned; read it once."""
        return self.committee.trained

    @property
    def learned(self) -> int:
        """Number of labels that the model has learned, the first of `indices`."""
        return self.committee.learned

    @property
    def members(self) -> list[Objective]:
        """The trained objectives; empty before the first round."""
        return self.committee.members

    @property
    def history(self) -> list[list[History]]:
        """For each round, each member's history."""
        return self.committee.history

    def query(self, pool: Any, n: int = 1, *, learn: bool = True) -> Tensor:
        """Choose n rows of the pool to ask for, `(n,)`; the same rows until labels are taught.

        Arguments:
            pool: Data `(N, *event)`, the same in each call.
            n: Number of rows.
            learn: Learn labels first that have not been learned; otherwise the last model chooses.

        Raises:
            ValueError: The pool is empty, is not the earlier one, or does not suit the method; n is
                larger than `num_unasked`; the method does not offer what the acquisition function
                needs.
        """
        x = self._register(pool)
        check_count(n, self.num_unasked)
        if not self.indices:
            self._check_method(x)
        if learn and self.indices:
            self.committee.train(x, self._labels.copy())
        trained = self.trained
        if not trained.members:
            return self.query_without_model(pool, n)
        return self.query_by(trained, pool, n)

    def query_by(self, trained: Trained, pool: Any, n: int = 1) -> Tensor:
        """Choose n rows by trained objectives, `(n,)`.

        Another thread may learn meanwhile: its objectives have no part in the choice.

        Arguments:
            trained: The value of `trained`, of which the caller knows what it has learned.
            pool: See `query`.
            n: Number of rows.

        Raises:
            ValueError: See `query`.
        """
        x = self._register(pool)
        check_count(n, self.num_unasked)
        free = self._labels.free()
        best = acquire(
            trained.members,
            x[free],
            n,
            self.acquisition,
            power=self.power,
            draws=self.draws,
            candidates=self.candidates,
            seed=derived_seed(self.committee.seed, len(self.indices)),
        )
        return free[best]

    def query_without_model(self, pool: Any, n: int = 1) -> Tensor:
        """Choose n rows by `start`, `(n,)`: at random, or in clusters without a label.

        It needs no model, and so can be called while another thread learns.

        Arguments:
            pool: See `query`.
            n: Number of rows.

        Raises:
            ValueError: See `query`.
        """
        x = self._register(pool)
        check_count(n, self.num_unasked)
        seed = derived_seed(self.committee.seed, len(self.indices))
        if self.start == "random":
            free = self._labels.free()
            return free[top_n(torch.zeros(len(free)), n, seed)]
        if self._vectors is None:
            self._vectors = embedded(x, self.embedding)
        return diverse(self._vectors, n, seed, known=self._labels.rows.asked)

    def teach(
        self,
        indices: Any,
        labels: Any,
        *,
        pool: Any = None,
        skipped: Any = (),
        learn: bool = True,
    ) -> None:
        """Add labels, and train on all of them.

        If training fails, the labels are kept; the next `query`, `learn` or `teach` trains again.

        Arguments:
            indices: Rows of the pool, `(n,)`; they need not have been asked for.
            labels: Their labels: class indices `(n,)`, or real values `(n,)` or `(n, D)`.
            pool: See `query`; only needed before the first query.
            skipped: Rows that cannot be labeled and are not asked for again.
            learn: Train on them now; otherwise `learn` does so later, such as in another thread.

        Raises:
            ValueError: A row is not in the pool, repeated, or already labeled; a label is not a
                class; the pool has changed. No label is added.
            TypeError: Rows or labels are not numbers of the right kind. No label is added.
            CheckpointError: Another learner has written to the directory.
        """
        if pool is not None:
            self._register(pool)
        if self._pool is None:
            raise ValueError("pool: not known yet; use teach(indices, labels, pool=x)")
        if pool is None:
            self._labels.check_unchanged(self._pool)
        new_rows = self._labels.check_rows("indices", indices)
        skipped_rows = self._labels.check_rows("skipped", skipped)
        both = sorted(set(new_rows) & set(skipped_rows))
        if both:
            raise ValueError(f"skipped: row {both[0]} is also among the labeled rows")
        values = self._label_values(labels, len(new_rows))
        self._labels.add(new_rows, values, skipped_rows)
        if learn and self.indices:
            self.committee.train(self._pool, self._labels.copy())

    def learn(self, pool: Any) -> None:
        """Train on the labels that have not been learned.

        `teach` and `query` do so as well. It may run in one other thread while this one adds labels
        by `teach(..., learn=False)` and chooses rows by `query(..., learn=False)`; labels that are
        added meanwhile are not learned.

        Arguments:
            pool: See `query`.
        """
        x = self._register(pool)
        labels = self._labels.copy()
        if labels.indices:
            self.committee.train(x, labels)

    def predict_proba(self, x: Any) -> Tensor:
        """p(y|x), `(N, K)`, the mean over the members.

        Raises:
            ValueError: There are no labels, or some have not been learned yet.
        """
        trained = self.trained
        count = len(self.indices)
        if not trained.members or trained.learned < count:
            raise ValueError(
                f"the learner has learned {trained.learned} of its {count} labels; "
                "use teach, query, or learn(pool)"
            )
        return self.committee.predict_proba(x)

    def _register(self, pool: Any) -> Tensor:
        is_image = is_pixels(as_tensor(pool, "pool"))
        x = as_data(pool, "pool", integers=not is_image)
        self._labels.register(x)
        self._pool = x
        return x

    def _check_method(self, pool: Tensor) -> None:
        """Raise ValueError, before any question, if the method cannot ask or learn."""
        members = self.committee.build_members()
        check_acquisition(self.acquisition, members, pool, self.draws)
        self.committee.check_pool(members[0], pool)

    def _label_values(self, labels: Any, n: int) -> list[Any]:
        if n == 0 and len(labels) == 0:
            return []
        objective = (self.members or self.committee.build_members(1))[0]
        q = label_of(objective, self._pool)
        size = int(q.event_shape[-1])
        return as_label_values(labels, n, size, are_classes=bool(q.has_enumerate_support))

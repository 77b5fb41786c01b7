"""What happens after a step and after an epoch: early stopping, progress, files, user functions."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from pyro_ssl.objectives.objective import Objective
from pyro_ssl.training import checkpoints, resuming
from pyro_ssl.training.distributed import Processes, from_first
from pyro_ssl.training.run import Callback, History, Run
from pyro_ssl.utils import files
from pyro_ssl.utils.arguments import check_positive
from pyro_ssl.utils.context import eval_mode, fixed_seed


@dataclass
class EarlyStopping(Callback):
    """Stop when a score has not risen for `patience` epochs, and keep the weights that scored best.

    This scores each epoch and copies the averaged weights of the best one. The loop in `fit` stops
    by `Run.is_over`, and the run ends with the copied weights.

    >>> stopping = EarlyStopping(lambda objective: 0.0, patience=5)

    Arguments:
        score: Function of the objective with its averaged weights, in evaluation mode; higher is
            better. What it measures is up to you: the unlabeled bound, accuracy on labels set
            aside; never use the test set. A score of NaN ends the training with a ValueError.
        patience: Epochs without improvement before training stops.
    """

    score: Callable[[Objective], float]
    patience: int = 10

    def check(self) -> None:
        """Raise ValueError unless the score is a function and the patience a number above 0."""
        if not callable(self.score):
            raise ValueError(
                f"early_stopping: score should be a function of the objective, got {self.score!r}"
            )
        check_positive(patience=self.patience)

    def after_epoch(self, run: Run) -> None:
        """Score the epoch, and keep the weights if they are the best so far."""
        score = from_first(run.processes, lambda: self._score(run))
        run.history.setdefault("score", []).append(score)
        if score <= run.position.best:
            run.position.since_best += 1
            return
        run.position.best = score
        run.position.since_best = 0
        weights = run.averaged.state_dict()
        run.best_weights = {name: value.detach().clone() for name, value in weights.items()}

    def _score(self, run: Run) -> float:
        with fixed_seed(0), eval_mode(run.averaged):  # the run's random state does not change
            return _as_score(self.score(run.averaged), run.epoch)


def _as_score(score: Any, epoch: int) -> float:
    """A score as a number that can be compared with others; -inf is the worst.

    Raises:
        ValueError: It is not a number, NaN or infinity.
    """
    try:
        number = float(score)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"early_stopping: score should give a number, got {score!r:.80} in epoch {epoch}"
        ) from None
    if math.isnan(number) or number == math.inf:
        raise ValueError(
            f"early_stopping: score should give a number, got {number} in epoch {epoch}, so no "
            "epoch can be called the best; correct the score, or try a smaller lr if the weights "
            "have diverged"
        )
    return number


@dataclass(frozen=True)
class Epoch:
    """The argument of a user's callback after each epoch.

    Arguments:
        epoch: Epochs completed.
        step: Steps completed.
        metrics: Measurements of this epoch: parts of the loss, `loss`, `lr`, `seconds`, `score`.
        objective: The objective with its averaged weights, in evaluation mode.
    """

    epoch: int
    step: int
    metrics: dict[str, float]
    objective: Objective


class UserCallbacks(Callback):
    """The user's functions of an `Epoch`.

    Arguments:
        functions: Called in this order, in evaluation mode and without effect on the run's random
            state.
    """

    def __init__(self, functions: Sequence[Callable[[Epoch], None]]) -> None:
        self.functions = tuple(functions)

    def after_epoch(self, run: Run) -> None:
        """Call each function."""
        if self.functions:
            from_first(run.processes, lambda: self._call(run))

    def _call(self, run: Run) -> None:
        epoch = Epoch(run.epoch, run.position.step, run.metrics, run.averaged)
        for function in self.functions:
            with fixed_seed(0), eval_mode(epoch.objective):
                function(epoch)


class InStep(Callback):
    """Compare the processes of a run after each epoch: weights and random numbers should be equal.

    Raises:
        RuntimeError: They differ.
    """

    def after_epoch(self, run: Run) -> None:
        """Compare them."""
        if run.processes is not None:
            run.processes.check_in_step(run.objective)


class ProgressBar(Callback):
    """A bar of steps, with the loss of the last epoch.

    Arguments:
        bar: The bar, see `progress_bar`.
    """

    def __init__(self, bar: tqdm[Any]) -> None:
        self.bar = bar

    def after_epoch(self, run: Run) -> None:
        """Show the loss."""
        self.bar.set_postfix(loss=f"{run.metrics['loss']:.4g}")

    def after_step(self, run: Run) -> None:
        """Count the step."""
        self.bar.update()


@contextmanager
def progress_bar(run: Run, show: bool | None) -> Iterator[ProgressBar]:
    """A progress bar that is removed after the block.

    Arguments:
        run: The run, whose steps may have begun.
        show: Whether to show it; None shows it on a terminal only.
    """
    if show is None:
        show = sys.stderr.isatty()
    if run.processes is not None and not run.processes.is_first:
        show = False
    threads = torch.get_num_threads()
    with tqdm(
        total=run.total,
        initial=run.position.step,
        disable=not show,
        desc="1 thread" if threads == 1 else f"{threads} threads",
        unit="step",
        leave=False,
    ) as bar:
        yield ProgressBar(bar)


class RunDirectory(Callback):
    """The files of a run: `metrics.jsonl`, `checkpoint/` and `checkpoint.previous/`.

    Arguments:
        directory: The folder; it is made if missing.
        checkpoint_every: Steps between checkpoints; None writes one per epoch.
        processes: The processes of the run, of which the first reads and writes the files.
    """

    def __init__(
        self,
        directory: str | Path,
        checkpoint_every: int | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.processes = processes
        self.directory = Path(directory)
        self.checkpoint = self.directory / "checkpoint"
        self.metrics = self.directory / "metrics.jsonl"
        self.checkpoint_every = checkpoint_every

    def check_is_free(self) -> None:
        """Raise FileExistsError if the directory holds another run."""
        if checkpoints.exists(self.checkpoint) or self.metrics.exists():
            raise FileExistsError(
                f"directory {self.directory} holds another run; resume it, or choose another "
                "directory"
            )

    def restore(self, run: Run) -> None:
        """Bring the run to its last checkpoint, if there is one, and the metrics file with it.

        Raises:
            CheckpointError: The checkpoint was changed, or is of another run.
            ValueError: It is of a run with other settings, or other data.
        """
        saved = from_first(self.processes, self._saved)
        if saved is not None:
            try:
                resuming.restore(run, *saved)
            except files.CheckpointError as error:
                raise files.CheckpointError(f"{self.checkpoint}: {error}") from None
        if self._writes:
            files.write_text(self.metrics, "".join(_metrics_lines(run.history)))

    def _saved(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last checkpoint, if there is one."""
        if not checkpoints.exists(self.checkpoint):
            return None
        tensors, data = checkpoints.load(self.checkpoint)
        if self.processes is not None:  # the first process has the first GPU, and each draws alike
            for name in tensors:
                if name.startswith("rng/cuda/"):
                    tensors[name] = tensors["rng/cuda/0"]
        return tensors, data

    @property
    def _writes(self) -> bool:
        return self.processes is None or self.processes.is_first

    def after_epoch(self, run: Run) -> None:
        """Append the epoch to `metrics.jsonl`."""
        if not self._writes:
            return
        with files.naming(self.metrics), self.metrics.open("a") as file:
            file.write(_metrics_lines(run.history)[-1])

    def after_step(self, run: Run) -> None:
        """Write a checkpoint if it is time for one."""
        every = self.checkpoint_every or run.batches.steps_per_epoch
        step = run.position.step
        if step % every == 0 or step == run.total:
            self.write_checkpoint(run)

    def write_checkpoint(self, run: Run) -> None:
        """Write a checkpoint of the last step; all processes wait for it."""
        from_first(self.processes, lambda: checkpoints.save(self.checkpoint, *resuming.state(run)))


def _metrics_lines(history: History) -> list[str]:
    """A line of JSON for each epoch."""
    lines = []
    for i in range(len(history.get("loss", []))):
        values = {name: numbers[i] for name, numbers in history.items()}
        lines.append(json.dumps({"epoch": i + 1} | values) + "\n")
    return lines

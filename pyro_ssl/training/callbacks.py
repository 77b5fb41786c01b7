"""Callbacks after each step and each epoch: early stopping, progress, files, user functions."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from pyro_ssl.training.loggers import Logger
from pyro_ssl.training.python_state import PythonState
from pyro_ssl.training.run import Callback, History, Run
from pyro_ssl.utils import files
from pyro_ssl.utils.arguments import check_positive
from pyro_ssl.utils.context import eval_mode, fixed_seed
from pyro_ssl.utils.durations import duration


@dataclass
class EarlyStopping(Callback):
    """Stop when a score has not risen for `patience` epochs, and keep the weights that scored best.

    Three places share the work. This callback scores each epoch and copies the averaged weights of
    the best one; it keeps the best score and the epochs since then in `Run.position`, which is part
    of the checkpoint. `Run.is_over` ends the loop of `training.run.train` once `patience` epochs
    have passed. At its end `train` loads the copied weights into the objective.

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
    """Convert a score to a number that can be compared with others; -inf is the worst.

    Raises:
        ValueError: It is not a number, or it is NaN or +infinity.
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
    """State of a run after an epoch, for the user's callbacks.

    Arguments:
        epoch: Epochs completed.
        step: Steps completed.
        metrics: Measurements of this epoch: parts of the loss, `loss`, `lr`, `seconds`, `score`,
            and the measurements of earlier callbacks.
        objective: The objective with its averaged weights, in evaluation mode.
        is_last: Training ends with this epoch.

    >>> losses = []
    >>> callbacks = [lambda epoch: losses.append(epoch.metrics["loss"])]  # an argument of `fit`
    """

    epoch: int
    step: int
    metrics: dict[str, float]
    objective: Objective
    is_last: bool = False


SECONDS_BETWEEN_LINES = 10.0
"""Seconds between two lines about the progress of a run without a progress bar."""

RESERVED_NAMES = ("epoch", "step", "score")
"""Names that a callback's measurement cannot have."""


class UserCallbacks(Callback):
    """Call the user's functions with an `Epoch`.

    If a function returns a dictionary of numbers, they are added to the epoch's measurements and
    to the history.

    Arguments:
        functions: Functions in the order of their calls; loggers are called last. The objective is
            in evaluation mode, and the run's random state does not change.

    >>> len(UserCallbacks([print]).functions)
    1
    """

    def __init__(self, functions: Sequence[Callable[[Epoch], Any]]) -> None:
        self.functions = tuple(sorted(functions, key=lambda f: isinstance(f, Logger)))

    def after_epoch(self, run: Run) -> None:
        """Call each function, in the first process only, and record its measurements.

        Raises:
            ValueError: A measurement is not a number, has the name of another, or was not made in
                every epoch of the run.
        """
        if self.functions or run.processes is not None:
            for name, number in from_first(run.processes, lambda: self._measured(run)).items():
                run.measured.add(name)
                run.history.setdefault(name, []).append(number)
        for name in run.measured:
            times = len(run.history[name])
            if times != run.epoch:
                raise ValueError(
                    f"callbacks: {name} was measured in {times} of {run.epoch} epochs; a run needs "
                    "the same callbacks in every epoch, and again when it is resumed"
                )

    def _measured(self, run: Run) -> dict[str, float]:
        """Call each function, and return the measurements of all."""
        measured: dict[str, float] = {}
        for function in self.functions:
            metrics = run.metrics | measured
            state = None if run.processes is None else PythonState(run.objective)
            epoch = Epoch(run.epoch, run.position.step, metrics, run.averaged, run.is_over)
            with fixed_seed(0), eval_mode(epoch.objective):
                returned = function(epoch)
            changes = [] if state is None else state.changes()
            if changes:
                raise ValueError(
                    f"callbacks: {changes[0]}, in the first process only, since the others do not "
                    "call callbacks; train in one process, without torchrun"
                )
            if isinstance(returned, Mapping):
                measured |= _numbers(returned, metrics, run.epoch)
        return measured


def _numbers(
    returned: Mapping[Any, Any], known: Mapping[str, float], epoch: int
) -> dict[str, float]:
    """Return a callback's measurements as numbers, if their names are new."""
    numbers = {}
    for name, value in returned.items():
        if not isinstance(name, str):
            raise ValueError(f"callbacks: the name of a measurement should be text, got {name!r}")
        if name in known or name in RESERVED_NAMES:
            raise ValueError(f"callbacks: {name} is already a measurement; give another name")
        try:
            number = float(value)
        except (TypeError, ValueError, RuntimeError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(
                f"callbacks: {name} should be a finite number, got {value!r:.80} in epoch {epoch}"
            )
        numbers[name] = number
    return numbers


class InStep(Callback):
    """Compare the processes of a run after each epoch: weights and random numbers should be equal.

    Raises:
        RuntimeError: They differ.
    """

    def after_epoch(self, run: Run) -> None:
        """Compare the weights and random states of all processes."""
        if run.processes is not None:
            run.processes.check_in_step(run.objective)


class ProgressBar(Callback):
    """A progress bar of steps, with the last epoch's loss and the callbacks' measurements.

    Arguments:
        bar: The bar, see `progress_bar`.

    >>> ProgressBar(tqdm(total=10, disable=True)).bar.total
    10
    """

    def __init__(self, bar: tqdm[Any]) -> None:
        self.bar = bar

    def after_epoch(self, run: Run) -> None:
        """Show the loss and the callbacks' measurements."""
        names = ["loss", *sorted(run.measured)]
        self.bar.set_postfix({name: f"{run.metrics[name]:.4g}" for name in names})

    def describe(self, text: str) -> None:
        """Show a text before the bar immediately."""
        self.bar.set_description(text)

    def after_step(self, run: Run) -> None:
        """Count the step."""
        self.bar.update()


class ProgressLines(Callback):
    """Lines of text about the progress, where there is no terminal for a bar.

    Arguments:
        say: Called with each line.
        every: Seconds between two lines, at least.

    >>> ProgressLines(print).every
    10.0
    """

    def __init__(self, say: Callable[[str], None], every: float = 10.0) -> None:
        self.say = say
        self.every = every
        self.started = self.said = time.perf_counter()
        self.first_step: int | None = None

    def describe(self, text: str) -> None:
        """Say a text immediately."""
        self.say(text)

    def after_step(self, run: Run) -> None:
        """Say how far the run is, if it is time for a line."""
        step = run.position.step
        now = time.perf_counter()
        if self.first_step is None:
            self.first_step = step - 1
        if run.is_over or now - self.said < self.every:
            return
        self.said = now
        passed = now - self.started
        left = passed / (step - self.first_step) * (run.total - step)
        epochs = run.total // run.batches.steps_per_epoch
        losses = run.history.get("loss", [])
        loss = f", loss {losses[-1]:.4g}" if losses else ""
        self.say(
            f"epoch {run.epoch} of {epochs}{loss}, {duration(passed)}, about {duration(left)} left"
        )


@contextmanager
def progress_bar(
    run: Run, show: bool | None | Callable[[str], None]
) -> Iterator[ProgressBar | ProgressLines]:
    """Show a progress bar, and remove it after the block; or say lines of text.

    Arguments:
        run: The run, new or resumed.
        show: Show it; None shows it on a terminal only. A function is called with lines instead.

    >>> import torch
    >>> from pyro_ssl import zoo
    >>> from pyro_ssl.training.new_run import new_run
    >>> from pyro_ssl.training.settings import Settings
    >>> settings = Settings(epochs=2, batch_size=10)
    >>> run = new_run(zoo.build("m2", 4, 2, hidden=(8,)), torch.rand(20, 4), None, settings)
    >>> with progress_bar(run, show=False) as callback:
    ...     callback.after_step(run)
    """
    if show is None:
        show = sys.stderr.isatty()
    if run.processes is not None and not run.processes.is_first:
        show = False
    if callable(show):
        yield ProgressLines(show, SECONDS_BETWEEN_LINES)
        return
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
        directory: The folder; it is created if missing.
        checkpoint_every: Steps between checkpoints; None writes one per epoch.
        processes: The processes of the run; only the first one reads and writes the files.

    >>> RunDirectory("runs/mnist").checkpoint.as_posix()
    'runs/mnist/checkpoint'
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
        """Restore the run from its last checkpoint, if there is one, and rewrite its metrics.

        Raises:
            CheckpointError: The checkpoint was changed, or belongs to another run.
            ValueError: The run had other settings, or other data.
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
        """Load the last checkpoint, if there is one."""
        if not checkpoints.exists(self.checkpoint):
            return None
        tensors, data = checkpoints.load(self.checkpoint)
        if self.processes is not None:
            # the first process has GPU 0, and all processes draw the same random numbers
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
    """Return a line of JSON for each epoch."""
    lines = []
    for i in range(len(history.get("loss", []))):
        values = {name: numbers[i] for name, numbers in history.items()}
        lines.append(json.dumps({"epoch": i + 1} | values) + "\n")
    return lines

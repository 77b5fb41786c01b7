"""`search`: look for good options with Optuna, which ends bad runs early."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from pyro_ssl.sweeps.runs import Config, Outcome, Result, RunStopped, run_name, run_once
from pyro_ssl.sweeps.sweep import RUNS, Progress, in_parallel
from pyro_ssl.training.callbacks import Epoch
from pyro_ssl.utils.arguments import check_positive

JOURNAL = "search.journal"
"""File of all trials, shared by the workers of all machines."""
STATE = "state"
"""Entry of a result: `complete`, or `pruned` if the run was ended early."""
RANDOM_TRIALS = 10
"""Number of random trials before the sampler learns from them; Optuna's default."""
TRIALS_BEFORE_PRUNING = 5


@dataclass(frozen=True)
class Range:
    """Numbers from low to high.

    Arguments:
        low: Smallest value.
        high: Largest value.
        log: Search on a logarithmic scale.
        whole: Whole numbers only.

    Raises:
        ValueError: low is not below high, or not above 0 on a logarithmic scale.

    >>> Range(1e-4, 1e-2, log=True).low
    0.0001
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"a range should go from low to high, got {self.low} .. {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a range with log should begin above 0, got {self.low}")


Space = Mapping[str, Range | Sequence[str | float | int | bool | None]]
"""The values to try for each option: a range or a list."""


@dataclass(frozen=True)
class Search:
    """A search: the function to run and the values to try.

    Arguments:
        run: Function of a configuration, a directory and callbacks of `fit`. It returns plain data
            that include the measure. Other processes must be able to import it.
        make_config: Function that makes a configuration from the values of the options.
        space: The values to try.
        directory: Directory of the search; all workers must be able to reach it.
        measure: Name of the measure in the result and in `epoch.metrics`; larger is better. It is
            measured on labels set aside, never on the test set.
        warmup: Number of epochs before a run can be ended early.
        threads: Number of torch's threads in each run.
    """

    run: Callable[..., Result]
    make_config: Callable[[dict[str, Any]], Config]
    space: Space
    directory: Path
    measure: str = "val_accuracy"
    warmup: int = 1
    threads: int = 1


def search(
    what: Search, trials: int, *, report: Callable[[str], None] = print
) -> tuple[Config | None, list[Outcome]]:
    """Try values of the options; a run that is worse than the median of the others ends early.

    The trials run on joblib's active backend, as in `sweep`. They are recorded in
    `search.journal`, so the same call continues a search that was stopped, and unfinished runs
    continue from their checkpoints. A call with more trials adds to the recorded ones.

    It needs the extra `optuna`.

    Arguments:
        what: The search.
        trials: Total number of trials.
        report: Function that is called with the progress after each trial.

    Returns:
        The best configuration, or None if no run is complete; and the outcome of each trial, whose
        result has a `state`, `complete` or `pruned`. The next call repeats trials that have failed.

    Raises:
        ImportError: Optuna is not installed.
        ValueError: The space is empty.
    """
    check_positive(trials=trials)
    if not what.space:
        raise ValueError("space should hold at least one option, got none")
    study = _study(what, index=0)
    ended = _ended(study)
    missing = [index for index in range(trials) if index not in ended]
    progress = Progress(trials - len(missing), trials, report)
    session = uuid4().hex
    calls = {f"trial {index}": (what, index, session) for index in missing}
    failed = in_parallel(_try_one, calls, progress)
    return _best(study, what), [*_outcomes(study, what), *filter(None, failed)]


def _try_one(what: Search, index: int, session: str) -> Outcome | None:
    """Run one trial; return its outcome if it fails, since the journal has all other outcomes.

    Arguments:
        what: The search.
        index: Number of the trial; if a worker is killed, the call is repeated with the same index.
        session: Identifier of the call of `search`, see `run_once`.
    """
    from optuna.trial import TrialState

    study = _study(what, index)
    if index in _ended(study):
        return None
    _put_back_killed_trial(study, index)
    trial = study.ask(_distributions(what.space))
    trial.set_user_attr("index", index)
    config = what.make_config(trial.params)
    directory = what.directory / RUNS / run_name(config)
    pruning = _Pruning(trial, what.measure)
    run = partial(what.run, callbacks=(pruning,))
    outcome = run_once(run, config, directory.resolve(), what.threads, session)
    if outcome.error:
        study.tell(trial, state=TrialState.FAIL)
        return outcome
    if outcome.result is None:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, outcome.result[what.measure])
    return None


def _put_back_killed_trial(study: Any, index: int) -> None:
    """Enqueue the values of a trial whose worker was killed, so that its run continues."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs.get("index") == index:
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)


class _Pruning:
    """A callback that reports each epoch to Optuna, and ends the run on its advice."""

    def __init__(self, trial: Any, measure: str) -> None:
        self.trial = trial
        self.measure = measure

    def __call__(self, epoch: Epoch) -> None:
        self.trial.report(epoch.metrics[self.measure], epoch.epoch)
        if self.trial.should_prune() and not epoch.is_last:
            raise RunStopped


# --- Optuna's study -------------------------------------------------------------------------------


def _study(what: Search, index: int) -> Any:
    """Load or create the study of the search in the journal; the index seeds its sampler."""
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise ImportError(
            "a search needs optuna: pip install 'pyro-ssl[optuna]' "
            f"({type(error).__name__}: {error})"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    what.directory.mkdir(parents=True, exist_ok=True)
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(what.directory / JOURNAL))),
        study_name=_study_name(what),
        direction="maximize",
        sampler=optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=index),
        pruner=optuna.pruners.MedianPruner(TRIALS_BEFORE_PRUNING, n_warmup_steps=what.warmup),
        load_if_exists=True,
    )


def _study_name(what: Search) -> str:
    """Return a hash of the space, and of all options that are not searched."""
    first = {name: _first_value(values) for name, values in what.space.items()}
    described = [run_name(what.make_config(first)), repr(sorted(what.space.items()))]
    return sha256(json.dumps(described).encode()).hexdigest()[:12]


def _first_value(values: Range | Sequence[Any]) -> Any:
    if isinstance(values, Range):
        return int(values.low) if values.whole else values.low
    return values[0]


def _distributions(space: Space) -> dict[str, Any]:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    distributions: dict[str, Any] = {}
    for name, values in space.items():
        if not isinstance(values, Range):
            distributions[name] = CategoricalDistribution(tuple(values))
        elif values.whole:
            distributions[name] = IntDistribution(int(values.low), int(values.high), log=values.log)
        else:
            distributions[name] = FloatDistribution(values.low, values.high, log=values.log)
    return distributions


def _ended(study: Any) -> dict[int, Any]:
    """Return the trials that are complete or pruned, by index."""
    from optuna.trial import TrialState

    states = (TrialState.COMPLETE, TrialState.PRUNED)
    trials = study.get_trials(deepcopy=False, states=states)
    return {trial.user_attrs["index"]: trial for trial in trials}


def _outcomes(study: Any, what: Search) -> list[Outcome]:
    outcomes = []
    for _, trial in sorted(_ended(study).items()):
        config = what.make_config(trial.params)
        result = {what.measure: trial.value, STATE: trial.state.name.lower()}
        if trial.value is None:
            result[what.measure] = trial.intermediate_values[trial.last_step]
        outcomes.append(Outcome(run_name(config), config, result))
    return outcomes


def _best(study: Any, what: Search) -> Config | None:
    from optuna.trial import TrialState

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        return None
    return what.make_config(max(complete, key=lambda trial: trial.value).params)

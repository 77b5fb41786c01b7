"""Convert a run to a checkpoint and back; a checkpoint is checked before anything changes.

Even with a correct checksum, a checkpoint may have been edited or come from another program. Values
that follow from the settings (schedule, arguments and state of the optimiser) are recomputed and
compared. Of all other values, the form is checked.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_ssl.objectives.objective import total
from pyro_ssl.training.compiled_step import is_compiled_state
from pyro_ssl.training.optimizers import new_optimizer, new_schedule
from pyro_ssl.training.packed_state import check_tensors, pack, unpack
from pyro_ssl.training.random_state import rng_tensors, set_rng
from pyro_ssl.training.run import Position, Run
from pyro_ssl.utils.context import fixed_seed, preserve_buffers
from pyro_ssl.utils.files import CheckpointError

State = dict[str, Any]
PROCESS_OPTIONS = ("params", "fused", "foreach")
"""Entries of an optimiser's group that depend on the process and not on the run."""


def state(run: Run) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and plain data from which `restore` continues bit for bit.

    >>> from pyro_ssl import zoo
    >>> from pyro_ssl.training.new_run import new_run
    >>> from pyro_ssl.training.settings import Settings
    >>> settings = Settings(epochs=2, batch_size=10)
    >>> run = new_run(zoo.build("m2", 4, 2, hidden=(8,)), torch.rand(20, 4), None, settings)
    >>> tensors, data = state(run)
    >>> sorted(data)
    ['history', 'measured', 'position', 'run', 'settings']
    """
    average = None if run.average is None else dict(run.average.objective.state_dict())
    parts = {
        "objective": dict(run.objective.state_dict()),
        "optimizer": run.optimizer.state_dict(),
        "schedule": run.schedule.state_dict(),
        "average": average,
        "best": run.best_weights,
    }
    tensors = rng_tensors()
    packed = pack("run", parts, tensors)
    data = {
        "run": packed,
        "position": vars(run.position),
        "history": run.history,
        "settings": run.settings_data,
        "measured": sorted(run.measured),
    }
    if run.compiled is not None:
        data["compiled"] = run.compiled.state()
    return tensors, data


EARLIER_PARTS = {"Balance": "ClassBalance"}
"""Current names of the loss's parts, by their names in checkpoints of earlier versions."""


def restore(run: Run, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> None:
    """Bring a new run to the state of a checkpoint.

    If the new run has more epochs than the saved one, training continues for longer. From the
    checkpoint on, the learning rates are those of a run with the larger number of epochs.

    Arguments:
        run: A new run.
        tensors: Tensors of `state`.
        data: Plain data of `state`.

    Raises:
        CheckpointError: The checkpoint was changed, or belongs to another run.
        ValueError: The run had other settings, or other data.

    >>> from pyro_ssl import zoo
    >>> from pyro_ssl.training.new_run import new_run
    >>> from pyro_ssl.training.settings import Settings
    >>> settings = Settings(epochs=2, batch_size=10)
    >>> from pyro_ssl.training.run import train
    >>> x = torch.rand(20, 4)
    >>> run = new_run(zoo.build("m2", 4, 2, hidden=(8,)), x, None, settings)
    >>> history = train(run, [])
    >>> resumed = new_run(zoo.build("m2", 4, 2, hidden=(8,)), x, None, settings)
    >>> restore(resumed, *state(run))
    >>> resumed.position.step
    4
    """
    names = {"settings", "run", "position", "history"}
    complete = names <= data.keys() and isinstance(data["settings"], dict)
    require(complete, "it should hold settings, run, position and history")
    _check_settings(data["settings"], run.settings_data)
    earlier = _with_epochs(run, data["settings"].get("epochs", run.settings.epochs))
    rng, others = _split_rng(tensors)
    parts = unpack(data["run"], others)
    position = _with_current_names(data["position"], "sums")
    history = _with_current_names({"history": data["history"]}, "history")["history"]
    measured = data.get("measured", [])  # earlier versions had no measurements by callbacks
    check_position(
        position,
        history,
        run.part_names,
        steps_per_epoch=run.batches.steps_per_epoch,
        total=earlier.total,
        scored=run.patience is not None,
        measured=measured,
    )
    if _is_replayable(run):
        replay(earlier.schedule, position["step"])
    _check_parts(earlier, parts, position["step"])
    if earlier is not run:
        replay(run.schedule, position["step"])
    has_best = position["best"] == -math.inf or parts["best"] is not None
    require(has_best, "the best weights are missing")
    if run.compiled is not None:
        require(is_compiled_state(data.get("compiled")), "compiled should hold a state")
    set_rng(rng)  # first, because it can still raise
    _load_parts(run, parts)
    run.position = Position(**position)
    run.history = history
    run.measured = set(measured)
    if run.compiled is not None:
        run.compiled.restore(data["compiled"])


def _split_rng(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The states of the random generators, and the other tensors."""
    rng = {name: tensor for name, tensor in tensors.items() if name.startswith("rng/")}
    others = {name: tensor for name, tensor in tensors.items() if name not in rng}
    return rng, others


def _with_current_names(holder: Any, key: str) -> Any:
    """Copy a dictionary; give the parts of the loss under a key their current names."""
    if not isinstance(holder, dict) or not isinstance(holder.get(key), dict):
        return holder
    renamed = {EARLIER_PARTS.get(name, name): value for name, value in holder[key].items()}
    return holder | {key: renamed}


def _is_replayable(run: Run) -> bool:
    """Return True if the schedule has a name, so that its state follows from the step."""
    return isinstance(run.settings.schedule, str)


def _load_parts(run: Run, parts: Mapping[str, Any]) -> None:
    run.objective.load_state_dict(parts["objective"])
    if _is_replayable(run):
        groups = run.optimizer.state_dict()["param_groups"]
    else:
        groups = parts["optimizer"]["param_groups"]
        run.schedule.load_state_dict(parts["schedule"])
    run.optimizer.load_state_dict({"state": parts["optimizer"]["state"], "param_groups": groups})
    _match_memory_format(run.optimizer)
    if run.average is not None:
        run.average.objective.load_state_dict(parts["average"])
    run.best_weights = parts["best"]


def _match_memory_format(optimizer: Optimizer) -> None:
    """Lay out each state tensor like its parameter, as a fused step expects (channels_last)."""
    for parameter, tensors in optimizer.state.items():
        for name, value in tensors.items():
            if torch.is_tensor(value) and value.shape == parameter.shape:
                alike = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
                tensors[name] = alike.copy_(value)


def _check_settings(saved: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise ValueError naming the first setting, or the data, that the run to resume had not."""
    for name, value in settings.items():
        # earlier versions did not save every setting, and had no compiled steps
        was = saved.get(name, False if name == "compile" else value)
        unnamed_schedule = name == "schedule" and was is None
        if was == value or unnamed_schedule or _is_longer(name, was, value):
            continue
        if name.partition(":")[0] in DATA:
            raise ValueError(_other_data(saved, settings))
        raise ValueError(
            f"{name}: the run to resume had {was}, got {value}; give the same as at its start"
        )


DATA = {"x", "y"}
"""Arguments that are compared by what `new_run.described` keeps of them."""
PLACES = "y: places of labeled rows"


def _other_data(saved: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Say which of x and y differ from those of the run to resume, and how."""
    differs = {
        name: (saved[name], value)
        for name, value in settings.items()
        if name.partition(":")[0] in DATA and saved.get(name, value) != value
    }
    texts = [text for text in (_other_x(differs, settings), _other_y(differs, settings)) if text]
    return f"{'; '.join(texts)}; give the data that it was started with"


def _other_x(differs: Mapping[str, tuple[Any, Any]], settings: Mapping[str, Any]) -> str:
    had = "x: the run to resume had"
    if "x: shape" in differs:
        was, now = differs["x: shape"]
        return f"{had} shape {was}, got {now}"
    if "x: dtype" in differs:
        was, now = differs["x: dtype"]
        return f"{had} dtype {was}, got {now}"
    if "x" in differs:
        return f"{had} other values, in the same shape {settings['x: shape']}"
    return ""


def _other_y(differs: Mapping[str, tuple[Any, Any]], settings: Mapping[str, Any]) -> str:
    had = "y: the run to resume had"
    number = settings["y: labeled rows"]
    if "y: labeled rows" in differs:
        was, now = differs["y: labeled rows"]
        return f"{had} {was} labeled rows, got {now}"
    if PLACES in differs:
        return f"{had} labels in other rows, {number} as well"
    if "y" in differs and "x: shape" not in differs:  # the checksum knows the number of rows
        return f"{had} other labels, in {number} rows as well"
    return ""


def _is_longer(name: str, was: Any, value: Any) -> bool:
    return name == "epochs" and type(was) is int and 0 < was < value


def _with_epochs(run: Run, epochs: int) -> Run:
    """Return a run with this number of epochs: a new one, or the run itself if it has as many.

    Raises:
        ValueError: The number differs, and the schedule is a function, whose state is unknown.
    """
    if epochs == run.settings.epochs:
        return run
    if not _is_replayable(run):
        raise ValueError(
            f"epochs: the run to resume had {epochs}, got {run.settings.epochs}; a run whose "
            "schedule is a function cannot be extended, since the state of the function is that of "
            f"a shorter run; give a schedule by name from the start, or epochs={epochs}"
        )
    steps = epochs * run.batches.steps_per_epoch
    optimizer = new_optimizer(run.settings.optimizer, run.parameter_groups, run.settings.lr)
    schedule = new_schedule(run.settings.schedule, optimizer, steps)
    return replace(run, optimizer=optimizer, schedule=schedule, total=steps)


def _check_parts(run: Run, parts: Any, step: int) -> None:
    """Raise CheckpointError unless weights, optimiser and schedule have the form of the run."""
    names = {"objective", "optimizer", "schedule", "average", "best"}
    complete = isinstance(parts, dict) and parts.keys() == names
    require(complete, f"run should hold {', '.join(sorted(names))}")
    weights = run.objective.state_dict()
    message = (
        "objective: its weights have other names, shapes or dtypes than those of the run to resume"
    )
    check_tensors(parts["objective"], weights, message)
    require((parts["average"] is None) == (run.average is None), "average should go with ema")
    for name in ("average", "best"):
        if parts[name] is not None:
            check_tensors(parts[name], weights, name)
    schedule = run.schedule.state_dict()
    if _is_replayable(run):
        check_same(parts["schedule"], schedule, "schedule")
    else:
        check_alike(parts["schedule"], schedule, "schedule")
        at_step = parts["schedule"].get("last_epoch", step) == step
        require(at_step, f"schedule should be at step {step}")
    check_optimizer(
        parts["optimizer"], run.optimizer, _has_gradient(run), exact=_is_replayable(run)
    )


def _has_gradient(run: Run) -> list[bool]:
    """For each parameter in the optimiser's order, True if it has a gradient."""
    parameters = [p for _, group in run.parameter_groups for p in group]
    # the gradient needs the buffers as they are in the block
    with fixed_seed(0), preserve_buffers(run.objective):
        loss = total(run.objective.parts(run.batches(0), joint=run.joint))
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [gradient is not None for gradient in gradients]


def require(holds: bool, message: str) -> None:
    """Raise CheckpointError, with a message about the checkpoint, unless a condition holds.

    >>> require(1 + 1 == 2, "step should be 2")
    """
    if not holds:
        raise CheckpointError(f"the checkpoint was changed, or is not of this run: {message}")


def check_position(
    position: Any,
    history: Any,
    parts: Collection[str],
    *,
    steps_per_epoch: int,
    total: int,
    scored: bool,
    measured: Any = (),
) -> None:
    """Check the position of a run and its measurements against each other.

    Arguments:
        position: Step, seconds, best score, epochs since then, and sums over the current epoch.
        history: Lists of one number per epoch.
        parts: Names of the parts of the run's loss.
        steps_per_epoch: Steps of an epoch.
        total: Steps of the run.
        scored: The run has early stopping.
        measured: Names of the callbacks' measurements in the history.

    Raises:
        CheckpointError: They have another form, or contradict each other.
        ValueError: The run had early stopping and has none now, or the other way round.

    >>> position = {"step": 4, "seconds": 1.0, "best": -math.inf, "since_best": 0, "sums": {}}
    >>> history = {"labeled": [2.0], "loss": [2.0], "lr": [0.1], "seconds": [1.0]}
    >>> sizes = {"steps_per_epoch": 4, "total": 8}
    >>> check_position(position, history, ["labeled"], **sizes, scored=False)
    """
    names = {"step", "seconds", "best", "since_best", "sums"}
    complete = isinstance(position, dict) and position.keys() == names
    require(complete, f"position should hold {', '.join(sorted(names))}")
    step = position["step"]
    in_range = type(step) is int and 0 < step <= total
    require(in_range, f"step should be in 1 .. {total}, got {step!r:.80}")
    seconds = position["seconds"]
    require(_is_finite(seconds), f"seconds should be a number, got {seconds!r:.80}")
    epochs, within = divmod(step, steps_per_epoch)
    _check_sums(position["sums"], parts if within else None)
    _check_history(history, epochs, parts, measured)
    if epochs and scored != ("score" in history):
        had = "none" if scored else "some"
        raise ValueError(
            f"early_stopping: the run to resume had {had}; give the same as at its start"
        )
    expected = best_of(history.get("score", []))
    is_best = (position["best"], position["since_best"]) == expected
    require(is_best, "best should be the best score of the history")


def _check_sums(sums: Any, parts: Collection[str] | None) -> None:
    """Check the sums over the current epoch; parts are None if no epoch has begun."""
    finite = isinstance(sums, dict) and all(map(_is_finite, sums.values()))
    require(finite, "sums should be finite numbers by name")
    if parts is None:
        require(not sums, "sums should hold []")
        return
    names = {*parts, "loss"}
    require(sums.keys() >= names, f"sums should hold {sorted(names)}")
    require(_adds_up(sums), "sums should add up to the loss")


def _check_history(history: Any, epochs: int, parts: Collection[str], measured: Any) -> None:
    require(isinstance(history, dict), "history should hold lists by name")
    named = isinstance(measured, Sequence) and all(isinstance(name, str) for name in measured)
    require(named, "measured should hold names")
    for name, values in history.items():
        complete = isinstance(values, list) and len(values) == epochs
        require(complete, f"history: {name!r:.80} should hold {epochs} numbers, one for each epoch")
        numbers = all(value == -math.inf or _is_finite(value) for value in values)
        require(numbers, f"history: {name!r:.80} should hold numbers")
    if not epochs:
        require(not history, "history should hold []")
        return
    names = {*parts, "loss", "lr", "seconds"}
    require(history.keys() >= {*names, *measured}, f"history should hold {sorted(names)}")
    require(not names & set(measured), f"measured should hold none of {sorted(names)}")
    losses = history.keys() - {"lr", "seconds", "score", *measured}
    for epoch in range(epochs):
        adds_up = _adds_up({name: history[name][epoch] for name in losses})
        require(adds_up, f"history: the parts of epoch {epoch + 1} should add up to its loss")


def best_of(scores: Sequence[float]) -> tuple[float, int]:
    """Return the best score, -inf without scores, and the number of scores after it.

    >>> best_of([0.1, 0.7, 0.2])
    (0.7, 1)
    """
    best = -math.inf
    since_best = 0
    for score in scores:
        since_best += 1
        if score > best:
            best = score
            since_best = 0
    return best, since_best


def _adds_up(parts: Mapping[str, float]) -> bool:
    """Return True if the parts of a loss sum to it, up to single precision."""
    others = [value for name, value in parts.items() if name != "loss"]
    scale = 1.0 + sum(map(abs, others))
    return "loss" in parts and abs(sum(others) - parts["loss"]) < 1e-2 * scale


def replay(schedule: LRScheduler, steps: int) -> None:
    """Bring a new schedule, and the learning rates of its optimiser, to a step.

    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    >>> schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    >>> replay(schedule, 2)
    >>> schedule.get_last_lr()
    [0.05]
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimiser itself has made no step
        for _ in range(steps):
            schedule.step()


def check_same(saved: Any, expected: Any, where: str, but: Sequence[str] = ()) -> None:
    """Compare plain data with recomputed data: numbers to nine digits, dicts by common keys.

    Raises:
        CheckpointError: They differ.

    >>> check_same({"lr": 0.1}, {"lr": 0.1 + 1e-15}, "optimizer")
    """
    if isinstance(expected, dict) and isinstance(saved, dict):
        for name in expected.keys() & saved.keys() - set(but):
            check_same(saved[name], expected[name], f"{where}/{name}", but)
        return
    is_sequence = isinstance(expected, (list, tuple)) and isinstance(saved, (list, tuple))
    if is_sequence and len(saved) == len(expected):
        for i, (a, b) in enumerate(zip(saved, expected, strict=True)):
            check_same(a, b, f"{where}/{i}", but)
        return
    if not _is_same(saved, expected):
        require(False, f"{where} should be {expected!r:.80}, got {saved!r:.80}")


def _is_same(saved: Any, expected: Any) -> bool:
    if _is_number(expected):
        return _is_number(saved) and math.isclose(saved, expected, rel_tol=1e-9, abs_tol=1e-15)
    return type(saved) is type(expected) and bool(saved == expected)


def check_alike(saved: Any, like: Any, where: str) -> None:
    """Check that plain data have the same form as others: keys, lengths and types of values.

    Raises:
        CheckpointError: They have another form.

    >>> check_alike({"lr": 0.1}, {"lr": 0.2}, "optimizer")
    """
    if isinstance(like, dict) and isinstance(saved, dict) and saved.keys() == like.keys():
        for name in like:
            check_alike(saved[name], like[name], f"{where}/{name}")
        return
    is_sequence = isinstance(like, (list, tuple)) and type(saved) is type(like)
    if is_sequence and len(saved) == len(like):
        for i, (a, b) in enumerate(zip(saved, like, strict=True)):
            check_alike(a, b, f"{where}/{i}")
        return
    if isinstance(like, Tensor) and isinstance(saved, Tensor):
        check_tensors({where: saved}, {where: like}, "the checkpoint")
        return
    if not _is_alike(saved, like):
        require(False, f"{where} should be like {like!r:.80}, got {saved!r:.80}")


def _is_alike(saved: Any, like: Any) -> bool:
    if _is_number(like):
        return _is_finite(saved)
    is_container = isinstance(like, (dict, list, tuple, Tensor))  # of another form
    return not is_container and type(saved) is type(like)


def optimizer_state(optimizer: Optimizer) -> dict[int, State] | None:
    """Return an example of a torch optimiser's state for each parameter; None if unknown.

    It is the state of a copy after a step with gradients of 0.

    >>> optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    >>> sorted(optimizer_state(optimizer)[0])
    ['exp_avg', 'exp_avg_sq', 'step']
    """
    if not type(optimizer).__module__.startswith("torch.optim"):
        return None  # the form of its state may change during training
    trial = deepcopy(optimizer)
    for group in trial.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    try:
        trial.step()
    except (TypeError, RuntimeError):  # it needs a closure, or sparse gradients
        return None
    states: dict[int, State] = trial.state_dict()["state"]
    return states


def check_optimizer(
    saved: Any, optimizer: Optimizer, has_gradient: Sequence[bool], exact: bool
) -> None:
    """Check an optimiser's state dict.

    Arguments:
        saved: State dict of the checkpoint.
        optimizer: A new optimiser, with the learning rates of the same step.
        has_gradient: For each of its parameters, True if it has a gradient.
        exact: Its groups must be equal; otherwise, with the user's own schedule, only their form.

    Raises:
        CheckpointError: It has another form, or other arguments.

    >>> optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    >>> check_optimizer(optimizer.state_dict(), optimizer, [False], exact=True)
    """
    complete = isinstance(saved, dict) and saved.keys() == {"state", "param_groups"}
    complete = complete and isinstance(saved["state"], dict)
    require(complete, "optimizer should hold state and param_groups")
    groups = optimizer.state_dict()["param_groups"]
    if exact:
        check_same(saved["param_groups"], groups, "optimizer/param_groups", but=PROCESS_OPTIONS)
    else:
        check_alike(saved["param_groups"], groups, "optimizer/param_groups")
    indices = [index for group in groups for index in group["params"]]
    require(
        saved["state"].keys() <= set(indices), "optimizer/state should be of the run's parameters"
    )
    like = optimizer_state(optimizer)
    if like is not None:
        used = [index for index, has in zip(indices, has_gradient, strict=True) if has]
        _check_tensors_of_parameters(saved["state"], used, like)


def _check_tensors_of_parameters(
    states: Mapping[int, Any], used: Sequence[int], like: Mapping[int, State]
) -> None:
    """Check an optimiser's tensors of each parameter, by its index.

    Arguments:
        states: The tensors of the checkpoint.
        used: Indices of the parameters that have a gradient.
        like: The tensors of the same optimiser after one step.
    """
    missing = [index for index in used if index in like and index not in states]
    require(not missing, f"optimizer/state of the parameters {missing[:5]} is missing")
    for index, tensors in states.items():
        check_alike(tensors, like.get(index, {}), f"optimizer/state/{index}")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)

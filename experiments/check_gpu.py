"""Check the library on a CUDA GPU in about ten minutes; nothing is downloaded.

python experiments/check_gpu.py              # everything, on the first GPU
python experiments/check_gpu.py --quick      # few methods, few steps
python experiments/check_gpu.py --device cpu # the checks that need no GPU

It prints a line for each check, and writes them to `check_gpu.csv` and `check_gpu.json` in `--out`.
It ends with code 0 if all passed, 1 if one failed or was left out for lack of time, and 2 without a
GPU.

"float64 steps" and "float32 steps" compare the losses and the weights of a training run on the GPU
with those of the same run on the CPU. The generators of the two differ, so here all random numbers
come from the CPU's, and are moved to the GPU. Training is by SGD: Adam divides a gradient by its
own size, so that rounding decides the sign of a step where the gradient is nearly zero.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from stacked_draws import StackedDraws
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_ssl import Batch, Objective, SavedModel, fit, gibbs, predict_proba, zoo
from pyro_ssl.training.compiled_step import NotCompiledWarning
from pyro_ssl.training.new_run import new_run
from pyro_ssl.training.run import Run, train_step
from pyro_ssl.training.settings import Settings

CLASSES = 3
LABELED = 20
UNLABELED = 64
COLUMNS = 6
OPTIONS = {
    "hidden": (32,),
    "z_dim": 4,
    "a_dim": 4,
    "z_dims": (4, 3),
    "z_y_dim": 4,
    "z1_dim": 4,
    "m1_hidden": (32,),
    "m1_epochs": 1,
    "likelihood": "gaussian",
    "sigma": 1.0,
}
QUICK = ("m2", "sslapd", "vc")
"""Methods with `--quick`: a sum over classes, random weights, and an adversary."""


@dataclass(frozen=True)
class Machine:
    """Where the checks run.

    Arguments:
        device: The device to check.
        quick: Check few methods, and take few steps.
    """

    device: torch.device
    quick: bool = False

    @property
    def has_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def methods(self) -> tuple[str, ...]:
        return QUICK if self.quick else tuple(zoo.METHODS)

    @property
    def steps(self) -> int:
        """Steps of a run that is compared."""
        return 3 if self.quick else 10

    @property
    def name(self) -> str:
        if self.has_gpu:
            return torch.cuda.get_device_name(self.device)
        return platform.processor() or platform.machine()

    def wait(self) -> None:
        """Wait until the device has computed everything."""
        if self.has_gpu:
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class Found:
    """What a check has measured.

    Arguments:
        subject: What was checked, such as a method.
        measured: The number.
        limit: The largest number that passes; None if it is only reported.
        unit: What the number is.
        note: More about it.
    """

    subject: str
    measured: float
    limit: float | None
    unit: str
    note: str = ""

    @property
    def status(self) -> str:
        if self.limit is None:
            return "measured"
        return "passed" if self.measured <= self.limit else "FAILED"  # NaN fails


@dataclass(frozen=True)
class Check:
    """A check, made for one subject after another.

    Arguments:
        subjects: The subjects on a machine.
        find: Measures one subject.
        needs_gpu: It means nothing on a CPU.
    """

    subjects: Callable[[Machine], Sequence[str]]
    find: Callable[[Machine, str], list[Found]]
    needs_gpu: bool = False


# --- the same random numbers on two devices -------------------------------------------------------


class CpuNoise(TorchDispatchMode):
    """Random numbers from the CPU's generator, on whichever device they are wanted.

    Each operation that draws is made on the CPU, and its result is moved. Dropout is made as the
    CPU makes it: a GPU has one operation for it, which a CPU has not.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        device = _device_of(args, kwargs)
        if torch.Tag.nondeterministic_seeded not in func.tags or device is None:
            return func(*args, **kwargs)
        if func is torch.ops.aten.native_dropout.default:
            return tuple(part.to(device) for part in dropout(args[0].cpu(), args[1]))
        cpu_args, cpu_kwargs = pytree.tree_map(_to_cpu, (args, kwargs))
        result = func(*cpu_args, **cpu_kwargs)
        if func._schema.is_mutable:
            return args[0].copy_(result)
        return result.to(device)


def _device_of(args: Any, kwargs: Any) -> torch.device | None:
    """The device of an operation that is not on the CPU."""
    for leaf in pytree.tree_leaves((args, kwargs)):
        device = leaf.device if isinstance(leaf, Tensor) else leaf
        if isinstance(device, torch.device) and device.type != "cpu":
            return device
    return None


def _to_cpu(leaf: Any) -> Any:
    if isinstance(leaf, torch.device):
        return torch.device("cpu")
    return leaf.cpu() if isinstance(leaf, Tensor) else leaf


def dropout(x: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """x after dropout, with the random numbers of a CPU, and the mask of what is left."""
    mask = torch.empty_like(x).bernoulli_(1 - p)
    return x * (mask / (1 - p)), mask.bool()


# --- objectives, data and runs --------------------------------------------------------------------


def built(method: str, dtype: torch.dtype = torch.float32, **options: Any) -> Objective:
    """A small objective of a method."""
    known = zoo.options_of(method)
    taken = {name: value for name, value in (OPTIONS | options).items() if name in known}
    return zoo.build(method, COLUMNS, CLASSES, seed=0, **taken).to(dtype)


def data() -> tuple[Tensor, Tensor]:
    """Rows around the mean of their class, the first of them labeled."""
    generator = torch.Generator().manual_seed(0)
    n = LABELED + UNLABELED
    classes = torch.arange(n) % CLASSES
    means = torch.randn(CLASSES, COLUMNS, generator=generator)
    x = means[classes] + 0.5 * torch.randn(n, COLUMNS, generator=generator)
    return x, torch.where(torch.arange(n) < LABELED, classes, -1)


def trained(
    method: str, device: torch.device | str, dtype: torch.dtype, epochs: int, **arguments: Any
) -> tuple[Objective, dict[str, list[float]]]:
    """An objective after one step an epoch by SGD, with the CPU's random numbers."""
    objective = built(method, dtype)
    sizes = {"batch_size": UNLABELED, "labeled_batch_size": LABELED}
    with CpuNoise():
        history = fit(
            objective,
            *data(),
            epochs=epochs,
            optimizer=torch.optim.SGD,
            lr=1e-3,
            device=device,
            **sizes | arguments,
        )
    return objective, history


def running(objective: Objective, machine: Machine, **settings: Any) -> Run:
    """A run of training whose first steps are made."""
    sizes = {"batch_size": UNLABELED, "labeled_batch_size": LABELED}
    chosen = Settings(epochs=1000, **sizes | settings)
    run = new_run(objective, *data(), chosen, device=machine.device)
    objective.train()
    for step in range(3):
        train_step(run, run.batches(step))
    return run


def difference(a: Tensor, b: Tensor) -> float:
    """The norm of a - b, relative to that of b."""
    a = a.detach().cpu().double()
    b = b.detach().cpu().double()
    return float((a - b).norm() / b.norm().clamp_min(1e-6))


def largest_difference(a: Objective, b: Objective) -> float:
    """The largest relative difference of a weight or a buffer."""
    return max(difference(p, b.state_dict()[name]) for name, p in a.state_dict().items())


def milliseconds(step: Callable[[], Any], machine: Machine, repeats: int = 20) -> float:
    """Median milliseconds of a step, the device's work included."""
    spent = []
    for _ in range(repeats):
        machine.wait()
        started = time.perf_counter()
        step()
        machine.wait()
        spent.append(1e3 * (time.perf_counter() - started))
    return median(spent)


# --- the checks -----------------------------------------------------------------------------------


def same_steps(machine: Machine, method: str, dtype: torch.dtype, limit: float) -> list[Found]:
    """Losses of the first and of all steps, and weights at the end, against those of the CPU."""
    there, history = trained(method, machine.device, dtype, machine.steps)
    here, expected = trained(method, "cpu", dtype, machine.steps)
    losses = torch.tensor(history["loss"])
    wanted = torch.tensor(expected["loss"])
    errors = (losses - wanted).abs() / (1 + wanted.abs())
    weights = largest_difference(there, here)
    unit = "relative difference"
    return [
        Found(f"{method}: loss, 1 step", float(errors[0]), limit, unit),
        Found(f"{method}: loss, {machine.steps} steps", float(errors.max()), limit, unit),
        Found(f"{method}: weights, {machine.steps} steps", weights, limit, unit),
    ]


def same_steps_in_float64(machine: Machine, method: str) -> list[Found]:
    return same_steps(machine, method, torch.float64, 1e-4)


def same_steps_in_float32(machine: Machine, method: str) -> list[Found]:
    return same_steps(machine, method, torch.float32, 1e-3)


def synchronisations(machine: Machine, method: str) -> list[Found]:
    """How often a step waits for the GPU: once, for the numbers that are logged."""
    run = running(built(method), machine)
    batch = run.batches(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            train_step(run, batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [w for w in caught if "synchronizing" in str(w.message)]
    places = ", ".join(f"{Path(w.filename).name}:{w.lineno}" for w in waits)
    return [Found(method, len(waits), 1, "waits in a step", places)]


def compiled(machine: Machine, method: str) -> list[Found]:
    """Milliseconds of a compiled step against those of an eager one.

    The compiled step is compared with the step itself by the library, which warns if they differ.
    """
    times = []
    skipped = []
    for compile in (False, True):
        with warnings.catch_warnings():
            warnings.simplefilter("error", NotCompiledWarning)
            run = running(built(method, top_k=1), machine, compile=compile)
            batch = run.batches(0)
            times.append(milliseconds(lambda run=run, batch=batch: train_step(run, batch), machine))
            if run.compiled is not None:
                run.compiled.check_last()
                skipped = [_graphs_without_cuda_graphs()]
    eager_ms, compiled_ms = times
    note = f"{eager_ms:.2f} ms eager, {compiled_ms:.2f} ms compiled"
    if machine.has_gpu:
        note += f", {skipped[0]} graphs without CUDA graphs"
    limit = 1.0 if machine.has_gpu else None
    return [Found(method, compiled_ms / eager_ms, limit, "of the time of an eager step", note)]


def _graphs_without_cuda_graphs() -> int:
    """How many graphs Inductor has run without CUDA graphs, in this process."""
    from torch._dynamo.utils import counters

    return int(counters["inductor"]["cudagraph_skips"])


def stacked(machine: Machine, subject: str) -> list[Found]:
    """Milliseconds of a step of ten draws of M2, against those of one."""
    pixels, classes, rows = (12, 3, 20) if machine.quick else (784, 10, 100)
    times = []
    for draws in (1, 10):
        objectives = [_m2(pixels, classes, seed, machine) for seed in range(draws)]
        batches = [_images(pixels, classes, rows, seed, machine) for seed in range(draws)]
        steps = StackedDraws(objectives, batches)
        times.append(milliseconds(lambda s=steps, b=batches: s.step(b), machine, repeats=10))
    note = f"{times[0]:.2f} ms for one draw, {times[1]:.2f} ms for ten"
    limit = 2.0 if machine.has_gpu else None
    return [Found(subject, times[1] / times[0], limit, "of the time of one draw", note)]


def _m2(pixels: int, classes: int, seed: int, machine: Machine) -> Objective:
    objective = zoo.build("m2", pixels, classes, hidden=(500,), top_k=1, seed=seed)
    return objective.to(machine.device).train()


def _images(pixels: int, classes: int, rows: int, seed: int, machine: Machine) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(2 * rows, pixels, generator=generator).round()
    y = torch.eye(classes)[torch.arange(rows) % classes]
    return Batch(*(part.to(machine.device) for part in (x[:rows], y, x[rows:])))


class Stopped(Exception):
    """A run is stopped on purpose."""


def _stop(epoch: Any) -> None:
    if epoch.epoch == 2:
        raise Stopped


def resumed(machine: Machine, method: str) -> list[Found]:
    """A run that was stopped and resumed, on its device and on the CPU, against a whole one."""
    whole, _ = trained(method, machine.device, torch.float64, 4)
    found = []
    for device in dict.fromkeys((machine.device, torch.device("cpu"))):
        with TemporaryDirectory() as folder:
            try:
                trained(
                    method, machine.device, torch.float64, 4, directory=folder, callbacks=[_stop]
                )
            except Stopped:
                pass
            half, _ = trained(method, device, torch.float64, 4, directory=folder, resume=True)
        subject = f"{method}: resumed on {device.type}"
        error = largest_difference(half, whole)
        found.append(Found(subject, error, 1e-6, "relative difference"))
    return found


def predicted(machine: Machine, method: str) -> list[Found]:
    """Probabilities on the device against those on the CPU."""
    x, _ = data()
    here = predict_proba(built(method, torch.float64), x)
    there = predict_proba(built(method, torch.float64).to(machine.device), x)
    return [Found(method, float((here - there).abs().max()), 1e-4, "difference")]


def gibbs_samples(machine: Machine, method: str) -> list[Found]:
    """Means of Gibbs chains on the device against those on the CPU; the noise is of the rows."""
    x, _ = data()
    here = gibbs(built(method, torch.float64), x, chains=2)
    there = gibbs(built(method, torch.float64).to(machine.device), x, chains=2)
    return [Found(method, float((here.mean - there.mean).abs().max()), 1e-4, "difference")]


def saved(machine: Machine, method: str) -> list[Found]:
    """Probabilities of a model that was saved on the device and loaded on the CPU."""
    objective = built(method, torch.float64).to(machine.device).eval()
    known = zoo.options_of(method)
    options = {name: value for name, value in OPTIONS.items() if name in known}
    x, _ = data()
    expected = predict_proba(objective, x)
    with TemporaryDirectory() as folder:
        model = SavedModel(method, (COLUMNS,), list(range(CLASSES)), options, objective)
        model.save(Path(folder) / "model")
        loaded = SavedModel.load(Path(folder) / "model").objective
    error = float((predict_proba(loaded, x) - expected).abs().max())
    return [Found(method, error, 1e-4, "difference")]


def half_precision(machine: Machine, method: str) -> list[Found]:
    """The loss of the last step in bfloat16 against that in float32."""
    _, full = trained(method, machine.device, torch.float32, machine.steps)
    _, half = trained(method, machine.device, torch.float32, machine.steps, precision="bfloat16")
    error = abs(half["loss"][-1] - full["loss"][-1]) / (1 + abs(full["loss"][-1]))
    return [Found(method, error, 0.05, "relative difference")]


def _all_methods(machine: Machine) -> Sequence[str]:
    return machine.methods


def _classifying(machine: Machine) -> Sequence[str]:
    return [method for method in machine.methods if method != "vae"]


def _only(*subjects: str) -> Callable[[Machine], Sequence[str]]:
    return lambda machine: subjects[:1] if machine.quick else subjects


CHECKS: dict[str, Check] = {
    "float64 steps": Check(_all_methods, same_steps_in_float64),
    "float32 steps": Check(_all_methods, same_steps_in_float32),
    "synchronisations": Check(_all_methods, synchronisations, needs_gpu=True),
    "predict": Check(_classifying, predicted),
    "gibbs": Check(_only("sslapd", "sslpe"), gibbs_samples),
    "save and load": Check(_only("m2", "sslapd", "vc"), saved),
    "resume": Check(_only("m2", "vc"), resumed),
    "bfloat16": Check(_only("m2", "vae", "vc"), half_precision),
    "stacked draws": Check(_only("ten draws of m2"), stacked),
    "compiled": Check(_only("m2", "vae", "vc"), compiled),
}


# --- the table ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A line of the table."""

    check: str
    subject: str
    status: str
    measured: float | None
    limit: float | None
    unit: str
    note: str
    seconds: float

    def __str__(self) -> str:
        number = "" if self.measured is None else f"{self.measured:.2g}"
        limit = "" if self.limit is None else f" (at most {self.limit:g})"
        text = f"{self.status:9} {self.check:17} {self.subject:42} {number}{limit} {self.unit}"
        note = f"  {self.note}" if self.note else ""
        return f"{text}{note}  [{self.seconds:.1f} s]"


def lines(machine: Machine, names: Sequence[str], minutes: float) -> Iterator[Line]:
    """The lines of the table, as they are found."""
    ends = time.monotonic() + 60 * minutes
    for name in names:
        check = CHECKS[name]
        if check.needs_gpu and not machine.has_gpu:
            yield Line(name, "", "skipped", None, None, "", "it needs a GPU", 0.0)
            continue
        for subject in check.subjects(machine):
            if time.monotonic() > ends:
                yield Line(name, subject, "LEFT OUT", None, None, "", "no time was left", 0.0)
                continue
            yield from _lines_of(machine, name, subject)


def _lines_of(machine: Machine, name: str, subject: str) -> Iterator[Line]:
    started = time.perf_counter()
    try:
        with _quietly():
            found = CHECKS[name].find(machine, subject)
    except Exception as error:  # whatever goes wrong on the device fails the check, not the script
        seconds = time.perf_counter() - started
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        yield Line(name, subject, "FAILED", None, None, "", f"{reason:.200}", seconds)
        return
    seconds = (time.perf_counter() - started) / len(found)
    for part in found:
        yield Line(check=name, status=part.status, seconds=seconds, **asdict(part))


@contextmanager
def _quietly() -> Iterator[None]:
    """Without warnings, and without TF32, whose products have ten bits."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


def write(folder: Path, machine: Machine, found: Sequence[Line]) -> None:
    """Write the lines as CSV, and with the machine as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [asdict(line) for line in found]
    with (folder / "check_gpu.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(Line.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(rows)
    about = {"device": machine.name, "torch": torch.__version__, "cuda": torch.version.cuda}
    text = json.dumps(about | {"quick": machine.quick, "lines": rows}, indent=1)
    (folder / "check_gpu.json").write_text(text + "\n")


def main() -> int:
    """Run the checks; 0 if all passed, 1 if not, 2 without the device."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cuda", help="device to check, such as cuda:1 or cpu")
    parser.add_argument("--quick", action="store_true", help="few methods, and few steps")
    parser.add_argument("--only", nargs="+", choices=CHECKS, metavar="CHECK", help="checks to run")
    parser.add_argument("--minutes", type=float, default=10.0, help="start no check after them")
    parser.add_argument("--out", type=Path, default=Path("runs/check_gpu"), help="where results go")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA GPU here; --device cpu runs the checks that need none")
        return 2
    machine = Machine(device, arguments.quick)
    print(f"{machine.name}, torch {torch.__version__}")
    found = []
    for line in lines(machine, arguments.only or list(CHECKS), arguments.minutes):
        print(line, flush=True)
        found.append(line)
    write(arguments.out, machine, found)
    bad = [line for line in found if line.status in ("FAILED", "LEFT OUT")]
    passed = sum(line.status == "passed" for line in found)
    print(f"{passed} passed, {len(bad)} failed or left out; see {arguments.out}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

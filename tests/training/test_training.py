"""`fit`: what it promises about data, random states, schedules, averages, failures and resuming."""

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pyro
import pytest
import torch
from torch import nn

from pyro_ssl import (
    Batch,
    EarlyStopping,
    Objective,
    fit,
    predict_proba,
    zoo,
)
from pyro_ssl.training import checkpoints
from pyro_ssl.training.batches import Batches
from pyro_ssl.training.fit import SCHEDULES, DivergedError, DivergedWarning
from pyro_ssl.utils.arguments import one_hot
from pyro_ssl.utils.context import eval_mode

X = torch.randn(90, 4, generator=torch.Generator().manual_seed(0))
Y = torch.where(torch.arange(90) < 20, torch.arange(90) % 3, -1)
SMALL = {"hidden": (6,), "z_dim": 2, "sigma": 1.0, "noise": 0.0, "dropout": 0.0}


def small(seed: int = 0, **options) -> Objective:
    return zoo.build("m2", 4, 3, seed=seed, **SMALL | options)


def weights(objective: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in objective.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def run(objective: Objective | None = None, **arguments) -> tuple[Objective, dict]:
    objective = objective or small()
    return objective, fit(objective, X, Y, **{"epochs": 3, "batch_size": 10, "labeled_batch_size": 8} | arguments)


def test_training_lowers_the_loss_and_is_a_function_of_its_seed():
    (a, h), (b, _), (c, _) = run(epochs=20), run(epochs=20), run(epochs=20, seed=1)
    assert h["loss"][-1] < h["loss"][0] - 0.3
    assert same(weights(a), weights(b))
    assert not same(weights(a), weights(c))


def test_nobody_elses_state_is_touched():
    torch.manual_seed(5)
    pyro.param("mine", torch.tensor(1.0))
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(early_stopping=EarlyStopping(lambda o: torch.rand(()).item()))
    assert torch.equal(torch.rand(3), expected)
    assert list(pyro.get_param_store().keys()) == ["mine"]


def test_two_models_in_one_process_share_nothing():
    first = small()
    before = weights(first)
    second, _ = run(small())
    assert same(weights(first), before)
    assert not {p.data_ptr() for p in first.parameters()} & {p.data_ptr() for p in second.parameters()}


def test_every_step_sees_labeled_and_unlabeled_and_a_pass_sees_each_datum_once():
    batches = Batches(X, one_hot(Y.clamp_min(0), 3), Y >= 0, batch_size=10, labeled_batch_size=8, seed=0)
    assert batches.steps_per_epoch == 7
    steps = [batches(i) for i in range(14)]
    assert {(len(b.x), len(b.x_unlabeled)) for b in steps} == {(8, 10)}
    first, second = (torch.cat([b.x_unlabeled for b in part]) for part in (steps[:7], steps[7:]))
    assert torch.equal(*(t.sort(0).values for t in (first, X[Y < 0])))
    assert not torch.equal(first, second)
    again = Batches(X, one_hot(Y.clamp_min(0), 3), Y >= 0, batch_size=10, labeled_batch_size=8, seed=0)(9)
    assert torch.equal(again.x, steps[9].x) and torch.equal(again.x_unlabeled, steps[9].x_unlabeled)
    rows = (X[:, None] == steps[3].x).all(-1).float().argmax(0)
    assert torch.equal(steps[3].y.argmax(-1), Y[rows])


@pytest.mark.parametrize(
    ("labeled", "unlabeled", "steps"), [(0, 90, 9), (20, 70, 7), (60, 30, 7), (89, 1, 11), (90, 0, 9), (3, 2, 1)]
)
def test_an_epoch_is_a_pass_over_what_takes_more_steps(labeled, unlabeled, steps):
    known = torch.arange(labeled + unlabeled) < labeled
    batches = Batches(X[: len(known)], torch.eye(3)[torch.zeros(len(known)).long()], known, 10, 8, seed=0)
    assert batches.steps_per_epoch == steps
    seen = torch.cat([b.x if labeled > unlabeled else b.x_unlabeled for b in map(batches, range(steps))])
    assert len(seen.unique(dim=0)) >= 0.9 * max(labeled, unlabeled)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_those_of_their_names(name):
    parameter = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    schedule, rates = SCHEDULES[name](optimizer, 60), []
    for _ in range(60):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step() if len(rates) < 60 else None
    expected = {
        "constant": [0.1] * 60,
        "exponential": [0.1 * 0.01 ** (t / 60) for t in range(60)],
        "halving": [0.1 * 0.5 ** (t // 9) for t in range(60)],
        "cosine": [0.05 * (1 + math.cos(math.pi * t / 60)) for t in range(60)],
    }
    if name in expected:
        assert rates == pytest.approx(expected[name])
    else:
        peak = rates.index(max(rates))
        assert rates == pytest.approx(sorted(rates[:peak]) + sorted(rates[peak:], reverse=True))
        assert max(rates) == pytest.approx(0.1) and rates[0] < 0.01 and rates[-1] < 1e-5


def test_every_schedule_and_optimiser_trains():
    for schedule in SCHEDULES:
        run(schedule=schedule, epochs=2)
    for optimizer in (torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.NAdam):
        _, history = run(optimizer=optimizer, lr=1e-3, schedule=lambda o, n: torch.optim.lr_scheduler.LinearLR(o))
        assert math.isfinite(history["loss"][-1])


def test_warmup_counts_steps_of_training_alone():
    """The first step's KL weight is 1/steps, evaluation moves nothing, and after the warm-up it is 1."""
    seen, kl = [], Objective.parts

    def spy(self, batch, *, kl_weight=1.0, joint=False):
        seen.append(kl_weight)
        return kl(self, batch, kl_weight=kl_weight, joint=joint)

    score = EarlyStopping(lambda o: o.bound(X).mean().item())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Objective, "parts", spy)
        run(warmup=2, epochs=3, early_stopping=score)
    assert seen[2:] == pytest.approx([min(1.0, t / 14) for t in range(1, 22)])


def test_gradient_is_clipped_by_its_global_norm():
    o = small()
    before = weights(o)
    run(
        o,
        optimizer=torch.optim.SGD,
        lr=1.0,
        schedule="constant",
        clip_norm=0.01,
        epochs=1,
        batch_size=70,
        labeled_batch_size=20,
    )
    moved = math.sqrt(sum((v - before[k]).square().sum().item() for k, v in weights(o).items()))
    assert moved == pytest.approx(0.01, rel=1e-3)


def test_average_is_the_exponential_one_and_is_what_remains():
    path: list[dict] = []
    o = small()
    watch = lambda e: path.append(weights(o))  # noqa: E731
    run(o, ema=0.8, epochs=5, batch_size=70, labeled_batch_size=20, callbacks=(watch,))
    expected, decays = path[0], [min(0.8, (1 + n) / (10 + n)) for n in range(1, 5)]
    for decay, current in zip(decays, path[1:], strict=True):
        expected = {k: decay * v + (1 - decay) * current[k] for k, v in expected.items()}
    assert all(torch.allclose(v, expected[k], atol=1e-6) for k, v in weights(o).items())


def test_early_stopping_keeps_the_best():
    scores, kept = iter([1.0, 3.0, 2.0, 1.0, 9.0]), []

    def score(objective: Objective) -> float:
        assert not objective.training and not torch.is_grad_enabled()
        kept.append(weights(objective))
        return next(scores)

    o, history = run(epochs=10, early_stopping=EarlyStopping(score, patience=2))
    assert history["score"] == [1.0, 3.0, 2.0, 1.0]
    assert same(weights(o), kept[1])


@pytest.mark.parametrize("score", [math.nan, math.inf, "high", torch.ones(2), None])
def test_a_score_that_is_no_number_is_refused(score):
    """A NaN is never the best, nor the end of patience: neither could be told from a score that does not rise."""
    scores = iter([1.0, 2.0, score])
    with pytest.raises(ValueError, match="early_stopping: score should give a number, got .* in epoch 3"):
        run(epochs=10, early_stopping=EarlyStopping(lambda o: next(scores), patience=5))


def test_a_score_of_minus_infinity_is_the_worst():
    scores = iter([-math.inf, 1.0, -math.inf, -math.inf])
    _, history = run(epochs=10, early_stopping=EarlyStopping(lambda o: next(scores), patience=2))
    assert history["score"] == [-math.inf, 1.0, -math.inf, -math.inf]


def test_fresh_binarisation_draws_anew_and_keeps_labels():
    seen = []

    def binarise(x):
        seen.append(torch.bernoulli(x))
        return seen[-1]

    x = X.sigmoid()
    fit(small(likelihood="bernoulli"), x, Y, epochs=2, batch_size=70, transform=binarise)
    assert all(set(b.unique().tolist()) <= {0.0, 1.0} for b in seen)
    assert not torch.equal(seen[-1], seen[-3])


def test_evaluation_moves_nothing():
    o, _ = run(small(batch_norm=True, noise=0.3))
    before = weights(o)
    first = predict_proba(o, X)
    o.train()
    assert torch.equal(predict_proba(o, X), first)
    assert o.training and same(weights(o), before)
    assert torch.allclose(first.sum(-1), torch.ones(90))
    assert torch.allclose(predict_proba(o, X, chunk=7), first, atol=1e-6)


@pytest.mark.parametrize("device", ["foo", "cuda:77", 3.5])
def test_a_device_that_is_not_there_is_named(device):
    with pytest.raises(ValueError, match=f"device {device} is not available"):
        run(device=device)


@pytest.mark.parametrize(
    "arguments",
    [{"epochs": 0}, {"batch_size": 0}, {"labeled_batch_size": 2.5}, {"lr": 0.0}, {"lr": math.nan}, {"seed": -1}, {"ema": 1.0},
     {"warmup": -1.0}, {"clip_norm": 0.0}, {"schedule": "linear"}],
)  # fmt: skip
def test_bad_arguments_are_named_and_nothing_changes(arguments, tmp_path):
    o = small()
    before = weights(o)
    with pytest.raises(ValueError, match=next(iter(arguments))):
        run(o, directory=tmp_path / "run", **arguments)
    assert same(weights(o), before) and not (tmp_path / "run").exists()


NOT_CALLABLE = {
    "optimizer=str": (
        {"optimizer": "adam"},
        "optimizer should be a torch optimiser class, such as torch.optim.Adam, got 'adam'",
    ),
    "optimizer=dict": ({"optimizer": lambda p, lr: {}}, "optimizer should give a torch.optim.Optimizer, got dict"),
    "optimizer=len": ({"optimizer": len}, "optimizer should take parameters and lr"),
    "schedule=None": ({"schedule": None}, "schedule should be one of constant"),
    "schedule=function": ({"schedule": lambda o, n: 1.0}, "schedule should give an LRScheduler, got float"),
    "callbacks=None": ({"callbacks": None}, "callbacks should be functions in a tuple or list, such as .*, got None"),
    "callbacks=print": ({"callbacks": print}, "callbacks should be functions"),
    "callbacks=str": ({"callbacks": "ab"}, "callbacks should be functions"),
    "early_stopping": (
        {"early_stopping": lambda o: 0.0},
        r"early_stopping should be an EarlyStopping\(score, patience\)",
    ),
    "score": ({"early_stopping": EarlyStopping(3.0)}, "early_stopping: score should be a function"),
    "patience": ({"early_stopping": EarlyStopping(len, 0)}, "patience should be a whole number above 0"),
    "transform": ({"transform": "flip"}, "transform should be a function"),
    "seed": ({"seed": 2**70}, r"seed should be a whole number in 0 .. 2\*\*64 - 1, got 1180591620717411303424"),
    "seed=nan": ({"seed": math.nan}, "seed should be a whole number"),
    "epochs=1e30": ({"epochs": 1e30}, r"epochs should be a whole number above 0, got 1e\+30"),
    "epochs=10**30": ({"epochs": 10**30}, "epochs should be fewer"),
    "lr=True": ({"lr": True}, "lr should be a number, got True"),
    "device=meta": ({"device": "meta"}, "device meta holds no values"),
    "identity": ({"identity": {"f": len}}, "identity should be plain data"),
    "checkpoint_every": ({"checkpoint_every": 0}, "checkpoint_every should be a whole number above 0"),
    "schedule list": ({"schedule": ["x"]}, "schedule should be one of"),
    "resume": ({"resume": "no"}, "resume should be True or False, got 'no'"),
    "progress": ({"progress": "bar"}, "progress should be True or False or None"),
    "directory": ({"directory": 5}, "directory should be a path, got 5"),
}


@pytest.mark.parametrize(("arguments", "message"), NOT_CALLABLE.values(), ids=NOT_CALLABLE)
def test_an_argument_of_another_kind_is_refused_before_the_first_epoch(arguments, message, tmp_path):
    o = small().train()
    o.sizes = (1, 2)
    before, seen = weights(o), []
    with pytest.raises(ValueError, match=message):
        run(o, **{"directory": tmp_path / "run", "callbacks": (seen.append,)} | arguments)
    assert same(weights(o), before) and o.sizes == (1, 2) and o.training
    assert not seen and not (tmp_path / "run").exists()


def test_an_objective_that_is_refused_a_directory_is_as_it_was(tmp_path):
    run(directory=tmp_path)
    o = small().train()
    with pytest.raises(FileExistsError):
        run(o, directory=tmp_path)
    assert o.sizes is None and o.extent is None and o.training


def test_the_mode_is_as_it_was_after_an_error():
    def fail(epoch):
        raise RuntimeError("mine")

    o = small().eval()
    with pytest.raises(RuntimeError, match="mine"):
        run(o, callbacks=[fail])
    assert not o.training


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_fit_needs_gradients_whatever_the_caller_has_turned_off(mode):
    expected, _ = run()
    with mode():
        o, _ = run(small(), epochs=3)
        assert torch.is_grad_enabled() is False
    assert same(weights(o), weights(expected))


def test_weights_that_cannot_be_trained_are_refused():
    with torch.inference_mode():
        p_y = nn.Linear(4, 3)
    o = small()
    o.guide.extra = p_y
    with pytest.raises(ValueError, match="objective was made under torch.inference_mode"):
        run(o)
    with pytest.raises(ValueError, match="weights on the device meta have no values"):
        run(small().to("meta"))
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        run(small().requires_grad_(False))
    with pytest.raises(ValueError, match="objective should be a pyro_ssl.Objective, got Linear"):
        run(p_y)
    with pytest.raises(ValueError, match="got a DataParallel, but fit trains on one device; give .* .module"):
        run(nn.DataParallel(small()))
    wrapped = small()
    wrapped.guide = nn.DataParallel(wrapped.guide)
    with pytest.raises(ValueError, match="got a DataParallel, but fit trains on one device; give .* .module"):
        run(wrapped)


def test_a_callback_may_train_another_objective_and_not_this_one():
    losses, refused = [], []

    def train(epoch):
        losses.append(run(small(seed=9), epochs=1)[1]["loss"])
        with pytest.raises(ValueError, match="being trained by the fit that has called this one") as error:
            run(epoch.objective)
        refused.append(error)

    (a, h), (b, g) = run(small(noise=0.2)), run(small(noise=0.2), callbacks=(train,))
    assert same(weights(a), weights(b)) and h["loss"] == g["loss"] and len(refused) == 3
    assert losses == [run(small(seed=9), epochs=1)[1]["loss"]] * 3
    run(b)  # afterwards it may be trained again


def test_a_finite_loss_beyond_all_measure_is_told_once():
    o = zoo.build("classifier", 4, 3, hidden=(20,), noise=0.0, dropout=0.0)
    with pytest.warns(
        DivergedWarning, match=r"epoch 1: the mean loss is .*training has diverged; try a smaller lr"
    ) as told:
        _, history = run(o, lr=1e6, epochs=5)
    assert len(told) == 1 and math.isfinite(history["loss"][0])


@pytest.mark.parametrize("arguments", [{}, {"warmup": 2}, {"lr": 0.05}, {"ema": 0.9}])
@pytest.mark.parametrize("options", [{"sigma": None}, {"sigma": 0.01}, {"alpha": 100.0}])
def test_ordinary_training_is_not_told_as_diverged(arguments, options):
    run(small(**options), epochs=5, **arguments)  # a warning is an error


class Blowup(nn.Module):
    """A decoder that is NaN once its optimiser has made n steps."""

    def __init__(self, n: int):
        super().__init__()
        self.left, self.bias = n, nn.Parameter(torch.zeros(4))

    def forward(self, y, z):
        return self.bias + z.sum(-1, keepdim=True) * (math.nan if self.left == 0 else 1.0)

    def optimizer(self, parameters, lr: float) -> torch.optim.Adam:
        adam = torch.optim.Adam(parameters, lr)
        adam.register_step_post_hook(self.count)
        return adam

    def count(self, *_) -> None:
        self.left -= 1


def test_divergence_names_site_and_step_and_keeps_the_last_checkpoint(tmp_path):
    o = small()
    o.model.p_x.network = Blowup(9)
    with pytest.raises(
        DivergedError, match=r"step 9: .*site 'x'.* smaller lr .*begin anew with it, in another directory"
    ):
        run(o, directory=tmp_path, optimizer=o.model.p_x.network.optimizer)
    assert all(v.isfinite().all() for v in weights(o).values())
    from pyro_ssl.training import checkpoints

    assert checkpoints.load(tmp_path / "checkpoint")[1]["position"]["step"] == 7


class Program(pyro.nn.PyroModule):
    def __init__(self, body):
        super().__init__()
        self.body, self.weight = body, nn.Parameter(torch.ones(()))

    def classify(self, x):
        return pyro.distributions.OneHotCategorical(logits=x[:, :3] * self.weight)

    def forward(self, x, y=None):
        self.body(self, x, y)


def _normal(*shape):
    return pyro.distributions.Normal(torch.zeros(*shape), 1.0)


def _guide(self, x, y):
    with pyro.plate("data", len(x)):
        pyro.sample("z", _normal(2).to_event(1))


def _unguided(self, x, y):
    with pyro.plate("data", len(x)):
        pyro.sample("z", _normal(2).to_event(1))
        pyro.sample("a", _normal(2).to_event(1))
        pyro.sample("x", _normal(4).to_event(1), obs=x)


def _missing(self, x, y):
    with pyro.plate("data", len(x)):
        pyro.sample("x", _normal(4).to_event(1), obs=x)


def _other_plate(self, x, y):
    with pyro.plate("rows", len(x)):
        pyro.sample("z", _normal(2).to_event(1))
        pyro.sample("x", _normal(4).to_event(1), obs=x)


def _no_event(self, x, y):
    pyro.sample("z", _normal(2).to_event(1).expand([len(x)]))
    pyro.sample("x", _normal(4).to_event(1), obs=x)


def _undeclared_event(self, x, y):
    with pyro.plate("data", len(x)):
        pyro.sample("z", _normal(2).to_event(1))
    pyro.sample("x", _normal(len(x), 4), obs=x)


def _with_a_parameter(self, x, y):
    with pyro.plate("data", len(x)):
        pyro.sample("z", _normal(2).to_event(1))
        pyro.sample("x", _normal(4).to_event(1), obs=x * self.weight * pyro.param("size", torch.tensor(1.0)))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_with_a_parameter, r"pyro.param\('size'\) is no parameter of model or guide.*PyroParam"),
        (_unguided, r"does not sample \['a'\].*sample them in the guide"),
        (_missing, r"samples \['z'\], which the model does not"),
        (_other_plate, r"'z' stands in plates \['rows'\].*same plates"),
        (_no_event, r"'z' stands in plates \[\]"),
        (_undeclared_event, r"'x': log_prob has shape \(\d+, 4\).*to_event"),
    ],
)
def test_a_pair_that_does_not_match_fails_at_once_with_the_fix(model, message):
    o = Objective(Program(model), Program(_guide))
    with pytest.raises(ValueError, match=message):
        fit(o, X, None, epochs=1, batch_size=30)


def _global(self, x, y):
    mu = pyro.sample("mu", _normal(2, 4).to_event(2))
    with pyro.plate("data", len(x)):
        pyro.sample("x", pyro.distributions.Normal(self.weight * mu[0], 1.0).to_event(1), obs=x)


def _of_global(self, x, y):
    pyro.sample("mu", pyro.distributions.Normal(torch.zeros(2, 4) + self.weight, 1.0).to_event(2))


def _strided(self, x, y):
    pyro.module("net", self.net)
    _global(self, x, y)


def test_latents_that_all_data_share_and_strided_weights_are_ones_own():
    o = Objective(Program(_global), Program(_of_global))
    assert len(fit(o, X, None, epochs=1, batch_size=30)["loss"]) == 1
    model = Program(_strided)
    model.net = nn.Conv2d(2, 3, 2).to(memory_format=torch.channels_last)
    assert len(fit(Objective(model, Program(_of_global)), X, None, epochs=1, batch_size=30)["loss"]) == 1


def test_a_datum_far_out_is_a_datum():
    x = X.clone()
    x[57] = 250.0
    fit(small(sigma=0.7), x, Y, epochs=1, batch_size=10)


def test_a_run_of_an_earlier_version_goes_on(tmp_path):
    run(directory=tmp_path, epochs=2)
    tensors, kept = checkpoints.load(tmp_path / "checkpoint")
    assert kept["settings"]["schedule"] == "one_cycle"
    for later in ("optimizer", "transform"):
        del kept["settings"][later]
    checkpoints.save(tmp_path / "checkpoint", tensors, kept)
    run(directory=tmp_path, epochs=2, resume=True)


def test_a_guide_site_that_cannot_be_differentiated_is_refused():
    def guide(self, x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("z", pyro.distributions.Poisson(torch.ones(2)).to_event(1))

    def model(self, x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("z", pyro.distributions.Poisson(torch.ones(2)).to_event(1))
            pyro.sample("x", _normal(4).to_event(1), obs=x)

    with pytest.raises(ValueError, match="'z' has no reparameterised sample"):
        fit(Objective(Program(model), Program(guide)), X, None, epochs=1)


# --- killed and resumed -----------------------------------------------------------------------------------------------

RUNS = """
    import json, os, signal, sys, torch
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    torch.set_num_threads(1)
    import test_training as t
    from pyro_ssl.training import checkpoints
    from pyro_ssl.utils import files
    die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)

    def run(directory, kill, where):
        saves = 0
        def save(*arguments, _save=checkpoints.save, **more):
            nonlocal saves
            saves += 1
            if where != "step" and saves == kill:
                owner, name, left = {{
                    "file": (files, "write_flushed", 1), "files": (files, "write_flushed", 2),
                    "rename": (Path, "rename", 1), "renames": (Path, "rename", 2),
                }}[where]
                call = getattr(owner, name)
                def dying(*arguments):
                    nonlocal left
                    left -= 1
                    if where == "files" and left == 0:
                        arguments[0].write_bytes(arguments[1][: len(arguments[1]) // 2])
                    return die() if left == 0 else call(*arguments)
                setattr(owner, name, dying)
            return _save(*arguments, **more)
        checkpoints.save = save
        step = t.Objective.parts
        steps = 0
        def parts(self, *arguments, **more):
            nonlocal steps
            steps += 1
            if where == "step" and steps == kill + 2:
                die()
            return step(self, *arguments, **more)
        t.Objective.parts = parts
        t.resumable(directory)

    t.run(epochs=1)  # torch imports more at its first step
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                run(*json.loads(line))
                code = 0
            finally:
                os._exit(code)
        print(child, flush=True)
        sys.stdin.readline()  # asked to wait for it; until then its number is nobody else's
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Runs:
    """Processes that train with `resumable` and can be killed.

    They are forked by a process that has imported torch and Pyro once, which takes longer than such a run.
    """

    def __init__(self) -> None:
        code = textwrap.dedent(RUNS).format(tests=str(Path(__file__).parent))
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, line: str) -> int:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, directory: Path, kill: int, where: str) -> int:
        """Start one; its process's number."""
        return self.ask(json.dumps([str(directory), kill, where]))

    def wait(self) -> int:
        """Its exit code, that of `subprocess`."""
        return self.ask("wait")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def runs():
    made = Runs()
    yield made
    made.close()


RESUMABLE = {
    "epochs": 4,
    "ema": 0.9,
    "warmup": 2,
    "checkpoint_every": 3,
    "transform": lambda x: x + 0.01 * torch.randn_like(x),
}


def resumable(directory, **arguments):
    """A run with every kind of state: noise, batch norm, dropout, averages, schedule, warm-up, early stopping."""
    torch.manual_seed(123)  # a caller's state, which must not matter
    score = EarlyStopping(lambda o: -abs(o.bound(X).mean().item()), patience=50)
    o = small(noise=0.2, dropout=0.3, batch_norm=True, top_k=1, mutual_information=0.1)
    return run(o, directory=directory, resume=True, early_stopping=score, **RESUMABLE | arguments)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    o, history = resumable(tmp_path_factory.mktemp("unbroken"))
    return weights(o), {k: v for k, v in history.items() if k != "seconds"}


@pytest.mark.parametrize(
    ("kill", "where"),
    [(1, "step"), (11, "step"), (25, "step"), (1, "file"), (4, "files"), (1, "rename"), (5, "rename"), (6, "renames")],
)
def test_a_killed_run_resumes_to_the_same_bits(kill, where, unbroken, runs, tmp_path):
    runs.start(tmp_path, kill, where)
    assert runs.wait() == -signal.SIGKILL
    o, history = resumable(tmp_path)
    assert same(weights(o), unbroken[0])
    assert {k: v for k, v in history.items() if k != "seconds"} == unbroken[1]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert [line["loss"] for line in lines] == history["loss"]


class StoppedError(Exception):
    """Raised by a callback, as a kill between two epochs."""


@pytest.mark.parametrize("method", zoo.METHODS)
def test_every_method_resumes_to_the_same_bits(method, tmp_path):
    small_options = {"hidden": (6,), "z_dim": 2, "dropout": 0.2}
    options = {k: v for k, v in small_options.items() if k in zoo.options_of(method)}

    def stop(epoch) -> None:
        if epoch.epoch == 2:
            raise StoppedError

    def run_of(**arguments) -> tuple[Objective, dict]:
        settings = {"epochs": 3, "batch_size": 35, "labeled_batch_size": 10}
        objective = zoo.build(method, 4, 3, **options)
        return objective, fit(objective, X.sigmoid(), Y, **settings | arguments)

    whole, history = run_of()
    with pytest.raises(StoppedError):
        run_of(directory=tmp_path, callbacks=(stop,))
    resumed, resumed_history = run_of(directory=tmp_path, resume=True)
    assert same(weights(resumed), weights(whole))
    assert resumed_history["loss"] == history["loss"]


def stamp(directory: Path) -> int:
    """When the checkpoint was last renamed into place; 0 before there is one, or between two renames."""
    try:
        return (directory / "checkpoint" / "state.json").stat().st_mtime_ns
    except FileNotFoundError:  # asked for exists() first, it may be gone by the time of stat()
        return 0


def test_killed_at_any_moment(unbroken, runs, tmp_path):
    """SIGKILL from outside, wherever the run happens to be, again and again until it gets through."""
    for delay in (0.0, 0.013, 0.05):
        before = stamp(tmp_path)
        process = runs.start(tmp_path, -9, "step")
        end = time.monotonic() + 60
        while stamp(tmp_path) == before and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(delay)
        os.kill(process, signal.SIGKILL)
        assert runs.wait() == -signal.SIGKILL
    o, _ = resumable(tmp_path)
    assert same(weights(o), unbroken[0])


def test_a_directory_with_another_run_is_refused(tmp_path):
    run(directory=tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(FileExistsError, match="another run"):
        run(directory=tmp_path)
    for other in ({"epochs": 9}, {"lr": 1e-4}, {"seed": 3}, {"batch_size": 20}, {"ema": 0.5}, {"warmup": 1}):
        with pytest.raises(ValueError, match=f"{next(iter(other))}: the run to resume had"):
            run(directory=tmp_path, resume=True, **other)
    others = {"optimizer": torch.optim.SGD, "transform": torch.sign, "schedule": SCHEDULES["cosine"]}
    for name, other in others.items():
        with pytest.raises(ValueError, match=f"{name}: the run to resume had"):
            run(directory=tmp_path, resume=True, **{name: other})
    with pytest.raises(ValueError, match="x: the run to resume had"):
        fit(small(), X + 1, Y, directory=tmp_path, resume=True, epochs=3, batch_size=10, labeled_batch_size=8)
    with pytest.raises(ValueError, match="objective: its weights"):
        run(small(z_dim=3), directory=tmp_path, resume=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_one_process_trains_in_a_directory(tmp_path):
    pytest.importorskip("fcntl")
    child = """
    import sys, time
    sys.path.insert(0, {tests!r})
    import test_training as t
    def wait(epoch):
        print("trains", flush=True)
        time.sleep(60)
    t.run(directory=sys.argv[1], callbacks=(wait,))
    """
    code = textwrap.dedent(child).format(tests=str(Path(__file__).parent))
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "trains\n"
        before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
        with pytest.raises(ValueError, match=f"{tmp_path} is in use by another process"):
            run(directory=tmp_path, resume=True)
        assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    (a, _), (b, _) = run(directory=tmp_path, resume=True), run()
    assert same(weights(a), weights(b))


def test_a_run_is_its_options_too(tmp_path):
    run(directory=tmp_path, identity={"alpha": 1.0, "hidden": (6,)})
    run(directory=tmp_path, resume=True, identity={"alpha": 1.0, "hidden": (6,)})
    with pytest.raises(ValueError, match="identity: the run to resume had"):
        run(directory=tmp_path, resume=True, identity={"alpha": 2.0, "hidden": (6,)})


def test_a_callback_that_evaluates_changes_nothing():
    modes = []

    def look(epoch):
        modes.append((epoch.objective.training, torch.is_grad_enabled()))
        epoch.objective.bound(X)

    (a, _), (b, _) = run(small(noise=0.2)), run(small(noise=0.2), callbacks=(look,))
    assert same(weights(a), weights(b)) and modes == [(False, False)] * 3


def test_resuming_what_is_finished_changes_nothing(tmp_path):
    (a, h), (b, g) = run(directory=tmp_path), run(directory=tmp_path, resume=True)
    assert same(weights(a), weights(b)) and h == g


def test_a_classifier_passes_over_what_has_no_label():
    seen = []
    o = zoo.build("classifier", 4, 3, hidden=(6,))
    fit(o, X, Y, epochs=2, batch_size=10, callbacks=(lambda e: seen.append(e.step),))
    alone = zoo.build("classifier", 4, 3, hidden=(6,))
    fit(alone, X[Y >= 0], Y[Y >= 0], epochs=2, batch_size=10)
    assert seen == [2, 4] and same(weights(o), weights(alone))


def test_progress_is_for_terminals(capsys):
    run()
    assert capsys.readouterr() == ("", "")
    run(progress=True)
    assert "step" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::pyro_ssl.data.labels.LabelWarning")
def test_only_labeled_only_unlabeled_one_row():
    fit(small(), X[:20], Y[:20], epochs=1)
    fit(small(), X, None, epochs=1)
    fit(small(), X[:1], Y[:1], epochs=1)
    with pytest.raises(ValueError, match="needs labels"):
        fit(zoo.build("classifier", 4, 3), X, None, epochs=1)


def test_evaluating_restores_every_mode():
    o = small(batch_norm=True)
    o.guide.q_y.eval()
    with pytest.raises(RuntimeError), eval_mode(o):
        assert not o.training
        raise RuntimeError
    assert o.training and not o.guide.q_y.training and torch.is_grad_enabled()
    assert o(Batch(x_unlabeled=X[:2])).isfinite()


def test_bfloat16_rounds_the_products_and_nothing_else():
    """The loss and the gradient stay near those of float32, weights and densities stay float32, a wrong name is refused."""
    o = zoo.build("m2", 20, 3, hidden=(64,), noise=0.0, dropout=0.0, z_dim=2)
    x, y = torch.rand(60, 20), torch.eye(3).repeat(20, 1)
    losses, gradients = [], []
    for on in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            loss = o(Batch(x, y, x))
            assert o.classify(x).logits.dtype == o.model.p_x(y, torch.zeros(60, 2)).mean.dtype == torch.float32
        losses.append(loss.item())
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(o.parameters()))]))
    assert abs(losses[1] / losses[0] - 1) < 0.01 and losses[0] != losses[1]
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99
    _, half = run(small(), precision="bfloat16")
    assert half["loss"][-1] < half["loss"][0]
    with pytest.raises(ValueError, match="precision should be one of float32, bfloat16, got 'float16'"):
        run(small(), precision="float16")

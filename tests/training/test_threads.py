"""Threads: each has the results that it has alone, and leaves the process as it was."""

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pyro
import pytest
import torch
from torch.distributions import Distribution

from pyro_ssl import (
    Objective,
    SemiSupervisedClassifier,
    SemiSupervisedRegressor,
    bounds,
    class_bounds,
    fit,
    generate,
    gibbs,
    log_evidence,
    one_hot,
    predict_proba,
    reconstruct,
    zoo,
)
from pyro_ssl.active import acquisition
from pyro_ssl.evaluation import attacks
from pyro_ssl.utils import context as modes

pytestmark = pytest.mark.slow

D, K, N = 4, 3, 60
X = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
LABELS = torch.where(torch.arange(N) < 12, torch.arange(N) % K, -1)
Y = one_hot(torch.arange(N) % K, K)
TESTS = Path(__file__).parents[1]
PATIENCE = 60.0
"""Seconds after which a thread is taken to wait for ever."""


@pytest.fixture(autouse=True)
def threads_change_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(autouse=True)
def process_stays_as_it_was() -> Iterator[None]:
    before = process_state()
    yield
    after = process_state()
    assert torch.equal(before.pop("random"), after.pop("random"))
    assert before == after


def process_state() -> dict[str, Any]:
    return {
        "random": torch.get_rng_state(),
        "torch checks": Distribution._validate_args,
        "pyro checks": pyro.infer.is_validation_enabled(),
        "handlers": len(pyro.poutine.runtime._PYRO_STACK),
        "parameters": sorted(pyro.get_param_store().keys()),
    }


def small(method: str, seed: int = 0, **options: Any) -> Objective:
    usual = {"hidden": (6,), "z_dim": 2, "likelihood": "gaussian", "sigma": 1.0, "dropout": 0.2}
    known = {k: v for k, v in usual.items() if k in zoo.options_of(method)}
    return zoo.build(method, D, K, seed=seed, **known | options)


def in_threads(*jobs: Callable[[], Any]) -> list[Any]:
    """The jobs' results, each of a thread of its own."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result(PATIENCE) for future in [pool.submit(job) for job in jobs]]


def trained(objective: Objective, **arguments: Any) -> dict[str, torch.Tensor]:
    fit(
        objective, X, LABELS, **{"epochs": 2, "batch_size": 12, "labeled_batch_size": 6} | arguments
    )
    return {k: v.clone() for k, v in objective.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


# --- prediction ---------------------------------------------------------------------------------

CALLS: dict[str, Callable[[Objective], torch.Tensor]] = {
    "predict_proba": lambda o: predict_proba(o, X),
    "bounds": lambda o: bounds(o, X, Y),
    "class_bounds": lambda o: class_bounds(o, X),
    "log_evidence": lambda o: log_evidence(o, X[:9], num_particles=3),
    "generate": lambda o: generate(o, 5, Y[0]),
    "reconstruct": lambda o: reconstruct(o, X[:9]),
    "fgsm": lambda o: attacks.fgsm(o, X[:9], LABELS[:9], 0.1, bounds=None),
    "scores": lambda o: acquisition.scores(o, X[:9], "entropy"),
}


@pytest.mark.parametrize("method", ["m2", "adgm", "latent_classifier"])
def test_every_call_gives_in_threads_what_it_gives_alone(method):
    objectives = [small(method, seed) for seed in range(2)]
    jobs = [lambda o=o, call=call: call(o) for o in objectives for call in CALLS.values()] * 2
    alone = [job() for job in jobs]
    for found, wanted in zip(in_threads(*jobs), alone, strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("method", ["sslpe", "sslapd"])
def test_gibbs_sampling_gives_in_threads_what_it_gives_alone(method):
    objectives = [small(method, seed) for seed in range(2)]
    jobs = [lambda o=o: predict_proba(o, X) for o in objectives] * 4
    jobs += [lambda o=o: gibbs(o, X, steps=3, chains=2).mean for o in objectives] * 4
    alone = [job() for job in jobs]
    for found, wanted in zip(in_threads(*jobs), alone, strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.slow
def test_estimators_of_several_kinds_do_not_disturb_each_other():
    quick = {"epochs": 1, "min_steps": 5, "random_state": 0}
    estimators: list[Any] = [
        SemiSupervisedClassifier(method, **quick).fit(X.numpy(), LABELS.numpy())
        for method in ("m2", "adgm", "latent_classifier")
    ]
    target = np.where(LABELS >= 0, X[:, 0], np.nan)
    regressor = SemiSupervisedRegressor(**quick).fit(X.numpy(), target)
    jobs = [lambda e=e: e.predict_proba(X.numpy()) for e in estimators] * 3
    jobs += [lambda: regressor.predict(X.numpy())] * 3
    alone = [job() for job in jobs]
    for found, wanted in zip(in_threads(*jobs), alone, strict=True):
        assert np.array_equal(found, wanted)


def test_joblibs_threads_leave_nothing_to_the_next_call():
    model = SemiSupervisedClassifier("adgm", epochs=1, min_steps=5, random_state=0)
    model.fit(X.numpy(), LABELS.numpy())
    alone = model.predict_proba(X.numpy())
    found = joblib.Parallel(n_jobs=4, backend="threading")(
        joblib.delayed(model.predict_proba)(X.numpy()) for _ in range(12)
    )
    assert all(np.array_equal(p, alone) for p in found)
    assert np.array_equal(model.predict_proba(X.numpy()), alone)


def test_checks_that_were_off_stay_off():
    """`import zuko` turns off torch's alone, and `pyro.validation_enabled` turns them on again."""
    o = small("m2")
    try:
        for torchs, pyros in ((False, True), (True, False)):
            pyro.enable_validation(pyros)
            Distribution.set_default_validate_args(torchs)
            before = process_state()
            predict_proba(o, X)
            generate(o, 3)
            trained(o, epochs=1)
            small("m2", flow=1)
            after = process_state()
            for which in ("torch checks", "pyro checks"):
                assert before[which] == after[which]
    finally:
        pyro.enable_validation(True)


# --- training -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_trainings_side_by_side_are_as_one_after_the_other():
    builders = [lambda m=m, s=s: small(m, s) for m in ("m2", "sslapd", "adgm") for s in range(2)]
    alone = [trained(build(), seed=3) for build in builders]
    together = in_threads(*(lambda b=b: trained(b(), seed=3) for b in builders))
    assert all(equal(a, b) for a, b in zip(alone, together, strict=True))


def test_estimators_fit_in_threads_as_alone():
    def fitted(method: str) -> np.ndarray:
        model = SemiSupervisedClassifier(method, epochs=1, min_steps=10, random_state=0)
        return model.fit(X.numpy(), LABELS.numpy()).predict_proba(X.numpy())

    methods = ["m2", "adgm", "latent_classifier", "m2"]
    alone = [fitted(m) for m in methods]
    in_parallel = joblib.Parallel(n_jobs=4, backend="threading")
    together = in_parallel(joblib.delayed(fitted)(m) for m in methods)
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("method", ["m2", "sslapd"])
def test_predictions_come_between_the_steps_of_a_training_and_change_nothing(method):
    """Also with the objective in training, whose dropout is on again in the next step."""
    wanted = trained(small(method), epochs=12)
    other, training = small(method, seed=1), small(method)
    alone, predicted, done = predict_proba(other, X), [], threading.Event()

    def predict() -> None:
        while not done.is_set():
            predicted.append(torch.equal(predict_proba(other, X), alone))
            assert predict_proba(training, X).isfinite().all()

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(predict) for _ in range(2)]
        try:
            found = trained(training, epochs=12)
        finally:
            done.set()
        for future in futures:
            future.result(PATIENCE)
    assert equal(found, wanted)
    assert len(predicted) > 10 and all(predicted)


def test_a_prediction_does_not_wait_for_the_end_of_a_training():
    started, stop = threading.Event(), threading.Event()

    def until_stopped(epoch: Any) -> None:
        started.set()
        if stop.is_set():
            raise InterruptedError

    def train() -> None:
        with pytest.raises(InterruptedError):
            trained(small("m2"), epochs=10**6, callbacks=(until_stopped,))

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(train)
        try:
            assert started.wait(PATIENCE)
            assert predict_proba(small("m2", seed=1), X).isfinite().all()
            assert not future.done()
        finally:
            stop.set()
        future.result(PATIENCE)


def test_a_callback_may_train_while_others_wait():
    wanted, inner = trained(small("m2")), trained(small("adgm"))
    found = []

    def train_another(epoch: Any) -> None:
        with torch.enable_grad():
            found.append(trained(small("adgm")))

    jobs = [lambda: predict_proba(small("m2", seed=1), X)] * 3
    outer, *_ = in_threads(lambda: trained(small("m2"), callbacks=(train_another,)), *jobs)
    assert equal(outer, wanted) and len(found) == 2
    assert all(equal(state, inner) for state in found)


@pytest.mark.slow
def test_whoever_has_the_turn_already_may_train_while_another_trains():
    """It cannot wait for the other training to end, for that one waits for its turn."""
    started = threading.Event()
    wanted = trained(small("adgm"))

    def first() -> dict[str, torch.Tensor]:
        return trained(small("m2"), epochs=20, callbacks=(lambda epoch: started.set(),))

    def second() -> dict[str, torch.Tensor]:
        assert started.wait(PATIENCE)
        with modes.fixed_seed(5):
            return trained(small("adgm"))

    outer, inner = in_threads(first, second)
    assert equal(inner, wanted) and equal(outer, trained(small("m2"), epochs=20))


def test_what_fails_gives_its_turn_back():
    def fail(epoch: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(small("m2"), callbacks=(fail,))
    with pytest.raises(ValueError, match="x is empty"):
        predict_proba(small("m2"), X[:0])
    assert in_threads(lambda: predict_proba(small("m2"), X))[0].isfinite().all()


# --- processes ----------------------------------------------------------------------------------


def predict_and_train_in_child(objective: Objective, wanted: torch.Tensor) -> None:
    assert len(pyro.poutine.runtime._PYRO_STACK) == 0 and Distribution._validate_args
    assert torch.equal(predict_proba(objective, X), wanted)
    with modes.one_training(), modes.exclusive():
        pass


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_process_forked_while_threads_work_is_of_use():
    """As in a DataLoader's workers, where no thread releases what it held in the parent.

    In a process without pytest-xdist, whose own thread may hold a lock when the process is forked.
    """
    code = "from training.test_threads import fork_while_threads_work; fork_while_threads_work()"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=TESTS, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]


def fork_while_threads_work() -> None:
    """Train in one thread and predict in another, and fork five times meanwhile."""
    sys.setswitchinterval(1e-5)
    torch.set_num_threads(1)
    other, stop = small("m2", seed=1), threading.Event()
    wanted = predict_proba(other, X)

    def until_stopped(epoch: Any) -> None:
        if stop.is_set():
            raise InterruptedError

    def train() -> None:
        with pytest.raises(InterruptedError):
            trained(small("m2"), epochs=10**6, callbacks=(until_stopped,))

    def predict() -> None:
        while not stop.is_set():
            predict_proba(other, X)

    context = multiprocessing.get_context("fork")
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(train), pool.submit(predict)]
        try:
            for _ in range(5):
                child = context.Process(target=predict_and_train_in_child, args=(other, wanted))
                child.start()
                child.join(PATIENCE)
                assert child.exitcode == 0
        finally:
            stop.set()
        for future in futures:
            future.result(PATIENCE)

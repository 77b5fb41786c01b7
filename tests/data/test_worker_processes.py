"""Worker processes that end, or whose Dataset raises: the error names what to do, and its cause."""

import os
import signal

import numpy as np
import pytest
from programs.training_runs import same, small, weights
from torch.utils.data import Dataset

from pyro_ssl import fit, predict_proba
from pyro_ssl.data.sources import as_source
from pyro_ssl.training import LostWorkerError

X = np.random.default_rng(0).normal(size=(3000, 4)).astype(np.float32)
BAD = 2
"""An item that is not among the 1000 evenly spaced ones that are looked at first."""
TRAINING = {"epochs": 1, "batch_size": 100}


class Odd(ValueError):
    """An error that can be pickled, but not read again."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def raised(error):
    raise error


ENDS = {
    "exit": (lambda: os._exit(3), "has ended with exit code 3, without an error of Python"),
    "killed": (
        lambda: os.kill(os.getpid(), signal.SIGKILL),
        "was killed by SIGKILL, as the system does where memory runs out",
    ),
}
ERRORS = {
    "of Python": (lambda: raised(OSError("the disk is gone")), (OSError,), "the disk is gone"),
    # Odd itself once Dask has been imported: its tblib teaches pickle to read such errors
    "unreadable": (lambda: raised(Odd("this", "that")), (RuntimeError, Odd), "this and that"),
}


class Rows(Dataset):
    """Rows with a label each, or without; one of them does something else."""

    def __init__(self, action, labels=False):
        self.action = action
        self.labels = labels
        self.parent = os.getpid()

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        if i == BAD and os.getpid() != self.parent:
            self.action()
        return (X[i], i % 3) if self.labels else X[i]


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("labels", [False, True], ids=["in a step", "in the pass over labels"])
def test_a_worker_that_ends_is_told(tmp_path, kind, labels):
    action, how = ENDS[kind]
    objective = small()
    before = weights(objective)
    with pytest.raises(LostWorkerError, match=f"workers: a process that reads x {how}.*workers=0"):
        fit(objective, Rows(action, labels), workers=1, directory=tmp_path, **TRAINING)
    if labels:  # before the first step
        assert same(weights(objective), before) and objective.training
        assert not list(tmp_path.glob("checkpoint*"))


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("labels", [False, True], ids=["in a step", "in the pass over labels"])
def test_an_error_in_a_worker_names_the_item_and_keeps_its_cause(kind, labels):
    action, causes, text = ERRORS[kind]
    with pytest.raises(ValueError, match=f"x: item {BAD} cannot be read: .*") as told:
        fit(small(), Rows(action, labels), workers=1, **TRAINING)
    assert type(told.value.__cause__) in causes
    assert text in str(told.value.__cause__)
    assert "in __getitem__" in str(told.value.__cause__.__cause__)  # the worker's own traceback


class Broken(Rows):
    def __getitem__(self, i):
        if i == self.action:
            raise OSError("the disk is gone")
        return X[i], i % 3


PULLS = {
    "made": lambda: as_source(Broken(0)),
    "read": lambda: as_source(Broken(5)).read(np.array([5])),
    "labels": lambda: as_source(Broken(5)).labels(),
    "predicted": lambda: predict_proba(small(), Broken(5)),
    "first look": lambda: fit(small(), Broken(len(X) - 1), workers=0, **TRAINING),
    "trained": lambda: fit(small(), Broken(BAD), np.arange(len(X)) % 3, workers=0, **TRAINING),
}


@pytest.mark.parametrize("pull", PULLS)
def test_an_error_in_this_process_is_the_cause_itself(pull):
    with pytest.raises(ValueError, match=r"x: item \d+ cannot be read: OSError: the disk") as told:
        PULLS[pull]()
    assert type(told.value.__cause__) is OSError


def test_an_error_of_torch_about_another_process_stays_torchs():
    def other(x):
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed. ")

    with pytest.raises(RuntimeError, match="pid 1") as told:
        fit(small(), Rows(lambda: None), workers=1, transform=other, **TRAINING)
    assert type(told.value) is RuntimeError


LABELS = {
    "a name": "cat",
    "a list of names": ["a", "b"],
    "an object": {"label": 1},
    "a complex number": 1j,
}


@pytest.mark.parametrize("kind", LABELS)
def test_a_label_of_another_kind_names_its_item(kind):
    class Labeled(Rows):
        def __getitem__(self, i):
            return X[i], LABELS[kind] if i == 7 else 0

    with pytest.raises(TypeError, match="x: item 7 has the label .*should be a class index"):
        fit(small(), Labeled(None), workers=1, **TRAINING)

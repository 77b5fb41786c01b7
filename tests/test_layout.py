"""The direction of imports, the one name of every class, and that importing is cheap."""

import argparse
import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pyro
import pytest
import torch
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from pyro.poutine.replay_messenger import ReplayMessenger
from pyro.poutine.scale_messenger import ScaleMessenger
from torch._inductor import compile_fx
from torch.distributed import distributed_c10d
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from pyro_ssl.utils import private_names

ROOT = Path(__file__).parent.parent
LIBRARY = sorted((ROOT / "pyro_ssl").rglob("*.py"))
PROGRAMS = sorted([*(ROOT / "models").glob("*.py"), *(ROOT / "guides").glob("*.py")])
EVERYTHING = [
    *LIBRARY,
    *PROGRAMS,
    *sorted((ROOT / "experiments").glob("*.py")),
    *sorted((ROOT / "tests").rglob("*.py")),
]


def imports(path: Path) -> set[str]:
    """Full names that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found |= {f"{node.module}.{a.name}" for a in node.names}
    return found


ORDER = (
    {"utils", "types"},
    {"nn", "data"},
    {"distributions"},
    {"infer"},
    {"models", "guides", "objectives"},
    {"training", "prediction"},
    {"evaluation"},
    {"zoo", "model_selection"},
    {"active", "estimator", "sweeps"},
    {"comparison"},
    {"cli"},
)
"""Folders of the package, from the bottom up: a file imports from its own and from rows above."""
LEVELS = {folder: level for level, folders in enumerate(ORDER) for folder in folders}


def folder_of(path: Path) -> str:
    """The folder of a file, or its name where it stands beside the folders."""
    inside = path.relative_to(ROOT / "pyro_ssl" if "pyro_ssl" in path.parts else ROOT)
    return inside.parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    "path",
    [
        p
        for p in (*LIBRARY, *PROGRAMS)
        if p.name not in ("__init__.py", "__main__.py") or p.parent.name != "pyro_ssl"
    ],
    ids=lambda p: f"{p.parent.name}/{p.name}",
)
def test_imports_point_one_way(path):
    own = folder_of(path)
    others = {name.split(".")[1] for name in imports(path) if name.startswith("pyro_ssl.")} - {own}
    assert not [other for other in others if LEVELS[other] >= LEVELS[own]]


@pytest.mark.parametrize("path", EVERYTHING, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_programs_are_imported_by_their_public_name(path):
    assert not [n for n in imports(path) if n.split(".")[0] in ("models", "guides")]


def test_torchvision_is_imported_in_one_place():
    users = [p.name for p in LIBRARY if any(n.split(".")[0] == "torchvision" for n in imports(p))]
    assert users == ["torchvision_repair.py"]


FOLDERS = {
    "pyro_ssl.models": ROOT / "models",
    "pyro_ssl.guides": ROOT / "guides",
} | {
    ".".join(path.parent.relative_to(ROOT).parts): path.parent
    for path in LIBRARY
    if path.name == "__init__.py"
}
"""Folders of the package by the names under which they are imported."""
WITH_NAMES = [
    name for name, path in FOLDERS.items() if "__all__" in (path / "__init__.py").read_text()
]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_shows_its_public_names_and_files_only(name):
    folder = import_module(name)
    public = set(getattr(folder, "__all__", ()))
    shown = {name for name in dir(folder) if not name.startswith("_")}
    files = [getattr(folder, other) for other in shown - public]
    assert public <= shown
    assert all(inspect.ismodule(file) and file.__name__.startswith(name) for file in files)


@pytest.mark.parametrize("name", WITH_NAMES)
def test_star_import_gives_the_public_names(name):
    namespace: dict[str, object] = {}
    exec(f"from {name} import *", namespace)
    assert namespace.keys() - {"__builtins__"} == set(import_module(name).__all__)


@pytest.mark.slow
def test_the_public_names_are_there_and_cheap_to_import():
    code = """
import sys, pyro_ssl
assert not {"torch", "pyro", "sklearn", "matplotlib", "torchvision"} & set(sys.modules)
for name in pyro_ssl.__all__:
    assert getattr(pyro_ssl, name) is not None and name in dir(pyro_ssl)
assert "torchvision" not in sys.modules
try:
    pyro_ssl.nothing
except AttributeError as error:
    assert "nothing" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_checks_of_torchs_distributions_stay_as_they_were():
    code = (
        "from torch.distributions import Distribution as D; import pyro_ssl; "
        "from pyro_ssl import zoo; before = D._validate_args; "
        "zoo.build('m2', (4,), 2, flow=1); assert before and D._validate_args"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def called(handler: type[Messenger], method: str, **arguments: object) -> bool:
    """Whether Pyro calls this method of a handler at a sample statement."""
    calls = []
    watched = type("Watched", (handler,), {method: lambda self, msg: calls.append(msg["name"])})
    with watched(**arguments):
        pyro.sample("site", pyro.distributions.Normal(0.0, 1.0))
    return calls == ["site"]


def marks_of(program: Callable[[], object]) -> set[str]:
    """What Pyro notes in `infer` of the site that a program has."""
    return set(
        pyro.poutine.trace(pyro.poutine.enum(program, -1)).get_trace().nodes["site"]["infer"]
    )


def coin() -> torch.Tensor:
    fair = pyro.distributions.Bernoulli(0.5)
    return pyro.sample("site", fair, infer={"enumerate": "parallel"})


PRIVATE = {
    "argparse.ArgumentParser._actions": lambda: isinstance(
        argparse.ArgumentParser()._actions, list
    ),
    "joblib._dask": lambda: private_names.dask_backend().supports_retrieve_callback,
    "pyro.deterministic, infer: _deterministic": lambda: (
        private_names.DETERMINISTIC in marks_of(lambda: pyro.deterministic("site", torch.zeros(())))
    ),
    "pyro.poutine.enum, infer: _enumerate_dim": lambda: (
        private_names.ENUMERATE_DIM in marks_of(coin)
    ),
    "pyro.nn.PyroModule._pyro_params": lambda: len(PyroModule()._pyro_params) == 0,
    "pyro.nn.PyroModule._pyro_samples": lambda: len(PyroModule()._pyro_samples) == 0,
    "pyro.poutine.messenger.Messenger._pyro_sample": lambda: called(Messenger, "_pyro_sample"),
    "pyro.poutine.replay_messenger.ReplayMessenger._pyro_sample": lambda: called(
        ReplayMessenger, "_pyro_sample", params={}
    ),
    "pyro.poutine.scale_messenger.ScaleMessenger._process_message": lambda: called(
        ScaleMessenger, "_process_message", scale=1.0
    ),
    "torch.distributed.distributed_c10d._set_pg_timeout": lambda: (
        "timeout" in inspect.signature(distributed_c10d._set_pg_timeout).parameters
    ),
    "torch._inductor": lambda: (
        "config_patches" in inspect.signature(compile_fx.compile_fx).parameters
    ),
    "torch.distributions.Distribution._validate_args": lambda: (
        torch.distributions.Distribution._validate_args is True
    ),
    "torch.distributions.Distribution._validate_sample": lambda: callable(
        torch.distributions.Distribution._validate_sample
    ),
    "torch.nn.Module._modules": lambda: (
        list(torch.nn.Sequential(torch.nn.Identity())._modules) == ["0"]
    ),
    "torch.utils.data.dataloader._MultiProcessingDataLoaderIter": lambda: callable(
        _MultiProcessingDataLoaderIter
    ),
    "torch.utils.data.dataloader._workers": lambda: (
        len(private_names.workers_of_loader(iter(DataLoader([1], num_workers=1)))) == 1
    ),
    "torch.utils.data.dataloader._shutdown_workers": lambda: callable(
        _MultiProcessingDataLoaderIter._shutdown_workers
    ),
    "torch.nn.modules.batchnorm._BatchNorm": lambda: issubclass(
        torch.nn.BatchNorm1d, torch.nn.modules.batchnorm._BatchNorm
    ),
}
"""Every private name of another library that ours uses, and whether it is what we take it to be."""
HANDLERS = {"_pyro_sample", "_process_message"}
"""Methods that Pyro calls: they stand in our handlers."""


@pytest.mark.parametrize("name", PRIVATE)
def test_a_private_name_is_there(name):
    assert PRIVATE[name](), f"{name} is another than it was; see pyro_ssl/utils/private_names.py"


def names_with_underscore(path: Path) -> set[str]:
    """Names with one leading underscore that a file imports, or reads as attributes."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("pyro_ssl"):
            names |= {alias.name for alias in node.names} | set((node.module or "").split("."))
    return {n for n in names if re.match("_[^_]", n)}


def own_names() -> set[str]:
    """Everything that our files define: functions, classes, variables, attributes."""
    nodes = [
        node for path in (*LIBRARY, *PROGRAMS) for node in ast.walk(ast.parse(path.read_text()))
    ]
    names = {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    names |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return names | {
        n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)
    }


def test_private_names_of_others_stand_in_one_module():
    # of named tuples, and of os: no private names in spite of their looks
    documented = {"_replace", "_asdict", "_fields", "_exit"}
    ours = own_names() | documented
    for path in (*LIBRARY, *PROGRAMS):
        if path.stem != "private_names":
            assert not names_with_underscore(path) - ours, (
                f"{path.name}: move it to pyro_ssl/utils/private_names.py"
            )
    tested = {name.rpartition(".")[2] for name in PRIVATE if "infer" not in name}
    assert (
        names_with_underscore(ROOT / "pyro_ssl" / "utils" / "private_names.py") | HANDLERS == tested
    )


def test_what_the_process_has_once_is_used_under_one_lock():
    """The context managers of `utils.context` hold it; other calls would disturb threads."""
    switches = {
        "fork_rng",
        "torch.manual_seed",
        "default_generator.manual_seed",
        "get_param_store().scope",
        "pyro.validation_enabled",
        "enable_validation",
        "set_default_validate_args",
    }
    calls = {
        path.name: {
            ast.unparse(n.func)
            for n in ast.walk(ast.parse(path.read_text()))
            if isinstance(n, ast.Call)
        }
        for path in (*LIBRARY, *PROGRAMS)
    }
    users = {
        name
        for name, found in calls.items()
        if any(f".{call}".endswith(f".{s}") for call in found for s in switches)
    }
    assert users == {"context.py"}

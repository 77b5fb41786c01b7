"""Changes of saved files whose checksums fit, as an editor or an attacker would write them."""

import copy
import hashlib
import json
import random
from pathlib import Path

import safetensors.torch
import torch

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = torch.where(torch.arange(60) < 20, torch.arange(60) % 2, -1)
OPTIONS = {"hidden": [5], "z_dim": 2, "sigma": 1.0, "batch_norm": True, "noise": 0.1}
VALUES = [
    None,
    True,
    False,
    -1,
    0,
    1,
    2,
    7,
    2**40,
    2**70,
    -1.5,
    0.25,
    "x",
    "",
    "float64",
    "sgd",
    [],
    {},
    [[]],
    {"a": 1},
    "INFINITE",
    "DEEP",
    "NAN",
]
WORDS = {'"INFINITE"': "1e999", '"DEEP"': "[" * 3000 + "]" * 3000, '"NAN"': "NaN"}


def write(directory: Path, tensors: dict, data) -> None:
    """Both files, with checksums that fit."""
    body, blob = json.dumps(data), safetensors.torch.save(tensors)
    for word, text in WORDS.items():
        body = body.replace(word, text)
    sums = {
        "sha256": hashlib.sha256(blob).hexdigest(),
        "sha256_data": hashlib.sha256(body.encode()).hexdigest(),
    }
    (directory / "state.safetensors").write_bytes(blob)
    (directory / "state.json").write_text(
        json.dumps({"format": "pyro-ssl", "version": 1, **sums, "data": body})
    )


def read(directory: Path) -> tuple[dict, dict]:
    tensors = safetensors.torch.load((directory / "state.safetensors").read_bytes())
    return tensors, json.loads(json.loads((directory / "state.json").read_text())["data"])


DATA_CHANGES = ["replace"] * 7 + ["delete"] * 2 + ["add"] * 2 + ["copy"] * 3
TENSOR_CHANGES = ["delete", "rename", "shape", "dtype", "more", "swap", "empty", "grown"]
CHANGES = [("data", how) for how in DATA_CHANGES] + [("tensors", how) for how in TENSOR_CHANGES]
ROUND = len(CHANGES)
"""Cases of a round, which has each kind of change; two thirds of them change plain data."""


def places(data, names=()):
    """Every dictionary and list in the data with each of its keys, and the path of names to it."""
    for key in data if isinstance(data, dict) else range(len(data)):
        here = (*names, key) if isinstance(data, dict) else names
        yield data, key, here
        if isinstance(data[key], (dict, list)):
            yield from places(data[key], here)


def drawn_place(data: dict, draw: random.Random, wanted=lambda value: True) -> tuple:
    """A dictionary or list and a key, drawn with equal probability for every path of names."""
    by_names: dict = {}
    for parent, key, names in places(data):
        if wanted(parent[key]):
            by_names.setdefault(names, []).append((parent, key))
    return draw.choice(by_names[draw.choice(sorted(by_names))])


def is_number(value) -> bool:
    return isinstance(value, (int, float))


def change_data(data: dict, how: str, value, draw: random.Random) -> str:
    """Change one thing in plain data, and return a description of the change."""
    parent, key = drawn_place(data, draw, is_number) if how == "add" else drawn_place(data, draw)
    said = f"{how} {key!r} of {str(parent)[:200]}"
    if how == "delete":
        del parent[key]
    elif how == "add":
        parent[key] += draw.choice([1, -1, 0.5, 1e3])
    elif how == "copy" and isinstance(parent, list):
        parent.append(copy.deepcopy(parent[key]))
    elif how == "copy":
        parent[key + "_"] = parent.pop(key)
    else:
        parent[key] = value
    return said


def change_tensors(tensors: dict, how: str, draw: random.Random) -> str:
    """Change one thing about tensors that is not a value; what was changed, in words."""
    name = draw.choice(sorted(tensors))
    tensor = tensors[name]
    if how == "delete":
        del tensors[name]
    elif how == "rename":
        tensors[name + "x"] = tensors.pop(name)
    elif how == "shape":
        tensors[name] = tensor[None].clone()
    elif how == "dtype":
        tensors[name] = tensor.to(torch.float16 if tensor.dtype != torch.float16 else torch.float32)
    elif how == "more":
        tensors["more"] = torch.zeros(3)
    elif how == "swap":
        other = draw.choice(
            sorted(k for k in tensors if tensors[k].shape != tensor.shape) or [name]
        )
        tensors[name], tensors[other] = tensors[other], tensor
    elif how == "empty":
        tensors[name] = tensor.new_zeros(0)
    else:
        tensors[name] = torch.cat([tensor.reshape(-1), tensor.reshape(-1)])
    return f"{how} {name}"


def value_of(case: int):
    """The value of a replacement: the cases of a kind take the values in turn."""
    nth = case // ROUND * DATA_CHANGES.count("replace") + case % ROUND
    return copy.deepcopy(VALUES[nth % len(VALUES)])


def changed(directory: Path, to: Path, case: int) -> str:
    """Write a copy of a checkpoint directory with one change, and return its description."""
    draw, (tensors, data) = random.Random(case), read(directory)
    what, how = CHANGES[case % ROUND]
    if what == "data":
        said = change_data(data, how, value_of(case), draw)
    else:
        said = change_tensors(tensors, how, draw)
    write(to, tensors, data)
    return said

"""The library without torchvision, matplotlib and zuko: they are imported where they are used."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

CODE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torchvision", "matplotlib", "zuko"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
import numpy as np
import pyro_ssl

for name in pyro_ssl.__all__:
    assert getattr(pyro_ssl, name) is not None

import pyro_ssl.cli.app
x = np.random.default_rng(0).normal(size=(40, 3))
y = np.where(np.arange(40) < 8, np.arange(40) % 2, -1)
model = pyro_ssl.SemiSupervisedClassifier("m2", epochs=1, min_steps=1, random_state=0).fit(x, y)
assert model.predict_proba(x).shape == (40, 2)
try:
    pyro_ssl.zoo.build("m2", (3,), 2, flow=1)
except ModuleNotFoundError as error:
    assert error.name == "zuko"
else:
    raise AssertionError("a flow was built without zuko")
"""


def test_only_what_uses_a_package_imports_it():
    subprocess.run([sys.executable, "-c", CODE], check=True)

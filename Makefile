# `make demo` and `make test` set up everything they need, once, in .venv.
PYTHON ?= python3
BIN := .venv/bin

# Two workers of one thread each, in random order. ARGS="--randomly-seed=7", with the seed of a run's first lines,
# has its order again; ARGS="-n 0 tests/test_x.py" runs one file plainly.
PYTEST := -m pytest --numprocesses 2 --dist worksteal $(ARGS)
# The oldest and the newest Python that are at hand, from 3.10 on.
PYTHONS := $(foreach minor,10 11 12 13 14,$(firstword $(wildcard \
	$(HOME)/.pyenv/versions/3.$(minor).*/bin/python3.$(minor) /usr/local/bin/python3.$(minor) /usr/bin/python3.$(minor))))
OLDEST ?= $(firstword $(PYTHONS))
NEWEST ?= $(lastword $(PYTHONS))
TORCH ?= torch

.PHONY: demo test test-slow test-compiler test-oldest test-newest check-gpu lint docs dist clean
demo: .venv/ready
	$(BIN)/python experiments/demo.py

test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) -m "not slow and not compiler"

# Several processes, whole commands, long trainings: longer than the other tests.
test-slow: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) -m slow

# Compiled steps with Inductor itself, which takes minutes of a C++ compiler.
test-compiler: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) -m compiler

# The declared minimum of each dependency, and then the newest of each: TORCH=torch==2.13.0 takes that build.
test-oldest:
	rm -rf build/oldest && mkdir -p build && $(OLDEST) -m venv build/oldest
	sed -n 's/^ *\([a-z-]*\(\[[a-z]*\]\)\?\)>=\(.*\)/\1==\3/p' setup.cfg > build/oldest.txt
	build/oldest/bin/pip install --quiet --disable-pip-version-check --requirement build/oldest.txt
	build/oldest/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	OMP_NUM_THREADS=1 build/oldest/bin/python $(PYTEST)

test-newest:
	rm -rf build/newest && mkdir -p build && $(NEWEST) -m venv build/newest
	build/newest/bin/pip install --quiet --disable-pip-version-check "$(TORCH)"
	build/newest/bin/pip install --quiet --disable-pip-version-check --upgrade --editable ".[test]"
	OMP_NUM_THREADS=1 build/newest/bin/python $(PYTEST)

# On a machine with a CUDA GPU; .venv needs a CUDA build of torch. ARGS=--quick, or ARGS="--device cpu".
check-gpu: .venv/ready
	$(BIN)/python experiments/check_gpu.py $(ARGS)

lint: .venv/ready
	$(BIN)/pip install --quiet --constraint constraints.txt ruff mypy
	$(BIN)/ruff check --line-length 100 --select E4,E7,E9,F,I,B,UP .
	$(BIN)/ruff check --line-length 100 --select E501,C901 --config lint.mccabe.max-complexity=10 pyro_ssl models guides experiments docs
	$(BIN)/ruff check --line-length 100 --select E501 tests
	$(BIN)/ruff format --check --line-length 100 .
	rm -rf build/lib build/installed  # files of another layout would be installed, too
	$(BIN)/pip install --quiet --no-deps --upgrade --target build/installed .
	$(BIN)/mypy build/installed/pyro_ssl

# The site, in build/docs; the tutorials are run. Warnings are errors.
docs: .venv/docs
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs

# A wheel and a source archive in dist, checked.
dist: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check build twine
	rm -rf dist build/lib
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*

.venv/docs: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[docs]"
	touch $@

# torch first and by its exact version: where there is a CPU build of it, nothing looser finds it.
.venv/ready: setup.cfg constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test]"
	touch $@

clean:
	rm -rf .venv build dist docs/_generated *.egg-info runs/demo

# `make demo` and `make test` set up everything they need, once, in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint clean
demo: .venv/ready
	$(BIN)/python experiments/demo.py

test: .venv/ready
	$(BIN)/python -m pytest

lint: .venv/ready
	$(BIN)/pip install --quiet --constraint constraints.txt ruff mypy
	$(BIN)/ruff check --line-length 120 --select E4,E7,E9,F,I,B,UP .
	$(BIN)/ruff format --check --line-length 120 .
	$(BIN)/pip install --quiet --no-deps --upgrade --target build/installed .
	$(BIN)/mypy build/installed/pyro_ssl

# torch first and by its exact version: where there is a CPU build of it, nothing looser finds it.
.venv/ready: setup.cfg constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test]"
	touch $@

clean:
	rm -rf .venv build *.egg-info runs/demo

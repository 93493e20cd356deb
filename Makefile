# `make demo` and `make test` work on a fresh machine with Python and make: they set up .venv first, once.
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint format bench fuzz lowest clean

demo: .venv/demo.stamp
	$(BIN)/zig demo $(ARGS)

test: .venv/test.stamp
	$(BIN)/python -m pytest -n 2 $(ARGS)

lint: .venv/test.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

format: .venv/test.stamp
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: .venv/test.stamp
	$(PIP) -e '.[bench]'
	set -e; for name in analyze compress dhspg app; do echo "== $$name"; $(BIN)/python benchmarks/$$name.py; done

# Random networks and damaged files, for SECONDS in all; ARGS="--keep FOLDER" keeps what goes wrong.
fuzz: .venv/test.stamp
	cd tests && ../$(BIN)/python -W ignore -m fuzz --seed $(or $(SEED),0) --seconds $(or $(SECONDS),60) $(ARGS)

# The oldest versions of everything that the core needs, in an environment of its own; the newest ones are in .venv.
lowest: .venv-lowest/stamp
	.venv-lowest/bin/python -m pytest -q -W default $(or $(ARGS),tests/test_surgery.py tests/test_partition.py tests/test_graph.py tests/test_verify.py tests/test_cli.py)

.venv-lowest/stamp: pyproject.toml tests/lowest.py
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) tests/lowest.py > .venv-lowest/lowest.txt
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check -r .venv-lowest/lowest.txt pytest pytest-xdist hypothesis pyyaml
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

clean:
	rm -rf .venv .venv-lowest build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis zig-demo

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("zig needs Python 3.10 or newer; name one: make PYTHON=python3.12" if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv .venv

# torch goes first and alone: a CPU build that pip knows of is then kept by everything that depends on torch.
.venv/torch.stamp: constraints.txt | .venv/bin/python
	@echo "setting up .venv (once, a few minutes)"
	$(PIP) torch
	@touch $@

.venv/demo.stamp: pyproject.toml .venv/torch.stamp
	$(PIP) -e '.[train]'
	@touch $@

.venv/test.stamp: pyproject.toml .venv/torch.stamp
	$(PIP) -e '.[dev,train,zoo]'
	@touch $@

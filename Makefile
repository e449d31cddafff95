# Everything a fresh machine needs is Python 3.11 or later, make and a package registry.
# `make demo` and `make test` install what they need into .venv, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV_VERSION := 0.13.8
WORKERS ?= 2
RUNS ?= runs

# Two test processes share the cores: one arithmetic thread each.
TEST_ENV := OMP_NUM_THREADS=1
# The registry's torch is large; a slow line gets five minutes for every file. What is installed follows uv.lock alone.
UV_ENV := UV_NO_CONFIG=1 UV_HTTP_TIMEOUT=300 UV_PROJECT_ENVIRONMENT=$(VENV)

.PHONY: help install demo test test-slow lint format types bench clean

help:
	@echo "make install    create .venv and install from uv.lock, hashes checked"
	@echo "make demo       generate pictures, train, evaluate, write a report (under 5 minutes on 2 cores)"
	@echo "make test       lint, types and the tests"
	@echo "make test-slow  the tests that take longer"
	@echo "make lint       ruff (check and format); make format applies it"
	@echo "make types      pyrefly"
	@echo "make bench      time our detector against torchvision's on this machine"

install: $(STAMP)

$(STAMP): pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "frcnn needs Python 3.11 or later, this is " + sys.version.split()[0] + "; set PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
	$(UV_ENV) $(BIN)/uv sync --locked --inexact --extra train --extra dev --compile-bytecode --python $(BIN)/python
	@touch $@

demo: install
	$(BIN)/frcnn demo --out $(RUNS)

test: lint types
	$(TEST_ENV) $(BIN)/python -m pytest -q -n $(WORKERS) -m "not slow and not gpu"

test-slow: install
	$(TEST_ENV) $(BIN)/python -m pytest -q -n $(WORKERS) -m "slow and not gpu"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install
	$(BIN)/pyrefly check

bench: install
	$(BIN)/frcnn bench

clean:
	rm -rf build dist .pytest_cache .hypothesis .ruff_cache

# `make demo` and `make test` do all their own set-up, into .venv.

PYTHON ?= python3
BIN := .venv/bin
export PICTURE ?=
export TEXT ?=

.PHONY: demo test lint matrix clean

demo: .venv/ready  ## Ground an embedded scene, and PICTURE with TEXT if given; figures go to demo_output/.
	$(BIN)/adapters demo $${PICTURE:+"$$PICTURE"} $${TEXT:+"$$TEXT"}

test: .venv/ready  ## Run every test.
	$(BIN)/python -m pytest

lint: .venv/ready  ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

matrix: .venv/ready  ## Run the conformance suite over every adapter, and write the support matrix into the README.
	$(BIN)/adapters check --all --json > plugins/support.json
	$(BIN)/python tests/write_matrix.py

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:  ## Remove what the commands above made.
	rm -rf .venv demo_output dist

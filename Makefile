# make demo: the whole job on synthetic kidneys. make test: what must hold.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The stamp is remade whenever a file that says what is installed changes, so `make venv` is
# quick when there is nothing to do and brings an old environment up to date when there is.
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
SAYS := setup.cfg pyproject.toml constraints.txt vol3d/version.py

.PHONY: venv dev demo test test-slow lint format clean

venv: $(STAMP)

dev: $(DEV_STAMP)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch first and by itself: left to another package's requirements pip may choose another build.
$(STAMP): $(BIN)/python $(SAYS)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt torch
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e .
	touch $@

$(DEV_STAMP): $(STAMP)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
	touch $@

demo: venv
	$(BIN)/python tools/demo.py

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest -q

test-slow: dev
	$(BIN)/pytest -q -m "slow and not gpu"

format: dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo

# make demo: the whole job on synthetic kidneys. make test: what must hold.
PYTHON ?= python3
# Arguments that make pip take the build of torch you want; see the README.
TORCH ?= torch
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --disable-pip-version-check -q -c constraints.txt
# Remade whenever a file that says what is installed changes: `make venv` does nothing when there is
# nothing to do, and brings an old environment up to date when there is.
STAMP := $(VENV)/.installed
SAYS := setup.cfg pyproject.toml constraints.txt vol3d/version.py

.PHONY: venv demo docs lint test test-slow format clean

venv: $(STAMP)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch first and by itself: left to another package's requirements pip may choose another build.
$(STAMP): $(BIN)/python $(SAYS)
	$(PIP) $(TORCH)
	$(PIP) -e '.[dev]'
	touch $@

demo: venv
	$(BIN)/python tools/demo.py

# The pages of the Python interface, from its docstrings: build/docs/api/index.html.
docs: venv
	$(BIN)/python tools/api_pages.py build/docs/api

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A process of tests for each core, each with one thread: two that share all cores wait for each other. Compiled
# files are kept, whatever the environment says: compiling tests and package anew takes each process seconds.
test: lint
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --dist worksteal

test-slow: venv
	$(BIN)/pytest -q -m "slow and not gpu"

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo

# Everything lives in .venv; `make clean` removes it. Needs Python 3.11 or newer, and make.
PYTHON ?= python3
PYTEST_ARGS ?=
DEMO_ARGS ?=
BENCH_ARGS ?=
N ?= 20
SEED ?= 0
QUICK ?=
FULL ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs docs-serve weights bench chaos constraints clean

help:  ## show this
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: .venv/.core  ## make a landscape, segment it, write the mask, print how good it is (1 minute)
	$(BIN)/tilesseg demo $(DEMO_ARGS)

# An empty PYTHONDONTWRITEBYTECODE is none: the tests start the package in many processes, and compile it only once.
test: export PYTHONDONTWRITEBYTECODE =
test: .venv/.dev  ## run the tests on all cores; PYTEST_ARGS='-m ""' runs the slow ones too, -n 0 uses this process
	$(BIN)/python -m pytest -n auto --dist worksteal --durations=10 $(PYTEST_ARGS)

lint: .venv/.dev  ## ruff, mypy --strict, and the rooms of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/.docs  ## build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: .venv/.docs  ## show the site on this machine, and again after every change
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --strict

weights: .venv/.dev  ## train a network of the demo's kind (10 minutes); the bundled one stays as it is
	$(BIN)/python workflows/training/make_scenes.py workflows/training/scenes
	$(BIN)/tilesseg train workflows/training/train.yaml

bench: .venv/.dev  ## compare with other tools, file to file (QUICK=1: 8 minutes; FULL=1: up to 4 Gpx); BENCH_ARGS='--help'
	$(BIN)/python -m benchmarks.peers.bench $(if $(QUICK),--quick) $(if $(FULL),--full) $(BENCH_ARGS)

chaos: .venv/.dev  ## runs under drawn faults, judged by laws: N=200 seeds (half an hour), from SEED=0
	$(BIN)/python -m benchmarks.chaos --seeds $(N) --first $(SEED)

constraints: .venv/.dev  ## pin what .venv holds now, after an upgrade that passes the tests
	@sed '/^[^#]/d' constraints.txt > .venv/constraints
	@$(BIN)/python -m pip freeze --exclude-editable --disable-pip-version-check | sed 's/+cpu$$//' >> .venv/constraints
	@mv .venv/constraints constraints.txt

clean:  ## remove the environment, caches and the demo's results
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist demo site
	rm -rf benchmarks/.peers benchmarks/.bench
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps say what .venv holds; they go stale when the dependencies change.
.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tilesseg needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] + "; name another with make PYTHON=...")'
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.core: .venv/.made pyproject.toml constraints.txt
	$(PIP) -e .
	@touch $@

.venv/.dev: .venv/.made pyproject.toml constraints.txt
	$(PIP) -e '.[dev,docs,clouds,onnx,openvino]'
	@touch .venv/.core .venv/.docs $@

.venv/.docs: .venv/.made pyproject.toml constraints.txt
	$(PIP) -e '.[docs]'
	@touch .venv/.core $@

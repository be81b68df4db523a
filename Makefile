# make install   a virtual environment in .venv with gentax in it
# make alfworld  the domain alfworld beside it: GPL parts, compiled for minutes with gcc, g++, make and cmake
# make trl       TRL beside it, for recipes with `trainer: trl`
# make demo      the main job: train on one domain, say what it cost in five others
# make test      all tests, on two workers
# make test-fast the tests marked neither slow nor jvm
# make typecheck types (mypy, strict)
# make lint      style
# make docs      the site, into site/
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install alfworld trl demo test test-fast typecheck lint docs clean

install: .venv/installed

# CPU PyTorch first and by exact version: a bare "torch" may bring gigabytes of CUDA.
.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"gentax needs Python 3.11 to 3.13, and $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

alfworld: .venv/alfworld

# What it compiles calls `python`, which not every system has under that name.
.venv/alfworld: .venv/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[alfworld]'
	@touch $@

trl: .venv/trl

.venv/trl: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[trl]'
	@touch $@

demo: install
	$(BIN)/gentax demo

test: install
	$(BIN)/pytest -n 2 --dist worksteal

test-fast: install
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow and not jvm"

typecheck: install
	$(BIN)/mypy

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: install
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv .mypy_cache runs build dist site *.egg-info src/*.egg-info

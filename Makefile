# Each target sets itself up: it needs Python >= 3.10, pip and make, and the package registry once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test check quick dist clean

demo: $(INSTALLED)  ## real videos -> cache -> LiteEval -> the paper's Table 1, 3 to 5 minutes on 2 cores
	$(BIN)/python -m benchmarks.demo

test: $(INSTALLED) check  ## lint, types, imports, and every test
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: $(INSTALLED)  ## lint, types and which way imports go, alone
	$(BIN)/hadolint Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

quick: $(INSTALLED) check  ## the developer's loop: no slow tests
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

dist: $(INSTALLED)  ## the wheel and the source distribution, as an index would take them
	$(BIN)/python -m pip install --quiet build twine
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

$(INSTALLED): setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "thriftvid needs Python 3.10 or later")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# `make fit` and `make test` need Python 3.11 or newer and nothing else: they make .venv and install into it.
PYTHON ?= python3
CONFIG ?= lora.yaml
ARGS ?=
BIN := .venv/bin
# With uv and UV_TORCH_BACKEND=cpu, torch for CPUs alone: INSTALL="uv pip install --python .venv/bin/python"
INSTALL ?= $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: install fit compare test test-slow coverage lint audit docs clean

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) -c constraints.txt -e ".[dev]"
	touch $@

fit: install
	$(BIN)/python -m lit_fm fit --config $(CONFIG) $(ARGS)

compare: install
	$(BIN)/python -m lit_fm compare --config compare.yaml --workers 2 $(ARGS)
	$(BIN)/python -m lit_fm compare --config compare-t5.yaml --workers 2 $(ARGS)

test: install lint
	$(BIN)/python -m pytest

test-slow: install
	$(BIN)/python -m pytest -m slow --timeout 1200

# Which lines of the package the short tests run; the worst files first.
coverage: install
	$(BIN)/python -m pytest --cov --cov-report term:skip-covered

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Known vulnerabilities of the versions in constraints.txt, where an advisory service can be reached.
audit: install
	$(BIN)/pip-audit -r constraints.txt --no-deps --disable-pip --progress-spinner off

# The site, into build/site; any warning is an error.
docs: install
	$(INSTALL) -c constraints.txt -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

clean:
	rm -rf .venv runs build

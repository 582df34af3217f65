# `make fit` and `make test` need Python 3.11 or newer and nothing else: they make .venv and install into it.
PYTHON ?= python3
CONFIG ?= lora.yaml
ARGS ?=
BIN := .venv/bin

.PHONY: install fit compare test test-slow lint audit clean

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
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

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Known vulnerabilities of the versions in constraints.txt, where an advisory service can be reached.
audit: install
	$(BIN)/pip-audit -r constraints.txt --no-deps --disable-pip --progress-spinner off

clean:
	rm -rf .venv runs

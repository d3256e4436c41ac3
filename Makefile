# Each target makes its own virtual environment and installs what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PACKAGES := koru_delta koru_delta_langchain koru_delta_llamaindex

# Kills in `make crash`, seconds in `make test-long`.
N ?= 300
LONG_SECONDS ?= 600

# Real texts for tests and benchmarks, when they lie beside the project.
ifndef KORU_DATA
ifneq ($(wildcard ../shared/data/.),)
export KORU_DATA := $(abspath ../shared/data)
endif
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint bench crash test-long clean

help: ## Say what there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.installed-demo ## Ask a repository's history the same questions now and then
	@$(BIN)/kdelta demo

test: lint ## Lint, types, import arrows, then every test
	$(BIN)/python -m pytest -q

lint: $(VENV)/.installed-dev ## Style, formatting, strict types, import arrows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict $(addprefix --package ,$(PACKAGES))
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev ## Print the figures, with those of peers beside them
	$(BIN)/python -m benchmarks

crash: $(VENV)/.installed-dev ## Kill a writing process N times (N=300); nothing may be lost
	$(BIN)/python -m tests.crash --kills $(N)

test-long: $(VENV)/.installed-dev ## Random histories against a plain model, for ten minutes
	KORU_LONG=1 KORU_LONG_SECONDS=$(LONG_SECONDS) $(BIN)/python -m pytest -q --timeout=0 tests/test_state_machine.py

clean: ## Remove the virtual environment and every cache
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'KoruDelta needs Python 3.11 or newer, and "$(PYTHON)" is not:' \
			'try: make PYTHON=python3.11 ...' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo 'Could not make a virtual environment;' \
			'on Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }

# The stamps are older than pyproject.toml when it has changed; `dev` holds all that `demo` needs.
$(VENV)/.installed-demo: pyproject.toml | $(BIN)/python
	@echo 'Installing KoruDelta into $(VENV) ...'
	@$(PIP) install -q -e '.[langchain,local]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo 'Installing KoruDelta and what its tests need into $(VENV) ...'
	@$(PIP) install -q -e '.[dev]'
	@touch $@ $(VENV)/.installed-demo

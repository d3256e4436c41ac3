# Each target makes its own virtual environment and installs what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PACKAGES := koru_delta koru_delta_langchain koru_delta_llamaindex

# Kills in `make crash`, seconds in `make soak` (of each part) and `make test-long`, events a day
# in `make year`.
N ?= 300
EVENTS ?= 1000
SOAK_SECONDS ?= 120
LONG_SECONDS ?= 600

# Real texts for tests and benchmarks, when they lie beside the project.
ifndef KORU_DATA
ifneq ($(wildcard ../shared/data/.),)
export KORU_DATA := $(abspath ../shared/data)
endif
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint bench bench-vectors crash soak year test-long clean

help: ## Say what there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/.installed-demo ## Ask a repository's history the same questions now and then
	@$(BIN)/kdelta demo

test: lint ## Lint, types, import arrows, then every test
	$(BIN)/python -m pytest -q

lint: $(VENV)/.installed-dev ## Style, formatting, strict types, import arrows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict $(addprefix --package ,$(PACKAGES))
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev $(VENV)/.installed-peers ## Print the figures, with those of peers beside them
	$(BIN)/python -m benchmarks

bench-vectors: $(VENV)/.installed-bench ## Search by vector beside its peers: tables, JSON, a plot
	$(BIN)/python -m benchmarks.vectors --json docs/vector-search.json \
		--plot docs/vector-search.png --docs docs/vector-search.md

crash: $(VENV)/.installed-dev ## Kill a writing process N times (N=300); nothing may be lost
	$(BIN)/python -m tests.crash --kills $(N)
	$(BIN)/python -m tests.indexing --kills $$(( ($(N) + 5) / 6 ))
	$(BIN)/python -m tests.erasing --kills $$(( ($(N) + 2) / 3 ))
	$(BIN)/python -m tests.adapters --kills $$(( ($(N) + 2) / 3 ))

soak: $(VENV)/.installed-dev ## Let threads and processes write and search at once, for minutes
	$(BIN)/python -m tests.processes --seconds $(SOAK_SECONDS)
	$(BIN)/python -m tests.searching --seconds $(SOAK_SECONDS)

year: $(VENV)/.installed-dev ## A simulated year, 1,000 events a day (EVENTS=1000), held to a ledger
	KORU_LONG=1 KORU_YEAR_EVENTS=$(EVENTS) $(BIN)/python -m pytest -q -s --timeout=0 \
		tests/lifecycle/test_year.py

test-long: $(VENV)/.installed-dev ## Random histories, ten minutes each; a year; frameworks' own suites
	KORU_LONG=1 KORU_LONG_SECONDS=$(LONG_SECONDS) $(BIN)/python -m pytest -q -s --timeout=0 \
		tests/test_state_machine.py tests/search/test_replay.py tests/test_erasing.py \
		tests/lifecycle/test_tiers.py tests/lifecycle/test_kills.py tests/lifecycle/test_year.py
	$(BIN)/python -m tests.adapters --kills 500 --turns 500
	$(BIN)/python -m tests.upstream.langchain_core
	$(BIN)/python -m tests.upstream.langgraph

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
	@$(PIP) install -q -e '.[dev,fast]' || { \
		echo 'Not all of the extra "fast" can be installed; going on without it'; \
		$(PIP) install -q -e '.[dev]'; }
	@touch $@ $(VENV)/.installed-demo

# The adapters' peers; without them `bench` measures the rest.
$(VENV)/.installed-peers: pyproject.toml | $(BIN)/python
	@$(PIP) install -q -e '.[bench-adapters]' || echo 'Left out: the peers of the adapters'
	@touch $@

# The peers. One that cannot be installed is left out, and the tables say that it is missing.
$(VENV)/.installed-bench: pyproject.toml | $(BIN)/python
	@echo 'Installing KoruDelta and its peers into $(VENV) ...'
	@$(PIP) install -q -e '.[bench]' || { $(PIP) install -q -e '.[langchain,local]' && \
		$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb")) \
			["project"]["optional-dependencies"]["bench"], sep="\n")' | \
		while read -r peer; do $(PIP) install -q "$$peer" || echo "Left out: $$peer"; done; }
	@touch $@ $(VENV)/.installed-demo

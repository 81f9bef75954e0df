# `make demo` and `make test` are all that a fresh machine with Python 3.11 or 3.12 needs.

PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3))
BIN := .venv/bin

.PHONY: install up demo test nightly chaos lint format bench migrate

install: .venv/installed

# The lock file pins every version; torch 2.13.0 has a CPU build and a CUDA build.
.venv/installed: pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "epochd needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile --constraint requirements.lock --editable '.[worker,dev]'
	@# pip itself would compile on one core. What does not compile is not for this Python.
	$(BIN)/python -m compileall -qq -j 0 -x '/(tests|testing)/' .venv/lib || true
	touch $@

up: install
	$(BIN)/epochd up

demo: install
	$(BIN)/epochd demo

# Two at a time: most tests wait for processes that start.
test: install
	$(BIN)/pytest --numprocesses 2 --dist worksteal

# What takes minutes: a trainer killed after each single update of a run, and every process at each named place.
nightly: install
	$(BIN)/pytest -m nightly

# Random faults on a whole deployment, ten minutes of them, and the account. SEED=7 plays a schedule again; SECONDS, JOBS.
chaos: install
	$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(JOBS),--jobs $(JOBS))

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/pip install --quiet --constraint requirements.lock --editable ".[bench]"
	$(BIN)/python -m benchmarks.first_batch

# Gateway Admin. `make help` lists the targets; everything runs from .venv.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# Compiled modules make every start several seconds shorter: a machine that switches them
# off in its environment is overruled here. An empty value means "not set" to Python.
export PYTHONDONTWRITEBYTECODE :=

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 2

.PHONY: help install run demo test check lint fmt docs lock bench ledger chaos soak

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  make %-8s %s\n", $$1, $$2}'

$(STAMP): requirements/dev.txt requirements/bootstrap.txt
	@command -v $(PYTHON) >/dev/null || { echo "Gateway Admin needs Python 3.11 to 3.13: there is no $(PYTHON). Install it, or name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "Gateway Admin needs Python 3.11 to 3.13; $(PYTHON) is %d.%d.%d. Name another one: make PYTHON=python3.12 ..." % sys.version_info[:3])'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot create environments: install the package python3-venv." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked requirements (a few minutes the first time)"
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip sync --quiet --require-hashes --compile-bytecode requirements/dev.txt
	@$(BIN)/python -m compileall -q gateway_admin proxy
	@touch $@

install: $(STAMP) ## create .venv and install everything, with hashes

run: $(STAMP) ## start the whole product; Ctrl-C stops it
	@exec $(BIN)/python manage.py up

demo: $(STAMP) ## the same with an example organisation and live traffic
	@exec $(BIN)/python manage.py up --demo

test: $(STAMP) ## all tests, browser included
	$(BIN)/pytest -n $(JOBS) --dist loadfile

check: $(STAMP) lint ## lint, types, templates, migrations, imports, documentation, lock files
	$(BIN)/mypy
	GATEWAY_DATA_DIR=$$(mktemp -d) $(BIN)/python -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run
	$(BIN)/pytest -q tests/test_architecture.py tests/test_docs.py tests/test_locks.py

lint: $(STAMP) ## ruff and djlint, without changing anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/djlint --lint --quiet templates
	$(BIN)/djlint --check templates

fmt: $(STAMP) ## bring code and templates into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/djlint --reformat --quiet templates

docs: $(STAMP) ## write the generated part of the documentation anew
	$(BIN)/python -m tests.api_reference

# dev first: it holds everything, the others are parts of it.
COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	--no-emit-index-url --custom-compile-command "make lock"
lock: $(STAMP) ## compile requirements/*.in to lock files with hashes
	$(COMPILE) requirements/dev.in -o requirements/dev.txt
	for part in base proxy prod bootstrap; do \
		$(COMPILE) requirements/$$part.in -c requirements/dev.txt -o requirements/$$part.txt || exit 1; \
	done

# BENCH="--quick" for some eight minutes of it, BENCH="--write" for docs/performance.md.
bench: $(STAMP) ## the gateway against LiteLLM and Portkey (half an hour; needs wrk)
	$(BIN)/python -m tests.bench.lanes $(BENCH)

ledger: $(STAMP) ## the ledger's figures of docs/performance.md on this machine
	$(BIN)/pytest tests/bench -q -s -o norecursedirs=

chaos: $(STAMP) ## what fails, fails under load here: limits, holds, outages (half an hour; needs libfaketime)
	$(BIN)/pytest tests/chaos -q -s -o norecursedirs= --ignore tests/chaos/test_soak.py

soak: $(STAMP) ## half an hour of mixed load: memory, files and reservations must not grow
	$(BIN)/pytest tests/chaos/test_soak.py -q -s -o norecursedirs=

# Two commands do everything on a fresh Debian 12 machine, as root: `make demo` and `make test`.

# Debian's own interpreter is built with PGO and LTO; one from elsewhere can cost a quarter more CPU.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
VENV := .venv
BIN := $(VENV)/bin
SHIM := v6fwd/docker/shim/v6fwd-docker-proxy
PIP := $(BIN)/pip --quiet --disable-pip-version-check install --constraint constraints.txt

.PHONY: help demo test lint format unit bench fuzz clean engine postfix hold packages-demo packages-test packages-bench

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: packages-demo $(VENV)/installed ## the main job: two log lines, without and with the client's address
	@$(BIN)/v6fwd demo

test: packages-test engine postfix lint .corpora/complete ## lint, strict types and every test; servers are installed first
	$(BIN)/python scripts/run-tests

lint: $(VENV)/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

.corpora/complete: tests/corpora/requirements.txt scripts/fetch-corpora | $(VENV)/installed-test
	@scripts/fetch-corpora $(BIN)/pip

unit: $(VENV)/installed-test ## the tests that need no root and no server
	$(BIN)/pytest tests/unit tests/process

format: $(VENV)/installed-test ## put the code into shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: packages-bench $(VENV)/installed-bench ## side by side with docker-proxy, HAProxy and nginx
	$(BIN)/python -m bench $(if $(QUICK),--quick)

fuzz: $(VENV)/installed-fuzz ## random bytes against the reader of HTTP, for SECONDS=60
	$(BIN)/python -m tests.fuzz.http -max_total_time=$(or $(SECONDS),60)

clean: ## remove what the other targets made
	rm -rf $(VENV) .corpora build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*

packages-demo packages-test packages-bench: packages-%:
	@scripts/install-packages $*

engine: ## the second Docker Engine that the tests run; without it they say what they left out
	@scripts/install-engine >/dev/null || true

postfix: packages-test
	@scripts/install-postfix >/dev/null || true

hold: packages-test ## what a shim becomes, built anew from hold.c for each machine
	@scripts/build-hold

$(BIN)/python: | packages-demo
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt $(SHIM) | $(BIN)/python
	$(PIP) --editable .
	@touch $@

$(VENV)/installed-test: pyproject.toml constraints.txt $(SHIM) | $(BIN)/python
	$(PIP) --editable '.[test,bench]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-bench: pyproject.toml constraints.txt $(SHIM) | $(BIN)/python
	$(PIP) --editable '.[bench]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-fuzz: pyproject.toml constraints.txt | $(VENV)/installed-test
	$(PIP) --editable '.[fuzz]'
	@touch $@

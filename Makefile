# Two commands do everything on a fresh Debian 12 machine, as root: `make demo` and `make test`.

# Debian's own interpreter is built with PGO and LTO; one from elsewhere can cost a quarter more CPU.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
VENV := .venv
BIN := $(VENV)/bin
SHIM := v6fwd/docker/shim/v6fwd-docker-proxy
SHELL_SCRIPTS := $(SHIM) .ci/run $(filter-out scripts/run-tests scripts/test-mesh scripts/mutate scripts/reference scripts/screenshots,$(wildcard scripts/*))
PIP := $(BIN)/pip --quiet --disable-pip-version-check install

# Exactly the files that were tested, then this checkout without asking for anything more.
define install
	$(PIP) --require-hashes --requirement requirements/$(1).txt
	$(PIP) --no-deps --no-build-isolation --editable .
endef

RINGS := unit process netns servers docker

.PHONY: help demo test check lint format $(RINGS) bench fuzz asan test-mesh mutate docs screenshots reference lock dist dist-arm deb release hold engine mail clean
.PHONY: packages-demo packages-test packages-bench packages-mesh

# A target's text has three parts: `## TIME | what it does`. Times: 2 cores, all installed before.
help: ## 0 s | this list
	@sed -n 's/^\([a-z-]*\):.*## \([^|]*\) | /\1\t\2\t/p' Makefile | expand -t 16,24

demo: packages-demo $(VENV)/installed ## 5 s | the main job: two log lines, without and with the client's address
	@$(BIN)/v6fwd demo

test: packages-test engine mail check .corpora/complete ## 13 min | `check` and every ring; installs the servers first
	$(BIN)/python scripts/run-tests

check: lint ## 20 s | what a commit must pass: ruff, format, strict types, shellcheck
	@if command -v shellcheck >/dev/null; \
	then shellcheck $(SHELL_SCRIPTS); \
	else echo 'left out: no shellcheck'; test -z "$$CI"; fi

lint: $(VENV)/installed-test ## 20 s | `check` without shellcheck: Python alone
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/installed-test ## 1 s | apply ruff's fixes and its format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

unit: .corpora/complete ## 1 min | tests in one process, without root; ARGS=... goes to pytest
process: packages-test $(VENV)/installed-test ## 4 min | tests of v6fwd as a process on loopback, without root
netns: packages-test $(VENV)/installed-test ## 3 min | tests in network namespaces of their own; root
servers: packages-test mail .corpora/complete ## 4 min | tests with real servers in network namespaces; root
docker: packages-test engine $(VENV)/installed-test ## 12 min | tests with real Docker Engines; root
$(RINGS):
	$(BIN)/pytest tests/$@ $(ARGS)

bench: packages-bench $(VENV)/installed-bench ## 65 min | beside docker-proxy, HAProxy, nginx; QUICK=1: 4 min
	@scripts/build-limit 2>/dev/null || true # where it cannot be built, the run says why
	$(BIN)/python -m bench $(if $(QUICK),--quick)

fuzz: $(VENV)/installed-fuzz ## 14 min | random bytes against each reader of foreign bytes, for SECONDS=60; TARGETS='toml shim'
	@set -e; for target in $(or $(TARGETS),$(notdir $(wildcard tests/fuzz/corpus/*))); do \
	  $(BIN)/python -m tests.fuzz $$target -max_total_time=$(or $(SECONDS),60); done

asan: packages-test $(VENV)/installed-test ## 5 min | tests of the native modules under AddressSanitizer and UBSan; ARGS=... goes to pytest
	@scripts/build-asan $(ARGS)

test-mesh: packages-mesh $(VENV)/installed-test ## 4 min | Swarm's own mesh (IPVS) in a user-mode Linux, without and with v6fwd; ARGS=... goes to pytest
	@scripts/test-mesh $(ARGS)

mutate: $(VENV)/installed-test ## 60 min | faults put into copies of the code that no test finds: SAMPLE=150 SEED=1 ONLY=
	nice $(BIN)/python scripts/mutate --sample $(or $(SAMPLE),150) --seed $(or $(SEED),1) --only '$(ONLY)'

docs: reference ## 5 s | the site of docs/ in build/docs, every link checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --config-file contrib/docs/mkdocs.yml

screenshots: packages-test $(VENV)/installed-test ## 5 min | docs/*.png and top.svg, of a real daemon under load; Chromium
	$(BIN)/python scripts/screenshots

reference: $(VENV)/installed-test ## 1 s | docs/reference.md from the code
	$(BIN)/python scripts/reference >docs/reference.new
	@mv docs/reference.new docs/reference.md

lock: $(BIN)/python ## 10 s | pin the newest versions again in requirements/, with hashes, by uv
	@scripts/lock $(BIN)

dist: $(VENV)/installed-dist ## 20 s | wheel and sdist in dist/, and an SBOM (CycloneDX) of what runs
	@rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/cyclonedx-py requirements requirements/run.txt --output-file dist/sbom.json

dist-arm: packages-test $(VENV)/installed-dist ## 2 min | the wheel for aarch64 in dist/, cross-built; its native modules' tests under qemu
	@scripts/build-arm $(BIN)

deb: packages-test $(VENV)/installed-dist ## 15 s | dist/v6fwd_*.deb, with its libraries under /opt/v6fwd
	@scripts/build-deb $(BIN)

release: packages-test $(VENV)/installed-dist ## 30 s | all of dist/, if version, changelog and tag agree
	@scripts/release $(BIN)

hold: packages-test ## 1 s | build the holder, which a shim becomes, from hold.c for each machine
	@scripts/build-hold

engine: ## 0 s | fetch the second Docker Engine for the tests; without it they are left out
	@scripts/install-engine >/dev/null || true

mail: packages-test ## 0 s | unpack Postfix and OpenSMTPD for the tests; without them they are left out
	@scripts/install-mail >/dev/null || true

packages-demo: ## 0 s | install the Debian packages that `demo` needs
packages-test: ## 0 s | install the Debian packages that the tests need
packages-bench: ## 0 s | install the Debian packages that `bench` needs
packages-mesh: ## 0 s | install the Debian packages that `test-mesh` needs
packages-demo packages-test packages-bench packages-mesh: packages-%:
	@scripts/install-packages $*

clean: ## 1 s | remove what the other targets made
	rm -rf $(VENV) .corpora build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*

.corpora/complete: tests/corpora/requirements.txt scripts/fetch-corpora | $(VENV)/installed-test
	@scripts/fetch-corpora $(BIN)/pip

$(BIN)/python: | packages-demo
	$(PYTHON) -m venv $(VENV)

NATIVE := setup.py $(shell find v6fwd -name '_*.[ch]')

$(VENV)/installed: pyproject.toml requirements/run.txt $(SHIM) $(NATIVE) | $(BIN)/python
	$(call install,run)
	@touch $@

$(VENV)/installed-test: pyproject.toml requirements/test.txt $(SHIM) $(NATIVE) | $(BIN)/python
	$(call install,test)
	@touch $@ $(VENV)/installed

$(VENV)/installed-bench: pyproject.toml requirements/bench.txt $(SHIM) | $(BIN)/python
	$(call install,bench)
	@touch $@ $(VENV)/installed

$(VENV)/installed-fuzz: pyproject.toml requirements/fuzz.txt | $(VENV)/installed-test
	$(call install,fuzz)
	@touch $@

$(VENV)/installed-dist: pyproject.toml requirements/dist.txt $(SHIM) | $(VENV)/installed
	$(PIP) --require-hashes --requirement requirements/dist.txt
	@touch $@

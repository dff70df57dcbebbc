# Two commands are enough: `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test check bench bench-peers test-long test-kserve fuzz clean
.DEFAULT_GOAL := help

help: ## Lists the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Modelyard needs Python 3.11 or newer; name it with `make PYTHON=python3.12 …`.'; exit 1; }
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && apt-get install -y -qq python3-venv && $(PYTHON) -m venv --clear $(VENV); \
	  else echo 'The venv module is missing: install it first (Debian, Ubuntu: apt-get install python3-venv).'; exit 1; fi; }

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Installing Modelyard into $(VENV) …'
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Installing Modelyard and what its tests need into $(VENV) …'
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo ## Two models, one server, every claim checked on real data (under a minute)
	@$(BIN)/modelyard demo

# Each is the name of a command, and of its package where that is another one.
SYSTEM_PACKAGES := wrk strace curl faketime nodejs nginx:nginx-light initdb:postgresql mariadbd:mariadb-server redis-server:redis-server
system:
	@missing=""; for p in $(SYSTEM_PACKAGES); do PATH="$$PATH:/usr/sbin:$$(echo /usr/lib/postgresql/*/bin | tr ' ' :)" command -v $${p%%:*} >/dev/null || missing="$$missing $${p##*:}"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	  else echo "Some tests are skipped without:$$missing (apt-get install$$missing)"; fi; fi

check: $(VENV)/.test ## Format, lint, types, layers, size budgets
	@$(BIN)/ruff check src tests bench
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python tests/budgets.py

# Where there is no Terraform, the infrastructure's tests say so and are skipped (they fail under CI=true).
TERRAFORM := $(shell command -v $${TERRAFORM_CLI:-terraform} 2>/dev/null)
# What measures nothing runs in two processes; servers that are killed, timed and counted have the machine to themselves.
APART := tests/unit tests/contract tests/docs
test: $(VENV)/.test system $(if $(TERRAFORM),infra-checkov) check ## Everything that a commit must pass; infra/ too, where Terraform is installed
	@$(BIN)/pytest -n 2 --dist loadfile $(APART)
	@$(BIN)/pytest $(addprefix --ignore=,$(APART)) tests

test-long: $(VENV)/.test system ## The long, seeded forms (about an hour); their figures go into docs/promises.md
	@MODELYARD_KEEP_FIGURES=1 $(BIN)/pytest -m long -s --durations=15
	@$(BIN)/python docs/promises.py

test-kserve: $(VENV)/.test ## KServe's own Python client, untouched, in an environment of its own (450 MB), against a real server
	@test -d .venv-kserve || $(PYTHON) -m venv .venv-kserve
	@.venv-kserve/bin/python -m pip install -q --disable-pip-version-check 'kserve==0.21.*'
	@$(BIN)/pytest -m kserve

FUZZ_SECONDS ?= 60
fuzz: $(VENV)/.test ## Coverage-guided fuzzing of every parser, FUZZ_SECONDS each; what it finds stays in tests/fuzz/corpus
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	@failed=""; for t in oip rows scoring manifest archive spool keys settings log_query; do \
	  $(BIN)/python -m tests.fuzz $$t --seconds $(FUZZ_SECONDS) 2>/dev/null || failed="$$failed $$t"; done; \
	if [ -n "$$failed" ]; then echo "Found something:$$failed"; exit 1; fi

bench-peers: ## Installs MLServer and BentoML, each in its own environment, for `make bench`
	@test -d .venv-mlserver || $(PYTHON) -m venv .venv-mlserver
	@.venv-mlserver/bin/python -m pip install -q 'mlserver==1.7.*' onnxruntime
	@test -d .venv-bentoml || $(PYTHON) -m venv .venv-bentoml
	@.venv-bentoml/bin/python -m pip install -q 'bentoml==1.4.*' onnxruntime

bench: $(VENV)/.test system ## Side by side with a FastAPI handler, uvicorn's hello and, after bench-peers, the peers
	@$(BIN)/python -m bench

clean: ## Removes what the commands above installed
	rm -rf $(VENV) .venv-checkov build dist

-include infra/Makefile

# The two commands a newcomer needs are `make run` and `make test`; `make help` lists the rest.
PYTHON  ?= python3
PROFILE ?= local
VENV    := .venv
BIN     := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run test lint protos constraints clean

help: ## Show this list.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# pip reads constraints.txt so that every machine runs what CI ran; `--quiet` keeps only warnings and errors.
$(VENV)/.installed-run: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "zenray needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing zenray into $(VENV) (a few minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[batch,bench]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-run
	@echo "Installing the development tools into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

run: $(VENV)/.installed-run ## Pull the model, start Ray and the platform, say when it is ready. PROFILE=local|pair|moe|flash-8b|tiny|gpu
	@exec $(BIN)/zenray serve --profile $(PROFILE)

test: $(VENV)/.installed-dev lint ## Lint, type-check and run all tests (what CI runs).
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev ## ruff, mypy and the import rules.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

protos: $(VENV)/.installed-dev ## Regenerate zenray/v1 from protos/.
	$(BIN)/python scripts/generate_protos.py

constraints: $(VENV)/.installed-dev ## Pin constraints.txt to what is installed now.
	$(BIN)/python -m pip --disable-pip-version-check freeze --exclude-editable | grep -v '^zenray' | sed 's/^torch==\([0-9.]*\).*/torch==\1/' > constraints.txt

clean: ## Remove the environment and caches.
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

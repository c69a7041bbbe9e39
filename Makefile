# make study: set everything up and run the embedded study to its report.  make test: set everything up and run the tests.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "torch>=2.13,<2.14"
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

.PHONY: setup study test check
setup: $(VENV)/.ready

study: $(VENV)/.ready
	$(BIN)/python -m limit_lab +experiment=micro_limit

test: $(VENV)/.ready
	$(BIN)/python -m pytest -n 2

check: $(VENV)/.ready
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy

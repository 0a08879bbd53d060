# `make study` and `make test` do all the set-up there is: a virtual environment in .venv with pinned packages.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
STUDY ?= studies/laptop

.PHONY: study test test-tasks check bench clean

study: $(READY)
	$(BIN)/noiselaw study run recipes/laptop.yaml --out $(STUDY)

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

# With the packages of the extra evaluate, which nothing else needs.
test-tasks: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,evaluate]'
	$(BIN)/python -m pytest tests/evaluation/test_harness.py tests/test_readme.py

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright

bench: $(READY)
	$(BIN)/python benchmarks/run_all.py

$(READY): pyproject.toml constraints.txt scripts/setup.sh
	bash scripts/setup.sh $(PYTHON) $(VENV)
	touch $(READY)

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache

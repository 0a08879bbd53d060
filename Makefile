# `make study` and `make test` do all the set-up there is: a virtual environment in .venv with pinned packages.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
STUDY ?= studies/laptop

.PHONY: study test test-extras torture audit check bench clean

study: $(READY)
	$(BIN)/noiselaw study run recipes/laptop.yaml --out $(STUDY)

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

# What needs packages that nothing else does: lm-evaluation-harness, and Triton, whose interpreter stands in for a GPU.
test-extras: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,evaluate]'
	$(BIN)/python -c 'import triton' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check triton==3.6.0
	$(BIN)/python -m pytest tests/evaluation/test_harness.py tests/test_readme.py tests/head/test_head_triton.py

# 100 kills at random moments, and every reader of outside data fed with 2,000 files nobody meant to write.
torture: $(READY)
	$(BIN)/python tests/system/torture.py
	NOISELAW_FUZZ_EXAMPLES=2000 $(BIN)/python -m pytest -n 2 tests/system

# Known weaknesses of the pinned packages, from PyPI's list of them: needs the network.
audit: $(READY)
	$(BIN)/python -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.9'
	$(VENV)/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

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

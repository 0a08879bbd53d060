# `make study` and `make test` do all the set-up there is: a virtual environment in .venv with pinned packages.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
STUDY ?= studies/laptop
EXECUTOR ?= local
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: study test test-cluster test-extras torture audit check docs bench clean

# EXECUTOR=ray or slurm: the same study on a cluster, with the same numbers.
study: $(READY)
	$(if $(filter-out local,$(EXECUTOR)),$(PIP) --editable '.[$(EXECUTOR)]')
	$(BIN)/noiselaw study run recipes/laptop.yaml --out $(STUDY) --executor $(EXECUTOR)

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

# What needs packages that nothing else does: lm-evaluation-harness, and Triton, whose interpreter stands in for a GPU.
test-extras: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,evaluate]'
	$(BIN)/python -c 'import triton' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check triton==3.6.0
	$(BIN)/python -m pytest tests/evaluation/test_harness.py tests/head/test_head_triton.py 'tests/docs/test_pages.py::test_page[README.md]' 'tests/docs/test_pages.py::test_page[docs/howto/harness.md]'

# Studies on a real Ray cluster and a real Slurm cluster, both started on this machine; nothing is skipped.
test-cluster: $(READY)
	$(PIP) --editable '.[dev,ray,slurm]'
	bash scripts/install_slurm.sh
	NOISELAW_CLUSTER=1 scripts/slurm_on_one_machine.sh $(BIN)/python -m pytest -n 0 tests/study/test_study_cluster.py tests/data/test_prepare_parallel.py

# 100 kills at random moments, and every reader of outside data fed with 2,000 files nobody meant to write.
torture: $(READY)
	$(BIN)/python tests/system/torture.py
	NOISELAW_FUZZ_EXAMPLES=2000 $(BIN)/python -m pytest -n 2 tests/system

# Known weaknesses of the pinned packages, from PyPI's list of them: needs the network.
audit: $(READY)
	$(BIN)/python -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.9'
	$(VENV)/audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright
	$(MAKE) docs

# The site, in build/site: no page needs the network. Warnings are errors.
docs: $(READY)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs build/site

bench: $(READY)
	$(BIN)/python benchmarks/run_all.py

$(READY): pyproject.toml constraints.txt scripts/setup.sh
	bash scripts/setup.sh $(PYTHON) $(VENV)
	touch $(READY)

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache

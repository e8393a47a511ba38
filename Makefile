# The project's commands; `make help` lists them. Everything runs in .venv, which the first one makes.
PYTHON ?= python3
SCALE ?= mini
RUN := .venv/bin/python

.PHONY: help setup reproduce-glue reproduce-e2e sweep status tables figures report benchmark test test-slurm lint clean
.DEFAULT_GOAL := help

help:  ## list these targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 18

setup: .venv/ready  ## make the virtual environment from the pinned requirements

.venv/ready: requirements.txt requirements-dev.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

reproduce-glue: setup  ## the GLUE table; SCALE=mini (default, no network) or SCALE=paper (roberta-base, the hub's GLUE)
	$(if $(filter mini,$(SCALE)),$(RUN) scripts/train.py -m experiment=glue_mini_tune)
	$(RUN) scripts/train.py -m experiment=glue_$(SCALE)
	$(RUN) scripts/make_tables.py --experiment glue_$(SCALE)

reproduce-e2e: setup  ## the E2E table; SCALE=mini (default, no network) or SCALE=paper (three sizes of GPT-2, the hub's E2E set)
	$(if $(filter mini,$(SCALE)),$(RUN) scripts/train.py -m experiment=e2e_mini_tune)
	$(RUN) scripts/train.py -m experiment=e2e_$(SCALE)
	$(RUN) scripts/make_tables.py --experiment e2e_$(SCALE)

sweep: setup  ## rank x factorization frequency, beside LoRA; then its tables and figures; ARGS="model=minilm ..." for another scale
	$(RUN) scripts/train.py -m experiment=rank_frequency $(ARGS)
	$(RUN) scripts/train.py -m experiment=rank_frequency_lora $(ARGS)
	$(RUN) scripts/make_tables.py --experiment rank_frequency
	$(RUN) scripts/make_figures.py --experiment rank_frequency

status: setup  ## what is done, failed, running and stopped; ARGS="--experiment NAME" for what is missing too
	$(RUN) scripts/status.py $(ARGS)

tables: setup  ## every table, from the records alone
	$(RUN) scripts/make_tables.py

figures: setup  ## every figure, from the records alone
	$(RUN) scripts/make_figures.py

report: setup  ## results/report.html: every table, figure and run in one page, from the records alone
	$(RUN) scripts/make_report.py

benchmark: setup  ## step time, padding, memory, factorization side by side; ARGS="--data-dir DIR" for real text
	$(RUN) scripts/benchmark.py $(ARGS)

test: setup  ## all tests that this machine can run
	$(RUN) -m pytest -n 2 --dist loadfile

test-slurm: setup  ## a sweep on a real SLURM of one node; needs root, and Debian's packages
	scripts/slurm_cluster.sh run $(RUN) -m pytest -m slurm tests/sweep/test_slurm.py

lint: setup  ## ruff check, ruff format, mypy
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

clean:  ## remove the environment, caches and runs; committed records and tables stay
	rm -rf .venv .cache results/runs results/sweeps *.egg-info .pytest_cache .mypy_cache .ruff_cache

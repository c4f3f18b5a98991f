# PYTHON=/path/to/python3.11 chooses the interpreter that makes .venv.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: help setup demo test recovery check bench faults lock clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

setup: ## make .venv from the lock (a second time: nothing to do, no network)
	@PYTHON="$(PYTHON)" sh scripts/setup.sh

demo: setup ## make data, train six small runs, plan with each, compare: the main job
	@$(BIN)/wm demo

test: setup ## all tests but those that need a GPU, the network or a SIGKILL drill (quick ones only: .venv/bin/pytest)
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not gpu and not network and not recovery" --durations=10

recovery: setup ## kill workers and drivers with SIGKILL and compare the resumed runs bit for bit (about ten minutes)
	@$(BIN)/python -m pytest -m recovery tests/integration/test_recovery.py tests/integration/test_plan_recovery.py tests/integration/test_pretrain.py

check: setup ## lint, format, types, dependency direction
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports

bench: setup ## speed of the parts, on this machine
	@$(BIN)/python -m tests.benchmarks

faults: setup ## put each known fault back in a copy, and see a test fail
	@$(BIN)/python -m tests.faults

lock: ## write requirements.lock from what .venv holds
	@sh scripts/lock.sh

clean: ## remove .venv and caches (not wm_home: it holds runs)
	rm -rf .venv build wm.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache

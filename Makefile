# What to do with a checkout. Everything but `help`, `lock` and `clean` sets the
# environment up first, which is instant where it is up to date.
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format docs lock bench records soak clean

SHELL := /bin/bash
VENV := .venv/bin
UV := .tools/uv
# More arguments: make test ARGS="tests/models -x", make lock ARGS="--upgrade".
ARGS ?=
# Processes that run the tests; each takes some 2 GB of memory.
JOBS ?= 2

help: ## shows this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## creates or updates .venv from requirements.lock
	@bash scripts/setup.sh

demo: setup ## trains, gates and serves a small model on Python's documentation
	@$(VENV)/langzoo demo $(ARGS)

test: setup ## runs the tests
	$(VENV)/python -m pytest -n $(JOBS) $(ARGS)

lint: setup ## checks style and types
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	bash scripts/typecheck.sh

format: setup ## formats the code
	$(VENV)/ruff check --fix .
	$(VENV)/ruff format .

docs: setup ## writes the pages of docs/ that are made from code
	$(VENV)/python scripts/docs.py

COMPILE = $(UV) pip compile -q setup.cfg --extra kubeflow --python-version 3.11 --generate-hashes \
	--python-platform x86_64-manylinux_2_39 --custom-compile-command "make lock" $(ARGS)
IMAGE = $(COMPILE) --extra tensorboard --no-annotate --constraints requirements.lock

# Extras whose packages tests need.
TESTED = dev datasets tensorboard wandb

lock: setup ## writes requirements.lock, and the images' locks, from setup.cfg
	$(COMPILE) $(TESTED:%=--extra %) --output-file requirements.lock
	$(IMAGE) --output-file docker/cpu.lock
	$(IMAGE) --extra gpu --output-file docker/gpu.lock

bench: setup ## measures speed against other implementations
	@bash scripts/bench.sh $(ARGS)

records: setup ## trains what docs/records.md tells of
	@bash scripts/bench.sh records $(ARGS)

soak: setup ## runs the model server's long tests at full length
	LANGZOO_SOAK=10 $(VENV)/python -m pytest --timeout 3600 tests/serving/server/test_server_soak.py \
		tests/serving/server/test_server_limits.py $(ARGS)

clean: ## removes what was built and the caches; keeps .venv and runs
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . \( -name .venv -o -name .tools -o -name .git \) -prune -o -name __pycache__ -type d -exec rm -rf {} +

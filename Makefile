# make run | test | lint | ui: each sets up .venv from the locked requirements first.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup run test lint format accuracy lock ui

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=
PORT ?= 5000
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

setup: $(VENV)/run.stamp ## .venv with what `make run` needs

$(VENV)/run.stamp: requirements/run.txt pyproject.toml requirements/setup.sh
	@PYTHON="$(PYTHON)" requirements/setup.sh run

$(VENV)/dev.stamp: requirements/dev.txt pyproject.toml requirements/setup.sh
	@PYTHON="$(PYTHON)" requirements/setup.sh dev

run: setup ## the whole pipeline on the dataset and models of params.yaml
	@exec 9> $(VENV)/run.lock; flock --nonblock 9 \
		|| { echo "error: another 'make run' is at work in this folder; wait for it, or use a second clone" >&2; exit 1; }; \
	dvc repro && pipeline report

test: $(VENV)/dev.stamp ## the test suite
	@pytest

lint: $(VENV)/dev.stamp ## ruff, mypy, import-linter
	@ruff check . && ruff format --check . && mypy && lint-imports

format: $(VENV)/dev.stamp ## let ruff rewrite the code
	@ruff check --fix . && ruff format .

ui: setup ## the MLflow UI on the same store, on http://127.0.0.1:5000 (PORT=…)
	@pipeline ui --port $(PORT)

accuracy: setup ## test accuracy of all recipes over three seeds: an hour or two
	@python -m benchmarks.accuracy

lock: $(VENV)/dev.stamp ## resolve the requirements anew
	@uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --quiet --upgrade -o requirements/run.txt
	@uv pip compile pyproject.toml --group dev --constraints requirements/run.txt --universal --python-version 3.11 --generate-hashes --no-header --quiet --upgrade -o requirements/dev.txt

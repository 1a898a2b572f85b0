# make run | test | lint | ui | stack: each sets up .venv from the locked requirements first.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help repository setup run test test-long lint format accuracy lock ui deploy stack stack-down stack-env test-stack bench overhead

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=
PORT ?= 5000
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

# Before anything is installed: an archive that was downloaded is no repository.
repository:
	@reason=$$(git cat-file -e HEAD:./dvc.yaml 2>&1) || { \
		reason=$${reason//$$'\n'/ }; echo "error: $${reason#fatal: }; DVC needs a git repository with a commit, and so does the record of what made a model. In an archive that was downloaded: git init && git add --all && git commit --message 'as downloaded'" >&2; exit 1; }

setup: $(VENV)/run.stamp ## .venv with what `make run` needs

$(VENV)/run.stamp: requirements/run.txt pyproject.toml requirements/setup.sh
	@PYTHON="$(PYTHON)" requirements/setup.sh run

$(VENV)/dev.stamp: requirements/dev.txt pyproject.toml requirements/setup.sh
	@PYTHON="$(PYTHON)" requirements/setup.sh dev

run: repository setup ## the whole pipeline on the dataset and models of params.yaml
	@exec 9> $(VENV)/run.lock; flock --nonblock 9 \
		|| { echo "error: another 'make run' is at work in this folder; wait for it, or use a second clone" >&2; exit 1; }; \
	python -m flows.execution.torn_lock && dvc repro && pipeline report

test: repository $(VENV)/dev.stamp ## the test suite, file by file on up to four cores
	@pytest --numprocesses logical --maxprocesses 4 --dist loadfile

test-long: repository $(VENV)/dev.stamp ## the README's longer commands, and a model rebuilt: some minutes
	@pytest -m long

test-stack: repository $(VENV)/dev.stamp ## runs over real servers and workers, kills and a browser: half an hour
	@requirements/browser.sh
	@pytest -m stack tests/stack

lint: $(VENV)/dev.stamp ## ruff, mypy, import-linter
	@ruff check . && ruff format --check . && mypy && lint-imports

format: $(VENV)/dev.stamp ## let ruff rewrite the code
	@ruff check --fix . && ruff format .

stack: repository setup ## PostgreSQL, MLflow, Prefect and workers on this machine; docs/team.md
	@python docker/stack.py up

stack-down: setup ## end them; what they hold stays in .stack/
	@python docker/stack.py down

stack-env: setup ## addresses and passwords for a shell: eval "$$(make --silent stack-env)"
	@python docker/stack.py env

deploy: setup ## set up the Prefect server at PREFECT_API_URL: pools, deployments, automations
	@python -m flows.deploy

ui: setup ## the MLflow UI on the same store, on http://127.0.0.1:5000 (PORT=…)
	@pipeline ui --port $(PORT)

accuracy: setup ## test accuracy of all recipes over three seeds: an hour or two
	@python -m benchmarks.accuracy

bench: setup ## speed against plain Keras scripts, into docs/benchmarks.md: some hours
	@python -m benchmarks.speed
	@python -m benchmarks.whole --runs 3
	@python -m benchmarks.prediction
	@python -m benchmarks.growth
	@python -m benchmarks.checkpoints
	@python -m benchmarks.document

overhead: setup ## seconds that the flow adds to the stages; with `make stack` up: ten minutes
	@eval "$$(python docker/stack.py env)" && python -m benchmarks.overhead

# Extras are kept: older versions of pip take the newest `name[extra]` where only `name` is pinned.
lock: $(VENV)/dev.stamp ## resolve the requirements anew
	@uv pip compile pyproject.toml --no-strip-extras --universal --python-version 3.11 --generate-hashes --no-header --quiet --upgrade -o requirements/run.txt
	@echo 'tensorflow[and-cuda]' | uv pip compile pyproject.toml - --constraints requirements/run.txt --no-strip-extras --universal --python-version 3.11 --generate-hashes --no-header --quiet --upgrade -o requirements/gpu.txt
	@uv pip compile pyproject.toml --group dev --constraints requirements/run.txt --no-strip-extras --universal --python-version 3.11 --generate-hashes --no-header --quiet --upgrade -o requirements/dev.txt

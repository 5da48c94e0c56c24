# `make demo` and `make test` do everything, set-up included, on a bare Debian machine with Python 3.11.
.DEFAULT_GOAL := help
.PHONY: help setup setup-test demo test test-all check format bench viewer lock clean venv-bpy5

PY := .venv/bin/python
BENCHMARKS := $(filter-out benchmarks/__init__.py benchmarks/measured.py,$(wildcard benchmarks/*.py))
# Blender and OpenMP spin their threads against each other on small machines: one each is faster there.
export OMP_NUM_THREADS ?= 1
export PYTHONUNBUFFERED := 1

help: ## Show this list.
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

setup: ## Virtual environment in .venv, and the system libraries that Blender needs.
	@bash .ci/setup.sh

setup-test: ## What the tests need beside: Chromium, SLURM, a glTF validator.
	@bash .ci/setup.sh --for-tests

venv-bpy5: setup ## Blender 5.0 in .venv-bpy5, for the tests that compare it with 4.5.
	@test -x .venv-bpy5/bin/python || $(PY) -m venv --without-pip .venv-bpy5
	@.venv/bin/uv pip install -q --python .venv-bpy5/bin/python --require-hashes -r requirements-bpy5.lock

demo: setup ## Run the whole data pipeline on the built-in samples.
	@$(PY) -m pipeline demo

test: setup-test ## All tests but those that take many minutes.
	@$(PY) -m pytest -m "not slow"

test-all: setup-test venv-bpy5 ## Those too: 50 kills over real assets, 1,000 broken files, two Blenders.
	@$(PY) -m pytest

check: setup ## What to run before a commit: ruff, mypy, fast tests.
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy && \
	$(PY) -m pytest -q -m "not blender and not browser and not ray and not slow"

format: setup ## Let ruff put the code in order.
	@$(PY) -m ruff check --fix . && $(PY) -m ruff format .

bench: setup ## All benchmarks; each ends with one JSON line.
	@for file in $(BENCHMARKS); do echo "== $$file"; $(PY) -m benchmarks.$$(basename $$file .py) || exit 1; done

viewer: ## Bundle the viewer page's program anew from its sources; needs npm.
	@cd fourd/viewer/page && npm ci --silent && npm run --silent build

lock: setup ## Choose versions anew and write requirements.lock.
	@.venv/bin/uv pip compile -q --upgrade --python 3.11 pyproject.toml --extra data --extra render --extra cluster \
	--extra s3 --extra train --extra dev --excludes .ci/not-locked.txt --generate-hashes --no-emit-index-url --no-header \
	-o requirements.lock
	@printf 'bpy==5.0.1\nwasmtime>=50\n' | .venv/bin/uv pip compile -q --upgrade --python 3.11 - --generate-hashes --no-emit-index-url \
	--no-header --no-annotate -o requirements-bpy5.lock

clean: ## Remove what the demo and the tools left behind (not the environment).
	@rm -rf demo-data .mypy_cache .ruff_cache .pytest_cache .hypothesis benchmarks/out

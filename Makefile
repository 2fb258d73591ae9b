# `make demo` and `make test` do all of their own set-up; tools/bootstrap says how. PYTHON=python3.10 chooses the
# interpreter, PYTEST_ARGS="-k web -x" narrows the tests, DEMO_SECONDS=60 ends the demonstration by itself.

DEMO_SECONDS ?=
PYTEST_ARGS ?=
CONTAINER ?= docker
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' exporter/pgleak/__init__.py)

.DEFAULT_GOAL := help
.PHONY: help demo test lint types pytest bench image clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' Makefile | while IFS='	' read -r name text; do printf '  make %-8s%s\n' "$$name" "$$text"; done

demo: ## watch a leak grow: embedded PostgreSQL, a leaking application, the exporter (DEMO_SECONDS=N ends it)
	@tools/bootstrap demo pgleak demo $(if $(DEMO_SECONDS),--seconds $(DEMO_SECONDS))

test: lint types pytest ## all checks: ruff, mypy, pytest

lint: ## ruff: rules and format
	tools/bootstrap test ruff check --extend-exclude '.venv-*' .
	tools/bootstrap test ruff format --extend-exclude '.venv-*' --check .

types: ## mypy, strict
	tools/bootstrap test mypy

pytest: ## the tests alone, two files at a time (PYTEST_ARGS="-k web -x")
	tools/bootstrap test pytest --numprocesses 2 --dist loadfile $(PYTEST_ARGS)

bench: ## one scrape at 10, 500 and 2,000 backends, beside the bare SQL and a peer
	tools/bootstrap test python benchmarks/scrape.py

image: ## the container image, with CONTAINER=docker, podman or buildah
	$(CONTAINER) build --build-arg VERSION=$(VERSION) --tag pgleak:$(VERSION) .

clean: ## remove the virtual environments, caches and build results
	rm -rf .venv .venv-3.* .tools build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find exporter tests benchmarks tools -name __pycache__ -type d -prune -exec rm -rf {} +

# The words people expect. Everything runs in .venv, which `make setup` makes and keeps up to date.
.DEFAULT_GOAL := help
PYTEST_ARGS ?=
WORKERS ?= 3

.PHONY: help demo setup setup-dev check test bench faults soak wheels clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: ## make .venv with moat and its providers
	@scripts/setup.sh

setup-dev:
	@scripts/setup.sh dev

demo: setup ## set up, then a sealed run with an injected credential, told as a story
	@.venv/bin/moat demo

check: setup-dev ## lint, types, layers
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

test: setup-dev check ## set up, check, then run all tests (WORKERS=0: one after the other)
	.venv/bin/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder $(PYTEST_ARGS)

bench: setup ## measure the proxy against nginx, haproxy, squid and mitmproxy (QUICK=1: under a minute)
	@.venv/bin/python -m bench $(if $(QUICK),--quick)

faults: setup-dev ## kill, fill, remove and lock what moat stands on, twenty times each
	MOAT_FAULTS=20 .venv/bin/python -m pytest tests/faults $(PYTEST_ARGS)

soak: setup-dev ## a thousand runs, a hundred behind real doors, busy until there were a million requests (as root)
	MOAT_SOAK=long .venv/bin/python -m pytest -s tests/faults/test_soak.py $(PYTEST_ARGS)

wheels: setup-dev ## build every distribution into dist/
	@for project in moat-*/; do .venv/bin/python -m build --no-isolation --wheel --outdir dist "$$project" || exit 1; done

clean: ## remove what was built here
	rm -rf .venv .build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

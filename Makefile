# Two commands do all the set-up on a machine with python3 (3.11 or newer), git and make: `make demo` and `make test`.
.PHONY: demo test soak check format clean axe
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
# Many tests wait for a socket or a process: two cores carry four at once.
PYTEST := $(BIN)/pytest --dist worksteal

# pytest keeps what it makes of each assert, also where Python is told to keep nothing: each process of a run would need
# four seconds for that.
test soak: export PYTHONDONTWRITEBYTECODE :=

demo: $(VENV)/.ready-demo
	$(BIN)/springest demo

# All that proves the promises quickly. What needs Rails, nginx, haproxy, PostgreSQL, faketime, chromium or axe-core is
# skipped where that is not installed: the last lines say which tests and why.
test: $(VENV)/.ready-dev
	$(PYTEST) -n 4 -m "not soak"

# What takes real minutes, hundreds of kills and thousands of uploads; then every supported Python, aiohttp and loop.
soak: $(VENV)/.ready-dev
	$(PYTEST) -n 8 -m soak
	.ci/matrix

# Format, lint, types and the floors of the design: no tests.
check: $(VENV)/.ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.ready-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What checks that a page can be used with a screen reader; needs npm.
axe: $(VENV)/axe/node_modules/axe-core

$(VENV)/axe/node_modules/axe-core:
	npm install --prefix $(VENV)/axe --no-save --no-audit --no-fund axe-core@4

$(VENV)/bin/python:
	python3 -m venv $(VENV)

$(VENV)/.ready-%: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) .venv-3.* dist demo-certificates .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.*

# Two commands do all the set-up on a machine with python3 (3.11 or newer), git and make: `make demo` and `make test`.
.PHONY: demo test check format clean
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
# Most tests wait for a socket, a process or a scaled minute: two cores carry four at once.
AT_ONCE := -n 4

demo: $(VENV)/.ready-demo
	$(BIN)/springest demo

# Everything: also what waits for the real limit, and what needs Rails or nginx where they are installed.
test: $(VENV)/.ready-dev
	$(BIN)/pytest $(AT_ONCE) --cov --cov-report=term

# What to run while working: no test here waits for a real minute.
check: $(VENV)/.ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest $(AT_ONCE) -m "not soak"

format: $(VENV)/.ready-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/bin/python:
	python3 -m venv $(VENV)

$(VENV)/.ready-%: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) dist demo-certificates .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage

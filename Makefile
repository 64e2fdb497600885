# Two commands on a fresh machine: `make demo` and `make test`. They need python3 (3.11 or newer, with venv) and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-system lint bench lock clean

demo: $(VENV)/.installed
	$(BIN)/sweeper demo $(if $(KEEP),--keep '$(subst ','\'',$(KEEP))')

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 -m "not system"

test-system: $(VENV)/.installed
	$(BIN)/python -m pytest -m system

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks.sweep
	$(BIN)/python -m benchmarks.manifest
	$(BIN)/python -m benchmarks.filter
	$(BIN)/python -m benchmarks.backfill
	$(BIN)/python -m benchmarks.soak

# The lock names exact versions; a range that has moved on in pyproject.toml needs `make lock`.
$(VENV)/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

lock:
	uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-header --no-annotate \
	    --extra test pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) build dist

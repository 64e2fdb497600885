# Two commands on a fresh machine: `make demo` and `make test`. They need python3 (3.11 or newer, with venv) and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-system test-apps lint docs bench lock clean

demo: $(VENV)/.installed
	$(BIN)/sweeper demo $(if $(KEEP),--keep '$(subst ','\'',$(KEEP))')

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not system and not apps"

test-system: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist worksteal -m system

# The applications' own packages are installed into build/apps, and PostgreSQL 15 is Debian's (apt install postgresql-15).
test-apps: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile -m apps

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/mkdocs build --quiet --strict

docs: $(VENV)/.installed
	$(BIN)/mkdocs serve

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks.sweep
	$(BIN)/python -m benchmarks.manifest
	$(BIN)/python -m benchmarks.report
	$(BIN)/python -m benchmarks.filter
	$(BIN)/python -m benchmarks.backfill
	$(BIN)/python -m benchmarks.objects
	$(BIN)/python -m benchmarks.soak

# The locks name exact versions and the hashes of their files; a range that has moved on in pyproject.toml needs `make lock`.
# What builds the project is locked too, so that no step takes from the index what no hash vouches for.
$(VENV)/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

# The image's locks are parts of the first one: what the program needs, the same with manifests, and what builds it.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-header --no-annotate --generate-hashes
lock:
	$(COMPILE) --extra test pyproject.toml -o requirements.lock
	$(COMPILE) -c requirements.lock pyproject.toml -o deploy/docker/plain.lock
	$(COMPILE) -c requirements.lock --extra manifest --extra text pyproject.toml -o deploy/docker/manifest.lock
	echo hatchling | $(COMPILE) -c requirements.lock - -o deploy/docker/build.lock

clean:
	rm -rf $(VENV) build dist

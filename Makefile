# make demo         the showcase at http://127.0.0.1:8000 (PORT= changes the port;
#                   HOST=0.0.0.0 lets phones in; WORKERS=4 lets the page kill workers)
# make quick        the tests that need no browser and no other server, in a minute
# make test         all tests
# make soak         the long tests in full size: half an hour, with figures
#                   (PYTEST_ARGS="-k million" runs some of them); then make soak-service
# make soak-service a whole service for half an hour (SOAK_MINUTES=10: for less), while
#                   workers are killed and networks fail; the page build/soak/index.html
# make fuzz         bytes that break what reads them: a minute for each reader (FUZZ_ARGS=
#                   "request --seconds 600" looks at one for longer)
# make dist         the archives of a release, in dist/
# make coverage     which lines and branches the tests reach, subprocesses included
#                   (PYTEST_ARGS="-m quick" measures those of make quick)
# make mutants      which small faults of the code its tests do not see: hours for all,
#                   minutes for a module (MUTANTS_ARGS="history.reading")
# make lint         style and types
# make docs         the documentation as a site, in build/docs/
# make claim        what 1,000 subscribers cost, on each WSGI server, in seconds
# make bench        speed and memory beside the usual recipe, what scale costs, and what
#                   brokers do (BENCH_ARGS="--only crowd resume" runs parts of it)
# make bench-peers  speed and memory beside other projects, for docs/benchmarks.rst
# make bench-against  whether a change made it slower: beside another checkout
#                   (CHECKOUT=../before)
#
# Each target makes the virtual environment .venv, and installs there what it needs.

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
WORKERS ?= 1
SOAK_MINUTES ?= 30
VENV := .venv
BIN := $(VENV)/bin

# Have Python keep compiled files, even if the environment forbids that: the tests start
# Python a thousand times.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo quick test system-packages soak soak-service coverage mutants fuzz dist
.PHONY: lint docs claim bench bench-peers bench-against clean

# Several workers share a file of SQLite, anew each time. A thousand streams need as many
# descriptors.
demo: $(VENV)/demo.stamp
	@echo "The showcase: http://$(HOST):$(PORT)"
	@ulimit -n 8192 2>/dev/null || true; cd examples; \
	if [ "$(WORKERS)" -gt 1 ]; then \
		events="$(CURDIR)/build/demo-$(PORT)"; rm -rf "$$events"; mkdir -p "$$events"; \
		export FLASK_SSE_URL="sqlite:///$$events/events.db" FLASK_KILL_WORKERS=true; \
		export FLASK_SECRET_KEY=$$(../$(BIN)/python -c 'import secrets; print(secrets.token_hex())'); \
	fi; \
	exec ../$(BIN)/gunicorn --worker-class gevent --workers $(WORKERS) \
		--bind $(HOST):$(PORT) --log-level warning showcase:app

# Test files run in parallel, each in one process, in the order of tests/conftest.py. There
# are more processes than cores: most of the tests wait for something.
PYTEST_OPTIONS := --dist loadfile --no-loadscope-reorder
PYTEST := $(BIN)/python -m pytest $(PYTEST_OPTIONS)

quick: $(VENV)/test.stamp
	$(PYTEST) --numprocesses 4 -m quick $(PYTEST_ARGS)

test: system-packages $(VENV)/test.stamp
	$(PYTEST) --numprocesses 4 $(PYTEST_ARGS)

# The programs that the tests talk to. Only root can install them. Without a program, the
# tests that need it are skipped.
system-packages:
	@tests/system-packages apache2 caddy chromium firefox-esr haproxy \
		libapache2-mod-wsgi-py3 nginx nodejs=node npm prometheus redis-server \
		systemd=systemd-analyze varnish=varnishd webkit2gtk-driver=WebKitWebDriver \
		xvfb=Xvfb

soak: system-packages $(VENV)/test.stamp
	SOAK=1 $(BIN)/python -m pytest --capture=no tests/test_soak.py tests/test_workers.py \
		tests/test_churn.py tests/test_log.py::TestClients tests/test_page_tabs.py \
		tests/test_disconnect.py tests/test_disconnect_and_kills.py \
		$(PYTEST_ARGS)
	$(BIN)/python -m tests.soak --minutes $(SOAK_MINUTES)

soak-service: system-packages $(VENV)/test.stamp
	$(BIN)/python -m tests.soak --minutes $(SOAK_MINUTES)

# Each file has a process of its own: coverage gets slower with every thread that a process
# has started. (pytest's status is 5 where a file has no such test.) Where a test fails, the
# report comes all the same. One test cannot pass under it: coverage keeps a weak reference
# for each greenlet, and so greenlets leave something behind.
UNMEASURED := \
	--deselect "tests/test_limits.py::test_2000_who_came_and_went_leave_nothing_behind[gunicorn gevent]"
coverage: system-packages $(VENV)/dev.stamp
	rm -rf .coverage
	mkdir .coverage
	ls tests/test_*.py | xargs -P 4 -I FILE sh -c '"$$@" || [ $$? = 5 ]' sh \
		$(BIN)/coverage run -m pytest --quiet FILE $(UNMEASURED) $(PYTEST_ARGS); \
		failed=$$?; \
		$(BIN)/coverage combine --quiet && $(BIN)/coverage report && exit $$failed

# A copy of the code is broken, with one process that leaves the processor to others.
mutants: $(VENV)/test.stamp
	nice $(BIN)/python -m mutants $(MUTANTS_ARGS)

fuzz: $(VENV)/fuzz.stamp
	nice $(BIN)/python -m tests.fuzzing $(FUZZ_ARGS)

dist: $(VENV)/dev.stamp
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A warning is an error. All pages are read anew: what they show of the package's
# docstrings can have changed without them.
docs: $(VENV)/docs.stamp
	$(BIN)/python -m sphinx --quiet --fail-on-warning --fresh-env \
		--doctree-dir build/doctrees docs build/docs
	@echo "The documentation: build/docs/index.html"

claim: $(VENV)/demo.stamp
	$(BIN)/python benchmarks/claim.py $(CLAIM_ARGS)

bench: $(VENV)/demo.stamp $(VENV)/redis.stamp
	$(BIN)/python benchmarks/bench.py $(BENCH_ARGS)

bench-peers: $(VENV)/demo.stamp
	$(BIN)/python benchmarks/peers.py $(BENCH_ARGS)

bench-against: $(VENV)/demo.stamp $(VENV)/redis.stamp
	$(BIN)/python benchmarks/against.py $(CHECKOUT) $(BENCH_ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info benchmarks/build

# One stamp per extra of pyproject.toml. WITHIN_ names the extras that an extra includes.
WITHIN_test := demo redis docs
WITHIN_dev := test $(WITHIN_test)
WITHIN_fuzz := test $(WITHIN_test)

$(VENV)/%.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@ $(WITHIN_$*:%=$(VENV)/%.stamp)

# Debian keeps venv in a package of its own.
$(BIN)/python:
	@$(PYTHON) -c 'import ensurepip, venv' || tests/system-packages python3-venv
	$(PYTHON) -m venv $(VENV)

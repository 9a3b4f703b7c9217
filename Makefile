# make demo         the showcase at http://127.0.0.1:8000 (PORT= changes that)
# make test         the tests
# make soak         those of what goes on for long, in full size: half an hour, with
#                   figures (PYTEST_ARGS="-k million" takes some of them)
# make lint         style and types
# make claim        what 1,000 subscribers cost, on each WSGI server, in seconds
# make bench        speed and memory, side by side with the usual recipe, what scale costs
#                   and what brokers do (BENCH_ARGS="--only crowd resume" takes parts)
# make bench-peers  the same beside other projects, for docs/benchmarks.rst
#
# Each makes the virtual environment .venv, and installs what it needs there.

PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin

# Python keeps what it has compiled, whoever asked it not to: the tests start it a thousand
# times.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test soak lint claim bench bench-peers clean

demo: $(VENV)/demo.stamp
	@echo "The showcase: http://127.0.0.1:$(PORT)"
	@cd examples && exec ../$(BIN)/gunicorn --worker-class gevent --workers 1 \
		--bind 127.0.0.1:$(PORT) --log-level warning showcase:app

# Side by side, file by file, in the order of tests/conftest.py: most of the tests wait
# for servers.
test: $(VENV)/test.stamp
	@tests/system-packages apache2 chromium libapache2-mod-wsgi-py3 nginx nodejs=node npm \
		redis-server
	$(BIN)/python -m pytest --numprocesses 4 --dist loadfile \
		--no-loadscope-reorder $(PYTEST_ARGS)

soak: $(VENV)/test.stamp
	@tests/system-packages redis-server
	SOAK=1 $(BIN)/python -m pytest --capture=no tests/test_soak.py tests/test_workers.py \
		tests/test_churn.py tests/test_log.py::TestClients $(PYTEST_ARGS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

claim: $(VENV)/demo.stamp
	$(BIN)/python benchmarks/claim.py $(CLAIM_ARGS)

bench: $(VENV)/demo.stamp $(VENV)/redis.stamp
	$(BIN)/python benchmarks/bench.py $(BENCH_ARGS)

bench-peers: $(VENV)/demo.stamp
	$(BIN)/python benchmarks/peers.py $(BENCH_ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info benchmarks/build

# One stamp per extra of setup.py, and what some of them have in them.
WITHIN_test := demo redis
WITHIN_dev := test $(WITHIN_test)

$(VENV)/%.stamp: setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@ $(WITHIN_$*:%=$(VENV)/%.stamp)

# Debian keeps venv in a package of its own.
$(BIN)/python:
	@$(PYTHON) -c 'import ensurepip, venv' || tests/system-packages python3-venv
	$(PYTHON) -m venv $(VENV)

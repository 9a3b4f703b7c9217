"""What holds for every test: it leaves nothing behind, CI skips none, and the longest
files begin first."""

from __future__ import annotations

import gc
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from hypothesis import HealthCheck, settings

from flask_sse_lite import SSE
from flask_sse_lite.hub import current_hub

from .patience import patient

# A process keeps its hub, which has two descriptors. It is made here, so that no test
# is blamed for them.
current_hub()

# On a busy machine an example can take any time.
settings.register_profile(
    "patient", settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
)
settings.load_profile("patient")

#: Seconds within which what a test ended must be gone. (A server takes its time to
#: notice that clients have left.)
GRACE = patient(15.0)

#: The files that take longest, the longest first. When files run side by side, all
#: others would otherwise wait for such a file at the end.
LONGEST = [
    "test_brokers.py",
    "test_stalled_clients.py",
    "test_ways_in.py",
    "test_planted_faults.py",
    "test_servers.py",
    "test_versions.py",
    "test_runs_across_workers.py",
    "test_showcase.py",
    "test_stopping.py",
    "test_redis.py",
    "test_listening_pages.py",
    "test_hypermedia.py",
    "test_example_pages.py",
    "test_page_stream.py",
    "test_page_tabs.py",
    "test_event_source.py",
    "test_page_asleep.py",
    "test_timeouts.py",
    "test_lives.py",
    "test_adapters.py",
    "test_embedded.py",
    "test_failures.py",
    "test_disconnect_and_kills.py",
    "test_limits.py",
    "test_between.py",
    "test_proxies.py",
    "test_generators.py",
    "test_workers.py",
    "test_churn.py",
    "test_runs.py",
    "test_going_back.py",
    "test_distribution.py",
    "test_site.py",
    "test_task_queues.py",
]


#: What test files import to start servers and browsers, each a process of its own.
STARTING = {
    "HANDED_OFF",
    "KINDS",
    "RedisStore",
    "VISITORS",
    "chromium",
    "firefox",
    "nginx",
    "proxy",
    "redis_server",
    "serve",
    "serve_example",
}

#: What a test file imports from those beside it, and a name.
IMPORTED = re.compile(r"^from \.\w+ import (\([^)]*\)|.*)$", re.MULTILINE)
WORD = re.compile(r"\w+")

#: Files whose tests run on memory, on a file and on Redis. Those on Redis say so in
#: their names.
ON_ALL_BROKERS = {"test_brokers.py"}

#: Files and tests that start none of these, and still take long.
LONG = {
    "TestClients",
    "test_all_workers_throw_out_who_is_banned",
    "test_an_application_of_strict_types_passes",
    "test_an_example_works_in_a_factory_that_is_called_again",
    "test_a_factory_of_the_examples_can_be_called_again",
    "test_browser_module_built.py",
    "test_a_greenlet_that_publishes_without_end_lets_its_readers_follow",
    "test_a_greenlet_that_waits_for_the_file_lets_the_others_run",
    "test_a_channel_is_emptied_from_outside",
    "test_apache.py",
    "test_distribution.py",
    "test_doctor.py",
    "test_every_javascript_block_is_javascript",
    "test_greenlets_fork",
    "test_it_is_told_whoever_dies",
    "test_mutants.py",
    "test_own_broker.py",
    "test_publishers_that_are_killed_leave_a_file_that_is_whole",
    "test_soak.py",
    "test_the_example_tests_pass",
    "test_the_file_stays_small",
    "test_whatever_fails_in_the_hub_every_stream_goes_on_or_ends",
    "test_when_nobody_looked_for_long_all_have_left",
    "test_who_comes_and_leaves_is_told",
    "test_whatever_happens_who_is_out_gets_nothing_and_others_everything",
}


def pytest_configure() -> None:
    # A shell has its background processes ignore SIGINT, and their children inherit
    # that. The tests send SIGINT to processes that they start, so it must not be
    # ignored.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the longest files begin first, and mark what ``make quick`` runs."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
    for item in items:
        if is_quick(item):
            item.add_marker(pytest.mark.quick)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Have ``make quick`` not even import the files of which it would run nothing: what
    these import takes seconds, in each process."""
    name = collection_path.name
    if config.option.markexpr != "quick" or not name.startswith("test_"):
        return None
    if name in LONG:
        return True
    if name in ON_ALL_BROKERS:
        return None
    text = collection_path.read_text("utf-8")
    names = {word for match in IMPORTED.findall(text) for word in WORD.findall(match)}
    return True if STARTING & names else None


def is_quick(item: pytest.Item) -> bool:
    """Whether a test needs no browser, and no server in another process."""
    names = {
        item.path.name,
        *(node.name.partition("[")[0] for node in item.listchain()),
    }
    if "redis" in item.name.lower() or LONG & names:
        return False
    if item.path.name in ON_ALL_BROKERS:
        return True
    assert isinstance(item, pytest.Function)
    return not STARTING & set(vars(item.module))


def pytest_collection_finish() -> None:
    """Freeze all objects that exist now. Each test is followed by a garbage collection,
    which is fast where few objects are left to look at."""
    gc.collect()
    gc.freeze()


def _open_descriptors() -> set[str]:
    """The open file descriptors, each with what it is open on."""
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{descriptor} {os.readlink(f'/proc/self/fd/{descriptor}')}")
        except OSError:
            pass  # The descriptor of this listing is closed already.
    return found


def _have_the_hub_look_around() -> None:
    """Have the hub look for clients that left. Otherwise each test that streams would
    wait a quarter of a second at its end."""
    hub = current_hub()
    if hub.is_running:
        hub._looked_at = 0.0
        hub._wake()


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a thread or a file descriptor behind."""
    threads = set(threading.enumerate())
    descriptors = _open_descriptors()
    yield
    deadline = time.monotonic() + GRACE
    while True:
        left = {str(thread) for thread in set(threading.enumerate()) - threads}
        left |= _open_descriptors() - descriptors
        if not left:
            return
        assert time.monotonic() < deadline, f"left behind: {sorted(left)}"
        gc.collect()
        _have_the_hub_look_around()
        time.sleep(0.02)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[None]:
    """Under CI=true a skip is a failure."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true":  # type: ignore[attr-defined]
        report.outcome = "failed"  # type: ignore[attr-defined]
    return report


@pytest.fixture
def sse() -> SSE:
    return SSE()


@pytest.fixture
def app(sse: SSE) -> Flask:
    """An application with the blueprint at /stream."""
    app = Flask("application")
    app.config["TESTING"] = True
    app.register_blueprint(sse)
    return app

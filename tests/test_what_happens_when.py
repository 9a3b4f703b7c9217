"""Faults of the machine: each row of docs/what-happens-when.rst is shown by tests.

Those of them that belong nowhere else stand here.
"""

from __future__ import annotations

import os
import re
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from flask_sse_lite.testing.broker_suite import until

from .servers import ROOT, Server, process_of, serve, several, stopped

PAGE = ROOT / "docs" / "what-happens-when.rst"

#: The tests that show a row. They stand in a module ``test_…``, or here.
SHOWN_BY = {
    "The process has no file descriptor left": [
        "limits.test_a_server_of_few_descriptors_keeps_some_whoever_comes"
    ],
    "The process has no memory left": [
        "what_happens_when.test_where_memory_is_out_a_request_fails_alone"
    ],
    "The system gives no more threads": [
        "runs.test_where_no_thread_can_be_had_it_is_as_if_there_were_too_many",
        "courier.test_where_no_thread_can_be_started_the_next_signal_tries_again",
    ],
    "The disk is full": [
        "what_happens_when.test_where_the_disk_is_full_nothing_arrives_that_was_refused"
    ],
    "The Redis is full, under ``noeviction``": [
        "lives.test_a_full_redis_that_deletes_nothing_refuses_what_is_published"
    ],
    "The Redis deletes keys, under another policy": [
        "lost_runs.test_a_run_goes_on_whichever_key_is_lost",
        "lost_runs.test_readers_of_a_run_that_redis_forgot_do_not_wait_for_good",
    ],
    "The Redis does not answer": [
        "timeouts.test_a_frozen_redis",
        "timeouts.test_a_slow_redis",
    ],
    "The Redis comes back without its memory, or with an old one": [
        "lost_runs.test_readers_of_a_run_that_was_lost_with_everything_are_told"
    ],
    "The SQLite file is replaced by an older copy": [
        "going_back.test_a_copy_that_is_put_back_is_another_life",
        "going_back.test_a_reader_that_stays_is_told_that_the_file_was_put_back",
    ],
    "Another program keeps the SQLite file locked": [
        "timeouts.test_a_file_that_another_process_keeps_locked"
    ],
    "The machine's clock is set": [
        "sqlite.test_a_clock_that_is_set_changes_nothing",
        "redis_clock.test_a_run_goes_on",
    ],
    "A worker is stopped for a while (SIGSTOP, a virtual machine that is moved)": [
        "what_happens_when.test_a_worker_that_was_stopped_goes_on_where_it_was"
    ],
    "Signals come in a storm": [
        "what_happens_when.test_a_storm_of_signals_costs_no_event"
    ],
    "A worker is killed": [
        "going_back.test_who_was_killed_loses_nothing",
        "redis.test_two_machines_are_one_service_while_workers_die_and_are_replaced",
    ],
    "The application forks": [
        "forks.test_who_listens_while_the_application_forks_loses_nothing",
        "forks.test_a_child_can_publish_whatever_its_parent_was_about",
    ],
    "A client vanishes, or never reads": [
        "stalled_clients.test_who_has_vanished_is_let_go_and_counted_no_more",
        "stalled_clients.test_who_never_reads_costs_little_and_is_let_go",
    ],
    "The hub or the follower fails": [
        "failures.test_whatever_fails_in_the_hub_every_stream_goes_on_or_ends",
        "failures.test_whatever_fails_in_a_follower_it_follows_on",
    ],
    "Power fails": ["going_back.test_a_machine_that_was_restarted"],
}

LARGE_EVENTS = "tests.applications.large:app"

GUNICORNS = ["gunicorn sync", "gunicorn gthread", "gunicorn gevent"]


def test_each_row_of_the_page_is_shown() -> None:
    rows = re.findall(r"^   \* - (.+)$", PAGE.read_text(), re.MULTILINE)[1:]
    assert rows == [*SHOWN_BY]


@pytest.mark.parametrize(
    "name", [name for names in SHOWN_BY.values() for name in names]
)
def test_each_of_these_tests_is_there(name: str) -> None:
    module, test = name.split(".")
    assert callable(getattr(import_module(f"tests.test_{module}"), test))


@contextmanager
def limited(process: int, what: int, limit: int) -> Iterator[None]:
    """Bound what a process can have of something."""
    before = resource.prlimit(process, what)
    resource.prlimit(process, what, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process, what, before)


def size_of(process: int) -> int:
    """Bytes of addresses that a process uses."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[0])
    return pages * resource.getpagesize()


LARGE = 32 * 1024 * 1024


@pytest.mark.parametrize("kind", GUNICORNS)
def test_where_memory_is_out_a_request_fails_alone(kind: str) -> None:
    config: dict[str, Any] = {"SSE_HISTORY_BYTES": 8 * LARGE}
    config["SSE_MAX_EVENT_BYTES"] = 4 * LARGE
    with (
        serve(kind, app=LARGE_EVENTS, **config) as server,
        server.stream("room") as client,
    ):
        worker = server.stats()["process"]
        with limited(worker, resource.RLIMIT_AS, size_of(worker) + LARGE):
            assert server.request("POST", f"/large?size={3 * LARGE}").status == 500
            server.publish({"data": "meanwhile", "channel": "room"})
            assert client.take(1)[0].data == "meanwhile"
        server.publish({"data": "later", "channel": "room"})
        assert client.take(1)[0].data == "later"
        assert server.stats()["process"] == worker


@pytest.mark.parametrize("kind", GUNICORNS)
def test_where_the_disk_is_full_nothing_arrives_that_was_refused(
    kind: str, tmp_path: Path
) -> None:
    file = tmp_path / "events.db"
    with (
        serve(kind, app=LARGE_EVENTS, SSE_URL=f"sqlite:///{file}") as server,
        server.stream("room") as client,
    ):
        server.publish({"data": "before", "channel": "room"})
        worker = server.stats()["process"]
        # A write is an error, as it is where the disk is full.
        with limited(worker, resource.RLIMIT_FSIZE, 1 << 16):
            for _ in range(3):
                assert server.request("POST", "/large?size=200000").status == 503
        server.publish({"data": "after", "channel": "room"})
        assert [event.data for event in client.take(2)] == ["before", "after"]


@contextmanager
def two_workers(kind: str, file: Path) -> Iterator[Server]:
    with serve(
        kind, app=LARGE_EVENTS, options=several(kind, 2), SSE_URL=f"sqlite:///{file}"
    ) as server:
        yield server


def subscribers(server: Server) -> int:
    return int(server.request("GET", "/subscribers?channel=room").body)


@pytest.mark.parametrize("kind", GUNICORNS)
def test_a_worker_that_was_stopped_goes_on_where_it_was(
    kind: str, tmp_path: Path
) -> None:
    with two_workers(kind, tmp_path / "events.db") as server:
        clients = [server.stream("room") for _ in range(8)]
        try:
            worker = server.stats()["process"]
            with stopped([worker]):
                texts = [str(number) for number in range(40)]
                for text in texts:
                    server.publish({"data": text, "channel": "room"})
                # Until the other worker takes the stopped one for gone.
                served = [*map(process_of, clients)]
                until(lambda: subscribers(server) == 8 - served.count(worker))
            for client in clients:
                assert [event.data for event in client.take(40)] == texts
            until(lambda: subscribers(server) == len(clients))
        finally:
            for client in clients:
                client.leave()


@pytest.mark.parametrize("kind", GUNICORNS)
def test_a_storm_of_signals_costs_no_event(kind: str, tmp_path: Path) -> None:
    with (
        serve(kind, SSE_URL=f"sqlite:///{tmp_path / 'events.db'}") as server,
        server.stream("room") as client,
    ):
        worker = server.stats()["process"]
        for number in range(50):
            for _ in range(100):
                os.kill(worker, signal.SIGWINCH)
            server.publish({"data": str(number), "channel": "room"})
        texts = [event.data for event in client.take(50)]
        assert texts == [str(number) for number in range(50)]

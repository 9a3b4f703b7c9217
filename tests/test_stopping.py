"""What becomes of open streams when a server stops, reloads, or replaces a worker: each
ends properly and at once, whatever else the server is busy with."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from .crowd import Crowd, Member
from .servers import (
    HOST,
    PATIENCE,
    Client,
    Server,
    descriptor_limit,
    serve,
    sockets_of,
    until,
)

#: An application whose requests can be slow.
SLOW = "tests.applications.slow:app"

#: Streams on one server: where their number matters, and where it does not.
MANY = 300
SOME = 100

#: Longer than any test waits: no heartbeat hides a missing wake.
NEVER = 4 * PATIENCE

#: Also longer than any test waits: the time that gunicorn gives to streams that do not
#: end by themselves, and to idle connections.
LONG_GRACE = "--graceful-timeout 60 --keep-alive 60"

#: Seconds by which an application believes that its worker is cut earlier than it is.
EARLIER = 30.0

#: gunicorn's workers. The sync worker serves one request at a time.
GUNICORNS = [
    "gunicorn sync",
    "gunicorn gthread",
    "gunicorn gevent",
    "gunicorn gevent_pywsgi",
]


@pytest.fixture(scope="module", autouse=True)
def enough_descriptors() -> Iterator[None]:
    """Lift the limit on descriptors, for this process and for the servers."""
    with descriptor_limit(None):
        yield


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Handle SIGINT. A shell may have had us ignore it, and the processes that we start
    inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@contextmanager
def gunicorn(kind: str, options: str = "", **config: Any) -> Iterator[Server]:
    """A gunicorn that would wait for its streams far longer than the tests do."""
    with serve(
        kind, app=SLOW, options=f"{LONG_GRACE} {options}", SSE_HEARTBEAT=NEVER, **config
    ) as server:
        yield server


def worker_of(server: Server) -> int:
    return server.stats()["process"]


def finish(server: Server) -> None:
    """Wait until a worker of one thread has finished every request before this one."""
    with Client(server.port) as client:
        client.request("/ping", headers={"Connection": "close"})
        assert client.read() == b"pong"
        assert client.socket.recv(1) == b""


def assert_ended_properly(members: Sequence[Member], *texts: str) -> None:
    """Each member got these events, and then a proper end: it was neither cut nor
    reset."""
    for member in members:
        assert member.is_over
        assert member.opening is not None
        assert [event.data for event in member.events] == list(texts)
        # Without chunks, only the end of the connection tells the end.
        assert member.is_whole or "transfer-encoding" not in member.headers


def all_are_served_or_sent_off(members: Sequence[Member]) -> bool:
    """Whether each member has an event, or a whole answer, or was closed before an
    answer."""
    return all(
        member.events or member.is_whole or (member.is_over and not member.status)
        for member in members
    )


# gunicorn


@pytest.mark.parametrize(
    ("kind", "options"),
    [*((kind, "") for kind in GUNICORNS), ("gunicorn gthread", "--preload")],
)
def test_a_gunicorn_that_stops_does_not_wait_for_its_streams(
    kind: str, options: str
) -> None:
    with gunicorn(kind, options) as server, Crowd(server.port) as crowd:
        members = crowd.join_all(MANY, "room")
        server.publish({"data": "last", "channel": "room"})
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        crowd.await_ends(members)
        print(f"{MANY} streams ended within {time.monotonic() - began:.2f} s")
        server.wait()
        print(f"the server ended within {time.monotonic() - began:.2f} s")
        assert_ended_properly(members, "last")


@pytest.mark.parametrize(
    ("kind", "beside"),
    [
        # It has one thread, and serves one request on a connection.
        ("gunicorn sync", {"a slow request"}),
        ("gunicorn sync", {"an iterated stream"}),
        *(
            (kind, {"a slow request", "an iterated stream", "an idle connection"})
            for kind in GUNICORNS[1:]
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else " and ".join(sorted(value)),
)
def test_streams_end_at_once_whatever_else_a_gunicorn_waits_for(
    kind: str, beside: set[str], tmp_path: Path
) -> None:
    with (
        gunicorn(kind, FOLDER=str(tmp_path)) as server,
        Crowd(server.port) as crowd,
        ExitStack() as connections,
    ):
        members = crowd.join_all(MANY, "room")
        server.publish({"data": "last", "channel": "room"})
        if "an idle connection" in beside:
            idle = connections.enter_context(Client(server.port))
            idle.request("/ping")
            assert idle.read() == b"pong"
        if "an iterated stream" in beside:
            members += crowd.join_all(1, "another room", path="/iterated")
        if "a slow request" in beside:
            slow = crowd.join(path="/slow")
            until(tmp_path.joinpath("waiting").exists)
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        crowd.await_ends(members)
        print(f"{MANY} streams ended within {time.monotonic() - began:.2f} s")
        if "a slow request" in beside:
            assert not slow.status
            tmp_path.joinpath("go").touch()
            crowd.until(lambda: slow.body == b"done")
            crowd.leave(slow)
        connections.close()
        server.wait()
        assert_ended_properly(members[:MANY], "last")
        assert_ended_properly(members[MANY:])


#: What clients send to hold a worker. It waits for more of a request, or (the last) for
#: the client to read.
UNFINISHED = {
    "nothing": b"",
    "half a request": b"GET /ping HTTP/1.1\r\nHost:",
    "half a body": b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf",
    "no reading": b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize(
    ("kind", "sent", "number"),
    [
        *product(GUNICORNS, UNFINISHED, [signal.SIGTERM]),
        ("gunicorn sync", "nothing", signal.SIGHUP),
    ],
)
def test_streams_end_at_once_though_a_connection_keeps_a_gunicorn_waiting(
    kind: str, sent: str, number: signal.Signals
) -> None:
    """Browsers open connections ahead of need, and send nothing."""
    with gunicorn(kind) as server, Crowd(server.port) as crowd:
        members = crowd.join_all(SOME, "room")
        server.publish({"data": "last", "channel": "room"})
        worker = worker_of(server)
        finish(server)
        before = sockets_of(worker)
        with socket.create_connection((HOST, server.port), PATIENCE) as silent:
            silent.sendall(UNFINISHED[sent])
            until(lambda: sockets_of(worker) - before)
            server.signal(number)
            crowd.await_ends(members)
            assert_ended_properly(members, "last")


@pytest.mark.parametrize(
    ("hold", "number"),
    [
        *(
            (f"hold_by_{what}", signal.SIGTERM)
            for what in ("lock", "library", "messages", "process")
        ),
        # These signals interrupt all but the library.
        ("hold_by_library", signal.SIGINT),
        ("hold_by_library", signal.SIGQUIT),
    ],
)
def test_streams_end_at_once_though_a_worker_s_main_thread_handles_no_signal(
    hold: str, number: signal.Signals, tmp_path: Path
) -> None:
    with (
        gunicorn("gunicorn sync", FOLDER=str(tmp_path)) as server,
        Crowd(server.port) as crowd,
    ):
        members = crowd.join_all(SOME, "room")
        worker = worker_of(server)
        with socket.create_connection((HOST, server.port), PATIENCE) as held:
            held.sendall(f"GET /hold/{hold} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            until(tmp_path.joinpath("waiting").exists)
            os.kill(worker, number)
            crowd.await_ends(members)
            assert_ended_properly(members)
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)


def test_a_signal_that_stops_nothing_ends_no_stream(tmp_path: Path) -> None:
    """At SIGUSR1 gunicorn only reopens its log files."""
    with (
        gunicorn("gunicorn sync", FOLDER=str(tmp_path)) as server,
        Crowd(server.port) as crowd,
    ):
        members = crowd.join_all(SOME, "room")
        worker = worker_of(server)
        slow = crowd.join(path="/slow")
        until(tmp_path.joinpath("waiting").exists)
        os.kill(worker, signal.SIGUSR1)
        tmp_path.joinpath("go").touch()
        crowd.until(lambda: slow.body == b"done")
        server.publish({"data": "on", "channel": "room"})
        crowd.until(lambda: all(member.events for member in members))
        assert not any(member.is_over for member in members)


@pytest.mark.parametrize("kind", GUNICORNS)
def test_streams_that_a_gunicorn_iterates_end_when_it_stops(kind: str) -> None:
    with (
        gunicorn(kind, SSE_HANDOFF=False) as server,
        Crowd(server.port) as crowd,
    ):
        members = crowd.join_all(1 if kind == "gunicorn sync" else 20, "room")
        server.signal(signal.SIGTERM)
        # The connections may outlive their streams, and the server waits for them.
        crowd.until(lambda: all(member.is_whole for member in members))
        for member in members:
            assert not member.events
            crowd.leave(member)
        server.wait()


@pytest.mark.parametrize("kind", GUNICORNS)
def test_a_generator_that_goes_on_is_told_of_before_its_server_would_cut_it(
    kind: str, tmp_path: Path
) -> None:
    # The worker is cut later than the application believes.
    with serve(
        kind,
        app="tests.applications.early:app",
        options=f"--graceful-timeout {EARLIER + 4:g}",
        FOLDER=str(tmp_path),
        EARLIER=EARLIER,
    ) as server:
        with Client(server.port) as client:
            client.request("/ask?name=endless&steps=tick")
            client.take(1)
            server.signal(signal.SIGTERM)
            stops_at = time.monotonic()
            *ticks, last = client.events
        # Long before the cut.
        assert time.monotonic() - stops_at < EARLIER
        assert {tick.data for tick in ticks} == {"tick"}
        assert (last.type, last.json) == ("stream-error", {"reason": "shutdown"})
        server.wait()
        assert "closed" in (tmp_path / "endless").read_text()


@pytest.mark.parametrize("kind", GUNICORNS)
def test_a_stream_that_begins_while_its_worker_stops_ends_too(
    kind: str, tmp_path: Path
) -> None:
    with (
        gunicorn(kind, FOLDER=str(tmp_path)) as server,
        Crowd(server.port) as crowd,
    ):
        members = crowd.join_all(1, "room")
        late = crowd.join("room", path="/late")
        until(tmp_path.joinpath("waiting").exists)
        server.signal(signal.SIGTERM)
        crowd.await_ends(members)
        tmp_path.joinpath("go").touch()
        crowd.await_ends([late])
        server.wait()
        assert_ended_properly([*members, late])


@pytest.mark.parametrize("kind", GUNICORNS)
def test_what_was_published_before_a_stop_arrives_while_others_go_on_publishing(
    kind: str,
) -> None:
    last, count = 200, 400
    with (
        gunicorn(kind, SSE_HISTORY=count) as server,
        Crowd(server.port) as crowd,
    ):
        members = crowd.join_all(SOME, "room")
        target = "/publish-beyond-the-stop"
        assert server.request("POST", target, [last, count]).status == 204
        crowd.await_ends(members)
        for member in members:
            texts = [str(number) for number in range(len(member.events))]
            assert len(texts) > last
            assert_ended_properly([member], *texts)


@pytest.mark.parametrize("kind", GUNICORNS)
def test_after_a_reload_all_come_back_to_the_new_worker_and_are_told_of_the_gap(
    kind: str,
) -> None:
    with gunicorn(kind) as server, Crowd(server.port) as crowd:
        members = crowd.join_all(MANY, "room")
        (id,) = server.publish({"data": "before", "channel": "room"})
        old = worker_of(server)
        server.signal(signal.SIGHUP)
        crowd.await_ends(members)
        assert_ended_properly(members, "before")

        if kind == "gunicorn gevent":
            # It drops clients that connect at the moment at which it closes its socket.
            until(lambda: f"Worker exiting (pid: {old})" in server.log())
        back: list[Member] = []
        while len(back) < MANY:
            # No client is refused or reset; the old worker may tell some to come back.
            some = crowd.join_all(MANY - len(back), "room", since=id)
            crowd.until(partial(all_are_served_or_sent_off, some))
            assert {member.status for member in some} == {200}
            back += [member for member in some if member.events]
        server.publish({"data": "after", "channel": "room"})
        crowd.until(lambda: all(len(member.events) > 1 for member in back))
        for member in back:
            assert member.opening is not None
            assert member.opening.id == id
            gap, after = member.events
            assert gap.type == "stream-gap"
            assert gap.json == {"since": id, "channels": ["room"]}
            assert after.data == "after"


# gunicorn's gevent_pywsgi does not count requests.
@pytest.mark.parametrize("kind", GUNICORNS[:3])
def test_a_worker_that_has_served_its_last_request_ends_its_streams(kind: str) -> None:
    with (
        gunicorn(kind, f"--max-requests {SOME}") as server,
        Crowd(server.port, bears_resets=True) as crowd,
    ):
        old = worker_of(server)
        first = crowd.join_all(SOME // 2, "room")
        server.publish({"data": "before", "channel": "room"})
        # One of these is the worker's last request.
        others = crowd.join_all(SOME, "room")
        crowd.await_ends(first)
        assert_ended_properly(first, "before")

        until(partial(server.is_served_by_another, old))
        server.publish({"data": "after", "channel": "room"})
        # Some may have come to the old worker when it was about to end.
        crowd.until(partial(all_are_served_or_sent_off, others))
        assert not any(member.is_whole and member.events for member in others)


@pytest.mark.parametrize("kind", GUNICORNS)
def test_a_worker_that_is_told_to_quit_ends_its_streams(kind: str) -> None:
    with gunicorn(kind) as server:
        for number in (signal.SIGINT, signal.SIGQUIT):
            with Crowd(server.port) as crowd:
                members = crowd.join_all(SOME, "room")
                server.publish({"data": "last", "channel": "room"})
                worker = worker_of(server)
                finish(server)
                os.kill(worker, number)
                crowd.await_ends(members)
                assert_ended_properly(members, "last")
            until(partial(server.is_served_by_another, worker))


@pytest.mark.parametrize("kind", GUNICORNS)
def test_a_worker_whose_arbiter_was_killed_ends_its_streams(kind: str) -> None:
    with gunicorn(kind) as server, Crowd(server.port) as crowd:
        members = crowd.join_all(SOME, "room")
        server.signal(signal.SIGKILL)
        server.wait()
        # A worker checks for its arbiter after a request. Without a request, that can
        # take long. This request may find the worker gone already.
        with suppress(OSError):
            server.request("GET", "/ping")
        crowd.await_ends(members)
        assert_ended_properly(members)


def test_clients_are_told_to_come_back_spread_over_time() -> None:
    with (
        serve("gunicorn sync", SSE_HEARTBEAT=NEVER, SSE_RETRY=10_000) as server,
        Crowd(server.port) as crowd,
    ):
        members = crowd.join_all(1000, "room")
        waits = [member.retry or 0 for member in members]
    assert min(waits) >= 8_000
    assert max(waits) <= 12_000
    for low in range(8_000, 12_000, 400):
        # A tenth of the range has about a tenth of the clients.
        assert 50 < sum(low <= wait < low + 400 for wait in waits) < 150


# Others


def is_idle(stats: Path) -> bool:
    """Whether a uWSGI, asked at its stats socket, has finished all requests. After it
    has sent an answer, uWSGI goes on with that request for a moment."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(stats))
        with client.makefile() as told:
            workers = json.load(told)["workers"]
    return not any(core["in_request"] for one in workers for core in one["cores"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_uwsgi_that_stops_or_reloads_ends_its_streams(
    number: signal.Signals, tmp_path: Path
) -> None:
    stats = tmp_path / "stats"
    # Where each worker loads the application itself, a reload replaces the worker only.
    with (
        serve(
            "uWSGI", options=f"--lazy --stats {stats}", SSE_HEARTBEAT=NEVER
        ) as server,
        Crowd(server.port) as crowd,
    ):
        members = crowd.join_all(MANY, "room")
        # All are handed off, also those whose first bytes have only just been sent.
        until(lambda: server.stats()["handed_off"] == MANY)
        server.publish({"data": "last", "channel": "room"})
        worker = worker_of(server)
        # SIGTERM ends a worker with a request at once, without its exit hooks.
        until(lambda: is_idle(stats))
        server.signal(number)
        crowd.await_ends(members)
        assert_ended_properly(members, "last")
        if number == signal.SIGHUP:
            until(partial(server.is_served_by_another, worker))
        else:
            server.wait()


def test_a_gevent_server_that_stops_ends_its_streams() -> None:
    with (
        serve("gevent.pywsgi", SSE_HEARTBEAT=NEVER) as server,
        Crowd(server.port) as crowd,
    ):
        members = crowd.join_all(MANY, "room")
        server.publish({"data": "last", "channel": "room"})
        server.signal(signal.SIGTERM)
        crowd.await_ends(members)
        server.wait()
        assert_ended_properly(members, "last")


def test_the_development_server_ends_its_streams_when_it_is_interrupted(
    interruptible: None,
) -> None:
    with (
        serve("werkzeug", SSE_HEARTBEAT=NEVER) as server,
        Crowd(server.port) as crowd,
    ):
        members = crowd.join_all(SOME, "room")
        server.publish({"data": "last", "channel": "room"})
        server.signal(signal.SIGINT)
        crowd.await_ends(members)
        server.wait()
        assert_ended_properly(members, "last")


# What operators are told


def warnings(server: Server) -> list[tuple[str, str]]:
    """Our warnings that were logged when two streams were opened, each with the id of
    its process."""
    with Crowd(server.port) as crowd:
        crowd.join_all(2, "room")
        return re.findall(r"\[(\d+)\] WARNING flask_sse_lite: (.*)", server.log())


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        (
            "gunicorn sync",
            "--max-requests 9999",
            r"gunicorn's --max-requests is 9999\.",
        ),
        ("gunicorn gthread", "--max-requests 50 --preload", r"--max-requests is 50\."),
        ("gunicorn gevent", "--max-requests 500", r"--max-requests is 500\."),
        ("uWSGI", "--max-requests 500", r"uWSGI's --max-requests is 500\."),
        ("uWSGI", "--workers 2 --cheaper 1", r"uWSGI runs with --cheaper 1\."),
        ("uWSGI", "--idle 600", r"uWSGI runs with --idle 600\."),
    ],
)
def test_operators_are_warned_once_of_what_ends_workers_full_of_streams(
    kind: str, options: str, expected: str
) -> None:
    with serve(kind, options=options) as server:
        found = [pid for pid, text in warnings(server) if re.search(expected, text)]
    assert found
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("gunicorn sync", ""),
        ("gunicorn gthread", "--max-requests 10000"),
        # gevent_pywsgi does not count requests.
        ("gunicorn gevent_pywsgi", "--max-requests 500"),
        ("uWSGI", "--max-requests 10000"),
        ("werkzeug", ""),
    ],
)
def test_operators_are_not_warned_without_need(kind: str, options: str) -> None:
    with serve(kind, options=options) as server:
        assert not warnings(server)

"""What streams can cost a process: no threads, no descriptors of others, and never all
descriptors. When they are gone, they cost nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psutil
import pytest

from .crowd import Crowd, Member
from .servers import PATIENCE, Client, Server, descriptor_limit, serve, until

CROWDED = "tests.applications.crowded:app"

#: Longer than any test waits: no heartbeat hides a missing wake.
NEVER = 4 * PATIENCE

#: gunicorn's workers, one for each way in which they take connections.
WORKERS = ["gunicorn sync", "gunicorn gthread", "gunicorn gevent"]


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Lift the limit on descriptors, for many clients and for the servers."""
    with descriptor_limit(None):
        yield


@contextmanager
def serve_within(
    limit: int, kind: str, options: str, **config: Any
) -> Iterator[Server]:
    """A server that has at most so many file descriptors."""
    with ExitStack() as stack:
        with descriptor_limit(limit):
            server = stack.enter_context(
                serve(kind, app=CROWDED, options=options, **config)
            )
        yield server


def is_told_to_come_back(member: Member) -> bool:
    """Whether a refused client got the answer for browsers: an end, after which it
    comes back by itself, but not soon."""
    assert member.opening is None
    assert (member.status, member.events) == (200, [])
    return member.retry is not None and 24_000 <= member.retry <= 36_000


# Threads


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("gunicorn sync", ""),
        ("gunicorn gthread", "-k gthread --threads 1"),
        ("gunicorn gevent", ""),
        ("gunicorn gevent_pywsgi", ""),
        ("gevent.pywsgi", ""),
        ("cheroot", ""),
        ("werkzeug", ""),
        ("uWSGI", ""),
    ],
)
def test_500_streams_take_one_thread_or_greenlet_in_all(
    kind: str, options: str
) -> None:
    """The one is the hub's."""
    with serve(kind, options=options, SSE_HEARTBEAT=NEVER) as server:

        def tasks() -> int:
            """The lowest of several counts, as the request before may be just
            ending."""
            counts = [server.stats() for _ in range(10)]
            return min(stats["threads"] + stats["greenlets"] for stats in counts)

        server.stats()  # gunicorn starts its threads when they are needed.
        without = tasks()
        with ExitStack() as stack:
            for _ in range(500):
                stack.enter_context(server.stream("room"))
            until(lambda: server.stats()["handed_off"] == 500)
            # Fewer are no error: a thread that gevent needed to start ends later.
            until(lambda: tasks() <= without + 1)
            assert server.stats()["streams"] == 500
        until(lambda: server.stats()["streams"] == 0)


# Descriptors


@pytest.mark.parametrize("kind", WORKERS)
def test_beside_2000_streams_an_application_can_select(kind: str) -> None:
    with (
        serve(kind, app=CROWDED, SSE_HEARTBEAT=NEVER) as server,
        Crowd(server.port) as crowd,
    ):
        crowd.join_all(2000, "room")
        until(lambda: server.stats()["handed_off"] == 2000)
        assert server.stats()["streams"] == 2000
        selected = json.loads(server.request("GET", "/select").body)
        assert selected["all"]
        assert selected["highest"] < 1024


@pytest.mark.parametrize("kind", WORKERS)
def test_a_server_of_few_descriptors_keeps_some_whoever_comes(kind: str) -> None:
    """Clients come by hundreds, all at once, to a server with 256 descriptors in
    all."""
    connections, crowds, each = 60, 4, 150
    with (
        serve_within(
            256, kind, f"--worker-connections {connections}", SSE_HEARTBEAT=NEVER
        ) as server,
        Crowd(server.port) as crowd,
    ):
        worker = server.stats()["process"]
        with server.stream("room"):
            # From the first stream on, the server has what it keeps for all of them.
            pass
        until(lambda: server.stats()["handed_off"] == 1)
        until(lambda: server.stats()["streams"] == 0)
        alone = server.stats()["descriptors"]
        comers = []
        for number in range(crowds):
            arriving = [crowd.connect("room") for _ in range(each)]
            for member in arriving:
                crowd.ask(member)
            crowd.await_answers(arriving)
            comers += arriving
            assert server.request("GET", f"/ping?{number}").body == b"pong"
        listening = [member for member in comers if member.opening]
        assert connections < len(listening) < 256 - connections
        refused = [member for member in comers if not member.opening]
        assert all(map(is_told_to_come_back, refused))
        until(lambda: server.stats()["handed_off"] == 1 + len(listening))
        stats = server.stats()
        assert stats["streams"] == len(listening)
        # The server may not have finished with the last clients that it refused.
        until(lambda: server.stats()["descriptors"] < 256 - connections)
        assert stats["process"] == worker

        # The server can hold as many other connections as it is allowed.
        with ExitStack() as stack:
            for _ in range(connections - 5):
                idle = stack.enter_context(Client(server.port))
                idle.request("/ping")
                assert idle.read() == b"pong"
                if idle.headers["connection"] == "close":
                    idle.leave()
            assert server.request("GET", "/ping").body == b"pong"
        other = server.request("GET", "/stream?channel=room")
        assert other.status == 503
        assert 24 <= int(other.headers["Retry-After"]) <= 36

        (id,) = server.publish({"data": "x", "channel": "room"})
        crowd.until(lambda: all(member.events for member in listening))
        assert {m.events[0].id for m in listening} == {id}
        for member in listening:
            crowd.reset(member)
        until(lambda: server.stats()["streams"] == 0)
        until(lambda: server.stats()["descriptors"] <= alone)
        again = crowd.join_all(len(listening), "room")
        assert all(member.opening for member in again)
        assert server.stats()["process"] == worker


@pytest.mark.parametrize(
    ("kind", "hands_off"),
    [
        ("gunicorn gthread", True),
        ("gunicorn gthread", False),
        ("gunicorn gevent", True),
        ("gunicorn gevent", False),
    ],
)
def test_the_limit_holds_when_many_come_at_once(kind: str, hands_off: bool) -> None:
    """Each client is let in or refused before the first stream begins."""
    limit, comers = 3, 20
    with (
        serve(
            kind,
            app=CROWDED,
            SSE_HEARTBEAT=NEVER,
            SSE_MAX_CONNECTIONS=limit,
            SSE_HANDOFF=hands_off,
        ) as server,
        Crowd(server.port) as crowd,
    ):
        for meeting in range(5):
            members = [
                crowd.join("room", meeting=str(meeting), party=str(comers))
                for _ in range(comers)
            ]
            crowd.await_answers(members)
            listening = [member for member in members if member.opening]
            assert len(listening) == limit
            refused = [member for member in members if not member.opening]
            assert all(map(is_told_to_come_back, refused))
            until(lambda: server.stats()["streams"] == limit)
            server.close("room")
            for member in members:
                crowd.leave(member)
            until(lambda: server.stats()["streams"] == 0)
            server.publish({"data": "opens the channel again", "channel": "room"})


@pytest.mark.parametrize("kind", WORKERS)
def test_a_stream_that_never_began_takes_nobodys_place(kind: str) -> None:
    limit = 3
    with (
        serve(
            kind, app=CROWDED, SSE_HEARTBEAT=NEVER, SSE_MAX_CONNECTIONS=limit
        ) as server,
        Crowd(server.port) as crowd,
    ):
        for _ in range(2 * limit):
            head = server.request("HEAD", "/stream?channel=room")
            assert head.status == 200
            other = server.request("GET", "/stream?channel=room&replace=yes")
            assert other.body == b"something else"
        for _ in range(2 * limit):
            crowd.reset(crowd.join("room"))

        def all_find_room() -> bool:
            """Whether there is room for all. The server takes its time to notice who
            has left."""
            members = crowd.join_all(limit, "room")
            if all(member.opening for member in members):
                return True
            for member in members:
                crowd.leave(member)
            return False

        until(all_find_room)


# Leaving


@pytest.mark.parametrize("kind", ["gevent.pywsgi", "gunicorn gevent"])
def test_on_an_idle_server_a_client_that_says_no_more_sees_its_end(kind: str) -> None:
    """Nothing else turns gevent's loop."""
    with (
        serve(kind, app=CROWDED, SSE_HEARTBEAT=NEVER) as server,
        Crowd(server.port) as crowd,
    ):
        member, other = crowd.join_all(2, "room")
        crowd.half_close(member)
        crowd.until(lambda: member.is_over)
        assert member.is_whole
        assert not other.is_over


@pytest.mark.parametrize("kind", WORKERS)
def test_2000_who_came_and_went_leave_nothing_behind(kind: str) -> None:
    with (
        serve(kind, app=CROWDED, SSE_HEARTBEAT=NEVER) as server,
        Crowd(server.port) as crowd,
    ):

        def come_and_go(times: int) -> None:
            for lot in range(times // 50):
                members = crowd.join_all(50, f"room.{lot % 10}", "lobby")
                assert all(member.opening for member in members)
                for number, member in enumerate(members):
                    (crowd.reset if number % 2 else crowd.leave)(member)
            until(lambda: server.stats()["streams"] == 0)

        def blocks() -> int:
            return int(server.request("GET", "/blocks").body)

        come_and_go(500)
        before = server.stats()
        blocks_before = blocks()
        come_and_go(2000)
        until(lambda: server.stats()["descriptors"] <= before["descriptors"])
        after = server.stats()
        assert after["process"] == before["process"]
        # One object for each stream would be a leak.
        until(lambda: blocks() < blocks_before + 1000)
        # Memory outside of objects would be a leak, too: 150 bytes a stream are one.
        # What threads that work at the same time take of the system, they use again. So
        # memory must cease to grow, which it does after a few rounds.
        process, rounds, calm = psutil.Process(before["process"]), 0, 0
        while calm < 2:
            assert rounds < 10, "memory grows without an end"
            memory = process.memory_info().rss
            come_and_go(6000)
            blocks()  # Memory that is free is given back to the system.
            each = (process.memory_info().rss - memory) / 6000
            rounds, calm = rounds + 1, calm + 1 if each < 150 else 0

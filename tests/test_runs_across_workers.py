"""A run belongs to a service, and not to one of its workers. At any other worker a
client can read it, resume it and end it, and is told when its worker died."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import urlencode

import h11
import pytest

from flask_sse_lite import Event
from flask_sse_lite.brokers.follower import Follower
from flask_sse_lite.channels import Channels
from flask_sse_lite.own_events import BOOKKEEPING
from flask_sse_lite.testing.broker_suite import StoreUnderTest, begun, say

from .patience import patient
from .redis_servers import redis_server
from .servers import HOST, PATIENCE, Client, Server, serve, several, until
from .stores import shared

__all__ = ["shared"]

WORKERS = 4

GUNICORNS = ["gunicorn gevent", "gunicorn gthread", "gunicorn sync"]

BROKERS = ["sqlite", "redis"]

#: Seconds for which a client waits to be told that the worker of its run died. Ten are
#: promised: test_duties.py tests that by a clock that a busy machine does not move.
TOLD_OF_DEATH = patient(15.0)


@contextmanager
def workers(kind: str, broker: str, folder: Path) -> Iterator[Server]:
    with ExitStack() as stack:
        if broker == "redis":
            url = stack.enter_context(redis_server()).url
        else:
            url = f"sqlite:///{folder}/events.db"
        yield stack.enter_context(
            serve(
                kind,
                app="tests.applications.generators:app",
                options=several(kind, WORKERS),
                SSE_URL=url,
                FOLDER=str(folder),
            )
        )


@pytest.fixture(
    scope="module",
    params=[(kind, broker) for broker in BROKERS for kind in GUNICORNS],
    ids=lambda param: " ".join(param),
)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    kind, broker = request.param
    with workers(kind, broker, tmp_path_factory.mktemp("runs")) as server:
        yield server


class Runs:
    """The runs of one test, under a name that no other test uses.

    :param server: the server on which they run.
    """

    _count = 0

    def __init__(self, server: Server) -> None:
        Runs._count += 1
        self.server = server
        self.name = f"run-{Runs._count}"
        self._clients = ExitStack()

    def start(
        self,
        steps: str,
        *,
        since: str = "",
        channel: str = "",
        linger: float = 30,
        method: str = "GET",
    ) -> Client:
        """Ask any worker for the view that starts a run."""
        asked = {"name": self.name, "steps": steps, "linger": linger}
        if channel:
            asked["channel"] = channel
        client = self._client()
        headers = {"Last-Event-ID": since} if since else {}
        client.request(f"/run?{urlencode(asked)}", method, headers)
        return client

    def open(self, target: str, since: str = "") -> Client:
        client = self._client()
        client.request(target, headers={"Last-Event-ID": since} if since else {})
        return client

    def _client(self) -> Client:
        return self._clients.enter_context(Client(self.server.port))

    def _beside_others(self, ask: Callable[[], Client]) -> Client:
        """Ask beside connections that say nothing. On an idle machine the same worker
        is always the fastest to take a connection: it is busy with one of these then.
        """
        with ExitStack() as stack:
            for _ in range(random.randrange(WORKERS)):
                other = socket.create_connection((HOST, self.server.port))
                stack.enter_context(other)
            return ask()

    def elsewhere(self, client: Client, ask: Callable[[], Client]) -> Client:
        """What ``ask`` returns from another worker than the one that answered a
        client."""

        def found() -> Client | None:
            other = self._beside_others(ask)
            if other.headers["x-process"] != client.headers["x-process"]:
                return other
            other.leave()
            return None

        return until(found)  # type: ignore[return-value]

    def everywhere(self, ask: Callable[[], Client]) -> list[Client]:
        """What ``ask`` returns from each of the workers."""
        found: dict[str, Client] = {}

        def is_complete() -> bool:
            client = self._beside_others(ask)
            if found.setdefault(client.headers["x-process"], client) is not client:
                client.leave()
            return len(found) == WORKERS

        until(is_complete)
        return list(found.values())

    def go_on(self) -> None:
        """Open the gate for which "wait" waits."""
        target = f"/open?{urlencode({'gate': self.name})}"
        assert self.server.request("POST", target).status == 204

    def happened(self) -> list[str]:
        target = f"/notes?{urlencode({'name': self.name})}"
        notes: list[str] = json.loads(self.server.request("GET", target).body)
        return notes

    def close(self) -> None:
        self.go_on()
        self._clients.close()


@pytest.fixture
def runs(server: Server) -> Iterator[Runs]:
    runs = Runs(server)
    try:
        yield runs
    finally:
        runs.close()


def data(events: list[Event]) -> list[str]:
    return [event.data for event in events]


def rest(client: Client) -> list[tuple[str | None, str]]:
    """What is left of a stream, up to its end."""
    return [(e.type, e.data) for e in client.events if e.type not in BOOKKEEPING]


END = ("stream-end", "")


def test_a_run_is_read_through_any_worker_from_its_first_event(runs: Runs) -> None:
    first = runs.start("1,2,wait,3")
    assert data(first.take(2)) == ["1", "2"]
    location = first.headers["location"]
    readers = runs.everywhere(lambda: runs.open(location))
    for reader in readers:
        assert reader.status == 200
        assert data(reader.take(2)) == ["1", "2"]
    runs.go_on()
    for reader in (first, *readers):
        assert rest(reader) == [(None, "3"), END]
    # The same holds when the run is over.
    for reader in runs.everywhere(lambda: runs.open(location)):
        assert data(reader.take(3)) == ["1", "2", "3"]
        assert rest(reader) == [END]
    assert runs.happened().count("begin") == 1


def test_a_run_can_be_read_elsewhere_as_soon_as_it_has_begun(runs: Runs) -> None:
    for _ in range(20):
        first = runs.start("wait", method="POST")
        location = first.headers["location"]
        other = runs.elsewhere(first, lambda: runs.open(location))  # noqa: B023
        assert other.status == 200
        first.leave()
        other.leave()


def test_a_run_is_resumed_through_any_worker_by_the_id_alone(runs: Runs) -> None:
    first = runs.start("1,2,3,wait,4")
    ids = [event.id or "" for event in first.take(3)]
    first.leave()
    for reader in runs.everywhere(lambda: runs.start("never", since=ids[0])):
        assert data(reader.take(2)) == ["2", "3"]
    reader = runs.start("never", since=ids[1])
    runs.go_on()
    last, end = reader.take(3)[1:]
    assert (last.data, end.type) == ("4", "stream-end")
    for late in runs.everywhere(lambda: runs.start("never", since=end.id or "")):
        assert late.status == 204
    assert runs.happened().count("begin") == 1


def test_a_second_start_in_a_channel_attaches_to_the_first(runs: Runs) -> None:
    channel = f"channel.{runs.name}"
    first = runs.start("1,wait,2", channel=channel)
    assert data(first.take(1)) == ["1"]
    others = runs.everywhere(lambda: runs.start("never", channel=channel))
    for other in others:
        assert data(other.take(1)) == ["1"]
    runs.go_on()
    for reader in (first, *others):
        assert rest(reader) == [(None, "2"), END]
    assert runs.happened().count("begin") == 1


def test_of_many_that_start_at_once_one_does(runs: Runs) -> None:
    for number in range(10):
        channel = f"{number}.{runs.name}"
        with ThreadPoolExecutor(2 * WORKERS) as threads:
            starting = [
                threads.submit(runs.start, f"{number} {n},wait", channel=channel)
                for n in range(2 * WORKERS)
            ]
            readers = [client.result(2 * PATIENCE) for client in starting]
        heard = {reader.take(1)[0].data for reader in readers}
        assert len(heard) == 1
        runs.server.close(channel)
        for reader in readers:
            assert rest(reader) == [END]
    assert runs.happened().count("begin") == 10


def test_a_run_is_closed_through_any_worker(runs: Runs) -> None:
    for number in range(2 * WORKERS):
        channel = f"{number}.{runs.name}"
        reader = runs.start("1,tick", channel=channel)
        assert data(reader.take(1)) == ["1"]
        runs.server.close(channel)
        assert rest(reader)[-1] == END
        until(lambda n=number: runs.happened().count("closed") == n + 1)  # type: ignore[misc]


def test_a_channel_is_free_for_another_run_when_it_was_closed(runs: Runs) -> None:
    channel = f"channel.{runs.name}"
    for number in range(2 * WORKERS):
        reader = runs.start(f"{number},wait", channel=channel)
        assert data(reader.take(1)) == [str(number)]
        runs.server.close(channel)
        assert rest(reader) == [END]


def test_a_run_that_was_closed_elsewhere_is_given_to_nobody_anew(
    shared: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A worker that is behind: its follower never runs.
    monkeypatch.setattr(Follower, "_follow", lambda *_: None)
    runner, worker = shared.open(), Channels({"SSE_URL": shared.url}, json.dumps)
    with closing(worker):
        say(runner, begun(runner, "job.7"), "1")
        assert worker.attend("job.7", "") is not None
        runner.end("job.7")
        assert worker.attend("job.7", "") is None


def test_a_run_ends_when_nobody_listens_to_any_worker_and_not_before(
    server: Server, runs: Runs
) -> None:
    first = runs.start("1,wait,2", linger=0.5)
    first.take(1)
    location = first.headers["location"]
    other = runs.elsewhere(first, lambda: runs.open(location))
    first.leave()
    left = Runs(server)
    last = left.start("1,tick", linger=0.5)
    last.take(1)
    last.leave()
    # The run that nobody reads began after the one that is read elsewhere.
    until(lambda: "closed" in left.happened(), 2 * PATIENCE)
    assert "closed" not in runs.happened()
    runs.go_on()
    assert rest(other) == [(None, "1"), (None, "2"), END]


def test_a_run_is_kept_as_a_whole_at_every_worker(runs: Runs) -> None:
    first = runs.start("many:2000,wait")
    everything = [str(n) for n in range(2000)]
    assert data(first.take(2000)) == everything
    location = first.headers["location"]
    for reader in runs.everywhere(lambda: runs.open(location)):
        assert data(reader.take(2000)) == everything


def test_readers_everywhere_are_told_when_the_worker_of_a_run_died(runs: Runs) -> None:
    channel = f"channel.{runs.name}"
    first = runs.start("1,wait", channel=channel)
    first.take(1)
    target = f"/stream?{urlencode({'channel': channel})}"
    readers = [
        runs.elsewhere(first, lambda: runs.start("never", channel=channel)),
        runs.elsewhere(first, lambda: runs.open(target)),
    ]
    os.kill(int(first.headers["x-process"]), signal.SIGKILL)
    for reader in readers:
        reader.socket.settimeout(TOLD_OF_DEATH)
        told = [(type, text) for type, text in rest(reader) if text != "1"]
        assert told == [("stream-error", '{"reason": "lost"}'), END]
    # A client that asks now begins a new run.
    again = runs.start("again,wait", channel=channel)
    assert data(again.take(1)) == ["again"]
    runs.server.close(channel)


def subscribers(server: Server, channel: str) -> int:
    target = f"/subscribers?{urlencode({'channel': channel})}"
    return int(server.request("GET", target).body)


def test_streams_are_counted_over_all_workers_whichever_is_killed(
    server: Server, runs: Runs
) -> None:
    with server.channel() as room:
        target = f"/stream?{urlencode({'channel': room})}"
        streams = runs.everywhere(lambda: runs.open(target))
        streams += [runs.open(target) for _ in range(6)]

        def count_is(number: int) -> Callable[[], bool]:
            # Any worker can answer.
            return lambda: all(subscribers(server, room) == number for _ in range(8))

        until(count_is(len(streams)))
        victim = streams[0].headers["x-process"]
        os.kill(int(victim), signal.SIGKILL)
        left = [s for s in streams if s.headers["x-process"] != victim]
        until(count_is(len(left)))
        for stream in left[:2]:
            stream.leave()
        until(count_is(len(left) - 2))


# The last test, as the old workers stay for a while.
def test_readers_are_told_when_the_workers_are_replaced(runs: Runs) -> None:
    first = runs.start("1,wait")
    (event,) = first.take(1)
    location = first.headers["location"]
    before = first.headers["x-process"]
    runs.server.signal(signal.SIGHUP)
    told: list[str] = []
    since = event.id or ""

    def come_back() -> bool:
        nonlocal since
        try:
            with Client(runs.server.port) as client:
                client.request(location, headers={"Last-Event-ID": since})
                if client.status == 204:
                    return True
                if client.status == 503:
                    return False
                for event in client.events:
                    since = event.id or since
                    if event.type in ("stream-error", "stream-end"):
                        told.append(event.data)
        except (OSError, h11.RemoteProtocolError, http.client.HTTPException):
            pass
        return "" in told

    until(come_back)
    assert told == ['{"reason": "shutdown"}', ""]
    until(lambda: runs.server.is_served_by_another(int(before)))

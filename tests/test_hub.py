"""The hub with real sockets: what it sends to whom, and that it outlives failures."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from flask_sse_lite import Event
from flask_sse_lite.history.log import Log
from flask_sse_lite.hub.connection import Connection
from flask_sse_lite.hub.loop import WRITES_PER_BREATH, Hub
from flask_sse_lite.settings import Settings
from flask_sse_lite.system import poller as polling
from flask_sse_lite.system.poller import IS_SUPPORTED, Poller

from .hubs import LARGE, PATIENCE, SETTINGS, Client, connect, hub, log
from .servers import until

__all__ = ["connect", "hub", "log"]

pytestmark = pytest.mark.skipif(
    not IS_SUPPORTED, reason="connections are taken over on Linux only"
)

Connect = Callable[..., Client]

#: For tests that look at the very bytes: no heartbeat comes between them.
SILENT = Settings.read({"SSE_HEARTBEAT": 60, "SSE_MAX_STALL": PATIENCE})


def test_events_reach_all_who_listen(log: Log, connect: Connect) -> None:
    clients = [connect() for _ in range(20)]
    for n in range(10):
        log.append("a", Event(str(n)))
    for client in clients:
        assert client.read_until("9") == [str(n) for n in range(10)]


def test_who_joins_a_group_with_a_backlog_gets_nothing_twice(
    hub: Hub, log: Log, connect: Connect
) -> None:
    # Each piece that a group is sent holds two of these events.
    first = connect()
    log.append("a", Event("first"))
    first.read_until("first")
    for n in range(6):
        log.append("a", Event(f"{n} " + "x" * 40_000))
    second = connect()
    log.append("a", Event("last"))
    assert second.read_until("last") == ["last"]
    assert [data[:2] for data in first.read_until("last")] == [
        *("fi", "0 ", "1 ", "2 ", "3 ", "4 ", "5 ", "la")
    ]


def test_who_does_not_read_holds_up_nobody_and_gets_all_in_the_end(
    log: Log, connect: Connect
) -> None:
    idle, busy = connect(), connect()
    log.append("a", Event(LARGE))
    log.append("a", Event("after"))
    assert busy.read_until("after") == [LARGE, "after"]
    assert idle.read_until("after") == [LARGE, "after"]


def test_the_hub_knows_who_is_behind(hub: Hub, log: Log, connect: Connect) -> None:
    slow, fast = connect(), connect()
    until(lambda: hub.behind(log, 10) == [0, 0], PATIENCE)
    log.append("a", Event("begin"))
    for client in (slow, fast):
        client.read_until("begin")
    log.append("a", Event(LARGE))
    fast.read_until(LARGE)
    for n in range(3):
        log.append("a", Event(f"{n}"))
    fast.read_until("2")
    assert sorted(hub.behind(log, 10)) == [0, 3]
    assert len(hub.behind(log, 1)) == 1
    assert hub.behind(Log(history=1, age=1), 10) == []
    slow.read_until("2")
    until(lambda: hub.behind(log, 10) == [0, 0], PATIENCE)


def test_who_reads_too_late_is_told_of_the_gap(hub: Hub) -> None:
    log = Log(history=2, age=300)
    client = Client(hub, log, "a", settings=SILENT)
    with client.socket:
        log.append("a", Event(LARGE))
        client.socket.recv(1, socket.MSG_PEEK)  # The hub has begun to send it.
        for n in range(5):
            log.append("a", Event(str(n)))
        client.read_until("4")
        types = [event.type for event in client.events]
        assert types == [None, "stream-gap", None, None]


def test_each_gets_a_channel_in_the_framing_of_its_own_response(
    hub: Hub, log: Log
) -> None:
    plain, chunked = [
        Client(hub, log, "a", chunked=chunked, settings=SILENT)
        for chunked in (False, True)
    ]
    try:
        frame = log.append("a", Event("one")).encode()
        expected = b"%x\r\n%b\r\n" % (len(frame), frame)
        assert plain.read_until("one") == ["one"]
        assert chunked.socket.recv(len(expected), socket.MSG_WAITALL) == expected
        # A publisher waits for its readers: it must wait for both.
        until(
            lambda: (
                [len(group.connections()) for group in hub._fanout.groups.values()]
                == [2]
            )
        )
        log.end("a")
        assert plain.read_to_end()[-1] == "stream-end"
        rest = b"".join(iter(lambda: chunked.socket.recv(1 << 20), b""))
        assert rest.endswith(b"\n\r\n0\r\n\r\n")
    finally:
        plain.socket.close()
        chunked.socket.close()


def test_sends_keep_the_gil_while_a_thread_computes_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(polling, "KEEPS_GIL", 0.0)
    poller, is_over = Poller(), threading.Event()
    one, other = socket.socketpair()
    deadline = time.monotonic() + PATIENCE

    def compute() -> None:
        while not is_over.is_set() and time.monotonic() < deadline:
            sum(range(1_000))

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        poller.wait(0)
        assert poller.send is os.write
        while poller.send is os.write and time.monotonic() < deadline:
            assert poller.send(one.fileno(), b"x") == len(other.recv(1))
            poller.breathe()
        assert poller.send is not os.write
        assert poller.send(one.fileno(), b"xyz") == 3
        assert other.recv(9) == b"xyz"
    finally:
        is_over.set()
        thread.join()
        one.close()
        other.close()
    assert time.monotonic() < deadline
    poller.wait(0)
    assert poller.send is os.write
    poller.close()


def test_who_publishes_in_the_middle_of_a_delivery_gets_the_gil_no_more(
    hub: Hub, log: Log, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = [connect("a") for _ in range(3 * WRITES_PER_BREATH)]
    log.append("a", Event("0"))
    for client in clients:
        client.read_until("0")
    given: list[int] = []

    def send(descriptor: int, data: bytes) -> int:
        if b"data: 1\n" in data:  # No heartbeat, and nothing of a later delivery.
            if not given:
                log.append("a", Event("2"))
            given.append(descriptor)
        return os.write(descriptor, data)

    # However slow this machine is, that must not make sends keep the GIL.
    monkeypatch.setattr(sys, "getswitchinterval", lambda: 2 * PATIENCE)
    hub._poller.send = hub._poller._send = send
    log.append("a", Event("1"))
    for client in clients:
        assert client.read_until("2") == ["0", "1", "2"]
    assert len(given) == WRITES_PER_BREATH


def test_several_channels_arrive_in_one_order(log: Log, connect: Connect) -> None:
    client = connect("a", "b")
    for n in range(20):
        log.append("ab"[n % 2], Event(str(n)))
    assert client.read_until("19") == [str(n) for n in range(20)]


def test_the_end_of_a_channel_is_the_end_of_its_streams(
    log: Log, connect: Connect
) -> None:
    client = connect()
    log.append("a", Event("last"))
    log.end("a")
    assert client.read_to_end() == [None, "stream-end"]


def test_what_was_published_before_a_stop_arrives_before_the_end(
    hub: Hub, log: Log, connect: Connect
) -> None:
    client = connect()
    until(lambda: hub.stats()["open"]["handed off"] == 1, PATIENCE)
    log.append("a", Event("last"))
    hub.stop(PATIENCE)
    assert client.read_to_end() == [None]


def test_a_descriptor_that_is_closed_by_others_costs_nobody_else_a_stream(
    hub: Hub, log: Log, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    one = connect()
    connection = Connection(2**20, log.cursor(["a"]), log, SETTINGS, chunked=False)
    place = hub.arrive(SETTINGS)
    assert place
    hub.adopt(connection, place)
    two = connect()
    log.append("a", Event("still here"))
    for client in (one, two):
        assert client.read_until("still here") == ["still here"]
    assert "could not go on" in caplog.text


def test_a_client_that_leaves_is_forgotten_at_once(hub: Hub, connect: Connect) -> None:
    client = connect()
    until(lambda: hub.stats()["open"]["handed off"] == 1, PATIENCE)
    client.socket.close()
    until(lambda: len(hub) == 0, PATIENCE)


def test_a_client_that_talks_without_end_is_sent_off(
    hub: Hub, connect: Connect
) -> None:
    client = connect()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        client.socket.sendall(b"x" * 50_000_000)
    until(lambda: len(hub) == 0, PATIENCE)


class Restless:
    """A reader of a channel in which there is always another event before all readers
    have the last: more than can be sent in time."""

    def __init__(self, hub: Hub, log: Log, client: Client) -> None:
        self._log = log
        self._client = client
        self._published = 0
        self._goes_on = True
        self._lock = threading.Lock()
        self._send = hub._poller.send
        hub._poller.send = self._send_and_publish
        self._reader = threading.Thread(target=client.read_to_end)
        self._reader.start()
        self._publish()

    def _publish(self) -> None:
        with self._lock:  # The hub publishes too, and a number must not be overtaken.
            self._published += 1
            self._log.append("restless", Event(str(self._published)))

    def _send_and_publish(self, descriptor: int, data: bytes) -> int:
        if self._goes_on:
            time.sleep(0.001)  # As if there were many that keep up.
            self._publish()
        return self._send(descriptor, data)

    def rest(self) -> str:
        """Publish one more event, and none after it.

        :returns: its data.
        """
        self._goes_on = False
        self._publish()
        return str(self._published)

    def read_to_end(self) -> list[Event]:
        self._reader.join(PATIENCE)
        assert not self._reader.is_alive()
        return self._client.events


@pytest.fixture
def restless(hub: Hub, log: Log, connect: Connect) -> Iterator[Restless]:
    restless = Restless(hub, log, connect("restless"))
    yield restless
    restless.rest()
    hub.stop(PATIENCE)
    restless.read_to_end()


def assert_served(channel: str, log: Log, connect: Connect) -> None:
    client = connect(channel)
    log.append(channel, Event("served"))
    client.read_until("served")


def test_more_than_can_be_sent_to_some_keeps_nobody_else_waiting(
    restless: Restless, hub: Hub, log: Log, connect: Connect
) -> None:
    assert_served("quiet", log, connect)
    connect("quiet").socket.close()
    until(lambda: len(hub) == 2, PATIENCE)
    hub.stop(PATIENCE)
    assert restless.read_to_end()


def test_who_joins_where_more_comes_than_can_be_sent_keeps_nobody_waiting(
    restless: Restless, hub: Hub, log: Log, connect: Connect
) -> None:
    joined = connect("restless")
    assert_served("quiet", log, connect)
    last = restless.rest()
    joined.read_until(last)
    hub.stop(PATIENCE)
    for events in (joined.events, restless.read_to_end()):
        numbers = [int(event.data) for event in events if event.type is None]
        assert sorted(set(numbers)) == numbers

"""Loops and threads of the extension that fail: they go on by themselves with what they
had, and do not spin. No stream stays open unserved."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_sse_lite import Event
from flask_sse_lite.brokers import connect as connect_to
from flask_sse_lite.brokers.shared import SharedBroker
from flask_sse_lite.event import HEARTBEAT
from flask_sse_lite.history.log import Log
from flask_sse_lite.hub import Hub, current_hub
from flask_sse_lite.hub import loop as hubs
from flask_sse_lite.hub.subscription import Subscription
from flask_sse_lite.settings import Settings
from flask_sse_lite.system.backoff import Backoff
from flask_sse_lite.testing.broker_suite import Reader, StoreUnderTest, publish

from .hubs import LARGE, SETTINGS, Client, connect, hub, log
from .redis_servers import RedisServer, redis_server
from .servers import PATIENCE, ROOT, until
from .stores import shared

__all__ = ["connect", "hub", "log", "shared"]


class Odd(BaseException):
    """Like gevent's Timeout: it is no ``Exception``."""


ERRORS: list[BaseException] = [
    *(MemoryError(), OSError(12, "no memory"), SystemExit(), KeyboardInterrupt()),
    Odd(),
]

#: Steps that the hub takes in its turns.
STEPS = [
    *("_turn", "_write", "_look_around", "_audiences.let_go"),
    *("_fanout.welcome", "_fanout.catch_up", "_fanout.join_group", "_fanout.deliver"),
    *("_fanout.fall_behind", "_fanout.serve", "_fanout.send_own", "_fanout.guard"),
    *("_fanout.leave_group", "_looks._look_at", "_looks._look_at_suspect"),
    *("_poller.wait", "_poller.breathe", "_poller.add", "_poller.watch_writable"),
]


class Fault:
    """Makes one step of an object raise, and do nothing else.

    :param times: how often it raises.
    """

    def __init__(
        self, owner: Any, path: str, error: BaseException, times: float = 1
    ) -> None:
        *names, self._name = path.split(".")
        for name in names:
            owner = getattr(owner, name)
        self._owner = owner
        self._real = getattr(owner, self._name)
        self._error = error
        self._left = times
        self.raised = 0
        setattr(owner, self._name, self)

    def __call__(self, *args: Any, **options: Any) -> Any:
        if self._left:
            self._left -= 1
            self.raised += 1
            raise self._error
        return self._real(*args, **options)

    def undo(self) -> None:
        setattr(self._owner, self._name, self._real)
        # pytest keeps the error, and its traceback would keep what was being sent.
        self._error.__traceback__ = None


def gets_or_ends(client: Client, data: str) -> bool:
    """Whether a client gets an event, or the end of its stream."""
    while not any(event.data == data for event in client.events):
        try:
            chunk = client.socket.recv(1 << 20)
        except ConnectionResetError:
            return True
        if not chunk:
            return True
        client.events += client._decoder.feed(chunk)
    return True


# The hub


@pytest.mark.parametrize(
    ("step", "error"),
    [
        *(("_welcome_all", error) for error in ERRORS),
        *((step, error) for step in STEPS for error in (MemoryError(), Odd())),
    ],
    ids=repr,
)
def test_whatever_fails_in_the_hub_every_stream_goes_on_or_ends(
    hub: Hub,
    log: Log,
    connect: Callable[..., Client],
    caplog: pytest.LogCaptureFixture,
    step: str,
    error: BaseException,
) -> None:
    settled, laggard, leaver = connect(), connect("b"), connect()
    until(lambda: hub.stats()["open"]["handed off"] == 3, PATIENCE)
    log.append("a", Event("before"))
    for client in (settled, leaver):
        client.read_until("before")
    log.append("b", Event(LARGE))
    laggard.socket.recv(1)  # The hub has begun to send it.
    laggard.events.clear()
    laggard._decoder.feed(b"d")  # The letter that was received.
    fault = Fault(hub, step, error)
    try:
        newcomer = connect()
        leaver.socket.close()
        log.append("a", Event("after"))
        log.append("a", Event(LARGE))
        log.append("b", Event("after"))
        for client in (settled, newcomer, laggard):
            assert gets_or_ends(client, "after")
        until(lambda: fault.raised)
    finally:
        fault.undo()
    client = connect()
    log.append("a", Event("at last"))
    assert client.read_until("at last")[-1] == "at last"
    assert any(record.levelname == "ERROR" for record in caplog.records)


def test_streams_that_are_iterated_go_on(caplog: pytest.LogCaptureFixture) -> None:
    log, hub = Log(history=9, age=9), current_hub()
    for error in ERRORS:
        stream = Subscription(log, log.cursor(["a"]), SETTINGS)
        assert b"stream-open" in next(stream)
        assert stream._iterated
        stream._iterated._is_in_main_thread = False  # Which is woken now and then.
        stream._iterated.tick(time.monotonic() + 20)
        assert next(stream) == HEARTBEAT  # From here on it waits for news.
        fault = Fault(hub, "_audiences.call", error)
        taken: list[bytes] = []
        reader = threading.Thread(target=lambda: taken.append(next(stream)))  # noqa: B023
        try:
            reader.start()
            log.append("a", Event("after"))
            reader.join(PATIENCE)
            assert b"after" in taken[0]
            assert fault.raised
        finally:
            fault.undo()
            stream.close()
    assert "The hub failed" in caplog.text


@pytest.mark.parametrize("step", ["_turn", "_look_around", "_poller.wait", "_resume"])
def test_where_the_hub_cannot_serve_nothing_stays_open(
    hub: Hub, log: Log, connect: Callable[..., Client], step: str
) -> None:
    client = connect()
    until(lambda: hub.stats()["open"]["handed off"] == 1, PATIENCE)
    faults = [Fault(hub, "_turn", Odd(), 10**9)]
    if step != "_turn":
        faults.append(Fault(hub, step, Odd(), 10**9))
    try:
        log.append("a", Event("after"))
        client.read_to_end()
        until(lambda: not hub.is_running, PATIENCE)
        assert len(hub) == 0
        # The hub did not spin.
        assert faults[0].raised <= hubs.FAILURES_BORNE + 2
    finally:
        for fault in faults:
            fault.undo()
    again = connect()
    log.append("a", Event("again"))
    assert again.read_until("again") == ["again"]


def test_a_look_that_fails_at_one_stream_is_the_others_look_too(
    hub: Hub, log: Log, connect: Callable[..., Client]
) -> None:
    class Broken:
        heartbeat = SETTINGS.heartbeat
        last_words = None
        program = None
        settings = None
        story = None

        def tick(self, now: float) -> None:
            raise MemoryError

        def stop(self, patience: float | None = None) -> None:
            raise MemoryError

    broken = Broken()
    hub.keep_time(broken)
    client = connect()
    assert client.socket.recv(3) == b":\n\n"
    hub.stop(PATIENCE)
    assert client.read_to_end() == []
    hub.forget(broken)


def test_pauses_grow_and_begin_anew_after_a_calm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    backoff = Backoff(1, 5)
    assert [backoff.next() for _ in range(5)] == [1, 2, 4, 5, 5]
    assert backoff.failures == 5
    now[0] += 60
    assert (backoff.next(), backoff.failures) == (1, 1)


GEVENT = """
from gevent import monkey; monkey.patch_all()
import gc, logging, socket, sys
import gevent
from gevent import socket as sockets
from flask_sse_lite import Event
from flask_sse_lite.hub.connection import Connection
from flask_sse_lite.hub import Hub
from flask_sse_lite.history.log import Log
from flask_sse_lite.settings import Settings
from tests.stand_ins import waiting_log
logging.disable(logging.CRITICAL)
gevent.get_hub().print_exception = lambda *args: None
hub, log = Hub(), Log(history=9, age=9)
client, served = socket.socketpair()
served.setblocking(False)
client.settimeout(10)
settings = Settings.read({"SSE_HEARTBEAT": 0.5})
cursor = log.cursor(["a"])
place = hub.arrive(settings)
hub.adopt(Connection(served.detach(), cursor, log, settings, chunked=False), place)

def served_on(data):
    log.append("a", Event(data))
    received = b""
    while data.encode() not in received:
        piece = client.recv(1000)
        assert piece, received
        received += piece
    hub._backoff.failures = 0  # As after a calm.

def raise_once(error):
    real = hub._welcome_all
    def step():
        hub._welcome_all = real
        raise error
    hub._welcome_all = step
    hub._wake()

served_on("first")
for error in (MemoryError(), gevent.Timeout(1), gevent.GreenletExit(), OSError()):
    raise_once(error)
    served_on(f"after {error!r}")
for error in (KeyboardInterrupt, SystemExit):
    try:
        raise_once(error())
        gevent.sleep(10)
    except error:
        served_on(f"after {error!r}")
    else:
        raise AssertionError("It is meant for the process")
all = [g for g in gc.get_objects() if isinstance(g, gevent.Greenlet) and not g.dead]
assert all
gevent.killall(all, timeout=10)
assert all[0].dead
served_on("after a kill")

with waiting_log() as handler:
    raise_once(MemoryError())
    while not handler.is_waiting:
        gevent.sleep(0.01)
all = [g for g in gc.get_objects() if isinstance(g, gevent.Greenlet) and not g.dead]
gevent.killall(all, timeout=10)
served_on("after a kill while it was logged")
"""


def run(program: str, *arguments: str) -> None:
    """Run a program in a process of its own. It must not fail."""
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_under_gevent_the_hub_goes_on_and_a_signal_is_the_process_s() -> None:
    run(GEVENT)


# What follows a broker, extends leases, and listens to bells


#: Steps of a follower besides waiting, and those of them that it repeats only after a
#: failed wait.
STEPS = [
    *("store.listen", "_follower.look", "_duties.do", "_follower._note_back"),
    "store.end_lost",
]
REACHED_AFTER_A_WAIT = ["store.listen", "_follower.look", "_follower._note_back"]

#: More events than are published while a follower pauses.
MANY = 100_000


@pytest.fixture
def follower(shared: StoreUnderTest) -> SharedBroker:
    broker = shared.open(SSE_HISTORY=MANY)
    assert isinstance(broker, SharedBroker)
    broker.store.duty_interval = 0.1
    return broker


@pytest.mark.parametrize(
    ("step", "error"),
    [
        *(("store.wait", error) for error in ERRORS),
        *((step, error) for step in STEPS for error in (MemoryError(), Odd())),
    ],
    ids=repr,
)
def test_whatever_fails_in_a_follower_it_follows_on(
    shared: StoreUnderTest, follower: SharedBroker, step: str, error: BaseException
) -> None:
    reader, other = Reader(follower, "a"), shared.open(SSE_HISTORY=MANY)
    claim = follower.begin_run("run", 1 << 20)
    assert claim
    fault = Fault(follower, step, error)
    if step in REACHED_AFTER_A_WAIT:
        Fault(follower, "store.wait", error)  # Only then are they repeated.
    try:
        until(lambda: publish(other, "a", "once more") and fault.raised)
    finally:
        fault.undo()
    publish(other, "a", "after")
    reader.until(lambda: "after" in reader.data)
    assert not reader.gaps
    # Its run has not lost its lease.
    assert follower.say(claim, Event("still here"))
    follower.end_run(claim)


def test_a_follower_that_keeps_failing_is_not_busy(
    shared: StoreUnderTest, follower: SharedBroker
) -> None:
    reader = Reader(follower, "a")
    fault = Fault(follower, "_duties.do", Odd(), 10**9)
    until(lambda: fault.raised >= 3)
    raised = fault.raised
    threading.Event().wait(1)
    fault.undo()
    assert fault.raised - raised < 10
    publish(shared.open(), "a", "after")
    reader.until(lambda: "after" in reader.data)


GEVENT_FOLLOWER = """
from gevent import monkey; monkey.patch_all()
import logging, sys, threading
import gevent
from flask_sse_lite import Event
from flask_sse_lite.brokers import connect
from flask_sse_lite.settings import Settings
from tests import test_failures as tests
from tests.stand_ins import greenlet_of, waiting_log
logging.disable(logging.CRITICAL)
unhandled = []
threading.excepthook = unhandled.append
url, step = sys.argv[1:]
settings = Settings.read({"SSE_URL": url, "SSE_HISTORY": tests.MANY})
broker, other = connect(settings), connect(settings)
broker.store.duty_interval = 0.1
reader = tests.Reader(broker, "a")
claim = broker.begin_run("run", 1 << 20)
# Otherwise no run is taken for lost for some seconds after each failure.
broker._duties.be_patient = lambda: None

def follows_on(data):
    tests.publish(other, "a", data)
    reader.until(lambda: data in reader.data)
    assert broker._follower.thread.is_alive()

follows_on("first")
for error in (MemoryError(), gevent.Timeout(1), gevent.GreenletExit(), SystemExit()):
    fault = tests.Fault(broker, step, error)
    if step in tests.REACHED_AFTER_A_WAIT:
        tests.Fault(broker, "store.wait", error)  # Only then are they repeated.
    tests.until(lambda: tests.publish(other, "a", "once more") and fault.raised)
    fault.undo()
    follows_on(f"after {error!r}")

def kill_follower():
    thread = broker._follower.thread
    gevent.kill(greenlet_of(thread))
    tests.until(lambda: broker._follower.thread is not thread)

kill_follower()
follows_on("after a kill")
fault = tests.Fault(broker, "store.wait", MemoryError(), 10**9)
tests.until(lambda: fault.raised >= 3)  # From here on it pauses nearly all the time.
kill_follower()
fault.undo()
follows_on("after a kill in a pause")

with waiting_log() as handler:
    fault = tests.Fault(broker, "store.wait", MemoryError())
    tests.until(lambda: tests.publish(other, "a", "once more") and handler.is_waiting)
kill_follower()
fault.undo()
follows_on("after a kill while it was logged")
assert not reader.gaps
# Its run has not lost its lease.
assert broker.say(claim, Event("still here"))
broker.end_run(claim)
broker.close()
other.close()
assert not unhandled, unhandled
"""


@pytest.mark.parametrize("step", ["store.wait", *STEPS])
def test_under_gevent_a_follower_follows_on(shared: StoreUnderTest, step: str) -> None:
    run(GEVENT_FOLLOWER, shared.url, step)


# What weighs a Redis


#: Bytes that the store may have, and of one event. (A test publishes more of them.)
LIMIT = 200_000
LARGE_DATA = "x" * 2_000


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def weighed(server: RedisServer) -> Iterator[SharedBroker]:
    config = {"SSE_HISTORY_BYTES": LIMIT, "SSE_HISTORY": MANY}
    broker = connect_to(Settings.read({"SSE_URL": server.url, **config}))
    assert isinstance(broker, SharedBroker)
    yield broker
    broker.close()


@pytest.fixture
def unhandled(monkeypatch: pytest.MonkeyPatch) -> list[threading.ExceptHookArgs]:
    """What has ended threads, of which Python would print a bare traceback."""
    unhandled: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", unhandled.append)
    return unhandled


def is_lightened(server: RedisServer, broker: SharedBroker) -> bool:
    """Publish on, and whether the store is light then."""
    # Whoever was told to weigh is the only one for some seconds.
    server.ask("HSET", "sse:store", "weighing", "0")
    publish(broker, "a", LARGE_DATA)
    return bool(server.ask("MEMORY", "USAGE", "sse:channel:a") <= LIMIT)


def is_told_to_weigh(broker: SharedBroker, fault: Fault) -> bool:
    publish(broker, "a", LARGE_DATA)
    return fault.raised > 0


@pytest.mark.parametrize("step", ["_channels", "_ask"])
@pytest.mark.parametrize("error", [*ERRORS, RuntimeError("odd")], ids=repr)
def test_a_redis_whose_weighing_failed_is_weighed_again(
    server: RedisServer,
    weighed: SharedBroker,
    caplog: pytest.LogCaptureFixture,
    unhandled: list[threading.ExceptHookArgs],
    step: str,
    error: BaseException,
) -> None:
    scales = weighed.store._scales  # type: ignore[attr-defined]
    fault = Fault(scales, step, error)
    until(lambda: is_told_to_weigh(weighed, fault))
    until(lambda: not scales._is_running)
    fault.undo()
    publish(weighed, "a", *[LARGE_DATA] * 200)
    until(lambda: is_lightened(server, weighed))
    assert not unhandled
    (record,) = caplog.records
    assert record.exc_info
    assert record.exc_info[1] is error


@pytest.mark.parametrize("error", [RuntimeError("can't start"), MemoryError()])
def test_a_redis_is_weighed_again_where_no_thread_could_be_started(
    server: RedisServer,
    weighed: SharedBroker,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    """The event was published, so nobody is told of that."""
    start, refused = threading.Thread.start, list[threading.Thread]()

    def refuse_once(thread: threading.Thread) -> None:
        if thread.name == "flask_sse_lite.scales" and not refused:
            refused.append(thread)
            raise error
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_once)
    until(lambda: publish(weighed, "a", LARGE_DATA) and refused)
    until(lambda: is_lightened(server, weighed))

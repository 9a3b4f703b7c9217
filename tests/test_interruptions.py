"""Code that interrupts a call of ours in its own thread and calls us itself: a signal
handler, a ``__del__``, a handler of the log. No call waits for itself, and nothing is
lost."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from flask_sse_lite import SSE, BrokerUnavailable, Event, Publisher, Reentered
from flask_sse_lite.brokers.shared import SharedBroker
from flask_sse_lite.channels import Channels
from flask_sse_lite.history.revocations import REVOCATIONS
from flask_sse_lite.hub import current_hub
from flask_sse_lite.testing import read_events
from flask_sse_lite.testing.broker_suite import Reader

from .interruption import Interruption
from .redis_servers import redis_server
from .servers import until

#: Seconds after which a thread without progress counts as waiting for itself.
HANGS = 60.0

#: Steps from one interrupted step to the next: more where a publish to the store takes
#: long.
STRIDES = {"memory": 2, "sqlite": 7, "redis": 7}

#: Verbs that take more steps than others, and how many times as many.
LONGER = {"stream": 5, "end_streams": 5, "run": 15}


def in_a_thread(do: Callable[[], object], taken: Callable[[], int] = int) -> None:
    """Do something in a thread; fail if it neither ends nor goes on.

    :param taken: counts its steps.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            do()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        before = taken()
        thread.join(HANGS)
        assert not thread.is_alive() or taken() > before, "it waits for itself"
    if errors:
        raise errors[0]


@pytest.fixture(params=STRIDES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def app(kind: str, sse: SSE, tmp_path: Path) -> Iterator[Flask]:
    app = Flask("interrupted")
    app.config.update(SSE_HISTORY=4096, SSE_HEARTBEAT=0.4, SSE_PUBLIC_CHANNELS=["*"])
    app.register_blueprint(sse)
    if kind == "redis":
        with redis_server() as server:
            app.config["SSE_URL"] = server.url
            yield app
            app.extensions["sse"].close()
        return
    if kind == "sqlite":
        app.config["SSE_URL"] = f"sqlite:///{tmp_path}/events.db"
    yield app
    app.extensions["sse"].close()


class GuestVerbs:
    """Calls that a process without an application makes, and what came of them.

    :param caller: what is called.
    """

    def __init__(self, app: Flask, caller: SSE | Publisher) -> None:
        self._app = app
        self._caller = caller
        self._numbers = count()
        #: The events that were published, in the order in which the calls returned, the
        #: identities that were disconnected, and the calls that were refused.
        self.published: list[Event] = []
        self.disconnected: list[str] = []
        self.refused: list[str] = []

    def publish(self) -> None:
        data = str(next(self._numbers))
        try:
            self.published.append(self._caller.publish(data, channel="room"))
        except Reentered:
            self.refused.append(data)

    def close(self) -> None:
        self._caller.close("other")

    def position(self) -> None:
        self._caller.position()

    def present(self) -> None:
        self._caller.present("room")

    def disconnect(self) -> None:
        who = f"client {next(self._numbers)}"
        self._caller.disconnect(who)
        self.disconnected.append(who)

    def call(self, verb: str) -> None:
        """Call a verb, which can be refused."""
        with self._app.app_context():
            try:
                getattr(self, verb)()
            except Reentered:
                self.refused.append(verb)

    def settle(self) -> None:
        """Await what the calls have begun."""


class Verbs(GuestVerbs):
    """Calls that an application makes, and what came of them."""

    def __init__(self, app: Flask, sse: SSE) -> None:
        super().__init__(app, sse)
        self._sse = sse
        self._begun: list[TestResponse] = []
        self._ending: list[Iterator[bytes]] = []
        app.add_url_rule("/run", view_func=lambda: sse.run(["1", "2"]))

    def subscribers(self) -> None:
        self._sse.subscribers("room")

    def stats(self) -> None:
        self._sse.stats()

    def messages(self) -> None:
        list(self._sse.messages("room", timeout=0))

    def get(self, target: str) -> TestResponse:
        response = self._app.test_client().get(target)
        if response.status_code == 503:
            raise Reentered  # The view's answer to it.
        return response

    def stream(self) -> None:
        response = self.get("/stream?channel=room")
        read_events(response, count=1, timeout=10, bookkeeping=True)

    def run(self) -> None:
        self._begun.append(self.get("/run"))

    def end_streams(self) -> None:
        # The hub has something to end.
        steps = self.get("/stream?channel=room").iter_encoded()
        next(steps)
        self._ending.append(steps)
        self._sse.end_streams()

    def settle(self) -> None:
        # What a run says can need a lock of the interrupted call.
        while self._begun:
            events = read_events(self._begun.pop(), timeout=HANGS)
            assert [event.data for event in events[:-1]] == ["1", "2"]
            assert events[-1].type == "stream-end"
        if self._ending:
            with self._app.app_context():
                self._sse.end_streams()  # The calls before can have been refused.
        while self._ending:
            assert b"stream-gap" not in b"".join(self._ending.pop())


VERBS = [
    *("publish", "close", "position", "subscribers", "present", "stats", "messages"),
    *("stream", "run", "disconnect", "end_streams"),
]

#: The verbs that a ``Publisher`` has, too.
GUEST_VERBS = ["publish", "close", "position", "present", "disconnect"]


@pytest.fixture
def verbs(app: Flask, sse: SSE) -> Iterator[Verbs]:
    verbs = Verbs(app, sse)
    yield verbs
    until(lambda: not current_hub().is_running)


def interrupt_everywhere(
    verbs: GuestVerbs, outer: str, inner: str, first: int, stride: int
) -> None:
    """Call a verb again and again, and interrupt it at one step after the other."""
    taken: list[int] = []

    def run() -> None:
        for at in count(first, stride):
            taken.append(at)
            interruption = Interruption([at], lambda: verbs.call(inner))
            interruption.run(lambda: verbs.call(outer))
            verbs.settle()
            if not interruption.was_called:
                return

    in_a_thread(run, lambda: len(taken))


def received(app: Flask, since: str) -> list[str]:
    with app.app_context():
        channels: Channels = app.extensions["sse"]
        found = list(channels.messages(["room"], since, 0.2))
    assert all(event.type is None for event in found), found[0]
    return [event.data for event in found]


def revoked(app: Flask, since: str) -> list[str]:
    """The identities that were disconnected."""
    reader = Reader(app.extensions["sse"].broker, REVOCATIONS, since=since)
    reader.read()
    assert not reader.gaps
    return [event.json["identity"] for event in reader.events]


def check_what_came(verbs: GuestVerbs, app: Flask, since: str) -> None:
    """All that was published can be read, once, in the order of its ids, and nothing
    else. Who was disconnected is so, once."""

    def position(event: Event) -> int:
        assert event.id
        return int(event.id.partition("-")[2])

    expected = [event.data for event in sorted(verbs.published, key=position)]
    assert len({event.id for event in verbs.published}) == len(verbs.published)
    assert received(app, since) == expected
    assert sorted(revoked(app, since)) == sorted(verbs.disconnected)


@contextmanager
def check_of_what_comes(verbs: GuestVerbs, app: Flask, sse: SSE) -> Iterator[None]:
    """``check_what_came`` for what is published in the block."""
    with app.app_context():
        since = sse.position()
    yield
    check_what_came(verbs, app, since)


@pytest.mark.parametrize("inner", VERBS)
def test_publish_is_interrupted_at_each_step(
    app: Flask, sse: SSE, verbs: Verbs, kind: str, inner: str
) -> None:
    stride = STRIDES[kind] * (1 if inner == "publish" else 5)
    with check_of_what_comes(verbs, app, sse):
        interrupt_everywhere(verbs, "publish", inner, 1 + VERBS.index(inner), stride)
    if kind != "sqlite":
        assert not {str(n) for n in range(10_000)} & set(verbs.refused)


@pytest.mark.parametrize("outer", VERBS[1:])
def test_each_verb_is_interrupted_by_publish(
    app: Flask, sse: SSE, verbs: Verbs, kind: str, outer: str
) -> None:
    stride = 3 * STRIDES[kind] * LONGER.get(outer, 1)
    with check_of_what_comes(verbs, app, sse):
        interrupt_everywhere(verbs, outer, "publish", 1, stride)


def test_publish_is_interrupted_while_others_listen(
    app: Flask, sse: SSE, verbs: Verbs, kind: str
) -> None:
    """Listeners get all of it soon, too."""
    got: list[str] = []
    with app.app_context():
        messages = sse.messages("room", timeout=HANGS)
        since = sse.position()

        def listen() -> None:
            for event in messages:
                got.append(event.data)
                if event.data == "the end":
                    return

        listener = threading.Thread(target=listen)
        listener.start()
        interrupt_everywhere(verbs, "publish", "publish", 1, 3 * STRIDES[kind])
        verbs.published.append(sse.publish("the end", channel="room"))
        listener.join(HANGS)
    check_what_came(verbs, app, since)
    assert got == received(app, since)


# A publisher


@pytest.fixture
def guest(app: Flask) -> Iterator[GuestVerbs]:
    with Publisher.from_url(app.config["SSE_URL"]) as publisher:
        yield GuestVerbs(app, publisher)


@pytest.mark.parametrize("kind", ["sqlite", "redis"], indirect=True)
@pytest.mark.parametrize("inner", GUEST_VERBS)
def test_a_publisher_is_interrupted_at_each_step(
    app: Flask, sse: SSE, guest: GuestVerbs, kind: str, inner: str
) -> None:
    first = 1 + GUEST_VERBS.index(inner)
    with check_of_what_comes(guest, app, sse):
        interrupt_everywhere(guest, "publish", inner, first, STRIDES[kind])
    if kind != "sqlite":
        assert not guest.refused


@pytest.mark.parametrize("kind", ["sqlite", "redis"], indirect=True)
@pytest.mark.parametrize("outer", GUEST_VERBS[1:])
def test_each_verb_of_a_publisher_is_interrupted_by_publish(
    app: Flask, sse: SSE, guest: GuestVerbs, kind: str, outer: str
) -> None:
    with check_of_what_comes(guest, app, sse):
        interrupt_everywhere(guest, outer, "publish", 1, 3 * STRIDES[kind])


# Real interruptions

PROGRAM = """
import gc, json, logging, signal, sys, weakref
from itertools import count
from flask import Flask
from flask_sse_lite import sse

url, by = sys.argv[1:]
app = Flask("interrupted")
app.config.update(SSE_URL=url, SSE_HISTORY=100_000)
sse.init_app(app)
logging.disable(logging.CRITICAL)
said, refused = [], []

def say(data):
    try:
        said.append([sse.publish(data).id, data])
    except Exception as error:
        refused.append(type(error).__name__)

since = sse.position()
ROUNDS = 4000 if url.startswith("memory") else 500
numbers = count(1)
calls = depth = 0

def interrupt(*_):
    global calls
    calls = max(calls, number := next(numbers))
    say(f"interruption {number}")

class Job:
    def __init__(self):
        self.me = self  # Only the garbage collector finds it.
        if by == "weakref":
            weakref.finalize(self, interrupt)
    if by == "__del__":
        def __del__(self):
            interrupt()

def arm():
    if calls < 2000:
        signal.setitimer(signal.ITIMER_REAL, 0.0007)

if "signal" in by:
    def handle(*_):
        global depth
        depth += 1
        if by == "signals in signals":
            arm()  # More of them than Redis has connections.
        if depth < 8:
            interrupt()
        depth -= 1
        arm()
    signal.signal(signal.SIGALRM, handle)
    arm()
else:
    gc.set_threshold(13)
for n in range(ROUNDS):
    if "signal" not in by:
        Job()
    say(str(n))
# A handler that is still due arms the timer again. What the timer sends from now on is
# ignored: Python has no handler for it any more as soon as it ends.
signal.signal(signal.SIGALRM, signal.SIG_IGN)
gc.set_threshold(0)
got = [[e.id, e.data] for e in sse.messages(since=since, timeout=0.2)]
print(json.dumps([ROUNDS, calls, said, refused, got]))
"""

GEVENT = "from gevent import monkey; monkey.patch_all()\n"


BY = ["signal", "signals in signals", "__del__", "weakref"]


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("loop", ["threads", "gevent"])
def test_what_interrupts_a_process_hangs_in_none(
    app: Flask, kind: str, by: str, loop: str
) -> None:
    url = app.config.get("SSE_URL", "memory://")
    program = GEVENT * (loop == "gevent") + PROGRAM
    command = [sys.executable, "-c", program, url, by]
    output = subprocess.run(
        command, capture_output=True, text=True, timeout=HANGS, check=True
    ).stdout
    rounds, calls, said, refused, got = json.loads(output)
    assert calls > 10
    assert len(said) + len(refused) == rounds + calls
    assert set(refused) <= {"Reentered"}
    if kind == "memory" or (kind, loop) == ("redis", "threads"):
        assert not refused
    assert sorted(got) == sorted(said)
    numbers = [int(id.partition("-")[2]) for id, _ in got]
    assert numbers == sorted(set(numbers))


INSIDE_GEVENT = """
from gevent import monkey; monkey.patch_all()
import sys, gevent
from flask import Flask
from flask_sse_lite import sse

app = Flask("interrupted")
app.config["SSE_URL"] = sys.argv[1].replace("127.0.0.1", sys.argv[2])
sse.init_app(app)
# This is where a handler has interrupted a greenlet that looks a name up.
with gevent.get_hub().threadpool.task_queue._mutex:
    print(sse.publish("from a handler").id)
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_handler_that_interrupts_gevent_s_own_work_hangs_not(
    app: Flask, kind: str, host: str
) -> None:
    command = [sys.executable, "-c", INSIDE_GEVENT]
    url = app.config.get("SSE_URL", "memory://")
    output = subprocess.run(
        [*command, url, host],
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=True,
    ).stdout
    assert "-" in output


ENDING_IN_A_HANDLER = """
from gevent import monkey; monkey.patch_all()
import json, signal
from flask import Flask
from flask_sse_lite import sse

app = Flask("interrupted")
sse.init_app(app)
steps = app.test_client().get("/stream").iter_encoded()
next(steps)
failures = []

def end(*_):
    try:
        with app.app_context():
            sse.end_streams()
    except BaseException as error:
        failures.append(repr(error))

signal.signal(signal.SIGALRM, end)
signal.setitimer(signal.ITIMER_REAL, 0.1)
print(json.dumps([failures, b"".join(steps).decode()]))
"""


def test_a_handler_in_gevent_s_hub_ends_streams_without_waiting() -> None:
    command = [sys.executable, "-c", ENDING_IN_A_HANDLER]
    output = subprocess.run(
        command, capture_output=True, text=True, timeout=HANGS, check=True
    ).stdout
    assert json.loads(output) == [[], ""]


@pytest.mark.parametrize("kind", ["memory"], indirect=True)
@pytest.mark.parametrize("at", range(50, 450, 37))
def test_what_interrupts_the_hub_ends_streams_without_waiting_for_the_hub(
    app: Flask, sse: SSE, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """A ``__del__`` can run in the hub's own thread. (The first 50 steps are those of a
    thread that begins.)"""
    monkeypatch.setattr("flask_sse_lite.extension.END_PATIENCE", 10 * HANGS)
    refused: list[Reentered] = []

    def end() -> None:
        with app.app_context():
            try:
                sse.end_streams()
            except Reentered as error:
                refused.append(error)

    def stream() -> None:
        steps = app.test_client().get("/stream?channel=room").iter_encoded()
        for _ in steps:
            if refused:
                end()

    interruption = Interruption([at], end)
    in_a_thread(lambda: interruption.run_in_new_threads(stream))
    assert interruption.was_called
    until(lambda: not current_hub().is_running)


IN_THE_HUB = """
from gevent import monkey; monkey.patch_all()
import json, gevent
from flask_sse_lite import Reentered
from flask_sse_lite.system.locks import Guard

guard = Guard()
got = []

def ask():
    for timeout in (-1, 5, 0):
        try:
            got.append(guard.acquire(timeout))
        except Reentered:
            got.append("reentered")

with guard:
    gevent.get_hub().loop.run_callback(ask)
    gevent.sleep(0)
print(json.dumps(got))
"""


def test_a_handler_in_gevent_s_hub_does_not_wait_for_who_holds_a_lock() -> None:
    command = [sys.executable, "-c", IN_THE_HUB]
    output = subprocess.run(
        command, capture_output=True, text=True, timeout=HANGS, check=True
    ).stdout
    assert json.loads(output) == ["reentered", "reentered", False]


BURST = """
from gevent import monkey; monkey.patch_all()
import json, signal, time
from flask import Flask
from flask_sse_lite import sse

app = Flask("interrupted")
sse.init_app(app)
messages = sse.messages()
failures = []

def burst(*_):
    try:
        for n in range(200):
            sse.publish(str(n))
    except Exception as error:
        failures.append(repr(error))

signal.signal(signal.SIGALRM, burst)
signal.setitimer(signal.ITIMER_REAL, 0.1)
time.sleep(0.5)
print(json.dumps([failures, [next(messages).data for _ in range(200)]]))
"""


def test_a_burst_in_a_handler_that_cannot_wait_is_published_all_the_same() -> None:
    command = [sys.executable, "-c", BURST]
    output = subprocess.run(
        command, capture_output=True, text=True, timeout=HANGS, check=True
    ).stdout
    assert json.loads(output) == [[], [str(n) for n in range(200)]]


class Publishing(logging.Handler):
    """A handler of the log that publishes its lines."""

    def __init__(self, app: Flask, sse: SSE) -> None:
        super().__init__()
        self._app = app
        self._sse = sse
        self.lines: list[str] = []
        self.failures: list[Exception] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        with self._app.app_context():
            try:
                self._sse.publish(record.getMessage(), channel="log")
                list(self._sse.messages("log", timeout=0))
            except BrokerUnavailable as error:
                self.failures.append(error)


def test_a_handler_of_the_log_may_publish_what_the_extension_logs(
    app: Flask, sse: SSE, kind: str
) -> None:
    handler = Publishing(app, sse)
    logger = logging.getLogger("flask_sse_lite")
    logger.addHandler(handler)
    broker = app.extensions["sse"].broker
    try:
        with app.app_context():
            in_a_thread(lambda: sse_publishes(app, sse))
            if isinstance(broker, SharedBroker):
                list(sse.messages("room", timeout=0))
                in_a_thread(lambda: fail_once(broker))
    finally:
        logger.removeHandler(handler)
    assert handler.lines
    assert not any(isinstance(error, Reentered) for error in handler.failures)


def sse_publishes(app: Flask, sse: SSE) -> None:
    with app.app_context():
        sse.publish("x", channel="room")


def fail_once(broker: SharedBroker) -> None:
    """Have the store fail while the follower changes the log."""
    with pytest.raises(BrokerUnavailable), broker._follower.changing():
        raise BrokerUnavailable("It is away")


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_refused_interruption_does_not_take_the_store_for_away(
    app: Flask, sse: SSE, caplog: pytest.LogCaptureFixture
) -> None:
    """The interrupted call holds SQLite's one connection, but not the log."""
    broker: Any = app.extensions["sse"].broker

    def interrupt() -> None:
        with (
            app.app_context(),
            broker.store._connection._lock,
            pytest.raises(Reentered),
        ):
            list(sse.messages("another", timeout=0))

    with app.app_context():
        list(sse.messages("room", timeout=0))  # From here on, it follows the store.
        in_a_thread(interrupt)
        list(sse.messages("room", timeout=0))
    assert "Open streams wait for it" not in caplog.text

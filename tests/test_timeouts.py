"""A call that asks a store has an answer or an error within SSE_BROKER_TIMEOUT in
all."""

from __future__ import annotations

import fcntl
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask

from flask_sse_lite import SSE, BrokerUnavailable, Event, Publisher
from flask_sse_lite.brokers import Broker, Claim, connect
from flask_sse_lite.brokers.deadline import Deadline
from flask_sse_lite.brokers.redis.links import Link
from flask_sse_lite.brokers.redis.pool import MAX_LINKS
from flask_sse_lite.brokers.redis.url import read_url
from flask_sse_lite.history.revocations import REVOCATIONS, Revocation
from flask_sse_lite.own_events import FAILED
from flask_sse_lite.settings import Settings

from .certificates import Certificate, issued
from .clocks import stopwatch
from .redis_servers import RedisServer, redis_server
from .servers import HOST, PATIENCE, ROOT
from .stand_ins import run_on_gevent

TIMEOUT = 1.0

#: Seconds within which a call must be over, by a stopwatch that stands still with the
#: process. A busy machine wakes a waiting thread a little late; a call that waits twice
#: is far beyond this.
BOUND = 1.7 * TIMEOUT

#: More calls at once than a process has connections.
CROWD = 10 * MAX_LINKS

#: What ``SSE.disconnect`` publishes.
REVOCATION = Revocation("ann", None).to_event()

#: All calls that ask a broker.
CALLS: dict[str, Callable[[Broker], object]] = {
    "publish": lambda broker: broker.publish("a", Event("x")),
    "close": lambda broker: broker.end("a"),
    "position": lambda broker: broker.position(),
    "subscribers": lambda broker: broker.subscribers("a"),
    "stream": lambda broker: broker.want(["b"]),
    "stream that resumes": lambda broker: broker.want(["b"], "0123456789abcdef-1"),
    "present": lambda broker: broker.present("a"),
    "disconnect": lambda broker: broker.publish(REVOCATIONS, REVOCATION),
    "run": lambda broker: broker.begin_run("c", 1000),
    # The store does not know these runs, so what they say begins them.
    "say": lambda broker: broker.say(Claim("d", 1000), Event("x")),
    "end of a run": lambda broker: broker.end_run(Claim("e", 1000), FAILED),
}


def opened(url: str, timeout: float = TIMEOUT) -> Broker:
    return connect(Settings.read({"SSE_URL": url, "SSE_BROKER_TIMEOUT": timeout}))


@contextmanager
def leisure(broker: Broker) -> Iterator[None]:
    """For calls that must succeed, however slow this machine is now."""
    store = broker.store  # type: ignore[attr-defined]
    timeout, store.timeout = store.timeout, PATIENCE
    yield
    store.timeout = timeout


def times(calls: list[Callable[[], object]]) -> list[float]:
    """Make all calls at once. Each must fail.

    :returns: how many seconds each took.
    """
    took: list[float] = []

    def do(call: Callable[[], object]) -> None:
        began = seconds()
        with suppress(BrokerUnavailable):
            call()
            return
        took.append(seconds() - began)

    with stopwatch() as seconds:
        threads = [threading.Thread(target=do, args=[c], daemon=True) for c in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert len(took) == len(calls)
    return took


class Way:
    """A connection to a server, whose answers it slows down. It waits for ``pause``
    seconds before each ``piece`` of so many bytes."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.pause = 0.0
        self.piece = 1 << 16
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((HOST, 0), backlog=64)
        self.url = f"redis://{HOST}:{self._listener.getsockname()[1]}"
        self._is_closed = threading.Event()
        self._start(self._accept)

    def _start(self, do: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=do, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection((HOST, self._port))
                self._ends += [client, server]
                self._start(self._pump, client, server, False)
                self._start(self._pump, server, client, True)

    def _pump(
        self, source: socket.socket, target: socket.socket, is_slow: bool
    ) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                while data:
                    if is_slow and self._is_closed.wait(self.pause):
                        return
                    size = self.piece if is_slow else len(data)
                    target.sendall(data[:size])
                    data = data[size:]
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._is_closed.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        for end in (self._listener, *self._ends):
            end.close()


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def way(server: RedisServer) -> Iterator[Way]:
    way = Way(server.port)
    yield way
    way.close()


# Redis


@pytest.mark.parametrize("scheme", ["redis", "unix"])
def test_a_connection_for_which_no_time_is_left(
    server: RedisServer, scheme: str
) -> None:
    """redis-py looks for a host then, which a Unix socket does not have."""
    url = f"unix://{server.path}" if scheme == "unix" else server.url
    _, connection_class, options = read_url(Settings.read({"SSE_URL": url}), {})
    link = Link(connection_class, options, Deadline(0.0))
    with closing(link), pytest.raises(redis.TimeoutError, match="Timeout connecting"):
        link.open()


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("crowd", [1, CROWD])
@pytest.mark.parametrize("name", CALLS)
def test_a_frozen_redis(
    server: RedisServer, name: str, crowd: int, is_known: bool
) -> None:
    with closing(opened(server.url)) as broker:
        if is_known:
            with leisure(broker):
                broker.want(["a"])
                broker.publish("a", Event("before"))
        server.freeze()
        took = times([lambda: CALLS[name](broker)] * crowd)
        server.thaw()
    assert max(took) < BOUND


#: How a slow server answers: late, but within the timeout; or byte by byte.
SLOW = {"late": (0.6 * TIMEOUT, 1 << 16), "dripping": (0.05 * TIMEOUT, 1)}


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("kind", SLOW)
@pytest.mark.parametrize("name", CALLS)
def test_a_slow_redis(way: Way, name: str, kind: str, is_known: bool) -> None:
    with closing(opened(f"{way.url}/1")) as broker:
        if is_known:
            with leisure(broker):
                broker.want(["a"])
            # Redis does not know the script of each call yet, so each call asks twice.
        way.pause, way.piece = SLOW[kind]
        with stopwatch() as seconds:
            with suppress(BrokerUnavailable):
                CALLS[name](broker)
            assert seconds() < BOUND
        way.pause = 0.0


def test_a_slow_redis_where_a_password_and_a_database_are_asked_for() -> None:
    with (
        redis_server("--requirepass", "geheim") as server,
        closing(Way(server.port)) as way,
    ):
        way.pause, way.piece = SLOW["late"]
        url = way.url.replace("redis://", "redis://:geheim@")
        with closing(opened(f"{url}/1?client_name=x")) as broker:
            took = times([lambda: CALLS["publish"](broker)] * CROWD)
        assert max(took) < BOUND


def test_one_publish_to_many_channels_has_one_timeout(way: Way) -> None:
    app, sse = Flask("application"), SSE()
    app.config |= {"SSE_URL": way.url, "SSE_BROKER_TIMEOUT": TIMEOUT}
    sse.init_app(app)
    with app.app_context():
        sse.publish("before")
        way.pause = 0.3 * TIMEOUT
        with stopwatch() as seconds:
            with pytest.raises(BrokerUnavailable):
                sse.publish("x", channel=[f"room.{number}" for number in range(20)])
            assert seconds() < BOUND
        way.pause = 0.0
    app.extensions["sse"].close()


def test_a_call_that_waited_in_a_queue_does_not_take_its_store_for_away(
    way: Way,
) -> None:
    with closing(opened(way.url)) as broker:
        with leisure(broker):
            broker.want(["a"])
        way.pause = 0.1 * TIMEOUT
        late: list[str] = []

        def want(channel: str) -> None:
            try:
                broker.want([channel])
            except BrokerUnavailable:
                late.append(channel)

        channels = map(str, range(CROWD))
        threads = [threading.Thread(target=want, args=[name]) for name in channels]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert late
        # A store that was taken for away would refuse this at once. One that is slow
        # could take too long for it on a busy machine.
        way.pause = 0.0
        broker.want(["last"])


@contextmanager
def deaf_addresses(count: int) -> Iterator[int]:
    """A port on which none of so many addresses takes another connection."""
    with ExitStack() as stack:
        first = stack.enter_context(socket.create_server(("127.0.1.1", 0), backlog=0))
        port = first.getsockname()[1]
        for number in range(1, count + 1):
            place = (f"127.0.1.{number}", port)
            if number > 1:
                stack.enter_context(socket.create_server(place, backlog=0))
            for _ in range(4):
                client = stack.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(place)
        yield port


def test_a_host_with_several_addresses_of_which_none_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = socket.getaddrinfo

    def several(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        if host != "several.example":
            return real(host, port, *args, **kwargs)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.1.{number}", port))
            for number in range(1, 5)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", several)
    with (
        deaf_addresses(4) as port,
        closing(opened(f"redis://several.example:{port}")) as broker,
    ):
        assert max(times([lambda: CALLS["publish"](broker)])) < BOUND


def test_a_resolver_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()

    def look_up(*args: Any, **kwargs: Any) -> Any:
        assert answers.wait(PATIENCE)
        raise socket.gaierror("nothing is known of it")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with closing(opened("redis://lost.example")) as broker:
        assert max(times([lambda: CALLS["publish"](broker)] * CROWD)) < BOUND
    answers.set()


def test_a_redis_that_refuses_is_an_error_at_once() -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
    with closing(opened(f"redis://{HOST}:{port}")) as broker:
        for call in CALLS.values():
            assert max(times([lambda call=call: call(broker)])) < TIMEOUT / 2  # type: ignore[misc]


#: Prints which files calls open that need a new connection. What a process imports at
#: its first call does not count.
READING = """
import sys
from flask_sse_lite import Event
from flask_sse_lite.brokers import connect
from flask_sse_lite.settings import Settings

files = []

def note(event, arguments):
    if event == "open":
        files.append(arguments[0])

sys.addaudithook(note)
for run in ("b", "c"):
    broker = connect(Settings.read({"SSE_URL": sys.argv[1]}))
    files.clear()
    broker.publish("a", Event("x"))
    broker.want(["a"])
    assert broker.begin_run(run, 1000)
    print(len(files), *files)
    broker.close()
"""


@pytest.mark.parametrize("options", ["", "?lib_name=x&lib_version=1"])
def test_no_call_waits_for_the_disk(server: RedisServer, options: str) -> None:
    """A disk has no timeout. (What OpenSSL reads over TLS is not seen here.)"""
    command = [sys.executable, "-c", READING, server.url + options]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert told.splitlines()[1] == "0", told


def test_a_publisher_has_a_timeout_of_its_own(server: RedisServer) -> None:
    with Publisher.from_url(server.url, timeout=TIMEOUT) as publisher:
        publisher.publish("before")
        server.freeze()
        assert max(times([lambda: publisher.publish("x")] * CROWD)) < BOUND
        server.thaw()


GREENLETS = """
from gevent import monkey
monkey.patch_all()
import sys, time
import gevent
from flask import Flask
from flask_sse_lite import SSE, BrokerUnavailable
from tests.clocks import stopwatch

url, timeout, crowd = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
app, sse = Flask("application"), SSE()
app.config |= {"SSE_URL": url, "SSE_BROKER_TIMEOUT": timeout}
sse.init_app(app)
with app.app_context():
    sse.publish("before")
print("ready", flush=True)
input()

def took(number):
    began, began_at = seconds(), time.monotonic()
    try:
        with app.app_context():
            sse.publish("x") if number % 2 else sse.messages(f"room.{number}")
    except BrokerUnavailable:
        pass
    return seconds() - began, time.monotonic() - began_at

with stopwatch() as seconds:
    jobs = [gevent.spawn(took, number) for number in range(crowd)]
    gevent.joinall(jobs)
took = [job.value for job in jobs]
assert sum(waited > timeout * 0.9 for _, waited in took) >= crowd / 2, took
print(max(counted for counted, _ in took))
"""


@contextmanager
def greenlets(url: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", GREENLETS, url, str(TIMEOUT), str(CROWD)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_greenlets_and_a_frozen_redis(server: RedisServer) -> None:
    with greenlets(server.url) as process:
        server.freeze()
        said, _ = process.communicate("\n", timeout=PATIENCE)
        server.thaw()
    assert float(said) < BOUND


# Redis over TLS


@pytest.fixture
def authority(tmp_path: Path) -> Certificate:
    return issued(tmp_path)


@pytest.fixture
def tls_server(authority: Certificate) -> Iterator[RedisServer]:
    options = [
        *("--port", "0", "--tls-port", "{port}", "--tls-auth-clients", "no"),
        *("--tls-key-file", authority.key),
        *("--tls-cert-file", authority.certificate),
        *("--tls-ca-cert-file", authority.authority),
    ]
    with redis_server(*options) as server:
        yield server


@pytest.fixture
def tls_way(tls_server: RedisServer) -> Iterator[Way]:
    way = Way(tls_server.port)
    yield way
    way.close()


def over_tls(url: str, authority: Certificate) -> str:
    return f"{url.replace('redis:', 'rediss:')}?ssl_ca_certs={authority.authority}"


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("name", CALLS)
def test_a_frozen_redis_over_tls(
    tls_server: RedisServer, authority: Certificate, name: str, is_known: bool
) -> None:
    timeout = 3 * TIMEOUT  # Each connection costs a tenth of a second of the processor.
    with closing(opened(over_tls(tls_server.url, authority), timeout)) as broker:
        if is_known:
            with leisure(broker):
                broker.want(["a"])
                broker.publish("a", Event("before"))
        tls_server.freeze()
        took = times([lambda: CALLS[name](broker)] * CROWD)
        tls_server.thaw()
    assert max(took) < 3 * BOUND


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("kind", SLOW)
@pytest.mark.parametrize("name", CALLS)
def test_a_slow_redis_over_tls(
    tls_way: Way, authority: Certificate, name: str, kind: str, is_known: bool
) -> None:
    """One that is not known is slow from the handshake on."""
    with closing(opened(over_tls(tls_way.url, authority))) as broker:
        if is_known:
            with leisure(broker):
                broker.want(["a"])
        tls_way.pause, tls_way.piece = SLOW[kind]
        with stopwatch() as seconds:
            with suppress(BrokerUnavailable):
                CALLS[name](broker)
            assert seconds() < BOUND
        tls_way.pause = 0.0


@contextmanager
def late_listener(pause: float) -> Iterator[int]:
    """A port that takes connections after so many seconds, and then says nothing. The
    system tries anew to connect one second after its first try."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((HOST, 0), backlog=0))
        place = listener.getsockname()
        for _ in range(4):  # They fill the queue.
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(place)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    stack.enter_context(listener.accept()[0])

        timer = threading.Timer(pause, accept)
        timer.start()
        try:
            yield place[1]
        finally:
            timer.cancel()
            listener.shutdown(socket.SHUT_RDWR)
            timer.join(PATIENCE)


def test_a_handshake_has_only_what_the_connection_has_left_it() -> None:
    timeout = 1.2
    settings = {"SSE_BROKER_TIMEOUT": timeout}
    with late_listener(0.3) as port:
        url = f"rediss://{HOST}:{port}"
        with closing(connect(Settings.read({"SSE_URL": url, **settings}))) as broker:
            took = times([lambda: broker.publish("a", Event("x"))])
    assert max(took) < 1.7 * timeout


def test_greenlets_and_a_frozen_redis_over_tls(
    tls_server: RedisServer, authority: Certificate
) -> None:
    with greenlets(over_tls(tls_server.url, authority)) as process:
        tls_server.freeze()
        said, _ = process.communicate("\n", timeout=PATIENCE)
        tls_server.thaw()
    assert float(said) < BOUND


def test_greenlets_and_a_redis_that_drips_over_tls(
    tls_way: Way, authority: Certificate
) -> None:
    with greenlets(over_tls(tls_way.url, authority)) as process:
        tls_way.pause, tls_way.piece = SLOW["dripping"]
        said, _ = process.communicate("\n", timeout=PATIENCE)
        tls_way.pause = 0.0
    assert float(said) < BOUND


# SQLite


#: Calls that write. A call that only reads does not wait for a writer.
WRITES = ("publish", "close", "disconnect", "run", "say", "end of a run")


@pytest.mark.parametrize("crowd", [1, CROWD])
@pytest.mark.parametrize("name", WRITES)
def test_a_file_that_another_process_keeps_locked(
    tmp_path: Path, name: str, crowd: int
) -> None:
    file = tmp_path / "events.db"
    with closing(opened(f"sqlite:///{file}")) as broker:
        with leisure(broker):
            broker.want(["a", "c"])
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            took = times([lambda: CALLS[name](broker)] * crowd)
            other.execute("ROLLBACK")
    assert max(took) < BOUND


@pytest.mark.parametrize("name", CALLS)
def test_a_folder_that_another_process_keeps_locked(tmp_path: Path, name: str) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with closing(opened(f"sqlite:///{tmp_path}/events.db")) as broker:
        took = times([lambda: CALLS[name](broker)] * CROWD)
        os.close(descriptor)
        with leisure(broker):
            assert CALLS[name](broker) is not broker
    assert max(took) < BOUND


def test_greenlets_and_a_file_that_another_process_keeps_locked(tmp_path: Path) -> None:
    file = tmp_path / "events.db"
    with (
        greenlets(f"sqlite:///{file}") as process,
        closing(sqlite3.connect(file, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        said, _ = process.communicate("\n", timeout=PATIENCE)
        other.execute("ROLLBACK")
    assert float(said) < BOUND


def test_over_tls_greenlets_run_while_a_link_is_made_though_gevent_came_later() -> None:
    """gunicorn's gevent worker patches when it starts, and under ``--preload`` the
    application was imported before that."""
    run_on_gevent(
        """
import contextlib, socket
import gevent
from redis.connection import SSLConnection
from flask_sse_lite.brokers.deadline import Deadline
from flask_sse_lite.brokers.redis.links import Link

# Nobody accepts, and the system has no room for another one that waits for that.
listener = socket.create_server(("127.0.0.1", 0), backlog=0)
waiting = []
for _ in range(3):
    waiting.append(socket.socket())
    waiting[-1].setblocking(False)
    with contextlib.suppress(BlockingIOError):
        waiting[-1].connect(listener.getsockname())
host, port = listener.getsockname()
link = Link(SSLConnection, {"host": host, "port": port}, Deadline(0.5))
connecting = gevent.spawn(link.open)
gevent.sleep(0)
assert not connecting.ready()  # It waits, and this greenlet runs.
gevent.wait([connecting])
assert isinstance(connecting.exception, Exception)
""",
        first="import flask_sse_lite.brokers.redis.links",
    )

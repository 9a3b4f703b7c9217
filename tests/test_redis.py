"""What is peculiar to Redis: the ways in which it fails, and what it can lose."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask

from flask_sse_lite import SSE, BrokerUnavailable, Event
from flask_sse_lite.brokers import connect
from flask_sse_lite.brokers import follower as following
from flask_sse_lite.brokers.redis import RedisStore, ears, scripts
from flask_sse_lite.brokers.redis.pool import MAX_LINKS
from flask_sse_lite.brokers.shared import SharedBroker
from flask_sse_lite.errors import InvalidValue
from flask_sse_lite.position import RUN_PREFIX, position_id
from flask_sse_lite.settings import Settings
from flask_sse_lite.testing import read_events
from flask_sse_lite.testing.broker_suite import Reader, hasty, publish, sequences
from flask_sse_lite.testing.broker_suite.presence import TOLD, Process

from .certificates import issued
from .crowd import Crowd
from .faithful import Faithful
from .redis_losses import HISTORY, Opener, go_back, is_gone, publish_at_last
from .redis_servers import PERSISTENT, RedisServer, redis_server
from .servers import HOST, PATIENCE, Server, descriptor_limit, serve, several, until

__all__ = ["hasty"]

#: Seconds after which a silent server counts as away, in tests that silence it.
IMPATIENCE = 1.5


@pytest.fixture
def opened() -> Iterator[Opener]:
    with ExitStack() as stack:
        yield Opener(stack)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis that keeps nothing in files."""
    with redis_server() as server:
        yield server


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brokers check their connections all the time."""
    monkeypatch.setattr(ears, "HEALTH_INTERVAL", 0.05)
    monkeypatch.setattr(following, "LOOK_INTERVAL", 0.05)


class Proxy:
    """A connection to a server, which a test can spoil.

    :param upstream: the server's port, which can change.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        #: Whether new connections come through.
        self.is_open = True
        #: Bytes that still pass to the "server" or the "client", and what happens after
        #: them: "cut" or "hold".
        self.left: dict[str, int] = {}
        self.then = "cut"
        #: While this is cleared, nothing passes.
        self.flows = threading.Event()
        self.flows.set()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((HOST, 0))
        self.url = f"redis://{HOST}:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def _start(self, do: Any, *args: Any) -> None:
        thread = threading.Thread(target=do, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket()
                server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
                self._sockets += [client, server]
                if not self.is_open or server.connect_ex((HOST, self.upstream)):
                    client.close()
                    continue
                is_held = threading.Event()
                self._start(self._pump, client, server, "server", is_held)
                self._start(self._pump, server, client, "client", is_held)

    def _pump(
        self,
        source: socket.socket,
        target: socket.socket,
        where: str,
        is_held: threading.Event,
    ) -> None:
        with suppress(OSError):
            while self.flows.wait() and (data := source.recv(1 << 16)):
                if is_held.is_set():
                    continue
                left = self.left.get(where, len(data))
                target.sendall(data[:left])
                if where in self.left:
                    self.left[where] = left = left - len(data[:left])
                    if left <= 0:
                        del self.left[where]
                        if self.then == "cut":
                            break
                        is_held.set()
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """End all connections."""
        for end in self._sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.is_open = False
        self.flows.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self._threads:
            thread.join(PATIENCE)
        for end in (self._listener, *self._sockets):
            end.close()


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


# URLs


@pytest.mark.parametrize("place", ["", "/3", "?db=2", "?prefix=p", "?history=5&age=9"])
def test_each_way_to_name_a_redis_leads_there(
    server: RedisServer, opened: Opener, place: str
) -> None:
    for url in (server.url, f"unix://{server.path}"):
        if not url.startswith("unix") or not place.startswith("/"):
            reader = Reader(opened(url + place), "a")
            publish(opened(url + place), "a", "x")
            assert reader.take(1) == ["x"]


def test_databases_and_prefixes_are_stores_of_their_own(
    server: RedisServer, opened: Opener
) -> None:
    places = ["", "/1", "?prefix=mine", "/1?prefix=mine"]
    readers = [Reader(opened(server.url + place), "a") for place in places]
    for place in places:
        publish(opened(server.url + place), "a", place)
    for place, reader in zip(places, readers, strict=True):
        assert reader.take(1) == [place]


def test_passwords_are_used_and_not_shown(opened: Opener) -> None:
    with redis_server("--requirepass", "geheim") as server:
        place = server.url.removeprefix("redis://")
        reader = Reader(opened(f"redis://:geheim@{place}"), "a")
        publish(opened(f"unix://{server.path}?password=geheim"), "a", "x")
        assert reader.take(1) == ["x"]
        for url in (f"redis://:secret@{place}", f"redis://joe:secret@{place}"):
            with pytest.raises(BrokerUnavailable) as raised:
                publish(opened(url), "a", "x")
            assert "secret" not in f"{raised.value} {raised.value.__cause__}"


def test_a_user_may_be_confined_to_our_keys(
    server: RedisServer, opened: Opener
) -> None:
    server.ask(
        *("ACL", "SETUSER", "joe", "on", ">geheim", "~sse:*", "resetchannels"),
        *("&sse:*", "-@all", "+@hash", "+@sortedset", "+@stream", "+@keyspace"),
        *("+publish", "+subscribe", "+eval", "+evalsha", "+time", "+ping", "-info"),
    )
    url = server.url.replace("redis://", "redis://joe:geheim@")
    reader = Reader(opened(url), "a")
    publish(opened(url), "a", "x")
    assert reader.take(1) == ["x"]


def test_redis_is_spoken_to_over_tls(opened: Opener, tmp_path: Path) -> None:
    own = issued(tmp_path)
    options = [
        *("--port", "0", "--tls-port", "{port}", "--tls-auth-clients", "no"),
        *("--tls-key-file", own.key),
        *("--tls-cert-file", own.certificate),
        *("--tls-ca-cert-file", own.authority),
    ]
    # The brokers are closed before the server ends. Otherwise Python's ssl leaves a
    # socket open whose peer goes away between connection and handshake.
    with redis_server(*options) as server, ExitStack() as stack:

        def connected(url: str) -> SharedBroker:
            broker = opened(url)
            stack.callback(broker.close)
            return broker

        url = server.url.replace("redis:", "rediss:")
        trusting = f"{url}?ssl_ca_certs={own.authority}"
        reader = Reader(connected(trusting), "a")
        publish(connected(trusting), "a", "x")
        assert reader.take(1) == ["x"]
        with pytest.raises(BrokerUnavailable, match="certificate"):
            publish(connected(url), "a", "x")
        # A service with an unsigned certificate can be used without checking it.
        unseen = f"{url}?ssl_cert_reqs=none"
        publish(connected(unseen), "a", "y")
        assert reader.take(1) == ["y"]
        assert Reader(connected(unseen), "a", last=2).take(2) == ["x", "y"]


def test_the_options_of_redis_pys_connections_pass_through(
    server: RedisServer, opened: Opener
) -> None:
    broker = opened(f"{server.url}?client_name=mine&socket_keepalive=yes&db=1")
    publish(broker, "a", "x")
    assert b"name=mine" in server.ask("CLIENT", "LIST")
    assert server.ask("EXISTS", "sse:store", db=1) == 1


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:geheim@host:port",
        "redis://u:geheim@host?history=0",
        "redis://u:geheim@host?prefix=",
        "redis://u:geheim@host?age=nan",
        "redis://u:geheim@host?sock_timeout=5",
        "redis://u:geheim@host/1?ssl_ca_certs=x",
        "unix:path",
    ],
)
def test_a_url_that_cannot_be_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(InvalidValue, match="SSE_URL") as raised:
        connect(Settings.read({"SSE_URL": url}))
    assert "geheim" not in str(raised.value)


def test_without_the_package_it_is_said_which_is_needed() -> None:
    script = """
import sys
sys.modules["redis"] = None
from flask_sse_lite.brokers import connect
from flask_sse_lite.settings import Settings
try:
    connect(Settings.read({"SSE_URL": "redis://localhost"}))
except ValueError as error:
    assert "pip install" in str(error) and "redis" in str(error)
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_the_key_of_flask_sse_does_the_same(server: RedisServer) -> None:
    sse = SSE()
    apps = []
    for name in ("one", "other"):
        app = Flask(name)
        app.config["SSE_REDIS_URL"] = server.url
        sse.init_app(app, url_prefix="/stream")
        apps.append(app)
    one, other = apps
    try:
        response = one.test_client().get("/stream")
        with other.app_context():
            sse.publish("hello")
        assert [event.data for event in read_events(response, count=1)] == ["hello"]
        response.close()
    finally:
        for app in apps:
            app.extensions["sse"].close()


# What it costs

#: The scripts of what a process does by the clock.
DUTIES = [script.name for script in (scripts.lost, scripts.count)]


def test_a_publish_is_one_command_and_following_is_none(
    server: RedisServer, opened: Opener
) -> None:
    broker = opened(server.url)
    reader = Reader(opened(server.url), "a")
    publish(broker, "a", "first")
    assert reader.take(1) == ["first"]
    with (
        redis.Redis(port=server.port, single_connection_client=True) as client,
        redis.Redis(port=server.port) as watcher,
        watcher.monitor() as monitor,
    ):
        publish(broker, "a", *"12345")
        assert reader.take(5) == [*"12345"]
        client.echo("that is all")
        commands = []
        for command in monitor.listen():
            words = command["command"].split()
            if words[0] == "ECHO":
                break
            if command["client_type"] != "lua":
                commands.append(words[:2])
    # The reader's process does its duties each second or so. A script's first call is
    # an EVAL, and behind a new connection comes an INFO.
    commands = [c for c in commands if c[0] not in ("EVAL", "INFO")]
    commands = [c for c in commands if c[-1] not in DUTIES]
    assert commands == [["EVALSHA", scripts.put.name]] * 5


def test_a_thousand_subscribers_are_one_connection_that_listens(
    server: RedisServer,
) -> None:
    with (
        descriptor_limit(None),
        serve("gunicorn sync", SSE_URL=server.url) as web,
        Crowd(web.port) as crowd,
    ):
        members = crowd.join_all(1000, "room")
        web.publish({"data": "x", "channel": "room"})
        crowd.until(lambda: all(member.events for member in members))
        assert server.clients("pubsub") == 1
        # One more is for commands, as the worker has one thread; perhaps another is for
        # the commands of the thread that listens.
        assert 1 <= server.clients("normal") <= 2


def test_more_threads_than_connections_publish(
    server: RedisServer, opened: Opener
) -> None:
    broker = opened(server.url)
    reader = Reader(broker, "a")
    threads = [
        threading.Thread(target=publish, args=(broker, "a", *map(str, range(20))))
        for _ in range(4 * MAX_LINKS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    reader.take(20 * len(threads))
    assert server.clients("normal") <= MAX_LINKS


# What is kept


def test_what_is_kept_belongs_to_the_store(server: RedisServer, opened: Opener) -> None:
    broker = opened(f"{server.url}?history=3")
    ids = publish(broker, "a", *"123456")
    told_nothing = SharedBroker(
        RedisStore(
            "Redis",
            redis.UnixDomainSocketConnection,
            {"path": server.path, "protocol": 2},
            prefix="sse",
            retention=None,
            history_bytes=None,
            timeout=5,
        )
    )
    ids += publish(told_nothing, "a", "7")
    told_nothing.close()
    assert server.ask("HGET", "sse:store", "history") == b"3"
    assert Reader(opened(f"{server.url}?history=3"), "a", since=ids[3]).take(3) == [
        *"567"
    ]


def test_channels_that_are_too_old_leave_redis_and_a_gap(
    server: RedisServer, opened: Opener
) -> None:
    url = f"{server.url}?age=0.4"
    broker = opened(url)
    since = broker.position()
    for number in range(100):
        publish(broker, f"room.{number}", "x")

    def is_forgotten() -> bool:
        publish(broker, "busy", "x")
        return bool(server.ask("ZCARD", "sse:channels") == 1)

    until(is_forgotten)
    until(lambda: not server.ask("KEYS", "sse:channel:room.*"))
    assert server.ask("XLEN", "sse:channel:busy") < HISTORY
    assert is_gone(Reader(opened(url), "room.5", since=since))
    # This holds also when the channel has something again.
    publish(broker, "room.6", "x")
    assert is_gone(Reader(opened(url), "room.6", since=since))
    older, newest = publish(broker, "busy", "x", "x")
    assert not is_gone(Reader(opened(url), "room.5", since=newest))

    until(lambda: server.ask("KEYS", "*") == [b"sse:store"])
    for there in (broker, opened(url)):
        assert is_gone(Reader(there, "busy", since=older))
        assert is_gone(Reader(there, "room.5", since=since))
        assert not is_gone(Reader(there, "busy", since=newest))
        assert not is_gone(Reader(there, "room.5", since=newest))

    other = opened(url)

    def is_read() -> bool:
        since = broker.position()
        publish(broker, "busy", "again")
        reader = Reader(other, "busy", since=since)
        reader.read()
        return not reader.gaps and reader.data == ["again"]

    until(is_read)


@pytest.mark.parametrize("key", ["store", "channels", "channel:a"])
def test_what_a_full_redis_throws_out_is_a_gap_and_nothing_comes_twice(
    server: RedisServer, opened: Opener, key: str
) -> None:
    publisher = opened(server.url)
    since = publisher.position()
    publish(publisher, "a", *"123")
    publish(publisher, "b", *"456")
    reader = Reader(opened(server.url), "a", "b")
    server.ask("DEL", f"sse:{key}")
    publish(publisher, "b", *"78")
    publish(publisher, "a", "9")
    reader.until(lambda: "9" in reader.data)
    if key == "store":
        assert reader.gaps
        assert reader.data == [*"123456789"]
    else:
        assert reader.data == [*"789"]
    late = Reader(opened(server.url), "a", "b", since=since)
    late.until(lambda: "9" in late.data)
    # Without the positions of the channels, the reader still gets every event.
    assert bool(late.gaps) is (key != "channels")


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    "key", ["processes", "counts:*", "who:*", "turn", "told", "told:room.7"]
)
def test_who_is_there_is_known_and_told_though_a_full_redis_throws_a_key_out(
    server: RedisServer, opened: Opener, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr("flask_sse_lite.settings.RETURNING", 0.5)
    one, other = (
        Process(opened(server.url, **TOLD), "room.7", since="") for _ in range(2)
    )

    def are_known(*who: str) -> bool:
        return all(
            sorted(process.broker.present("room.7")) == process.there() == [*who]
            and process.broker.subscribers("room.7") == 2
            for process in (one, other)
        )

    def is_noted_again() -> bool:
        # After a pause nobody knows who was told, and all who are there are told again.
        # Who leaves before that is never told to have left.
        count = server.ask("HLEN", "sse:told:room.7")
        return bool(count == 2 and server.ask("EXISTS", *lost) == len(lost))

    one.who, other.who = {"room.7": {"ann": 1}}, {"room.7": {"bob": 1}}
    until(lambda: are_known("ann", "bob"))
    lost = server.ask("KEYS", f"sse:{key}")
    assert server.ask("DEL", *lost) == len(lost) > 0
    until(is_noted_again)
    until(lambda: are_known("ann", "bob"))
    other.who = {"room.7": {"cid": 1}}
    until(lambda: are_known("ann", "cid"))


def test_in_a_cluster_a_prefix_in_braces_keeps_all_in_one_place(
    opened: Opener,
) -> None:
    with redis_server("--cluster-enabled", "yes") as server:
        server.ask("CLUSTER", "ADDSLOTS", *range(16384))
        until(lambda: "cluster_state:ok" in str(server.ask("CLUSTER", "INFO")))
        url = f"{server.url}?prefix={{app}}"
        broker = opened(url)
        since = broker.position()
        reader = Reader(opened(url), "a", "{b}")
        publish(broker, "a", "1")
        publish(broker, "{b}", "2")
        assert reader.take(2) == ["1", "2"]
        assert Reader(opened(url), "a", "{b}", since=since).take(2) == ["1", "2"]


# What others have written


#: Bodies of entries that this release does not write.
FOREIGN = [
    b"x",
    b"{}",
    b"null",
    b"true",
    b"-1",
    b"1e400",
    b"9" * 5000,
    b"[" * 100_000,
    b"\xff\xfe",
    b'["data"]',
    b"[1, null, null, null]",
    b'["x", 1, null, null]',
    b'["x", "a\\nid: 7", null, null]',
    b'["x", null, "a\\u0000", null]',
    b'["x", null, null, "1.5"]',
    b'["x", null, null, -1]',
    b'["\\ud800", null, null, null]',
    b'{"data": "x"}',
]


#: All in one step, as every publish is: a process that looks in between would find a
#: store that has gone back.
PUT = """
redis.call('XADD', KEYS[3], ARGV[1] .. '-0', unpack(ARGV, 4))
redis.call('HSET', KEYS[1], 'sequence', ARGV[1], 'last', ARGV[1])
redis.call('ZADD', KEYS[2], ARGV[1], ARGV[2])
redis.call('PUBLISH', 'sse:events:0', ARGV[3])
"""


def put(server: RedisServer, channel: str, body: bytes, **others: bytes) -> None:
    """Do as a publish does, with any body and fields."""
    keys = "sse:store", "sse:channels", f"sse:channel:{channel}"
    epoch, found = server.ask("HMGET", keys[0], "epoch", "sequence")
    before = server.ask("ZSCORE", keys[1], channel) or found
    sequence = int(found) + 1
    fields = {"p": str(int(before)).encode(), "t": b"0", "b": body, **others}
    words = [word for field in fields.items() for word in field]
    text = b"%s %d\n%s\n%s" % (epoch, sequence, channel.encode(), body)
    server.ask("EVAL", PUT, 3, *keys, sequence, channel, text, *words)


@pytest.mark.parametrize("body", FOREIGN, ids=range(len(FOREIGN)))
def test_an_entry_that_cannot_be_read_is_a_gap_of_its_channel_alone(
    server: RedisServer,
    opened: Opener,
    body: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publisher = opened(server.url)
    since = publisher.position()
    publish(publisher, "a", "1")
    live = Reader(opened(server.url), "a", "b", since=since)
    put(server, "a", body)
    publish(publisher, "a", "3")
    publish(publisher, "b", "4")
    late = Reader(opened(server.url), "a", "b", since=since)
    for reader in (live, late):
        reader.until(lambda reader=reader: "4" in reader.data)  # type: ignore[misc]
        assert not reader.gaps
        assert [event.type for event in reader.events] == [
            *(None, "stream-gap", None, None)
        ]
        assert reader.events[1].json["channels"] == ["a"]
        back = Reader(opened(server.url), "a", since=reader.events[1].id or "")
        assert back.take(1) == ["3"]
    put(server, "a", body)
    publish(publisher, "b", "5")
    live.until(lambda: "5" in live.data)
    # Each process logs each such entry once: the one that listened, the one that came
    # late, and the two that came back.
    told = [text for text in caplog.messages if "cannot read" in text]
    assert len(told) == 4
    assert "'a'" in told[0]


def test_an_entry_of_a_run_that_cannot_be_read_is_a_gap_and_the_run_goes_on(
    server: RedisServer, opened: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    broker, channel = opened(server.url), f"{RUN_PREFIX}secret"
    claim = broker.begin_run(channel, 1000)
    assert claim
    first = position_id(*claim.began, channel)
    broker.say(claim, Event("1"))
    put(server, channel, b"x")
    broker.say(claim, Event("3"))
    broker.end_run(claim)
    for there in (broker, opened(server.url)):
        reader = Reader(there, channel, since=first)
        reader.until(lambda reader=reader: reader.has_ended)  # type: ignore[misc]
        assert [e.type for e in reader.events] == [None, "stream-gap", None]
    assert [text for text in caplog.messages if "cannot read" in text]
    assert "secret" not in caplog.text


FOREIGN_KEYS = [
    ("HSET", "sse:run:a", "token", "x", "start", "x", "budget", "1.5"),
    ("HSET", "sse:run:a", "token", "x", "start", "9" * 30, "budget", "-1"),
    ("SET", "sse:run:a", "x"),
    ("SET", "sse:channel:a", "x"),
]


@pytest.mark.parametrize("words", FOREIGN_KEYS, ids=range(len(FOREIGN_KEYS)))
def test_what_another_program_makes_of_a_channels_keys_stops_no_other_channel(
    server: RedisServer, opened: Opener, words: tuple[str, ...]
) -> None:
    broker = opened(server.url)
    publish(broker, "a", "1")
    server.ask(*words)
    reader = Reader(opened(server.url), "a", "b")
    publish(broker, "b", "2")
    reader.until(lambda: "2" in reader.data)
    assert "b" in [summary.channel for summary in broker.summaries()]
    if "sse:run:a" in words:
        publish(broker, "a", "3")
        reader.until(lambda: "3" in reader.data)


@pytest.mark.parametrize("words", FOREIGN_KEYS[:3], ids=range(3))
def test_a_run_whose_key_another_program_has_overwritten_comes_to_its_end(
    server: RedisServer, opened: Opener, words: tuple[str, ...]
) -> None:
    broker = opened(server.url)
    claim = broker.begin_run("a", 1000)
    assert claim
    reader = Reader(opened(server.url), "a")
    broker.say(claim, Event("1"))
    server.ask("DEL", "sse:run:a")
    server.ask(*words)
    with suppress(BrokerUnavailable):
        broker.say(claim, Event("2"))
    with suppress(BrokerUnavailable):
        broker.end_run(claim)
    reader.until(lambda: reader.has_ended)


def test_fields_that_this_release_does_not_know_are_passed_over(
    server: RedisServer, opened: Opener
) -> None:
    publisher = opened(server.url)
    since = publisher.position()
    publish(publisher, "a", "1")
    live = Reader(opened(server.url), "a", since=since)
    put(server, "a", b'["2", null, null, null, "en", {}]', z=b"?", **{"0": b""})
    assert live.take(2) == ["1", "2"]
    assert Reader(opened(server.url), "a", since=since).take(2) == ["1", "2"]


@pytest.mark.parametrize("fields", [["x", "y"], ["b", "x"], ["p", "?", "t", "?"]])
def test_an_entry_of_other_fields_is_a_gap_of_its_channel_alone(
    server: RedisServer, opened: Opener, fields: list[str]
) -> None:
    publisher = opened(server.url)
    since = publisher.position()
    publish(publisher, "a", "1")
    put(server, "a", b"x")
    key = "sse:channel:a"
    ((id, _),) = server.ask("XREVRANGE", key, "+", "-", "COUNT", 1)
    server.ask("XDEL", key, id)
    # The copy differs in its id only.
    server.ask("XADD", key, id.replace(b"-0", b"-1"), *fields)
    publish(publisher, "a", "3")
    publish(publisher, "b", "4")
    late = Reader(opened(server.url), "a", "b", since=since)
    late.until(lambda: "4" in late.data)
    assert [e.data for e in late.events if e.type is None] == ["1", "3", "4"]
    assert any(event.type == "stream-gap" for event in late.events)
    assert publisher.summaries()


@pytest.mark.parametrize("text", [b"", b"x", b"a\nb\nc", b"a 1\n\xff\nx", b"a b c\n\n"])
def test_a_message_that_is_none_of_ours_disturbs_nobody(
    server: RedisServer, opened: Opener, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reader = Reader(opened(server.url), "a")
    publisher = opened(server.url)
    publish(publisher, "a", "1")
    server.ask("PUBLISH", "sse:events:0", text)
    server.ask("ZADD", "sse:leases", 1, b"\xff")
    publish(publisher, "a", "2")
    assert reader.take(2) == ["1", "2"]
    assert not caplog.messages


def test_of_a_format_that_is_not_its_own_a_process_says_so_and_goes_on(
    server: RedisServer, opened: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = opened(server.url)
    publish(publisher, "a", "1")
    assert server.ask("HGET", "sse:store", "format") == b"1"
    assert not caplog.messages
    server.ask("HSET", "sse:store", "format", "2")
    reader = Reader(opened(server.url), "a", last=1)
    publish(publisher, "a", "2")
    assert reader.take(2) == ["1", "2"]
    assert [text for text in caplog.messages if "format 2" in text]
    assert server.ask("HGET", "sse:store", "format") == b"2"


# When Redis is away


@pytest.mark.parametrize("is_orderly", [True, False])
def test_what_a_redis_kept_over_its_restart_goes_on_without_a_gap(
    opened: Opener, is_orderly: bool
) -> None:
    with redis_server(*PERSISTENT, "--appendfsync", "always") as server:
        broker, publisher = opened(server.url), opened(server.url)
        reader = Reader(broker, "a")
        ids = publish(publisher, "a", *"123")
        assert reader.take(3) == [*"123"]
        server.stop() if is_orderly else server.kill()
        server.start()
        third = opened(server.url)
        ids += publish(third, "a", "4")
        # Its connections were closed, which must not make it fail.
        ids += publish(publisher, "a", "5")
        assert reader.take(2) == ["4", "5"]
        for there in (broker, third, opened(server.url)):
            assert Reader(there, "a", since=ids[1]).take(3) == [*"345"]
        assert sequences(ids) == sorted(set(sequences(ids)))


def test_a_redis_that_was_restarted_empty_is_a_gap(
    server: RedisServer, opened: Opener
) -> None:
    readers = [Reader(opened(server.url), "a") for _ in range(2)]
    publisher = opened(server.url)
    old = publish(publisher, "a", "1", "2")[-1]
    for reader in readers:
        assert reader.take(2) == ["1", "2"]
    server.kill()
    with pytest.raises(BrokerUnavailable):
        publish(publisher, "a", "never")
    server.start()
    publish_at_last(publisher, "a", "new")
    for reader in readers:
        reader.until(lambda reader=reader: reader.events)  # type: ignore[misc]
        assert [gap.json["since"] for gap in reader.gaps] == [old]
        assert reader.data == ["new"]


def test_what_was_flushed_is_noticed_though_nobody_publishes(
    server: RedisServer, opened: Opener, watchful: None
) -> None:
    reader = Reader(opened(server.url), "a")
    (old,) = publish(opened(server.url), "a", "1")
    assert reader.take(1) == ["1"]
    server.ask("FLUSHALL")
    reader.until(lambda: reader.gaps)
    assert reader.gaps[0].json["since"] == old
    assert reader.position.partition("-")[0] != old.partition("-")[0]


def test_who_saw_what_a_redis_lost_is_told_of_a_gap(
    server: RedisServer, opened: Opener, proxy: Proxy
) -> None:
    witness = Reader(opened(proxy.url), "a")
    broker = opened(server.url)
    ids = go_back(server, broker)
    broker.close()
    assert witness.take(6) == [*"123456"]
    proxy.is_open = False
    server.kill()
    proxy.cut()
    server.start()
    # Publish more events than were lost, by a broker that does not know of the loss.
    later = publish(opened(server.url), "a", *"abcdefgh")
    assert not {*ids} & {*later}
    proxy.is_open = True
    witness.until(lambda: len(witness.events) == 11)
    assert [gap.json["since"] for gap in witness.gaps] == [ids[-1]]
    assert witness.data == [*"123abcdefgh"]
    publish_at_last(opened(server.url), "a", "i")
    witness.until(lambda: witness.data[-1] == "i")
    assert len(witness.gaps) == 1


def test_who_published_what_a_redis_lost_has_all_told_of_a_gap(
    server: RedisServer, opened: Opener, proxy: Proxy
) -> None:
    publisher = opened(server.url)
    ids = go_back(server, publisher)
    server.kill()
    server.start()
    reader = Reader(opened(server.url), "a", since=ids[2])
    assert reader.take(0) == []
    position = reader.position
    publish_at_last(publisher, "a", "7")
    reader.until(lambda: "7" in reader.data)
    assert [gap.json["since"] for gap in reader.gaps] == [position]


def test_who_comes_back_to_a_redis_that_lost_some_is_told_if_that_is_its_loss(
    server: RedisServer, opened: Opener
) -> None:
    broker = opened(server.url)
    ids = go_back(server, broker)
    broker.close()
    server.kill()
    server.start()
    for _ in range(2):
        there = opened(server.url)
        for id in ids[:3]:
            assert not is_gone(Reader(there, "a", since=id))
        for id in ids[3:]:
            assert is_gone(Reader(there, "a", since=id))
        # The same holds when more is published than was lost.
        publish(there, "a", *"abcdefgh")
    assert Reader(opened(server.url), "a", since=ids[2]).take(16) == [*"abcdefgh"] * 2


@pytest.mark.parametrize("lags", [False, True])
def test_a_failover_is_a_gap_if_the_replica_lagged(
    server: RedisServer, opened: Opener, proxy: Proxy, lags: bool
) -> None:
    server.ask("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    with redis_server("--replicaof", HOST, str(server.port)) as replica:
        until(lambda: replica.ask("INFO").get("master_link_status") == "up")
        reader = Reader(opened(proxy.url), "a")
        publisher = opened(proxy.url)
        publish(publisher, "a", "1", "2")
        until(lambda: replica.ask("XLEN", "sse:channel:a") == 2)
        if lags:
            replica.ask("REPLICAOF", "NO", "ONE")
            publish(publisher, "a", "3")
        seen = 3 if lags else 2
        assert len(reader.take(seen)) == seen
        server.kill()
        replica.ask("REPLICAOF", "NO", "ONE")
        proxy.upstream = replica.port
        proxy.cut()
        publish_at_last(publisher, "a", "new")
        reader.until(lambda: "new" in reader.data)
        assert bool(reader.gaps) is lags
        assert reader.data == (["1", "2", "new"] if lags else ["new"])


def test_a_frozen_redis_is_away_within_bounds_and_comes_back(
    server: RedisServer, opened: Opener, watchful: None
) -> None:
    broker, other = (
        opened(server.url, SSE_BROKER_TIMEOUT=IMPATIENCE) for _ in range(2)
    )
    reader = Reader(broker, "a")
    publish(other, "a", "before")
    assert reader.take(1) == ["before"]
    server.freeze()
    for act in (
        lambda: publish(other, "a", "perhaps"),
        lambda: publish(broker, "a", "perhaps"),
        broker.position,
        lambda: broker.want(["new"]),
    ):
        with pytest.raises(BrokerUnavailable):
            act()
    server.thaw()
    publish_at_last(other, "a", "after")
    reader.until(lambda: "after" in reader.data)
    # A publish that failed may still have been done, but only once.
    assert reader.data in [["perhaps"] * n + ["after"] for n in range(3)]
    assert not reader.gaps
    until(lambda: not broker.is_away)
    broker.want(["new"])


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_subscription_that_failed_does_not_keep_others_out(
    server: RedisServer,
    opened: Opener,
    monkeypatch: pytest.MonkeyPatch,
    is_busy: bool,
) -> None:
    monkeypatch.setattr(ears, "HEALTH_INTERVAL", 10 * PATIENCE)
    if is_busy:
        monkeypatch.setattr(following, "LOOK_INTERVAL", 10 * PATIENCE)
    broker = opened(server.url, SSE_BROKER_TIMEOUT=IMPATIENCE)
    reader = Reader(broker, "a")
    publish(broker, "a", "x")
    assert reader.take(1) == ["x"]
    server.freeze()
    with pytest.raises(BrokerUnavailable):
        broker.want(["b"])
    server.thaw()
    other = opened(server.url)

    def is_let_in() -> bool:
        if is_busy:
            publish(other, "a", "x")
        with suppress(BrokerUnavailable):
            broker.want(["b"])
            return True
        return False

    until(is_let_in)


def test_a_connection_that_died_in_silence_is_replaced(
    server: RedisServer, opened: Opener, proxy: Proxy, watchful: None
) -> None:
    reader = Reader(opened(proxy.url, SSE_BROKER_TIMEOUT=IMPATIENCE), "a")
    publisher = opened(server.url)
    publish(publisher, "a", "1")
    assert reader.take(1) == ["1"]
    proxy.then = "hold"
    proxy.left = {"client": 0}
    publish(publisher, "a", "2")
    assert reader.take(1) == ["2"]


@pytest.mark.parametrize("then", ["cut", "hold"])
@pytest.mark.parametrize("where", ["server", "client"])
def test_publishing_that_is_cut_off_happens_once_or_not_at_all(
    server: RedisServer, opened: Opener, proxy: Proxy, where: str, then: str
) -> None:
    reader = Reader(opened(server.url), "a")
    publisher = opened(proxy.url, SSE_BROKER_TIMEOUT=IMPATIENCE)
    publish(publisher, "a", "first")
    proxy.then = then
    known = ["first"]
    for left in (0, 1, 20, 100, 400, 10_000):
        proxy.left = {where: left}
        for text in (f"{left}", f"{left} again"):
            try:
                publish(publisher, "a", text)
                known.append(text)
            except BrokerUnavailable:
                pass
        proxy.left = {}
    publish_at_last(publisher, "a", "last")
    reader.until(lambda: "last" in reader.data)
    assert not reader.gaps
    assert len(set(reader.data)) == len(reader.data)
    assert [text for text in reader.data if text in known] == known
    ids = sequences(event.id for event in reader.events)
    assert ids == list(range(ids[0], ids[0] + len(ids)))


@pytest.mark.parametrize("then", ["cut", "hold"])
def test_a_listener_that_is_cut_off_hears_everything_once(
    server: RedisServer, opened: Opener, proxy: Proxy, then: str, watchful: None
) -> None:
    reader = Reader(opened(proxy.url, SSE_BROKER_TIMEOUT=IMPATIENCE), "a")
    publisher = opened(server.url)
    proxy.then = then
    texts = [str(number) for number in range(40)]
    for text in texts:
        if int(text) % 10 == 5:
            proxy.left = {"client": 3 * int(text)}
        publish(publisher, "a", text)
    assert reader.take(40) == texts


def test_a_listener_that_is_too_slow_for_redis_reads_what_it_missed(
    server: RedisServer, opened: Opener, proxy: Proxy
) -> None:
    server.ask("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 0 0")
    reader = Reader(opened(proxy.url), "a", "b")
    publisher = opened(server.url)
    proxy.flows.clear()
    texts: list[str] = []

    def is_thrown_out() -> bool:
        text = f"{len(texts)} ".ljust(100_000, "x")
        publish(publisher, "ab"[len(texts) % 2], text)
        texts.append(text)
        return not server.clients("pubsub")

    until(is_thrown_out)
    proxy.flows.set()
    assert reader.take(len(texts)) == texts


def test_a_listener_that_missed_more_than_is_kept_is_told(
    server: RedisServer, opened: Opener, proxy: Proxy
) -> None:
    broker = opened(f"{proxy.url}?history=5")
    readers = {name: Reader(broker, *name) for name in ("a", "b", "ab")}
    publisher = opened(f"{server.url}?history=5")
    proxy.is_open = False
    proxy.cut()
    texts = [str(number) for number in range(500)]
    publish(publisher, "a", *texts)
    publish(publisher, "b", "x")
    proxy.is_open = True
    for name, reader in readers.items():
        last = "x" if "b" in name else texts[-1]
        reader.until(lambda r=reader, last=last: last in r.data)  # type: ignore[misc]
        told = {channel for gap in reader.gaps for channel in gap.json["channels"]}
        assert told == ({"a"} if "a" in name else set())
        # The retained events come in order, the newest among them.
        kept = [text for text in reader.data if text != "x"]
        assert kept == [text for text in texts if text in set(kept)]
        assert kept[-5:] == (texts[-5:] if "a" in name else [])


# Two machines


@contextmanager
def machines(server: RedisServer, *kinds: str, **config: Any) -> Iterator[list[Server]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                serve(kind, options=several(kind, 2), SSE_URL=server.url, **config)
            )
            for kind in kinds
        ]


@pytest.mark.parametrize("kind", ["gunicorn gthread", "gunicorn gevent"])
def test_a_burst_from_one_request_reaches_all_machines_whole(
    server: RedisServer, kind: str
) -> None:
    count = 1000
    # On a busy machine a worker's hub can be late by all of the burst.
    room = {"SSE_HISTORY": count}
    with machines(server, kind, "gunicorn sync", **room) as webs, ExitStack() as stack:
        streams = [stack.enter_context(web.stream("a")) for web in webs]
        for stream in streams:
            stream.read()
        webs[0].publish(*({"data": str(n), "channel": "a"} for n in range(count)))
        for stream in streams:
            assert [e.data for e in stream.take(count)] == [*map(str, range(count))]


@pytest.mark.parametrize(
    "kinds",
    [("gunicorn gthread", "gunicorn gevent"), ("gunicorn sync", "gunicorn sync")],
)
def test_two_machines_are_one_service_while_workers_die_and_are_replaced(
    server: RedisServer, kinds: tuple[str, str]
) -> None:
    known: list[str] = []
    is_on = True

    def publish_on(web: Server, text: str) -> bool:
        try:
            return bool(web.publish({"data": text, "channel": "room"}))
        except (OSError, http.client.HTTPException):
            return False

    with machines(server, *kinds) as webs:
        clients = [Faithful(web, "room") for web in webs for _ in range(4)]

        def go_on() -> None:
            number = 0
            while is_on:
                number += 1
                if publish_on(webs[number % 2], str(number)):
                    known.append(str(number))

        publisher = threading.Thread(target=go_on, daemon=True)
        try:
            for client in clients:
                assert client.has_begun.wait(PATIENCE)
            publisher.start()
            for web in [*webs, *webs]:
                before = len(known)
                os.kill(web.stats()["process"], signal.SIGKILL)
                until(lambda before=before: len(known) > before + 10)  # type: ignore[misc]
            for web in webs:
                before = len(known)
                web.signal(signal.SIGHUP)
                until(lambda before=before: len(known) > before + 10)  # type: ignore[misc]
            is_on = False
            publisher.join(PATIENCE)
            until(lambda: publish_on(webs[0], "the end"))
            for client in clients:
                client.join()
        finally:
            is_on = False
            for client in clients:
                client.stop()
    for client in clients:
        assert client.gaps == []
        assert client.data == clients[0].data
    numbers = [int(text) for text in clients[0].data[:-1]]
    assert numbers == sorted(set(numbers))
    assert {*known} <= {*clients[0].data}
    assert any(len(set(client.processes)) > 1 for client in clients)

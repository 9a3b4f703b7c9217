"""Publisher: publishing from a process that has no application."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from markupsafe import Markup

from flask_sse_lite import SSE, BrokerUnavailable, Event, InvalidValue, Publisher

from .redis_servers import RedisServer, redis_server
from .servers import HOST, PATIENCE, ROOT, Server, reserved_port, serve

#: More events than a store keeps by default.
HISTORY = 2_000

_numbers = count()


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store that nobody has used."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/events.db"
    server: RedisServer = request.getfixturevalue("redis")
    return f"{server.url}?prefix=store{next(_numbers)}"


@pytest.fixture
def publisher(url: str) -> Iterator[Publisher]:
    with Publisher.from_url(url) as publisher:
        yield publisher


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The URL of the server's store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('store')}/events.db"
    url: str = request.getfixturevalue("redis").url
    return url


@pytest.fixture(scope="module")
def server(store: str) -> Iterator[Server]:
    """An application on two workers."""
    with serve(
        "gunicorn sync", options="--workers 2", SSE_URL=store, SSE_HISTORY=HISTORY
    ) as server:
        yield server


def extended(url: str, options: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{options}"


def run(script: str, *words: str, folder: Path) -> list[str]:
    """Run a script, which must succeed and print no error.

    :returns: the lines that it prints.
    """
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.fixture
def application(url: str) -> Iterator[SSE]:
    """An application that has used the store first."""
    yield from _application(url, SSE_HISTORY=HISTORY)


def _application(url: str, **config: Any) -> Iterator[SSE]:
    app, sse = Flask("application"), SSE()
    app.config.update(SSE_URL=url, **config)
    app.register_blueprint(sse)
    with app.app_context():
        sse.position()
        yield sse
    app.extensions["sse"].close()


# Publishing

SCRIPT = """
import sys, threading
from flask_sse_lite import Publisher

publisher = Publisher.from_url(sys.argv[1])
for number in range(3):
    event = publisher.publish({"number": number}, type="step", channel=sys.argv[2])
    print(event.id)
assert threading.active_count() == 1
"""


def test_what_a_script_publishes_arrives_at_the_browser(
    server: Server, store: str, tmp_path: Path
) -> None:
    with server.channel() as channel, server.stream(channel) as client:
        ids = run(SCRIPT, store, channel, folder=tmp_path)
        events = client.take(3)
    assert [(e.type, e.json["number"], e.id) for e in events] == [
        ("step", number, id) for number, id in enumerate(ids)
    ]


WORKER = """
import os, sys, threading
from flask_sse_lite import Publisher

publisher = Publisher.from_url(sys.argv[1])

def publish(who):
    for number in range(20):
        publisher.publish(f"{who} {number}", channel=sys.argv[2])

publish("before")
children = []
for child in range(4):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            threads = [
                threading.Thread(target=publish, args=(f"child {child} {number}",))
                for number in range(3)
            ]
            for thread in threads:
                thread.start()
            publish(f"child {child}")
            for thread in threads:
                thread.join()
            status = 0
        finally:
            os._exit(status)
    children.append(pid)
publish("after")
for pid in children:
    _, status = os.waitpid(pid, 0)
    assert status == 0
publish("in the end")
publisher.close(sys.argv[2])
"""


def test_processes_that_were_forked_go_on_with_their_parents(
    server: Server, store: str, tmp_path: Path
) -> None:
    children = [f"child {n}" for n in range(4)]
    threads = [f"{child} {n}" for child in children for n in range(3)]
    who = ["before", *children, *threads, "after", "in the end"]
    with server.channel() as channel, server.stream(channel) as client:
        run(WORKER, store, channel, folder=tmp_path)
        *events, end = [e for e in client.events if e.type != "stream-open"]
    assert end.type == "stream-end"
    found: dict[str, list[int]] = {name: [] for name in who}
    for event in events:
        name, _, number = event.data.rpartition(" ")
        found[name].append(int(number))
    assert found == {name: list(range(20)) for name in who}


def test_threads_share_one(application: SSE, publisher: Publisher) -> None:
    def publish(who: int) -> None:
        try:
            for number in range(25):
                publisher.publish([who, number])
        except Exception as error:
            failures.append(error)

    failures: list[Exception] = []
    messages = application.messages(timeout=PATIENCE)
    threads = [threading.Thread(target=publish, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    events = [next(messages).json for _ in range(8 * 25)]
    assert [e for who in range(8) for e in events if e[0] == who] == [
        [who, number] for who in range(8) for number in range(25)
    ]


def test_one_that_publishes_has_one_connection(redis: RedisServer) -> None:
    before = redis.clients("normal"), redis.clients("pubsub")
    with Publisher.from_url(redis.url) as publisher:
        assert (redis.clients("normal"), redis.clients("pubsub")) == before
        for _ in range(3):
            publisher.publish("hello")
        publisher.position()
        assert redis.clients("normal") == before[0] + 1
        assert redis.clients("pubsub") == before[1]


def test_it_publishes_as_an_application_does(
    application: SSE, publisher: Publisher
) -> None:
    since = application.position()
    sent = [
        publisher.publish("plain"),
        publisher.publish("all", "type", "own id", 7, "room"),
        publisher.publish(b"bytes", channel="room"),
        publisher.publish(Event("ready", "type", retry=1), channel="room"),
    ]
    received = [
        *application.messages(since=since, timeout=0),
        *application.messages("room", since=since, timeout=0),
    ]
    assert received == sent
    assert [(e.data, e.type, e.retry, e.channel) for e in sent] == [
        ("plain", None, None, "sse"),
        ("all", "type", 7, "room"),
        ("bytes", None, None, "room"),
        ("ready", "type", 1, "room"),
    ]
    assert sent[1].id == "own id"


def test_several_channels_get_an_event_each(
    application: SSE, publisher: Publisher
) -> None:
    since = application.position()
    last = publisher.publish("hello", channel=["a", "b"])
    (first,) = application.messages("a", since=since, timeout=0)
    assert [*application.messages("b", since=since, timeout=0)] == [last]
    assert (first.data, last.channel) == ("hello", "b")


@dataclass
class Point:
    y: int
    x: Decimal


@pytest.mark.parametrize(
    "data",
    [
        {"b": 1, "a": {"d": None, "c": [True]}},
        Point(1, Decimal("0.10")),
        [date(2024, 2, 29), datetime(2024, 2, 29, 12)],
        UUID(int=1),
        Markup("<b>"),
        "é",
        {"é": "é"},
        12.5,
        None,
    ],
    ids=str,
)
def test_json_is_as_flask_has_it(tmp_path: Path, data: Any) -> None:
    text = data if isinstance(data, str) else Flask("application").json.dumps(data)
    with Publisher.from_url(f"sqlite:///{tmp_path}/events.db") as publisher:
        assert publisher.publish(data).data == text


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"data": object()}, "cannot be made JSON"),
        ({"data": {1: 1, "a": 1}}, "cannot be made JSON"),
        ({"data": b"\xff"}, "UTF-8"),
        ({"data": "a", "type": "a\nb"}, "type"),
        ({"data": "a", "type": "stream-end"}, "stream-"),
        ({"data": "a", "id": ""}, "id"),
        ({"data": "a", "retry": True}, "retry"),
        ({"data": "a", "channel": ""}, "channel"),
        ({"data": "a", "channel": "$run.x"}, "own"),
        ({"data": "a", "channel": []}, "at least one"),
        ({"data": "a", "channel": ["fine", True]}, "channel"),
        ({"data": Event("a"), "type": "b"}, "An Event has its own"),
    ],
)
def test_what_cannot_be_sent_is_refused(
    application: SSE, publisher: Publisher, given: Any, complaint: str
) -> None:
    before = publisher.position()
    with pytest.raises(InvalidValue, match=complaint):
        publisher.publish(**given)
    assert publisher.position() == before


def test_it_ends_a_channel(server: Server, store: str) -> None:
    with Publisher.from_url(store) as publisher, server.channel() as channel:
        with server.stream(channel) as client:
            publisher.publish("last", channel=channel)
            publisher.close(channel)
            assert [e.type for e in client.events] == [
                *("stream-open", None, "stream-end")
            ]
        with pytest.raises(InvalidValue, match="own"):
            publisher.close("$run.x")


def test_it_knows_where_the_store_stands(
    application: SSE, publisher: Publisher
) -> None:
    assert publisher.position() == application.position()
    assert publisher.publish("a").id == publisher.position() == application.position()


# The store is the application's


def test_it_does_not_trim_what_the_application_keeps(
    server: Server, store: str
) -> None:
    # 256 would be left if the publisher's default counted.
    with Publisher.from_url(store) as publisher, server.channel() as channel:
        since = publisher.position()
        for number in range(600):
            publisher.publish(str(number), channel=channel)
        with server.stream(channel, since=since) as client:
            assert [e.data for e in client.take(600)] == [*map(str, range(600))]


@pytest.mark.parametrize(
    ("options", "is_trimmed"),
    [("history=2&age=100", True), ("history=2", False), ("age=100", False)],
)
def test_a_url_has_a_say_when_it_says_all(
    application: SSE, url: str, options: str, is_trimmed: bool
) -> None:
    since = application.position()
    with Publisher.from_url(extended(url, options)) as publisher:
        for number in range(5):
            publisher.publish(number)
    first, *_ = application.messages(since=since, timeout=0)
    assert first.type == ("stream-gap" if is_trimmed else None)


def test_one_that_comes_first_leaves_the_say_to_the_application(
    url: str, publisher: Publisher
) -> None:
    since = publisher.position()
    for number in range(5):
        publisher.publish(number)
    application = _application(url, SSE_HISTORY=2)
    gap, *events = next(application).messages(since=since, timeout=0)
    assert gap.type == "stream-gap"
    assert [event.json for event in events] == [3, 4]
    assert next(application, None) is None


def test_a_prefix_tells_applications_apart(
    application: SSE, publisher: Publisher, url: str
) -> None:
    before = application.position()
    with Publisher.from_url(extended(url, "prefix=other")) as other:
        other.publish("hello")
    assert application.position() == before


# What it is made from


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ("memory://", "no browser would ever see its events"),
        ("sqlite:///events.db", "relative path, which means the instance folder"),
        ("sqlite://", "absolute"),
        ("kafka://localhost", "has the scheme 'kafka'"),
        ("redis://localhost?history=0", "history"),
        ("redis://:hush@localhost?histori=1", "is to be like"),
        ("", "is text"),
        (None, "is text"),
    ],
)
def test_a_url_that_leads_nowhere_is_refused(bad: Any, complaint: str) -> None:
    with pytest.raises(InvalidValue, match=complaint) as caught:
        Publisher.from_url(bad)
    assert "Publisher" in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("bad", [0, -1, "5", None, float("nan")])
def test_a_timeout_is_a_number_of_seconds(bad: Any) -> None:
    with pytest.raises(InvalidValue, match="timeout is a number of seconds above 0"):
        Publisher.from_url("redis://localhost", timeout=bad)


def test_nothing_is_reached_for_before_it_is_used(tmp_path: Path) -> None:
    with Publisher.from_url(f"sqlite:///{tmp_path}/missing/events.db") as publisher:
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(BrokerUnavailable, match="missing"):
            publisher.publish("hello")


def test_a_broker_that_is_not_there_is_an_error() -> None:
    with reserved_port() as port, ExitStack() as stack:
        publisher = Publisher.from_url(f"redis://{HOST}:{port}", timeout=1)
        stack.enter_context(publisher)
        for use in (
            lambda: publisher.publish("hello"),
            lambda: publisher.close("room"),
            publisher.position,
        ):
            with pytest.raises(BrokerUnavailable, match=f"Redis at {HOST}:{port}"):
                use()


def test_a_broker_that_comes_later_is_used_then(tmp_path: Path) -> None:
    file = tmp_path / "later" / "events.db"
    with Publisher.from_url(f"sqlite:///{file}") as publisher:
        with pytest.raises(BrokerUnavailable):
            publisher.publish("hello")
        file.parent.mkdir()
        assert publisher.publish("hello").data == "hello"


def test_one_that_has_disconnected_publishes_no_more(publisher: Publisher) -> None:
    publisher.publish("hello")
    publisher.shutdown()
    publisher.shutdown()
    with pytest.raises(BrokerUnavailable, match="closed"):
        publisher.publish("hello")


def test_it_needs_no_application_and_takes_none(
    application: SSE, publisher: Publisher, url: str
) -> None:
    # Not even the application in whose context it is called.
    app, sse = Flask("another"), SSE()
    app.register_blueprint(sse)
    since = application.position()
    with app.app_context():
        publisher.publish("hello")
    (event,) = application.messages(since=since, timeout=0)
    assert event.data == "hello"


@pytest.mark.parametrize("scheme", ["sqlite", "redis"])
def test_a_script_that_ends_says_nothing(
    scheme: str, tmp_path: Path, redis: RedisServer
) -> None:
    url = f"sqlite:///{tmp_path}/events.db" if scheme == "sqlite" else redis.url
    script = """
import json, sys
from flask_sse_lite import Publisher
with Publisher.from_url(sys.argv[1]) as publisher:
    print(json.dumps(str(publisher.publish({"b": 1, "a": 2}))))
"""
    (frame,) = run(script, url, folder=tmp_path)
    assert 'data: {"a": 2, "b": 1}\n' in json.loads(frame)

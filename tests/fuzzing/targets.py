"""What is fuzzed: each target takes any bytes, and raises where a promise breaks.

Strangers send the first ones, and the others lie in a store. How the bytes are found is
unknown here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

from flask import Flask
from werkzeug.test import EnvironBuilder, run_wsgi_app

from flask_sse_lite import SSE, Event, tokens
from flask_sse_lite.brokers.identities import counts_read, identity_read
from flask_sse_lite.brokers.redis import entries
from flask_sse_lite.brokers.sqlite import rows
from flask_sse_lite.brokers.view import View
from flask_sse_lite.decoder import Decoder
from flask_sse_lite.doctor import account
from flask_sse_lite.event import BLANKS
from flask_sse_lite.history.records import Record
from flask_sse_lite.history.revocations import Revocation
from flask_sse_lite.position import (
    RUN_PREFIX,
    is_position,
    parse_position,
    position_id,
    without_run_names,
)

EPOCH = "0123456789abcdef"
RUN = "abcdefghijklmnopqrstuv"
SECRET = b"a secret"

#: What the bytes of a request begin with: the path, and the method.
PATHS = ["/stream", "/run", f"/stream/run/{RUN}", "/stream/sse.js", "/room/a"]
METHODS = ["GET", "HEAD", "OPTIONS", "POST"]

HEADERS = [
    *("LAST_EVENT_ID", "AUTHORIZATION", "COOKIE", "ACCEPT", "ORIGIN", "HOST"),
    *("SEC_FETCH_SITE", "SSE_DOCTOR", "X_FORWARDED_FOR"),
]


class Target(NamedTuple):
    """Something that reads bytes."""

    read: Callable[[bytes], object]
    seeds: Sequence[bytes]


def decoder(data: bytes) -> None:
    """A stream is decoded to the same, wherever it is cut."""
    at = data[0] if data else 0
    stream = data[1:]
    whole, cut = Decoder(), Decoder()
    events = whole.feed(stream)
    assert cut.feed(stream[:at]) + cut.feed(stream[at:]) == events
    assert (cut.retry, cut.last_event_id) == (whole.retry, whole.last_event_id)


def ids(data: bytes) -> None:
    """An id is taken apart, and put together to the same; no log shows a run's name."""
    for text in (data.decode("latin-1"), data.decode(errors="replace")):
        if found := parse_position(text):
            channel = RUN_PREFIX + found.run if found.run else "room"
            written = position_id(found.epoch, found.sequence, channel)
            assert written == text.strip(BLANKS)
            assert is_position(written)
            assert not found.run or found.run not in without_run_names(text)
        without_run_names(text)


@cache
def application() -> tuple[Flask, SSE]:
    app, sse = Flask("fuzzed"), SSE()
    app.config |= {
        "SECRET_KEY": "a key of the tests",
        "SSE_TOKEN_IN_QUERY": True,
        "SSE_PUBLIC_CHANNELS": ["public", "room.*"],
        "SSE_SAME_SITE_RUNS": True,
        "SSE_HEARTBEAT": 0.01,  # So that a silent stream's second piece comes soon.
    }
    sse.init_app(app)
    app.add_url_rule("/run", "run", lambda: sse.run(["an item"]), methods=METHODS)
    app.add_url_rule("/room/<room>", "room", lambda room: sse.stream(f"room.{room}"))
    with app.app_context():
        sse.publish(SECRET.decode(), channel="secret")
    app.logger.propagate = False
    return app, sse


class Errors(logging.Handler):
    """Raises what is logged as an error: Flask answers 500 and goes on."""

    def emit(self, record: logging.LogRecord) -> None:
        raise AssertionError(record.getMessage()) from (record.exc_info or [None] * 2)[
            1
        ]


def request(data: bytes) -> None:
    """Any request is answered, without an error, and no secret is told. The first line
    says which path and method, the second is the query, and each of the others begins
    with the number of a header."""
    app, _ = application()
    app.logger.handlers[:] = [Errors(logging.ERROR)]
    first, *lines = data.split(b"\n")
    path, method = (first + b"\0\0")[:2]
    environ = EnvironBuilder(
        path=PATHS[path % len(PATHS)], method=METHODS[method % len(METHODS)]
    ).get_environ()
    if lines:
        environ["QUERY_STRING"] = lines[0].decode("latin-1")
    for line in filter(None, lines[1:]):
        name = HEADERS[line[0] % len(HEADERS)]
        environ[f"HTTP_{name}"] = line[1:].decode("latin-1").replace("\r", "")
    pieces, status, _ = run_wsgi_app(app, environ)
    with closing(pieces):  # type: ignore[type-var]
        body = b"".join(islice(pieces, 2))
    assert not status.startswith("5"), status
    assert SECRET not in body


def token(data: bytes) -> None:
    """Nobody makes a token who does not have the key."""
    app, _ = application()
    with app.test_request_context():
        for text in (data.decode("latin-1"), data.decode(errors="replace")):
            try:
                grant = tokens.grant_of(text)
            except tokens.Refused:
                continue
            raise AssertionError(grant)
    account.read(data.decode("latin-1"))


@cache
def view() -> View:
    return View("A store")


def redis_entry(data: bytes) -> None:
    """An entry of a Redis is read, or taken for a gap. Bytes up to the first line's end
    are other fields than the body's."""
    check(entries.record(view(), EPOCH, 7, 0.0, "room", data))
    words, _, body = data.partition(b"\n")
    fields = [*words.split(b" "), b"b", body]
    (*_, record) = entries.records(view(), "room", [[b"7-0", fields]], EPOCH, 1000)
    check(record)


def sqlite_row(data: bytes) -> None:
    """A row of a file is read, or taken for a gap. The bytes are its columns as JSON;
    what is no JSON stands in each of them."""
    try:
        columns = json.loads(data)
    except (ValueError, RecursionError):
        columns = None
    if not isinstance(columns, list) or len(columns) != len(COLUMNS):
        for place, _ in enumerate(COLUMNS):
            for value in (data, data.decode("latin-1")):
                row = [*COLUMNS[:place], value, *COLUMNS[place + 1 :]]
                check(rows.record(view(), EPOCH, (7, row[0], "room", *row[1:]), 9.0))
        return
    plain = [c if isinstance(c, (str, int, float)) else None for c in columns]
    check(rows.record(view(), EPOCH, (7, plain[0], "room", *plain[1:]), 9.0))


#: Of a row that is right: time, data, type, id, retry, trace.
COLUMNS: tuple[Any, ...] = (1.5, "data", None, None, None, None)


def noted(data: bytes) -> None:
    """What stands in a store of identities and of revocations."""
    for who, count in counts_read(data).items():
        assert isinstance(who, str)
        assert count > 0
    for text in (data, data.decode("latin-1"), data.decode(errors="replace")):
        assert identity_read(text) != ""
    found = Revocation.of(Event(data.decode(errors="replace")))
    assert found is None or any(found)


def check(record: Record) -> None:
    """A record that was read can be sent, and is decoded to the same."""
    if not record.event:
        return
    (event,) = Decoder().feed(record.event.encode())
    lines = record.event.data.replace("\r\n", "\n").replace("\r", "\n")
    assert event.data == lines


TARGETS = {
    "decoder": Target(
        decoder,
        [b"\x03data: a\r\nid: 1\nretry: 7\revent: x\nchannel: c\n\n: beat\n\ndata\n\n"],
    ),
    "ids": Target(ids, [f"{EPOCH}-17".encode(), f" {EPOCH}-0-{RUN} ".encode()]),
    "request": Target(
        request,
        [
            b"\0\0\nchannel=public&channel=room.1&last_event_id=1",
            f"\0\0\nchannel=secret\n\0{EPOCH}-17".encode(),
            b"\1\3\ntoken=sse1.x.y\n\1Bearer sse1.W10.x\n\2sse_token=sse1.x",
            b"\2\0\n\n\4https://example.com\n\6cross-site\n\3text/event-stream",
            b"\0\0\nchannel=%ff%00&channel=$run.x\n\7eyJ9.x\n\5[::1]:80",
        ],
    ),
    "token": Target(token, [b"sse1.WzEsbnVsbCwiYSJd.c2lnbmF0dXJl", b"sse1..", b"{}"]),
    "redis": Target(
        redis_entry,
        [
            b'["data","type","id",7,"00-1-1-01"]',
            b't 100 p 6\n["data",null,null,null]',
            b"1048576",
            b'["data",null,null,Infinity]',
        ],
    ),
    "sqlite": Target(
        sqlite_row,
        [
            b'[1.5,"data","type","id","7",null]',
            b'[1,null,"begin",null,"7",null]',
            b'[1.5,"data",null,null,Infinity,null]',
        ],
    ),
    "noted": Target(
        noted, [b'{"ann":2}', b'"ann"', b'{"identity":"ann","channel":null}']
    ),
}

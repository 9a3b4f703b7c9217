"""What strangers send, and what lies in a store, can be anything: it is answered, and
harms nobody else.

The decoder's own cases stand in test_decoder.py.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from unicodedata import category

import pytest
from flask import Flask
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder, run_wsgi_app

from flask_sse_lite import SSE, Event, InvalidValue, tokens
from flask_sse_lite.brokers import Broker
from flask_sse_lite.brokers import redis as redis_broker
from flask_sse_lite.event import check_channel
from flask_sse_lite.position import is_position, parse_position
from flask_sse_lite.testing.broker_suite import Reader, publish

from .fuzzing.targets import TARGETS
from .stores import RedisStore, SqliteStore

#: An application or a store is made once for all examples: nothing that one of them
#: does must harm the next.
FUZZED = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

KEY = "a key of the tests"

TEXT = st.text(max_size=60)

#: Texts that are almost right.
ODD_IDS = st.one_of(
    TEXT,
    st.from_regex(r"[0-9a-f]{14,18}-[0-9]{0,22}(-[A-Za-z0-9_-]{20,24})?"),
    st.from_regex(r"\A ?[0-9a-f]{16}-[0-9]{1,19} ?\Z"),
)

#: What one can write into a header: no line can end in it.
HEADER = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"))


@given(ODD_IDS)
def test_whatever_an_id_is_it_is_taken_apart_or_unknown(id: str) -> None:
    found = parse_position(id)
    if found:
        assert len(found.epoch) == 16
        assert 0 <= found.sequence < 10**19
    assert not is_position(id) or found


@pytest.fixture
def app(app: Flask) -> Iterator[Flask]:
    app.config |= {
        "SECRET_KEY": KEY,
        "SSE_TOKEN_IN_QUERY": True,
        "SSE_PUBLIC_CHANNELS": ["public", "room.*"],
        "SSE_SAME_SITE_RUNS": True,
    }
    with app.app_context():
        yield app


@pytest.fixture
def ask(
    app: Flask, sse: SSE, caplog: pytest.LogCaptureFixture
) -> Callable[..., tuple[int, bytes]]:
    """Asks the application for something, and reads what it sends at once."""
    sse.publish("of everybody", channel="public")
    sse.publish("a secret", channel="secret")

    @app.get("/run")
    def run() -> Any:
        return sse.run(["an item"])

    def ask(path: str, headers: dict[str, str], method: str = "GET") -> Any:
        builder = EnvironBuilder(path="/stream", method=method)
        environ = builder.get_environ()
        target, _, query = path.partition("?")
        environ |= {"PATH_INFO": target, "QUERY_STRING": query}
        for name, value in headers.items():
            environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
        # Not by a test client, which encodes a query's odd bytes.
        with caplog.at_level(logging.ERROR):
            pieces, status, _ = run_wsgi_app(app, environ)
            with closing(pieces):  # type: ignore[type-var]
                body = b"".join(islice(pieces, 2))
        assert caplog.records == []
        return int(status[:3]), body

    return ask


QUERY = st.one_of(
    st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=60),
    st.lists(
        st.tuples(
            st.sampled_from(["channel", "last_event_id", "lastEventId", "token"]),
            st.sampled_from(["public", "secret", "$run.x", "%00", "%ff", "a%0ab", ""]),
        ),
        max_size=5,
    ).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs)),
)


@FUZZED
@given(
    query=QUERY,
    headers=st.dictionaries(
        st.sampled_from(
            [
                *("Last-Event-ID", "Authorization", "Cookie", "Accept", "Origin"),
                *("Sec-Fetch-Site", "SSE-Doctor", "X-Forwarded-For"),
            ]
        ),
        HEADER,
        max_size=4,
    ),
    path=st.sampled_from(["/stream", "/run", "/stream/run/x", "/stream/sse.js"]),
    method=st.sampled_from(["GET", "GET", "HEAD", "OPTIONS", "POST"]),
)
def test_whatever_is_asked_for_it_is_answered_and_no_secret_is_told(
    ask: Callable[..., tuple[int, bytes]],
    query: str,
    headers: dict[str, str],
    path: str,
    method: str,
) -> None:
    status, body = ask(f"{path}?{query}", headers, method)
    assert status < 500
    assert b"a secret" not in body


@FUZZED
@given(data=st.data())
def test_an_altered_token_lets_nobody_in(sse: SSE, app: Flask, data: Any) -> None:
    good = sse.sign("room.7", identity="ann")
    at = data.draw(st.integers(0, len(good) - 1))
    change = st.sampled_from(
        [
            good[:at] + good[at + 1 :],
            good[:at] + data.draw(st.characters(max_codepoint=0x24F)) + good[at + 1 :],
            good[:at] + data.draw(st.characters(max_codepoint=0x24F)) + good[at:],
            good[:at],
            good[at:] + good[:at],
            good + data.draw(TEXT),
        ]
    )
    altered = data.draw(change)
    with app.test_request_context():
        try:
            grant = tokens.grant_of(altered)
        except tokens.Refused:
            return
    # In base64, the last character has bits that do not count, and a character that
    # belongs to no digit does not count at all.
    assert grant == tokens.Grant("ann", ("room.7",))


@given(TEXT)
def test_a_name_that_is_taken_for_a_channel_s_can_be_told(name: str) -> None:
    try:
        check_channel(name)
    except InvalidValue:
        return
    assert not any(category(letter) == "Cc" for letter in name)
    name.encode()


@pytest.mark.parametrize("name", TARGETS)
def test_what_make_fuzz_begins_with_breaks_nothing(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].read(seed)


# What lies in a store

VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.binary(max_size=20),
    st.sampled_from(["stream-end", "begin", "1.5", "-1", "\n", "a\0b", "00-1-1-01"]),
)


class Fuzzed:
    """A store in which one channel gets anything, and another what is right."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.readers = [Reader(broker, channel) for channel in ("odd", "other")]
        self.count = 0

    @staticmethod
    def _has_come(reader: Reader, text: str) -> bool:
        return reader.data[-1:] == [text]

    def assert_goes_on(self) -> None:
        self.count += 1
        text = f"right {self.count}"
        for reader, channel in zip(self.readers, ("odd", "other"), strict=True):
            publish(self.broker, channel, text)
            reader.until(partial(self._has_come, reader, text))


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path)
    yield store
    store.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisStore]:
    store = RedisStore(tmp_path)
    yield store
    store.close()


def test_whatever_stands_in_a_row_of_a_file_all_channels_go_on(
    file: SqliteStore,
) -> None:
    fuzzed = Fuzzed(file.open())
    columns = ("time", "data", "type", "id", "retry", "trace")

    @FUZZED
    @given(st.lists(VALUES, min_size=6, max_size=6))
    def check(values: list[Any]) -> None:
        at, data, *_ = values
        assume(at is not None)  # The file refuses this itself.
        assume(data is not None)  # An entry without data is the channel's end.
        with closing(sqlite3.connect(file.file, isolation_level=None)) as connection:
            connection.execute(
                f"INSERT INTO sse_events (channel, {', '.join(columns)}) "
                "VALUES ('odd', ?, ?, ?, ?, ?, ?)",
                values,
            )
        fuzzed.assert_goes_on()

    check()


BODIES = st.one_of(
    st.binary(max_size=40),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | TEXT,
        lambda inner: st.lists(inner, max_size=6) | st.dictionaries(TEXT, inner),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
)


def begins_a_run(body: bytes) -> bool:
    """Whether an entry is a number: so many bytes are kept from there on, and that can
    be less than what comes next."""
    try:
        return isinstance(json.loads(body), int)
    except (ValueError, RecursionError):
        return False


def test_whatever_stands_in_an_entry_of_redis_all_channels_go_on(
    server: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fuzzed = Fuzzed(server.open())

    @FUZZED
    @given(BODIES)
    def check(body: bytes) -> None:
        assume(body)  # An entry without a body is the channel's end.
        assume(not begins_a_run(body))
        with monkeypatch.context() as patch:
            patch.setattr(redis_broker, "_packed", lambda event: body)
            fuzzed.broker.publish("odd", Event("is replaced"))
        fuzzed.assert_goes_on()

    check()

"""The bytes of a stream's opening, of its events, and of what it says between them."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from flask_sse_lite import Event
from flask_sse_lite.decoder import Decoder
from flask_sse_lite.history.cursor import Batch, Cursor
from flask_sse_lite.history.log import Log
from flask_sse_lite.hub import frames as module
from flask_sse_lite.hub.frames import (
    come_back,
    frames,
    opening,
    position_event,
    spread_retry,
)
from flask_sse_lite.settings import Settings

EPOCH = "0123456789abcdef"

ALL = 1 << 30

SETTINGS = Settings.read({"SSE_HEARTBEAT": 2.5, "SSE_RETRY": 1000})


@pytest.fixture
def log() -> Log:
    return Log(history=2, age=99, epoch=EPOCH)


def read(log: Log, *channels: str, since: int = 0) -> tuple[Cursor, Batch]:
    cursor = log.cursor(channels, log.position(since))
    return cursor, log.read(cursor, ALL)


def test_clients_are_told_to_come_back_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert {800 <= spread_retry(1000) <= 1200 for _ in range(99)} == {True}
    drawn: list[int] = []
    for draw in (min, max):
        monkeypatch.setattr(module, "CHANCE", SimpleNamespace(uniform=draw))
        drawn.append(spread_retry(1000))
    assert drawn == [800, 1200]


def test_who_must_come_back_is_told_when_and_nothing_else() -> None:
    assert come_back(30_000) == b"retry: 30000\n\n"


class TestTheOpening:
    def test_it_says_where_the_client_stands_and_how_long_it_is_silent(
        self, log: Log
    ) -> None:
        log.append("a", Event("1"))
        sent = opening(log, log.cursor(["a"]), SETTINGS, shareable=False)
        assert re.sub(rb"retry: \d+", b"retry: N", sent).splitlines() == [
            b"event: stream-open",
            *(b"data: ", b"id: %b-1" % EPOCH.encode(), b"retry: N"),
            *(b": heartbeat 2.5", b""),
        ]
        (event,) = Decoder().feed(sent)
        assert event.retry is not None
        assert 800 <= event.retry <= 1200

    def test_it_says_whether_tabs_can_share_the_stream(self, log: Log) -> None:
        sent = opening(log, log.cursor(["a"]), SETTINGS, shareable=True)
        assert sent.endswith(b"\n: heartbeat 2.5 shareable\n\n")

    @pytest.mark.parametrize(
        ("since", "id"), [("order 7", "order 7"), ("a\nb", "unknown")]
    )
    def test_who_comes_back_is_told_its_own_id_if_a_line_can_carry_it(
        self, log: Log, since: str, id: str
    ) -> None:
        log.append("a", Event("1", id="order 7"))
        sent = opening(log, log.cursor(["a"], since), SETTINGS, shareable=False)
        (event,) = Decoder().feed(sent)
        assert event.id == id


class TestEvents:
    def test_of_one_channel_they_are_as_they_were_published(self, log: Log) -> None:
        events = [log.append("a", Event(text)) for text in "12"]
        cursor, batch = read(log, "a")
        assert frames(log, cursor, batch) == b"".join(e.encode() for e in events)

    def test_of_several_channels_each_says_its_own(self, log: Log) -> None:
        one, two = log.append("a", Event("1")), log.append("b", Event("2"))
        cursor, batch = read(log, "a", "b")
        assert frames(log, cursor, batch) == (
            b"channel: a\n" + one.encode() + b"channel: b\n" + two.encode()
        )

    def test_a_gap_comes_first_and_the_end_last(self, log: Log) -> None:
        for text in "123":
            log.append("a", Event(text))
        log.end("a")
        cursor, batch = read(log, "a")
        events = Decoder().feed(frames(log, cursor, batch))
        assert [event.type for event in events] == ["stream-gap", None, "stream-end"]
        assert events[-1].id == log.position(4)

    def test_where_there_is_nothing_nothing_is_sent(self, log: Log) -> None:
        cursor, batch = read(log, "a")
        assert frames(log, cursor, batch) == b""

    def test_they_are_made_once_for_all(self, log: Log) -> None:
        log.append("a", Event("1"))
        (first, batch), (second, same) = read(log, "a"), read(log, "a")
        assert same is batch
        assert frames(log, first, batch) is frames(log, second, same)


def test_a_silent_stream_says_how_far_it_has_read(log: Log) -> None:
    (event,) = Decoder().feed(position_event(log.cursor(["a"])))
    assert (event.type, event.id) == ("stream-position", log.position())

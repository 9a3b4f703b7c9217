"""Endings: who ends when a server stops or an application asks for it, and what its
readers get first."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from flask_sse_lite import Event
from flask_sse_lite.decoder import Decoder
from flask_sse_lite.history.log import Log
from flask_sse_lite.hub import endings as module
from flask_sse_lite.hub.connection import Connection
from flask_sse_lite.hub.endings import LAST_WORDS, Ending, Endings
from flask_sse_lite.settings import Settings

from .hub_parts import Faulty, Parts, Stream, hub_parts, is_closed, received

MINE, OTHERS = Settings.read({}), Settings.read({})

BUDGET = 1000


@pytest.fixture
def log() -> Log:
    return Log(history=9, age=99)


@pytest.fixture
def parts() -> Iterator[Parts]:
    with hub_parts() as parts:
        yield parts


@pytest.fixture
def endings(parts: Parts) -> Endings:
    return Endings(parts, parts.lock, parts.audiences, parts.fanout)


def join(parts: Parts, stream: Stream) -> Stream:
    with parts.lock:
        parts.audiences.join(stream)
    return stream


class TestAnApplicationEnds:
    def test_its_streams_end_and_no_others(
        self, log: Log, parts: Parts, endings: Endings
    ) -> None:
        mine, other = (
            join(parts, Stream(log, settings=settings)) for settings in (MINE, OTHERS)
        )
        _, other_client = parts.connect(log, OTHERS, "b")
        _, my_client = parts.connect(log, MINE)
        ending = Ending(lambda whom: whom.settings is MINE, patience=3)
        endings.ask(ending)
        assert len(endings) == 1
        endings.end_the_dismissed()
        assert (mine.stops, other.stops) == ([3], [])
        assert (is_closed(my_client), is_closed(other_client)) == (True, False)
        assert ending.is_done.is_set()
        assert len(endings) == 0
        assert len(parts.places) == 1

    @pytest.mark.parametrize("chunked", [False, True])
    def test_they_get_first_what_was_published_before(
        self, log: Log, parts: Parts, endings: Endings, chunked: bool
    ) -> None:
        _, client = parts.connect(log, MINE, chunked=chunked)
        parts._welcome_all()
        log.append("a", Event("last"))
        endings.ask(Ending(lambda whom: True))
        endings.end_the_dismissed()
        sent = received(client)
        assert b"data: last" in sent
        assert sent.endswith(b"\r\n0\r\n\r\n") is chunked  # The body is whole.

    def test_who_waits_for_its_group_gets_it_too(
        self, log: Log, parts: Parts, endings: Endings
    ) -> None:
        _, first = parts.connect(log, MINE)
        parts._welcome_all()
        log.append("a", Event("1"))
        _, second = parts.connect(log, MINE)
        parts._welcome_all()  # It has read what its group has not.
        log.append("a", Event("2"))
        endings.ask(Ending(lambda whom: True))
        endings.end_the_dismissed()
        for client, data in ((first, ["1", "2"]), (second, ["2"])):
            events = Decoder().feed(received(client))
            assert [event.data for event in events] == data
            assert is_closed(client)

    def test_who_comes_in_the_meantime_ends_too(
        self, log: Log, parts: Parts, endings: Endings
    ) -> None:
        connection, client = parts.connect(log, MINE)
        log.append("a", Event("1"))
        endings.ask(Ending(lambda whom: whom is connection))
        endings.end_the_dismissed()
        assert b"data: 1" in received(client)
        assert len(parts.fanout) == 0

    def test_who_cannot_be_stopped_keeps_nobody_else(
        self,
        log: Log,
        parts: Parts,
        endings: Endings,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        join(parts, Faulty(log))
        stream = join(parts, Stream(log))
        endings.ask(Ending(lambda whom: True))
        endings.end_the_dismissed()
        assert stream.stops == [0]
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        assert caplog.records[0].exc_info

    def test_what_fails_is_done_when_the_loop_comes_back(
        self, log: Log, parts: Parts, endings: Endings
    ) -> None:
        faults: list[Exception] = [ZeroDivisionError()]

        def is_of(whom: object) -> bool:
            if faults and isinstance(whom, Connection):
                raise faults.pop()
            return True

        _, client = parts.connect(log, MINE)
        ending = Ending(is_of)
        endings.ask(ending)
        with pytest.raises(ZeroDivisionError):
            endings.end_the_dismissed()
        assert len(endings) == 1
        assert not ending.is_done.is_set()
        endings.end_the_dismissed()
        assert is_closed(client)
        assert ending.is_done.is_set()


class TestAServerStops:
    @pytest.fixture(autouse=True)
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        clock = SimpleNamespace(now=1000.0)
        clock.monotonic = lambda: clock.now
        monkeypatch.setattr(module, "time", clock)
        return clock

    def test_all_streams_end(self, log: Log, parts: Parts, endings: Endings) -> None:
        stream = join(parts, Stream(log))
        _, client = parts.connect(log, MINE)
        parts._welcome_all()
        log.append("a", Event("last"))
        endings.stop()
        assert stream.stops == [None]
        assert b"data: last" in received(client)
        assert is_closed(client)
        assert endings.has_stopped.is_set()

    def test_the_readers_of_a_run_are_kept_for_its_last_words(
        self, log: Log, parts: Parts, endings: Endings
    ) -> None:
        start = log.hold("a", BUDGET)
        assert start is not None
        join(parts, Stream(log, "z")).last_words = (log, "a")
        _, reader = parts.connect(log, MINE, "a")
        _, other = parts.connect(log, MINE, "b")
        for _ in range(2):
            endings.stop()
            assert not is_closed(reader)
        assert is_closed(other)
        assert not endings.has_stopped.is_set()
        log.end_run("a", start, Event("last words"))
        endings.stop()
        assert b"data: last words" in received(reader)
        assert is_closed(reader)
        assert endings.has_stopped.is_set()

    def test_the_readers_of_a_run_that_is_over_are_not_kept(
        self, log: Log, parts: Parts, endings: Endings
    ) -> None:
        start = log.hold("a", BUDGET)
        assert start is not None
        join(parts, Stream(log, "z")).last_words = (log, "a")
        log.end_run("a", start)
        _, late = parts.connect(log, MINE, "a")
        endings.stop()
        assert is_closed(late)

    def test_last_words_that_never_come_are_not_waited_for_long(
        self, log: Log, parts: Parts, endings: Endings, clock: SimpleNamespace
    ) -> None:
        log.hold("a", BUDGET)
        join(parts, Stream(log, "z")).last_words = (log, "a")
        _, reader = parts.connect(log, MINE, "a")
        endings.stop()
        clock.now += LAST_WORDS - 0.1
        endings.stop()
        assert not is_closed(reader)
        clock.now += 0.1
        endings.stop()
        assert is_closed(reader)


class Reasons:
    """What a stream's end is told as."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def expect(self, why: str) -> None:
        self.told.append(why)


class TestAServerIsStopped:
    def test_its_streams_end_and_no_others(
        self,
        log: Log,
        parts: Parts,
        endings: Endings,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        program = SimpleNamespace(grace=7.0)
        stopped = SimpleNamespace(take_stopped=lambda: [program])
        monkeypatch.setattr(module, "programs", stopped)
        mine, other = join(parts, Stream(log)), join(parts, Stream(log))
        for stream, served_by in ((mine, program), (other, SimpleNamespace())):
            monkeypatch.setattr(stream, "program", served_by, raising=False)
        endings.end_the_dismissed()
        assert (mine.stops, other.stops) == ([7.0], [])


@pytest.mark.parametrize("stops", [True, False])
def test_the_end_is_told_with_its_reason(
    log: Log,
    parts: Parts,
    endings: Endings,
    monkeypatch: pytest.MonkeyPatch,
    stops: bool,
) -> None:
    stream, reasons = join(parts, Stream(log)), Reasons()
    monkeypatch.setattr(stream, "story", reasons, raising=False)
    if stops:
        endings.stop()
    else:
        endings.ask(Ending(lambda whom: True))
        endings.end_the_dismissed()
    assert reasons.told == ["shutdown" if stops else "end-streams"]


def test_a_stopped_servers_streams_end_as_at_a_shutdown() -> None:
    program = SimpleNamespace(grace=7.0)
    ending = module.of_program(program)  # type: ignore[arg-type]
    assert (ending.why, ending.patience) == ("shutdown", 7.0)


def test_all_that_was_asked_for_is_done(
    log: Log, parts: Parts, endings: Endings
) -> None:
    streams = [join(parts, Stream(log)) for _ in range(3)]
    asked = [Ending(lambda whom, one=one: whom is one) for one in streams[:2]]  # type: ignore[misc]
    for ending in asked:
        endings.ask(ending)
    endings.end_the_dismissed()
    assert [stream.stops for stream in streams] == [[0], [0], []]
    assert all(ending.is_done.is_set() for ending in asked)

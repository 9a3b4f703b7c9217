"""Streams that their servers iterate: what each of their phases leads to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from flask_sse_lite import Event
from flask_sse_lite.decoder import Decoder
from flask_sse_lite.event import HEARTBEAT
from flask_sse_lite.history.log import Log
from flask_sse_lite.hub.iterated import Beat, IteratedStream, Phase
from flask_sse_lite.settings import Settings

from .patience import patient
from .servers import until

#: Seconds that nothing here takes.
LONG = 3600.0


@pytest.fixture
def log() -> Log:
    return Log(history=9, age=LONG)


@pytest.fixture
def make(log: Log) -> Callable[..., IteratedStream]:
    """Make a stream of the channel a, with these settings."""

    def make(**settings: object) -> IteratedStream:
        return IteratedStream(
            log,
            log.cursor(["a"]),
            Settings.read(settings),
            end=threading.Lock(),
            program=None,
            sock=None,
        )

    return make


@pytest.fixture
def stream(make: Callable[..., IteratedStream]) -> IteratedStream:
    return make()


def phase_of(stream: IteratedStream) -> Phase:
    """A function's answer, so that the type checker expects it to change."""
    return stream.phase


def data_of(piece: bytes) -> list[str]:
    return [event.data or str(event.type) for event in Decoder().feed(piece)]


def test_a_stream_that_is_stopped_sends_what_there_is_and_is_over(
    log: Log, stream: IteratedStream
) -> None:
    phases = [stream.phase]
    log.append("a", Event("1"))
    for _ in range(2):
        stream.stop()
        phases.append(stream.phase)
    assert data_of(next(stream)) == ["1"]
    phases.append(stream.phase)
    log.append("a", Event("2"))
    assert data_of(next(stream)) == ["2"]
    assert next(stream, None) is None
    phases.append(stream.phase)
    assert phases == [Phase.GOING_ON, *[Phase.STOPPING] * 3, Phase.OVER]


@pytest.mark.parametrize("is_stopping", [False, True])
def test_at_the_end_of_its_channels_a_stream_is_over(
    log: Log, stream: IteratedStream, is_stopping: bool
) -> None:
    log.append("a", Event("1"))
    log.end("a")
    if is_stopping:
        stream.stop()
    assert data_of(next(stream))[-1] == "stream-end"
    assert phase_of(stream) is Phase.OVER
    assert next(stream, None) is None


def test_nothing_leads_out_of_the_end(log: Log, stream: IteratedStream) -> None:
    log.append("a", Event("1"))
    stream.end()
    for step in (stream.end, stream.stop, lambda: stream.tick(time.monotonic())):
        step()
        assert phase_of(stream) is Phase.OVER
    assert next(stream, None) is None


@pytest.mark.parametrize("step", ["end", "stop"])
def test_an_end_wakes_who_sleeps(stream: IteratedStream, step: str) -> None:
    pieces: list[bytes] = []
    reader = threading.Thread(target=lambda: pieces.extend(stream))
    reader.start()
    until(stream._asleep.locked, patient(10))
    getattr(stream, step)()
    reader.join(patient(10))
    has_ended = not reader.is_alive()
    stream.end()
    reader.join()
    assert has_ended
    assert pieces == []
    assert phase_of(stream) is Phase.OVER


def test_old_streams_are_stopped(make: Callable[..., IteratedStream]) -> None:
    stream = make(SSE_MAX_AGE=60)
    stream.tick(time.monotonic() + 59)
    assert phase_of(stream) is Phase.GOING_ON
    stream.tick(time.monotonic() + 61)
    assert phase_of(stream) is Phase.STOPPING


def test_what_was_sent_puts_the_sign_of_life_off(
    log: Log, make: Callable[..., IteratedStream]
) -> None:
    stream, now = make(SSE_HEARTBEAT=10), time.monotonic()
    stream._is_in_main_thread = False
    beats = [stream._beat]

    def tick(seconds: float) -> None:
        stream.tick(now + seconds)
        beats.append(stream._beat)

    def take() -> list[str]:
        piece = next(stream)
        beats.append(stream._beat)
        return ["heartbeat"] if piece == HEARTBEAT else data_of(piece)

    log.append("a", Event("1"))
    assert take() == ["1"]
    tick(11)
    tick(12)
    assert beats == [Beat.QUIET, Beat.SPOKE, Beat.QUIET, Beat.QUIET]
    del beats[:]
    tick(22)
    assert take() == ["heartbeat"]
    tick(23)
    assert beats == [Beat.DUE, Beat.QUIET, Beat.QUIET]
    del beats[:]
    tick(33)
    log.append("a", Event("2"))
    assert take() == ["2"]  # It is a sign of life, too.
    tick(34)
    assert beats == [Beat.DUE, Beat.SPOKE, Beat.QUIET]

"""Streams that their servers iterate: what each of their phases leads to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from flask_sse_lite import Event
from flask_sse_lite.decoder import Decoder
from flask_sse_lite.event import HEARTBEAT
from flask_sse_lite.history.log import Log
from flask_sse_lite.history.revocations import REVOCATIONS, Revocation
from flask_sse_lite.hub import iterated as module
from flask_sse_lite.hub.client import NOBODY, Client
from flask_sse_lite.hub.frames import BATCH_BYTES, POSITION_INTERVAL
from flask_sse_lite.hub.iterated import Beat, IteratedStream, Phase
from flask_sse_lite.hub.looks import DUE_SHARE
from flask_sse_lite.settings import Settings

from .hub_parts import Story
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

    def make(
        client: Client = NOBODY, sock: Any = None, story: Any = None, **settings: object
    ) -> IteratedStream:
        return IteratedStream(
            log,
            log.cursor(["a"]),
            Settings.read(settings),
            end=threading.Lock(),
            program=None,
            sock=sock,
            client=client,
            story=story,
        )

    return make


@pytest.fixture
def noon(monkeypatch: pytest.MonkeyPatch) -> float:
    """The time at which all streams of a test begin."""
    noon = 1000.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: noon))
    return noon


def is_awake(stream: IteratedStream) -> bool:
    """Whether the stream's thread would sleep no more, or not at its next step."""
    return not stream._asleep.locked()


def fall_asleep(stream: IteratedStream) -> None:
    """Have the stream's thread sleep, as far as the hub knows."""
    stream._asleep.acquire(blocking=False)


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


def test_the_hub_is_told_what_it_listens_to(
    log: Log, make: Callable[..., IteratedStream]
) -> None:
    stream = make(SSE_HEARTBEAT=7)
    assert (stream.channels, stream.heartbeat) == (("a",), 7)
    assert stream.cursor.id == log.position()
    assert iter(stream) is stream
    assert stream.on_the_wire() == (0, None)


def test_a_late_reader_gets_its_history_in_pieces_without_a_wake(
    log: Log, stream: IteratedStream
) -> None:
    for letter in "xyz":
        log.append("a", Event(letter * BATCH_BYTES))
    pieces = [data_of(next(stream)) for _ in range(2)]
    assert is_awake(stream)
    pieces.append(data_of(next(stream)))
    assert [[data[0] for data in piece] for piece in pieces] == [["x"], ["y"], ["z"]]
    assert not is_awake(stream)


def test_old_streams_are_stopped(
    noon: float, make: Callable[..., IteratedStream]
) -> None:
    story = Story()
    stream, other = make(story=story, SSE_MAX_AGE=60), make(SSE_MAX_AGE=None)
    stream.tick(noon + 59)
    assert phase_of(stream) is Phase.GOING_ON
    stream.tick(noon + 60)
    assert phase_of(stream) is Phase.STOPPING
    assert story.expected == ["max-age"]
    other.tick(noon + 1e6)
    assert phase_of(other) is Phase.GOING_ON


def test_what_is_sent_is_told(
    log: Log, noon: float, make: Callable[..., IteratedStream]
) -> None:
    story = Story()
    stream = make(story=story, SSE_HEARTBEAT=10)
    log.append("a", Event("1"))
    size = len(next(stream))
    stream.tick(noon)
    stream.tick(noon + 10)
    assert next(stream) == HEARTBEAT
    assert story.sent == [(1, size), (0, len(HEARTBEAT))]


ANN = Client("ann", None, 0.0)


def revoke(log: Log, identity: str) -> None:
    log.append(REVOCATIONS, Revocation(identity, None).to_event())


def test_whose_client_is_revoked_sends_nothing_more(
    log: Log, make: Callable[..., IteratedStream]
) -> None:
    story = Story()
    stream = make(ANN, story=story)
    log.append("a", Event("1"))
    assert data_of(next(stream)) == ["1"]
    log.append("a", Event("secret"))
    revoke(log, "ann")
    stream.wake()
    assert next(stream, None) is None
    assert phase_of(stream) is Phase.OVER
    assert story.expected == ["disconnect"]


def test_whose_client_was_revoked_before_it_began_sends_nothing(
    log: Log, make: Callable[..., IteratedStream]
) -> None:
    stream = make(ANN)
    revoke(log, "ann")
    log.append("a", Event("secret"))
    assert next(stream, None) is None


def test_who_is_not_meant_goes_on(
    log: Log, make: Callable[..., IteratedStream]
) -> None:
    stream = make(ANN)
    for text in "12":
        revoke(log, "bob")
        log.append("a", Event(text))
        stream.wake()
        assert data_of(next(stream)) == [text]


def test_a_client_that_takes_nothing_is_cut_and_its_stream_ends(
    noon: float, make: Callable[..., IteratedStream], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Progress:
        """Is stuck after the time of the limit."""

        def __init__(self, sock: object, limit: float, now: float) -> None:
            self._until = now + limit
            self.cuts = 0
            made.append(self)

        def is_stuck(self, now: float) -> bool:
            return now >= self._until

        def cut(self) -> None:
            self.cuts += 1

        def on_the_wire(self) -> tuple[int, int | None]:
            return 5, 7

    made: list[Progress] = []
    monkeypatch.setattr(module, "Progress", Progress)
    story = Story()
    stream, other = (make(sock=object(), story=story, SSE_MAX_STALL=30) for _ in "12")
    assert stream.on_the_wire() == (5, 7)
    stream.tick(noon + 29)
    assert (phase_of(stream), made[0].cuts) == (Phase.GOING_ON, 0)
    stream.tick(noon + 30)
    assert (phase_of(stream), made[0].cuts) == (Phase.STOPPING, 1)
    assert story.expected == ["stalled"]
    other.end()
    other.tick(noon + 30)  # It is over, and its socket can be another's by now.
    assert made[1].cuts == 0


def test_a_sign_of_life_is_due_when_nothing_was_sent_for_some_time(
    noon: float, make: Callable[..., IteratedStream]
) -> None:
    stream = make(SSE_HEARTBEAT=10)
    stream._is_in_main_thread = False
    fall_asleep(stream)
    stream.tick(noon + 10 * DUE_SHARE - 0.001)
    assert not is_awake(stream)
    stream.tick(noon + 10 * DUE_SHARE)
    assert is_awake(stream)
    assert next(stream) == HEARTBEAT


def test_an_idle_stream_says_from_time_to_time_how_far_it_has_read(
    log: Log, noon: float, make: Callable[..., IteratedStream]
) -> None:
    stream = make(SSE_HEARTBEAT=POSITION_INTERVAL / 2)

    def beat(seconds: float) -> list[str]:
        stream.tick(noon + seconds)
        piece = next(stream)
        return [] if piece == HEARTBEAT else data_of(piece)

    log.append("other", Event("1"))
    assert beat(POSITION_INTERVAL - 1) == []
    assert beat(2 * POSITION_INTERVAL - 1) == ["stream-position"]
    # There is nothing new to be said until others publish.
    assert beat(3 * POSITION_INTERVAL) == []
    log.append("other", Event("2"))
    assert beat(4 * POSITION_INTERVAL - 0.001) == []
    assert beat(4 * POSITION_INTERVAL + 40) == ["stream-position"]


def test_a_position_is_told_once_that_long_was_silent(
    log: Log, noon: float, make: Callable[..., IteratedStream]
) -> None:
    stream = make(SSE_HEARTBEAT=POSITION_INTERVAL / 2)
    log.append("other", Event("1"))
    stream.tick(noon + POSITION_INTERVAL)
    assert data_of(next(stream)) == ["stream-position"]


def test_the_main_thread_is_woken_at_each_look_for_signals(
    noon: float, make: Callable[..., IteratedStream]
) -> None:
    made: list[IteratedStream] = [make()]
    thread = threading.Thread(target=lambda: made.append(make()))
    thread.start()
    thread.join()
    for stream in made:
        fall_asleep(stream)
        stream.tick(noon + 1)
    assert [is_awake(stream) for stream in made] == [True, False]


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

"""The pulse: what each phase of an iterable leads to, and who sends when."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from flask_sse_lite.hub import keepalive
from flask_sse_lite.hub.keepalive import MARGIN, Phase, Pulse
from flask_sse_lite.hub.looks import DUE_SHARE
from flask_sse_lite.hub.outlet import Phase as Way
from flask_sse_lite.servers import gunicorn
from flask_sse_lite.settings import Settings

from .patience import patient
from .servers import until


class Outlet:
    """What the pulse asks of an outlet, without a server."""

    def __init__(self, *_: object) -> None:
        self.phase = Way.BEGUN
        self.program = object()
        self.progress: Any = None
        #: What sends items past the server, once that is decided.
        self.send: Callable[[bytes], None] | None = None
        self.is_begun = False
        self.has_left = False
        self.beats = 0
        #: How often it was asked to decide, and how many bytes it was told of before.
        self.asked = 0
        self.given: list[int] = []
        #: How often it was begun, was closed, and was told to send no more.
        self.begins = 0
        self.closes = 0
        self.last_beats = 0

    def begin(self) -> None:
        self.is_begun = True
        self.begins += 1

    def decide(self) -> None:
        self.asked += 1

    def note_given(self, size: int) -> None:
        self.given.append(size)

    def send_no_more_beats(self) -> None:
        self.last_beats += 1

    def is_client_gone(self) -> bool:
        return self.has_left

    def beat(self) -> None:
        self.beats += 1

    def close(self) -> None:
        self.closes += 1


class Interrupts(list[bool]):
    """For each interrupt, whether the iterable waited then."""

    def __call__(self, is_waiting: Callable[[], bool]) -> None:
        self.append(is_waiting())


class Answer:
    """A pulse, and what comes to it from all sides while it waits for its next item."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, can_tell: bool) -> None:
        monkeypatch.setattr(keepalive, "Outlet", Outlet)
        self.is_over = False
        #: What happens while the iterable makes its next item, one after the other.
        self.meanwhile: list[Callable[[], object]] = []
        self.pulse = Pulse(
            self._items(),
            {},
            lambda: print,
            Settings.read({"SSE_HEARTBEAT": 10}),
            lambda: self.is_over,
            (lambda: b"last words") if can_tell else None,
        )
        self.pulse._interrupt = self.interrupts = Interrupts()  # type: ignore[assignment]
        self.outlet: Outlet = self.pulse._outlet  # type: ignore[assignment]

    def _items(self) -> Iterator[bytes]:
        for number in range(9):
            if self.meanwhile:
                self.meanwhile.pop(0)()
            yield b"%d" % number

    def tick(self, seconds: float = 0) -> None:
        self.pulse.tick(time.monotonic() + seconds)

    def stop(self) -> None:
        self.pulse.stop(0)
        self.tick(1)

    def leave(self) -> None:
        self.outlet.has_left = True
        self.tick()
        self.tick()

    def take(self) -> bytes | None:
        return next(self.pulse, None)


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Answer:
    return Answer(monkeypatch, can_tell=True)


def test_while_the_iterable_is_silent_the_hub_sends_signs_of_life(
    answer: Answer,
) -> None:
    def wait() -> None:
        for seconds in (0, 9, 10, 19, 20):
            answer.tick(seconds)

    answer.meanwhile = [wait]
    assert answer.take() == b"0"
    assert answer.outlet.beats == 2
    assert answer.pulse.phase is Phase.GOING_ON
    answer.tick(99)  # The server sends what it was given.
    answer.tick(199)
    assert answer.outlet.beats == 2
    answer.pulse.close()


def test_a_server_that_stops_has_the_response_end_with_its_last_words(
    answer: Answer,
) -> None:
    assert answer.take() == b"0"
    answer.meanwhile = [answer.stop]
    assert answer.take() == b"1"
    assert answer.pulse.phase is Phase.CUT
    assert answer.interrupts == [True]
    assert answer.take() == b"last words"
    assert answer.take() is None


def test_without_last_words_the_cut_is_the_server_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = Answer(monkeypatch, can_tell=False)
    answer.meanwhile = [answer.stop]
    assert [answer.take(), answer.take()] == [b"0", b"1"]
    assert (answer.pulse.phase, answer.interrupts) == (Phase.GOING_ON, [])
    answer.pulse.close()


def test_a_client_that_leaves_has_the_iterable_ended(answer: Answer) -> None:
    answer.meanwhile = [answer.leave]
    assert answer.take() is None
    assert (answer.pulse.phase, answer.interrupts) == (Phase.LEFT, [True])


@pytest.mark.parametrize("is_cut_first", [False, True])
def test_an_iterable_is_interrupted_once(answer: Answer, is_cut_first: bool) -> None:
    steps = [answer.stop, answer.leave]
    if not is_cut_first:
        steps.reverse()

    def both() -> None:
        for step in steps:
            step()

    answer.meanwhile = [both]
    list(answer.pulse)
    first = Phase.CUT if is_cut_first else Phase.LEFT
    assert (answer.pulse.phase, answer.interrupts) == (first, [True])


def test_an_iterable_that_cleans_up_is_not_interrupted(answer: Answer) -> None:
    answer.is_over = True
    answer.meanwhile = [answer.stop]
    assert answer.take() == b"0"
    assert (answer.pulse.phase, answer.interrupts) == (Phase.GOING_ON, [])
    answer.meanwhile = [answer.leave]
    assert answer.take() is None
    assert (answer.pulse.phase, answer.interrupts) == (Phase.LEFT, [False])


def test_who_is_interrupted_for_another_reason_is_told_so(answer: Answer) -> None:
    def kill() -> None:
        raise GeneratorExit

    answer.meanwhile = [kill]
    with pytest.raises(GeneratorExit):
        answer.take()
    assert answer.pulse.phase is Phase.GOING_ON
    answer.pulse.close()


# The beginning and the end


class Clock:
    """The hub, which tells pulses the time."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def keep_time(self, whom: object) -> None:
        self.told.append(whom)

    def forget(self, whom: object) -> None:
        self.told.remove(whom)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Clock:
    hub = Clock()
    monkeypatch.setattr(keepalive, "current_hub", lambda: hub)
    return hub


def test_the_hub_tells_it_the_time_from_its_first_item_to_its_end(
    answer: Answer, hub: Clock
) -> None:
    pulse = answer.pulse
    assert pulse.is_started is False
    answer.meanwhile = [lambda: answer.tick(99)]
    pulse.begin()
    assert hub.told == [pulse]
    assert pulse.is_started is True
    assert (answer.outlet.begins, answer.outlet.beats) == (1, 1)
    assert iter(pulse) is pulse
    assert list(pulse) == [b"%d" % number for number in range(9)]
    assert hub.told == []
    assert answer.outlet.closes == 1
    assert pulse.program is answer.outlet.program


def test_what_a_sign_of_life_has_begun_is_not_begun_again(
    answer: Answer, hub: Clock
) -> None:
    def beat() -> None:
        answer.outlet.is_begun = True

    answer.meanwhile = [beat]
    answer.pulse.begin()
    assert answer.outlet.begins == 0


def test_before_the_iterable_is_asked_for_an_item_it_is_not_silent(
    answer: Answer,
) -> None:
    answer.tick(99)
    answer.tick(199)
    assert answer.outlet.beats == 0


# The way of the items


def test_until_the_way_is_decided_the_outlet_is_asked_and_told(answer: Answer) -> None:
    outlet = answer.outlet
    assert [answer.take(), answer.take()] == [b"0", b"1"]
    assert (outlet.asked, outlet.given) == (2, [1, 1])
    outlet.phase = Way.DECIDED
    assert answer.take() == b"2"
    assert (outlet.asked, outlet.given) == (2, [1, 1])


def test_items_go_past_the_server_to_the_end(answer: Answer) -> None:
    sent: list[bytes] = []
    answer.outlet.send = sent.append
    assert answer.take() is None
    assert sent == [b"%d" % number for number in range(9)]


def test_when_the_client_has_left_nothing_more_goes_past_the_server(
    answer: Answer,
) -> None:
    sent: list[bytes] = []
    answer.outlet.send = sent.append
    answer.meanwhile = [lambda: None, answer.leave]
    assert answer.take() is None
    assert sent == [b"0"]


def test_an_item_that_cannot_be_sent_ends_the_response(
    answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    def send(piece: bytes) -> None:
        raise BrokenPipeError("gone")

    answer.outlet.send = send
    with caplog.at_level(logging.DEBUG, "flask_sse_lite"):
        assert answer.take() is None
    (record,) = caplog.records
    text = "An item could not be sent: BrokenPipeError('gone')"
    assert record.getMessage() == text


# The hub's looks


def test_a_sign_of_life_is_due_when_the_iterable_was_silent_for_some_time(
    answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulse, outlet = answer.pulse, answer.outlet
    beats: list[int] = []

    def wait() -> None:
        pulse._spoke_at = 1000.0
        for now in (1000 + 10 * DUE_SHARE - 0.001, 1000 + 10 * DUE_SHARE):
            pulse.tick(now)
            beats.append(outlet.beats)

    answer.meanwhile = [wait]
    answer.take()
    assert beats == [0, 1]


def test_an_item_puts_the_sign_of_life_off(answer: Answer) -> None:
    beats: list[int] = []
    now = time.monotonic()

    def wait() -> None:
        for seconds in (10, 14):
            answer.pulse.tick(now + seconds)
            beats.append(answer.outlet.beats)

    answer.meanwhile = [lambda: None, wait]
    answer.take()
    answer.pulse.tick(now + 5)
    answer.take()
    assert beats == [0, 1]


def test_a_sign_of_life_that_fails_is_the_last_and_told_of(
    answer: Answer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def beat() -> None:
        raise ZeroDivisionError("odd")

    monkeypatch.setattr(answer.outlet, "beat", beat)
    answer.meanwhile = [lambda: answer.tick(99)]
    with caplog.at_level(logging.DEBUG, "flask_sse_lite"):
        assert answer.take() == b"0"
    assert answer.outlet.last_beats == 1
    (record,) = caplog.records
    text = "A stream gets no signs of life: ZeroDivisionError('odd')"
    assert record.getMessage() == text


def test_a_sign_of_life_that_is_on_its_way_goes_before_the_next_item(
    answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    begun = threading.Event()

    def beat() -> None:
        begun.set()
        # The iterable has its item, and its thread wants to send that.
        until(lambda: not answer.pulse._is_silent, patient(10))
        sent.append("sign of life")

    monkeypatch.setattr(answer.outlet, "beat", beat)
    hub = threading.Thread(target=lambda: answer.tick(99))

    def wait() -> None:
        hub.start()
        assert begun.wait(patient(10))

    answer.meanwhile = [wait]
    answer.take()
    sent.append("item")
    hub.join()
    assert sent == ["sign of life", "item"]


class Progress:
    """A client that takes nothing from some time on."""

    def __init__(self, stuck_at: float) -> None:
        self._stuck_at = stuck_at
        self.cuts = 0

    def is_stuck(self, now: float) -> bool:
        return now >= self._stuck_at

    def cut(self) -> None:
        self.cuts += 1


def test_a_client_that_takes_nothing_is_cut_and_the_iterable_ended(
    answer: Answer,
) -> None:
    progress = answer.outlet.progress = Progress(time.monotonic() + 50)

    def wait() -> None:
        answer.tick(1)
        assert (answer.pulse.phase, progress.cuts) == (Phase.GOING_ON, 0)
        for _ in range(2):
            answer.tick(51)

    answer.meanwhile = [wait]
    assert answer.take() is None
    assert (answer.pulse.phase, answer.interrupts) == (Phase.LEFT, [True])
    assert progress.cuts == 1


# The server stops


@pytest.mark.parametrize(
    ("patience", "seconds"),
    [(30.0, 30 - MARGIN), (4 * MARGIN, 3 * MARGIN), (3.0, 1.5), (0.0, 0.0)],
)
@pytest.mark.parametrize("is_told", [False, True])
def test_a_response_ends_before_the_server_cuts_it(
    answer: Answer,
    monkeypatch: pytest.MonkeyPatch,
    patience: float,
    seconds: float,
    is_told: bool,
) -> None:
    monkeypatch.setattr(keepalive, "time", SimpleNamespace(monotonic=lambda: 1000.0))
    monkeypatch.setattr(gunicorn, "graceful_timeout", lambda: patience)
    answer.pulse.stop(patience if is_told else None)
    phases = []
    for now in (1000 + seconds - 0.001, 1000 + seconds):
        answer.pulse.tick(now)
        phases.append(answer.pulse.phase)
    assert phases == [Phase.GOING_ON, Phase.CUT]


def test_the_most_impatient_stop_counts(
    answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(keepalive, "time", SimpleNamespace(monotonic=lambda: now))
    for patience in (30, 20, 25):
        answer.pulse.stop(patience)
    answer.pulse.tick(now + 20 - MARGIN)
    assert answer.pulse.phase is Phase.CUT


@pytest.mark.parametrize("words", [b"", None])
def test_a_response_that_has_no_last_words_ends_without(
    answer: Answer,
    caplog: pytest.LogCaptureFixture,
    words: bytes | None,
) -> None:
    def say_last() -> bytes:
        if words is None:
            raise ZeroDivisionError
        return words

    answer.pulse._say_last = say_last
    answer.stop()
    assert answer.take() is None
    assert [bool(record.exc_info) for record in caplog.records] == (
        [True] if words is None else []
    )


def test_who_is_interrupted_to_say_its_last_words_says_them_at_once(
    answer: Answer,
) -> None:
    def stop() -> None:
        answer.stop()
        raise GeneratorExit

    answer.meanwhile = [stop]
    assert [answer.take(), answer.take()] == [b"last words", None]


def test_who_is_interrupted_because_its_client_left_ends(answer: Answer) -> None:
    def leave() -> None:
        answer.leave()
        raise GeneratorExit

    answer.meanwhile = [leave]
    assert answer.take() is None

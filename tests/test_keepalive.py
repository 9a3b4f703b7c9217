"""The pulse: what each phase of an iterable leads to, and who sends when."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from flask_sse_lite.hub import keepalive
from flask_sse_lite.hub.keepalive import Phase, Pulse
from flask_sse_lite.hub.outlet import Phase as Way
from flask_sse_lite.settings import Settings


class Outlet:
    """What the pulse asks of an outlet, without a server."""

    phase = Way.BEGUN
    program = None
    progress = None
    send = None

    def __init__(self, *_: object) -> None:
        self.is_begun = False
        self.has_left = False
        self.beats = 0

    def begin(self) -> None:
        self.is_begun = True

    def decide(self) -> None:
        """All goes through the server."""

    def note_given(self, size: int) -> None:
        """Nobody asks."""

    def is_client_gone(self) -> bool:
        return self.has_left

    def beat(self) -> None:
        self.beats += 1

    def close(self) -> None:
        """It has nothing to give back."""


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

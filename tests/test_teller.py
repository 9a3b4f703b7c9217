"""The thread that tells who comes and leaves, in a process that shares no store: when
it begins and ends, and what it outlives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping

import pytest

from flask_sse_lite import BrokerUnavailable
from flask_sse_lite.brokers.presence import Presence, Telling, Wish
from flask_sse_lite.brokers.teller import MemoryBoard, Teller
from flask_sse_lite.event import Event
from flask_sse_lite.history.log import Log

from .servers import until
from .stand_ins import run_on_gevent

#: Who is there, by channel.
Present = dict[str, Mapping[str, int]]

WISH = Wish(lambda channel: channel == "room", leave_after=0.0)


@pytest.fixture
def present() -> Present:
    return {}


@pytest.fixture
def log() -> Log:
    return Log(history=8, age=60)


@pytest.fixture
def board(log: Log, present: Present) -> MemoryBoard:
    return MemoryBoard(log, lambda: present)


@pytest.fixture
def teller(
    board: MemoryBoard, present: Present, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Teller]:
    monkeypatch.setattr("flask_sse_lite.brokers.teller.LOOK", 0.01)
    monkeypatch.setattr("flask_sse_lite.brokers.teller.EXPECTED", 0.0)
    teller = Teller(board, WISH, lambda: present)
    yield teller
    teller.close()
    until(lambda: not threads())


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "flask_sse_lite.teller"]


def test_the_thread_lives_as_long_as_somebody_is_there_or_is_told(
    teller: Teller, board: MemoryBoard, log: Log, present: Present
) -> None:
    before = log.sequence
    present["room"] = {"ann": 1}
    teller.expect()
    until(lambda: "room" in board.told)
    assert len(threads()) == 1
    teller.expect()
    assert len(threads()) == 1
    present.clear()
    until(lambda: not threads())
    assert not board.told
    assert log.sequence == before + 2  # A join and a leave.


def test_where_no_thread_can_be_started_the_caller_is_told_and_can_try_again(
    teller: Teller, board: MemoryBoard, present: Present
) -> None:
    present["room"] = {"ann": 1}

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(BrokerUnavailable, match="can't start new thread"):
            teller.expect()
    teller.expect()
    until(lambda: "room" in board.told)


def test_a_teller_that_was_closed_begins_no_thread(
    teller: Teller, present: Present, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[threading.Thread] = []
    monkeypatch.setattr(threading.Thread, "start", started.append)
    present["room"] = {"ann": 1}
    teller.close()
    teller.expect()
    assert not started


def test_who_comes_while_the_thread_ends_has_another(
    teller: Teller, board: MemoryBoard, present: Present
) -> None:
    needed, seen = teller._is_needed, []

    def is_needed() -> bool:
        seen.append(threading.current_thread())
        if len(seen) > 1:
            return needed()
        present["room"] = {"ann": 1}
        return False

    teller._is_needed = is_needed  # type: ignore[method-assign]
    teller.expect()
    until(lambda: "room" in board.told)
    assert len(set(seen)) == 2


@pytest.mark.parametrize("step", ["tell", "_is_needed"])
@pytest.mark.parametrize("fault", [RuntimeError("full"), KeyboardInterrupt()])
def test_an_error_is_logged_and_the_thread_goes_on(
    teller: Teller,
    board: MemoryBoard,
    present: Present,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: BaseException,
    step: str,
) -> None:
    owner = Presence if step == "tell" else teller
    real: Callable[..., bool] = getattr(owner, step)
    calls = []

    def fail_once(*args: object) -> bool:
        calls.append(args)
        if len(calls) == 1:
            raise fault
        return real(*args)

    monkeypatch.setattr(owner, step, fail_once)
    present["room"] = {"ann": 1}
    teller.expect()
    until(lambda: "room" in board.told)
    (record,) = caplog.records
    assert record.exc_info
    assert record.exc_info[1] is fault


def test_a_decision_that_another_has_overtaken_is_not_told(
    board: MemoryBoard, log: Log
) -> None:
    number = board.roll(1.0, is_urgent=False).number
    telling = [Telling("ann", Event("ann is here"), True, None)]
    assert board.tell("room", number, telling) == []
    before = log.sequence
    assert board.tell("room", number, telling) is None
    assert log.sequence == before


def test_another_greenlet_goes_on_where_the_teller_s_is_killed() -> None:
    run_on_gevent(
        """
import gevent
from flask_sse_lite.brokers import teller as telling
from flask_sse_lite.history.log import Log
from tests.stand_ins import greenlet_of
from tests.test_teller import WISH, until

telling.LOOK = 0.01
log, present = Log(history=8, age=60), {"room": {"ann": 1}}
board = telling.MemoryBoard(log, lambda: present)
teller = telling.Teller(board, WISH, lambda: present)
teller.expect()
until(lambda: "room" in board.told)
(thread,) = teller._looking.values()
gevent.kill(greenlet_of(thread))
present.clear()
until(lambda: not board.told)
teller.close()
"""
    )

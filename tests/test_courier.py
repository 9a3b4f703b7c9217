"""The courier: when receivers are called, in which order, and what a bad one costs."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from blinker import Signal
from flask import Flask, current_app, g

from flask_sse_lite.signals import courier as module
from flask_sse_lite.signals.courier import THREAD, Courier

from .documentation import ROOT
from .patience import patient
from .servers import until

PATIENCE = patient(10)


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no test waits at its end for the thread's."""
    monkeypatch.setattr(module, "LINGER", 0.02)


@pytest.fixture
def application() -> Flask:
    return Flask("application")


@pytest.fixture
def courier(application: Flask) -> Courier:
    return Courier(application, application.app_context)


class Receiver:
    """A receiver that notes what it is told. It can be held at a gate."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.is_there = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, sender: Flask, *, number: int = 0, **facts: Any) -> None:
        self.is_there.set()
        assert self.gate.wait(PATIENCE)
        self.told.append(number)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.gate.set()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


def hold(courier: Courier, signal: Signal, receiver: Receiver) -> None:
    """Have the courier's thread wait in the receiver, with signal number 0."""
    signal.connect(receiver)
    receiver.gate.clear()
    courier.tell(signal, number=0)
    assert receiver.is_there.wait(PATIENCE)


def test_receivers_are_told_in_order_and_in_a_thread_of_their_own(
    courier: Courier, application: Flask
) -> None:
    signal, told, where = Signal(), [], set()

    @signal.connect
    def receiver(sender: Flask, number: int) -> None:
        assert sender is application
        assert current_app == application
        assert not hasattr(g, "number")  # The context is the signal's own.
        g.number = number
        told.append(number)
        where.add(threading.current_thread().name)

    for number in range(100):
        courier.tell(signal, number=number)
    assert courier.settle(PATIENCE)
    assert told == list(range(100))
    assert where == {THREAD}


def test_only_receivers_of_this_application_are_told(
    courier: Courier, application: Flask
) -> None:
    signal, mine, others = Signal(), Receiver(), Receiver()
    signal.connect(mine, application)
    signal.connect(others, Flask("other"))
    courier.tell(signal, number=1)
    assert courier.settle(PATIENCE)
    assert (mine.told, others.told) == ([1], [])


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, KeyboardInterrupt])
def test_a_receiver_that_raises_is_logged_and_harms_no_other(
    courier: Courier,
    error: type[BaseException],
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    signal = Signal()

    def raising(sender: Flask, number: int) -> None:
        raise error

    def raising_too(sender: Flask, number: int) -> None:
        raise error

    for each in (raising, receiver, raising_too):
        signal.connect(each)
    for number in range(2):
        courier.tell(signal, number=number)
    assert courier.settle(PATIENCE)
    assert receiver.told == [0, 1]
    assert (
        caplog.text.count("A receiver of the signal") == 2
    )  # Each is told of once a minute.
    assert "raising_too" in caplog.text


def test_a_context_that_fails_is_logged_and_the_next_signal_is_sent(
    application: Flask, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    contexts = [application.app_context]

    @application.teardown_appcontext
    def tear_down(error: BaseException | None) -> None:
        if not receiver.told[-1]:
            raise ZeroDivisionError

    courier = Courier(application, lambda: contexts[0]())
    signal = Signal()
    signal.connect(receiver)
    for number in range(2):
        courier.tell(signal, number=number)
    assert courier.settle(PATIENCE)
    assert receiver.told == [0, 1]
    assert caplog.text.count("context of the signal") == 1


def test_a_coroutine_is_a_receiver_too(application: Flask) -> None:
    told = []

    def ensure_sync(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(sender: Flask, **facts: Any) -> None:
            function(sender, **facts).close()
            told.append(facts)

        return call

    # Flask's own way needs asgiref, which need not be installed.
    application.ensure_sync = ensure_sync  # type: ignore[method-assign,assignment]
    courier, signal = Courier(application, application.app_context), Signal()

    async def receiver(sender: Flask, number: int) -> None:
        """It is made synchronous by the application."""

    signal.connect(receiver)
    courier.tell(signal, number=1)
    assert courier.settle(PATIENCE)
    assert told == [{"number": 1}]


def test_a_muted_signal_is_not_sent(courier: Courier, receiver: Receiver) -> None:
    signal = Signal()
    signal.connect(receiver)
    with signal.muted():
        courier.tell(signal, number=1)
        assert courier.settle(PATIENCE)
    assert receiver.told == []


def test_whoever_tells_waits_for_no_receiver(
    courier: Courier, receiver: Receiver
) -> None:
    signal = Signal()
    hold(courier, signal, receiver)
    for number in range(1, 50):
        courier.tell(signal, number=number)
    assert receiver.told == []
    receiver.gate.set()
    assert courier.settle(PATIENCE)
    assert receiver.told == list(range(50))


def test_a_full_queue_drops_counts_and_warns_once(
    courier: Courier,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 5)
    signal = Signal()

    def again() -> list[str]:
        logged = [record.getMessage() for record in caplog.records]
        return [line for line in logged if "Signals are sent again" in line]

    for round, dropped in enumerate((4, 8), 1):
        hold(courier, signal, receiver)
        for number in range(1, 10):
            courier.tell(signal, number=number)
        assert courier.dropped == dropped
        receiver.gate.set()
        assert courier.settle(PATIENCE)
        assert receiver.told == [0, 1, 2, 3, 4, 5]
        receiver.told.clear()
        receiver.is_there.clear()
        # settle returns before the thread has logged that all is well again.
        until(lambda n=round: len(again()) == n, PATIENCE)  # type: ignore[misc]
        assert f"Until now {dropped} were dropped" in again()[-1]
    assert caplog.text.count("Signals are dropped") == 2
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_large_data_fills_the_queue_sooner(
    courier: Courier, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_CHARACTERS", 100)
    signal = Signal()
    hold(courier, signal, receiver)
    for number in range(1, 5):
        courier.tell(signal, 40, number=number)
    courier.tell(signal, number=5)
    receiver.gate.set()
    assert courier.settle(PATIENCE)
    assert receiver.told == [0, 1, 2, 5]
    assert courier.dropped == 2
    # What was sent weighs nothing any more.
    courier.tell(signal, 100, number=6)
    assert courier.settle(PATIENCE)
    assert receiver.told[-1] == 6


def test_the_thread_stays_while_something_will_be_told(
    courier: Courier, receiver: Receiver
) -> None:
    before = set(threads())
    whom = object()
    courier.stay_for(whom)
    (thread,) = set(threads()) - before
    # A thread that lingers would be gone by then.
    thread.join(10 * module.LINGER)
    assert thread.is_alive()
    courier.leave(whom)
    courier.leave(whom)
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_what_looks_around_is_called_while_somebody_is_expected_and_behind_all(
    courier: Courier,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "LOOK_INTERVAL", 0.01)
    looks = []

    def look() -> None:
        looks.append(threading.current_thread().name)
        if len(looks) == 2:
            raise ZeroDivisionError

    courier.looks.append(look)
    whom = object()
    courier.stay_for(whom)
    assert courier.expected() == [whom]
    until(lambda: len(looks) > 5, PATIENCE)
    monkeypatch.setattr(module, "LOOK_INTERVAL", 3600.0)
    # A call that goes on with the old interval comes to its end.
    courier.settle(PATIENCE)
    courier.settle(PATIENCE)
    before = len(looks)
    courier.leave(whom)
    until(lambda: len(looks) > before, PATIENCE)
    assert set(looks) == {THREAD}
    assert caplog.text.count("SSE-E23") == 1


def test_a_thread_that_has_ended_is_followed_by_another(
    courier: Courier, receiver: Receiver
) -> None:
    signal = Signal()
    signal.connect(receiver)
    for number in range(3):
        before = set(threads())
        courier.tell(signal, number=number)
        assert courier.settle(PATIENCE)
        for thread in set(threads()) - before:
            thread.join(PATIENCE)
            assert not thread.is_alive()
    assert receiver.told == [0, 1, 2]


def test_many_threads_tell_at_once_and_nothing_is_lost(
    courier: Courier, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The courier's thread ends and begins all the time.
    monkeypatch.setattr(module, "LINGER", 0)
    signal = Signal()
    signal.connect(receiver)

    def tell(first: int) -> None:
        for number in range(first, first + 200):
            courier.tell(signal, number=number)

    tellers = [threading.Thread(target=tell, args=[n * 1000]) for n in range(8)]
    for teller in tellers:
        teller.start()
    for teller in tellers:
        teller.join()
    assert courier.settle(PATIENCE)
    assert sorted(receiver.told) == [n * 1000 + m for n in range(8) for m in range(200)]
    for n in range(8):
        own = [number for number in receiver.told if number // 1000 == n]
        assert own == sorted(own)


def test_where_no_thread_can_be_started_the_next_signal_tries_again(
    courier: Courier, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal = Signal()
    signal.connect(receiver)

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        courier.tell(signal, number=1)
        assert not courier.settle(PATIENCE)
    courier.tell(signal, number=2)
    assert courier.settle(PATIENCE)
    assert receiver.told == [1, 2]


#: A process that exits while a receiver hangs, and another signal waits.
EXITING = """
import sys, threading, time
from blinker import Signal
from flask import Flask
from flask_sse_lite.signals import courier as module

if "go on" in sys.argv:
    module.EXIT_PATIENCE = 30.0  # On a busy machine the end takes longer.

app, signal, is_there = Flask("application"), Signal(), threading.Event()
courier = module.Courier(app, app.app_context)

@signal.connect
def receiver(sender, number):
    is_there.set()
    if "hang" in sys.argv:
        threading.Event().wait()
    print(number, flush=True)

for number in range(3):
    courier.tell(signal, number=number)
is_there.wait()
"""


@pytest.mark.parametrize(("way", "told"), [("go on", ["0", "1", "2"]), ("hang", [])])
def test_an_exiting_process_tells_what_is_left_and_waits_for_nobody_for_long(
    way: str, told: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXITING, way],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=patient(30),
        check=True,
    )
    assert done.stdout.split() == told

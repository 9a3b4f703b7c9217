"""Locks that never wait for their own thread: code that interrupts a holder is told."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from flask_sse_lite.errors import Reentered
from flask_sse_lite.system.locks import Alarm, Guard, Room, Section

from .patience import patient

SOON = patient(10.0)


def elsewhere(function: Callable[[], object]) -> object:
    """What a call returns in another thread."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join(SOON)
    return found[0]


class TestSection:
    def test_who_interrupts_its_holder_is_told_at_once(self) -> None:
        section = Section(lambda: None)
        with section:
            with pytest.raises(Reentered), section:
                pass
            assert not section.enter_at_once()
        with section:
            pass  # It was left as it was entered.

    def test_another_thread_does_not_get_it_at_once(self) -> None:
        section = Section(lambda: None)
        with section:
            assert elsewhere(section.enter_at_once) is False
        assert section.enter_at_once()
        assert elsewhere(section.enter_at_once) is False
        section.leave()

        def enter_and_leave() -> bool:
            is_entered = section.enter_at_once()
            section.leave()
            return is_entered

        assert elsewhere(enter_and_leave) is True

    def test_what_was_left_to_the_holder_is_done_behind_its_step(self) -> None:
        done: list[bool] = []

        def settle() -> None:
            section.has_left = False
            with section:
                done.append(True)

        section = Section(settle)
        with section:
            section.has_left = True
            assert not done
        assert done == [True]

    def test_what_cannot_be_done_now_stays_left(self) -> None:
        def settle() -> None:
            section.has_left = False
            raise Reentered

        section = Section(settle)
        with section:
            section.has_left = True
        assert section.has_left


class TestGuard:
    def test_who_interrupts_its_holder_is_told(self) -> None:
        guard = Guard()
        with guard:
            assert guard.is_entered
            with pytest.raises(Reentered):
                guard.acquire()
            assert not guard.acquire(timeout=0)
            assert guard.is_entered
        assert not guard.is_entered
        assert guard.acquire(timeout=0)
        guard.release()

    def test_another_thread_waits_no_longer_than_it_says(self) -> None:
        guard = Guard()
        with guard:
            assert elsewhere(lambda: guard.acquire(timeout=0.01)) is False
            assert elsewhere(lambda: guard.is_entered) is False
        assert not guard.is_entered

    def test_who_interrupts_a_waiter_gets_it_if_it_is_free(self) -> None:
        guard = Guard()
        guard._inside.enter()  # As a thread has that begins to wait.
        assert guard.acquire()
        guard.release()
        assert guard.is_entered
        guard._inside.leave()
        assert not guard.is_entered


class TestRoom:
    def test_a_place_is_waited_for_no_longer_than_asked(self) -> None:
        room = Room(1)
        assert room.acquire(SOON)
        assert elsewhere(lambda: room.acquire(0.01)) is False
        room.release()
        assert elsewhere(lambda: room.acquire(0.01)) is True

    def test_who_got_no_place_is_not_inside(self) -> None:
        room = Room(1)
        assert room.acquire(SOON)
        assert elsewhere(lambda: [room.acquire(0), room.acquire(0)]) == [False, False]
        room.release()

    def test_who_interrupts_one_inside_needs_no_place(self) -> None:
        room = Room(1)
        assert room.acquire(SOON)
        assert room.acquire(0)
        room.release()
        assert elsewhere(lambda: room.acquire(0.01)) is False
        room.release()
        assert elsewhere(lambda: room.acquire(0.01)) is True


class TestAlarm:
    def test_one_that_was_set_ends_the_next_sleep_and_only_that(self) -> None:
        alarm = Alarm()
        alarm.set()
        alarm.set()
        assert alarm.wait(SOON)
        assert not alarm.wait(0)

    def test_a_sleeper_in_another_thread_is_woken(self) -> None:
        alarm = Alarm()
        threading.Timer(0, alarm.set).start()
        assert alarm.wait()

    def test_a_race_of_two_that_wake_is_no_error(self) -> None:
        class Raced:
            def locked(self) -> bool:
                return True

            def release(self) -> None:
                raise RuntimeError("release unlocked lock")

        alarm = Alarm()
        alarm._asleep = Raced()  # type: ignore[assignment]
        alarm.set()

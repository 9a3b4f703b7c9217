"""Locks that never wait for their own thread.

Foreign code can interrupt ours at any point: a signal handler, a ``__del__``, a
callback of the garbage collector or of a weak reference. Such code runs in the thread
that it interrupts, and can call any public method. If that thread holds a plain lock,
the interrupting code would wait for it for ever: the holder goes on only when that code
has returned. The locks here raise ``Reentered`` instead, or let the code through.

What the locks guard is never known here.
"""

from __future__ import annotations

import threading

# Not from threading: there, gevent puts Python code in its place, which can be
# interrupted between taking the lock and noting its owner.
from _thread import RLock as RLock
from collections.abc import Callable

from ..errors import Reentered
from .gevent import can_wait


class Section:
    """A lock for short steps that never wait, so that no greenlet gives way inside one.

    Code that interrupts the holder gets ``Reentered`` at once. It can instead leave
    work for the holder, and set ``has_left``.

    :param settle: does the work that was left. A holder calls it after its step,
        without the lock, as long as ``has_left`` is set. It must first clear
        ``has_left``.
    """

    __slots__ = ("_is_busy", "_lock", "_settle", "has_left")

    def __init__(self, settle: Callable[[], None]) -> None:
        self._lock = RLock()
        #: Whether a step is under way. While it is False, the holder has nothing half
        #: done, so code that interrupts the holder then can do its own step first.
        self._is_busy = False
        self._settle = settle
        self.has_left = False

    def __enter__(self) -> None:
        self._lock.acquire()
        if self._is_busy:
            self._lock.release()
            raise Reentered
        self._is_busy = True

    def __exit__(self, *_: object) -> None:
        self._is_busy = False
        self._lock.release()
        while self.has_left:
            try:
                self._settle()
            except Reentered:
                self.has_left = True  # The interrupted holder settles it.
                return

    def enter_at_once(self) -> bool:
        """Enter, if that needs no waiting. After True, the caller must call ``leave``.

        :returns: whether the section was entered; False where ``with`` would wait or
            raise ``Reentered``.
        """
        if not self._lock.acquire(blocking=False):
            return False
        if self._is_busy:
            self._lock.release()
            return False
        self._is_busy = True
        return True

    def leave(self) -> None:
        self.__exit__()


class _Inside:
    """Which threads or greenlets are inside something. Each is marked before it waits
    to enter, and until after it has left: at no moment is it inside and not marked."""

    def __init__(self) -> None:
        self._depths: dict[int, int] = {}

    def enter(self) -> bool:
        """Mark this thread or greenlet.

        :returns: whether it was marked already: this call interrupts it inside.
        """
        me = threading.get_ident()
        depth = self._depths.get(me, 0)
        # Code that interrupts between these two lines restores the depth before it
        # returns, so ``depth`` is still right.
        self._depths[me] = depth + 1
        return depth > 0

    def is_marked(self) -> bool:
        """Whether this thread or greenlet is inside, itself or as interrupted code."""
        return threading.get_ident() in self._depths

    def is_nested(self) -> bool:
        """Whether this call runs inside twice: it has interrupted code that is inside.
        The caller must be marked."""
        return self._depths[threading.get_ident()] > 1

    def leave(self) -> None:
        me = threading.get_ident()
        if self._depths[me] > 1:
            self._depths[me] -= 1
        else:
            del self._depths[me]


class Guard:
    """A lock whose holder can wait for something while it holds the lock.

    Code that interrupts a thread which holds the lock, or waits for it, gets the lock
    if it is free. Otherwise that code gets ``Reentered``. So does gevent's hub
    greenlet, which cannot wait.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = _Inside()

    def acquire(self, timeout: float = -1) -> bool:
        """Take the lock.

        :param timeout: seconds to wait at most. 0 never waits and never raises
            ``Reentered``; -1 waits without a limit.
        :returns: whether the lock was taken.
        """
        is_nested = self._inside.enter()
        is_held = False
        try:
            is_held = self._lock.acquire(blocking=False)
            if not is_held and timeout != 0:
                if is_nested or not can_wait():
                    raise Reentered
                is_held = self._lock.acquire(timeout=timeout)
        finally:
            if not is_held:
                self._inside.leave()
        return is_held

    def release(self) -> None:
        self._lock.release()
        self._inside.leave()

    @property
    def is_entered(self) -> bool:
        """Whether this thread or greenlet holds the lock or waits for it, itself or in
        the code that was interrupted."""
        return self._inside.is_marked()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Room:
    """A bounded number of threads or greenlets at once. Code that interrupts one which
    has a place, or waits for a place, is let in without a place of its own."""

    def __init__(self, places: int) -> None:
        self._places = threading.Semaphore(places)
        self._inside = _Inside()

    def acquire(self, timeout: float) -> bool:
        """:returns: whether there was a place within ``timeout`` seconds."""
        if self._inside.enter():
            return True
        is_there = False
        try:
            is_there = self._places.acquire(blocking=False)
            if not is_there and can_wait():
                is_there = self._places.acquire(timeout=timeout)
        finally:
            if not is_there:
                self._inside.leave()
        return is_there

    def release(self) -> None:
        if not self._inside.is_nested():
            self._places.release()
        self._inside.leave()


class Alarm:
    """Wakes one sleeper. Any thread can call ``set``, also from code that has
    interrupted ``set`` or ``wait``. ``threading.Event`` has an inner lock, for which
    such code would wait for ever."""

    __slots__ = ("_asleep",)

    def __init__(self) -> None:
        # While the lock is held, the sleeper sleeps. Releasing it wakes the sleeper.
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def set(self) -> None:
        """End the sleep that goes on, or else the next one."""
        if self._asleep.locked():
            try:
                self._asleep.release()
            except RuntimeError:
                pass  # Another thread has released it first: the sleeper wakes anyway.

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep until ``set`` is called.

        :param timeout: seconds to sleep at most; None for no limit.
        :returns: whether ``set`` was called.
        """
        return self._asleep.acquire(timeout=-1 if timeout is None else timeout)

"""Locks that never wait for their own thread.

Here lives what is done where code of others interrupts ours in the middle: a signal
handler, a ``__del__``, a callback of the garbage collector or of a weak reference. It
runs in the thread that it interrupts, and may call any public verb. A plain lock that
this thread holds would have it wait for ever, as its holder goes on only behind it.
What the locks guard is unknown here.
"""

from __future__ import annotations

import threading

# Of gevent's making it would be Python code, which can itself be interrupted between
# taking the lock and noting its owner.
from _thread import RLock as RLock
from collections.abc import Callable

from ..errors import Reentered


class Section:
    """A lock for short steps that never wait, so that no greenlet gives way in it.

    Whoever interrupts its holder gets ``Reentered`` at once. It can leave something to
    be done by the holder instead, and set ``has_left``.

    :param settle: called by a holder behind its step, without the lock, as long as
        ``has_left`` is set; it clears that first.
    """

    __slots__ = ("_is_busy", "_lock", "_settle", "has_left")

    def __init__(self, settle: Callable[[], None]) -> None:
        self._lock = RLock()
        #: Whether a step goes on. Before it is set, and once it is cleared, the lock's
        #: holder has nothing half done, and who interrupts it there just comes first.
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
                self.has_left = True  # Whoever is at work does it.
                return

    def enter_at_once(self) -> bool:
        """As ``with``, unless that would wait or raise; to be followed by ``leave``.

        :returns: whether it could be done.
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
    """Which threads or greenlets are inside of something. One is marked from before it
    waits until it has left, so that there is no moment at which it is inside and not
    marked."""

    def __init__(self) -> None:
        self._depths: dict[int, int] = {}

    def enter(self) -> bool:
        """:returns: whether this one is there already, and was interrupted there."""
        me = threading.get_ident()
        depth = self._depths.get(me, 0)
        # Whoever interrupts this has left again before it goes on.
        self._depths[me] = depth + 1
        return depth > 0

    def is_marked(self) -> bool:
        """Whether this one is there, or the one that it has interrupted."""
        return threading.get_ident() in self._depths

    def is_nested(self) -> bool:
        """Whether the one whom this one has interrupted is there, too."""
        return self._depths[threading.get_ident()] > 1

    def leave(self) -> None:
        me = threading.get_ident()
        if self._depths[me] > 1:
            self._depths[me] -= 1
        else:
            del self._depths[me]


class Guard:
    """A lock that may be held while its holder waits for something.

    Whoever interrupts a thread that holds it, or waits for it, gets it if that can be
    at once, and ``Reentered`` otherwise.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = _Inside()

    def acquire(self, timeout: float = -1) -> bool:
        """:param timeout: seconds to wait at most; 0 for not at all, and without
            ``Reentered``; -1 for as long as it takes.
        :returns: whether it was to be had.
        """
        is_nested = self._inside.enter()
        is_held = False
        try:
            if is_nested or timeout == 0:
                is_held = self._lock.acquire(blocking=False)
            else:
                is_held = self._lock.acquire(timeout=timeout)
            if is_nested and not is_held and timeout != 0:
                raise Reentered
        finally:
            if not is_held:
                self._inside.leave()
        return is_held

    def release(self) -> None:
        self._lock.release()
        self._inside.leave()

    @property
    def is_entered(self) -> bool:
        """Whether this thread or greenlet, or the one that it has interrupted, holds it
        or waits for it."""
        return self._inside.is_marked()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Room:
    """Places for so many threads or greenlets at once. Whoever interrupts one that has
    a place, or waits for one, needs none of its own."""

    def __init__(self, places: int) -> None:
        self._places = threading.Semaphore(places)
        self._inside = _Inside()

    def acquire(self, timeout: float) -> bool:
        """:returns: whether there was a place in time."""
        if self._inside.enter():
            return True
        is_there = False
        try:
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
    """Wakes one sleeper. Any thread may set it off, also one that is interrupted while
    it does so or while it goes to sleep: ``threading.Event`` has a lock of its own."""

    __slots__ = ("_asleep",)

    def __init__(self) -> None:
        # A lock that is held is a sleep; to release it is to wake the sleeper.
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def set(self) -> None:
        """End the sleep, or the one that comes next."""
        if self._asleep.locked():
            try:
                self._asleep.release()
            except RuntimeError:
                pass  # Another thread was faster. That is as good.

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep until it is set off.

        :param timeout: seconds to sleep at most; None for no bound.
        :returns: whether it was.
        """
        return self._asleep.acquire(timeout=-1 if timeout is None else timeout)

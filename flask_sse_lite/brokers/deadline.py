"""Deadlines: the moment by which a call must have a store's answer.

All waits of one public call share one deadline: the waits for a lock, for a connection,
and for each round trip. What is waited for is unknown here.
"""

from __future__ import annotations

import threading
import time

from ..errors import BrokerUnavailable

#: The part of a timeout that a store must have had before its silence means that it is
#: away. A call that spent its time in a queue proves nothing about the store.
FAIR_PART = 0.5


class OutOfTime(BrokerUnavailable):
    """A call's time was over before the store had its fair part of that time."""


class Deadline:
    """A moment, some seconds from now.

    :param seconds: how far away that is. All waits until then share these seconds.
    """

    __slots__ = ("_end", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until then; 0 from then on."""
        return max(0.0, self._end - time.monotonic())

    @property
    def is_fair(self) -> bool:
        """Whether a wait that begins now gives the store its fair part of the time."""
        return self.left >= self.seconds * FAIR_PART


class Deadlines:
    """The deadlines of the calls that threads, or greenlets, are in."""

    def __init__(self) -> None:
        #: Not a ``threading.local``: gevent can patch threads when this module is
        #: imported already (gunicorn's ``--preload``), and all greenlets would share
        #: one deadline.
        self.by_thread: dict[int, Deadline] = {}

    @property
    def current(self) -> Deadline | None:
        """The deadline of the call that this thread, or greenlet, is in."""
        return self.by_thread.get(threading.get_ident())

    def within(self, seconds: float) -> Within:
        """Set the deadline of a block, some seconds from now. Inside of another such
        block, the other's deadline holds."""
        return Within(self, seconds)


class Within:
    """A block with a deadline, which is that of the whole call. Every publish enters
    some, and a generator for each would cost more than all else here."""

    __slots__ = ("_by_thread", "_outermost_of", "_seconds")

    def __init__(self, deadlines: Deadlines, seconds: float) -> None:
        self._by_thread = deadlines.by_thread
        self._seconds = seconds
        #: The thread whose outermost block this is, if it is one.
        self._outermost_of: int | None = None

    def __enter__(self) -> Deadline:
        me = threading.get_ident()
        if outer := self._by_thread.get(me):
            return outer
        self._outermost_of = me
        self._by_thread[me] = deadline = Deadline(self._seconds)
        return deadline

    def __exit__(self, *_: object) -> None:
        if self._outermost_of is not None:
            del self._by_thread[self._outermost_of]

"""Deadlines: until when a call that asks a store must have its answer.

Here lives what all waits of one public call share: for a lock, for a connection and for
each round trip. A call has one deadline, however many of these it makes. What is waited
for is unknown here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import BrokerUnavailable

#: The part of a timeout that a store must have had before its silence says that it is
#: away. A call that spent its time in a queue says nothing of the store.
FAIR_PART = 0.5


class OutOfTime(BrokerUnavailable):
    """A call's time was over before the store had its fair part of that time."""


class Deadline:
    """A moment, so many seconds from now.

    :param seconds: all that is waited until then, together.
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
        """Whether a wait that begins now has a fair part of the time."""
        return self.left >= self.seconds * FAIR_PART


class Deadlines(threading.local):
    """The deadline of the call that this thread, or greenlet, is in."""

    current: Deadline | None = None

    @contextmanager
    def within(self, seconds: float) -> Iterator[Deadline]:
        """Have the block end within so many seconds, or within the time of the call
        that it is a part of.

        :returns: the deadline of the whole call.
        """
        if outer := self.current:
            yield outer
            return
        self.current = deadline = Deadline(seconds)
        try:
            yield deadline
        finally:
            self.current = None
